"""A market moved to another server while it sells: `pycheckout market move`.

Rows go by PostgreSQL's own logical replication, what holds them by pg_dump. What decides who sells is one row in each
schema, `checkout_market`, and the functions of `db/functions/market`, which change it; here is the order in which they
are called. Each step looks where the move is before it does anything. So a command that died is run again, and goes on
from there, and one that comes late finds another state and stops.

Until the target is opened, all can be taken back (`abort`); after that, the source only says where the market went.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, LiteralString
from zlib import crc32

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from . import _audit
from ._conninfo import KEEPALIVE, named, parameters
from ._embedded import bundled_programs
from ._errors import CheckoutError, Unavailable, translated
from ._migrate import _SETTINGS
from ._release import deployment, release

STEPS = (
    "look",
    "leave",
    "structure",
    "subscribe",
    "copy",
    "compare",
    "calm",
    "freeze",
    "standbys",
    "mark",
    "sequences",
    "open",
    "close",
    "clear",
    "prove",
)
"""In their order. The market is frozen from the end of `freeze` to the end of `open`, the point of no return."""

_PATIENCE = 30.0  # seconds that a server may be away in the middle of a move
_ALONE = "select pg_try_advisory_lock(hashtext('pycheckout move'), hashtext(%s)) as got"
_FREEZE_MS = 300
_NEAR = 1_000_000  # bytes of WAL behind the source, at most, when it is frozen


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
class Problem:
    """Something that a move would break on."""

    problem: str
    message: str
    hint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePlan:
    """What a move would meet."""

    tables: int
    size_bytes: int
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a move did."""

    epoch: int
    server: str
    frozen_seconds: float | None
    """None: it was frozen by a command that died."""
    tries: int
    proven: bool | None
    """Whether both servers had the same rows when the target was opened. None: nobody compared."""
    findings: int | None
    """Of the audit at the target. None: it was not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What one side says of itself. `state`: as in checkout_market; None: there is no such market."""

    state: str | None
    epoch: int = 0
    server: str | None = None


class _Side:
    """A session at one of the two servers, in the market's schema."""

    def __init__(self, place: Place, schema: str) -> None:
        self.place = place
        self.schema = schema
        self.params = KEEPALIVE | parameters(place.database) | {"application_name": "pycheckout move"}
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
        found = self.rows("select state, epoch, server from checkout_market")
        return Status(**found[0]) if found else Status(state="selling")

    def tables(self) -> list[str]:
        return [row["name"] for row in self.rows("select gated::text as name from market_tables() as gated")]

    @property
    def major(self) -> int:
        return self.conn.info.server_version // 10000


