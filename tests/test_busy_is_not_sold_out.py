"""PF-178: a line is rejected for want of stock alone, never because others have the stock locked.

Reported elsewhere as: "sold out" to a buyer while a cart holds the units that is then abandoned.
"""

import pytest
from psycopg import sql

from checks import refused, values
from races import blocked

ORDERED = [("created_pending", ["pending"])]
REJECTED = [("rejected", ["rejected"])]


def states(result):
    return [(order["status"], [item["status"] for item in order["items"]]) for order in result["vendor_orders"]]


@pytest.fixture
def stock(db):
    """stock(product_id, 5): all in the product's own row. stock(product_id, 5, 3): in slots 1 and 2."""

    def stock(product_id, *units):
        db.execute("select inventory_set(%s, %s)", (product_id, sum(units)))
        if len(units) > 1:
            db.execute("select inventory_split(%s, %s)", (product_id, len(units)))
            for slot, qty in enumerate(units, start=1):
                db.execute("update inventory_slots set available_qty = %s where slot = %s", (qty, slot))

    return stock


def take(conn, qty, *slots):
    """Another checkout under way: it has these units, of these slots, and may still give them back."""
    if slots:
        condition = sql.SQL("inventory_slots set version = version + 1, {} where slot = any(%(slots)s)")
    else:
        condition = sql.SQL("inventory_items set {}")
    taken = sql.SQL("available_qty = available_qty - %(qty)s")
    conn.execute(sql.SQL("update ") + condition.format(taken), {"qty": qty, "slots": list(slots)})


# What is on the shelf, what another transaction holds of it (units of each of these slots), and what is wanted.
HELD = {
    "the only slot": ([4], (4,), [4]),
    "the only slot, part of it": ([4], (1,), [4]),
    "one of many slots": ([4, 1, 1], (4, 1), [4]),
    "every slot that has enough": ([4, 4, 1], (4, 1, 2), [4]),
    "every slot": ([4, 4, 4], (4, 1, 2, 3), [4]),
    "the first of slots to combine": ([2, 2, 2], (2, 1), [5]),
    "the last of slots to combine": ([2, 2, 2], (2, 3), [5]),
    "all slots to combine": ([2, 2, 2], (2, 1, 2, 3), [6]),
    "two lines, the only slot": ([4], (4,), [2, 2]),
    "two lines, one of many slots": ([4, 1, 1], (4, 1), [2, 2]),
    "two lines, slots to combine": ([2, 2, 2], (2, 1, 2, 3), [3, 3]),
}


@pytest.fixture
def cart(add_cart):
    def cart(quantities):
        product = add_cart(vendors=1, lines=1, stock=None).items[0].product_id
        items = {(0, n): {"quantity": qty} for n, qty in enumerate(quantities)}
        return add_cart(vendors=1, lines=len(quantities), products=[product] * len(quantities), items=items, stock=None)

    return cart


@pytest.mark.parametrize(("shelf", "held", "wanted"), HELD.values(), ids=HELD)
def test_a_line_gets_stock_whose_holder_rolls_back(db, connect, cart, stock, checkout_sql, shelf, held, wanted):
    cart = cart(wanted)
    stock(cart.items[0].product_id, *shelf)
    holder, buyer = connect(), connect(autocommit=True)
    take(holder, *held)

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        holder.rollback()

    answer = waiting.result()
    assert answer["outcome"] == "complete"
    assert states(answer) == [("created_pending", ["pending"] * len(wanted))]
    level = "select array[available_qty, reserved_qty] from inventory_levels"
    assert values(db, level) == [[sum(shelf) - sum(wanted), sum(wanted)]]


