"""Many callers at once: what must hold however they interleave. Known interleavings stand in the race tests."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest

from races import wait_until_blocked


def all_at_once(count, call):
    """The results of call(0) ... call(count - 1), begun together."""
    barrier = threading.Barrier(count)

    def run(number):
        barrier.wait(timeout=30)
        return call(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


@pytest.mark.parametrize("keys", ["one key", "many keys"])
def test_sixteen_calls_for_one_cart_convert_it_once(db, connect, add_cart, checkout_sql, keys):
    """IDEMPOTENCY & EMISSION, PF-174, PF-177: one conversion, one order a vendor, one intent an order, two events."""
    cart = add_cart(vendors=3)
    conns = [connect(autocommit=True) for _ in range(16)]

    answers = all_at_once(16, lambda n: checkout_sql(conns[n], cart, key="k" if keys == "one key" else f"k{n}"))

    assert Counter(answer["replayed"] for answer in answers) == {False: 1, True: 15}
    first = next(answer for answer in answers if not answer["replayed"])
    assert all(answer == first | {"replayed": answer["replayed"]} for answer in answers)
    counts = "select (select count(*) from {}), (select count(*) from {}), (select count(*) from {})"
    assert db.execute(counts.format("vendor_orders", "payment_intents", "outbox_events")).fetchone() == (3, 3, 2)


def test_a_second_call_waits_for_the_first_and_replays(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the second of two calls waits for the cart and returns the same result."""
    cart = add_cart()
    first, second = connect(), connect()

    converted = checkout_sql(first, cart)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(checkout_sql, second, cart, key="k2")
        wait_until_blocked(db, second.info.backend_pid)
        first.commit()
        answer = waiting.result(timeout=10)
    second.commit()

    assert answer == converted | {"replayed": True}


