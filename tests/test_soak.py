"""The soak itself: a short run of it, and that its count at the end sees what is wrong."""

import os
from collections import Counter

import pytest
from soak import FAULTS, SOAK_SCHEMA, Books, proof, soak


@pytest.mark.timeout(300)
@pytest.mark.skipif("TEST_DATABASE_URL" in os.environ, reason="kills its server, so it takes the embedded one")
def test_a_short_soak_loses_and_doubles_nothing():
    """At least one of every fault, a snapshot held open, and 16 clients that keep books of their own."""
    figures = soak(300)
    assert (figures["wrong"], figures["audit rows"]) == ([], [])
    assert set(figures["faults"]) == {*FAULTS, "snapshot held open", "snapshot given up"}
    assert figures["conversions"] + sum(figures["refused"].values()) == 300


@pytest.fixture
def books(db, add_cart, checkout):
    """One conversion as its client has it in the books."""
    cart = add_cart(vendors=2, lines=1, quantity=3, stock=10)
    db.execute(SOAK_SCHEMA + "create table soak_shelf as select product_id, available_qty as qty from inventory_items")
    result = checkout(db, cart)
    total = sum(order.total_cents for order in result.vendor_orders)
    entry = {"group": str(result.checkout_group_id), "orders": 2, "lines": 2, "cents": total, "paid": 0}
    entry |= {"held": 6, "fulfilled": 0, "returned": 0}
    return [Books(carts={str(cart.id): entry}, done=Counter())]


def test_the_count_agrees_with_true_books(db, books):
    assert proof(db, books)["wrong"] == []


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    ("damage", "seen"),
    [
        ("update inventory_items set available_qty = available_qty + 1", "units of"),
        ("update inventory_items set reserved_qty = reserved_qty - 1", "reserved of"),
        ("update order_line_items set reserved_qty = reserved_qty - 1", "lines of"),
        ("update order_line_items set fulfilled_qty = 1", "lines of"),
        ("update order_line_items set returned_qty = 1", "lines of"),
        ("update vendor_orders set total_cents = total_cents + 1", "orders and cents of"),
        (
            "delete from payment_intents where order_id = (select min(id::text)::uuid from vendor_orders)",
            "payment intents",
        ),
        ("delete from outbox_events where event_type = 'checkout.converted'", "events"),
        ("insert into soak_parcels select gen_random_uuid(), product_id, 1 from inventory_items limit 1", "units of"),
    ],
)
def test_the_count_sees_what_is_lost_or_made_up(db, books, damage, seen):
    db.execute(damage)
    assert any(line.startswith(seen) for line in proof(db, books)["wrong"])


def test_the_count_misses_a_conversion_that_nobody_was_told_of(db, books):
    books[0].carts.clear()
    assert any(line.startswith("carts converted") for line in proof(db, books)["wrong"])


def test_the_count_misses_a_conversion_that_was_lost(db, books):
    books[0].carts["ca000000-0000-4000-8000-0000000000ff"] = next(iter(books[0].carts.values()))
    assert any(line.startswith("carts converted") for line in proof(db, books)["wrong"])
