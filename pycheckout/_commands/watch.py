"""`pycheckout audit`, `metrics`, `top`."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Column, Table

from .. import _audit, _conninfo, _top
from ._app import FOUND, WATCH, Command, app
from ._options import Database, Json, Schema, moment_option, time_option
from ._places import Place, at_each, in_market, in_markets, worst
from ._printing import lacking, progress, telling, wide_console
from ._session import connected

_EVERY = timedelta(seconds=2)
_TABLE_ROWS = 1000  # of an audit's findings; --json shows all


@app.command(cls=Command, rich_help_panel=WATCH)
@in_markets()
def audit(
    places: Sequence[Place],
    since: Annotated[
        datetime | None, moment_option("Only orders and carts from then on (UTC): 2026-12-31T18:00:00.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a broken invariant.")] = False,
) -> None:
    """Look for broken invariants, slice by slice. Exit code 3 if there is one."""
    printing = threading.Lock()

    def look(place: Place) -> tuple[int, Table]:
        # whoever looks a finding up has its name and id in one piece
        table = Table(Column("invariant", no_wrap=True), Column("id", no_wrap=True), "expected", "found")
        count = 0
        with (
            connected(place.database, place.schema, as_json, market=place.market) as conn,
            progress("auditing orders", alone=not places[1:]) as bar,
        ):
            task = bar.add_task("", total=None)
            for row in _audit.audit(
                conn,
                since,
                lambda done, total: bar.update(task, completed=done, total=total),
                schema=place.schema,
            ):
                count += 1
                if as_json:
                    with printing:
                        typer.echo(json.dumps(place.beside(row)))
                elif count <= _TABLE_ROWS:
                    table.add_row(*(escape(value or "") for value in row.values()))
        return count, table

    codes = []
    for each in at_each(places, look):
        if each.value is None:
            codes.append(each.code)
            continue
        count, table = each.value
        codes.append(FOUND if count else 0)
        if as_json:
            continue
        if count:
            table.title = None if each.place.market is None else escape(f"market {each.place.market}")
            wide_console().print(table)
        if count > _TABLE_ROWS:
            typer.echo(each.place.headed(f"and {count - _TABLE_ROWS} more, which --json shows"))
        if not count:
            typer.echo(each.place.headed("no broken invariant"))
    raise typer.Exit(worst(codes))


@app.command(cls=Command, rich_help_panel=WATCH)
@in_markets()
def metrics(places: Sequence[Place], as_json: Json = False) -> None:
    """Print what a monitor watches, in the text format of Prometheus. Needs the extra `metrics`."""
    try:
        from .. import _metrics
    except ModuleNotFoundError as exc:
        raise lacking("the format of Prometheus", exc, "metrics") from exc

    def look(place: Place) -> list[dict[str, Any]]:
        grant = "checkout_grant_operators"
        with (
            connected(place.database, place.schema, as_json, grant=grant, market=place.market) as conn,
            _conninfo.in_schema(conn, place.schema),
        ):
            return conn.execute(_metrics.query(None)).fetchall()

    outcomes = [*at_each(places, look)]
    with telling():
        if as_json:
            for each in outcomes:
                for row in each.value or ():
                    typer.echo(json.dumps(each.place.beside(row)))
        else:
            rows = [_metrics.beside_market(row, each.place) for each in outcomes for row in each.value or ()]
            typer.echo(_metrics.text(rows).decode(), nl=False)
    if code := worst(each.code for each in outcomes):
        raise typer.Exit(code)


@app.command(cls=Command, rich_help_panel=WATCH)
@in_market
def top(
    database: Database = "",
    schema: Schema = None,
    every: Annotated[
        timedelta,
        time_option(
            "The time between two looks.", default=_EVERY, least=timedelta(milliseconds=200), most=timedelta(hours=1)
        ),
    ] = _EVERY,
    once: Annotated[bool, typer.Option("--once", help="Look once; so it is where the output is no terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look.")] = False,
) -> None:
    """Show on one screen what the database is doing: checkouts, who waits for whom, events, orders. Ctrl-C ends it."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 80
    with suppress(KeyboardInterrupt), connected(database, schema, as_json, grant="checkout_grant_operators") as conn:

        def look() -> dict[str, Any]:
            with _conninfo.in_schema(conn, schema):
                return _top.look(conn)

        found = look()
        if as_json or once or not console.is_terminal:
            while True:
                typer.echo(json.dumps(found)) if as_json else console.print(_top.screen(found, 1000))
                sys.stdout.flush()
                if once or not as_json:
                    return
                time.sleep(every.total_seconds())
                found = look()
        with Live(_top.screen(found, console.height), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every.total_seconds())
                live.update(_top.screen(look(), console.height), refresh=True)
