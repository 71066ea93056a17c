"""The release as one file for psql: what `pycheckout migrate` does in a schema that has nothing of it yet.

`python tests/install_script.py > pycheckout.sql`
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from yoyo.migrations import get_migration_hash  # noqa: E402

from pycheckout._migrate import _SETTINGS as SESSION  # noqa: E402
from pycheckout._release import deployment  # noqa: E402

_HEAD = """\
-- pycheckout {release}, for psql: installs it into the first schema of the search_path, as `pycheckout migrate` does.
--
--     psql --no-psqlrc --file pycheckout-{release}.sql --dbname shop
--
-- As the role that is to own it. Where it breaks off, what came before stays, and the same call goes on. It notes what
-- it did for `pycheckout migrate`, which brings later releases.

\\set ON_ERROR_STOP on
\\set QUIET on
\\o /dev/null
set client_min_messages = warning;
{session};

do $install$
begin
  if current_schema() is null then
    raise exception 'no schema of the search_path exists' using hint = 'CREATE SCHEMA, or SET search_path (PGOPTIONS).';
  end if;
  if not pg_try_advisory_lock(hashtext('pycheckout migrate'), hashtext(current_schema())) then
    raise exception 'another migration of schema "%" is still running', current_schema();
  end if;
  if to_regclass(quote_ident(current_schema()) || '.checkout_releases') is not null then
    if exists (select from checkout_releases) then
      raise exception 'schema "%" has pycheckout already', current_schema()
        using hint = 'pycheckout migrate brings it to another release.';
    end if;
  end if;
end
$install$;

create table if not exists _yoyo_log (
  id varchar(36) primary key,
  migration_hash varchar(64),
  migration_id varchar(255),
  operation varchar(10),
  username varchar(255),
  hostname varchar(255),
  comment varchar(255),
  created_at_utc timestamp
);
create table if not exists _yoyo_migration (
  migration_hash varchar(64) primary key,
  migration_id varchar(255),
  applied_at_utc timestamp
);
create table if not exists _yoyo_version (
  version integer primary key,
  installed_at_utc timestamp
);
create table if not exists yoyo_lock (
  locked integer primary key default 1,
  ctime timestamp,
  pid integer not null
);
insert into _yoyo_version values (2, now() at time zone 'utc') on conflict do nothing;
"""

# Whom default privileges let in is put out again: see _create in db/deploy.py.
_DEPLOYED = """
do $install$
declare
  v_names constant text[] := '{names}';
  v_open record;
begin
  for v_open in
    select routine.oid::regprocedure as function,
           case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as role
      from pg_proc as routine
     cross join aclexplode(coalesce(routine.proacl, acldefault('f', routine.proowner))) as acl
     where routine.pronamespace = quote_ident(current_schema())::regnamespace and routine.proname = any (v_names)
       and acl.grantee <> routine.proowner
  loop
    execute format('revoke all on function %s from %s cascade', v_open.function, v_open.role);
  end loop;

  insert into checkout_functions (signature, name)
  select routine.oid::regprocedure::text, routine.proname
    from pg_proc as routine
   where routine.pronamespace = quote_ident(current_schema())::regnamespace and routine.proname = any (v_names);
  insert into checkout_releases (version, hash) values ('{release}', '{hash}');
end
$install$;
"""

_TAIL = """
\\o
select 'pycheckout ' || (checkout_version() ->> 'version') || ' is in schema ' || current_schema() as installed;
select pg_advisory_unlock(hashtext('pycheckout migrate'), hashtext(current_schema())) \\g /dev/null
"""


def script() -> Iterator[str]:
    """The parts of the file, in their order."""
    deploy = deployment()
    yield _HEAD.format(release=deploy.RELEASE, session=SESSION.strip())
    for file in sorted(deploy.MIGRATIONS.glob("pycheckout_*.sql")):
        if not file.name.endswith(".rollback.sql"):
            text = file.read_text(encoding="utf-8")
            whole = "-- transactional: false" not in text
            yield _noted(file.stem, f"\n-- {file.stem}\n{text.rstrip()}\n", whole=whole)
    files = deploy.function_files()
    functions = "".join(f"\n{file.read_text(encoding='utf-8').rstrip()}\n" for file in files)
    deployed = _DEPLOYED.format(
        names=f"{{{','.join(file.stem for file in files)}}}", release=deploy.RELEASE, hash=deploy.functions_hash()
    )
    before = [deploy._LOCK, deploy._SETTINGS, deploy._PIN, deploy._REFUSE.replace("{release}", deploy.RELEASE)]
    *earlier, newest = sorted(path.stem for path in deploy.MIGRATIONS.glob("pycheckout_*_functions*.py"))
    for name in earlier:  # the newest alone deploys
        yield _noted(name, f"\n-- {name}\n", whole=True)
    yield _noted(newest, "".join(f"{each.strip()};\n" for each in before) + functions + deployed, whole=True)
    yield _TAIL


def _noted(migration: str, text: str, *, whole: bool) -> str:
    row = f"'{get_migration_hash(migration)}', '{migration}', now() at time zone 'utc'"
    note = f"insert into _yoyo_migration values ({row})\non conflict do nothing;\n"
    return f"\nbegin;\n{text}\n{note}commit;\n" if whole else f"{text}\n{note}"


if __name__ == "__main__":
    sys.stdout.writelines(script())
