"""Roles of a test's own."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from checks import values

PASSWORD = "of-a-test"


@pytest.fixture
def new_role(db: psycopg.Connection, worker_id: str) -> Iterator[Callable[..., str]]:
    """new_role(): the name of a new login role. Roles are the cluster's, so this one is dropped at the end."""
    names: list[str] = []

    def drop(name: str) -> None:
        if values(db, "select 1 from pg_roles where rolname = %s", name):
            db.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))

    def new_role(suffix: str = "") -> str:
        name = f"pycheckout_{worker_id}_{len(names)}{suffix}"
        drop(name)
        db.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(PASSWORD)))
        names.append(name)
        return name

    yield new_role
    for name in names:
        drop(name)


@pytest.fixture
def login(dsn: str, connect: Callable[..., psycopg.Connection]) -> Callable[..., psycopg.Connection]:
    """login(role): a connection of a role to this test's database, autocommit on."""
    return lambda role: connect(user=role, password=PASSWORD, autocommit=True)
