"""PF-174: the checkout confirms the cart, converts it and gives it one anchor, all at once or not at all."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from checks import row, rows, values
from factories import ADDRESS

ANCHOR = UUID("ac000000-0000-4000-8000-000000000001")


def cart_row(conn, cart):
    return row(conn, "select *, to_jsonb(shipping_address) as address from cart_records where id = %s", cart.id)


def test_the_cart_holds_what_the_checkout_confirmed(db, add_cart, checkout_sql):
    """PF-174: shipping_address is overwritten, payment_method, shipping_line and converted_at are set."""
    quoted = ADDRESS | {"line1": "1 Old Road", "line2": "Back door", "city": "Enid"}
    cart = add_cart(cart={"shipping_address": quoted})
    confirmed = {"line1": "12 Main Street", "city": "Tulsa", "country": "US"}
    line = {"code": "ground", "title": "Ground, 3 days", "price_cents": 1250}

    result = checkout_sql(db, cart, shipping_address=confirmed, payment_method="cash", shipping_line=line)

    after = cart_row(db, cart)
    assert {name: value for name, value in after["address"].items() if value is not None} == confirmed
    assert (after["payment_method"], after["shipping_line"], after["status"]) == ("cash", line, "converted")
    assert str(after["checkout_group_id"]) == result["checkout_group_id"]
    assert after["converted_at"].isoformat()[:26] == result["converted_at"][:26]
    assert after["updated_at"] == after["converted_at"]


def test_the_quote_itself_stays_as_it_was(db, add_cart, checkout_sql):
    """PF-174: the cart remains the auditable source of truth before and after checkout."""
    confirmed = [
        "shipping_address",
        "payment_method",
        "shipping_line",
        "converted_at",
        "status",
        "checkout_group_id",
        "updated_at",
    ]

    def quote():
        return [
            *rows(db, "select * from cart_vendor_groups order by id"),
            *rows(db, "select * from cart_items order by id"),
            *values(db, "select to_jsonb(cart_records) - %s::text[] from cart_records", confirmed),
        ]

    cart = add_cart(promo_cents=30, stock=0, ad_tokens=["not.a.token"])
    before = quote()
    checkout_sql(db, cart)
    assert quote() == before


@pytest.mark.parametrize("line", [None, "null"])
def test_a_cart_without_a_shipping_line_has_none(db, add_cart, checkout_sql, line):
    """PF-174: the shipping line is optional."""
    cart = add_cart()
    assert checkout_sql(db, cart, shipping_line=line)["shipping_line"] is None
    assert cart_row(db, cart)["shipping_line"] is None


def test_the_address_goes_in_by_name_into_a_wider_type(db, add_cart, checkout_sql):
    """PF-174: the host's address_t may have fields of its own, in any place."""
    db.execute("alter type address_t add attribute geohash text cascade")
    cart = add_cart()
    result = checkout_sql(db, cart, shipping_address=ADDRESS | {"geohash": "9y7n"})
    assert result["shipping_address"] == ADDRESS | {"geohash": "9y7n"}
    assert cart_row(db, cart)["address"] == ADDRESS | {"geohash": "9y7n"}


def test_one_anchor_is_on_the_cart_and_on_every_order(db, add_cart, checkout_sql):
    """PF-174: checkout_group_id is propagated to all created vendor orders."""
    cart = add_cart(vendors=3)
    result = checkout_sql(db, cart)
    orders = rows(db, "select checkout_group_id, cart_id from vendor_orders")
    assert [str(order["checkout_group_id"]) for order in orders] == [result["checkout_group_id"]] * 3
    assert [order["cart_id"] for order in orders] == [cart.id] * 3
    assert str(cart_row(db, cart)["checkout_group_id"]) == result["checkout_group_id"]