@pytest.mark.parametrize("policy", ["partial", "vendor", "all"])
@pytest.mark.parametrize(
    ("shelf", "held", "wanted"),
    [
        pytest.param([4], (1,), [4], id="the only slot"),
        pytest.param([4, 1, 1], (3, 1), [4], id="one of many slots"),
        pytest.param([2, 2, 2], (1, 1, 2), [5], id="slots to combine"),
    ],
)
@pytest.mark.breaks_invariants  # the holder takes stock for no line
def test_a_line_is_short_once_the_holder_commits(
    db, connect, cart, stock, checkout_sql, snapshot, shelf, held, wanted, policy
):
    cart = cart(wanted)
    stock(cart.items[0].product_id, *shelf)
    holder, buyer = connect(), connect(autocommit=True)
    take(holder, *held)

    with blocked(db, checkout_sql, buyer, cart, reservation_policy=policy) as waiting:
        holder.commit()
        before = snapshot(db)
        if policy == "all":
            with refused("OC010") as refusal:
                waiting.result(timeout=10)

    left = sum(shelf) - held[0] * max(len(held) - 1, 1)
    if policy == "all":
        assert [item["available"] for item in refusal.detail["items"]] == [left]
        assert snapshot(db) == before
    else:
        assert states(waiting.result()) == REJECTED
    assert values(db, "select array[available_qty, reserved_qty] from inventory_levels") == [[left, 0]]


@pytest.mark.breaks_invariants  # the holder takes stock for no line
def test_what_the_holder_leaves_goes_to_the_lines_that_fit(db, connect, cart, stock, checkout_sql):
    cart = cart([2, 2])
    stock(cart.items[0].product_id, 4)
    holder, buyer = connect(), connect(autocommit=True)
    take(holder, 1)

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        holder.commit()

    assert states(waiting.result()) == [("created_pending", ["pending", "rejected"])]


def test_a_checkout_does_not_wait_while_another_slot_has_enough(connect, cart, stock, checkout_sql):
    """FOR UPDATE SKIP LOCKED, from whichever slot the session begins at."""
    cart = cart([2])
    stock(cart.items[0].product_id, 2, 2, 2, 2)
    for free in range(1, 5):
        holder, buyer = connect(), connect()
        holder.execute("select from inventory_slots where slot <> %s for update", (free,))
        buyer.execute("set lock_timeout = 1")  # ms: it may not wait at all
        assert checkout_sql(buyer, cart)["outcome"] == "complete"
        assert values(buyer, "select slot from inventory_slots where reserved_qty > 0") == [free]
        buyer.rollback()
        holder.rollback()


def test_lines_of_several_products_take_what_is_free_too(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=2, lines=2, stock=6, quantity=3)
    db.execute("select inventory_split(product_id, 2) from inventory_items")
    holder, buyer = connect(), connect(autocommit=True, options="-c lock_timeout=1ms")
    holder.execute("select from inventory_slots where slot = 1 for update")

    assert checkout_sql(buyer, cart)["outcome"] == "complete"


def test_a_split_products_own_row_is_not_waited_for_while_a_slot_has_enough(connect, cart, stock, checkout_sql):
    """So a restock under way, which begins at slot 0, is in nobody's way until it reaches a slot."""
    cart = cart([2])
    stock(cart.items[0].product_id, 2, 2)
    holder, buyer = connect(), connect(autocommit=True, options="-c lock_timeout=1ms")
    holder.execute("select from inventory_items for update")

    assert checkout_sql(buyer, cart)["outcome"] == "complete"


def test_one_slot_alone_is_waited_for_when_all_with_enough_are_locked(db, connect, cart, stock, checkout_sql):
    """To wait for all of them would make a convoy: what is not waited for stays free for the next buyer."""
    cart = cart([2])
    stock(cart.items[0].product_id, 4, 4, 1)
    holders = {slot: connect() for slot in (1, 2)}
    buyer, other = connect(), connect(options="-c lock_timeout=1ms")
    for slot, holder in holders.items():
        holder.execute("select from inventory_slots where slot = %s for update", (slot,))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        [[pid]] = values(db, "select pg_blocking_pids(%s)", buyer.info.backend_pid)
        [wanted] = [slot for slot, holder in holders.items() if holder.info.backend_pid == pid]
        holders[3 - wanted].rollback()
        # Neither slot 0, nor a slot too small, nor the one that came free meanwhile is held.
        other.execute("select from inventory_items for update")
        other.execute("select from inventory_slots where slot <> %s for update", (wanted,))
        other.rollback()
        holders[wanted].rollback()

    assert waiting.result()["outcome"] == "complete"
    assert values(buyer, "select slot from inventory_slots where reserved_qty > 0") == [wanted]
    buyer.rollback()


