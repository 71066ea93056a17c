"""PF-178: stock is locked upwards in (product, slot), and nothing of a product is held while it is waited for.

So checkouts, restocks and splits cannot deadlock. Reported elsewhere as: two carts with the same products in opposite
order lock each other out.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest

from checks import values
from races import blocked, paused_at, wait_until

LOCK_ITEM = "select from inventory_items where product_id = %s for update"
LOCK_SLOT = "select from inventory_slots where product_id = %s and slot = %s for update"
TRY_SLOT = LOCK_SLOT + " nowait"
LESS = "update inventory_slots set available_qty = 3, version = version + 1 where product_id = %s and slot = 2"


@pytest.fixture
def split(db):
    """split(product_id, [3, 5]): a split product with these units in slots 1 and 2."""

    def split(product_id, units):
        db.execute("select inventory_split(%s, %s)", (product_id, len(units)))
        for slot, available in enumerate(units, start=1):
            db.execute(
                "update inventory_slots set available_qty = %s where product_id = %s and slot = %s",
                (available, product_id, slot),
            )

    return split


def test_products_are_locked_in_order_of_their_ids(db, connect, add_cart, checkout_sql):
    """Whatever the order of the lines: the second product is free while the first is waited for."""
    first, second = sorted(UUID(int=n) for n in (1, 2))
    cart = add_cart(vendors=1, products=[second, first])
    holder, buyer, other = connect(), connect(autocommit=True), connect()
    holder.execute(LOCK_ITEM, (first,))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        other.execute(LOCK_ITEM + " nowait", (second,))
        other.rollback()
        holder.rollback()

    assert waiting.result()["outcome"] == "complete"


@pytest.mark.parametrize("split", [[], [1], [3], [1, 3], [2, 3], [1, 2, 3, 4]])
@pytest.mark.parametrize("awaited", [1, 2, 3, 4])
@pytest.mark.parametrize("short", [False, True])
def test_products_in_rows_and_in_slots_are_locked_in_one_order(
    db, connect, add_cart, checkout_sql, split, awaited, short
):
    """What comes before the product that is waited for is held, and what comes after it is free: of stock that is
    enough for all lines, and of stock that is not, which is decided product by product."""
    products = {number: UUID(int=number) for number in (1, 2, 3, 4)}
    cart = add_cart(vendors=1, lines=5, products=[UUID(int=number) for number in (3, 1, 5, 4, 2)])
    if short:
        db.execute("select inventory_set(%s, 0)", (UUID(int=5),))
    for number in split:
        db.execute("select inventory_split(%s, 4)", (products[number],))
    rows = {number: "slots" if number in split else "items" for number in products}
    query = "select count(*)::int from (select from inventory_{} where product_id = %s for update skip locked) as free"
    free = {number: query.format(table) for number, table in rows.items()}
    holder, buyer, other = connect(), connect(autocommit=True), connect()
    holder.execute(free[awaited], (products[awaited],))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        found = {number: values(other, free[number], products[number])[0] for number in products if number != awaited}
        other.rollback()
        holder.rollback()

    assert waiting.result()["outcome"] == ("partial" if short else "complete")
    every = {number: 4 if number in split else 1 for number in products}
    assert found == {number: every[number] - (number < awaited) for number in products if number != awaited}


def test_slots_are_locked_upwards_when_all_are_needed(db, connect, add_cart, checkout_sql, split):
    """By a checkout that combines slots, and by whoever changes the stock: the product's row, then slot 1, 2, 3."""
    cart = add_cart(vendors=1, lines=1, quantity=5)
    product = cart.items[0].product_id
    split(product, [2, 2, 2])

    def restock(conn, _):
        conn.execute("select inventory_restock(%s, 1)", (product,))

    def split_again(conn, _):
        conn.execute("select inventory_split(%s, 3)", (product,))

    for call in (checkout_sql, restock, split_again):
        holder, caller, other = connect(), connect(), connect()
        holder.execute(LOCK_SLOT, (product, 2))

        with blocked(db, call, caller, cart):
            other.execute(TRY_SLOT, (product, 3))
            other.rollback()
            for taken in ((LOCK_ITEM + " nowait", (product,)), (TRY_SLOT, (product, 1))):
                with pytest.raises(psycopg.errors.LockNotAvailable):
                    other.execute(*taken)
                other.rollback()
            holder.rollback()

        caller.rollback()


def test_no_stock_is_held_while_a_cart_or_a_key_is_waited_for(db, connect, add_cart, checkout_sql):
    """Cart, key, stock: a hot product's row is held for as short as possible."""
    other_cart = add_cart()
    cart = add_cart(buyer_store_id=other_cart.buyer_store_id)
    stock = "select from inventory_items where product_id = any(%s) for update nowait"
    holder, buyer, other = connect(), connect(), connect()
    for hold in ("key", "cart"):
        if hold == "key":
            checkout_sql(holder, other_cart)
        else:
            holder.execute("select from cart_records where id = %s for update", (cart.id,))

        with blocked(db, checkout_sql, buyer, cart) as waiting:
            other.execute(stock, ([item.product_id for item in cart.items],))
            other.rollback()
            holder.rollback()

        assert waiting.result()["replayed"] is False
        buyer.rollback()