def test_an_anchor_that_the_cart_has_already_is_kept(db, add_cart, checkout_sql):
    """PF-174: checkout_group_id is generated only if not present."""
    cart = add_cart(cart={"checkout_group_id": ANCHOR})
    assert checkout_sql(db, cart)["checkout_group_id"] == str(ANCHOR)
    assert [found["checkout_group_id"] for found in rows(db, "select checkout_group_id from vendor_orders")] == [
        ANCHOR
    ] * 2
    assert {event["aggregate_id"] for event in rows(db, "select aggregate_id from outbox_events")} == {ANCHOR}


def test_retries_with_the_same_and_other_keys_make_no_second_anchor(db, add_cart, checkout_sql):
    """PF-174: checkout_group_id is generated once and reused on retries."""
    cart = add_cart()
    anchors = {checkout_sql(db, cart, key=key)["checkout_group_id"] for key in ("k1", "k1", "k2", "k3")}
    assert len(anchors) == 1
    assert {
        str(found["id"]) for found in rows(db, "select distinct checkout_group_id as id from vendor_orders")
    } == anchors
    assert {str(found["id"]) for found in rows(db, "select distinct aggregate_id as id from outbox_events")} == anchors


def test_each_cart_has_an_anchor_of_its_own_and_they_are_ordered_by_time(db, add_cart, checkout_sql):
    """PF-174: no duplicate checkout anchors; ids that the package makes are UUIDv7."""
    anchors = [UUID(checkout_sql(db, add_cart())["checkout_group_id"]) for _ in range(5)]
    assert {anchor.version for anchor in anchors} == {7}
    assert len(set(anchors)) == 5
    # 48 bits of milliseconds stand in front
    assert [anchor.int >> 80 for anchor in anchors] == sorted(anchor.int >> 80 for anchor in anchors)


def test_two_carts_cannot_share_an_anchor(add_cart):
    """PF-174: no duplicate checkout anchors; PF-168: unique where set."""
    add_cart(cart={"checkout_group_id": ANCHOR})
    with pytest.raises(psycopg.errors.UniqueViolation):
        add_cart(cart={"checkout_group_id": ANCHOR})


def test_nobody_sees_half_a_conversion(db, connect, add_cart, checkout_sql):
    """PF-174: cart fields are updated atomically within the checkout's transaction."""
    cart = add_cart()
    before = cart_row(db, cart)
    with connect() as conn:
        checkout_sql(conn, cart)
        assert cart_row(conn, cart)["status"] == "converted"
        assert cart_row(db, cart) == before
        assert rows(db, "select id from vendor_orders") == []
        conn.rollback()
    assert cart_row(db, cart) == before


@pytest.mark.parametrize(
    "table",
    [
        "checkout_requests",
        "cart_records",
        "inventory_items",
        "vendor_orders",
        "order_line_items",
        "payment_intents",
        "outbox_events",
    ],
)
def test_a_failure_at_any_write_leaves_the_cart_active_and_nothing_else(db, add_cart, checkout_sql, snapshot, table):
    """PF-174: the status is converted only after successful finalization; then the same call goes through."""
    cart = add_cart()
    before = snapshot(db)
    db.execute("create function fail() returns trigger language plpgsql as 'begin raise exception ''broken''; end'")
    db.execute(f"create trigger fail after insert or update on {table} for each statement execute function fail()")

    with pytest.raises(psycopg.errors.RaiseException, match="broken"):
        checkout_sql(db, cart)
    assert snapshot(db) == before

    db.execute(f"drop trigger fail on {table}")
    assert checkout_sql(db, cart)["replayed"] is False


def test_the_conversion_is_dated_when_the_cart_was_locked(db, connect, add_cart, checkout_sql):
    """PF-174: converted_at is the time of the call, not of a transaction that began long before."""
    cart = add_cart()
    with connect() as conn:
        [(began,)] = conn.execute("select now()")
        db.execute("select pg_sleep_until(%s)", (began + timedelta(milliseconds=50),))
        checkout_sql(conn, cart)
        assert cart_row(conn, cart)["converted_at"] >= began + timedelta(milliseconds=50)
