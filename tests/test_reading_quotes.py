"""cart_get, and what checkout_result and cart_put answer of a quote: its groups and items, as cart_put takes them."""

import json
import time
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from checks import refused, row, values
from factories import ADDRESS

BUYER, CART = UUID(int=1), UUID(int=2)
ONLY_SHOWN = {"status", "checkout_group_id", "created_at", "updated_at"}

QUOTE: dict[str, Any] = {
    "id": str(CART),
    "buyer_store_id": str(BUYER),
    "currency": "USD",
    "valid_until": "2999-01-01T00:00:00.500000Z",
    "shipping_address": ADDRESS,
    "subtotal_cents": 2500,
    "discounts_cents": 350,
    "total_cents": 2387,
    "tax_included": False,
    "vendor_groups": [
        {
            "id": str(UUID(int=11)),
            "vendor_store_id": str(UUID(int=31)),
            "status": "ok",
            "subtotal_cents": 2500,
            "discounts_cents": 350,
            "line_discounts_cents": 250,
            "promo_discount_cents": 100,
            "total_cents": 2387,
            "promo": {"code": "SPRING", "amount_cents": 100},
            "shipping_cents": 80,
            "shipping_tax_cents": 7,
            "shipping_line": {"code": "van", "title": "By van"},
            "minimum_cents": 1000,
            "payment_terms": {"code": "net30", "net_days": 30},
            "warnings": [{"type": "price_changed", "message": "Basil costs more."}],
            "items": [
                {
                    "id": str(UUID(int=21)),
                    "product_id": str(UUID(int=41)),
                    "title": "Basil",
                    "category": "herbs",
                    "unit": "bunch",
                    "quantity": 5,
                    "moq": 2,
                    "max_qty": 9,
                    "unit_price_cents": 400,
                    "line_subtotal_cents": 2000,
                    "line_discounts_cents": 250,
                    "line_total_cents": 1750,
                    "tax_cents": 150,
                    "tax_lines": [{"code": "state", "title": "State", "rate": "0.0857", "amount_cents": 150}],
                    "applied_volume_discount": {"label": "5 for less", "amount_cents": 250},
                    "warnings": [],
                    "status": "ok",
                },
                {
                    "id": str(UUID(int=22)),
                    "product_id": str(UUID(int=42)),
                    "title": "Mint",
                    "category": "",
                    "unit": "",
                    "quantity": 1,
                    "moq": 1,
                    "max_qty": None,
                    "unit_price_cents": 500,
                    "line_subtotal_cents": 500,
                    "line_discounts_cents": None,
                    "line_total_cents": None,
                    "tax_cents": None,
                    "tax_lines": None,
                    "applied_volume_discount": None,
                    "warnings": [],
                    "status": "ok",
                },
                {
                    "id": str(UUID(int=23)),
                    "product_id": str(UUID(int=43)),
                    "title": "Dill",
                    "category": "",
                    "unit": "",
                    "quantity": 7,
                    "moq": 1,
                    "max_qty": None,
                    "unit_price_cents": 100,
                    "line_subtotal_cents": 700,
                    "line_discounts_cents": None,
                    "line_total_cents": None,
                    "tax_cents": None,
                    "tax_lines": None,
                    "applied_volume_discount": None,
                    "warnings": [{"type": "not_available", "message": "Sold out."}],
                    "status": "not_available",
                },
            ],
        },
        {
            "id": str(UUID(int=12)),
            "vendor_store_id": str(UUID(int=32)),
            "status": "invalid",
            "subtotal_cents": 0,
            "discounts_cents": 0,
            "line_discounts_cents": 0,
            "promo_discount_cents": 0,
            "total_cents": 0,
            "promo": None,
            "shipping_cents": None,
            "shipping_tax_cents": None,
            "shipping_line": None,
            "minimum_cents": None,
            "payment_terms": None,
            "warnings": [{"type": "closed", "message": "On holiday."}],
            "items": [],
        },
    ],
}


