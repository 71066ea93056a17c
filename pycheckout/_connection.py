"""Whose transaction a call runs in, and when it is made again.

A checkout is one statement, so in autocommit it is the whole transaction: one round
trip, with no BEGIN or COMMIT around it. That holds where the transaction is ours to
end: on a pool's connection, and on an autocommit connection that is idle. Every
other connection belongs to its caller, and is never committed, rolled back or
retried here, nor given a savepoint:

- autocommit off, even while it is idle: Django's `atomic` and
  `with pool.connection()` look idle before their first statement;
- a transaction is open;
- pipeline mode: what the caller queued before and after, up to its next sync, is
  one transaction with our statement;
- SQLAlchemy's connections and sessions, which are always in a transaction.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import re
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    AbstractContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
    suppress,
)
from functools import cache, lru_cache
from typing import Any, Protocol, TypeAlias

import psycopg
from psycopg.pq import PipelineStatus, TransactionStatus
from psycopg.rows import tuple_row
from psycopg.types.string import TextLoader

from . import _frameworks
from ._conninfo import INSTALLATIONS
from ._errors import (
    Busy,
    CheckoutError,
    MarketMoved,
    ReadOnlyServer,
    Unavailable,
    failed_inside,
    not_installed,
    refused_at_commit,
    translated,
)
from ._release import release


class Pool(Protocol):
    """A `psycopg_pool.ConnectionPool`, or what has its `connection()`."""

    def connection(self) -> AbstractContextManager[psycopg.Connection[Any]]: ...


class AsyncPool(Protocol):
    """A `psycopg_pool.AsyncConnectionPool`, or what has its `connection()`."""

    def connection(self) -> AbstractAsyncContextManager[psycopg.AsyncConnection[Any]]: ...


class SQLAlchemy(Protocol):
    """A SQLAlchemy `Connection` or `Session`, on psycopg."""

    def in_transaction(self) -> bool: ...
    def commit(self) -> None: ...


class AsyncSQLAlchemy(Protocol):
    """A SQLAlchemy `AsyncConnection` or `AsyncSession`, on psycopg."""

    def in_transaction(self) -> bool: ...
    def commit(self) -> Coroutine[Any, Any, None]: ...


class Django(Protocol):
    """Django's `django.db.connection`, on psycopg."""

    in_atomic_block: bool

    def ensure_connection(self) -> None: ...


Conn: TypeAlias = psycopg.Connection[Any] | Pool | SQLAlchemy | Django
"""What a call can be made on: a psycopg connection or pool, a SQLAlchemy Connection or Session on psycopg, or Django's
`connection`."""
AsyncConn: TypeAlias = psycopg.AsyncConnection[Any] | AsyncPool | AsyncSQLAlchemy
"""What an async call can be made on: an async psycopg connection or pool, or a SQLAlchemy AsyncConnection or
AsyncSession on psycopg."""
_AnyConnection: TypeAlias = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]
_AnyCursor: TypeAlias = psycopg.Cursor[Any] | psycopg.AsyncCursor[Any]

_MAX_ATTEMPTS = 5
_RETRY_WITHIN = 10.0  # seconds since the first attempt: two waits of the usual lock_timeout
_BACKOFF = 0.05  # seconds before the second attempt at most; doubles with each

_ROUTED = (
    "A session that was opened anew takes no writes either: a router may send SELECT to a standby. "
    "Give this pool a way to the primary (docs/operations.md says what routers must be told)."
)

# What a call names: of a release that is not there, or in a schema that the search_path does not name.
_LACKING = (psycopg.errors.UndefinedFunction, psycopg.errors.UndefinedTable)
_VERSION = "select checkout_version()::text"
_WHERE = f"select coalesce(json_agg(schema order by schema), '[]')::text from ({INSTALLATIONS}) as there"


