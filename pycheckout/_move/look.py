"""What a move would meet: everything that it would break on, by name, before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .._release import deployment, release
from . import structure
from .sides import HERE, Options, Side, Status
from .stream import Stream, way_back


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
    follows: bool = False
    """Whether the target had the market before and has followed since, so that nothing is copied."""


def look(source: Side, target: Side, options: Options) -> MovePlan:
    """Reads only."""
    problems = [*_servers(source), *_servers(target)]
    if problems:
        return MovePlan(tables=0, size_bytes=0, problems=tuple(problems), notes=())
    here, there = source.status(), target.status()
    if here.state in (None, "foreign"):
        name = f'{source.place.name} has no market in schema "{source.schema}"'
        problems.append(Problem(problem="not_installed", message=name, hint="Look at the map."))
        return MovePlan(tables=0, size_bytes=0, problems=tuple(problems), notes=())
    kept = way_back(source, target, there)
    follows = kept is not None
    problems += _places(source, target, here, there, kept, options.max_wal)
    # Each table is copied by a worker with a slot of its own, so many at once; a worker that gets none stops them all.
    at_once = 0 if follows else int(target.value("select current_setting('max_sync_workers_per_subscription')::int"))
    problems += _publisher(source, 1 + at_once)
    problems += _subscriber(target)
    if options.way_back is not None:
        problems += _publisher(target, 1)
        problems += _subscriber(source)
    problems += _databases(source, target)
    problems += _schema(source)
    if not follows:
        problems += _copy(source, target, options)
    size = source.rows(_SIZE)[0]
    return MovePlan(
        tables=size["tables"],
        size_bytes=size["bytes"],
        problems=tuple(problems),
        notes=tuple(_notes(source, target)),
        follows=follows,
    )


def _servers(side: Side) -> Iterator[Problem]:
    name = side.place.name
    for row in side.rows(_LOOK_SERVER):
        if row["recovering"]:
            yield Problem(problem="standby", message=f"{name} is a standby", hint="Name its primary in the map.")
        if not row["superuser"]:
            message = f'role "{side.conn.info.user}" is no superuser at {name}'
            yield Problem(problem="right", message=message, hint="Connect as one.")
        if side.conn.info.backend_pid != row["pid"]:
            message = f"there is a pooler before {name}"
            yield Problem(problem="pooler", message=message, hint="Name the server itself.")


def _places(
    source: Side, target: Side, here: Status, there: Status, kept: Stream | None, max_wal: int
) -> Iterator[Problem]:
    """Where the market is, and what is in its place where it goes."""
    a, b = source.place.name, target.place.name
    if here.state in ("arriving", "closed", "moved"):
        message = f"the market is {here.state} at {a} (server {here.server})"
        yield Problem(problem="elsewhere", message=message, hint="Correct the map.")
    deployed = source.rows("select version, hash from checkout_releases order by id desc limit 1")
    if [(row["version"], row["hash"]) for row in deployed] != [(release(), deployment().functions_hash())]:
        message = f"{a} has other functions than this package, {release()}"
        hint = "pycheckout migrate" if kept is None else "Move it by the package that it was deployed by."
        yield Problem(problem="release", message=message, hint=hint)
    if kept is not None:
        if why := kept.trouble(max_wal):
            yield Problem(problem="way_back", message=why, hint=ANEW)
    elif there.state in ("selling", "leaving", "moving") and there.epoch > here.epoch:
        message = f"{b} has the market since move {there.epoch}, and {a} does not know"
        hint = f"Let nobody sell at {a}: it is older than that move. Its rows are of no use beside those of {b}."
        yield Problem(problem="twice", message=message, hint=hint)
        return
    elif here.followed_until is not None:
        message = f"another server follows {a} since the move before"
        yield Problem(problem="way_back", message=message, hint="End that move first: pycheckout market finish.")
    if there.state is not None and kept is None and there.state not in ("arriving", "closed"):
        message = f'{b} has a schema "{source.schema}" already'
        hint = "Drop it there, or rename it."
        if there.state == "moved" and there.epoch == here.epoch:
            hint = f"It follows when the move from {b} is run again; or drop it there: pycheckout market finish."
        yield Problem(problem="taken", message=message, hint=hint)


def _publisher(side: Side, needed: int) -> Iterator[Problem]:
    name = side.place.name
    for row in side.rows(_LOOK_PUBLISHER):
        if row["wal_level"] != "logical":
            yield Problem(
                problem="wal_level",
                message=f"wal_level is {row['wal_level']} at {name}",
                hint="ALTER SYSTEM SET wal_level = logical; it takes a restart.",
            )
        if row["keep"] in ("-1", "-1MB"):
            yield Problem(
                problem="wal_keep",
                message=f"max_slot_wal_keep_size is not set at {name}: who follows no more would fill its disk",
                hint="ALTER SYSTEM SET max_slot_wal_keep_size = '50GB'; SELECT pg_reload_conf();",
            )
        if min(row["slots"], row["senders"]) < needed:
            yield Problem(
                problem="slots",
                message=f"{name} has fewer than {needed} replication slots or senders left",
                hint="Raise max_replication_slots and max_wal_senders there; or, where the rows go,"
                " lower max_sync_workers_per_subscription.",
            )


def _subscriber(side: Side) -> Iterator[Problem]:
    for row in side.rows(_LOOK_SUBSCRIBER):
        if row["workers"] < 2 or row["origins"] < 1:
            yield Problem(
                problem="workers",
                message=f"{side.place.name} has no workers for a subscription",
                hint="Raise max_logical_replication_workers, max_worker_processes and max_replication_slots.",
            )


def _databases(source: Side, target: Side) -> Iterator[Problem]:
    """What a database is made with, and who may log in."""
    a, b = source.place.name, target.place.name
    if source.value("show server_encoding") != target.value("show server_encoding"):
        message = f"{a} and {b} have other encodings"
        yield Problem(problem="encoding", message=message, hint="Use a database of the same.")
    if source.value(_COLLATED) and source.value(_COLLATION) != target.value(_COLLATION):
        message = f"{b} sorts texts otherwise, and an index depends on it"
        yield Problem(problem="collation", message=message, hint="Use a database of the same locale.")
    needed = {row["name"] for row in source.rows(_ROLES)}
    there = {row["name"] for row in target.rows("select rolname::text as name from pg_roles")}
    if missing := sorted(needed - there):
        message = f"{b} lacks roles that have rights in the schema: {', '.join(missing)}"
        yield Problem(problem="roles", message=message, hint="Create them there.")


def _schema(source: Side) -> Iterator[Problem]:
    for row in source.rows(_BAD_TABLES):
        yield Problem(
            problem="table",
            message=f"table {row['name']} {row['why']}",
            hint="Give it a primary key, or make it logged; or move it out of the schema.",
        )
    for row in source.rows(_LEADS_OUT, {"schema": source.schema}):
        yield Problem(
            problem="leads_out",
            message=f"{row['one']} depends on {row['other']}",
            hint="Nothing may lead out of the schema, or into it.",
        )


def _copy(source: Side, target: Side, options: Options) -> Iterator[Problem]:
    if source.major > target.major:
        yield Problem(
            problem="version",
            message=f"{target.place.name} has PostgreSQL {target.major}, and {source.place.name} {source.major}",
            hint="Move to the same or a newer one.",
        )
    if structure.program(source, options.pg_dump) is None:
        yield Problem(
            problem="pg_dump",
            message=f"there is no pg_dump of PostgreSQL {source.major} or newer",
            hint="Install it, or name it with --pg-dump.",
        )


def _notes(source: Side, target: Side) -> Iterator[str]:
    for row in target.rows(_PUBLISHING):
        yield f"publication {row['name']} at {target.place.name} would publish the rows that are copied"
    for side in (source, target):
        for row in side.rows(_SLOTS):
            yield f"{row['name']} reads changes at {side.place.name} by a slot of its own: its consumer stays there"


def leads_out(side: Side) -> str | None:
    """Something that a schema is tied to, if there is."""
    for row in side.rows(_LEADS_OUT, {"schema": side.schema}):
        return f"{row['one']} depends on {row['other']}"
    return None


ANEW = "Mend that, or let it be copied: pycheckout market finish --drop-source, then move it as any other."
_LOOK_SERVER = """
select pg_is_in_recovery() as recovering, pg_backend_pid() as pid,
       (select rolsuper from pg_roles where rolname = current_user) as superuser
