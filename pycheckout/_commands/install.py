"""`pycheckout migrate`, `rollback`, `doctor`, `grant`, `revoke`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import psycopg
import typer
from psycopg import sql
from psycopg.rows import dict_row
from rich.console import Console
from rich.markup import escape

from .. import _conninfo, _doctor
from .._errors import CheckoutError
from .._migrate import Migrated, Plan, _parameters, migrate, plan, plan_sql, rollback
from ._app import FAILED, INSTALL, Command, app
from ._options import Database, Json, NewSchema, time_option
from ._places import Place, at_each, in_market, in_markets, worst
from ._printing import stderr, telling
from ._session import connected, refusals
from ._statements import Statement, calls

_HERE = """
select current_schema()::text as schema,
       to_regclass(quote_ident(current_schema()) || '.checkout_ledger') is not null as has
"""


@app.command("migrate", cls=Command, rich_help_panel=INSTALL)
@in_markets(schema=NewSchema)
def migrate_command(
    places: Sequence[Place],
    create_schema: Annotated[bool, typer.Option("--create-schema", help="Make the schema if it is missing.")] = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that would be run, to read it.")] = False,
    as_json: Json = False,
) -> None:
    """Apply what is pending and deploy the functions of this release."""
    if show_plan and show_sql:
        raise typer.BadParameter("give --plan or --sql, and not both")
    problems = False
    for done, place in enumerate(places):
        _say_what_is_elsewhere(place)
        try:
            with refusals(as_json, market=place.market):
                if show_plan or show_sql:
                    planned = plan(place.database, schema=place.schema)
                    problems = problems or bool(planned.problems)
                    _show_planned(place, planned, show_sql, as_json)
                else:
                    migrated = migrate(place.database, schema=place.schema, create_schema=create_schema)
                    _show_migrated(place, migrated, as_json)
        except typer.Exit:
            _say_what_is_where(places, done)
            raise
    if show_plan and problems:
        raise typer.Exit(FAILED)


def _say_what_is_elsewhere(place: Place) -> None:
    """A database may have several markets, each in its schema; but who names none may mean the one that is there."""
    if place.schema is not None:
        return
    # Whatever is wrong with the database, the command itself will say.
    with (
        suppress(psycopg.Error, CheckoutError),
        psycopg.connect(
            **_conninfo.KEEPALIVE | _parameters(place.database), autocommit=True, row_factory=dict_row
        ) as conn,
    ):
        [here] = conn.execute(_HERE).fetchall()
        names = [row["schema"] for row in _doctor.installations(conn)]
        if here["schema"] is not None and not here["has"] and names:
            there = f"pycheckout is in schema {', '.join(names)} already"
            stderr.print(
                place.headed(f"warning: {there}, and this is another installation, in schema {here['schema']}")
            )
            stderr.print(f"hint: --schema {shlex.quote(names[0])} is the one that is there.")


def _say_what_is_where(places: Sequence[Place], done: int) -> None:
    """Of several markets: those before the one that failed are done, and those behind it were not begun."""
    if places[1:]:
        names = [str(place.market) for place in places]
        stderr.print(f"done before it: {', '.join(names[:done]) or 'none'}")
        stderr.print(f"not begun: {', '.join(names[done + 1 :]) or 'none'}")


def _show_planned(place: Place, planned: Plan, show_sql: bool, as_json: bool) -> None:
    with telling():
        if place.market is not None and not as_json:
            typer.echo(f"{'-- ' if show_sql else ''}market {place.market}")
        if show_sql:
            for text in plan_sql(planned):
                typer.echo(text)
        elif as_json:
            typer.echo(json.dumps(place.beside(asdict(planned))))
        else:
            _show_plan(planned)


def _show_migrated(place: Place, done: Migrated, as_json: bool) -> None:
    with telling():
        if as_json:
            typer.echo(json.dumps(place.beside(asdict(done))))
        else:
            for name in done.migrations:
                typer.echo(place.headed(f"applied {name}"))
            typer.echo(place.headed(f"schema {done.schema} has pycheckout {done.version}"))


def _show_plan(planned: Plan) -> None:
    for each in planned.pending:
        rows = f"{each.rows:,} rows, about {max(each.seconds or 0, 1):.0f} s; " if each.rows else ""
        if each.rows is None:
            rows = "no statistics: ANALYZE first; "
        typer.echo(f"would apply {each.migration}: {rows}{each.lock}")
    there = f"has the functions of {planned.installed}" if planned.installed else "has no functions"
    change = f"would get those of {planned.version}" if planned.changes_functions else "would keep them"
    typer.echo(f"schema {planned.schema} {there}, and {change}")
    for problem in planned.problems:
        stderr.print(f"in the way: {problem['message']}", style="red")
        stderr.print(f"hint: {problem['hint']}")


@app.command("rollback", cls=Command, rich_help_panel=INSTALL)
@in_market
def rollback_command(
    database: Database = "",
    schema: NewSchema = None,
    to: Annotated[
        str | None,
        typer.Option(metavar="RELEASE", help="Take away what came after it; then `migrate` with that release."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take pycheckout out of a schema, or what came after a release; refused where rows would be lost."""
    if not yes:
        what = "every migration of pycheckout" if to is None else f"what came after {to}, and all functions"
        typer.confirm(f"Roll back {what}?", abort=True, err=as_json)
    with refusals(as_json):
        undone = rollback(database, schema=schema, to=to)
    with telling():
        if as_json:
            typer.echo(json.dumps(asdict(undone)))
        else:
            for name in undone.migrations:
                typer.echo(f"rolled back {name}")
            if not undone.migrations:
                typer.echo("nothing to take away")


