"""What is wrong with an installation, each finding with its remedy. Reads only.

A file beside this one is a check of that name; its rows are what it found.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg

from .._conninfo import INSTALLATIONS, in_schema
from .._errors import version_numbers
from .._migrate import pending_migrations, preflight
from .._release import deployment, release


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong."""

    check: str
    """A stable name."""
    subject: str
    """The role, table or function that it is about."""
    problem: str
    remedy: str
    """SQL for the owner or a superuser, or a command; a sentence where neither would do."""


_MIGRATE = "pycheckout migrate"
_CHECKS = (
    "market_away",  # first: it explains others
    "missing_grant",
    "role_changed",
    "lock_timeout_off",
    "autovacuum_off",
    "autovacuum_lags",
    "outbox_backlog",
    "keys_readable",
    "tables_open",
    "schema_open",
    "anchor_taken",
    "deadlines_passed",
    "refunds_due",
    "payments_at_odds",
    "served_over_rest",
    "snapshot_held",
    "stock_row_waits",
    "index_missing",
)

_HAS = """
select to_regclass(quote_ident(current_schema()) || '.checkout_functions') is not null as functions,
       to_regprocedure('checkout_privileges()') is not null as privileges
"""
# For the checks that say {of_a_move}: the role that a server comes in as while the market moves, or follows afterwards.
# It has the name of its publication.
_OF_A_MOVE = """\
away as materialized (   -- apart: Citus joins no table with a catalog
  select state from checkout_market where state <> 'selling' or followed_until is not null
),
of_a_move as (
  select role.oid
    from pg_roles as role
   where starts_with(role.rolname, 'pycheckout_move_')
     and exists (select from away)
     and exists (select from pg_publication as publication
                   join pg_publication_rel as member on member.prpubid = publication.oid
                   join pg_class as class on class.oid = member.prrelid
                  where publication.pubname = role.rolname
                    and class.relnamespace = quote_ident(current_schema())::regnamespace)
)"""
BACKLOG = timedelta(minutes=15)

_RELEASE = "select version, hash from checkout_releases order by id desc limit 1"
_DEPLOYED = """
with deployed as materialized (   -- apart: Citus joins no table with a catalog
  select name, signature from checkout_functions
)
select deployed.name, routine.prosrc as body
  from deployed
  left join pg_proc as routine on routine.oid = to_regprocedure(deployed.signature)
 where routine.oid is null or position('perform market_refuse();   -- while the market moves' in routine.prosrc) = 0
"""


def findings(
    conn: psycopg.Connection[dict[str, Any]], schema: str | None, backlog: timedelta = BACKLOG
) -> list[Finding]:
    """Everything that is wrong. `backlog`: how long an event may wait to be published."""
    with in_schema(conn, schema):
        [has] = conn.execute(_HAS).fetchall()
        found = [*_pooler(conn)]
        if not has["functions"]:
            return [*found, _missing(conn), *_in_the_way(conn)]
        found += _release(conn)
        pending = any(each.check == "pending_migration" for each in found)
        for check in _CHECKS:
            if check == "index_missing" and pending:
                continue  # a migration may bring it
            # Without what it asks, the functions are outdated: a finding already.
            if check not in ("missing_grant", "tables_open") or has["privileges"]:
                query = (Path(__file__).parent / f"{check}.sql").read_bytes()
                query = query.replace(b"{of_a_move}", _OF_A_MOVE.encode())
                params = {"backlog": backlog} if b"%(backlog)s" in query else None
                found += (Finding(check=check, **row) for row in conn.execute(query, params).fetchall())
        return found


def installations(conn: psycopg.Connection[dict[str, Any]]) -> list[dict[str, Any]]:
    """The schemas of the database that have pycheckout: `schema`, its `owner`, and whether it is `usable`."""
    return conn.execute(f"{INSTALLATIONS} order by usable, schema").fetchall()


def _missing(conn: psycopg.Connection[dict[str, Any]]) -> Finding:
    """That it is not here; where it is, if it is anywhere, and whether this role would find it there."""
    elsewhere = installations(conn)
    names = ", ".join(row["schema"] for row in elsewhere)
    remedy = _MIGRATE
    if elsewhere:
        named = " or ".join(f"--schema {shlex.quote(row['schema'])}" for row in elsewhere)
        remedy = f"{named}; or, for another installation in this schema, {_MIGRATE}"
    if shut := [row for row in elsewhere if not row["usable"]]:
        remedy = f'Connect as "{shut[0]["owner"]}": this role may not use schema {shut[0]["schema"]}.'
    return Finding(
        check="not_installed",
        subject="pycheckout",
        problem=f"is not installed in this schema{f', but in {names}' if names else ''}",
        remedy=remedy,
    )


def _in_the_way(conn: psycopg.Connection[dict[str, Any]]) -> Iterator[Finding]:
    """What has a name that an installation here would need."""
    [here] = conn.execute("select current_schema() as name").fetchall()
    for problem in preflight(conn) if here["name"] is not None else ():
        if problem["problem"] == "name_taken":
            yield Finding(
                check="name_taken",
                subject=f"{problem['kind']} {problem['name']}",
                problem="is yours, and has a name that pycheckout needs",
                remedy=problem["hint"],
            )


def _pooler(conn: psycopg.Connection[dict[str, Any]]) -> Iterator[Finding]:
    [row] = conn.execute("select pg_backend_pid() as pid").fetchall()
    if row["pid"] != conn.info.backend_pid:  # a pooler answers a new client with a number of its own
        yield Finding(
            check="pooler",
            subject=f"{conn.info.host}:{conn.info.port}",
            problem="is a pooler such as pgbouncer: what a session sets, and what it prepares, may be lost there",
            remedy="Migrate through the server itself; for services, heed what docs/operations.md says of poolers.",
        )


def _release(conn: psycopg.Connection[dict[str, Any]]) -> Iterator[Finding]:
    """Whether the database has the migrations and functions of this package, as this package has them."""
    if pending := pending_migrations(conn):
        more = f", nor are {len(pending) - 1} after it" if pending[1:] else ""
        yield Finding(check="pending_migration", subject=pending[0], problem=f"is not applied{more}", remedy=_MIGRATE)
    deploy = deployment()
    deployed = conn.execute(_RELEASE).fetchone() or {"version": "0", "hash": ""}
    if (deployed["version"], deployed["hash"]) != (release(), deploy.functions_hash()):
        newer = version_numbers(deployed["version"]) > version_numbers(release())
        yield Finding(
            check="outdated_functions",
            subject=f"release {deployed['version']}",
            problem=f"is deployed, and not what this package, {release()}, has",
            remedy="Upgrade the package: the database is newer." if newer else _MIGRATE,
        )
        return
    texts = {file.stem: file.read_text(encoding="utf-8") for file in deploy.function_files()}
    for row in conn.execute(_DEPLOYED).fetchall():
        if not _is_in(texts.get(row["name"], ""), row["body"]):
            problem = "is gone" if row["body"] is None else f"is not what release {release()} has"
            yield Finding(check="changed_function", subject=row["name"], problem=problem, remedy=_MIGRATE)


def _is_in(text: str, body: str | None) -> bool:
    """Whether a function file has this body between its quotes; it may have another for other servers."""
    return body is not None and any(f"{quote}{body}{quote}" in text for quote in ("$$", "'"))
