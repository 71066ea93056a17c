"""How a call is defined: once, for the sync and the async form.

A definition is a method of a group. It takes the call's arguments, says their types and what the call does, and
returns what is sent: a text, or None, for each placeholder of its statement. `@call` makes of it a `Call`, which is a
plain method on a sync group and an awaitable one on an async group, each with the definition's own parameters.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import update_wrapper
from inspect import Parameter, signature
from typing import Any, Concatenate, Generic, ParamSpec, TypeAlias, TypedDict, TypeVar, overload
from uuid import UUID

import psycopg

from . import _arguments as to
from ._connection import AsyncConn, Attempts, Conn, run, run_async
from ._errors import CartInconsistent, CheckoutError
from ._logging import Unheard, caller

logger = logging.getLogger("pycheckout")
logger.addHandler(Unheard())

P = ParamSpec("P")
T = TypeVar("T")
Sent: TypeAlias = tuple[str | None, ...]
Define: TypeAlias = Callable[Concatenate[Any, P], Sent]


class CallOptions(TypedDict, total=False):
    """What every call takes beside its own arguments."""

    timeout: float | None
    """Seconds that the call may take altogether: waiting for a connection of the pool and for locks, and all attempts.
    After them it raises Unavailable. None, or more than a year: as long as the server and the pool allow. Raises
    InvalidRequest for what is no number."""
    request_id: str | None
    """Goes into the log record of the call, and nowhere else."""


def qualified(query: str, schema: str | None) -> str:
    """The statement with the schema, or nothing, where it says `{schema}`."""
    prefix = "" if schema is None else '"' + schema.replace('"', '""').replace("%", "%%") + '".'
    return query.replace("{schema}", prefix)


class Group:
    """Calls on one connection or pool."""

    def __init__(self, conn: Any, schema: str | None) -> None:
        self._conn = conn
        self._schema = to.text("schema", schema)
        if self._schema == "":
            raise to.invalid("schema", "must be the name of a schema")


class SyncGroup(Group):
    """Calls that return their answer."""


class AsyncGroup(Group):
    """Calls that are awaited."""


class Call(Generic[P, T]):
    """One call: its statement, its arguments and what is made of the answer."""

    def __init__(
        self,
        define: Define[P],
        sql: str,
        read: Callable[[Any], T],
        about: str | None,
        replays: bool | str,
    ) -> None:
        self._define = define
        self._sql = sql
        self._read = read
        self._replays = replays
        self._about = about
        self._queries: dict[str | None, str] = {}
        self._name = self._operation = define.__name__
        self.__doc__ = define.__doc__
        parameters = list(signature(define).parameters.values())[1:]
        self._keywords = {each.name for each in parameters} | CallOptions.__annotations__.keys()
        self._place = next((place for place, each in enumerate(parameters) if each.name == about), -1)
        self._parameters = parameters

    def __set_name__(self, owner: Any, name: str) -> None:
        self._operation = f"{owner.called}.{name}" if owner.called else name

    @overload
    def __get__(self, group: None, owner: type) -> Call[P, T]: ...
    @overload
    def __get__(self, group: SyncGroup, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, group: AsyncGroup, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, group: Group | None, owner: type) -> Any:
        if group is None:
            return self
        conn, schema = group._conn, group._schema
        bound: Any
        if isinstance(group, AsyncGroup):

            async def bound(*args: P.args, **kwargs: P.kwargs) -> T:
                return await self._run_async(conn, schema, args, kwargs)
        else:

            def bound(*args: P.args, **kwargs: P.kwargs) -> T:
                return self._run(conn, schema, args, kwargs)

        # In the instance's dictionary, where it is found before this descriptor is asked again.
        return group.__dict__.setdefault(self._name, self._as(bound, self._parameters))

    def function(self, name: str) -> Callable[Concatenate[Conn, P], T]:
        """The call as a function of a connection."""

        def function(conn: Conn, *args: P.args, **kwargs: P.kwargs) -> T:
            return self._run(conn, None, args, kwargs)

        named: Callable[Concatenate[Conn, P], T]
        named = self._as(function, [_CONN.replace(annotation="Conn"), *self._parameters], name)
        return named

    def async_function(self, name: str) -> Callable[Concatenate[AsyncConn, P], Coroutine[Any, Any, T]]:
        """The call as an async function of an async connection."""

        async def function(conn: AsyncConn, *args: P.args, **kwargs: P.kwargs) -> T:
            return await self._run_async(conn, None, args, kwargs)

        named: Callable[Concatenate[AsyncConn, P], Coroutine[Any, Any, T]]
        named = self._as(function, [_CONN.replace(annotation="AsyncConn"), *self._parameters], name)
        return named

    def statement(self, *args: P.args, **kwargs: P.kwargs) -> tuple[str, Sent]:
        """What is sent, for whoever sends it: the statement, and a text or None for each of its placeholders."""
        return self._query(None), self._define(None, *args, **kwargs)

    def answer(self, group: SyncGroup, *args: P.args, **kwargs: P.kwargs) -> Any:
        """What the database answers, as JSON has it, without a log record."""
        sent = self._define(None, *args, **kwargs)
        return run(group._conn, self._query(group._schema), sent, Attempts(replays=self._replays is True))

    def before_commit(
        self, hook: Callable[[psycopg.Connection[Any], T], None], group: SyncGroup, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """The call, and `hook` in its transaction; at each attempt, of which one is committed."""
        with self._recorded(args, kwargs) as record:
            sent = self._define(None, *args, **kwargs)
            read = self._read

            def then(connection: psycopg.Connection[Any], answer: Any) -> None:
                hook(connection, read(answer))

            return record.of(read(run(group._conn, self._query(group._schema), sent, record.attempts, then)))

    async def before_commit_async(
        self,
        hook: Callable[[psycopg.AsyncConnection[Any], T], Awaitable[None]],
        group: AsyncGroup,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Like `before_commit`, for an async group."""
        with self._recorded(args, kwargs) as record:
            sent = self._define(None, *args, **kwargs)
            read = self._read

            async def then(connection: psycopg.AsyncConnection[Any], answer: Any) -> None:
                await hook(connection, read(answer))

            query = self._query(group._schema)
            return record.of(read(await run_async(group._conn, query, sent, record.attempts, then)))

    def _as(self, function: Any, parameters: list[Parameter], name: str | None = None) -> Any:
        """With the docstring and the parameters of the definition, and its name if it has no other."""
        update_wrapper(function, self._define)
        if name is not None:
            function.__name__ = function.__qualname__ = name
        function.__signature__ = signature(self._define).replace(parameters=parameters, return_annotation=self._answer)
        return function

    @property
    def _answer(self) -> Any:
        return getattr(self._read, "answer", Parameter.empty)

    def _run(self, conn: Conn, schema: str | None, args: Any, kwargs: Any) -> T:
        with self._recorded(args, kwargs) as record:
            sent = self._define(None, *args, **kwargs)
            return record.of(self._read(run(conn, self._query(schema), sent, record.attempts)))

    async def _run_async(self, conn: AsyncConn, schema: str | None, args: Any, kwargs: Any) -> T:
        with self._recorded(args, kwargs) as record:
            sent = self._define(None, *args, **kwargs)
            return record.of(self._read(await run_async(conn, self._query(schema), sent, record.attempts)))

    def _query(self, schema: str | None) -> str:
        query = self._queries.get(schema)
        if query is None:
            query = self._queries[schema] = qualified(self._sql, schema)
        return query

    def _recorded(self, args: Any, kwargs: Mapping[str, Any]) -> _Record:
        if not kwargs.keys() <= self._keywords:  # which `**options` would take without a word
            [unknown, *_] = sorted(kwargs.keys() - self._keywords)
            raise TypeError(f"{self._name}() got an unexpected keyword argument {unknown!r}")
        replays = self._replays
        if isinstance(replays, str):
            replays = kwargs.get(replays) is not None
        subject = None
        if self._about is not None:
            subject = args[self._place] if self._place < len(args) else kwargs.get(self._about)
        attempts = Attempts(replays=replays, timeout=to.seconds("timeout", kwargs.get("timeout")))
        return _Record(self._operation, self._about, subject, kwargs.get("request_id"), attempts)


