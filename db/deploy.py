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
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

RELEASE = "0.1.1"

FUNCTIONS = Path(__file__).parent / "functions"
MIGRATIONS = Path(__file__).parent / "migrations"

# "pycheckout" and the schema make the advisory lock that deployments queue behind.
_LOCK = "select pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()))"

# Until the transaction ends, because no setting of a server, database, role or session may change what is deployed:
# names are compared and recorded as they are written without needless quotes, and bodies are texts to be checked by
# whoever calls them, since the files come in the order of their names, not of their calls.
_SETTINGS = """
select set_config('quote_all_identifiers', 'off', true),
       set_config('standard_conforming_strings', 'on', true),
       set_config('array_nulls', 'on', true),
       set_config('transform_null_equals', 'off', true),
       set_config('check_function_bodies', 'off', true)
"""
_PIN = "select set_config('search_path', quote_ident(current_schema()) || ', pg_temp', true)"

# A coordinator of Citus sends each node what is created, and names in it without their schema. What SET LOCAL says goes
# along then, what set_config() does stays behind. Nor does it distribute a plan that may not look at its parameters.
_ON_CITUS = "select exists (select from pg_extension where extname = 'citus')"
_PIN_NODES = """
do $$
begin
  set local citus.propagate_set_commands = 'local';
  execute format('set local search_path = %I, pg_temp', current_schema());
end
$$
"""
_GENERIC = re.compile(r"^set plan_cache_mode = force_generic_plan\n", re.M)

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

  if exists (select from checkout_market where state <> 'selling' or followed_until is not null) then
    raise exception 'the market moves, has moved, or has a server that follows, and its functions stay as they are'
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'End the move first (pycheckout market finish), or take it back: pycheckout market status.';
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

# What a deployment believes is the owner's alone to write, and whoever can put a trigger on it runs code as the owner.
# Functions that migrations made (steps, triggers) are nobody's to call; deploy() looks at the others one by one.
_SHUT = """
do $$
declare
  v_made constant text[] := array(select name from checkout_ledger where kind = 'function');   -- Citus joins no catalog
  v_open record;
begin
  for v_open in
    select format('insert, update, delete, truncate, references, trigger on table %I', class.relname) as rights,
           grantee.name
      from pg_class as class
     cross join lateral (
       select acl.grantee, acl.privilege_type from aclexplode(class.relacl) as acl
        union all
       select acl.grantee, acl.privilege_type
         from pg_attribute cross join aclexplode(attacl) as acl
        where attrelid = class.oid) as acl
     cross join lateral (
       select case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as name) as grantee
     where class.relnamespace = quote_ident(current_schema())::regnamespace
       and class.relname = any ('{checkout_ledger,checkout_releases,checkout_functions,checkout_roles,checkout_market}')
       and acl.grantee <> class.relowner
       and acl.privilege_type in ('INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER')
     group by class.relname, grantee.name
     union all
    select format('execute on function %s', routine.oid::regprocedure), grantee.name
      from pg_proc as routine
     cross join aclexplode(routine.proacl) as acl
     cross join lateral (
       select case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as name) as grantee
     where routine.pronamespace = quote_ident(current_schema())::regnamespace and acl.grantee <> routine.proowner
       and routine.oid::regprocedure::text = any (v_made)
  loop
    execute format('revoke %s from %s cascade', v_open.rights, v_open.name);
    raise warning '% had what only the owner may have: %', v_open.name, v_open.rights;
  end loop;
end
$$
"""

_DEPLOYED = "select array(select signature from checkout_functions)"
_OURS = """
select routine.oid::bigint as oid, routine.proname::text as name, routine.oid::regprocedure::text as signature
  from pg_proc as routine
 where routine.pronamespace = quote_ident(current_schema())::regnamespace
   and routine.oid::regprocedure::text = any (%s)
"""