def test_two_lines_of_one_product_never_take_more_than_there_is(db, cart, stock, checkout_sql):
    """Three units, two lines of two: the line with the lower id gets them."""
    for shelf in ([3], [3, 0], [2, 1], [1, 1, 1]):
        two = cart([2, 2])
        with db.transaction(force_rollback=True):
            stock(two.items[0].product_id, *shelf)
            answer = checkout_sql(db, two)
            [items] = [order["items"] for order in answer["vendor_orders"]]
            lower, higher = sorted(str(item.id) for item in two.items)
            assert [(item["cart_item_id"], item["status"]) for item in items] == [
                (lower, "pending"),
                (higher, "rejected"),
            ]
            assert values(db, "select array[available_qty, reserved_qty] from inventory_levels") == [[1, 2]]


def test_a_split_under_way_is_waited_for(db, connect, cart, stock, checkout_sql):
    """Between the checkout's look at the product and its lock, the stock moves to slots or back."""
    for before, after in ((1, 4), (4, 1), (4, 2), (2, 4)):
        wanting = cart([4])
        product = wanting.items[0].product_id
        db.execute("select inventory_set(%s, 4)", (product,))
        db.execute("select inventory_split(%s, %s)", (product, before))
        splitter, buyer = connect(), connect(autocommit=True)
        splitter.execute("select inventory_split(%s, %s)", (product, after))

        with blocked(db, checkout_sql, buyer, wanting) as waiting:
            splitter.commit()

        assert waiting.result()["outcome"] == "complete", (before, after)
        level = "select array[available_qty, reserved_qty, slots] from inventory_levels where product_id = %s"
        assert values(db, level, product) == [[0, 4, after]]


def test_a_restock_under_way_is_waited_for(db, connect, cart, checkout_sql):
    for slots in (1, 4):
        wanting = cart([4])
        product = wanting.items[0].product_id
        db.execute("select inventory_set(%s, 1)", (product,))
        db.execute("select inventory_split(%s, %s)", (product, slots))
        feed, buyer = connect(), connect(autocommit=True)
        feed.execute("select inventory_restock(%s, 3)", (product,))

        with blocked(db, checkout_sql, buyer, wanting) as waiting:
            feed.commit()

        assert waiting.result()["outcome"] == "complete"


def test_who_waited_for_a_slot_has_it_as_it_is_now_and_holds_no_other(db, connect, cart, stock, checkout_sql):
    """All of them would be waited for by everybody else."""
    cart = cart([1])
    stock(cart.items[0].product_id, 10, 0)
    holder, buyer, other = connect(), connect(), connect()
    take(holder, 3, 1)

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        holder.commit()

    assert states(waiting.result()) == ORDERED
    assert values(other, "select available_qty from inventory_slots where slot = 2 for update nowait") == [0]
    buyer.commit()
    assert values(db, "select available_qty from inventory_slots order by slot") == [6, 0]


def test_two_buyers_of_the_last_unit(db, connect, add_cart, checkout_sql):
    first_cart = add_cart(vendors=1, lines=1, stock=1)
    second_cart = add_cart(vendors=1, lines=1, products=[first_cart.items[0].product_id])
    first, second = connect(), connect(autocommit=True)
    assert states(checkout_sql(first, first_cart)) == ORDERED

    with blocked(db, checkout_sql, second, second_cart) as waiting:
        first.commit()

    assert states(waiting.result()) == REJECTED


def test_the_reservation_decides_on_what_is_there_not_on_what_the_quote_saw(db, connect, add_cart, checkout_sql):
    """The stock is lowered between the validation of the cart and the reservation."""
    cart = add_cart(vendors=1, lines=1, stock=5, quantity=5)
    product = cart.items[0].product_id
    feed, buyer = connect(), connect(autocommit=True)
    feed.execute("select inventory_set(%s, 4)", (product,))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        feed.commit()

    assert states(waiting.result()) == REJECTED
