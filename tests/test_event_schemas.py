"""The two outbox events of a conversion, against the JSON Schemas that the repository publishes."""

import json
from pathlib import Path

import psycopg
import pytest
from jsonschema import Draft202012Validator, FormatChecker

EVENTS = Path(__file__).parent.parent / "docs" / "events"
TYPES = ["checkout.vendor_orders_created", "checkout.converted"]


def validator(event_type, version=1):
    schema = json.loads((EVENTS / f"{event_type}.v{version}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FormatChecker())


def events(conn):
    query = "select id, event_type, aggregate_type, aggregate_id, payload from outbox_events order by id"
    return conn.execute(query).fetchall()


@pytest.mark.parametrize(
    "shape",
    [
        {"vendors": 1, "lines": 1},
        {"vendors": 3, "lines": 2, "amounts": "gross", "line_discount_cents": 70, "promo_cents": 100},
        {"vendors": 2, "items": {(0, 0): {"quantity": 500}}},
        {"vendors": 2, "groups": {1: {"status": "invalid"}}},
        {"vendors": 2, "stock": 0},
        {"vendors": 1, "unit_price_cents": 0},
        {"vendors": 20, "lines": 1},
        {"ad_tokens": ["no token", "a.b.c"]},
    ],
)
def test_exactly_two_events_a_conversion_and_both_follow_their_schema(db, add_cart, checkout_sql, shape):
    """IDEMPOTENCY & EMISSION, TESTS: exactly two events; on zero totals, one vendor, twenty, and rejections too."""
    cart = add_cart(**shape)

    answer = checkout_sql(db, cart)

    found = events(db)
    assert [event_type for _, event_type, *_ in found] == TYPES
    for event_id, event_type, aggregate_type, aggregate_id, payload in found:
        validator(event_type).validate(payload)
        assert (aggregate_type, str(aggregate_id)) == ("checkout_group", answer["checkout_group_id"])
        assert payload["event_id"] == str(event_id)
        assert payload["occurred_at"] == answer["converted_at"]


def test_the_notification_names_carts_orders_and_vendors(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the notification event has checkout_group_id, cart_id, buyer, vendors and orders."""
    cart = add_cart(vendors=3, groups={2: {"status": "invalid"}})

    answer = checkout_sql(db, cart)

    data = events(db)[0][4]["data"]
    assert data["cart_id"] == str(cart.id)
    assert data["buyer_store_id"] == str(cart.buyer_store_id)
    assert data["vendor_order_ids"] == [order["order_id"] for order in answer["vendor_orders"]]
    assert data["vendor_store_ids"] == [str(vendor) for vendor in cart.vendors[:2]]
    assert data["rejected_vendors"] == [{"vendor_store_id": str(cart.vendors[2]), "reason": "vendor_invalid"}]


def test_the_analytics_event_has_the_totals_of_the_answer(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the analytics event has quoted and confirmed totals."""
    cart = add_cart(vendors=2, items={(0, 0): {"quantity": 500}})

    answer = checkout_sql(db, cart)

    data = events(db)[1][4]["data"]
    assert data["totals"] == answer["totals"]
    assert data["outcome"] == "partial"
    assert data["totals"]["confirmed"]["total_cents"] < data["totals"]["quoted"]["total_cents"]


def test_a_replay_emits_nothing(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: no duplicate outbox rows on retries."""
    cart = add_cart()
    checkout_sql(db, cart)
    before = events(db)

    checkout_sql(db, cart)
    checkout_sql(db, cart, key="another")

    assert events(db) == before


def test_a_second_event_of_one_kind_for_an_anchor_cannot_be_written(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the partial unique index holds against everyone."""
    checkout_sql(db, add_cart())

    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        db.execute(
            "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
            " select event_type, aggregate_type, aggregate_id, payload from outbox_events limit 1"
        )

    assert refused.value.diag.constraint_name == "idx_outbox_events_conversion"
