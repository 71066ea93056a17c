"""Databases for the tests of a file that only look at them, or take back what they do."""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.executors import NoopExecutor


@pytest.fixture(scope="module")
def shared_dsns(
    _admin: psycopg.Connection, migrated: NoopExecutor, server: Any, worker_id: str
) -> Iterator[Callable[..., str]]:
    """shared_dsns(): the URL of one more database that this file's tests share, migrated or empty."""
    names: list[str] = []

    def drop(name: str) -> None:
        _admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def shared_dsns(*, empty: bool = False) -> str:
        name = f"pycheckout_shared_{worker_id}_{len(names) + 1}"
        drop(name)
        made = sql.SQL("create database {} template {} strategy file_copy")
        template = "template0" if empty else migrated.template_dbname
        _admin.execute(made.format(sql.Identifier(name), sql.Identifier(template)))
        names.append(name)
        return str(server.dsn(name))

    yield shared_dsns
    for name in names:
        drop(name)


@pytest.fixture(scope="module")
def shared_dsn(shared_dsns: Callable[..., str]) -> str:
    """The URL of the first of them."""
    return shared_dsns()


@pytest.fixture(scope="module")
def shared_db(shared_dsn: str) -> Iterator[psycopg.Connection]:
    """A connection to it, autocommit on."""
    with psycopg.connect(shared_dsn, autocommit=True, options="-c statement_timeout=30s") as conn:
        yield conn


@pytest.fixture
def undone(shared_db: psycopg.Connection) -> Iterator[psycopg.Connection]:
    """The same connection in a transaction of this test alone, which is rolled back at its end."""
    with shared_db.transaction(force_rollback=True):
        yield shared_db
