"""What holds the rows: a schema, as pg_dump gives it, and as the catalogs of two servers show it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from .._conninfo import named
from .._embedded import bundled_programs
from .sides import MoveRefused, Side


def make(source: Side, target: Side, epoch: int, pg_dump: str | None) -> None:
    """The schema as it is at the source, without rows, shut from its first moment on."""
    text = _dumped(source, pg_dump, "--schema-only", "--no-publications", "--no-subscriptions")
    text = re.sub(r"^\\(?:un)?restrict \w+$", "", text, flags=re.MULTILINE)
    if target.major < 17:
        text = re.sub(r"^SET transaction_timeout = 0;$", "", text, flags=re.MULTILINE)
    with target.connect() as conn, conn.transaction():
        conn.execute(text.encode())
        conn.execute("select set_config('search_path', quote_ident(%s) || ', pg_temp', true)", (target.schema,))
        conn.execute("select market_arrive(%s, %s)", (epoch, target.place.name))


def difference(source: Side, target: Side) -> str | None:
    """What one schema has and the other lacks, if somebody changed one meanwhile."""
    here, there = (
        {row["line"] for row in side.rows(_CONSISTS, {"schema": side.schema, "move": "pycheckout_move_%"})}
        for side in (source, target)
    )
    if other := sorted(here ^ there):
        where = source.place.name if other[0] in here else target.place.name
        return f"the schemas differ: only {where} has {other[0]}"
    return None


@contextmanager
def new_dump(file: str) -> Iterator[None]:
    """Make the file, for nobody but us: people's addresses go into it. It is gone again if the block fails."""
    try:
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except OSError as exc:
        raise MoveRefused(
            f"the file of the dump cannot be made: {exc}", hint="Name one that is not there yet."
        ) from exc
    try:
        yield
    except BaseException:
        with suppress(OSError):
            os.unlink(file)
        raise


def dump(side: Side, file: str, pg_dump: str | None) -> None:
    _dumped(side, pg_dump, "--format=custom", f"--file={Path(file).resolve()}")


def drop(side: Side) -> None:
    side.rows("set client_min_messages = warning")
    side.rows(sql.SQL("drop schema {} cascade").format(sql.Identifier(side.schema)))
    side.rows("reset client_min_messages")


def program(source: Side, asked: str | None) -> str | None:
    """The pg_dump that was asked for, or the first that is new enough."""
    programs = [asked or shutil.which("pg_dump")]
    if asked is None:
        with suppress(RuntimeError):
            programs.append(str(bundled_programs() / "pg_dump"))
    for each in programs:
        if each is not None and os.access(each, os.X_OK):
            said = subprocess.run([each, "--version"], capture_output=True, text=True, check=False).stdout
            version = re.search(r"(\d+)", said)
            if version and int(version[1]) >= source.major:
                return each
    return None


def _dumped(side: Side, asked: str | None, *arguments: str) -> str:
    """What pg_dump says of the schema."""
    found = program(side, asked)
    if found is None:
        raise MoveRefused("there is no pg_dump", hint="Name it with --pg-dump.")
    way = {name: value for name, value in side.params.items() if name != "password"}
    environment = dict(os.environ)
    if password := side.params.get("password"):
        environment["PGPASSWORD"] = str(password)
    quoted = sql.Identifier(side.schema).as_string()
    done = subprocess.run(
        [found, *arguments, f"--schema={quoted}", "--dbname", psycopg.conninfo.make_conninfo(**way)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise MoveRefused(f"pg_dump at {named(way)}: {done.stderr.strip()[:500]}")
    return done.stdout


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
