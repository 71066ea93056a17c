"""Deploy the SQL functions of this release into a migrated schema.

Self-contained (standard library and psycopg), because yoyo migrations load it by path, with or without the
`pycheckout` package installed. `python db/deploy.py --record` writes the hash of `db/functions/` into the newest
functions migration.
"""

from __future__ import annotations

import hashlib
import re
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

RELEASE = "0.1.0"

FUNCTIONS = Path(__file__).parent / "functions"
MIGRATIONS = Path(__file__).parent / "migrations"

# "pycheckout" and the schema make the advisory lock that deployments queue behind.
_LOCK = "select pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()))"

_PIN = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"

# In SQL, so that the HINT reaches every client. An overload that PUBLIC made in the schema and that matches a call
# better than pg_catalog's function would run as the owner.
_REFUSE = """
do $$
declare
  v_deployed text;
begin
  if exists (select from pg_namespace cross join aclexplode(nspacl) as acl
              where nspname = current_schema() and acl.grantee = 0 and acl.privilege_type = 'CREATE') then
    raise exception 'PUBLIC may create objects in schema %, and so slip code into functions that run as their owner',
                    current_schema()
      using errcode = 'insufficient_privilege',
            hint = format('REVOKE CREATE ON SCHEMA %I FROM PUBLIC;', current_schema());
  end if;

  select version into v_deployed from checkout_releases order by id desc limit 1;
  if string_to_array(substring(v_deployed from '^[0-9.]*[0-9]'), '.')::int[]
     > string_to_array(substring('{release}' from '^[0-9.]*[0-9]'), '.')::int[] then
    raise exception 'the database has pycheckout %, and an older release does not deploy over it', v_deployed
      using errcode = 'object_not_in_prerequisite_state', hint = 'Deploy with that release or a newer one.';
  end if;
end
$$
"""

# Whom the owner's default privileges (ALTER DEFAULT PRIVILEGES) let into a new function.
_FOREIGN = """
select distinct acl.grantee::regrole::text
  from pg_proc
 cross join aclexplode(proacl) as acl
 where pg_proc.oid = %s::regprocedure and acl.grantee not in (0, proowner)
"""

_SIGNATURES = """
select oid::regprocedure::text
  from pg_proc
 where pronamespace = quote_ident(current_schema())::regnamespace and proname = %s
"""


class DeployError(Exception):
    """The functions were not deployed; nothing was changed."""


def functions_hash() -> str:
    """SHA-256, in hex, over the names and texts of all function files."""
    digest = hashlib.sha256()
    for file in function_files():
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def function_files() -> list[Path]:
    """The files of all rooms, by name: in which room a function stands changes nothing in a database."""
    files = sorted(FUNCTIONS.rglob("*.sql"), key=lambda file: file.name)
    if not files:
        raise DeployError(f"no function files in {FUNCTIONS}")
    for file, other in pairwise(files):
        if file.name == other.name:
            raise DeployError(f"{file.name} stands in {file.parent} and in {other.parent}")
    return files


def deploy(conn: psycopg.Connection[Any]) -> None:
    """Create or replace every function, inside the transaction that `conn` is in.

    Two deployments at once queue behind an advisory transaction lock. Raises, with nothing changed, over a newer
    release, while PUBLIC may create objects in the schema, and over a host's function that has one of our names.
    """
    execute = conn.execute
    execute(_LOCK)
    execute(_PIN)
    execute(_REFUSE.replace("{release}", RELEASE))

    # The files come in the order of their names, not of their calls.
    execute("set local check_function_bodies = off")
    ours = {_value(row) for row in execute("select signature from checkout_functions").fetchall()}
    kept: dict[str, str] = {}
    for file in function_files():
        kept[_create(conn, file, ours)] = file.stem
    for signature in ours - kept.keys():
        execute(sql.SQL("drop function if exists {}").format(sql.SQL(signature)))

    execute("delete from checkout_functions")
    for signature, name in kept.items():
        execute("insert into checkout_functions (signature, name) values (%s, %s)", (signature, name))
    execute(
        "insert into checkout_releases (version, hash) select %(version)s, %(hash)s where not exists"
        " (select from (select version, hash from checkout_releases order by id desc limit 1) as newest"
        "   where newest.version = %(version)s and newest.hash = %(hash)s)",
        {"version": RELEASE, "hash": functions_hash()},
    )
    execute("do $$ begin perform checkout_apply_grants(); end $$")