def test_a_waiting_call_converts_when_the_first_rolls_back(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: an attempt that was rolled back binds nothing."""
    cart = add_cart()
    first, second = connect(), connect(autocommit=True)

    checkout_sql(first, cart)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(checkout_sql, second, cart)
        wait_until_blocked(db, second.info.backend_pid)
        first.rollback()
        answer = waiting.result(timeout=10)

    assert answer["replayed"] is False


def test_one_key_raced_for_two_carts_is_never_a_unique_violation(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the loser is told that the key is taken."""
    buyer = UUID(int=7)
    one, other = add_cart(buyer_store_id=buyer), add_cart(buyer_store_id=buyer)
    first, second = connect(), connect(autocommit=True)

    checkout_sql(first, one, key="shared")
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(checkout_sql, second, other, key="shared")
        wait_until_blocked(db, second.info.backend_pid)
        first.commit()
        with pytest.raises(psycopg.Error) as refused:
            waiting.result(timeout=10)

    assert refused.value.sqlstate == "OC006"


@pytest.mark.parametrize("slots", [1, 16])
def test_two_hundred_buyers_get_exactly_the_fifty_units_there_are(db, pool, add_cart, checkout_sql, slots):
    """PF-178: no unit is sold twice, and none is left while someone is told that it is sold out."""
    product = UUID(int=50)
    db.execute("select inventory_set(%s, 50)", (product,))
    db.execute("select inventory_split(%s, %s)", (product, slots))
    carts = [add_cart(vendors=[UUID(int=1)], lines=1, products=[product]) for _ in range(200)]

    def buy(cart):
        with pool.connection() as conn:
            return checkout_sql(conn, cart)["outcome"]

    with ThreadPoolExecutor(16) as buyers:
        outcomes = Counter(buyers.map(buy, carts))

    assert outcomes == {"complete": 50, "rejected": 150}
    levels = "select available_qty, reserved_qty from inventory_levels where product_id = %s"
    assert db.execute(levels, (product,)).fetchone() == (0, 50)


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("rounds", [30, pytest.param(500, marks=pytest.mark.slow)])
def test_carts_of_opposite_order_neither_deadlock_nor_fall_short(db, pool, add_cart, checkout_sql, slots, rounds):
    """PF-178: lines of opposite order over the same products, eight at a time: no 40P01, no false shortage."""
    products = [UUID(int=n) for n in range(1, 5)]
    for product in products:
        db.execute("select inventory_set(%s, 100000)", (product,))
        db.execute("select inventory_split(%s, %s)", (product, slots))
    carts = [
        add_cart(vendors=[UUID(int=1)], lines=4, products=products if n % 2 else products[::-1])
        for n in range(8 * rounds)
    ]

    def buy(cart):
        with pool.connection() as conn:
            return checkout_sql(conn, cart)["outcome"]

    with ThreadPoolExecutor(8) as buyers:
        outcomes = Counter(buyers.map(buy, carts))

    assert outcomes == {"complete": 8 * rounds}


def test_a_line_waits_for_stock_that_is_only_locked_and_gets_it_after_a_rollback(db, connect, add_cart, checkout_sql):
    """PF-178: never "sold out" when it was only busy."""
    product = UUID(int=9)
    db.execute("select inventory_set(%s, 1)", (product,))
    cart = add_cart(vendors=1, lines=1, products=[product])
    holder, buyer = connect(), connect(autocommit=True)

    holder.execute("update inventory_items set available_qty = 0, reserved_qty = 1 where product_id = %s", (product,))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(checkout_sql, buyer, cart)
        wait_until_blocked(db, buyer.info.backend_pid)
        holder.rollback()
        answer = waiting.result(timeout=10)

    assert answer["outcome"] == "complete"


def test_a_cart_that_expires_while_its_lock_is_waited_for_is_refused(db, connect, add_cart, checkout_sql):
    """PF-173, TESTS: the quote is judged by the clock after the lock was got."""
    cart = add_cart()
    quoting, buyer = connect(), connect(autocommit=True)

    quoting.execute("update cart_records set valid_until = clock_timestamp() where id = %s", (cart.id,))
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(checkout_sql, buyer, cart)
        wait_until_blocked(db, buyer.info.backend_pid)
        quoting.commit()
        with pytest.raises(psycopg.Error) as refused:
            waiting.result(timeout=10)

    assert refused.value.sqlstate == "OC003"


def test_an_item_added_during_a_checkout_waits_and_is_refused(db, connect, add_cart, checkout_sql):
    """PF-174: an item is in the order or refused, never half."""
    cart = add_cart(vendors=1, lines=1)
    buyer, editor = connect(), connect(autocommit=True)
    add_line = """
    insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)
    values (%s, gen_random_uuid(), %s, 1, 100, 100)
    """

    answer = checkout_sql(buyer, cart)
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(editor.execute, add_line, (cart.id, cart.vendors[0]))
        wait_until_blocked(db, editor.info.backend_pid)
        buyer.commit()
        with pytest.raises(psycopg.Error) as refused:
            waiting.result(timeout=10)

    assert refused.value.sqlstate == "OC009"
    assert len(answer["vendor_orders"][0]["items"]) == 1


def test_an_item_added_before_the_checkout_got_its_lock_counts(db, connect, add_cart, checkout_sql):
    """PF-174: the checkout waits for the edit, and sees it whole: here it makes the quote contradict itself."""
    cart = add_cart(vendors=1, lines=1)
    editor, buyer = connect(), connect(autocommit=True)

    editor.execute(
        "insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)"
        " values (%s, gen_random_uuid(), %s, 1, 100, 100)",
        (cart.id, cart.vendors[0]),
    )
    with ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(checkout_sql, buyer, cart)
        wait_until_blocked(db, buyer.info.backend_pid)
        editor.commit()
        with pytest.raises(psycopg.Error) as refused:
            waiting.result(timeout=10)

    assert refused.value.sqlstate == "OC007"


def test_a_lock_timeout_is_busy_and_writes_nothing(db, connect, add_cart, checkout_sql, snapshot):
    """TESTS: 55P03 leaves nothing, and the same call succeeds afterwards."""
    cart = add_cart()
    before = snapshot(db)
    holder = connect()
    buyer = connect(autocommit=True, options="-c lock_timeout=100ms")
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    with pytest.raises(psycopg.errors.LockNotAvailable):
        checkout_sql(buyer, cart)

    assert snapshot(db) == before
    holder.rollback()
    assert checkout_sql(buyer, cart)["replayed"] is False


@pytest.mark.parametrize("level", [psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE])
def test_a_snapshot_older_than_the_stock_is_a_serialization_failure(db, connect, add_cart, checkout_sql, level):
    """TESTS: a stale snapshot never sells what is gone; the caller repeats its transaction."""
    product = UUID(int=3)
    db.execute("select inventory_set(%s, 1)", (product,))
    one, other = (add_cart(vendors=1, lines=1, products=[product]) for _ in range(2))
    conn = connect()
    conn.isolation_level = level
    conn.execute("select count(*) from cart_records")  # takes the snapshot

    assert checkout_sql(db, one)["outcome"] == "complete"
    with pytest.raises(psycopg.errors.SerializationFailure):
        checkout_sql(conn, other)

    conn.rollback()
    assert checkout_sql(conn, other)["outcome"] == "rejected"
    conn.commit()
