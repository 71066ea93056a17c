"""Every field of a quote comes back from where it is read, and to the order that is made of it, by each way there."""

import re
from copy import deepcopy
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb
from test_reading_quotes import BUYER, CART, ONLY_SHOWN, QUOTE, get, put

from checks import row, values
from factories import ADDRESS

SQL = Path(__file__).parents[1] / "db" / "functions" / "cart" / "steps" / "cart_check_values.sql"
KNOWN = [
    (part, name)
    for part, name in re.findall(r"^ *\('(cart|group|item)', '\w+', '(\w+)',", SQL.read_text(), re.MULTILINE)
]

# Where the order has it: a field of the answers about orders, or in brackets a column that they do not show.
ON_THE_ORDER: dict[tuple[str, str], str] = {
    ("cart", "currency"): "[currency]",
    ("cart", "tax_included"): "tax_included",
    ("group", "id"): "order_id",
    ("group", "vendor_store_id"): "vendor_store_id",
    ("group", "subtotal_cents"): "subtotal_cents",
    ("group", "discounts_cents"): "discounts_cents",
    ("group", "promo_discount_cents"): "[promo_discount_cents]",
    ("group", "total_cents"): "total_cents",
    ("group", "promo"): "promo",
    ("group", "shipping_cents"): "transport_fee_cents",
    ("group", "shipping_tax_cents"): "shipping_tax_cents",
    ("group", "shipping_line"): "vendor_shipping_line",
    ("group", "payment_terms"): "payment_intent.payment_terms",
    ("group", "warnings"): "warnings",
    ("item", "id"): "line_item_id",
    ("item", "product_id"): "product_id",
    ("item", "title"): "name",
    ("item", "category"): "category",
    ("item", "unit"): "unit",
    ("item", "quantity"): "qty",
    ("item", "moq"): "[moq]",
    ("item", "max_qty"): "[max_qty]",
    ("item", "unit_price_cents"): "unit_price_cents",
    ("item", "line_subtotal_cents"): "line_subtotal_cents",
    ("item", "line_discounts_cents"): "discount_cents",
    ("item", "line_total_cents"): "total_cents",
    ("item", "tax_cents"): "tax_cents",
    ("item", "tax_lines"): "tax_lines",
    ("item", "applied_volume_discount"): "applied_volume_discount",
    ("item", "warnings"): "warnings",
}
# What says whether there is an order, or who may have it; sums that the order's parts make; what the checkout confirms.
OF_THE_QUOTE_ALONE = {
    *(("cart", name) for name in ("id", "buyer_store_id", "valid_until", "shipping_address", "ad_tokens")),
    *(("cart", name) for name in ("subtotal_cents", "discounts_cents", "total_cents")),
    *(("group", name) for name in ("status", "line_discounts_cents", "minimum_cents")),
    ("item", "status"),
}
SUMS = {"subtotal_cents", "discounts_cents", "total_cents"}


def filled() -> dict[str, Any]:
    """A quote of one order, whose first line has every field."""
    quote = deepcopy(QUOTE)
    [group, _] = quote["vendor_groups"]
    group["items"][0]["warnings"] = [{"type": "price_changed", "message": "Basil costs more."}]
    quote["vendor_groups"] = [group]
    quote["tax_included"], quote["ad_tokens"] = True, ["none"]
    group["discounts_cents"] = quote["discounts_cents"] = 350
    group["total_cents"] = quote["total_cents"] = 2500 - 350 + 80
    return quote


def without_what_is_owed_beside() -> dict[str, Any]:
    """The same quote without tax, shipping and terms, of which orders are made in a statement of their own."""
    quote = filled()
    [group] = quote["vendor_groups"]
    quote["tax_included"] = None
    for name in ("shipping_cents", "shipping_tax_cents", "shipping_line", "minimum_cents", "payment_terms"):
        group[name] = None
    for item in group["items"]:
        item["tax_cents"] = item["tax_lines"] = None
    group["total_cents"] = quote["total_cents"] = 2500 - 350
    return quote


def parts(quote: dict[str, Any]) -> dict[str, dict[str, Any]]:
    [group] = quote["vendor_groups"]
    return {"cart": quote, "group": group, "item": group["items"][0]}


def test_the_quote_of_this_file_has_every_field():
    """Else a field that is lost would not be missed here."""
    assert len(KNOWN) == len(set(KNOWN)) > 35
    assert {(part, name) for part, name in KNOWN if not parts(filled())[part].get(name)} == set()
    assert set(KNOWN) == ON_THE_ORDER.keys() | OF_THE_QUOTE_ALONE
    assert not ON_THE_ORDER.keys() & OF_THE_QUOTE_ALONE


def test_what_is_read_has_every_field_and_can_be_put_again(db):
    quote = filled()
    put(db, quote)
    del quote["ad_tokens"]  # which are shown to nobody
    for _ in range(2):
        shown = {name: value for name, value in get(db).items() if name not in ONLY_SHOWN}
        assert shown == quote
        put(db, shown)


def found(where: str, shown: dict[str, Any], stored: dict[str, Any]) -> Any:
    if where.startswith("["):
        return stored[where.strip("[]")]
    for name in where.split("."):
        shown = shown[name]
    return shown


@pytest.mark.parametrize("short", [False, True], ids=["whole", "short"])
@pytest.mark.parametrize("make", [without_what_is_owed_beside, filled])
def test_every_field_comes_to_the_order(db, add_stock, make, short):
    """Also where a line is rejected: an order is then made in the statement that reckons anew."""
    quote = make()
    put(db, quote)
    for item in quote["vendor_groups"][0]["items"]:
        add_stock(UUID(item["product_id"]), 0 if short and item["title"] == "Mint" else 100)

    [result] = values(db, "select checkout_execute(%s, %s, 'k', %s, 'ach')", BUYER, CART, Jsonb(ADDRESS))
    [again] = values(db, "select checkout_result(%s, %s)", BUYER, CART)
    order_id = quote["vendor_groups"][0]["id"]
    [read] = values(db, "select order_get(%s, buyer_store_id => %s)", order_id, BUYER)
    line = row(
        db, "select to_jsonb(own) as line from order_line_items as own where id = %s", parts(quote)["item"]["id"]
    )
    order = row(db, "select to_jsonb(own) as own from vendor_orders as own where id = %s", order_id)

    assert result["outcome"] == ("partial" if short else "complete")
    for order_shown in (result["vendor_orders"][0], again["vendor_orders"][0], read):
        for (part, name), where in ON_THE_ORDER.items():
            value = parts(quote)[part][name]
            if value is None or (short and part == "group" and name in SUMS):
                continue
            shown = order_shown["items"][0] if part == "item" else order_shown
            assert found(where, shown, line["line"] if part == "item" else order["own"]) == value, (part, name)