_NAMED = """
select routine.oid::bigint as oid, routine.proname::text as name, routine.oid::regprocedure::text as signature
  from pg_proc as routine
 where routine.pronamespace = quote_ident(current_schema())::regnamespace and routine.proname = any (%s)
"""

# Who may call functions: of new ones, whom default privileges (ALTER DEFAULT PRIVILEGES) let in.
_CALLERS = """
select pg_proc.proname::text as name, case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as role,
       acl.is_grantable
  from pg_proc cross join aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl
 where pg_proc.oid = any (%s) and acl.grantee <> proowner
"""

_PRIVILEGES = "select scope, privilege, kind, object, columns from checkout_privileges()"

# Whom a release gives what it brings anew: roles that still hold something of their scope. So a row that somebody else
# wrote into checkout_roles gives its role nothing, and a role whose rights were all revoked by hand gets none. Where no
# function was there yet, there is nothing to hold.
_REMEMBERED = "select array_agg(role_name), array_agg(role_oid), array_agg(scope) from checkout_roles"
_HOLDERS = """
select remembered.role_name, remembered.scope
  from unnest(%s::text[], %s::oid[], %s::text[]) as remembered (role_name, role_oid, scope)
  join pg_roles as role on role.rolname = remembered.role_name and role.oid = remembered.role_oid
 where %s or exists (
   select from checkout_privileges() as given
    where given.scope = remembered.scope and given.object <> 'checkout_version()'
      and case given.kind when 'function' then has_function_privilege(role.oid, given.object, given.privilege)
                          else has_any_column_privilege(role.oid, given.object, 'select') end)
"""


_Step: TypeAlias = Callable[[psycopg.Connection[Any]], None]


