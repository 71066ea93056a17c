"""One database for the tests of a file that only look at it, or take back what they do."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from pytest_postgresql.executors import NoopExecutor


@pytest.fixture(scope="module")
def shared_dsn(_admin: psycopg.Connection, migrated: NoopExecutor, server: Any, worker_id: str) -> Iterator[str]:
    """The URL of a migrated database that this file's tests share."""
    name = f"pycheckout_shared_{worker_id}"
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    _admin.execute(drop)
    _admin.execute(
        sql.SQL("create database {} template {} strategy file_copy").format(
            sql.Identifier(name), sql.Identifier(migrated.template_dbname)
        )
    )
    yield server.dsn(name)
    _admin.execute(drop)


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
