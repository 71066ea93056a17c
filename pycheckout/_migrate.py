"""Bring a database's schema to this release, or take it away again.

yoyo does the work and keeps its usual tables, so that `yoyo apply` and this agree on
what is applied. It is not trusted with four things: it takes an empty source and a
file that does not load for success, it puts a schema's name into SQL unquoted, and
it leaves the lock of a killed process for a person to remove.
"""

from __future__ import annotations

import glob
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row, tuple_row

from ._arguments import invalid
from ._conninfo import own
from ._errors import CheckoutError, MigrationError, Unavailable, json_object, translated
from ._release import db_folder, deployment, release

if TYPE_CHECKING:
    from yoyo.backends import DatabaseBackend
    from yoyo.migrations import Migration, MigrationList

_NAME = "pycheckout migrate"
_POLL = 0.5  # seconds

# Our own migrators queue on this one. It is tried again and again, never waited for:
# a statement that waits holds a snapshot, and CREATE INDEX CONCURRENTLY in the
# migrator ahead would wait for that snapshot's end, for ever.
_TRY_LOCK = "select pg_try_advisory_lock(hashtext('pycheckout migrate'), hashtext(%s))"

# A session that may hold yoyo's lock: a plain yoyo, connected before the lock was
# taken, whose last statement looks like yoyo's; or one that a killed migrator of ours
# left behind while its last statement still runs.
_OWNER = """
select pid
  from pg_stat_activity
 where datname = current_database()
   and backend_type = 'client backend'
   and pid <> pg_backend_pid()
   and case application_name
         when %(name)s then state <> 'idle'
         else backend_start < %(since)s at time zone 'utc' + interval '1 minute'
          and (query ~ '"_?yoyo_' or query in ('BEGIN', 'COMMIT', 'ROLLBACK'))
       end
 limit 1
"""

# What a database or a role may have set, and a migration does not want: it would break an index build off, send it
# elsewhere, or hide from it what others committed. What this connection itself asked for stays.
_SETTINGS = """
select setting.name, set_config(setting.name, wanted.value, false)
  from pg_settings as setting
  join (values ('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
               ('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
               ('default_transaction_isolation', 'read committed'), ('default_transaction_deferrable', 'off'),
               ('client_encoding', 'UTF8'), ('default_tablespace', ''), ('default_table_access_method', 'heap'),
               ('standard_conforming_strings', 'on'), ('quote_all_identifiers', 'off'), ('row_security', 'off')
       ) as wanted (name, value) on wanted.name = setting.name
 where setting.source <> 'client' and setting.setting <> wanted.value
"""

_HAS_LEDGER = "select to_regclass(quote_ident(current_schema()) || '.checkout_ledger') is not null"

_HAS_RELEASES = "select to_regclass(quote_ident(current_schema()) || '.checkout_releases') is not null"
_DEPLOYED = "select version from checkout_releases order by id desc limit 1"

_APPLIED = """
select migration_id
  from _yoyo_migration
 where migration_hash = any(%s) and starts_with(migration_id, 'pycheckout_')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What `migrate` or `rollback` did."""

    schema: str
    migrations: tuple[str, ...]
    """The ids that were applied (or rolled back) by this call, in that order."""
    version: str
    """The release whose functions are deployed; after a rollback, the one that took them away."""


def migrate(
    database: str = "",
    *,
    schema: str | None = None,
    create_schema: bool = False,
    timeout: float = 300.0,
) -> Migrated:
    """Apply what is pending, then deploy the functions of this release.

    `database`: a libpq URL or DSN, or SQLAlchemy's URL (`postgresql+psycopg://`); "" is
    libpq's environment. `schema`: where to install, by default the first of the
    search_path; `create_schema` makes it if it is missing. `timeout`: seconds to wait for
    another migration to end. Connect as the owner and without a transaction pooler.
    Nothing happens if all is in place already, but the functions are deployed always.

    Each migration has transactions of its own, so those before a failure stay, and
    the next call goes on from there. Raises MigrationError, `__cause__` being the
    error behind it, InvalidRequest for a `database` that libpq cannot read, and
    Unavailable if there is no connection.
    """
    with _locked(database, schema, create_schema, timeout, looks_first=True) as work:
        pending = work.backend.to_apply(work.migrations)
        with _explained("looking for names that are taken"):
            _look_for_names(work.guard, [migration.id for migration in pending])
        applied = work.each(pending, work.backend.apply_one)
        if left := work.backend.to_apply(work.migrations):
            raise MigrationError(f"still pending: {_ids(left)}")
        deploy = deployment()
        if applied[-1:] != (deploy.functions_migration().stem,):  # which has just deployed them
            with _explained("deploying the functions"), work.guard.transaction():
                deploy.deploy(work.guard)
        return Migrated(schema=work.schema, migrations=applied, version=release())