def test_waited_for_slot_is_given_back_before_all_are_locked(db, connect, add_cart, checkout_sql, split):
    """Otherwise it is held while a lower one is waited for, and whoever holds that one may want this one."""
    cart = add_cart(vendors=1, lines=1, quantity=4)
    product = cart.items[0].product_id
    split(product, [3, 5])
    taker, locker, buyer = connect(), connect(), connect(autocommit=True)
    locker.execute(LOCK_SLOT, (product, 1))
    taker.execute(LESS, (product,))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        taker.commit()  # slot 2 was waited for, and is too little now
        wait_until_blocked_by(db, buyer, locker)
        locker.execute(TRY_SLOT, (product, 2))
        locker.rollback()

    assert waiting.result()["outcome"] == "complete"
    assert values(db, "select reserved_qty from inventory_slots order by slot") == [3, 1]


def test_slot_that_was_locked_in_vain_is_given_back_before_anything_is_waited_for(
    db, connect, add_cart, checkout_sql, split
):
    """FOR UPDATE keeps a row that changed after the snapshot and no longer fits, though it does not return it."""
    cart = add_cart(vendors=1, lines=1, quantity=4)
    product = cart.items[0].product_id
    split(product, [3, 5])
    locker, buyer, gate = connect(), connect(autocommit=True), connect(autocommit=True)
    with paused_at(db, gate, buyer, "inventory_slots") as go_on, blocked(db, checkout_sql, buyer, cart) as waiting:
        db.execute(LESS.replace("slots", "slots_table"), (product,))
        locker.execute(LOCK_SLOT.replace("slots", "slots_table"), (product, 1))
        go_on()
        wait_until_blocked_by(db, buyer, locker)
        locker.execute(TRY_SLOT.replace("slots", "slots_table"), (product, 2))
        locker.rollback()

    assert waiting.result()["outcome"] == "complete"
    assert values(db, "select reserved_qty from inventory_slots order by slot") == [3, 1]


@pytest.mark.parametrize("slots", [[1, 1, 1, 1], [4, 4, 4, 4], [1, 4, 1, 4]], ids=["rows", "slots", "both"])
@pytest.mark.parametrize("rounds", [60, pytest.param(500, marks=pytest.mark.slow)])
def test_carts_in_opposite_order_neither_deadlock_nor_fall_short(db, pool, add_cart, checkout_sql, rounds, slots):
    products = [UUID(int=n) for n in range(1, 5)]
    for product, split in zip(products, slots, strict=True):
        db.execute("select inventory_set(%s, %s)", (product, 8 * rounds))
        db.execute("select inventory_split(%s, %s)", (product, split))
    carts = [add_cart(vendors=1, lines=4, products=products[:: 1 if n % 2 else -1]) for n in range(8 * rounds)]

    def buy(cart):
        with pool.connection() as conn:
            return checkout_sql(conn, cart)["outcome"]

    with ThreadPoolExecutor(8) as buyers:
        outcomes = Counter(buyers.map(buy, carts))

    assert outcomes == {"complete": 8 * rounds}
    assert values(db, "select reserved_qty from inventory_levels") == [8 * rounds] * 4


@pytest.mark.parametrize("rounds", [8, pytest.param(100, marks=pytest.mark.slow)])
def test_a_rush_for_the_last_units_of_several_slots_does_not_deadlock(db, pool, add_cart, checkout_sql, rounds):
    """Slots run dry while others look at them: this is when some lock one slot and others all of them."""
    products = [UUID(int=n) for n in range(1, 4)]
    for _ in range(rounds):
        for product in products:
            db.execute("select inventory_set(%s, 24)", (product,))
            db.execute("select inventory_split(%s, 8)", (product,))
        carts = [add_cart(vendors=1, lines=3, products=products[:: 1 if n % 2 else -1], quantity=2) for n in range(16)]

        def buy(cart):
            with pool.connection() as conn:
                return checkout_sql(conn, cart)["outcome"]

        with ThreadPoolExecutor(16) as buyers:
            outcomes = Counter(buyers.map(buy, carts))

        # Three units a slot: the last lines must combine two slots.
        assert outcomes == {"complete": 12, "rejected": 4}


def wait_until_blocked_by(conn, waiter, holder):
    blockers = "select pg_blocking_pids(%s)"
    wait_until(
        lambda: values(conn, blockers, waiter.info.backend_pid) == [[holder.info.backend_pid]],
        "the other backend never waited for this one",
        timeout=5,
    )