@dataclass
class Move:
    """One market, its schema, and the two servers."""

    market: str
    schema: str
    source_place: Place
    target_place: Place
    options: Options = field(default_factory=Options)
    told: Callable[[str], None] = lambda step: None
    """Called with the name of each step when it begins."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with tables that are copied, and how many there are."""

    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _frozen_at: float | None = field(default=None, init=False)
    _frozen_seconds: float | None = field(default=None, init=False)
    _tries: int = field(default=0, init=False)
    _snapshot: psycopg.Connection[dict[str, Any]] | None = field(default=None, init=False)

    source: _Side = field(init=False)
    target: _Side = field(init=False)

    # What is called

    def plan(self) -> MovePlan:
        """What a move would meet. Reads only."""
        with self._both():
            return self._look()

    def status(self) -> tuple[Status, Status]:
        """What the two sides say."""
        with self._both(locks=False):
            return self.source.status(), self.target.status()

    def run(self) -> Moved:
        """Move, or go on with a move that stands still.

        Raises MoveRefused before anything is done, or when it was taken back; MoveUnfinished where it stands still.
        """
        lost_at: float | None = None
        while True:
            try:
                with self._both():
                    return self._go()
            except (psycopg.OperationalError, Unavailable) as exc:
                known = translated(exc) if isinstance(exc, psycopg.Error) else exc
                if not isinstance(known, Unavailable):
                    raise
                lost_at = lost_at or time.monotonic()
                if time.monotonic() > lost_at + _PATIENCE:
                    raise MoveUnfinished(
                        f"a server is away: {str(exc).splitlines()[0][:200]}",
                        hint="When it is back, run the same command again; or take the move back with --abort.",
                    ) from exc
                time.sleep(0.2)

    def abort(self) -> None:
        """Take the move back: the source has the market as if nothing had been.

        The target is shut first, so it has to be reached. Raises MoveRefused if it was opened.
        """
        with self._both():
            self._take_back()

    def finish(self, *, drop_source: bool = False, dump: str | None = None) -> None:
        """End a move that came through: nothing of it is left but the source's word; or not even that, and its rows.

        `drop_source`: after a dump into the file `dump`. Raises MoveRefused while the target does not sell.
        """
        with self._both():
            here, there = self.source.status(), self.target.status()
            if here.state != "moved" or there.state != "selling" or there.epoch < here.epoch:
                a, b = self.source_place.name, self.target_place.name
                raise MoveRefused(
                    f"the market is {here.state} at {a}, and {there.state or 'not'} at {b}",
                    hint="`pycheckout market move` ends the move first.",
                )
            self._clear(here.epoch)
            if drop_source:
                if dump is None:
                    raise MoveRefused("name the file that the source is dumped into before it is dropped")
                self._drop_source(dump)

    # The order

    def _go(self) -> Moved:
        here, there = self.source.status(), self.target.status()
        if here.state not in ("leaving", "moving", "moved"):
            self.told("look")
            if problems := self._look().problems:
                rest = "".join(f"; {each.message}" for each in problems[1:])
                raise MoveRefused(problems[0].message + rest, hint=problems[0].hint)
        if here.state == "moved":
            if here.server != self.target_place.name:
                raise MoveRefused(
                    f"the market is on server {here.server}", hint="Correct the map, or name that server with --from."
                )
            epoch = here.epoch
        else:
            self.told("leave")
            epoch = self._leave()
        here, there = self.source.status(), self.target.status()
        if there.state == "closed" and here.state in ("leaving", "moving"):
            self._take_back()  # a command that did so died
            return self._go()
        opened = (there.state, there.epoch) == ("selling", epoch)
        if here.state == "moving" and not opened and (there.state, there.epoch) != ("arriving", epoch):
            raise self._unknown(here, there)

        if here.state == "leaving" and opened:
            self._freeze(epoch)
            self.source.call("market_close", epoch)
            raise MoveDoubtful(
                f"{self.source_place.name} has lost its gate, and sold beside {self.target_place.name} since",
                hint="It was promoted from a standby that lacked the gate. It is shut now: compare the orders of both.",
            )
        if here.state == "leaving":
            self._prepare(epoch, there)
            self.told("freeze")
            self._freeze(epoch)
            here = self.source.status()
        if not opened:
            if here.state == "moving":
                try:
                    self._arrive(epoch)
                except MoveRefused:
                    self._take_back()
                    raise
            self._open(epoch)
        self.told("close")
        self.source.call("market_close", epoch)
        self.told("clear")
        self._clear(epoch)
        proven, findings = None, None
        if self.options.prove:
            self.told("prove")
            proven, findings = self._prove()
        return Moved(
            epoch=epoch,
            server=self.target_place.name,
            frozen_seconds=self._frozen_seconds,
            tries=self._tries,
            proven=proven,
            findings=findings,
        )

    def _leave(self) -> int:
        """The source notes that the market moves. Undone by market_stay."""
        epoch = int(self.source.call("market_leave", self.target_place.name, self.source_place.name))
        self._note_standbys()
        return epoch

    def _prepare(self, epoch: int, there: Status) -> None:
        """Everything that takes its time, while the market sells. Undone by dropping it."""
        if there.state is not None and (there.state, there.epoch) != ("arriving", epoch):
            if there.state not in ("arriving", "closed"):
                raise MoveRefused(
                    f'server {self.target_place.name} has a schema "{self.schema}" already',
                    hint="Look what it is; a move makes its own.",
                )
            self._drop_target()  # of a move that was taken back
            there = Status(state=None)
        self.told("structure")
        self.source.call("market_guard")
        self._publish(epoch)
        if there.state is None:
            self._structure(epoch)
        self.told("subscribe")
        self._subscribe(epoch)
        self.told("copy")
        self._copy(epoch)
        self.told("compare")
        self._compare()
        self.told("calm")
        self._calm()
        self._catch_up(epoch)
        self._compare()

    def _arrive(self, epoch: int) -> None:
        """All that was written is at the target, and whoever could take the source's place has the gate."""
        self.told("standbys")
        self._standbys()
        self.told("mark")
        self._mark(epoch)

    def _open(self, epoch: int) -> None:
        """The point of no return."""
        self.told("sequences")
        self._sequences()
        if self.options.prove:
            self._snapshot = self._stack.enter_context(self.target.connect())
            self._snapshot.execute("begin isolation level repeatable read read only")
            self._snapshot.execute("select pg_current_snapshot()")  # no table: its lock would outlast the opening
        self.told("open")
        self.target.call("market_open", epoch)
        if self._frozen_at is not None:
            self._frozen_seconds = round(time.monotonic() - self._frozen_at, 3)

    # Look

    def _look(self) -> MovePlan:
        source, target = self.source, self.target
        problems: list[Problem] = []

        def problem(name: str, message: str, hint: str) -> None:
            problems.append(Problem(problem=name, message=message, hint=hint))

        a, b = self.source_place.name, self.target_place.name
        for side in (source, target):
            for row in side.rows(_LOOK_SERVER):
                if row["recovering"]:
                    problem("standby", f"{side.place.name} is a standby", "Name its primary in the map.")
                if not row["superuser"]:
                    problem(
                        "right", f'role "{side.conn.info.user}" is no superuser at {side.place.name}', "Connect as one."
                    )
                if side.conn.info.backend_pid != row["pid"]:
                    problem("pooler", f"there is a pooler before {side.place.name}", "Name the server itself.")
        if problems:
            return MovePlan(tables=0, size_bytes=0, problems=tuple(problems), notes=())
        if source.major > target.major:
            problem(
                "version",
                f"{b} has PostgreSQL {target.major}, and {a} {source.major}",
                "Move to the same or a newer one.",
            )
        state = source.status()
        if state.state in (None, "foreign"):
            problem("not_installed", f'{a} has no market in schema "{self.schema}"', "Look at the map.")
            return MovePlan(tables=0, size_bytes=0, problems=tuple(problems), notes=())
        if state.state in ("arriving", "closed", "moved"):
            problem("elsewhere", f"the market is {state.state} at {a} (server {state.server})", "Correct the map.")
        deployed = source.rows("select version, hash from checkout_releases order by id desc limit 1")
        if [(row["version"], row["hash"]) for row in deployed] != [(release(), deployment().functions_hash())]:
            problem("release", f"{a} has other functions than this package, {release()}", "pycheckout migrate")
        for row in source.rows(_LOOK_SOURCE):
            if row["wal_level"] != "logical":
                problem(
                    "wal_level",
                    f"wal_level is {row['wal_level']} at {a}",
                    "ALTER SYSTEM SET wal_level = logical; it takes a restart.",
                )
            if row["keep"] in ("-1", "-1MB"):
                problem(
                    "wal_keep",
                    f"max_slot_wal_keep_size is not set at {a}: a target that stands still would fill its disk",
                    "ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
                )
            if row["slots"] < 2 or row["senders"] < 2:
                problem(
                    "slots",
                    f"{a} has no replication slots or senders left",
                    "Raise max_replication_slots and max_wal_senders.",
                )
        for row in target.rows(_LOOK_TARGET):
            if row["workers"] < 2 or row["origins"] < 1:
                problem(
                    "workers",
                    f"{b} has no workers for a subscription",
                    "Raise max_logical_replication_workers, max_worker_processes and max_replication_slots.",
                )
        if source.value("show server_encoding") != target.value("show server_encoding"):
            problem("encoding", f"{a} and {b} have other encodings", "Use a database of the same.")
        if source.value(_COLLATED) and source.value(_COLLATION) != target.value(_COLLATION):
            problem(
                "collation",
                f"{b} sorts texts otherwise, and an index depends on it",
                "Use a database of the same locale.",
            )
        needed = {row["name"] for row in source.rows(_ROLES)}
        there = {row["name"] for row in target.rows("select rolname::text as name from pg_roles")}
        if missing := sorted(needed - there):
            problem(
                "roles", f"{b} lacks roles that have rights in the schema: {', '.join(missing)}", "Create them there."
            )
        for row in source.rows(_BAD_TABLES):
            problem(
                "table",
                f"table {row['name']} {row['why']}",
                "Give it a primary key, or make it logged; or move it out of the schema.",
            )
        for row in source.rows(_LEADS_OUT, {"schema": self.schema}):
            problem(
                "leads_out",
                f"{row['one']} depends on {row['other']}",
                "Nothing may lead out of the schema, or into it.",
            )
        found = target.status()
        if found.state is not None and found.state not in ("arriving", "closed"):
            problem("taken", f'{b} has a schema "{self.schema}" already', "Drop it there, or rename it.")
        dump = self._pg_dump()
        if dump is None:
            problem(
                "pg_dump",
                f"there is no pg_dump of PostgreSQL {source.major} or newer",
                "Install it, or name it with --pg-dump.",
            )
        notes = [
            f"publication {row['name']} at {b} would publish the rows that are copied"
            for row in target.rows(_PUBLISHING)
        ]
        notes += [
            f"{row['name']} reads changes at {side.place.name} by a slot of its own: its consumer stays there"
            for side in (source, target)
            for row in side.rows(_SLOTS)
        ]
        size = source.rows(_SIZE)[0]
        return MovePlan(tables=size["tables"], size_bytes=size["bytes"], problems=tuple(problems), notes=tuple(notes))

    # Before the gate

    def _name(self, epoch: int) -> str:
        """Of the publication, the subscription, its slot and its role. Schemas of several databases share them."""
        where = f"{self.source.conn.info.dbname}.{self.schema}"
        return f"pycheckout_move_{epoch}_{crc32(where.encode()):08x}"

    def _publish(self, epoch: int) -> None:
        name = self._name(epoch)
        listed = {row["name"] for row in self.source.rows(_PUBLISHED, name)}
        tables = self.source.tables()
        if listed != set(tables):
            with self.source.conn.transaction():
                self.source.rows(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))
                self.source.rows(
                    sql.SQL("create publication {} for table {}").format(sql.Identifier(name), _list(tables))
                )

    def _structure(self, epoch: int) -> None:
        """The schema as it is at the source, without rows, shut from its first moment on."""
        text = self._dumped("--schema-only", "--no-publications", "--no-subscriptions")
        text = re.sub(r"^\\(?:un)?restrict \w+$", "", text, flags=re.MULTILINE)
        if self.target.major < 17:
            text = re.sub(r"^SET transaction_timeout = 0;$", "", text, flags=re.MULTILINE)
        with self.target.connect() as conn, conn.transaction():
            conn.execute(text.encode())
            conn.execute("select set_config('search_path', quote_ident(%s) || ', pg_temp', true)", (self.schema,))
            conn.execute("select market_arrive(%s, %s)", (epoch, self.target_place.name))

    def _subscribe(self, epoch: int) -> None:
        name = self._name(epoch)
        if self.target.rows(_SUBSCRIPTION, name):
            return
        self._drop_slot(name)  # of an attempt that died between the two servers
        password = secrets.token_hex(24)
        role = sql.Identifier(name)
        with self.source.conn.transaction():
            self.source.rows("set local log_statement = 'none'")
            verb = "alter" if self.source.rows("select 1 from pg_roles where rolname = %s", name) else "create"
            query = sql.SQL(verb + " role {} login replication password {}")
            self.source.rows(query.format(role, sql.Literal(password)))
            schema = sql.Identifier(self.schema)
            self.source.rows(sql.SQL("grant usage on schema {} to {}").format(schema, role))
            self.source.rows(sql.SQL("grant select on all tables in schema {} to {}").format(schema, role))
        way = parameters(self.source_place.database) | parameters(self.options.source_address)
        way |= {"dbname": self.source.conn.info.dbname, "user": name, "password": password, "connect_timeout": "10"}
        for given in ("passfile", "service", "options", "application_name"):
            way.pop(given, None)
        way.setdefault("host", self.source.conn.info.host)
        way.setdefault("port", str(self.source.conn.info.port))
        self.target.rows(
            sql.SQL(
                "create subscription {} connection {} publication {} with (disable_on_error = true, streaming = off)"
            ).format(role, sql.Literal(psycopg.conninfo.make_conninfo(**way)), role)
        )

    def _copy(self, epoch: int) -> None:
        name = self._name(epoch)
        total = len(self.source.tables())
        while True:
            self._healthy(epoch)
            left = self.target.value(_NOT_READY, name)
            self.progress(total - left, total)
            if not left:
                break
            time.sleep(0.1)
        for table in self.target.tables():
            self.target.rows(sql.SQL("analyze {}").format(sql.SQL(table)))
        self.target.rows(
            "select checkout_bound_lock_waits(role_name) from (select distinct role_name from checkout_roles) as known"
            " where role_name in (select rolname from pg_roles)"
        )

    def _healthy(self, epoch: int, *, frozen: bool = False) -> None:
        """Raises unless rows still come. Past the bound of WAL, or without its slot, a copy is worth nothing."""
        name = self._name(epoch)
        subscribed = self.target.rows(_SUBSCRIPTION, name)
        slot = self.source.rows(_SLOT, name)
        why = None
        if not subscribed:
            why = "there is no subscription any more"
        elif not slot or slot[0]["lost"]:  # which stops the subscription too
            why = "the source has lost the slot of the move, as it does by a failover"
        elif not subscribed[0]["enabled"]:
            why = "the subscription met an error and stopped, which the log of the target tells"
        elif slot[0]["kept"] > self.options.max_wal:
            why = f"the source keeps {slot[0]['kept']:,} bytes of WAL for the move"
        if why is not None:
            if not frozen:
                self._take_back()
            raise MoveRefused(f"{why}: the move is taken back", hint="Begin it again when that is mended.")

    def _compare(self) -> None:
        """Both schemas consist of the same: nobody changed one meanwhile."""
        here, there = (
            {row["line"] for row in side.rows(_CONSISTS, {"schema": self.schema, "move": "pycheckout_move_%"})}
            for side in (self.source, self.target)
        )
        if other := sorted(here ^ there):
            where = self.source_place.name if other[0] in here else self.target_place.name
            raise MoveUnfinished(
                f"the schemas differ: only {where} has {other[0]}",
                hint="The schema was changed since it was copied: take the move back with --abort, and begin it again.",
            )

    def _calm(self) -> None:
        """No vacuum holds a table when the gate comes. Undone by _vacuum_again."""
        for table in self.source.rows(_VACUUMED):
            name = table["name"]
            self.source.rows(
                "update checkout_market set vacuumed = vacuumed || %s::text where not %s = any (vacuumed)", name, name
            )
            self._briefly(self.source, sql.SQL("alter table {} set (autovacuum_enabled = off)").format(sql.SQL(name)))
        ends = time.monotonic() + 10
        while self.source.rows(_VACUUMING) and time.monotonic() < ends:
            self.source.rows(_STOP_VACUUMING)
            time.sleep(0.05)

    def _vacuum_again(self) -> None:
        for row in self.source.rows("select unnest(vacuumed) as name from checkout_market"):
            if self.source.value("select to_regclass(%s) is not null", row["name"]):
                self._briefly(
                    self.source, sql.SQL("alter table {} reset (autovacuum_enabled)").format(sql.SQL(row["name"]))
                )
            self.source.rows("update checkout_market set vacuumed = array_remove(vacuumed, %s)", row["name"])

    def _briefly(self, side: _Side, statement: sql.Composed | LiteralString, *params: Any) -> None:
        """A statement that locks a table: it waits for nobody for long, since everybody would wait behind it."""
        while True:
            try:
                with side.conn.transaction():
                    side.rows("set local lock_timeout = '200ms'")
                    side.rows(statement, *params)
                return
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                time.sleep(random.uniform(0.1, 0.5))

    def _catch_up(self, epoch: int) -> None:
        while True:
            self._healthy(epoch)
            if self.source.value(_BEHIND, self._name(epoch)) < _NEAR:
                return
            time.sleep(0.05)

    # The gate

    def _freeze(self, epoch: int) -> None:
        deadlock = self.source.value("select extract(epoch from current_setting('deadlock_timeout')::interval) * 1000")
        limit = int(min(_FREEZE_MS, float(deadlock) / 2))
        self._followed(MoveUnfinished, "do not follow")
        for attempt in range(self.options.tries):
            if attempt:
                time.sleep(random.uniform(*self.options.pause))
            self._tries += 1
            self._frozen_at = time.monotonic()
            try:
                with self.source.conn.transaction():
                    self.source.rows(sql.SQL("set local statement_timeout = {}").format(sql.Literal(limit)))
                    self.source.rows("set local synchronous_commit = on")
                    self.source.call("market_freeze", epoch)
                return
            except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                self._frozen_at = None
        holders = [
            f"process {row['pid']} ({row['seconds']:.0f} s): {row['query']}" for row in self.source.rows(_HOLDERS)
        ]
        raise MoveUnfinished(
            f"the market could not be frozen in {self.options.tries} attempts"
            + "".join(f"; {each}" for each in holders),
            hint="Let that end, and run the same command again: the copy goes on following. Or --abort.",
        )

    def _position(self) -> str:
        return str(self.source.value("select pg_current_wal_insert_lsn()::text"))

    def _note_standbys(self) -> None:
        """Remember who follows: one that is away when it matters is not forgotten.

        Behind a failover those count that follow the new primary, which was one of the others.
        """
        seen = Counter(row["name"] for row in self.source.rows(_STANDBYS, {"lsn": "0/0"}))
        [noted] = self.source.rows(f"select standbys, timeline = {_TIMELINE} as same from checkout_market")
        wanted = Counter(noted["standbys"]) | seen if noted["same"] else seen
        self.source.rows(f"update checkout_market set standbys = %s, timeline = {_TIMELINE}", sorted(wanted.elements()))

    def _behind(self, lsn: str) -> list[str]:
        """Standbys that have not flushed this."""
        self._note_standbys()
        wanted = Counter(self.source.value("select standbys from checkout_market"))
        for name in self.options.given_up:
            wanted.pop(name, None)
        rows = self.source.rows(_STANDBYS, {"lsn": lsn})
        return sorted((wanted - Counter(row["name"] for row in rows if row["has"])).elements())

    def _standbys(self) -> None:
        """A standby without the gate would sell, once it is promoted."""
        self._followed(MoveRefused, "did not get the gate, and the move is taken back")

    def _followed(self, error: type[CheckoutError], otherwise: str) -> None:
        """Every standby has flushed what was written until now, and soon."""
        lsn = self._position()
        ends = time.monotonic() + self.options.frozen
        while missing := self._behind(lsn):
            if time.monotonic() > ends:
                raise error(
                    f"standbys of the source {otherwise}: {', '.join(missing)}",
                    hint="Let them follow; or, if one will never be promoted, say so: --given-up NAME.",
                )
            time.sleep(0.005)

    def _mark(self, epoch: int) -> None:
        ends = time.monotonic() + self.options.frozen
        looked = 0.0
        while not self.target.value("select exists (select from checkout_moves where epoch = %s)", epoch):
            if time.monotonic() > looked + 0.2:
                looked = time.monotonic()
                self._healthy(epoch, frozen=True)
            if looked > ends:
                raise MoveRefused(
                    f"the mark of the move did not come within {self.options.frozen:g} s; the move is taken back",
                    hint="See what holds the target up, and begin it again.",
                )
            time.sleep(0.002)

    def _sequences(self) -> None:
        names = [row["name"] for row in self.source.rows(_SEQUENCES)]
        if not names:
            return
        ask = sql.SQL(" union all ").join(
            sql.SQL("select {} as name, last_value, is_called from {}").format(sql.Literal(name), sql.SQL(name))
            for name in names
        )
        values = self.source.rows(ask)
        self.target.rows(
            "select setval(name::regclass, last_value, is_called) from jsonb_to_recordset(%s::jsonb)"
            " as sequence (name text, last_value bigint, is_called boolean)",
            json.dumps(values),
        )

    # Behind it

    def _clear(self, epoch: int) -> None:
        """What only the move needed. The source keeps its gate and its word; the target has the calls as deployed."""
        name = self._name(epoch)
        self._unsubscribe(name)
        self._as_deployed(self.target)
        self._unpublish(name)
        self._vacuum_again()

    def _as_deployed(self, side: _Side) -> None:
        """No table has a gate there, and no call a guard."""
        for table in side.tables():
            if side.rows(_GATED, table):
                self._briefly(side, "select market_drop_gate(%s::text::regclass)", table)
        side.call("market_unguard")

    def _unsubscribe(self, name: str) -> None:
        if self.target.rows(_SUBSCRIPTION, name):
            subscription = sql.Identifier(name)
            self.target.rows(sql.SQL("alter subscription {} disable").format(subscription))
            self.target.rows(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
            self.target.rows(sql.SQL("drop subscription {}").format(subscription))

    def _unpublish(self, name: str) -> None:
        self._drop_slot(name)
        self.source.rows(sql.SQL("drop publication if exists {}").format(sql.Identifier(name)))
        if self.source.rows("select 1 from pg_roles where rolname = %s", name):
            self._briefly(self.source, sql.SQL("drop owned by {}").format(sql.Identifier(name)))
            self.source.rows(sql.SQL("drop role if exists {}").format(sql.Identifier(name)))

    def _drop_slot(self, name: str) -> None:
        """That of the subscription, and those of tables that it was still copying."""
        ends = time.monotonic() + 20
        while slots := self.source.rows(_OUR_SLOTS, name):
            for slot in slots:
                if slot["pid"] is not None:
                    self.source.rows("select pg_terminate_backend(%s)", slot["pid"])
                with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                    self.source.rows("select pg_drop_replication_slot(%s)", slot["name"])
            if time.monotonic() > ends:
                raise MoveUnfinished(f"slot {name} is in use at {self.source_place.name}")
            time.sleep(0.02)

    def _drop_target(self) -> None:
        """A schema of a move that was taken back: it says so itself."""
        there = self.target.status()
        if there.state not in ("arriving", "closed"):
            raise MoveRefused(f'schema "{self.schema}" of {self.target_place.name} is {there.state}')
        self.target.call("market_shut", there.epoch)
        for row in self.target.rows(_SUBSCRIPTIONS_OF, self.schema):
            self._unsubscribe(row["name"])
        self._drop_schema(self.target)

    def _drop_schema(self, side: _Side) -> None:
        side.rows("set client_min_messages = warning")
        side.rows(sql.SQL("drop schema {} cascade").format(sql.Identifier(self.schema)))
        side.rows("reset client_min_messages")

    def _take_back(self) -> None:
        here, there = self.source.status(), self.target.status()
        if here.state == "moved" or (
            there.state == "selling" and there.epoch == here.epoch and here.state != "selling"
        ):
            raise MoveRefused(
                f"the market is sold in at {self.target_place.name} since move {here.epoch}: "
                "there is no way back but another move",
                hint="`pycheckout market move` ends this one.",
            )
        if here.state == "moving" and (there.state, there.epoch) not in (
            ("arriving", here.epoch),
            ("closed", here.epoch),
        ):
            raise self._unknown(here, there)
        if there.state in ("arriving", "closed"):
            self.target.call("market_shut", there.epoch)
        if here.state in ("leaving", "moving"):
            self.source.call("market_stay", here.epoch)
        if there.state in ("arriving", "closed"):
            self._drop_target()
        if here.state in (None, "foreign"):
            return
        self._unpublish(self._name(here.epoch))
        self._as_deployed(self.source)
        self._vacuum_again()

    def _unknown(self, here: Status, there: Status) -> MoveRefused:
        gone = there.state or "gone"
        return MoveRefused(
            f"{self.target_place.name} does not say what became of move {here.epoch}: its schema is {gone}",
            hint="If it never sold, open the source yourself: docs/runbook.md says how.",
        )

    def _drop_source(self, dump: str) -> None:
        leads = self.source.rows(_LEADS_OUT, {"schema": self.schema})
        if leads:
            raise MoveRefused(
                f"{leads[0]['one']} depends on {leads[0]['other']}", hint="Nothing outside may need the schema."
            )
        Path(dump).touch(mode=0o600)
        self._dumped("--format=custom", f"--file={Path(dump).resolve()}")
        self._drop_schema(self.source)

    # Proof

    def _prove(self) -> tuple[bool | None, int]:
        """All rows of the source, which is frozen, against those that the target had when it opened; and the audit."""
        proven = None
        if self._snapshot is not None:
            sums: list[dict[str, Any]] = []
            for conn in (self.source.conn, self._snapshot):
                conn.execute(_ALIKE)
                found: dict[str, Any] = {}
                for number, table in enumerate(tables := self.source.tables()):
                    self.progress(number, len(tables))
                    query = sql.SQL(_SUM).format(sql.SQL(table))
                    found[table] = conn.execute(query).fetchall()
                sums.append(found)
            here, there = sums
            if other := [table for table in here if here[table] != there[table]]:
                raise MoveDoubtful(
                    f"{self.target_place.name} had other rows than {self.source_place.name} when it was opened: "
                    + ", ".join(other),
                    hint="Both schemas are as they were: compare them before anything is dropped.",
                )
            proven = True
            self._snapshot.rollback()
        broken = list(
            _audit.audit(
                self.target.conn, None, lambda done, total: self.progress(done, total or 0), schema=self.schema
            )
        )
        return proven, len(broken)

    # Both servers

    @contextmanager
    def _both(self, *, locks: bool = True) -> Iterator[None]:
        """Sessions at both, and nobody else who moves this market."""
        with ExitStack() as stack:
            self._stack = stack
            self._snapshot = None
            sides = []
            for place in (self.source_place, self.target_place):
                side = _Side(place, self.schema)
                stack.callback(side.conn.close)
                sides.append(side)
            self.source, self.target = sides
            if self.source.value(_SYSTEM) == self.target.value(_SYSTEM):
                raise MoveRefused(
                    f"{self.source_place.name} and {self.target_place.name} are one server",
                    hint="A move is between two servers; within one, rename the schema.",
                )
            if locks:
                ends = time.monotonic() + 5  # the session of a command that was killed takes a moment to end
                for side in sides:
                    while not side.value(_ALONE, self.schema):
                        if time.monotonic() > ends:
                            raise MoveRefused(
                                f"another command moves this market, in a session at {side.place.name}",
                                hint="Let it end; its application_name is `pycheckout move`.",
                            )
                        time.sleep(0.1)
            yield

    def _pg_dump(self) -> str | None:
        """The program that was named, or the first that is new enough."""
        programs = [self.options.pg_dump or shutil.which("pg_dump")]
        if self.options.pg_dump is None:
            with suppress(RuntimeError):
                programs.append(str(bundled_programs() / "pg_dump"))
        for program in programs:
            if program is not None and os.access(program, os.X_OK):
                said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
                version = re.search(r"(\d+)", said)
                if version and int(version[1]) >= self.source.major:
                    return program
        return None

    def _dumped(self, *arguments: str) -> str:
        """What pg_dump says of the source's schema."""
        program = self._pg_dump()
        if program is None:
            raise MoveRefused("there is no pg_dump", hint="Name it with --pg-dump.")
        way = {name: value for name, value in self.source.params.items() if name != "password"}
        environment = dict(os.environ)
        if password := self.source.params.get("password"):
            environment["PGPASSWORD"] = str(password)
        quoted = sql.Identifier(self.schema).as_string()
        done = subprocess.run(
            [program, *arguments, f"--schema={quoted}", "--dbname", psycopg.conninfo.make_conninfo(**way)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise MoveRefused(f"pg_dump at {named(way)}: {done.stderr.strip()[:500]}")
        return done.stdout


def _list(names: Sequence[str]) -> sql.Composed:
    """Names as regclass writes them: quoted where they must be."""
    return sql.SQL(", ").join(map(sql.SQL, names))


_HERE: LiteralString = "quote_ident(current_schema())::regnamespace"

_TIMELINE: LiteralString = "left(pg_walfile_name(pg_current_wal_lsn()), 8)"

_LOOK_SERVER = """
select pg_is_in_recovery() as recovering, pg_backend_pid() as pid,
       (select rolsuper from pg_roles where rolname = current_user) as superuser
"""
_SYSTEM = "select system_identifier::text from pg_control_system()"
_LOOK_SOURCE = """
select current_setting('wal_level') as wal_level, current_setting('max_slot_wal_keep_size') as keep,
       current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots) as slots,
       current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication) as senders
"""
_LOOK_TARGET = """
select current_setting('max_logical_replication_workers')::int as workers,
       current_setting('max_replication_slots')::int - (select count(*) from pg_replication_origin_status) as origins
"""
_COLLATED = f"""
select exists (select from pg_index as index join pg_class as class on class.oid = index.indrelid
                cross join unnest(index.indcollation::oid[]) as used (id)
                where class.relnamespace = {_HERE} and used.id = 100)
"""
_COLLATION = """
select concat_ws(' ', datcollate, datctype, datlocprovider) from pg_database where datname = current_database()
"""
_ROLES = f"""
with acls (acl) as (
  select relacl from pg_class where relnamespace = {_HERE}
   union all select attacl from pg_attribute join pg_class on pg_class.oid = attrelid where relnamespace = {_HERE}
   union all select proacl from pg_proc where pronamespace = {_HERE}
   union all select typacl from pg_type where typnamespace = {_HERE}
   union all select nspacl from pg_namespace where oid = {_HERE})
select role.rolname::text as name
  from pg_roles as role
 where role.oid in (select entry.grantee from acls cross join aclexplode(acls.acl) as entry
                     union select relowner from pg_class where relnamespace = {_HERE}
                     union select proowner from pg_proc where pronamespace = {_HERE})
   and role.rolname not like 'pycheckout_move_%'
"""
_BAD_TABLES = f"""
select class.oid::regclass::text as name,
       case when class.relpersistence <> 'p' then 'is unlogged' else 'has no key' end as why
  from pg_class as class
 where class.relnamespace = {_HERE} and class.relkind in ('r', 'p')
   and (class.relpersistence <> 'p'
        or not exists (select from pg_index where indrelid = class.oid and (indisprimary or indisreplident)))
 order by 1
"""
# What a sub-object belongs to counts as the one: a constraint's table, a rule's view.
_LEADS_OUT = """
with placed (classid, objid, schema, name) as (
  select 'pg_class'::regclass, oid, relnamespace, oid::regclass::text from pg_class
   union all select 'pg_proc'::regclass, oid, pronamespace, oid::regprocedure::text from pg_proc
   union all select 'pg_type'::regclass, oid, typnamespace, oid::regtype::text from pg_type
   union all select 'pg_rewrite'::regclass, rule.oid, relnamespace, ev_class::regclass::text
               from pg_rewrite as rule join pg_class on pg_class.oid = ev_class
   union all select 'pg_trigger'::regclass, trigger.oid, relnamespace,
                    format('trigger %%s of %%s', tgname, tgrelid::regclass)
               from pg_trigger as trigger join pg_class on pg_class.oid = tgrelid
   union all select 'pg_constraint'::regclass, con.oid, connamespace,
                    format('constraint %%s of %%s', conname, conrelid::regclass)
               from pg_constraint as con where conrelid <> 0
   union all select 'pg_attrdef'::regclass, def.oid, relnamespace, 'a default of ' || adrelid::regclass::text
               from pg_attrdef as def join pg_class on pg_class.oid = adrelid)
select distinct one.name as one, other.name as other
  from pg_depend as depend
  join placed as one on one.classid = depend.classid and one.objid = depend.objid
  join placed as other on other.classid = depend.refclassid and other.objid = depend.refobjid
 where one.schema <> other.schema
   and (select oid from pg_namespace where nspname = %(schema)s) in (one.schema, other.schema)
   and not other.schema in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
   and not one.schema in ('pg_catalog'::regnamespace, 'pg_toast'::regnamespace)
 order by 1, 2
 limit 10
"""
_PUBLISHING = "select pubname::text as name from pg_publication where puballtables"
_SLOTS = """
select 'slot ' || slot_name as name from pg_replication_slots
 where slot_type = 'logical' and database = current_database() and slot_name not like 'pycheckout_move_%'
   and slot_name not like 'pg_%_sync_%'
"""
_SIZE = f"""
select count(*) as tables, coalesce(sum(pg_total_relation_size(oid)), 0)::bigint as bytes
  from pg_class where relnamespace = {_HERE} and relkind = 'r'
"""
_PUBLISHED = """
select format('%%I', class.relname) as name
  from pg_publication
  join pg_publication_rel on prpubid = pg_publication.oid
  join pg_class as class on class.oid = prrelid
 where pubname = %s
"""
_SUBSCRIPTION = """
select subenabled as enabled from pg_subscription
 where subname = %s and subdbid = (select oid from pg_database where datname = current_database())
"""
_SUBSCRIPTIONS_OF = """
select distinct subname::text as name
  from pg_subscription
  join pg_subscription_rel on srsubid = pg_subscription.oid
  join pg_class on pg_class.oid = srrelid
 where subname like 'pycheckout_move_%%' and relnamespace = (select oid from pg_namespace where nspname = %s)
"""
_NOT_READY = """
select count(*) from pg_subscription_rel join pg_subscription on pg_subscription.oid = srsubid
 where subname = %s and srsubstate <> 'r'
"""
_SLOT = """
select coalesce(wal_status, '') = 'lost' as lost,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint as kept
  from pg_replication_slots where slot_name = %s
"""
_OUR_SLOTS = """
select slot_name::text as name, active_pid as pid from pg_replication_slots where slot_name = %s
"""
_BEHIND = """
select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::bigint
  from pg_replication_slots where slot_name = %s
"""
_VACUUMED = f"""
select class.oid::regclass::text as name
  from pg_class as class
 where class.relnamespace = {_HERE} and class.relkind = 'r'
   and not coalesce(class.reloptions::text ~ 'autovacuum_enabled', false)
 order by 1
"""
_VACUUMING = f"""
select activity.pid
  from pg_stat_activity as activity
  join pg_locks as held on held.pid = activity.pid and held.locktype = 'relation'
  join pg_class as class on class.oid = held.relation
 where activity.backend_type = 'autovacuum worker' and activity.datname = current_database()
   and class.relnamespace = {_HERE}
"""
_STOP_VACUUMING = f"select pg_cancel_backend(pid) from ({_VACUUMING}) as found"
_HOLDERS = f"""
select distinct activity.pid, extract(epoch from clock_timestamp() - activity.xact_start)::float8 as seconds,
       left(activity.query, 100) as query
  from pg_stat_activity as activity
  join pg_locks as held on held.pid = activity.pid and held.locktype = 'relation' and held.granted
  join pg_class as class on class.oid = held.relation
 where class.relnamespace = {_HERE} and activity.pid <> pg_backend_pid() and held.mode <> 'AccessShareLock'
 order by seconds desc nulls last
 limit 3
"""
# By its slot, if it has one: that is there too while the standby is not.
_STANDBYS = """
with senders as (
  select sender.application_name || coalesce('@' || host(sender.client_addr), '') as name, sender.flush_lsn,
         slot.slot_name
    from pg_stat_replication as sender
    left join pg_replication_slots as slot on slot.active_pid = sender.pid
   where slot.slot_type is distinct from 'logical' and sender.state <> 'backup'
     and sender.application_name not like 'pycheckout_move_%%' and sender.application_name not like 'pg_%%_sync_%%')
select name, coalesce(flush_lsn >= %(lsn)s::pg_lsn, false) as has from senders where slot_name is null
 union all
select slot.slot_name::text, coalesce(coalesce(sender.flush_lsn, slot.restart_lsn) >= %(lsn)s::pg_lsn, false)
  from pg_replication_slots as slot
  left join senders as sender on sender.slot_name = slot.slot_name
 where slot.slot_type = 'physical' and not slot.temporary
"""
_SEQUENCES = (
    f"select oid::regclass::text as name from pg_class where relnamespace = {_HERE} and relkind = 'S' order by 1"
)
_GATED = "select 1 from pg_trigger where tgrelid = %s::text::regclass and tgname = 'market_gate'"
_ALIKE = """
select set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
       set_config('intervalstyle', 'postgres', false), set_config('extra_float_digits', '1', false),
       set_config('bytea_output', 'hex', false)
"""
_SUM: LiteralString = """
select count(*) as rows, coalesce(sum(('x' || substr(md5(whole.*::text), 1, 16))::bit(64)::bigint::numeric), 0) as sum
  from {} as whole
"""
# Names, types and rights, which every release shows alike; the texts of functions, which every release keeps.
_CONSISTS = """
with here as (select oid from pg_namespace where nspname = %(schema)s),
acls (kind, name, owner, acl) as (
  select 'relation', relname::text, relowner, relacl from pg_class where relnamespace = (select oid from here)
   union all
  select 'column', relname || '.' || attname, relowner, attacl
    from pg_attribute join pg_class on pg_class.oid = attrelid
   where relnamespace = (select oid from here)
   union all
  select 'function', proname::text, proowner, coalesce(proacl, acldefault('f', proowner))
    from pg_proc where pronamespace = (select oid from here)
   union all
  select 'type', typname::text, typowner, coalesce(typacl, acldefault('T', typowner))
    from pg_type where typnamespace = (select oid from here)
   union all
  select 'schema', nspname::text, nspowner, nspacl from pg_namespace where oid = (select oid from here))
select 'relation ' || relkind::text || ' ' || relname || ' of ' || relowner::regrole::text as line
  from pg_class where relnamespace = (select oid from here) and relkind in ('r', 'p', 'v', 'm', 'S', 'c', 'i', 'I')
 union all
select concat('column ', relname, '.', attname, ' ', format_type(atttypid, atttypmod),
              case when attnotnull then ' not null' end)
  from pg_attribute join pg_class on pg_class.oid = attrelid
 where relnamespace = (select oid from here) and relkind in ('r', 'p', 'v') and attnum > 0 and not attisdropped
 union all
select 'constraint ' || conname || ' of ' || conrelid::regclass::text from pg_constraint
 where connamespace = (select oid from here) and conrelid <> 0 and contype <> 'n'
 union all
select 'trigger ' || tgname || ' of ' || tgrelid::regclass::text || ' ' || tgenabled::text
  from pg_trigger join pg_class on pg_class.oid = tgrelid
 where relnamespace = (select oid from here) and not tgisinternal and tgname <> 'market_gate'
 union all
select concat_ws(' ', 'function', oid::regprocedure, md5(prosrc), proconfig, prosecdef)
  from pg_proc where pronamespace = (select oid from here)
 union all
select concat_ws(' ', 'label', typname, enumlabel)
  from pg_enum join pg_type on pg_type.oid = enumtypid
 where typnamespace = (select oid from here)
 union all
select concat_ws(' ', 'right', acls.kind, acls.name, role.name, entry.privilege_type, entry.is_grantable)
  from acls
 cross join aclexplode(acls.acl) as entry
 cross join lateral (
   select case entry.grantee when 0 then 'public' else entry.grantee::regrole::text end as name) as role
 where entry.grantee <> acls.owner and entry.privilege_type <> 'MAINTAIN' and not role.name like %(move)s
"""