def rollback(
    database: str = "", *, schema: str | None = None, to: str | None = None, timeout: float = 300.0
) -> Migrated:
    """Take all of this package out of a schema, newest migration first; or what came after a release.

    `to`: a release, as 0.1.0: its migrations stay, and the functions go all the same, so that no call is answered
    until that release's own `migrate` deploys them. Other arguments and errors as in `migrate`. Nothing is undone while
    rows would be lost, or while something of the host depends on what would go; the error names them.
    """
    last = None if to is None else _last_migration(to)
    with _locked(database, schema, False, timeout, back_to=last) as work:
        installed = work.backend.get_applied_migration_hashes()
        known = {migration.hash for migration in work.migrations}
        newer = work.guard.execute(_APPLIED, (list(set(installed) - known),)).fetchall()
        if newer:
            names = ", ".join(name for (name,) in newer)
            raise MigrationError(f"the database has migrations of another release: {names}")
        if _value(work.guard, "select to_regproc('checkout_migration_dependants') is not null"):
            with _explained("looking for what would be lost"):
                work.guard.execute("select checkout_migration_check(after => %s)", (last,))
        goes = work.migrations.filter(lambda migration: last is None or migration.id > last)
        undone = work.each(work.backend.to_rollback(goes), work.backend.rollback_one)
        if left := work.backend.to_rollback(goes):
            raise MigrationError(f"not rolled back: {_ids(left)}")
        if last is not None and _value(work.guard, _HAS_RELEASES):
            with _explained("taking the functions away"), work.guard.transaction():
                if _value(work.guard, _DEPLOYED) not in (None, to):
                    deployment().undeploy(work.guard)
        return Migrated(schema=work.schema, migrations=undone, version=release())


def _last_migration(release: str) -> str:
    deploy = deployment()
    try:
        return str(deploy.last_migration(release))
    except deploy.DeployError as exc:
        raise MigrationError(str(exc)) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A migration that `migrate` would apply, and what that costs, roughly."""

    migration: str
    tables: tuple[str, ...]
    """Tables of the host that it reads or changes."""
    rows: int | None
    """How many rows of them it goes through, as the statistics say; 0 if it only changes what a table consists of.
    None: a table has no statistics yet."""
    lock: str
    """What the host's statements notice of it."""
    seconds: float | None
    """None: as `rows`."""