class Attempts:
    """The attempts of one call, and whether there is to be another.

    `replays`: a second call finds what the first one did. `timeout`: seconds for all of them.
    """

    def __init__(self, *, replays: bool = True, timeout: float | None = None) -> None:
        self.count = 0
        self.ours = False
        self.pooled = False
        self.sent = False
        self.lost = False
        self.drained = False
        self.of_the_host = False
        """Whether what runs is the host's, in our transaction."""
        self.has_hosts_rows = False
        """Whether the host wrote in our transaction."""
        self._replays = replays
        self._began = time.monotonic()
        self._deadline = None if timeout is None else self._began + timeout

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def left(self) -> float | None:
        """Seconds until the call's time is over; None if it has no end."""
        return None if self._deadline is None else max(self._deadline - time.monotonic(), 0.0)

    def begin(self) -> None:
        self.count += 1
        self.ours = self.pooled = self.sent = self.lost = self.of_the_host = self.has_hosts_rows = False

    def about(self, error: CheckoutError) -> CheckoutError:
        """The same error; it says what is known of a call whose answer did not come."""
        if isinstance(error, Unavailable):
            error.outcome = "unknown" if self.sent and error._may_be_done else "nothing_done"
            error.retryable = error.retryable and (self._replays or error.outcome == "nothing_done")
        if isinstance(error, ReadOnlyServer) and self.drained:
            error.hint = _ROUTED
        return error

    def follows(self, conn: Any, error: CheckoutError, asked: Any) -> bool:
        """Whether the market has moved and `conn` knows where to: then the call, which did nothing, is made there."""
        return (
            isinstance(error, MarketMoved)
            and asked is not None
            and self.ours
            and self.left != 0.0
            and bool(conn.follow(error, asked))
        )

    def delay(self, error: CheckoutError) -> float | None:
        """Seconds until the next attempt, or None if the error is final."""
        if not self.ours or self.count >= _MAX_ATTEMPTS or self.seconds >= _RETRY_WITHIN:
            return None
        if isinstance(error, ReadOnlyServer):
            return 0.0 if self.pooled and not self.drained else None
        if not (isinstance(error, Busy) or (self.lost and error.retryable)):
            return None
        seconds = random.uniform(0.5, 1.0) * _BACKOFF * float(2 ** (self.count - 1))
        return seconds if self.left is None or seconds < self.left else None


def run(
    conn: Conn,
    query: str,
    params: Sequence[str | None],
    attempts: Attempts,
    then: Callable[[psycopg.Connection[Any], Any], None] | None = None,
) -> Any:
    """The JSON that a query of one row and one column answers.

    `then` is called with it before the commit, in the same transaction, at each attempt.
    """
    _require(conn, psycopg.Connection)
    where = getattr(conn, "where", None)
    while True:
        attempts.begin()
        asked = None if where is None else where()
        try:
            with _translated(attempts), _borrowed(conn, attempts) as connection:
                try:
                    with _bounded(connection, attempts), connection.transaction() if then else _NOTHING:
                        answer = _fetch(connection, query, params)
                        if then is not None:
                            attempts.of_the_host = attempts.has_hosts_rows = True
                            then(connection, answer)
                            attempts.of_the_host = False
                        return answer
                except _LACKING as exc:
                    if attempts.of_the_host or failed_inside(exc):
                        raise
                    free = _is_free(connection)
                    version = _version(connection) if free else None
                    elsewhere = _elsewhere(connection) if free and version is None else []
                    raise not_installed(exc, version, release(), asked=free, elsewhere=elsewhere) from exc
        except CheckoutError as error:
            if attempts.follows(conn, error, asked):
                continue
            delay = attempts.delay(error)
            if delay is None:
                raise
            read_only = isinstance(error, ReadOnlyServer)
        if read_only and (drain := getattr(conn, "drain", None)):
            drain()  # what else the pool holds was opened to the same server
            attempts.drained = True
        elif attempts.lost and (check := getattr(conn, "check", None)):
            check()  # after a failover the pool's idle connections are dead too
        time.sleep(delay)


async def run_async(
    conn: AsyncConn,
    query: str,
    params: Sequence[str | None],
    attempts: Attempts,
    then: Callable[[psycopg.AsyncConnection[Any], Any], Awaitable[None]] | None = None,
) -> Any:
    """Like `run`, for an async connection or pool."""
    _require(conn, psycopg.AsyncConnection)
    where = getattr(conn, "where", None)
    while True:
        attempts.begin()
        asked = None if where is None else where()
        try:
            with _translated(attempts):
                async with _borrowed_async(conn, attempts) as connection:
                    try:
                        async with (
                            _bounded_async(connection, attempts),
                            connection.transaction() if then else _NOTHING,
                        ):
                            answer = await _fetch_async(connection, query, params)
                            if then is not None:
                                attempts.of_the_host = attempts.has_hosts_rows = True
                                await then(connection, answer)
                                attempts.of_the_host = False
                            return answer
                    except _LACKING as exc:
                        if attempts.of_the_host or failed_inside(exc):
                            raise
                        free = _is_free(connection)
                        version = await _version_async(connection) if free else None
                        elsewhere = await _elsewhere_async(connection) if free and version is None else []
                        raise not_installed(exc, version, release(), asked=free, elsewhere=elsewhere) from exc
        except CheckoutError as error:
            if attempts.follows(conn, error, asked):
                continue
            delay = attempts.delay(error)
            if delay is None:
                raise
            read_only = isinstance(error, ReadOnlyServer)
        if read_only and (drain := getattr(conn, "drain", None)):
            await drain()
            attempts.drained = True
        elif attempts.lost and (check := getattr(conn, "check", None)):
            await check()
        await asyncio.sleep(delay)


