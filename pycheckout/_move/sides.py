"""The two servers of a move, what an operator may say about it, and how it refuses."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from .._conninfo import KEEPALIVE, own
from .._errors import CheckoutError
from .._migrate import _SETTINGS

HERE: LiteralString = "quote_ident(current_schema())::regnamespace"
TIMELINE: LiteralString = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"
"""Another one: there was a failover."""


class MoveRefused(CheckoutError):
    """The move does not begin, or was taken back: `message` says why."""

    code = "move_refused"


class MoveDoubtful(CheckoutError):
    """The move came through, and a look at both servers found what should not be: `message` says what."""

    code = "move_doubtful"


class MoveUnfinished(CheckoutError):
    """The move stands where it stood: the same command goes on, `--abort` takes it back."""

    code = "move_unfinished"
    retryable = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A server of the map."""

    name: str
    database: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What an operator may say about a move."""

    pg_dump: str | None = None
    """The program; by default that of the PATH."""
    source_address: str = ""
    """How the target reaches the source, if not as we do: libpq's parameters, laid over those of the map."""
    target_address: str = ""
    """How the source reaches the target afterwards, to follow it."""
    way_back: timedelta | None = timedelta(days=1)
    """How long the source is to follow the target, so that the market can come back uncopied. None: not at all."""
    tries: int = 20
    """Attempts to freeze."""
    pause: tuple[float, float] = (1.0, 5.0)
    """Seconds between two of them, at least and at most."""
    max_wal: int = 10 * 1024**3
    """Bytes of WAL that the source may keep for the move."""
    frozen: float = 10.0
    """Seconds that the market may stand still before it goes back."""
    given_up: tuple[str, ...] = ()
    """Standbys of the source that will never be promoted."""
    prove: bool = True
    """Whether all rows are compared afterwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What one side says of itself.

    `state`: as in checkout_market; foreign: the schema has no such table; None: there is no such schema.
    """

    state: str | None
    epoch: int = 0
    server: str | None = None
    followed_until: datetime | None = None
    """Until when the server that the market came from is to follow. None: it does not."""


class Side:
    """A session at one of the two servers, in the market's schema."""

    def __init__(self, place: Place, schema: str) -> None:
        self.place = place
        self.schema = schema
        self.params = KEEPALIVE | own(place.database) | {"application_name": "pycheckout move"}
        self.conn = self.connect()

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        conn = psycopg.connect(**self.params, autocommit=True, row_factory=dict_row)
        conn.execute(_SETTINGS)
        conn.execute("select set_config('search_path', quote_ident(%s) || ', pg_temp', false)", (self.schema,))
        return conn

    def rows(self, query: LiteralString | sql.Composed, *params: Any) -> list[dict[str, Any]]:
        by_name = params[0] if params and isinstance(params[0], dict) else None
        cursor = self.conn.execute(query, by_name or params or None)
        return cursor.fetchall() if cursor.description else []

    def value(self, query: LiteralString | sql.Composed, *params: Any) -> Any:
        [row] = self.rows(query, *params)
        [value] = row.values()
        return value

    def call(self, function: LiteralString, *args: Any) -> Any:
        """A step, in a transaction of its own."""
        places = sql.SQL(", ").join([sql.Placeholder()] * len(args))
        return self.value(sql.SQL("select {}({})").format(sql.Identifier(function), places), *args)

    def status(self) -> Status:
        # by its own words where it has them, since a schema of another release may lack the table
        if self.value("select to_regclass('checkout_market') is null"):
            there = self.value("select exists (select from pg_namespace where nspname = %s)", self.schema)
            return Status(state="foreign" if there else None)
        found = self.rows("select state, epoch, server, followed_until from checkout_market")
        return Status(**found[0]) if found else Status(state="selling")

    def tables(self) -> list[str]:
        return [row["name"] for row in self.rows("select gated::text as name from market_tables() as gated")]

    def briefly(self, statement: sql.Composed | LiteralString, *params: Any) -> None:
        """A statement that locks a table: it waits for nobody for long, since everybody would wait behind it."""
        while True:
            try:
                with self.conn.transaction():
                    self.rows("set local lock_timeout = '200ms'")
                    self.rows(statement, *params)
                return
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                time.sleep(random.uniform(0.1, 0.5))

    @property
    def major(self) -> int:
        return self.conn.info.server_version // 10000


def listed(names: Sequence[str]) -> sql.Composed:
    """Names as regclass writes them: quoted where they must be."""
    return sql.SQL(", ").join(map(sql.SQL, names))