# What the line `-- cost:` of a migration names: what the host notices, and how many rows a second are gone through.
_COSTS: dict[str, tuple[str, float]] = {
    "none": ("no lock on a table of the host", 0),
    "moment": ("every statement of the table waits for a moment, and no longer than 0.25 s", 0),
    "scan": ("reads the table, and nobody waits for it", 1_000_000),
    "build": ("builds an index, and nobody waits for it", 150_000),
    "batches": ("locks rows, a batch at a time, for a moment each", 8_000),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What `migrate` would do."""

    schema: str
    pending: tuple[Planned, ...]
    """The migrations to apply, in that order."""
    version: str
    """The release whose functions it would deploy."""
    installed: str | None
    """The release whose functions are there."""
    changes_functions: bool
    problems: tuple[dict[str, Any], ...]
    """What would stop it before any change, each with `problem`, `message` and `hint`."""


def plan(database: str = "", *, schema: str | None = None) -> Plan:
    """What `migrate` would do, looked up without a lock and without changing anything. Errors as in `migrate`."""
    params = _parameters(database)
    with _explained("connecting"):
        conn = psycopg.connect(**params, autocommit=True, row_factory=dict_row)
    with closing(conn), _explained("looking at the schema"):
        if schema is not None:
            conn.execute("select set_config('search_path', %s, false)", (_quoted(schema),))
        [here] = conn.execute(
            "select current_schema()::text as name,"
            " to_regclass(quote_ident(current_schema()) || '.checkout_releases') as releases"
        )
        if here["name"] is None and schema is None:
            raise MigrationError("no schema of the search_path exists: name one with `schema` (--schema)")
        deployed = None
        if here["releases"] is not None:
            newest = "select version, hash from checkout_releases order by id desc limit 1"
            deployed = conn.execute(newest).fetchone()
        pending = pending_migrations(conn)
        return Plan(
            schema=here["name"] or str(schema),
            pending=tuple(_estimate(conn, name) for name in pending),
            version=release(),
            installed=deployed and deployed["version"],
            changes_functions=deployed is None or deployed["hash"] != deployment().functions_hash(),
            problems=preflight(conn, pending) if pending and here["name"] is not None else (),
        )


def _estimate(conn: psycopg.Connection[dict[str, Any]], name: str) -> Planned:
    file = db_folder() / "migrations" / f"{name}.sql"
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    found = re.search(r"^-- cost: (\w+) ?(.*)$", text, re.MULTILINE)
    kind, tables = found.groups() if found else ("none", "")
    lock, rate = _COSTS[kind]
    counted = """
    select name, case when class.reltuples >= 0 then class.reltuples::bigint end as rows
      from unnest(%s::text[]) with ordinality as wanted (name, position)
      join pg_class as class on class.oid = to_regclass(quote_ident(current_schema()) || '.' || wanted.name)
     order by wanted.position
    """
    there = conn.execute(counted, ([name for name in tables.split(", ") if name],)).fetchall()
    counts = [row["rows"] for row in there] if rate else []
    rows = None if None in counts else sum(counts)
    return Planned(
        migration=name,
        tables=tuple(row["name"] for row in there),
        rows=rows,
        lock=lock if there else _COSTS["none"][0],
        seconds=None if rows is None else round(rows / rate, 1) if rate else 0.0,
    )


def preflight(conn: psycopg.Connection[Any], pending: Iterable[str] = ()) -> tuple[dict[str, Any], ...]:
    """What the first statement of the first migration, which only looks, would refuse, and the names of the pending."""
    conn.execute(_SETTINGS)
    problems: list[dict[str, Any]] = []
    for look in (partial(_look, conn, _first()), partial(_look_for_names, conn, pending)):
        try:
            look()
        except psycopg.errors.ObjectNotInPrerequisiteState as exc:
            problems += json_object(exc.diag.message_detail)["problems"]
    return tuple(problems)


def _look_for_names(conn: psycopg.Connection[Any], pending: Iterable[str]) -> None:
    """Raise if the host has what these migrations say that they bring; where the first is pending, it looks itself."""
    names: list[str] = []
    for migration in pending:
        file = db_folder() / "migrations" / f"{migration}.sql"
        text = file.read_text(encoding="utf-8") if file.is_file() else ""
        for brings in re.findall(r"checkout_migration_open\(([^)]*)\)", text):
            names += re.findall(r"'([^']+)'", brings)
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    there = cursor.execute(
        "select to_regproc(quote_ident(current_schema()) || '.checkout_migration_names') is not null"
    )
    if names and there.fetchone() == (True,):
        cursor.execute("select checkout_migration_names(variadic %s::text[])", (names,))


def _first() -> Path:
    return min(path for path in (db_folder() / "migrations").glob("pycheckout_*.sql") if ".rollback." not in path.name)


def _look(conn: psycopg.Connection[Any], migration: Path) -> None:
    from yoyo.migrations import read_sql_migration

    _, _, (look, *_) = read_sql_migration(str(migration))
    with conn.transaction(force_rollback=True):
        conn.execute("set transaction read only")
        conn.execute(look.encode())


def pending_migrations(conn: psycopg.Connection[dict[str, Any]]) -> tuple[str, ...]:
    """The ids of ours that yoyo has not noted in the schema of `conn`, in their order."""
    [noted] = conn.execute("select to_regclass(quote_ident(current_schema()) || '._yoyo_migration') as name").fetchall()
    applied = set()
    if noted["name"] is not None:
        applied = {row["migration_id"] for row in conn.execute("select migration_id from _yoyo_migration").fetchall()}
    return tuple(migration.id for migration in _read_migrations() if migration.id not in applied)


def plan_sql(plan: Plan) -> Iterator[str]:
    """The SQL of a plan, file by file: to read, not to run, since `migrate` also keeps yoyo's records."""
    folder = db_folder()
    for planned in plan.pending:
        file = folder / "migrations" / f"{planned.migration}.sql"
        text = file.read_text(encoding="utf-8") if file.is_file() else "-- deploys the functions\n"
        yield f"-- {planned.migration}\n{text}"
    for file in deployment().function_files():
        yield file.read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class _Work:
    """A schema that nobody else migrates meanwhile."""

    guard: psycopg.Connection[tuple[Any, ...]]
    backend: DatabaseBackend
    migrations: MigrationList
    schema: str

    def each(self, migrations: MigrationList, act: Callable[[Migration], object]) -> tuple[str, ...]:
        for migration in migrations:
            with _explained(migration.id):
                act(migration)
        return tuple(migration.id for migration in migrations)


@contextmanager
def _locked(
    database: str,
    schema: str | None,
    create_schema: bool,
    timeout: float,
    *,
    looks_first: bool = False,
    back_to: str | None = None,
) -> Iterator[_Work]:
    deadline = time.monotonic() + timeout
    migrations = _read_migrations()
    params = _parameters(database)
    with ExitStack() as stack:
        with _explained("connecting"):
            guard = psycopg.connect(**params, autocommit=True, row_factory=tuple_row)
            stack.enter_context(closing(guard))
        if guard.info.parameter_status("server_encoding") == "SQL_ASCII":
            raise MigrationError(
                f'database "{guard.info.dbname}" has the encoding SQL_ASCII, in which PostgreSQL knows no characters',
                hint="Move it to a database of the encoding UTF8.",
            )
        with _explained("preparing the schema"):
            settings = dict(guard.execute(_SETTINGS).fetchall())
            name = _own_schema(guard, schema, create_schema, deadline)
        if looks_first and not _value(guard, _HAS_LEDGER):
            # Before yoyo's tables are made: what is refused finds nothing new in its database.
            first = _first()
            with _explained(first.stem):
                _look(guard, first)
        with _explained("preparing the schema"):
            settings["pycheckout.rollback_to"] = back_to or ""
            backend = stack.enter_context(_backend(params, schema, settings))
            _take_yoyo_lock(stack, guard, backend, deadline)
        yield _Work(guard, backend, migrations, name)


def _read_migrations() -> MigrationList:
    """Ours, every one of them loaded."""
    from yoyo.migrations import read_migrations

    folder = db_folder() / "migrations"
    everything = read_migrations(glob.escape(str(folder)))
    migrations = everything.filter(lambda migration: migration.id.startswith("pycheckout_"))
    if not migrations:
        raise MigrationError(f"no migration in {folder}")
    for migration in migrations:
        try:
            migration.load()
        except Exception as exc:
            raise MigrationError(f"{migration.id} does not load: {exc}") from exc
    return migrations


def _parameters(database: str) -> dict[str, Any]:
    try:
        return {**own(database), "application_name": _NAME}
    except psycopg.ProgrammingError:
        # libpq quotes the text, and with it the password.
        raise invalid(
            "database",
            "is not a libpq URL (postgresql://...) or DSN (host=... dbname=...); "
            "a schema goes into `schema` (--schema)",
        ) from None


def _backend(params: dict[str, Any], schema: str | None, settings: dict[str, str]) -> DatabaseBackend:
    """yoyo's psycopg 3 backend, given libpq's parameters as they are: its own URLs know few.

    `settings` are made anew after each rollback. A functions migration that is rolled back reads in them which is the
    last that stays, and so what would be lost.
    """
    from yoyo.backends import PostgresqlPsycopgBackend
    from yoyo.connections import DatabaseURI
    from yoyo.migrations import default_migration_table

    class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
        def init_connection(self, connection: psycopg.Connection[Any]) -> None:
            super().init_connection(connection)
            made = "select set_config(name, value, false) from unnest(%s::text[], %s::text[]) as made (name, value)"
            connection.execute(made, (list(settings), list(settings.values())))

    args = params if schema is None else {**params, "schema": _quoted(schema)}
    uri = DatabaseURI("postgresql+psycopg", None, None, None, None, None, args)
    backend = Backend(uri, default_migration_table)
    backend.init_database()
    return backend


def _own_schema(
    guard: psycopg.Connection[tuple[Any, ...]],
    schema: str | None,
    create_schema: bool,
    deadline: float,
) -> str:
    """Take our lock on the schema, make the schema if it is asked for, and return its name."""
    name = schema if schema is not None else _value(guard, "select current_schema()")
    if name is None:
        raise MigrationError("no schema of the search_path exists: name one with `schema` (--schema)")
    while not _value(guard, _TRY_LOCK, name):
        if time.monotonic() > deadline:
            raise MigrationError(f'another migration of schema "{name}" is still running')
        time.sleep(_POLL)
    # CREATE SCHEMA IF NOT EXISTS asks for the right to create schemas, also where there is nothing to create.
    if create_schema and not _value(guard, "select exists (select from pg_namespace where nspname = %s)", name):
        guard.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(name)))
    if schema is not None:
        guard.execute("select set_config('search_path', %s, false)", (_quoted(schema),))
    may_create = _value(guard, "select has_schema_privilege(current_schema(), 'create')")
    if may_create is None:
        raise MigrationError(f'there is no schema "{name}"', hint="`create_schema` (--create-schema) makes it.")
    if not may_create:
        raise MigrationError(
            f'role "{guard.info.user}" may not create objects in schema "{name}"',
            hint="Migrate as the schema's owner.",
        )
    return str(name)


