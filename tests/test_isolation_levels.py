"""TESTS: under every isolation level a checkout is right, or fails as 40001, safe to retry: never half, never too much.

Reported elsewhere as: the lock is free, and yet the row is not the one that the transaction saw.
"""

from collections import Counter
from functools import partial

import psycopg
import pytest
from psycopg import IsolationLevel

from checks import values
from races import at_once, blocked

STRICT = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]
strict = pytest.mark.parametrize("level", STRICT, ids=lambda level: level.name)
every = pytest.mark.parametrize("level", [IsolationLevel.READ_COMMITTED, *STRICT], ids=lambda level: level.name)
slotted = pytest.mark.parametrize("slots", [1, 4])


@pytest.fixture
def snapshot_at(connect):
    """snapshot_at(level): a connection whose transaction has taken its snapshot."""

    def snapshot_at(level):
        conn = connect()
        conn.isolation_level = level
        conn.execute("select count(*) from cart_records")
        return conn

    return snapshot_at


def fails_to_serialize(db, conn, checkout_sql, cart, snapshot):
    """A stale snapshot gets 40001 and leaves nothing."""
    before = snapshot(db)
    with pytest.raises(psycopg.errors.SerializationFailure):
        checkout_sql(conn, cart, key="stale")
    conn.rollback()
    assert snapshot(db) == before


@every
@slotted
def test_a_fresh_snapshot_checks_out_and_replays(db, connect, add_cart, checkout_sql, level, slots):
    cart = add_cart(stock=2, items={(1, 1): {"quantity": 3}})
    db.execute("select inventory_split(product_id, %s) from inventory_items", (slots,))
    conn = connect()
    conn.isolation_level = level

    converted = checkout_sql(conn, cart)
    assert converted["outcome"] == "partial"
    assert checkout_sql(conn, cart) == converted | {"replayed": True}
    conn.commit()
    assert checkout_sql(conn, cart, key="k2") == converted | {"replayed": True}
    conn.commit()


@strict
@slotted
@pytest.mark.parametrize("stock", [1, 2], ids=["sold out", "sold"])
def test_stock_that_was_sold_after_the_snapshot(db, add_cart, snapshot_at, checkout_sql, snapshot, level, slots, stock):
    first = add_cart(vendors=1, lines=1, stock=stock)
    second = add_cart(vendors=1, lines=1, products=[first.items[0].product_id], quantity=stock)
    db.execute("select inventory_split(product_id, %s) from inventory_items", (slots,))
    conn = snapshot_at(level)
    assert checkout_sql(db, first)["outcome"] == "complete"

    fails_to_serialize(db, conn, checkout_sql, second, snapshot)

    assert checkout_sql(conn, second)["outcome"] == "rejected"
    conn.commit()


@strict
@pytest.mark.parametrize(("before", "after"), [(1, 1), (4, 4), (1, 4), (4, 1), (4, 2)])
def test_stock_that_came_or_moved_after_the_snapshot_is_no_shortage(
    db, add_cart, snapshot_at, checkout_sql, snapshot, level, before, after
):
    cart = add_cart(vendors=1, lines=1, stock=1, quantity=3)
    product = cart.items[0].product_id
    db.execute("select inventory_split(%s, %s)", (product, before))
    conn = snapshot_at(level)
    db.execute("select inventory_restock(%s, 2)", (product,))
    db.execute("select inventory_split(%s, %s)", (product, after))

    fails_to_serialize(db, conn, checkout_sql, cart, snapshot)

    assert checkout_sql(conn, cart)["outcome"] == "complete"
    conn.commit()


@strict
def test_stock_whose_row_came_after_the_snapshot_is_no_shortage(
    db, add_cart, snapshot_at, checkout_sql, snapshot, level
):
    cart = add_cart(vendors=1, lines=2, stock=None)
    conn = snapshot_at(level)
    for item in cart.items:
        db.execute("select inventory_set(%s, 5)", (item.product_id,))

    fails_to_serialize(db, conn, checkout_sql, cart, snapshot)

    assert checkout_sql(conn, cart)["outcome"] == "complete"
    conn.commit()


@strict
@pytest.mark.parametrize(
    ("change", "answer"),
    [
        ("order_line_return(%(line)s, 'why', 1, true, 'r') -> 'changes' -> 0 -> 'restocked_qty'", 1),
        ("(inventory_split(%(product)s, 2)).slots", 2),
    ],
    ids=["returned", "split"],
)
def test_a_change_of_stock_whose_row_came_after_the_snapshot(
    db, add_cart, snapshot_at, checkout_sql, snapshot, level, change, answer
):
    cart = add_cart(vendors=1, lines=1)
    names = {"line": cart.items[0].id, "product": cart.items[0].product_id}
    checkout_sql(db, cart)
    db.execute("select order_line_fulfil(%(line)s)", names)
    db.execute("delete from inventory_items")
    conn = snapshot_at(level)
    db.execute("select inventory_set(%(product)s, 5)", names)

    before = snapshot(db)
    with pytest.raises(psycopg.errors.SerializationFailure):
        conn.execute(f"select {change}", names)
    conn.rollback()
    assert snapshot(db) == before

    assert conn.execute(f"select {change}", names).fetchone() == (answer,)
    conn.commit()


