"""`pycheckout expire`, `purge`, `erase`."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer
from psycopg import sql

from .._checkout import OrderCalls
from ._app import AGAIN, CLEAR, Command, app
from ._options import Batch, Json, OlderThan, time_option
from ._places import Place, at_each, in_markets, worst
from ._printing import telling
from ._session import checkout, connected
from ._statements import Statement, calls


@app.command("expire", cls=Command, rich_help_panel=CLEAR)
@in_markets()
def expire_command(
    places: Sequence[Place],
    every: Annotated[
        timedelta | None,
        time_option("Look again after so long, until SIGTERM.", least=timedelta(milliseconds=100)),
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Orders to end in one transaction.")] = 100,
    as_json: Json = False,
) -> None:
    """End the orders that were not paid in time, and give their stock back."""
    stop = threading.Event()
    if every is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())

    def again_and_again(place: Place) -> None:
        while not stop.is_set():
            try:
                _expire_all(place, batch, as_json, stop, quiet=every is not None)
            except typer.Exit as exc:
                # busy, away, or only orders left whose stock cannot be given back: said by then, and tried again;
                # beside other markets, whatever it is
                final = exc.exit_code != AGAIN and getattr(exc.__cause__, "sqlstate", None) != "OC012"
                if every is None or (final and not places[1:]):
                    raise
            if every is None:
                return
            stop.wait(every.total_seconds())

    if every is not None:  # a thread each, since none of them ends
        places = [replace(place, server=place.market) for place in places]
    if code := worst([each.code for each in at_each(places, again_and_again)]):
        raise typer.Exit(code)


def _expire_all(place: Place, batch: int, as_json: bool, stop: threading.Event, quiet: bool) -> None:
    done = {"expired": 0, "kept": 0}
    with connected(
        place.database, place.schema, as_json, grant="checkout_grant_operators", market=place.market
    ) as conn:
        orders = checkout(conn, place.schema).orders
        while not stop.is_set():
            answer = OrderCalls.expire.answer(orders, batch)
            for name in done:
                done[name] += answer[name]
            if not answer["expired"] + answer["kept"]:
                break
    if not quiet or any(done.values()):
        with telling():
            told = f"{done['expired']} orders expired, {done['kept']} lost their deadline"
            typer.echo(json.dumps(place.beside(done)) if as_json else place.headed(told))


class Old(StrEnum):
    """What grows; each is a function of its own."""

    carts = "carts"
    keys = "keys"
    changes = "changes"


@calls(app, "purge", said="{deleted} deleted", batches=True, everywhere=True, panel=CLEAR)
def _purge(
    what: Annotated[
        Old, typer.Argument(metavar="WHAT", help="carts (abandoned, or ended long ago), keys, or changes of stock.")
    ],
    older_than: OlderThan,
    batch: Batch = 10_000,
) -> Statement:
    """Delete carts, or keys of checkouts or of stock changes, that nobody needs any more. The orders stay."""
    function = {
        Old.carts: "cart_purge",
        Old.keys: "checkout_requests_purge",
        Old.changes: "inventory_changes_purge",
    }[what]
    query = sql.SQL("select json_build_object('deleted', {}(%s::interval, %s::integer))")
    return query.format(sql.Identifier(function)), (older_than, batch)


@calls(app, "erase", said="{erased} rows of cart {cart_id} changed", panel=CLEAR)
def _erase(
    cart: Annotated[str, typer.Argument(metavar="CART", help="The id of a cart, purged or not.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> Statement:
    """Take a person out of a cart, its orders and events: addresses, notes, keys. Amounts and states stay."""
    if not yes:
        typer.confirm(f"Erase the person of cart {cart}, for good?", abort=True, err=True)
    return "select json_build_object('cart_id', %s::uuid, 'erased', checkout_erase(%s::uuid))", (cart, cart)
