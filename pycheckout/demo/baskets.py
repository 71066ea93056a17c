"""The sample's baskets as quotes for `cart_put`, and the shelf that they are bought from.

A household is a buyer, a manufacturer a vendor. Amounts are facts of the data and are not recomputed: a line's total is
what the store got, its discounts are the loyalty discount and the store's match of a coupon, and both together its
subtotal. A manufacturer's coupon comes off that (the manufacturer makes it good to the store), so it is that vendor's
promotion: one that is larger than its own line takes from the vendor's other lines. Unit prices need not divide evenly.

What cannot be ordered is quoted as what it is: a line with quantity 0 has the status invalid, and so has a line of no
known manufacturer, in a vendor group that is invalid. A coupon for a line with quantity 0 is left out.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from uuid import UUID, uuid5

Basket = dict[str, Any]

_NAMESPACE = UUID("5f1c6c7e-3d0b-4d52-9a2e-0c3f3a1b7d10")


def baskets() -> list[Basket]:
    """The sample, in the order of its file."""
    text = files(__package__).joinpath("baskets.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def id_of(kind: str, *key: object) -> UUID:
    """An id that is the same in every run."""
    return uuid5(_NAMESPACE, ":".join([kind, *map(str, key)]))


def quote(basket: Basket, valid_until: str, ad_tokens: list[str]) -> dict[str, Any]:
    """One basket as the argument of `cart_put`."""
    by_vendor: defaultdict[int | None, list[tuple[int, Basket]]] = defaultdict(list)
    for position, line in enumerate(basket["lines"]):
        by_vendor[line["vendor"]].append((position, line))
    return {
        "id": str(id_of("cart", basket["basket"])),
        "buyer_store_id": str(id_of("buyer", basket["buyer"])),
        "currency": "USD",
        "valid_until": valid_until,
        "ad_tokens": ad_tokens,
        "vendor_groups": [_group(basket, vendor, lines) for vendor, lines in by_vendor.items()],
    }


def _group(basket: Basket, vendor: int | None, lines: list[tuple[int, Basket]]) -> dict[str, Any]:
    items = [_item(basket, position, line) for position, line in lines]
    ordered = [item for item in items if item["status"] == "ok"]
    coupons = sum(line["coupon_cents"] for _, line in lines if line["quantity"] > 0)
    return {
        "id": str(id_of("group", basket["basket"], vendor)),
        "vendor_store_id": str(id_of("vendor", vendor)),
        "status": "invalid" if vendor is None else "ok",
        "subtotal_cents": sum(item["line_subtotal_cents"] for item in ordered),
        "total_cents": sum(item["line_total_cents"] for item in ordered) - coupons,
        "promo": {"code": "COUPON", "amount_cents": coupons} if coupons else None,
        "warnings": [{"type": "no_vendor", "message": "No manufacturer is known."}] if vendor is None else [],
        "items": items,
    }


def _item(basket: Basket, position: int, line: Basket) -> dict[str, Any]:
    discounts = line["loyalty_discount_cents"] + line["coupon_match_cents"]
    subtotal = line["paid_cents"] + discounts
    orderable = line["quantity"] > 0 and line["vendor"] is not None
    return {
        "id": str(id_of("item", basket["basket"], position)),
        "product_id": str(id_of("product", line["product"])),
        "title": line["name"] or "",
        "category": line["category"] or "",
        "unit": line["unit"] or "",
        "quantity": line["quantity"],
        "unit_price_cents": subtotal // line["quantity"] if line["quantity"] else 0,
        "line_subtotal_cents": subtotal,
        "line_discounts_cents": discounts,
        "line_total_cents": line["paid_cents"],
        "applied_volume_discount": {"label": "Loyalty", "amount_cents": discounts} if discounts else None,
        "status": "ok" if orderable else "invalid",
        "warnings": [] if line["quantity"] else [{"type": "no_quantity", "message": "Nothing was bought of it."}],
    }


def shelf(sample: list[Basket]) -> Iterator[tuple[UUID, int]]:
    """Units on the shelf by product: what is asked for, but for one product in nine, which has half of that."""
    wanted: Counter[int] = Counter()
    for basket in sample:
        for line in basket["lines"]:
            wanted[line["product"]] += line["quantity"]
    for product, units in sorted(wanted.items()):
        yield id_of("product", product), units // 2 if product % 9 == 0 else units


def hottest_products(sample: list[Basket], count: int) -> list[UUID]:
    """The products that most baskets want."""
    seen = Counter(line["product"] for basket in sample for line in basket["lines"])
    return [id_of("product", product) for product, _ in seen.most_common(count)]
