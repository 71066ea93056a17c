"""The rules of a checkout in Python, for the programs that do it client-side (psycopg_programs.py, orm_programs.py).

The same checks and the same figures as db/functions, for carts without ad tokens, products in one slot, and the policy
`partial`. Carts, groups, items and stock are whatever has the attributes: named tuples, or the ORM's objects.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

Row = dict[str, Any]


def uuid7() -> UUID:
    """A time-ordered id (RFC 9562 5.7), as the function makes them."""
    random = int.from_bytes(os.urandom(10)) & ~(0xF << 76 | 0x3 << 62)
    return UUID(int=time.time_ns() // 1_000_000 << 80 | 0x7 << 76 | 0x2 << 62 | random)


class Refused(Exception):
    """The checkout is refused, with the code that the function would raise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    buyer_store_id: UUID
    cart_id: UUID
    idempotency_key: str
    shipping_address: Mapping[str, Any]
    payment_method: str

    def hash(self) -> bytes:
        text = json.dumps([str(self.cart_id), self.shipping_address, self.payment_method], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()

    def check(self) -> None:
        address = self.shipping_address
        if not re.fullmatch("[!-~]{1,255}", self.idempotency_key) or self.payment_method not in ("cash", "ach"):
            raise Refused("OC005")
        if any(not str(address.get(field) or "").strip() for field in ("line1", "city", "country")):
            raise Refused("OC005")
        if any(not isinstance(value, str) or len(value) > 500 for value in address.values()):
            raise Refused("OC005")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A cart that passed every check."""

    cart: Any
    groups: list[Any]
    items: list[Any]
    ordered: dict[UUID, list[Any]]  # by vendor, in the order of the orders; items by id

    def wanted(self) -> dict[UUID, list[Any]]:
        """Items by product, in the order in which stock is locked."""
        by_product: dict[UUID, list[Any]] = defaultdict(list)
        for item in sorted((item for items in self.ordered.values() for item in items), key=lambda item: item.id):
            by_product[item.product_id].append(item)
        return dict(sorted(by_product.items()))


def check(cart: Any, groups: Iterable[Any], items: Iterable[Any], now: datetime) -> Checked:
    groups, items = list(groups), list(items)
    if cart.status != "active":
        raise Refused("OC002")
    if cart.valid_until <= now:
        raise Refused("OC003")
    by_vendor = {group.vendor_store_id: group for group in groups}
    ordered: dict[UUID, list[Any]] = defaultdict(list)
    for item in items:
        if item.status != "ok":
            continue
        group = by_vendor.get(item.vendor_store_id)
        if group is None:
            raise Refused("OC007")
        if group.status != "ok":
            continue
        negative = item.unit_price_cents < 0 or item.line_subtotal_cents < 0 or total(item) < 0
        if item.vendor_store_id == cart.buyer_store_id or item.quantity < 1 or negative:
            raise Refused("OC007")
        if item.line_total_cents is not None and (
            (item.line_discounts_cents or 0) < 0 or total(item) != item.line_subtotal_cents - discount(item)
        ):
            raise Refused("OC007")
        ordered[item.vendor_store_id].append(item)
    for vendor, lines in ordered.items():
        group = by_vendor[vendor]
        subtotal = sum(item.line_subtotal_cents for item in lines)
        if group.subtotal_cents != subtotal or group.total_cents < 0 or promotion(group, lines) < 0:
            raise Refused("OC007")
    good = [group for group in groups if group.status == "ok"]
    if any(group.subtotal_cents or group.total_cents for group in good if group.vendor_store_id not in ordered):
        raise Refused("OC007")
    subtotal, due = (sum(getattr(group, name) for group in good) for name in ("subtotal_cents", "total_cents"))
    if good and (cart.subtotal_cents, cart.discounts_cents, cart.total_cents) != (subtotal, subtotal - due, due):
        raise Refused("OC007")
    if not ordered:
        raise Refused("OC004")
    for lines in ordered.values():
        lines.sort(key=lambda item: item.id)
    return Checked(cart=cart, groups=groups, items=items, ordered=dict(sorted(ordered.items())))


def discount(item: Any) -> int:
    return 0 if item.line_total_cents is None else item.line_discounts_cents or 0


def total(item: Any) -> int:
    return item.line_subtotal_cents if item.line_total_cents is None else item.line_total_cents


def promotion(group: Any, lines: list[Any]) -> int:
    return group.subtotal_cents - group.total_cents - sum(discount(item) for item in lines)


def reserve(wanted: Mapping[UUID, list[Any]], available: Mapping[UUID, int]) -> tuple[dict[UUID, int], set[UUID]]:
    """Units to take of each product, and the items that fall short: all or nothing an item."""
    taken: dict[UUID, int] = {}
    short: set[UUID] = set()
    for product, items in wanted.items():
        left = available.get(product, 0)
        for item in items:
            if item.quantity > left:
                short.add(item.id)
            else:
                left -= item.quantity
                taken[product] = taken.get(product, 0) + item.quantity
    return taken, short


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What a checkout writes, besides stock and the key."""

    cart: Row
    orders: list[Row]
    lines: list[Row]
    intents: list[Row]
    events: list[Row]


_CAPPED = {
    "type": "promo_capped",
    "message": "The promotion was larger than what is left of this order and was reduced to it.",
}
_SHORT = {"type": "insufficient_inventory", "message": "Rejected: there was not enough stock."}


def rows(checked: Checked, request: Request, short: set[UUID], now: datetime) -> Rows:
    cart, anchor = checked.cart, checked.cart.checkout_group_id or uuid7()
    stamps = {"created_at": now, "updated_at": now}
    by_vendor = {group.vendor_store_id: group for group in checked.groups}
    orders, lines, intents = [], [], []
    for vendor, items in checked.ordered.items():
        group = by_vendor[vendor]
        kept = [item for item in items if item.id not in short]
        kept_total, promo = sum(map(total, kept)), promotion(group, items)
        capped = promo > kept_total
        promo = min(promo, kept_total)
        amount = kept_total - promo
        orders.append(
            {
                "id": group.id,
                "cart_id": cart.id,
                "checkout_group_id": anchor,
                "buyer_store_id": cart.buyer_store_id,
                "vendor_store_id": vendor,
                "status": "created_pending" if kept else "rejected",
                "currency": cart.currency,
                "shipping_address": dict(request.shipping_address),
                "payment_method": request.payment_method,
                "subtotal_cents": sum(item.line_subtotal_cents for item in kept),
                "discounts_cents": sum(map(discount, kept)) + promo,
                "promo_discount_cents": promo,
                "tax_cents": 0,
                "transport_fee_cents": 0,
                "total_cents": amount,
                "balance_due_cents": amount,
                "promo": group.promo,
                "warnings": (group.warnings or []) + [_CAPPED] * capped,
                **stamps,
            }
        )
        lines += [_line(item, group, item.id in short, stamps) for item in items]
        intents.append(
            {
                "id": group.id,
                "order_id": group.id,
                "method": request.payment_method,
                "amount_cents": amount,
                **stamps,
            }
        )
    cart_row = {
        "shipping_address": dict(request.shipping_address),
        "payment_method": request.payment_method,
        "converted_at": now,
        "status": "converted",
        "checkout_group_id": anchor,
        "updated_at": now,
    }
    events = _events(checked, request, anchor, orders, lines, now)
    return Rows(cart=cart_row, orders=orders, lines=lines, intents=intents, events=events)


def _line(item: Any, group: Any, short: bool, stamps: Row) -> Row:
    return {
        "id": item.id,
        "order_id": group.id,
        "cart_item_id": item.id,
        "product_id": item.product_id,
        "name": item.title or str(item.product_id),
        "category": item.category,
        "unit": item.unit,
        "unit_price_cents": item.unit_price_cents,
        "qty": item.quantity,
        "moq": item.moq,
        "max_qty": item.max_qty,
        "line_subtotal_cents": item.line_subtotal_cents,
        "discount_cents": discount(item),
        "total_cents": total(item),
        "reserved_qty": 0 if short else item.quantity,
        "released_qty": item.quantity if short else None,
        "status": "rejected" if short else "pending",
        "notes": "insufficient_inventory" if short else None,
        "warnings": (item.warnings or []) + [_SHORT] * short,
        "applied_volume_discount": item.applied_volume_discount,
        **stamps,
    }


def _events(
    checked: Checked, request: Request, anchor: UUID, orders: list[Row], lines: list[Row], now: datetime
) -> list[Row]:
    cart = checked.cart
    rejected = _rejected_vendors(checked, orders, lines)
    short = sum(line["status"] == "rejected" for line in lines)
    base = {"checkout_group_id": str(anchor), "cart_id": str(cart.id), "buyer_store_id": str(cart.buyer_store_id)}
    created = base | {
        "vendor_store_ids": [str(order["vendor_store_id"]) for order in orders],
        "vendor_order_ids": [str(order["id"]) for order in orders],
        "rejected_vendors": rejected,
    }
    by_order: dict[UUID, list[Row]] = defaultdict(list)
    for line in lines:
        by_order[line["order_id"]].append(
            {
                "line_item_id": str(line["id"]),
                "product_id": str(line["product_id"]),
                "qty": line["qty"],
                "total_cents": line["total_cents"],
                "status": line["status"],
                "attributed_token_id": None,
            }
        )
    amounts = ("subtotal_cents", "discounts_cents", "total_cents")
    converted = base | {
        "outcome": "rejected" if short == len(lines) else "partial" if short or rejected else "complete",
        "currency": cart.currency,
        "payment_method": request.payment_method,
        "totals": {
            "quoted": {name: getattr(cart, name) for name in amounts},
            "confirmed": {name: sum(order[name] for order in orders) for name in amounts},
        },
        "vendor_orders": [
            {
                "order_id": str(order["id"]),
                "vendor_store_id": str(order["vendor_store_id"]),
                "status": order["status"],
                **{name: order[name] for name in amounts},
                "attributed_token_id": None,
                "items": by_order[order["id"]],
            }
            for order in orders
        ],
        "attribution": {"token_ids": [], "dropped": {}},
    }
    occurred_at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    events = []
    for event_type, data in {"checkout.vendor_orders_created": created, "checkout.converted": converted}.items():
        event_id = uuid7()
        envelope = {"version": 1, "event_id": str(event_id), "occurred_at": occurred_at, "type": event_type}
        events.append(
            {
                "id": event_id,
                "event_type": event_type,
                "aggregate_type": "checkout_group",
                "aggregate_id": anchor,
                "payload": envelope | {"data": data},
                "created_at": now,
                "next_attempt_at": now,
            }
        )
    return events


def _rejected_vendors(checked: Checked, orders: list[Row], lines: list[Row]) -> list[Row]:
    kept = {line["order_id"] for line in lines if line["status"] != "rejected"}
    reasons = {order["vendor_store_id"]: "insufficient_inventory" for order in orders if order["id"] not in kept}
    ordered = {order["vendor_store_id"] for order in orders}
    for group in checked.groups:
        if group.vendor_store_id not in ordered:
            reasons[group.vendor_store_id] = "no_eligible_items" if group.status == "ok" else "vendor_invalid"
    for item in checked.items:
        if item.vendor_store_id not in ordered:
            reasons.setdefault(item.vendor_store_id, "no_eligible_items")
    return [{"vendor_store_id": str(vendor), "reason": reason} for vendor, reason in sorted(reasons.items())]
