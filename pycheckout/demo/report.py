"""What the demo shows: checkouts in full, a replay, events, what became of orders, and the sums of the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pycheckout import AttributedToken, CheckoutError, CheckoutResult, Order
from pycheckout._money import amount, money

from .baskets import Basket


def short(value: UUID | str) -> str:
    """Enough of an id to tell it from its neighbours."""
    return f"…{str(value)[-6:]}"


def odd_lines(console: Console, sample: list[Basket]) -> None:
    """Say what is in the sample that nobody can order."""
    lines = [line for basket in sample for line in basket["lines"]]
    empty = sum(not line["quantity"] for line in lines)
    nameless = sum(line["vendor"] is None for line in lines)
    coupons = sum(bool(line["coupon_cents"]) for line in lines if not line["quantity"])
    hopeless = sum(all(not line["quantity"] or line["vendor"] is None for line in b["lines"]) for b in sample)
    console.print(
        f"  {empty} lines have quantity 0, and {nameless} of these no known manufacturer: quoted with status invalid,\n"
        f"  so that nobody can order them. {coupons} coupons are for such lines, and left out.\n"
        f"  {hopeless} baskets hold nothing else, and will be refused."
    )


def most_telling(results: list[CheckoutResult]) -> CheckoutResult:
    """A result that has something of everything: rejected lines, attribution, several vendors, and is not too long."""

    def tells(result: CheckoutResult) -> tuple[int, int]:
        items = [item for order in result.vendor_orders for item in order.items]
        features = (
            any({item.status for item in order.items} == {"pending", "rejected"} for order in result.vendor_orders),
            any(item.attributed_token for item in items),
            any(order.attributed_token for order in result.vendor_orders),
            any(order.promo for order in result.vendor_orders),
            len(result.vendor_orders) > 1,
        )
        return sum(features) if len(items) < 14 else 0, -len(items)

    return max(results, key=tells)


def one_result(console: Console, result: CheckoutResult) -> None:
    console.print(
        f"cart {short(result.cart_id)}: {result.outcome}, {len(result.vendor_orders)} vendor orders in checkout group"
        f" {short(result.checkout_group_id)}"
    )
    table = Table("Order and lines", "Qty", "Subtotal", "Discount", "Total", "Status", "Ad", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = True
    for column in table.columns[1:5]:
        column.justify = "right"

    def cells(*cents: int | None) -> list[str]:
        return ["" if figure is None else amount(figure, result.currency) for figure in cents]

    for order in result.vendor_orders:
        subtotal, discounts, total = cells(order.subtotal_cents, order.discounts_cents, order.total_cents)
        label = f"[bold]{short(order.order_id)}[/] vendor {short(order.vendor_store_id)}"
        ad = _ad(order.attributed_token)
        table.add_row(label, "", subtotal, discounts, f"[bold]{total}[/]", order.status, ad)
        for item in order.items:
            rejected = item.status == "rejected"
            table.add_row(
                f"  {escape(item.name[:21])}",
                f"{item.qty}",
                *cells(item.line_subtotal_cents, item.discount_cents, item.total_cents),
                str(item.notes) if rejected else item.status,
                _ad(item.attributed_token),
                style="red" if rejected else "dim",
            )
        if order.promo is not None:
            label = f"  promo {escape(str(order.promo.code))}"
            # Its share in this order: as quoted, unless so much was rejected that less is left to take it from.
            kept = sum(item.discount_cents for item in order.items if item.status != "rejected")
            table.add_row(label, "", "", *cells(order.discounts_cents - kept), style="dim")
        if order.transport_fee_cents:
            title = order.vendor_shipping_line.title if order.vendor_shipping_line else ""
            table.add_row(
                f"  shipping {escape(str(title))}", "", "", "", *cells(order.transport_fee_cents), style="dim"
            )
        if order.tax_cents:
            table.add_row("  tax", "", "", "", *cells(order.tax_cents), style="dim")
        if (intent := order.payment_intent) is not None:
            label = f"  payment intent {short(intent.payment_intent_id)}"
            status = f"{intent.status}, {intent.method}"
            table.add_row(label, "", "", "", *cells(intent.amount_cents), status, style="dim")
    console.print(table)
    for vendor in result.rejected_vendors:
        console.print(f"vendor {short(vendor.vendor_store_id)} rejected: {vendor.reason}", style="red")
    totals = result.totals
    console.print(
        f"quoted {money(totals.quoted.total_cents, result.currency)},"
        f" confirmed {money(totals.confirmed.total_cents, result.currency)}"
    )


def _ad(token: AttributedToken | None) -> str:
    return f"{token.event_type} {short(token.ad_id)}" if token else ""


def replays(console: Console, first: CheckoutResult, same_key: CheckoutResult, other_key: CheckoutResult) -> None:
    console.rule("The same cart again")
    for how, second in (("a retry with the same key", same_key), ("a second try with another key", other_key)):
        same = second == replace(first, replayed=True)
        console.print(f"{how}: replayed {second.replayed}, same ids and amounts {same}")


def events(console: Console, conn: psycopg.Connection, result: CheckoutResult) -> None:
    console.rule("Its two outbox events")
    query = "select payload from outbox_events where aggregate_id = %s order by id"
    for (payload,) in conn.execute(query, (result.checkout_group_id,)).fetchall():
        console.print(f"[bold]{payload['type']}[/] version {payload['version']}, event {short(payload['event_id'])}")
        for name, value in _flat(payload["data"]):
            console.print(f"  {name:32} {value}", highlight=False, markup=False)


def _flat(data: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """A line a value; of a list, how long it is."""
    for name, value in data.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{path}{name}.")
        elif isinstance(value, list | dict):
            yield path + name, f"{len(value)}"
        else:
            yield path + name, f"{value}"


def became(console: Console, what: str, orders: Iterable[Order]) -> None:
    """A step, and where it left these orders."""
    console.print(f"{what}:", highlight=False)
    for order in orders:
        paid = order.payment_intent.status if order.payment_intent else "no intent"
        total, due, back = (
            amount(cents, order.currency or "")
            for cents in (order.total_cents, order.balance_due_cents, order.refund_due_cents or 0)
        )
        where = f"[bold]{short(order.order_id)}[/] {order.status}, {paid}"
        console.print(f"  {where}: total {total}, due {due}, to be given back {back}")


def totals(
    console: Console,
    conn: psycopg.Connection,
    results: list[CheckoutResult],
    refused: list[CheckoutError],
    seconds: float,
) -> None:
    console.rule("The run")
    orders = [order for result in results for order in result.vendor_orders]
    items = [item for order in orders for item in order.items]
    reasons = Counter(vendor.reason for result in results for vendor in result.rejected_vendors)
    outcomes: Counter[str] = Counter(result.outcome for result in results)
    query = (
        "select reason, sum(n::int)::int from outbox_events, jsonb_each_text(payload #> %s) as e (reason, n) group by 1"
    )
    dropped: Counter[str] = Counter(dict(conn.execute(query, (["data", "attribution", "dropped"],)).fetchall()))
    tokens = [order.attributed_token for order in orders] + [item.attributed_token for item in items]
    attributed = sum(token is not None for token in tokens)
    table = Table(show_header=False, box=None, pad_edge=False)
    for name, value in (
        ("carts checked out", f"{len(results)} ({_counts(outcomes)})"),
        ("carts refused", f"{len(refused)} ({_counts(Counter(error.code for error in refused))})"),
        ("vendor orders, payment intents", f"{len(orders):,}, {sum(o.payment_intent is not None for o in orders):,}"),
        ("lines ordered", f"{sum(item.status != 'rejected' for item in items):,}"),
        ("lines rejected, no stock", f"{sum(item.status == 'rejected' for item in items):,}"),
        *(("vendors rejected", f"{count:,} {reason}") for reason, count in reasons.most_common()),
        ("orders and lines attributed to an ad", f"{attributed:,}"),
        ("ad tokens dropped", _counts(dropped)),
        ("quoted", money(sum(result.totals.quoted.total_cents for result in results))),
        ("confirmed", money(sum(result.totals.confirmed.total_cents for result in results))),
        ("time", f"{seconds:.1f} s, {len(results) / seconds:,.0f} checkouts/s from one Python process"),
    ):
        table.add_row(name, value)
    console.print(table)
    for error in refused[:1]:
        console.print(f"One of the refusals, {error.sqlstate} {error.code}:", highlight=False)
        console.print(f"  {error.message}\n  HINT: {error.hint}", highlight=False, markup=False)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counter.most_common()) or "none"


def audit(console: Console, conn: psycopg.Connection) -> bool:
    """Show what checkout_audit() finds; returns whether it is anything."""
    with conn.cursor(row_factory=dict_row) as cur:
        broken = cur.execute("select * from checkout_audit()").fetchall()
    console.print(f"checkout_audit(): {len(broken)} broken invariants", style="red" if broken else "green")
    for row in broken[:20]:
        console.print(row)
    return bool(broken)
