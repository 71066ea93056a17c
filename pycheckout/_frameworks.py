"""The psycopg connection under what a framework calls one, for the length of a call.

Its transaction is the framework's, and is neither begun anew nor ended here. But PostgreSQL answers the COMMIT of a
transaction that has failed with a ROLLBACK and no error. A host that caught our error would commit, and lose its own
rows without a word. So what the framework holds is marked: it refuses then.

Nothing is imported here that the host has not imported: an object of a framework's comes from a loaded module.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus


def is_known(conn: object, *, is_async: bool) -> bool:
    return _is_async_sqlalchemy(conn) if is_async else _is_sqlalchemy(conn) or _is_django(conn)


def borrow(conn: Any) -> AbstractContextManager[psycopg.Connection[Any]] | None:
    """The connection of Django or SQLAlchemy; None for anything else."""
    if _is_sqlalchemy(conn):
        return _sqlalchemy(conn)
    return _django(conn) if _is_django(conn) else None


def borrow_async(conn: Any) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]] | None:
    return _async_sqlalchemy(conn) if _is_async_sqlalchemy(conn) else None


# Django


def _is_django(conn: object) -> bool:
    return "django.db" in sys.modules and hasattr(conn, "ensure_connection") and hasattr(conn, "in_atomic_block")


@contextmanager
def _django(conn: Any) -> Iterator[psycopg.Connection[Any]]:
    conn.validate_thread_sharing()
    conn.validate_no_broken_transaction()
    conn.ensure_connection()
    driver = _psycopg(conn.connection, psycopg.Connection)
    try:
        yield driver
    except psycopg.Error:
        conn.errors_occurred = True  # Django looks at the end of a request whether it is still of use
        raise
    finally:
        if conn.in_atomic_block and _has_failed(driver):
            conn.set_rollback(True)


# SQLAlchemy


def _is_sqlalchemy(conn: Any) -> bool:
    return _is_of_sqlalchemy(conn.__class__)


def _is_async_sqlalchemy(conn: Any) -> bool:
    return _is_of_async_sqlalchemy(conn.__class__)


# Remembered: each call asks, and a class is what it is once there is an object of it. (`__class__`, since a proxy of a
# host's has that of what it stands for.)


@lru_cache(maxsize=64)
def _is_of_sqlalchemy(kind: type[Any]) -> bool:
    sessions = _classes("sqlalchemy.orm", "Session", "scoped_session")
    return issubclass(kind, (*_classes("sqlalchemy.engine", "Connection"), *sessions))


@lru_cache(maxsize=64)
def _is_of_async_sqlalchemy(kind: type[Any]) -> bool:
    names = ("AsyncConnection", "AsyncSession", "async_scoped_session")
    return issubclass(kind, _classes("sqlalchemy.ext.asyncio", *names))


def _classes(module: str, *names: str) -> tuple[type[Any], ...]:
    loaded = sys.modules.get(module)
    return tuple(getattr(loaded, name) for name in names) if loaded else ()


@contextmanager
def _sqlalchemy(conn: Any) -> Iterator[psycopg.Connection[Any]]:
    if isinstance(conn, _classes("sqlalchemy.orm", "scoped_session")):
        conn = conn()
    if isinstance(conn, _classes("sqlalchemy.orm", "Session")):
        if conn.autoflush:
            conn.flush()
        conn = conn.connection()
    driver = _usable(conn, psycopg.Connection)
    if not conn.in_transaction():
        conn.begin()  # as its own first statement would
    try:
        yield driver
    finally:
        _mark(conn, driver)


@asynccontextmanager
async def _async_sqlalchemy(conn: Any) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    if isinstance(conn, _classes("sqlalchemy.ext.asyncio", "async_scoped_session")):
        conn = conn()
    if isinstance(conn, _classes("sqlalchemy.ext.asyncio", "AsyncSession")):
        if conn.autoflush:
            await conn.flush()
        conn = await conn.connection()
    driver = _usable(conn.sync_connection, psycopg.AsyncConnection)
    if not conn.in_transaction():
        await conn.begin()
    try:
        yield driver
    finally:
        _mark(conn.sync_connection, driver)


def _usable(conn: Any, kind: type[Any]) -> Any:
    driver = _psycopg(conn.connection.driver_connection, kind)
    if driver.autocommit:
        raise TypeError("a SQLAlchemy connection in AUTOCOMMIT has no transaction to take part in: use a psycopg pool")
    return driver


def _mark(conn: Any, driver: Any) -> None:
    """A commit fails until the host has rolled back, to a savepoint at least."""
    if _has_failed(driver):
        from sqlalchemy import event

        if not event.contains(conn, "commit", _refuse_commit):
            event.listen(conn, "commit", _refuse_commit)


def _refuse_commit(conn: Any) -> None:
    from sqlalchemy.exc import PendingRollbackError

    if _has_failed(conn.connection.driver_connection):
        # What SQLAlchemy takes for over after a commit, it does not roll back any more.
        conn.dialect.do_rollback(conn.connection)
        raise PendingRollbackError("a call of pycheckout failed in this transaction: it was rolled back")


# Both


def _psycopg(driver: Any, kind: type[Any]) -> Any:
    if not isinstance(driver, kind):
        raise TypeError(
            f"a connection on psycopg 3 is needed, not on {type(driver).__module__}.{type(driver).__qualname__}"
        )
    return driver


def _has_failed(driver: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> bool:
    return driver.pgconn.transaction_status == TransactionStatus.INERROR