def _take_yoyo_lock(
    stack: ExitStack,
    guard: psycopg.Connection[tuple[Any, ...]],
    backend: DatabaseBackend,
    deadline: float,
) -> None:
    from yoyo.exceptions import LockTimeout

    while True:
        try:
            stack.enter_context(backend.lock(timeout=_POLL))
            return
        except LockTimeout:
            row = guard.execute("select pid, ctime from yoyo_lock").fetchone()
        pid, since = row or (None, None)
        if pid is not None and _is_dead(guard, pid, since):
            guard.execute("delete from yoyo_lock where pid = %s and ctime = %s", (pid, since))
        elif time.monotonic() > deadline:
            age = "" if since is None else f" for {datetime.now(UTC).replace(tzinfo=None) - since}"
            raise MigrationError(
                f"process {pid} holds yoyo's lock{age}",
                hint="If it is gone, on whatever machine it ran, run `yoyo break-lock`.",
            )


def _is_dead(guard: psycopg.Connection[tuple[Any, ...]], pid: int, since: datetime) -> bool:
    """Whether the process that took yoyo's lock is gone, from this machine and any other."""
    if _runs_here(pid):
        return False
    return guard.execute(_OWNER, {"name": _NAME, "since": since}).fetchone() is None


def _runs_here(pid: int) -> bool:
    if os.name != "posix":
        return True  # os.kill would end it there
    if pid == os.getpid():
        return False  # an earlier process of that number, as in each new container
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever fails into one kind of error that says where."""
    try:
        yield
    except CheckoutError:
        raise
    except psycopg.Error as exc:
        error = translated(exc)
        if isinstance(error, Unavailable):
            raise error from exc
        raise MigrationError(
            f"{what}: {exc.diag.message_primary or exc}",
            sqlstate=exc.sqlstate,
            detail=json_object(exc.diag.message_detail),
            hint=exc.diag.message_hint,
        ) from exc
    except Exception as exc:
        raise MigrationError(f"{what}: {exc}") from exc


def _value(guard: psycopg.Connection[tuple[Any, ...]], query: LiteralString, *params: object) -> Any:
    [value] = guard.execute(query, params).fetchone() or (None,)
    return value


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()


def _ids(migrations: MigrationList) -> str:
    return ", ".join(migration.id for migration in migrations)