class _translated:  # not made of a generator: every call goes through it
    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        if not isinstance(exc, psycopg.Error):
            return
        attempts = self._attempts
        error = translated(exc)
        if error is None and attempts.ours:
            error = refused_at_commit(exc, has_hosts_rows=attempts.has_hosts_rows)
        if error is not None and (not attempts.of_the_host or isinstance(error, Busy | Unavailable)):
            raise attempts.about(error) from exc


def _borrowed(conn: Any, attempts: Attempts) -> AbstractContextManager[psycopg.Connection[Any]]:
    if isinstance(conn, psycopg.Connection):
        return _of_the_caller(conn, attempts)
    borrow = _frameworks.borrow(conn)
    return _from_pool(conn, attempts) if borrow is None else _from_framework(borrow, attempts)


@contextmanager
def _of_the_caller(connection: psycopg.Connection[Any], attempts: Attempts) -> Iterator[psycopg.Connection[Any]]:
    attempts.ours = connection.autocommit and _is_free(connection)
    at_work = connection.pgconn.transaction_status == TransactionStatus.ACTIVE  # in another thread, which reads itself
    try:
        yield connection
    except psycopg.OperationalError:
        if not at_work:
            _read_end(connection)
        raise


@contextmanager
def _from_framework(
    borrow: AbstractContextManager[psycopg.Connection[Any]], attempts: Attempts
) -> Iterator[psycopg.Connection[Any]]:
    with borrow as connection:
        attempts.ours = connection.autocommit and _is_free(connection)
        yield connection


@contextmanager
def _from_pool(pool: Any, attempts: Attempts) -> Iterator[psycopg.Connection[Any]]:
    with pool.connection(**_waiting(pool, attempts)) as connection:
        attempts.ours = attempts.pooled = True
        borrow_autocommit = _can_autocommit(connection)
        if borrow_autocommit:
            connection.autocommit = True
        try:
            yield connection
            connection.commit()  # if at all, here: after the pool's own commit nobody asks whether it was lost
        except psycopg.errors.ReadOnlySqlTransaction:
            connection.close()  # after a switch of roles a pool would hand it out again and again
            raise
        except psycopg.OperationalError:
            _read_end(connection)
            raise
        finally:
            attempts.lost = connection.closed
            if borrow_autocommit:
                with suppress(psycopg.Error):  # broken: its pool discards it
                    connection.autocommit = False


@asynccontextmanager
async def _borrowed_async(conn: Any, attempts: Attempts) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    if isinstance(conn, psycopg.AsyncConnection):
        attempts.ours = conn.autocommit and _is_free(conn)
        yield conn
    elif (borrow := _frameworks.borrow_async(conn)) is not None:
        async with borrow as connection:
            yield connection
    else:
        async with conn.connection(**_waiting(conn, attempts)) as connection:
            attempts.ours = attempts.pooled = True
            borrow_autocommit = _can_autocommit(connection)
            if borrow_autocommit:
                await connection.set_autocommit(True)
            try:
                yield connection
                await connection.commit()
            except psycopg.errors.ReadOnlySqlTransaction:
                await connection.close()
                raise
            finally:
                attempts.lost = connection.closed
                if borrow_autocommit:
                    with suppress(psycopg.Error):
                        await connection.set_autocommit(False)


def _waiting(pool: Any, attempts: Attempts) -> dict[str, float]:
    """How long psycopg_pool may wait for a connection. Another pool's connection() takes no argument."""
    left = attempts.left
    pool = pool.pool if hasattr(pool, "follow") else pool
    if left is None or not any(each.__module__.startswith("psycopg_pool") for each in type(pool).__mro__):
        return {}
    return {"timeout": left}


_GRACE = 1.0  # seconds that a server has to say that it canceled
_NOTHING = nullcontext()  # one for all: every call goes through it


def _bounded(connection: psycopg.Connection[Any], attempts: Attempts) -> AbstractContextManager[None]:
    """Ends what runs on the connection when the call's time is over: canceled, or cut off where nobody answers."""
    attempts.sent = True
    left = attempts.left
    return _NOTHING if left is None else _ended_after(connection, left)


