"""IDEMPOTENCY & EMISSION: a key stands for one request, a cart for one conversion; calling again changes nothing."""

import hashlib
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from checks import refused, row, rows, values
from factories import ADDRESS

LINE = {"code": "ground", "title": "Ground", "price_cents": 500}


def keys(db):
    return values(db, "select idempotency_key from checkout_requests order by 1")


def test_the_same_key_and_request_gets_the_same_result_and_changes_nothing(db, add_cart, checkout_sql, snapshot):
    """IDEMPOTENCY & EMISSION: an idempotent retry returns the same result: no duplicate orders, no duplicate events."""
    cart = add_cart(vendors=3, stock=1, items={(1, 0): {"quantity": 2}}, promo_cents=5)
    first = checkout_sql(db, cart, shipping_line=LINE)
    before = snapshot(db)

    assert [checkout_sql(db, cart, shipping_line=LINE) for _ in range(3)] == [first | {"replayed": True}] * 3
    assert first["replayed"] is False
    assert snapshot(db) == before


def test_another_key_gets_the_same_result_and_is_bound_as_well(db, add_cart, checkout_sql, snapshot):
    """IDEMPOTENCY & EMISSION: if the cart is converted, return the existing result, for a new key as well."""
    cart = add_cart()
    first = checkout_sql(db, cart, key="k1")
    before = snapshot(db)

    assert checkout_sql(db, cart, key="k2") == first | {"replayed": True}

    after = snapshot(db)
    assert [request["idempotency_key"] for request in after.pop("checkout_requests")] == ["k1", "k2"]
    assert after == {table: lines for table, lines in before.items() if table != "checkout_requests"}
    with refused("OC006"):
        checkout_sql(db, add_cart(buyer_store_id=cart.buyer_store_id), key="k2")


