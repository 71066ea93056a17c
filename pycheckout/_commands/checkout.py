"""`pycheckout execute`, `show`, `demo`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import _conninfo
from .._checkout import AdTokenPolicy, CheckoutCalls, ReservationPolicy
from .._money import amount, money
from .._types import ActiveCart, CheckoutResult, build
from ._app import CHECKOUT, Command, app
from ._options import Database, Json, Schema, json_argument, time_option
from ._places import in_market
from ._printing import lacking, telling, wide_console
from ._session import checkout, connected

Buyer = Annotated[str, typer.Option(metavar="UUID", help="The buyer's store.")]
Cart = Annotated[str, typer.Option(metavar="UUID", help="The cart.")]

# Which of the two it is, the answer does not tell.
_UNDATED = "without a date in valid_until: valid only if that is after the year 9999, not if it is null"


@app.command(cls=Command, rich_help_panel=CHECKOUT)
@in_market
def execute(
    buyer: Buyer,
    cart: Cart,
    key: Annotated[str, typer.Option(metavar="TEXT", help="The idempotency key: the same for each retry.")],
    address: Annotated[str, typer.Option(metavar="JSON|@FILE", help="The shipping address; @- reads standard input.")],
    payment_method: Annotated[str, typer.Option(metavar="NAME", help="cash, ach, or what the database has.")],
    database: Database = "",
    schema: Schema = None,
    shipping_line: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="An object of code, title and price_cents.")
    ] = None,
    ad_token_policy: Annotated[
        str, typer.Option(metavar="drop|error", help="Leave bad ad tokens out, or refuse the cart.")
    ] = "drop",
    reservation_policy: Annotated[
        str, typer.Option(metavar="partial|vendor|all", help="What a line that is short of stock rejects.")
    ] = "partial",
    billing_address: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="The address of the invoice, if it is another.")
    ] = None,
    purchase_order: Annotated[str | None, typer.Option(metavar="TEXT", help="The buyer's own number.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="An object to note on the orders.")] = None,
    expires_in: Annotated[timedelta | None, time_option("How long orders wait to be paid for.")] = None,
    as_json: Json = False,
) -> None:
    """Check a cart out, or replay what it became."""
    with connected(database, schema, as_json, grant="checkout_grant") as conn:
        answer = CheckoutCalls.execute.answer(
            checkout(conn, schema),
            buyer_store_id=buyer,
            cart_id=cart,
            idempotency_key=key,
            shipping_address=json_argument("--address", address),
            payment_method=payment_method,
            shipping_line=None if shipping_line is None else json_argument("--shipping-line", shipping_line),
            ad_token_policy=cast(AdTokenPolicy, ad_token_policy),
            reservation_policy=cast(ReservationPolicy, reservation_policy),
            billing_address=None if billing_address is None else json_argument("--billing-address", billing_address),
            purchase_order=purchase_order,
            metadata=None if metadata is None else json_argument("--metadata", metadata),
            expires_in=expires_in,
        )
    _show(answer, as_json)


@app.command(cls=Command, rich_help_panel=CHECKOUT)
@in_market
def show(
    cart: Annotated[str, typer.Argument(metavar="CART", help="The id of a cart.")],
    database: Database = "",
    schema: Schema = None,
    buyer: Annotated[
        str | None, typer.Option(metavar="UUID", help="The buyer's store, if it must be this one's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what became of a cart."""
    with connected(database, schema, as_json, grant="checkout_grant") as conn:
        if buyer is None:
            owner = "select buyer_store_id::text as buyer from checkout_overview where cart_id = %s::text::uuid"
            with _conninfo.in_schema(conn, schema):
                buyer = (conn.execute(owner, (cart,)).fetchone() or {"buyer": None})["buyer"]
        calls = checkout(conn, schema)
        answer = CheckoutCalls.result.answer(calls, buyer_store_id=cast(str, buyer), cart_id=cart)
    _show(answer, as_json)


@app.command(cls=Command, rich_help_panel=CHECKOUT)
def demo() -> None:
    """Check real baskets out on a PostgreSQL that comes and goes with it. Needs the extra `demo`."""
    try:
        from ..demo.__main__ import main
    except ModuleNotFoundError as exc:
        raise lacking("the demo", exc, "demo") from exc
    main()


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    with telling():
        _print(answer, as_json)


def _print(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    console = wide_console()
    if answer["status"] == "converted":
        _show_result(console, build(CheckoutResult, answer))
    else:
        cart = build(ActiveCart, answer)
        until = _UNDATED if cart.valid_until is None else f"valid until {cart.valid_until:%Y-%m-%d %H:%M:%S %Z}"
        total = money(cart.totals.quoted.total_cents, cart.currency)
        console.print(f"cart {cart.cart_id} is {cart.status}, quoted {total}, {until}", markup=False)
        for vendor in cart.below_minimum:
            least = money(vendor.minimum_cents, cart.currency)
            found = amount(vendor.merchandise_cents, cart.currency)
            console.print(f"vendor {vendor.vendor_store_id} is below its minimum: {found} of {least}", style="red")


def _show_result(console: Console, result: CheckoutResult) -> None:
    replayed = ", replayed" if result.replayed else ""
    console.print(f"cart {result.cart_id}: [bold]{escape(result.outcome)}[/]{replayed}")
    console.print(f"checkout group {result.checkout_group_id}")
    unit = escape(result.currency)
    table = Table(
        "orders and lines", "qty", f"quoted ({unit})", f"total ({unit})", "status", "reason", box=None, pad_edge=False
    )
    for column in table.columns[1:4]:
        column.justify = "right"
    for order in result.vendor_orders:
        total = amount(order.total_cents, result.currency)
        number = "" if order.order_number is None else f", number {order.order_number}"
        named = f"[bold]order {order.order_id}{number}[/]"
        table.add_row(named, "", "", f"[bold]{total}[/]", escape(order.status), "")
        for item in order.items:
            rejected = item.status == "rejected"
            table.add_row(
                f"  {escape(item.name)}",
                f"{item.qty}",
                amount(item.total_cents, result.currency),
                amount(0 if rejected else item.total_cents, result.currency),
                escape(item.status),
                escape(item.notes or ""),
                style="red" if rejected else "dim",
            )
        if order.transport_fee_cents:
            fee = amount(order.transport_fee_cents, result.currency)
            table.add_row("  shipping", "", "", fee, "", "", style="dim")
        if order.tax_cents:
            tax = amount(order.tax_cents, result.currency)
            table.add_row("  tax, included" if order.tax_included else "  tax", "", "", tax, "", "", style="dim")
    console.print(table)
    for vendor in result.rejected_vendors:
        console.print(f"vendor {vendor.vendor_store_id} rejected: {escape(vendor.reason)}", style="red")
    quoted, confirmed = result.totals.quoted.total_cents, result.totals.confirmed.total_cents
    console.print(f"quoted {money(quoted, result.currency)}, confirmed {money(confirmed, result.currency)}")