def get(conn: psycopg.Connection, buyer: Any = BUYER, cart: Any = CART) -> dict[str, Any]:
    [answer] = values(conn, "select cart_get(%s, %s)", buyer, cart)
    return answer


def put(conn: psycopg.Connection, quote: dict[str, Any]) -> dict[str, Any]:
    [answer] = values(conn, "select cart_put(%s)", Jsonb(quote))
    return answer


def test_a_quote_is_shown_as_it_was_put(db):
    put(db, QUOTE)
    shown = get(db)
    assert {name: value for name, value in shown.items() if name not in ONLY_SHOWN} == QUOTE
    assert (shown["status"], shown["checkout_group_id"]) == ("active", None)
    assert shown["created_at"] <= shown["updated_at"]


def test_what_is_shown_can_be_put_again_and_changes_nothing(db):
    """As somebody does who changes a quantity; also of a quote with every field left out that may be."""
    item = {"product_id": str(UUID(int=41)), "quantity": 1, "unit_price_cents": 5, "line_subtotal_cents": 5}
    group = {"vendor_store_id": str(UUID(int=31)), "subtotal_cents": 5, "total_cents": 5, "items": [item]}
    least = {name: QUOTE[name] for name in ("buyer_store_id", "currency", "valid_until")} | {
        "id": str(UUID(int=3)),
        "vendor_groups": [group],
    }
    for quote in (QUOTE, least):
        put(db, quote)
        shown = get(db, cart=quote["id"])
        put(db, {name: value for name, value in shown.items() if name not in ONLY_SHOWN})
        again = get(db, cart=quote["id"])
        assert again.pop("updated_at") > shown.pop("updated_at")
        assert again == shown


def test_the_result_of_a_cart_that_is_not_converted_shows_its_lines(db):
    answer = put(db, QUOTE)
    assert answer["vendor_groups"] == get(db)["vendor_groups"] == QUOTE["vendor_groups"]
    [result] = values(db, "select checkout_result(%s, %s)", BUYER, CART)
    assert result == answer
    assert list(result) == [
        *("status", "cart_id", "buyer_store_id", "currency", "valid_until", "totals"),
        *("below_minimum", "vendor_groups"),
    ]


def test_a_converted_cart_still_shows_what_was_quoted(db, add_cart, checkout_sql):
    cart = add_cart(promo_cents=10, items={(0, 0): {"quantity": 101}})
    quoted = get(db, cart.buyer_store_id, cart.id)
    result = checkout_sql(db, cart)
    shown = get(db, cart.buyer_store_id, cart.id)
    assert (shown["status"], shown["checkout_group_id"]) == ("converted", result["checkout_group_id"])
    assert shown["vendor_groups"] == quoted["vendor_groups"]
    assert shown["vendor_groups"][0]["items"][0]["quantity"] == 101
    assert shown["shipping_address"] == ADDRESS
    assert "vendor_groups" not in result


def test_groups_are_ordered_by_vendor_and_items_by_id(db, add_cart):
    cart = add_cart(vendors=3, lines=[3, 1, 2])
    for _ in range(2):
        groups = get(db, cart.buyer_store_id, cart.id)["vendor_groups"]
        assert [UUID(group["vendor_store_id"]) for group in groups] == sorted(cart.vendors)
        own = {group.vendor_store_id: str(group.id) for group in cart.groups}
        for group in groups:
            items = [str(each.id) for each in cart.items if str(each.vendor_store_id) == group["vendor_store_id"]]
            assert [item["id"] for item in group["items"]] == sorted(items)
            assert group["id"] == own[UUID(group["vendor_store_id"])]
        # stored the other way round
        db.execute("update cart_items set moq = moq where id = (select min(id::text)::uuid from cart_items)")


