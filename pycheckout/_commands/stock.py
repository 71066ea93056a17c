"""`pycheckout stock ...`"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer

from .. import _conninfo
from .._checkout import StockCalls
from .._errors import translated
from ._app import CHECKOUT, Command, command_group
from ._options import ChangeKey, Database, Json, Schema
from ._places import in_market
from ._printing import progress, telling
from ._session import connected, unnamed
from ._statements import Statement, calls

stock = command_group("stock", CHECKOUT, "Units of products.")

Product = Annotated[str, typer.Argument(metavar="PRODUCT", help="The id of a product.")]
Units = Annotated[int, typer.Argument(metavar="UNITS", help="How many units.")]


@calls(stock, "show", grant="checkout_grant_stock")
def _stock_show(
    product: Annotated[list[str], typer.Argument(metavar="PRODUCT", help="The ids of products.")],
) -> Statement:
    """Show the stock of products; one that was never counted is left out."""
    return "select json_array_elements(inventory_get(%s::uuid[]) -> 'levels')", (product,)


@calls(stock, "set", grant="checkout_grant_stock")
def _stock_set(product: Product, units: Units) -> Statement:
    """Set the available units of a product, whatever was there."""
    return StockCalls.set.statement(product, units)


@calls(stock, "adjust", grant="checkout_grant_stock")
def _stock_adjust(
    product: Product,
    by: Annotated[int, typer.Option(metavar="UNITS", help="How many more there are; fewer, if it is negative.")],
    key: ChangeKey = None,
) -> Statement:
    """Add units to what is available, or take some off."""
    return StockCalls.adjust.statement(product, by, change_key=key)


@calls(stock, "restock", grant="checkout_grant_stock")
def _stock_restock(product: Product, units: Units, key: ChangeKey = None) -> Statement:
    """Add units that have come in."""
    return StockCalls.restock.statement(product, units, change_key=key)


@calls(stock, "split")
def _stock_split(
    product: Product, slots: Annotated[int, typer.Argument(metavar="SLOTS", help="From 1 to 256.")]
) -> Statement:
    """Spread a product that many buy at once over several rows, or merge it into one."""
    return StockCalls.split.statement(product, slots)


@stock.command("import", cls=Command)
@in_market
def import_stock(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV with columns product_id and available; - reads stdin.")
    ],
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Products to set in one transaction.")] = 1_000,
    database: Database = "",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Set the available units of many products. Can be run again after a failure."""
    levels, lines = _levels(file)
    done = 0
    with (
        connected(database, schema, as_json, grant="checkout_grant_stock") as conn,
        progress("setting stock") as bar,
    ):
        task = bar.add_task("", total=len(levels))
        for start in range(0, len(levels), batch):
            some = json.dumps(levels[start : start + batch])
            try:
                with _conninfo.in_schema(conn, schema):
                    conn.execute("select inventory_set_many(%s::jsonb)", (some,))
            except psycopg.Error as exc:
                error = translated(exc) or unnamed(exc)
                # Which line of the file is at fault, if one is.
                if found := re.match(r"levels\[(\d+)\]", str(error.detail.get("field", ""))):
                    error.message = f"line {lines[start + int(found[1])]}: {error.message}"
                error.hint = f"{done} products are set; correct the file and run it again."
                raise error from exc
            done += len(levels[start : start + batch])
            bar.update(task, completed=done)
    with telling():
        typer.echo(json.dumps({"set": done}) if as_json else f"{done} products set")


def _levels(file: str) -> tuple[list[dict[str, Any]], list[int]]:
    """What a CSV file says of each product, and the line that says it. Numbers are judged by the database."""
    try:
        written = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        reader = csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline=""))
        if not {"product_id", "available"} <= {*(reader.fieldnames or ())}:
            raise typer.BadParameter("the first line must name the columns product_id and available")
        levels, lines = [], []
        for row in reader:
            available: Any = row["available"]
            if re.fullmatch("[+-]?[0-9]{1,4000}", available or ""):  # int() takes more, and fewer digits
                available = int(available)
            levels.append({"product_id": row["product_id"], "available": available})
            lines.append(reader.line_num)
        return levels, lines
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise typer.BadParameter(f"{file} cannot be read: {exc}") from None
