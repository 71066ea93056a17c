"""Whose transaction a call runs in, and when it is made again.

A checkout is one statement, so in autocommit it is the whole transaction: one round
trip, with no BEGIN or COMMIT around it. That holds where the transaction is ours to
end: on a pool's connection, and on an autocommit connection that is idle. Every
other connection belongs to its caller, and is never committed, rolled back or
retried here, nor given a savepoint:

- autocommit off, even while it is idle: Django's `atomic`, a SQLAlchemy session and
  `with pool.connection()` all look idle before their first statement;
- a transaction is open;
- pipeline mode: what the caller queued before and after, up to its next sync, is
  one transaction with our statement.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import cache
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from ._errors import Busy, CheckoutError, error_from, failed_inside, not_installed, refused_at_commit
from ._release import release


class Pool(Protocol):
    """A `psycopg_pool.ConnectionPool`, or what has its `connection()`."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]: ...


class AsyncPool(Protocol):
    """A `psycopg_pool.AsyncConnectionPool`, or what has its `connection()`."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]: ...


Conn: TypeAlias = psycopg.Connection[Any] | Pool
AsyncConn: TypeAlias = psycopg.AsyncConnection[Any] | AsyncPool
_AnyConnection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
_AnyCursor: TypeAlias = psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]

_MAX_ATTEMPTS = 5
_RETRY_WITHIN = 10.0  # seconds since the first attempt: two waits of the usual lock_timeout
_BACKOFF = 0.05  # seconds before the second attempt at most; doubles with each

_VERSION = "select checkout_version()::text"


class Attempts:
    """The attempts of one call, and whether there is to be another."""

    def __init__(self) -> None:
        self.count = 0
        self.ours = False
        self.lost = False
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def begin(self) -> None:
        self.count += 1
        self.ours = self.lost = False

    def delay(self, error: CheckoutError) -> float | None:
        """Seconds until the next attempt, or None if the error is final.

        Each attempt has the same key: one that was committed, and whose answer was
        lost with the connection, is replayed.
        """
        again = self.ours and (isinstance(error, Busy) or self.lost)
        if not again or self.count >= _MAX_ATTEMPTS or self.seconds >= _RETRY_WITHIN:
            return None
        return random.uniform(0.5, 1.0) * _BACKOFF * float(2 ** (self.count - 1))


def call(conn: Conn, query: str, params: Sequence[str | None], attempts: Attempts) -> Any:
    """The JSON that a query of one row and one column answers."""
    _require(conn, psycopg.Connection)
    while True:
        attempts.begin()
        try:
            with _translated(attempts), _borrowed(conn, attempts) as connection:
                try:
                    return _fetch(connection, query, params)
                except psycopg.errors.UndefinedFunction as exc:
                    if failed_inside(exc):
                        raise
                    free = _is_free(connection)
                    version = _version(connection) if free else None
                    raise not_installed(exc, version, release(), asked=free) from exc
        except CheckoutError as error:
            delay = attempts.delay(error)
            if delay is None:
                raise
        if attempts.lost and (check := getattr(conn, "check", None)):
            check()  # after a failover the pool's idle connections are dead too
        time.sleep(delay)


async def call_async(conn: AsyncConn, query: str, params: Sequence[str | None], attempts: Attempts) -> Any:
    """Like `call`, for an async connection or pool."""
    _require(conn, psycopg.AsyncConnection)
    while True:
        attempts.begin()
        try:
            with _translated(attempts):
                async with _borrowed_async(conn, attempts) as connection:
                    try:
                        return await _fetch_async(connection, query, params)
                    except psycopg.errors.UndefinedFunction as exc:
                        if failed_inside(exc):
                            raise
                        free = _is_free(connection)
                        version = await _version_async(connection) if free else None
                        raise not_installed(exc, version, release(), asked=free) from exc
        except CheckoutError as error:
            delay = attempts.delay(error)
            if delay is None:
                raise
        if attempts.lost and (check := getattr(conn, "check", None)):
            await check()
        await asyncio.sleep(delay)


@contextmanager
def _translated(attempts: Attempts) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as exc:
        error = error_from(exc) or (refused_at_commit(exc) if attempts.ours else None)
        if error is None:
            raise
        raise error from exc


@contextmanager
def _borrowed(conn: Conn, attempts: Attempts) -> Iterator[psycopg.Connection[Any]]:
    if isinstance(conn, psycopg.Connection):
        attempts.ours = conn.autocommit and _is_free(conn)
        yield conn
        return
    with conn.connection() as connection:
        attempts.ours = True
        borrow_autocommit = _can_autocommit(connection)
        if borrow_autocommit:
            connection.autocommit = True
        try:
            yield connection
            connection.commit()  # if at all, here: after the pool's own commit nobody asks whether it was lost
        finally:
            attempts.lost = connection.closed
            if borrow_autocommit:
                with suppress(psycopg.Error):  # broken: its pool discards it
                    connection.autocommit = False


@asynccontextmanager
async def _borrowed_async(conn: AsyncConn, attempts: Attempts) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    if isinstance(conn, psycopg.AsyncConnection):
        attempts.ours = conn.autocommit and _is_free(conn)
        yield conn
        return
    async with conn.connection() as connection:
        attempts.ours = True
        borrow_autocommit = _can_autocommit(connection)
        if borrow_autocommit:
            await connection.set_autocommit(True)
        try:
            yield connection
            await connection.commit()
        finally:
            attempts.lost = connection.closed
            if borrow_autocommit:
                with suppress(psycopg.Error):
                    await connection.set_autocommit(False)


def _can_autocommit(connection: _AnyConnection) -> bool:
    """Whether a pool's connection may be in autocommit for our one statement.

    Setting it sends nothing, and saves the round trips of BEGIN and COMMIT. But
    psycopg sends an isolation level with BEGIN alone: where the host chose one, the
    pool's own transaction stays around the statement.
    """
    chosen = (connection.isolation_level, connection.read_only, connection.deferrable)
    return not connection.autocommit and chosen == (None, None, None)


def _is_free(connection: _AnyConnection) -> bool:
    """Whether no transaction is open and no pipeline could hold one."""
    return (
        connection.pgconn.transaction_status == TransactionStatus.IDLE
        and connection.pgconn.pipeline_status == PipelineStatus.OFF
    )


def _fetch(connection: psycopg.Connection[Any], query: str, params: Sequence[str | None]) -> Any:
    with connection.cursor(row_factory=tuple_row) as cur:
        cur.execute(_prepared_for(cur, query), params)
        return _parsed(cur.fetchone())


async def _fetch_async(connection: psycopg.AsyncConnection[Any], query: str, params: Sequence[str | None]) -> Any:
    async with connection.cursor(row_factory=tuple_row) as cur:
        await cur.execute(_prepared_for(cur, query), params)
        return _parsed(await cur.fetchone())


def _prepared_for(cur: _AnyCursor, query: str) -> str:
    """The query as the host's class of cursor wants it.

    It is the host's, since tracing hooks in there. What the host registered to load
    text or JSON with does not touch our answer: it comes as text, through a loader
    that this cursor alone has, and is parsed here.
    """
    cur.adapters.register_loader("text", TextLoader)
    raw = isinstance(cur, psycopg.RawCursor | psycopg.AsyncRawCursor)
    return _numbered(query) if raw else query


@cache
def _numbered(query: str) -> str:
    numbers = itertools.count(1)
    return re.sub("%s", lambda _: f"${next(numbers)}", query)


def _parsed(row: tuple[Any, ...] | None) -> Any:
    assert row is not None
    return json.loads(row[0])


def _version(connection: psycopg.Connection[Any]) -> str | None:
    """The release in the database, if it has one and we may ask."""
    with suppress(psycopg.Error):
        return str(_fetch(connection, _VERSION, ())["version"])
    return None


async def _version_async(connection: psycopg.AsyncConnection[Any]) -> str | None:
    with suppress(psycopg.Error):
        return str((await _fetch_async(connection, _VERSION, ()))["version"])
    return None


def _require(conn: object, connection_type: type[_AnyConnection]) -> None:
    # A SQLAlchemy session has a connection() as well, and would close with it.
    pool = callable(getattr(conn, "connection", None)) and not hasattr(conn, "execute")
    if not (pool or isinstance(conn, connection_type)):
        raise TypeError(
            f"a psycopg.{connection_type.__name__} or a pool of them is needed, not "
            f"{type(conn).__module__}.{type(conn).__qualname__}"
        )