def test_items_of_a_vendor_without_a_group_are_shown_as_what_cannot_be_ordered(db, add_cart):
    cart = add_cart(vendors=2, lines=1)
    db.execute("delete from cart_vendor_groups where vendor_store_id = %s", [cart.vendors[0]])
    orphan, whole = get(db, cart.buyer_store_id, cart.id)["vendor_groups"]
    assert (orphan["id"], orphan["vendor_store_id"]) == (None, str(cart.vendors[0]))
    assert (orphan["status"], orphan["subtotal_cents"], orphan["total_cents"]) == ("invalid", 0, 0)
    assert [item["id"] for item in orphan["items"]] == [str(cart.items[0].id)]
    assert whole["status"] == "ok"


def test_an_empty_quote_and_one_without_an_end_are_quotes(db, add_cart):
    cart = add_cart(vendors=0, cart={"valid_until": "infinity"})
    shown = get(db, cart.buyer_store_id, cart.id)
    assert (shown["vendor_groups"], shown["valid_until"], shown["shipping_address"]) == ([], None, None)


def test_what_a_host_left_in_a_field_that_nobody_reads_is_not_shown(db, add_cart):
    """discounts_cents of a group, and JSON's null for no warnings."""
    cart = add_cart(vendors=1, lines=1, promo_cents=10)
    db.execute("update cart_vendor_groups set discounts_cents = 999, warnings = 'null'")
    db.execute("update cart_items set warnings = 'null'")
    [group] = get(db, cart.buyer_store_id, cart.id)["vendor_groups"]
    assert (group["discounts_cents"], group["warnings"], group["items"][0]["warnings"]) == (10, [], [])


def test_no_ad_token_is_shown(db, add_cart):
    """Of a token that was signed by anybody, what was bid can be read."""
    cart = add_cart(ad_tokens=["a.secret-bid.c"])
    assert "secret-bid" not in json.dumps(get(db, cart.buyer_store_id, cart.id))
    [result] = values(db, "select checkout_result(%s, %s)", cart.buyer_store_id, cart.id)
    assert "secret-bid" not in json.dumps(result)


@pytest.mark.parametrize("buyer", [UUID(int=9), None])
def test_another_buyers_cart_is_not_found(db, add_cart, buyer):
    cart = add_cart()
    for given in ((buyer, cart.id), (cart.buyer_store_id, None), (cart.buyer_store_id, UUID(int=9))):
        with refused("OC001"):
            get(db, *given)


def test_reading_a_quote_waits_for_nobody(connect, add_cart):
    cart = add_cart()
    host = connect()
    host.execute("update cart_records set updated_at = now()")
    host.execute("delete from cart_items")
    reader = connect(options="-c default_transaction_read_only=on -c lock_timeout=100ms")
    assert len(get(reader, cart.buyer_store_id, cart.id)["vendor_groups"][0]["items"]) == 2


@pytest.mark.parametrize(("groups", "items"), [(1, 5000), (5000, 1)])
def test_the_largest_quote_is_read_in_time_that_follows_its_size(db, groups, items):
    """Five thousand groups of an item each are no more than five thousand items."""
    parts = [
        {
            "vendor_store_id": str(UUID(int=100 + group)),
            "subtotal_cents": items,
            "total_cents": items,
            "items": [
                {
                    "product_id": str(UUID(int=item + 1)),
                    "quantity": 1,
                    "unit_price_cents": 1,
                    "line_subtotal_cents": 1,
                }
                for item in range(items)
            ],
        }
        for group in range(groups)
    ]
    put(
        db,
        {name: QUOTE[name] for name in ("id", "buyer_store_id", "currency", "valid_until")} | {"vendor_groups": parts},
    )
    get(db)
    began = time.monotonic()
    shown = get(db)
    assert time.monotonic() - began < 1
    assert sum(len(group["items"]) for group in shown["vendor_groups"]) == 5000
    assert row(db, "select count(*) from cart_items")["count"] == 5000