@app.command(cls=Command, rich_help_panel=INSTALL)
@in_markets()
def doctor(
    places: Sequence[Place],
    backlog: Annotated[
        timedelta, time_option("How long an event may wait to be published.", default=_doctor.BACKLOG)
    ] = _doctor.BACKLOG,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a finding.")] = False,
) -> None:
    """Look at the installation: release, rights, time-outs, autovacuum, backlog. Exit code 1 if something is wrong."""

    def look(place: Place) -> list[_doctor.Finding]:
        with connected(place.database, place.schema, as_json, market=place.market) as conn:
            return _doctor.findings(conn, place.schema, backlog)

    codes = []
    for each in at_each(places, look):
        found = each.value or []
        codes.append(FAILED if found else each.code)
        if as_json:
            for finding in found:
                typer.echo(json.dumps(each.place.beside(asdict(finding))))
            continue
        console = Console(soft_wrap=True, highlight=False)
        for finding in found:
            said = f"[red]{finding.check}[/]: {escape(finding.subject)} {escape(finding.problem)}"
            console.print(escape(each.place.headed("")) + said)
            console.print(f"  [bold]remedy:[/] {escape(finding.remedy)}")
        if not found and not each.code:
            console.print(escape(each.place.headed("nothing is wrong")), style="green")
    raise typer.Exit(worst(codes))


class Kind(StrEnum):
    """What a role may do; each is a function `checkout_grant...`."""

    checkout = "checkout"
    quotes = "quotes"
    orders = "orders"
    payments = "payments"
    stock = "stock"
    relay = "relay"
    operators = "operators"


Role = Annotated[str, typer.Argument(metavar="ROLE", help="A role of the server.")]


@calls(app, "grant", everywhere=True, said="role {role} has the grant {grant}", panel=INSTALL)
def _grant(
    role: Role,
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="checkout, quotes, orders, payments, stock, relay or operators.")
    ],
) -> Statement:
    """Let a role do what its kind says, no table needed. Deployments keep it up to date."""
    function = "checkout_grant" if kind is Kind.checkout else f"checkout_grant_{kind.value}"
    query = "select json_build_object('role', %s::text, 'grant', %s::text) from {}(%s::text)"
    return sql.SQL(query).format(sql.Identifier(function)), (role, kind.value, role)


@calls(app, "revoke", everywhere=True, said="role {role} has nothing of pycheckout any more", panel=INSTALL)
def _revoke(role: Role) -> Statement:
    """Take away whatever a role was granted."""
    return "select json_build_object('role', %s::text) from checkout_revoke(%s::text)", (role, role)