def test_another_request_for_a_converted_cart_gets_what_was_confirmed_first(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: lookup by the cart's anchor: a new key with another address cannot order again."""
    cart = add_cart()
    first = checkout_sql(db, cart, key="k1")
    other = {"line1": "1 Elsewhere", "city": "Enid", "country": "US"}
    again = checkout_sql(
        db, cart, key="k2", shipping_address=other, payment_method="cash", shipping_line=LINE, reservation_policy="all"
    )
    assert again == first | {"replayed": True}


DIFFERENT = {
    "address": {"shipping_address": ADDRESS | {"line2": "Dock 5"}},
    "address field": {"shipping_address": {name: value for name, value in ADDRESS.items() if name != "lat"}},
    "payment method": {"payment_method": "cash"},
    "shipping line": {"shipping_line": LINE | {"code": "air"}},
    "shipping price": {"shipping_line": LINE | {"price_cents": 501}},
    "no shipping line": {"shipping_line": None},
    "ad token policy": {"ad_token_policy": "error"},
    "reservation policy": {"reservation_policy": "vendor"},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_key_used_again_for_another_request_is_refused(db, add_cart, checkout_sql, snapshot, name):
    """IDEMPOTENCY & EMISSION: every argument that can change the outcome is part of the request."""
    cart = add_cart()
    checkout_sql(db, cart, shipping_line=LINE)
    before = snapshot(db)
    with refused("OC006"):
        checkout_sql(db, cart, **({"shipping_line": LINE} | DIFFERENT[name]))
    assert snapshot(db) == before


def test_a_key_used_again_for_another_cart_is_refused_and_both_carts_are_named(db, add_cart, checkout_sql, snapshot):
    """IDEMPOTENCY & EMISSION: the other cart is not touched, and never answered with the first one's result."""
    first = add_cart()
    second = add_cart(buyer_store_id=first.buyer_store_id)
    checkout_sql(db, first)
    before = snapshot(db)
    with refused("OC006") as refusal:
        checkout_sql(db, second)
    assert refusal.detail == {"cart_id": str(second.id), "bound_cart_id": str(first.id)}
    assert snapshot(db) == before
    assert checkout_sql(db, second, key="k2")["cart_id"] == str(second.id)


def test_keys_of_different_buyers_have_nothing_to_do_with_each_other(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: a key is bound to (buyer_store_id, key)."""
    carts = [add_cart(), add_cart()]
    assert [checkout_sql(db, cart, key="same")["cart_id"] for cart in carts] == [str(cart.id) for cart in carts]
    assert keys(db) == ["same", "same"]


def test_keys_differ_by_case_and_are_taken_as_they_are(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: a key is compared to the byte, 1 to 255 visible characters."""
    for key in ["a", "A", "k" * 255, "');drop/**/table/**/cart_records;--", "%s", '"quoted"', "\\", "!~"]:
        assert checkout_sql(db, add_cart(buyer_store_id=UUID(int=1)), key=key)["replayed"] is False
    assert values(db, "select count(*) from checkout_requests") == [8]


def test_a_request_is_the_same_however_its_json_is_written(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the request is normalised: order of members and absent or null fields do not matter."""
    cart = add_cart()
    sparse = {"line1": "12 Main Street", "city": "Tulsa", "country": "US"}
    checkout_sql(db, cart, shipping_address=sparse, shipping_line={"code": "ground"})
    wordy = {"country": "US", "line2": None, "city": "Tulsa", "lat": None, "line1": "12 Main Street"}
    for arguments in (
        {"shipping_line": {"title": None, "price_cents": None, "code": "ground"}},
        {"shipping_line": {"code": "ground"}, "ad_token_policy": "drop", "reservation_policy": "partial"},
    ):
        assert checkout_sql(db, cart, shipping_address=wordy, **arguments)["replayed"] is True


def test_the_request_hash_is_the_one_that_earlier_releases_wrote(db):
    """IDEMPOTENCY & EMISSION: arguments at their default stay out, so that a retry across an upgrade still replays."""
    digests = {
        "select checkout_request_hash(%(cart)s, %(address)s, 'ach', null, 'drop', 'partial')":
            "8c48c1b133b3a0eb68f4c244ebbd9eae3e0ba27ec86e2ddc8eb8fc876c218a83",
        "select checkout_request_hash(%(cart)s, %(address)s, 'cash', %(line)s, 'error', 'all')":
            "f06faad4154eca08b536738885973fc7fda481e1e2db7db2038a85be9f378ce4",
    }  # fmt: skip
    params = {
        "cart": UUID("ca000000-0000-4000-8000-000000000001"),
        "address": Jsonb({"line1": "12 Main Street", "line2": None, "city": "Tulsa", "country": "US", "lat": 36.5}),
        "line": Jsonb({"code": "ground", "title": "Bodenfracht für 3 €", "price_cents": 500}),
    }
    assert {query: db.execute(query, params).fetchone()[0].hex() for query in digests} == digests

    # what the first digest is of, in full
    text = (
        '{"cart_id": "ca000000-0000-4000-8000-000000000001", "payment_method": "ach", '
        '"shipping_address": {"lat": 36.5, "city": "Tulsa", "line1": "12 Main Street", "country": "US"}}'
    )
    assert hashlib.sha256(text.encode()).hexdigest() == next(iter(digests.values()))


def test_a_request_at_its_defaults_is_bound_to_that_hash(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the stored hash is the request's, nothing of the cart's or the time's."""
    cart = add_cart()
    checkout_sql(db, cart)
    stored = row(db, "select * from checkout_requests")
    query = "select checkout_request_hash(%s, %s, 'ach', null, 'drop', 'partial')"
    assert [stored["request_hash"]] == values(db, query, cart.id, Jsonb(ADDRESS))
    assert (stored["cart_id"], stored["buyer_store_id"]) == (cart.id, cart.buyer_store_id)


FAILING = {
    "OC001": ({}, {"cart_id": UUID(int=7)}),
    "OC003": ({"valid_for": -1}, {}),
    "OC004": ({"vendors": 0}, {}),
    "OC005": ({}, {"payment_method": "barter"}),
    "OC007": ({"groups": {0: {"total_cents": 10**9}}}, {}),
    "OC008": ({"ad_tokens": ["bad"]}, {"ad_token_policy": "error"}),
    "OC010": ({"stock": 0}, {"reservation_policy": "all"}),
}


@pytest.mark.parametrize("sqlstate", FAILING)
def test_an_attempt_that_failed_binds_nothing(db, add_cart, checkout_sql, sqlstate):
    """IDEMPOTENCY & EMISSION: the key is free for another request, another cart included."""
    columns, arguments = FAILING[sqlstate]
    cart = add_cart(**columns)
    with refused(sqlstate):
        checkout_sql(db, cart, **arguments)
    assert keys(db) == []
    good = add_cart(buyer_store_id=cart.buyer_store_id)
    assert checkout_sql(db, good)["replayed"] is False


def test_the_same_call_goes_through_once_its_cause_is_gone(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: a refusal is not remembered."""
    cart = add_cart(stock=0)
    with refused("OC010"):
        checkout_sql(db, cart, reservation_policy="all")
    db.execute("update inventory_items set available_qty = 5")
    assert checkout_sql(db, cart, reservation_policy="all")["outcome"] == "complete"


def test_a_rolled_back_checkout_binds_nothing(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the key is bound in the conversion's transaction."""
    cart = add_cart()
    with connect() as conn:
        checkout_sql(conn, cart)
        conn.rollback()
    assert keys(db) == []
    assert checkout_sql(db, cart)["replayed"] is False


def test_a_replay_tells_where_an_order_is_by_now(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: same ids and amounts; a status shows where the order is now."""
    cart = add_cart(vendors=1, lines=1)
    first = checkout_sql(db, cart)
    db.execute("update vendor_orders set status = 'in_transit'")
    db.execute("update order_line_items set status = 'accepted'")
    db.execute("update payment_intents set status = 'settled'")
    first["replayed"] = True
    first["vendor_orders"][0]["status"] = "in_transit"
    first["vendor_orders"][0]["items"][0]["status"] = "accepted"
    first["vendor_orders"][0]["payment_intent"]["status"] = "settled"
    assert checkout_sql(db, cart) == first


def test_a_converted_cart_replays_although_its_quote_ran_out(db, add_cart, checkout_sql):
    """TESTS: cart expired, already converted: the conversion stands over the expiry."""
    cart = add_cart(valid_for=0.2)
    first = checkout_sql(db, cart)
    db.execute("select pg_sleep_until(valid_until) from cart_records")
    assert checkout_sql(db, cart) == first | {"replayed": True}


def test_a_failing_consumer_of_the_events_changes_nothing(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the cart stays converted, whatever becomes of its events."""
    cart = add_cart()
    first = checkout_sql(db, cart)
    db.execute("update outbox_events set attempt_count = 9, last_error = 'mail server is down'")
    assert checkout_sql(db, cart, key="k2") == first | {"replayed": True}
    assert values(db, "select count(*) from outbox_events") == [2]


def test_the_result_can_be_read_without_a_key(db, add_cart, checkout_sql, snapshot):
    """IDEMPOTENCY & EMISSION: checkout_result tells the same, and writes nothing."""
    cart = add_cart(stock=1, items={(0, 0): {"quantity": 2}})
    query = "select checkout_result(%s, %s)"
    [before] = values(db, query, cart.buyer_store_id, cart.id)
    assert before == {
        "status": "active",
        "cart_id": str(cart.id),
        "buyer_store_id": str(cart.buyer_store_id),
        "currency": "USD",
        "valid_until": before["valid_until"],
        "totals": {"quoted": {"subtotal_cents": 5000, "discounts_cents": 0, "total_cents": 5000}},
        "below_minimum": [],
        "vendor_groups": values(db, "select cart_get(%s, %s) -> 'vendor_groups'", cart.buyer_store_id, cart.id)[0],
    }
    first = checkout_sql(db, cart)
    rows_before = snapshot(db)
    assert values(db, query, cart.buyer_store_id, cart.id) == [first | {"replayed": True}]
    assert snapshot(db) == rows_before
    for buyer, cart_id in [(UUID(int=1), cart.id), (cart.buyer_store_id, UUID(int=1)), (None, cart.id)]:
        with refused("OC001"):
            values(db, query, buyer, cart_id)


def test_purging_keys_removes_old_ones_alone(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: retention of keys."""
    for key in ("old", "new"):
        checkout_sql(db, add_cart(), key=key)
    db.execute("update checkout_requests set created_at = now() - interval '8 days' where idempotency_key = 'old'")
    assert values(db, "select checkout_requests_purge(interval '7 days')") == [1]
    assert keys(db) == ["new"]
    assert values(db, "select checkout_requests_purge(interval '7 days')") == [0]
    assert values(db, "select checkout_requests_purge(interval '0')") == [1]


def test_an_age_counts_to_the_moment_of_the_purge(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: not to the beginning of its transaction."""
    with connect() as owner:
        owner.execute("select now()")
        checkout_sql(db, add_cart())
        assert values(owner, "select checkout_requests_purge(interval '0')") == [1]


def test_a_key_of_another_request_is_told_before_what_is_wrong_with_the_cart(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: a retry with the wrong cart is no reason to ask for a new quote of it."""
    bound = add_cart()
    checkout_sql(db, bound)
    late = add_cart(buyer_store_id=bound.buyer_store_id, cart={"valid_until": "2020-01-01T00:00:00Z"})
    with refused("OC006"):
        checkout_sql(db, late)


def test_a_converted_cart_replays_after_its_key_is_purged(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the anchor, not the key, is what keeps a cart from being ordered twice."""
    cart = add_cart()
    first = checkout_sql(db, cart)
    db.execute("select checkout_requests_purge(interval '0')")
    assert checkout_sql(db, cart) == first | {"replayed": True}
    assert keys(db) == ["k1"]
    db.execute("select checkout_requests_purge(interval '0')")
    assert checkout_sql(db, cart, payment_method="cash") == first | {"replayed": True}


@pytest.mark.parametrize("older_than", [None, "-1 second"])
def test_a_purge_without_a_sensible_age_is_refused(db, add_cart, checkout_sql, older_than):
    """IDEMPOTENCY & EMISSION: a mistake does not delete the keys of calls that are under way."""
    checkout_sql(db, add_cart())
    with refused("OC005") as refusal:
        db.execute("select checkout_requests_purge(%s::interval)", (older_than,))
    assert refusal.detail["field"] == "older_than"
    assert keys(db) == ["k1"]


@pytest.mark.parametrize(
    ("lat", "lng", "again"),
    [("40", "-95.5", ("40.0", "-95.50")), ("40.10", "0.0", ("40.1", "-0")), ("4e1", "1.5", ("40", "15e-1"))],
)
def test_numbers_are_compared_by_their_value(db, add_cart, lat, lng, again):
    """IDEMPOTENCY: 40 and 40.0 are one place, however a client writes it."""
    cart = add_cart()

    def call(lat, lng):
        address = f'{{"line1": "1 Main", "city": "Tulsa", "country": "US", "lat": {lat}, "lng": {lng}}}'
        query = "select checkout_execute(%s, %s, 'k1', %s::jsonb, 'ach')"
        return values(db, query, cart.buyer_store_id, cart.id, address)[0]

    assert call(lat, lng)["replayed"] is False
    assert call(*again)["replayed"] is True
    with refused("OC006"):
        call(lat, "1")


def test_a_second_conversion_could_only_collide(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: whoever sets a cart back to active gets an error, never a second set of orders."""
    cart = add_cart()
    checkout_sql(db, cart)
    db.execute("alter table cart_records disable trigger user")
    [anchor] = values(db, "select checkout_group_id from cart_records")
    db.execute("delete from checkout_requests")
    for kept, problem in [(anchor, "anchor_has_orders"), (None, "constraint")]:
        db.execute("update cart_records set status = 'active', checkout_group_id = %s", (kept,))
        with refused("OC007") as refusal:
            checkout_sql(db, cart, key="k2")
        assert refusal.detail["problem"] == problem
    assert values(db, "select count(*) from vendor_orders") == [2]
    db.execute("update cart_records set status = 'converted', checkout_group_id = %s", (anchor,))


def test_events_of_one_conversion_cannot_be_written_twice(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: no duplicate outbox rows for the same conversion anchor, whoever writes."""
    checkout_sql(db, add_cart())
    for event in rows(db, "select event_type, aggregate_id from outbox_events"):
        with pytest.raises(psycopg.errors.UniqueViolation):
            db.execute(
                "insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload)"
                " values (gen_random_uuid(), %s, 'checkout_group', %s, '{}')",
                (event["event_type"], event["aggregate_id"]),
            )
