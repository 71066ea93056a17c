"""Options and arguments of several topics."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

Database = Annotated[
    str,
    typer.Option(
        envvar="PYCHECKOUT_DATABASE_URL",
        metavar="URL",
        help="A libpq URL or DSN; without it, libpq's own variables (PGHOST, PGDATABASE, ...) count.",
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The schema to work in; by default the one of the search_path that has it."),
]
NewSchema = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The schema to work in; by default the first of the search_path."),
]
MarketName = Annotated[
    str | None,
    typer.Option("--market", metavar="NAME", help="A market of the map, instead of --database and --schema."),
]
MarketsFile = Annotated[
    str | None,
    typer.Option(
        "--markets", envvar="PYCHECKOUT_MARKETS", metavar="FILE", help="The map: which market is where, in TOML."
    ),
]
AllMarkets = Annotated[bool, typer.Option("--all-markets", help="Every market of the map.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs, errors included.")]

Order = Annotated[str, typer.Argument(metavar="ORDER", help="The id of a vendor's order.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the events and whoever reads them.")]
ChangeKey = Annotated[
    str | None, typer.Option("--key", metavar="TEXT", help="The same for each repetition, so that it counts once.")
]
OlderThan = Annotated[str, typer.Option(metavar="INTERVAL", help="The age, as PostgreSQL writes it: '30 days'.")]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Rows to delete in one transaction.")]


_UNITS = {"ms": "milliseconds", "s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def time_option(
    help: str,
    *,
    default: timedelta | None = None,
    least: timedelta = timedelta(0),
    most: timedelta = timedelta(days=366),
    none: bool = False,
) -> Any:
    """An option that is a time, a number with its unit: 500ms, 30s, 5m, 1h, 2d; `none`: or that word, for None."""

    def parsed(value: str | timedelta) -> timedelta | None:
        if isinstance(value, timedelta):  # the default
            return value
        if none and value == "none":
            return None
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", value)
        span = timedelta(**{_UNITS[found[2]]: float(found[1])}) if found else None
        if span is None or not least <= span <= most:
            raise typer.BadParameter(
                f"a time with its unit, such as 500ms, 30s, 5m, 1h or 2d, from {_written(least)} to {_written(most)}"
            )
        return span

    return typer.Option(
        parser=parsed, metavar="TIME", help=help, show_default=False if default is None else _written(default)
    )


def _written(span: timedelta) -> str:
    unit = next((unit for unit in ("d", "h", "m", "s") if span and not span % timedelta(**{_UNITS[unit]: 1})), "ms")
    return f"{span // timedelta(**{_UNITS[unit]: 1})}{unit}"


def cents_option(help: str) -> Any:
    """An option that is an amount in minor units."""

    def parsed(value: str) -> int:
        if not re.fullmatch(r"[+-]?[0-9]{1,30}", value):
            raise typer.BadParameter("a whole number of minor units (cents), such as 949 for 9.49")
        return int(value)

    return typer.Option(parser=parsed, metavar="CENTS", help=help)


def moment_option(help: str) -> Any:
    """An option that is a date, or a date and time, in UTC."""

    def parsed(value: str) -> datetime:
        for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S"):
            with suppress(ValueError):
                return datetime.strptime(value, form).replace(tzinfo=UTC)
        raise typer.BadParameter("a date, or a date and time, in UTC, such as 2026-12-31 or 2026-12-31T18:00:00")

    return typer.Option(parser=parsed, metavar="TIME", help=help, show_default=False)


def json_argument(option: str, value: str) -> Any:
    """JSON of the command line, or of a file where the command line would show it to all users of the machine."""
    try:
        if value == "@-":
            written = sys.stdin.buffer.read()
        elif value.startswith("@"):
            written = Path(value[1:]).read_bytes()
        else:
            written = os.fsencode(value)
        # UTF-8, as JSON is, and not what the locale says.
        return json.loads(written.decode("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as exc:
        # the text itself may be an address, which belongs in no log
        raise typer.BadParameter(f"{option}: no JSON ({type(exc).__name__})") from None
