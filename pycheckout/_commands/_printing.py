"""How a command prints: rows and records for a person or a program, a bar, and what went wrong."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from .._money import amount
from ._app import FAILED

stderr = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)


def wide_console() -> Console:
    """As wide as the terminal, or wide enough for ids."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160
    return console


def progress(what: str, alone: bool = True) -> Progress:
    """A bar on a terminal, and nothing elsewhere or beside others."""
    columns = (TextColumn(what), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not (alone and console.is_terminal), transient=True)


@contextmanager
def telling() -> Iterator[None]:
    """For what is printed of something done: that nobody can read it makes no failure of it."""
    try:
        yield
        sys.stdout.flush()
    except OSError as exc:
        # The interpreter tries again to print the rest when it ends, and makes an exit code of its own of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            stderr.print(f"pycheckout: it is done, but could not be printed: {exc.strerror}", style="red")


def lacking(what: str, exc: ModuleNotFoundError, extra: str) -> typer.Exit:
    """Say which package is missing, and the extra that brings it."""
    stderr.print(f"pycheckout: {what} needs {exc.name}: pip install 'pycheckout[{extra}]'", style="red")
    return typer.Exit(FAILED)


def print_rows(rows: Sequence[Mapping[str, Any]], said: str, columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif said:
        for row in rows:
            typer.echo(said.format_map(row))
    elif len(rows) == 1:
        _print_record(rows[0], columns)
    elif rows:
        _print_table(rows, columns, rows[0].get("currency"))
    else:
        typer.echo("nothing")


def _print_record(record: Mapping[str, Any], columns: Sequence[str]) -> None:
    """An object, a line a field; a list in it is a table below."""
    currency = record.get("currency")
    fields = Table.grid(padding=(0, 2))
    for name, value in record.items():
        if not isinstance(value, list):
            fields.add_row(f"[bold]{escape(_titled(name))}[/]", escape(_cell(name, value, currency)))
    wide_console().print(fields)
    for name, value in record.items():
        if isinstance(value, list) and value:
            # what the host wrote into a list of its own, as warnings, may have any shape
            _print_table([each if isinstance(each, dict) else {name: each} for each in value], columns, currency)


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], currency: str | None) -> None:
    there = dict.fromkeys(name for row in rows for name in row)
    shown = [name for name in columns if name in there and not _is_as_before(name, rows)]
    names = shown or [*there]
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(escape(_titled(name)), no_wrap=name.endswith("_id"))  # an id that is cut is of no use
    for row in rows:
        table.add_row(*(escape(_cell(name, row.get(name), row.get("currency", currency))) for name in names))
    wide_console().print(table)


# What of a line may have come off, and what it was.
_LEFT = {"left_qty": "qty", "left_cents": "total_cents"}


def _is_as_before(name: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a column says of no line more than another one does."""
    return name in _LEFT and all(row.get(name) in (None, row.get(_LEFT[name])) for row in rows)


def _titled(name: str) -> str:
    return name.removesuffix("_cents").replace("_", " ")


def _cell(name: str, value: Any, currency: str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(_cell(inner, each, currency) for inner, each in value.items() if each is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_cents") and currency is not None and isinstance(value, int):
        return amount(value, currency)
    return str(value)
