"""What orders owe beside their lines, and what becomes of them: one basket, quoted with what the sample does not have.

Tax, shipping and minimum are made up here, by the quote; all that is shown is what the database answers.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import psycopg
from rich.console import Console

from pycheckout import Checkout, CheckoutResult, Order, VendorOrder
from pycheckout._money import money

from . import report
from .baskets import Basket, id_of, quote

TAX = Decimal("0.085")
SHIPPING_CENTS = 499
MINIMUM_CENTS = 200
ADDRESS = {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "postal_code": "74103", "country": "US"}


def show(console: Console, conn: psycopg.Connection, sample: list[Basket]) -> None:
    """A basket that is paid, and given back in part; and the same once more, which nobody pays in time."""
    checkout = Checkout(conn)
    basket = next(basket for basket in sample if _tells(basket))
    for item in (item for group in _quote(basket, "shelf")["vendor_groups"] for item in group["items"]):
        checkout.stock.restock(item["product_id"], 2 * item["quantity"])

    console.rule("What else is owed")
    result = _check_out(checkout, basket, "paid", timedelta(hours=1), console)
    report.one_result(console, result)
    console.rule("What becomes of it")
    orders = _owing(result)
    _paid(console, checkout, result, orders)
    _given_back(console, checkout, orders)

    before = _available(checkout, orders)
    late = _owing(_check_out(checkout, basket, "late", timedelta(seconds=1)))
    held = _available(checkout, orders)
    _expire(checkout, len(late))
    taken, again = before - held, _available(checkout, orders) - held
    what = f"The same basket, to be paid within a second, holds {taken} units. It is not paid: {again} are there again"
    report.became(console, what, _now(checkout, late))
    for order in late:
        _capture(checkout, order, "evt_late")
    report.became(console, "Its money comes a moment too late, and is recorded", _now(checkout, late))


def _expire(checkout: Checkout, orders: int) -> None:
    """What `pycheckout expire --every 1s` does, until so many orders have ended."""
    for _ in range(100):
        orders -= checkout.orders.expire().expired
        if orders <= 0:
            return
        time.sleep(0.1)
    sys.exit("orders that nobody paid did not expire")


def _tells(basket: Basket) -> bool:
    """Whether a basket has all of it: a vendor below the minimum, one with a promotion, a line that can be parted."""
    groups = _quote(basket, "tells")["vendor_groups"]
    small = [group for group in groups if _goods(group) < MINIMUM_CENTS]
    large = [group for group in groups if group not in small]
    return (
        len(groups) == 3
        and all(item["status"] == "ok" for group in groups for item in group["items"])
        and len(small) == 1
        and any(group["promo"] for group in large)
        and any(item["quantity"] > 2 for group in large for item in group["items"])
    )


def _goods(group: dict[str, Any]) -> int:
    return sum(item["line_total_cents"] for item in group["items"])


def _quote(basket: Basket, which: str) -> dict[str, Any]:
    """The basket as another cart, with tax, shipping and a minimum."""
    cart = quote(basket, (datetime.now(UTC) + timedelta(hours=1)).isoformat(), [])
    cart["id"] = str(id_of("cart", basket["basket"], which))
    for group in cart["vendor_groups"]:
        for item in group["items"]:
            tax = (item["line_total_cents"] * TAX).to_integral_value(ROUND_HALF_UP)
            item |= {"id": None, "tax_cents": int(tax)}
        group |= {
            "id": None,
            "shipping_cents": SHIPPING_CENTS,
            "shipping_line": {"code": "route", "title": "Truck route 7"},
            "minimum_cents": MINIMUM_CENTS,
            "total_cents": group["total_cents"] + SHIPPING_CENTS + sum(item["tax_cents"] for item in group["items"]),
        }
    return cart


def _check_out(
    checkout: Checkout, basket: Basket, which: str, expires_in: timedelta, console: Console | None = None
) -> CheckoutResult:
    quoted = checkout.quotes.put(_quote(basket, which))
    if console:
        console.print(f"A basket, quoted with tax of {TAX:.1%} and {money(SHIPPING_CENTS, quoted.currency)} a parcel.")
        for vendor in quoted.below_minimum:
            goods, least = (money(cents, quoted.currency) for cents in (vendor.merchandise_cents, vendor.minimum_cents))
            console.print(
                f"vendor {report.short(vendor.vendor_store_id)} sends nothing below {least}, and here is {goods}"
            )
    return checkout.execute(
        buyer_store_id=quoted.buyer_store_id,
        cart_id=quoted.cart_id,
        idempotency_key=str(quoted.cart_id),
        shipping_address=ADDRESS,
        payment_method="ach",
        expires_in=expires_in,
    )


def _owing(result: CheckoutResult) -> list[VendorOrder]:
    return [order for order in result.vendor_orders if order.balance_due_cents]


def _now(checkout: Checkout, orders: list[VendorOrder]) -> list[Order]:
    return [checkout.orders.get(order.order_id, vendor_store_id=order.vendor_store_id) for order in orders]


def _capture(checkout: Checkout, order: VendorOrder, event: str) -> bool:
    """One event of a provider, this order's share of it; whether it had been told before."""
    recorded = checkout.payments.record(
        order.order_id,
        provider="demo",
        provider_event_id=event,
        kind="captured",
        amount_cents=order.total_cents,
        currency="USD",
    )
    return recorded.replayed


def _paid(console: Console, checkout: Checkout, result: CheckoutResult, orders: list[VendorOrder]) -> None:
    first, again = ([_capture(checkout, order, "evt_charge") for order in orders] for _ in range(2))
    charged = money(sum(order.total_cents for order in orders), result.currency)
    what = f"One charge of {charged} pays {first.count(False)} orders; told again, it pays {again.count(False)}"
    report.became(console, what, _now(checkout, orders))


def _given_back(console: Console, checkout: Checkout, orders: list[VendorOrder]) -> None:
    """Part of a line is turned down, and the provider tells that the money for it went back."""
    order = next(order for order in orders if any(item.qty > 2 for item in order.items))
    item = next(item for item in order.items if item.qty > 2)
    released = checkout.orders.release(item.line_item_id, reason="One was broken.", qty=1, change_key="broken-1")
    [line] = released.items
    what = f"{line.released_qty} of {line.qty} {item.name} is turned down, and {line.left_qty} are left"
    [now] = _now(checkout, [order])
    report.became(console, what, [now])
    checkout.payments.record(
        order.order_id,
        provider="demo",
        provider_event_id="evt_refund",
        kind="refunded",
        amount_cents=now.refund_due_cents or 0,
        currency="USD",
    )
    report.became(console, "The provider tells of the refund", _now(checkout, [order]))


def _available(checkout: Checkout, orders: list[VendorOrder]) -> int:
    products = [item.product_id for order in orders for item in order.items if item.product_id]
    return sum(level.available_qty for level in checkout.stock.levels(products).levels)