"""
_LOOK_PUBLISHER = """
select current_setting('wal_level') as wal_level, current_setting('max_slot_wal_keep_size') as keep,
       current_setting('max_replication_slots')::int - (select count(*) from pg_replication_slots) as slots,
       current_setting('max_wal_senders')::int - (select count(*) from pg_stat_replication) as senders
"""
_LOOK_SUBSCRIBER = """
select current_setting('max_logical_replication_workers')::int
       - (select count(*) from pg_stat_subscription where pid is not null) as workers,
       coalesce(current_setting('max_active_replication_origins', true), current_setting('max_replication_slots'))::int
       - (select count(*) from pg_replication_origin_status) as origins
"""
_COLLATED = f"""
select exists (select from pg_index as index join pg_class as class on class.oid = index.indrelid
                cross join unnest(index.indcollation::oid[]) as used (id)
                where class.relnamespace = {HERE} and used.id = 100)
"""
_COLLATION = """
select concat_ws(' ', datcollate, datctype, datlocprovider) from pg_database where datname = current_database()
"""
_ROLES = f"""
with acls (acl) as (
  select relacl from pg_class where relnamespace = {HERE}
   union all select attacl from pg_attribute join pg_class on pg_class.oid = attrelid where relnamespace = {HERE}
   union all select proacl from pg_proc where pronamespace = {HERE}
   union all select typacl from pg_type where typnamespace = {HERE}
   union all select nspacl from pg_namespace where oid = {HERE})
select role.rolname::text as name
  from pg_roles as role
 where role.oid in (select entry.grantee from acls cross join aclexplode(acls.acl) as entry
                     union select relowner from pg_class where relnamespace = {HERE}
                     union select proowner from pg_proc where pronamespace = {HERE})
   and role.rolname not like 'pycheckout_move_%'
"""
_BAD_TABLES = f"""
select class.oid::regclass::text as name,
       case when class.relpersistence <> 'p' then 'is unlogged' else 'has no key' end as why
  from pg_class as class
 where class.relnamespace = {HERE} and class.relkind in ('r', 'p')
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
  from pg_class where relnamespace = {HERE} and relkind = 'r'
"""