def undeploy(conn: psycopg.Connection[Any]) -> None:
    """Drop every function that a deployment created, inside the transaction that `conn` is in."""
    conn.execute(_LOCK)
    conn.execute(_PIN)
    for row in conn.execute("select signature from checkout_functions").fetchall():
        conn.execute(sql.SQL("drop function if exists {}").format(sql.SQL(_value(row))))
    conn.execute("delete from checkout_functions")
    conn.execute("delete from checkout_releases")


def _create(conn: psycopg.Connection[Any], file: Path, ours: set[str]) -> str:
    """Run one function file and return the signature of its function; earlier ones of its name are dropped."""
    text = file.read_text(encoding="utf-8")
    before = _signatures(conn, file.stem)
    if foreign := before - ours:
        raise DeployError(f"the schema has a function of our name that is not ours: {', '.join(sorted(foreign))}")
    try:
        with conn.transaction():
            conn.execute(text)
    except psycopg.errors.InvalidFunctionDefinition:
        # CREATE OR REPLACE cannot change a result type or a parameter name.
        for signature in before:
            conn.execute(sql.SQL("drop function {}").format(sql.SQL(signature)))
        before = set()
        conn.execute(text)
    after = _signatures(conn, file.stem)
    created = after - before or after
    if len(created) != 1:
        raise DeployError(f"{file.name} must create exactly one function named {file.stem}, not {sorted(created)}")
    for signature in before - created:
        conn.execute(sql.SQL("drop function {}").format(sql.SQL(signature)))
    [signature] = created
    if signature not in before:
        for row in conn.execute(_FOREIGN, (signature,)).fetchall():
            revoke = sql.SQL("revoke all on function {} from {} cascade")
            conn.execute(revoke.format(sql.SQL(signature), sql.SQL(_value(row))))
    return signature


def _signatures(conn: psycopg.Connection[Any], name: str) -> set[str]:
    return {_value(row) for row in conn.execute(_SIGNATURES, (name,)).fetchall()}


def _value(row: Any) -> str:
    return str(next(iter(row.values())) if isinstance(row, dict) else row[0])


def functions_migration() -> Path:
    """The newest migration that deploys the functions and records their hash."""
    return max(MIGRATIONS.glob("pycheckout_*_functions*.py"))


def recorded_hash() -> str:
    match = re.search(r'FUNCTIONS_HASH = "([0-9a-f]*)"', functions_migration().read_text(encoding="utf-8"))
    return match[1] if match else ""


def record_hash() -> None:
    path = functions_migration()
    recorded = f'FUNCTIONS_HASH = "{functions_hash()}"'
    text = re.sub(r'FUNCTIONS_HASH = "[0-9a-f]*"', recorded, path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


# The preflight in the first migration looks for functions of a host that have our names.
_NAMES = re.compile(r"(?<=v_functions constant text\[\] := ).*?(?=;$)", re.DOTALL | re.MULTILINE)


def function_names() -> str:
    """The names of all functions, those of the migrations included, as a literal of SQL."""
    created = re.compile(r"^ *create or replace function (\w+)\(", re.MULTILINE)
    names = {file.stem for file in function_files()}
    for file in MIGRATIONS.glob("pycheckout_*.sql"):
        names.update(created.findall(file.read_text(encoding="utf-8")))
    lines = textwrap.wrap("{" + ", ".join(sorted(names)) + "}", 130, break_long_words=False, break_on_hyphens=False)
    return "\n    ".join(f"'{line}'" for line in lines)


def recorded_names() -> str:
    match = _NAMES.search(_preflight().read_text(encoding="utf-8"))
    return match[0] if match else ""


def record_names() -> None:
    text = _preflight().read_text(encoding="utf-8")
    _preflight().write_text(_NAMES.sub(lambda _: function_names(), text, count=1), encoding="utf-8")


def _preflight() -> Path:
    return MIGRATIONS / "pycheckout_0001_baseline.sql"


if __name__ == "__main__":
    if sys.argv[1:] == ["--record"]:
        record_hash()
        record_names()
    elif recorded_names() != function_names():
        sys.exit(f"{_preflight().name} records other names than db/ has: run `make functions-hash`")
    elif recorded_hash() != functions_hash():
        sys.exit(f"{functions_migration().name} records another hash than db/functions has: run `make functions-hash`")
