"""Options and arguments of several topics."""

from __future__ import annotations

import json
import os
import re
import sys
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


def seconds_argument(option: str, value: str) -> float:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)(s|m|h|d)?", value)
    seconds = float(found[1]) * {None: 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[found[2]] if found else 0.0
    if seconds <= 0:
        raise typer.BadParameter(f"{option}: a time above 0, such as 30s, 5m or 1h")
    return seconds


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
    except (OSError, ValueError) as exc:
        # the text itself may be an address, which belongs in no log
        raise typer.BadParameter(f"{option}: no JSON ({type(exc).__name__})") from None