@every
def test_a_product_without_stock_is_short_and_gets_no_row(db, connect, add_cart, checkout_sql, level):
    cart = add_cart(vendors=1, lines=1, stock=None)
    conn = connect()
    conn.isolation_level = level

    assert checkout_sql(conn, cart)["outcome"] == "rejected"

    conn.commit()
    assert values(db, "select count(*) from inventory_items") == [0]


@strict
def test_a_cart_that_was_converted_after_the_snapshot(db, add_cart, snapshot_at, checkout_sql, snapshot, level):
    cart = add_cart()
    conn = snapshot_at(level)
    converted = checkout_sql(db, cart)

    fails_to_serialize(db, conn, checkout_sql, cart, snapshot)

    assert checkout_sql(conn, cart) == converted | {"replayed": True}
    conn.commit()


@strict
def test_a_cart_that_was_quoted_again_after_the_snapshot(db, add_cart, snapshot_at, checkout_sql, snapshot, level):
    """A quote updates its cart row, so that a snapshot with the old lines cannot check the cart out."""
    cart = add_cart(vendors=1, lines=1)
    conn = snapshot_at(level)
    with db.transaction():
        db.execute("update cart_items set quantity = 2, line_subtotal_cents = 2000")
        db.execute("update cart_vendor_groups set subtotal_cents = 2000, total_cents = 2000")
        db.execute("update cart_records set subtotal_cents = 2000, total_cents = 2000, updated_at = now()")

    fails_to_serialize(db, conn, checkout_sql, cart, snapshot)

    assert checkout_sql(conn, cart)["totals"]["confirmed"]["total_cents"] == 2000
    conn.commit()


@strict
def test_a_cart_that_was_made_after_the_snapshot_is_not_found_yet(add_cart, snapshot_at, checkout_sql, level):
    conn = snapshot_at(level)
    cart = add_cart()

    with pytest.raises(psycopg.Error) as caught:
        checkout_sql(conn, cart)
    assert caught.value.sqlstate == "OC001"
    conn.rollback()
    assert checkout_sql(conn, cart)["outcome"] == "complete"
    conn.commit()


@strict
def test_a_key_that_was_bound_to_another_cart_after_the_snapshot(
    db, add_cart, snapshot_at, checkout_sql, snapshot, level
):
    one = add_cart()
    other = add_cart(buyer_store_id=one.buyer_store_id)
    conn = snapshot_at(level)
    checkout_sql(db, one, key="stale")

    fails_to_serialize(db, conn, checkout_sql, other, snapshot)

    with pytest.raises(psycopg.Error) as caught:
        checkout_sql(conn, other, key="stale")
    assert caught.value.sqlstate == "OC006"


@strict
@pytest.mark.parametrize("what", ["cart", "stock"])
def test_a_row_that_changes_while_it_is_waited_for(
    db, connect, add_cart, snapshot_at, checkout_sql, snapshot, level, what
):
    cart = add_cart(vendors=1, lines=1)
    conn, holder = snapshot_at(level), connect()
    holder.execute(
        "update cart_records set updated_at = now()"
        if what == "cart"
        else "update inventory_items set available_qty = 50"
    )

    with blocked(db, checkout_sql, conn, cart) as waiting:
        holder.commit()
        before = snapshot(db)
        with pytest.raises(psycopg.errors.SerializationFailure):
            waiting.result(timeout=10)

    conn.rollback()
    assert snapshot(db) == before
    assert checkout_sql(conn, cart)["outcome"] == "complete"
    conn.commit()


@strict
def test_a_row_that_was_only_locked_is_waited_for(db, connect, add_cart, checkout_sql, level):
    cart = add_cart(vendors=1, lines=1, stock=1)
    conn, holder = connect(), connect()
    conn.isolation_level = level
    holder.execute("update inventory_items set available_qty = 0")

    with blocked(db, checkout_sql, conn, cart) as waiting:
        holder.rollback()

    assert waiting.result()["outcome"] == "complete"
    conn.commit()


@every
@slotted
def test_buyers_who_retry_get_every_unit_and_not_one_more(db, connect, add_cart, checkout_sql, level, slots):
    first = add_cart(vendors=1, lines=1, stock=12)
    db.execute("select inventory_split(product_id, %s) from inventory_items", (slots,))
    product = first.items[0].product_id
    carts = [first, *(add_cart(vendors=1, lines=1, products=[product]) for _ in range(23))]

    def buy(conn, some):
        conn.isolation_level = level
        outcomes = []
        while some:
            try:
                outcome = checkout_sql(conn, some[0])["outcome"]
                conn.commit()
            except psycopg.errors.SerializationFailure:
                conn.rollback()
            else:
                outcomes.append(outcome)
                some = some[1:]
        return outcomes

    outcomes = at_once(*[partial(buy, connect(), carts[n::6]) for n in range(6)])

    assert Counter(outcome for each in outcomes for outcome in each) == {"complete": 12, "rejected": 12}
    assert values(db, "select array[available_qty, reserved_qty] from inventory_levels") == [[0, 12]]
