"""`pycheckout order ...`"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from .._checkout import OrderCalls
from ._app import CHECKOUT, command_group
from ._options import ChangeKey, Order, Reason, cents_option, json_argument, moment_option
from ._statements import Statement, calls

orders = command_group("order", CHECKOUT, "Orders after the checkout.")

# What a person wants to see of an order in a list, and of a line; --json has all.
_ORDER = ("order_id", "order_number", "status", "total_cents", "currency", "created_at")
_LINE = ("name", "qty", "left_qty", "total_cents", "left_cents", "tax_cents", "status", "notes", "line_item_id")
_PART = (
    "line_item_id",
    "qty",
    "reserved_qty",
    "fulfilled_qty",
    "released_qty",
    "returned_qty",
    "total_cents",
    "status",
)
_STEP = ("created_at", "about", "kind", "amount_cents", "reason", "key")

# The vendor of an order, for whoever runs the commands; of none where there is no such order.
_ITS_VENDOR = "coalesce((select vendor_store_id from vendor_orders where id = %s::uuid), gen_random_uuid())"

ItsBuyer = Annotated[
    str | None,
    typer.Option(
        "--buyer",
        metavar="UUID",
        help="The buyer's store, for a role without a right on tables: it must be this one's.",
    ),
]
ItsVendor = Annotated[
    str | None,
    typer.Option(
        "--vendor",
        metavar="UUID",
        help="The vendor's store, for a role without a right on tables: it must be this one's.",
    ),
]
Line = Annotated[str, typer.Argument(metavar="LINE", help="The id of an order's line.")]
Quantity = Annotated[
    int | None, typer.Option("--qty", metavar="UNITS", help="How many units, all of them if left out; needs --key.")
]
Key = Annotated[str, typer.Option("--key", metavar="TEXT", help="The same for each repetition.")]


@calls(orders, "show", grant="checkout_grant_orders", columns=_LINE)
def _order_show(
    order: Order,
    buyer: ItsBuyer = None,
    vendor: ItsVendor = None,
) -> Statement:
    """Show an order and its lines, as it is now."""
    if buyer is None and vendor is None:
        return f"select order_get(%s::uuid, null, {_ITS_VENDOR})", (order, order)
    return OrderCalls.get.statement(order, buyer_store_id=buyer, vendor_store_id=vendor)


@calls(orders, "list", grant="checkout_grant_orders", columns=_ORDER)
def _order_list(
    buyer: Annotated[str | None, typer.Option(metavar="UUID", help="The buyer's store: its orders.")] = None,
    vendor: Annotated[
        str | None, typer.Option(metavar="UUID", help="The vendor's store: the orders that it got.")
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only orders in this state; may be given several times.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where to go on: what the page before calls `after`.")
    ] = None,
    max_rows: Annotated[int, typer.Option(metavar="N", help="How many at most, up to 200.")] = 50,
    number: Annotated[int | None, typer.Option(metavar="N", help="Only the order that has this number.")] = None,
    purchase_order: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only orders that the buyer gave this number of its own.")
    ] = None,
) -> Statement:
    """Show the orders of a buyer or a vendor, newest first."""
    return OrderCalls.list.statement(
        buyer_store_id=buyer,
        vendor_store_id=vendor,
        statuses=status or None,
        after=after,
        max_rows=max_rows,
        order_number=number,
        purchase_order=purchase_order,
    )


@calls(orders, "cancel", grant="checkout_grant_orders", columns=_PART)
def _order_cancel(order: Order, reason: Reason) -> Statement:
    """Cancel an order: its stock is available again, and nothing of it is to be paid."""
    return OrderCalls.cancel.statement(order, reason=reason)


@calls(orders, "release", grant="checkout_grant_orders", columns=_PART)
def _order_release(line: Line, reason: Reason, qty: Quantity = None, key: ChangeKey = None) -> Statement:
    """Turn down units of a line of an order: they are available again, and their amounts come off the order."""
    return OrderCalls.release.statement(line, reason=reason, qty=qty, change_key=key)


@calls(orders, "fulfil", grant="checkout_grant_orders", columns=_PART)
def _order_fulfil(
    line: Line,
    qty: Quantity = None,
    key: ChangeKey = None,
    details: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="For the event: carrier, tracking, as a JSON object.")
    ] = None,
) -> Statement:
    """Fulfil units of a line of an order: they have left the stock."""
    given = None if details is None else json_argument("--details", details)
    return OrderCalls.fulfil.statement(line, qty=qty, change_key=key, details=given)


@calls(orders, "return", grant="checkout_grant_orders", columns=_PART)
def _order_return(
    line: Line,
    reason: Reason,
    key: Key,
    restock: Annotated[bool, typer.Option("--restock/--no-restock", help="Whether they can be sold again.")],
    qty: Quantity = None,
) -> Statement:
    """Take shipped units of a line back: their amounts come off the order."""
    return OrderCalls.return_.statement(line, reason=reason, restock=restock, change_key=key, qty=qty)


@calls(orders, "decide", grant="checkout_grant_orders", columns=_PART)
def _order_decide(
    order: Order,
    decisions: Annotated[
        str | None,
        typer.Option(
            metavar="JSON|@FILE",
            help="What is not accepted whole: an array of objects with line_item_id, accept_qty and reason.",
        ),
    ] = None,
    key: ChangeKey = None,
) -> Statement:
    """Answer an order for its vendor: accept it, whole or in part, or refuse it."""
    given = None if decisions is None else json_argument("--decisions", decisions)
    return OrderCalls.decide.statement(order, given, change_key=key)


@calls(orders, "adjust", grant="checkout_grant_orders", columns=_PART)
def _order_adjust(
    order: Order,
    cents: Annotated[int, cents_option("Minor units that are added: 949 for 9.49; below 0 a credit.")],
    reason: Reason,
    key: Key,
) -> Statement:
    """Add a surcharge to what an order comes to, or a credit."""
    return OrderCalls.adjust.statement(order, cents, reason=reason, change_key=key)


@calls(orders, "history", grant="checkout_grant_orders", columns=_STEP)
def _order_history(
    order: Order,
    buyer: ItsBuyer = None,
    vendor: ItsVendor = None,
) -> Statement:
    """Show what happened to an order since its checkout, payments too."""
    history: Statement = f"select order_changes_list(%s::uuid, null, {_ITS_VENDOR})", (order, order)
    if buyer is not None or vendor is not None:
        history = OrderCalls.history.statement(order, buyer_store_id=buyer, vendor_store_id=vendor)
    shown = _order_show(order, buyer, vendor)
    return f"select ({history[0]}), ({shown[0]})::json ->> 'currency' as currency", (*history[1], *shown[1])


@calls(orders, "extend", grant="checkout_grant_orders")
def _order_extend(
    order: Order,
    until: Annotated[datetime, moment_option("The new deadline (UTC): 2026-12-31T18:00:00.")],
) -> Statement:
    """Give an order more time to be paid."""
    return OrderCalls.extend.statement(order, until)