class DeployError(Exception):
    """The functions cannot be deployed, or their hash not be recorded."""


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

    Two deployments at once queue behind an advisory transaction lock. Raises, for the caller to roll back, over a newer
    release, while PUBLIC may create objects in the schema, while the market moves, has moved or is followed
    (psycopg.Error), and over a host's function that has one of our names (DeployError).

    Whoever may call a function may call it afterwards, also where it had to be dropped and made anew; nobody else
    may. What is new in a release goes to the roles of `checkout_grant` and its kind that still hold something of
    what they were granted.
    """
    cursor = _prepare(conn)
    execute = cursor.execute
    execute(_REFUSE.replace("{release}", RELEASE))
    execute(_SHUT)

    ours = _ours(cursor)
    before = {function.name for function in ours}
    known = execute(_PRIVILEGES).fetchall() if "checkout_privileges" in before else None
    deployed = _create(cursor, ours, _callers(cursor, ours))
    signatures = [function.signature for function in deployed]
    _drop(cursor, [function for function in ours if function.signature not in signatures])

    names = [function.name for function in deployed]
    _grant_what_is_new(cursor, known, set(names) - before, first=not ours)
    execute("delete from checkout_functions")
    execute(
        "insert into checkout_functions (signature, name) select * from unnest(%s::text[], %s::text[])",
        (signatures, names),
    )
    execute(
        "insert into checkout_releases (version, hash) select %(version)s, %(hash)s where not exists"
        " (select from (select version, hash from checkout_releases order by id desc limit 1) as newest"
        "   where newest.version = %(version)s and newest.hash = %(hash)s)",
        {"version": RELEASE, "hash": functions_hash()},
    )


def undeploy(conn: psycopg.Connection[Any]) -> None:
    """Drop every function that a deployment created, inside the transaction that `conn` is in."""
    cursor = _prepare(conn)
    _drop(cursor, _ours(cursor))
    cursor.execute("delete from checkout_functions")
    cursor.execute("delete from checkout_releases")


def functions_steps(file: str) -> tuple[_Step, _Step]:
    """What the functions migration in this file applies and rolls back."""

    def apply(conn: psycopg.Connection[Any]) -> None:
        # The newest of its kind does it: the functions may need what a migration between the two brings.
        if functions_migration().name == Path(file).name:
            deploy(conn)

    def roll_back(conn: psycopg.Connection[Any]) -> None:
        # Rolling this one back begins to take everything away, or all after a release. If a migration before it must
        # refuse, then better now, while the functions still work.
        conn.execute(
            "select checkout_migration_check(after => nullif(current_setting('pycheckout.rollback_to', true), ''))"
        )
        undeploy(conn)

    return apply, roll_back


class _Function(NamedTuple):
    oid: int
    name: str
    signature: str
    """As DROP FUNCTION takes it."""


def _prepare(conn: psycopg.Connection[Any]) -> psycopg.Cursor[Any]:
    cursor = psycopg.Cursor(conn, row_factory=tuple_row)
    for statement in (_LOCK, _SETTINGS, _PIN):
        cursor.execute(statement)
    if _on_citus(cursor):
        cursor.execute(_PIN_NODES)
    return cursor


def _on_citus(cursor: psycopg.Cursor[Any]) -> bool:
    [(found,)] = cursor.execute(_ON_CITUS).fetchall()
    return bool(found)


def _ours(cursor: psycopg.Cursor[Any]) -> list[_Function]:
    """What the last deployment created. In two statements: Citus joins none of our tables with a catalog."""
    [signatures] = cursor.execute(_DEPLOYED).fetchall()
    return [_Function(*row) for row in cursor.execute(_OURS, signatures).fetchall()]


def _create(
    cursor: psycopg.Cursor[Any], ours: Iterable[_Function], callers: Mapping[str, list[tuple[str, bool]]]
) -> list[_Function]:
    """Run the function files and return the function of each, that the `callers` of an earlier one may call.

    An earlier one whose signature is another is still there.
    """
    on_citus = _on_citus(cursor)
    files = function_files()
    names = [file.stem for file in files]
    before = _named(cursor, names)
    if foreign := set().union(*before.values()).difference(ours):
        raise DeployError(f"the schema has a function of our name that is not ours: {_signatures(foreign)}")
    for file in files:
        text = file.read_text(encoding="utf-8")
        _run(cursor, _GENERIC.sub("", text) if on_citus else text, before[file.stem])
    after = _named(cursor, names)

    deployed: list[_Function] = []
    for file in files:
        made = after[file.stem] - before[file.stem] or after[file.stem]
        if len(made) != 1:
            found = _signatures(made) or "none"
            raise DeployError(f"{file.name} must create exactly one function named {file.stem}, not: {found}")
        deployed += made

    new = set(deployed).difference(*before.values())
    may_call = _callers(cursor, new)
    for function in new:
        named = sql.SQL(function.signature)
        for role, _ in may_call.get(function.name, []):
            cursor.execute(sql.SQL("revoke all on function {} from {} cascade").format(named, sql.SQL(role)))
        for role, may_grant in callers.get(function.name, []):
            option = sql.SQL(" with grant option" if may_grant else "")
            cursor.execute(sql.SQL("grant execute on function {} to {}{}").format(named, sql.SQL(role), option))
    return deployed


def _run(cursor: psycopg.Cursor[Any], text: str, before: Collection[_Function]) -> None:
    if not before:
        cursor.execute(text)
        return
    try:
        with cursor.connection.transaction():
            cursor.execute(text)
    except psycopg.errors.InvalidFunctionDefinition:
        # CREATE OR REPLACE cannot change a result type or a parameter name.
        _drop(cursor, before)
        cursor.execute(text)


def _drop(cursor: psycopg.Cursor[Any], functions: Collection[_Function]) -> None:
    if functions:
        cursor.execute(sql.SQL("drop function if exists {}").format(sql.SQL(_signatures(functions))))


def _signatures(functions: Iterable[_Function]) -> str:
    return ", ".join(sorted(function.signature for function in functions))


def _named(cursor: psycopg.Cursor[Any], names: list[str]) -> dict[str, set[_Function]]:
    found: dict[str, set[_Function]] = {name: set() for name in names}
    for row in cursor.execute(_NAMED, (names,)).fetchall():
        function = _Function(*row)
        found[function.name].add(function)
    return found


def _callers(cursor: psycopg.Cursor[Any], functions: Iterable[_Function]) -> dict[str, list[tuple[str, bool]]]:
    found: dict[str, list[tuple[str, bool]]] = {}
    for name, role, may_grant in cursor.execute(_CALLERS, ([function.oid for function in functions],)).fetchall():
        found.setdefault(name, []).append((role, may_grant))
    return found


def _grant_what_is_new(
    cursor: psycopg.Cursor[Any], known: list[tuple[Any, ...]] | None, names: Set[str], *, first: bool
) -> None:
    """Give roles what their scope did not have before, and functions that were not there."""
    given = cursor.execute(_PRIVILEGES).fetchall()
    new: dict[str, list[str]] = {}
    for privilege in given:
        scope, _, kind, target, _ = privilege
        made = kind == "function" and target.partition("(")[0] in names
        if made or (known is not None and privilege not in known):
            new.setdefault(scope, []).append(target)
    [remembered] = cursor.execute(_REMEMBERED).fetchall()
    for role, scope in cursor.execute(_HOLDERS, (*remembered, first)).fetchall():
        if scope in new:
            cursor.execute("select checkout_apply_grants(%s, %s, %s)", (role, scope, new[scope]))


def functions_migration() -> Path:
    """The newest migration that deploys the functions and records their hash."""
    return max(_functions_migrations())


def last_migration(release: str) -> str:
    """The id of the last migration that a release has: that of its functions, or of those that it took over."""
    has = [path for path in _functions_migrations() if _numbers(_recorded(path, "RELEASE")) <= _numbers(release)]
    if not has or _numbers(release) > _numbers(RELEASE):
        raise DeployError(f"there is no release {release} that {RELEASE} goes back to")
    return max(has).stem


def _functions_migrations() -> list[Path]:
    return list(MIGRATIONS.glob("pycheckout_*_functions*.py"))


def _numbers(release: str) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(\.\d+)*", release):
        raise DeployError(f"a release is called 0.1.0 or the like, not {release!r}")
    return tuple(map(int, release.split(".")))


def _recorded(path: Path, name: str) -> str:
    match = re.search(rf'^{name} = "([^"]*)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    return match[1] if match else ""


def recorded_hash() -> str:
    return _recorded(functions_migration(), "FUNCTIONS_HASH")


def record_hash() -> None:
    """Write release and hash into the newest functions migration.

    Raises DeployError where that is another release's: a rollback to that release goes back to it.
    """
    *earlier, path = sorted(_functions_migrations())
    recorded = _recorded(path, "RELEASE")
    # A copy says yet what the copied one says.
    if recorded not in ("", RELEASE, *(_recorded(each, "RELEASE") for each in earlier)):
        if recorded_hash() == functions_hash():
            return
        raise DeployError(
            f"{path.name} is that of release {recorded}, and this is {RELEASE}: leave it as it is, copy it under the"
            " number behind the last migration, let the copy depend on that, and record again."
            f' If {recorded} was never released, say RELEASE = "" in it instead.'
        )
    text = path.read_text(encoding="utf-8")
    for name, value in (("RELEASE", RELEASE), ("FUNCTIONS_HASH", functions_hash())):
        text = re.sub(rf'^{name} = "[^"]*"$', f'{name} = "{value}"', text, flags=re.MULTILINE)
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
        try:
            record_hash()
        except DeployError as exc:
            sys.exit(str(exc))
        record_names()
    elif recorded_names() != function_names():
        sys.exit(f"{_preflight().name} records other names than db/ has: run `make functions-hash`")
    elif recorded_hash() != functions_hash():
        sys.exit(f"{functions_migration().name} records another hash than db/functions has: run `make functions-hash`")
