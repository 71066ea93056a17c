"""Databases for the tests of a file that only look at them, or take back what they do."""

from collections.abc import Callable, Iterator
from typing import Any

import clones
import psycopg
import pytest
from psycopg.rows import dict_row
from pytest_postgresql.executors import NoopExecutor

from checks import taken_back


@pytest.fixture(scope="module")
def shared_dsns(
    _admin: psycopg.Connection, migrated: NoopExecutor, server: Any, worker_id: str
) -> Iterator[Callable[..., str]]:
    """shared_dsns(): the URL of one more database that this file's tests share, migrated or empty."""
    names: list[str] = []

    def shared_dsns(*, empty: bool = False) -> str:
        name = f"pycheckout_shared_{worker_id}_{len(names) + 1}"
        clones.make(_admin, name, "template0" if empty else migrated.template_dbname)
        names.append(name)
        return str(server.dsn(name))

    yield shared_dsns
    for name in names:
        clones.drop(_admin, name)


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
def undone(shared_db: psycopg.Connection, request: pytest.FixtureRequest) -> Iterator[psycopg.Connection]:
    """The same connection in a transaction of this test alone. Before the end, checkout_audit() must find nothing."""
    with taken_back(shared_db):
        yield shared_db
        if request.node.get_closest_marker("breaks_invariants") is None:
            broken = shared_db.cursor(row_factory=dict_row).execute("select * from checkout_audit()").fetchall()
            assert broken == [], "checkout_audit() found broken invariants"


# What a test asks for that has other sessions too, which see nothing that is not committed.
_SESSIONS = {"connect", "database", "dsn", "login", "pool", "postgresql", "psql"}


@pytest.fixture
def undone_if_alone(request: pytest.FixtureRequest) -> psycopg.Connection:
    """For a file's own `db`: `undone`, or the usual one for a test with sessions or that is marked to use `dsn`."""
    if _SESSIONS.isdisjoint(request.fixturenames):
        return request.getfixturevalue("undone")  # type: ignore[no-any-return]
    return request.getfixturevalue("connect")(autocommit=True)  # type: ignore[no-any-return]
