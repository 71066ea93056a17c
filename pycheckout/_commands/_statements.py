"""Commands that are a statement each."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import typer
from psycopg import sql

from .. import _conninfo
from ._app import Command
from ._options import Json
from ._places import Place, at_each, in_market, in_markets, worst
from ._printing import print_rows, telling
from ._session import connected, refusals

Statement = tuple[str | sql.Composed, Sequence[Any]]


def calls(
    group: typer.Typer,
    name: str,
    *,
    grant: str = "",
    said: str = "",
    columns: Sequence[str] = (),
    batches: bool = False,
    everywhere: bool = False,
    panel: str | None = None,
    field: str = "",
) -> Callable[[Callable[..., Statement]], Callable[..., Statement]]:
    """A command that runs the statement that a function makes of its arguments, and shows the JSON of each row; other
    columns, such as the currency of what is in there, stand beside it.

    `grant` names the function that gives a role the right. For a person, `said` is the sentence with the row's fields,
    instead of a table, and `columns` are those that a table has, where not all. With `batches` the statement counts
    what it `deleted`, and is run until that is 0. `everywhere`: it has --all-markets. An answer that is no object is
    the `field` of one, beside what the command was told.
    """

    def define(function: Callable[..., Statement]) -> Callable[..., Statement]:
        def run(places: Sequence[Place], as_json: bool, **arguments: Any) -> None:
            with refusals(as_json):
                query, params = function(**arguments)

            def work(place: Place) -> list[dict[str, Any]]:
                with connected(place.database, place.schema, as_json, grant, place.market) as conn:
                    with _conninfo.in_schema(conn, place.schema):
                        rows = [row for answer in conn.execute(query, params).fetchall() for row in _rows(answer)]
                    if field:
                        rows = [arguments | {field: row} for row in rows]
                    while batches and (more := _deleted(conn, place.schema, query, params)):
                        rows[0]["deleted"] += more
                return rows

            codes = []
            for each in at_each(places, work):
                codes.append(each.code)
                if each.value is not None:
                    with telling():
                        if places[1:] and not as_json:
                            typer.echo(f"market {each.place.market}")
                        rows = [each.place.beside(row) for row in each.value] if places[1:] else each.value
                        print_rows(rows, said, columns, as_json)
            if code := worst(codes):
                raise typer.Exit(code)

        def in_one(database: str, schema: str | None, as_json: bool, **arguments: Any) -> None:
            run([Place(database, schema)], as_json, **arguments)

        own = inspect.signature(function, eval_str=True).parameters.values()
        as_json = inspect.signature(_common, eval_str=True).parameters["as_json"]
        takes: Any = run if everywhere else in_one
        takes.__signature__ = inspect.Signature(
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, as_json)]
        )
        takes.__doc__ = function.__doc__
        command = in_markets()(run) if everywhere else in_market(in_one)
        group.command(name, cls=Command, rich_help_panel=panel)(command)
        return function

    return define


def _rows(answer: dict[str, Any]) -> list[Any]:
    """What an answer consists of."""
    (_, found), *beside = answer.items()
    found = json.loads(found) if isinstance(found, str) else found  # the calls of services answer with JSON as text
    rows = found if isinstance(found, list) else [found]
    return [row | dict(beside) for row in rows] if beside else rows


def _common(as_json: Json = False) -> None:
    """What each of them takes."""


def _deleted(
    conn: psycopg.Connection[dict[str, Any]],
    schema: str | None,
    query: str | sql.Composed,
    params: Sequence[Any],
) -> int:
    with _conninfo.in_schema(conn, schema):
        [row] = conn.execute(query, params).fetchall()
    [answer] = row.values()
    return int(answer["deleted"])