_CONN = Parameter("conn", Parameter.POSITIONAL_ONLY)


def call(
    sql: str,
    read: Callable[[Any], T],
    *,
    about: str | None = None,
    replays: bool | str = False,
) -> Callable[[Define[P]], Call[P, T]]:
    """Make a definition a call.

    `sql`: a statement of one row and one column of JSON as text, with `{schema}` before each name of ours and one
    placeholder, with its cast, for each text that the definition returns. (The cast, so that what psycopg makes of a
    Python value never decides which function is meant.) `read` makes a value of the parsed answer. `about`: the
    argument that the log record names. `replays`: whether a second call, after one whose answer was lost, finds the
    first and changes nothing more; or the name of the argument that has to be given for that. Only then is a call
    made again after a lost connection.
    """
    return lambda define: Call(define, sql, read, about, replays)


class _Record:  # a context, and not made of a generator: every call goes through it
    """What the log record of a call says. Never an address, a key or a token."""

    def __init__(
        self, operation: str, about: str | None, subject: object, request_id: object, attempts: Attempts
    ) -> None:
        self.attempts = attempts
        self._operation = operation
        self._about = about
        self._subject = subject
        self._request_id = request_id
        self._outcome = ""
        self._replayed = False
        self._sqlstate: str | None = None

    def of(self, answer: T) -> T:
        self._outcome = str(getattr(answer, "outcome", None) or getattr(answer, "status", None) or "done")
        self._replayed = getattr(answer, "replayed", False)
        return answer

    def __enter__(self) -> _Record:
        return self

    def __exit__(self, kind: object, exc: BaseException | None, traceback: object) -> None:
        level = logging.INFO if exc is None else logging.WARNING
        if exc is not None:
            # A refused commit does not know whose call it was.
            if isinstance(exc, CartInconsistent) and self._named == "cart_id":
                exc.detail.setdefault("cart_id", _loggable(self._found))
            self._outcome = exc.code if isinstance(exc, CheckoutError) else type(exc).__name__
            self._sqlstate = getattr(exc, "sqlstate", None)
        if logger.isEnabledFor(level):
            fields = {
                "operation": self._operation,
                **({} if self._named is None else {self._named: _loggable(self._found)}),
                "outcome": self._outcome,
                "replayed": self._replayed,
                "sqlstate": self._sqlstate,
                "attempts": self.attempts.count,
                "duration_ms": round(self.attempts.seconds * 1000, 3),
                "request_id": _readable(self._request_id),
            }
            _log(level, self._operation, fields)

    @property
    def _named(self) -> str | None:
        return "cart_id" if self._about == "cart" else self._about

    @property
    def _found(self) -> object:
        if self._about != "cart":
            return self._subject
        return self._subject.get("id") if isinstance(self._subject, Mapping) else getattr(self._subject, "id", None)


def _log(level: int, operation: str, fields: Mapping[str, Any]) -> None:
    """One record with these fields.

    Not by `extra`, which raises where the host's record factory set one of the names: a `request_id` often.
    By now the checkout may be committed. What the factory set stays where the call has no value of its own.
    """
    text = " ".join(f"{name}={value!r}" for name, value in fields.items())
    file, line, function = caller()
    record = logger.makeRecord(logger.name, level, file, line, "%s %s", (operation, text), None, function)
    for name, value in fields.items():
        if value is not None or not hasattr(record, name):
            setattr(record, name, value)
    logger.handle(record)


def _loggable(value: object) -> str:
    # What is no UUID may be anything, a token in the wrong place too.
    try:
        return str(UUID(str(value)))
    except Exception:
        return "invalid"


def _readable(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    try:
        return str(value)
    except Exception:  # an int of 5,000 digits has no text, and by now the call may be committed
        return "invalid"