@contextmanager
def _ended_after(connection: psycopg.Connection[Any], left: float) -> Iterator[None]:
    done = threading.Event()

    def expire() -> None:
        if done.wait(left):
            return
        with suppress(psycopg.Error):
            connection.cancel_safe(timeout=_GRACE)
        if not done.wait(_GRACE):
            cut(connection)

    watching = threading.Thread(target=expire, name="pycheckout-timeout", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()  # a cancel that is under way must not meet the next statement


def _bounded_async(connection: psycopg.AsyncConnection[Any], attempts: Attempts) -> AbstractAsyncContextManager[None]:
    attempts.sent = True
    left = attempts.left
    return _NOTHING if left is None else _ended_after_async(connection, left)


@asynccontextmanager
async def _ended_after_async(connection: psycopg.AsyncConnection[Any], left: float) -> AsyncIterator[None]:
    done = asyncio.Event()

    async def finished(seconds: float) -> bool:
        with suppress(TimeoutError):
            return await asyncio.wait_for(done.wait(), seconds)
        return False

    async def expire() -> None:
        if await finished(left):
            return
        with suppress(psycopg.Error):
            await connection.cancel_safe(timeout=_GRACE)
        if not await finished(_GRACE):
            cut(connection)

    watching = asyncio.create_task(expire())
    try:
        yield
    finally:
        done.set()
        await watching


def cut(connection: _AnyConnection) -> None:
    """Shut the socket: whoever waits for an answer there gets the error of a lost connection."""
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)


def _read_end(connection: psycopg.Connection[Any]) -> None:
    """Let libpq find that a line was reset, so that the connection is `closed`.

    Where psycopg's wait sees the reset first, it raises without reading, and the connection stays as one at work on
    the statement. All that came before the reset was read by then. An event loop reads in any case.
    """
    if connection.pgconn.transaction_status == TransactionStatus.ACTIVE:
        with suppress(psycopg.Error):
            connection.pgconn.consume_input()


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
    return re.sub("%s", lambda _: f"${next(numbers)}", query).replace("%%", "%")


def _parsed(row: tuple[Any, ...] | None) -> Any:
    assert row is not None
    return json.loads(row[0])


def _version(connection: psycopg.Connection[Any]) -> str | None:
    """The release in the database, if it has one and we may ask."""
    with suppress(psycopg.Error):
        return str(_fetch(connection, _VERSION, ())["version"])
    return None


def _elsewhere(connection: psycopg.Connection[Any]) -> list[str]:
    """The schemas that have pycheckout, if we may look."""
    with suppress(psycopg.Error):
        return list(_fetch(connection, _WHERE, ()))
    return []


async def _version_async(connection: psycopg.AsyncConnection[Any]) -> str | None:
    with suppress(psycopg.Error):
        return str((await _fetch_async(connection, _VERSION, ()))["version"])
    return None


async def _elsewhere_async(connection: psycopg.AsyncConnection[Any]) -> list[str]:
    with suppress(psycopg.Error):
        return list(await _fetch_async(connection, _WHERE, ()))
    return []


def is_pool(conn: object) -> bool:
    """Whether calls on it have a transaction of their own: a Session of SQLAlchemy has a `connection()` too."""
    return callable(getattr(conn, "connection", None)) and not hasattr(conn, "execute")


def _require(conn: Any, connection_type: type[_AnyConnection]) -> None:
    is_async = connection_type is psycopg.AsyncConnection
    if isinstance(conn, connection_type) or _frameworks.is_known(conn, is_async=is_async):
        return
    if is_pool(conn) and _awaits(conn.__class__) in (is_async, None):
        return
    kind = f"{type(conn).__module__}.{type(conn).__qualname__}"
    if kind.startswith("asyncpg."):
        raise TypeError(
            "asyncpg is not psycopg: call the SQL functions yourself; CheckoutResult.from_json() reads answers, "
            "and pycheckout.error_from() errors (docs/services.md)"
        )
    raise TypeError(f"{_NEEDED[is_async]} is needed, not {kind}")


_NEEDED = {
    False: "a psycopg.Connection or a pool of them, a SQLAlchemy Connection or Session, or Django's connection",
    True: "a psycopg.AsyncConnection or a pool of them, or a SQLAlchemy AsyncConnection or AsyncSession",
}


@lru_cache(maxsize=64)  # each call asks
def _awaits(pool: type[Any]) -> bool | None:
    """Whether such a pool is for `async with`; None where its class does not tell."""
    plain, awaited = hasattr(pool, "__enter__"), hasattr(pool, "__aenter__")
    return None if plain == awaited else awaited
