"""Stock rows are locked when all else is written, unless stock is seen to be too little."""

from uuid import UUID

import psycopg
import pytest
from crash import install_stops, release, stopped_at

from checks import values
from races import blocked

ANCHOR = "a0000000-0000-4000-8000-000000000000"
FREE = "select count(*) from (select from inventory_{} for update skip locked) as free"


@pytest.fixture(params=[1, 3], ids=["one row", "slots"])
def table(request, db, add_cart):
    """Where the stock of the cart's one product is."""
    cart = add_cart(vendors=1, lines=1, stock=None)
    db.execute("select inventory_set(%s, 5)", (cart.items[0].product_id,))
    db.execute("select inventory_split(%s, %s)", (cart.items[0].product_id, request.param))
    return cart, "items" if request.param == 1 else "slots"


@pytest.mark.parametrize(
    ("step", "locked"),
    [
        ("cart converted", 0),
        ("order without lines", 0),
        ("lines without intents", 0),
        ("intents written", 0),
        ("events written", 0),
        ("before the commit", 1),
    ],
)
def test_other_checkouts_can_have_the_stock_until_all_else_is_written(db, connect, table, checkout_sql, step, locked):
    cart, stock = table
    install_stops(db)
    watch = connect(autocommit=True)
    [rows] = values(db, f"select count(*) from inventory_{stock}")
    buyer = connect(autocommit=True)

    with stopped_at(db, step), blocked(watch, checkout_sql, buyer, cart) as waiting:
        [free] = values(watch, FREE.format(stock))
        release(db)

    assert waiting.result()["outcome"] == "complete"
    assert rows - free == locked


@pytest.mark.parametrize("full", [1, 2, 3])
def test_a_slot_of_another_session_that_has_enough_is_taken_last_too(db, connect, add_cart, checkout_sql, full):
    """A session's own slot runs dry before others do: its checkouts must not hold another's while they write."""
    cart = add_cart(vendors=1, lines=1, stock=None)
    db.execute("select inventory_set(%s, 0)", (cart.items[0].product_id,))
    db.execute("select inventory_split(%s, 3)", (cart.items[0].product_id,))
    db.execute("update inventory_slots set available_qty = 5 where slot = %s", (full,))
    install_stops(db)
    watch, buyer = connect(autocommit=True), connect(autocommit=True)

    with stopped_at(db, "events written"), blocked(watch, checkout_sql, buyer, cart) as waiting:
        [free] = values(watch, FREE.format("slots"))
        release(db)

    assert waiting.result()["outcome"] == "complete"
    assert free == 3


def without_time(result):
    """Nor with order numbers: those that were drawn and rolled back stay a gap."""
    orders = [
        {key: value for key, value in order.items() if key != "order_number"} for order in result["vendor_orders"]
    ]
    return {key: value for key, value in result.items() if key != "converted_at"} | {"vendor_orders": orders}


@pytest.mark.parametrize("policy", ["partial", "vendor"])
@pytest.mark.parametrize("slots", [1, 3], ids=["one row", "slots"])
def test_a_shortage_that_the_lock_shows_ends_as_one_that_was_seen_before(
    db, connect, add_cart, checkout_sql, policy, slots
):
    """The look saw five units, the lock shows four: the orders that were written meanwhile leave no trace."""
    cart = add_cart(vendors=2, lines=2, stock=5, quantity=5, cart={"checkout_group_id": ANCHOR})
    product = cart.items[1].product_id
    db.execute("select inventory_split(%s, %s)", (product, slots))
    feed, buyer, rehearsal = connect(), connect(autocommit=True), connect()
    rehearsal.execute("select inventory_set(%s, 4)", (product,))
    expected = checkout_sql(rehearsal, cart, reservation_policy=policy)
    rehearsal.rollback()
    feed.execute("select inventory_set(%s, 4)", (product,))

    with blocked(db, checkout_sql, buyer, cart, reservation_policy=policy) as waiting:
        feed.commit()

    assert expected["outcome"] == "partial"
    assert without_time(waiting.result()) == without_time(expected)
    assert values(db, "select count(*) from vendor_orders") == [2]
    assert values(db, "select count(*) from order_line_items") == [4]
    assert values(db, "select count(*) from outbox_events") == [2]
    assert values(db, "select coalesce(sum(reserved_qty), 0) from inventory_levels") == [
        15 if policy == "partial" else 10
    ]


def test_two_lines_that_only_together_want_too_much(db, add_cart, checkout_sql):
    """Each of them looks as if there were enough, so it is the lock that shows it."""
    product = add_cart(vendors=1, lines=1, stock=5).items[0].product_id
    cart = add_cart(vendors=1, lines=2, products=[product, product], quantity=3, stock=None)

    result = checkout_sql(db, cart)

    assert [item["status"] for item in result["vendor_orders"][0]["items"]] == ["pending", "rejected"]
    assert values(db, "select reserved_qty from inventory_levels where product_id = %s", product) == [3]


@pytest.mark.parametrize("split", [[1], [2], [4], [1, 2], [2, 4], [1, 2, 3, 4]])
def test_a_cart_of_products_in_rows_and_in_slots_writes_its_orders_once(dsn, db, add_cart, checkout_sql, split):
    """Its stock is there, so nothing is to be taken back, and of two lines of one product either has its hold."""
    products = [UUID(int=number) for number in (4, 2, 1, 3)]
    cart = add_cart(vendors=2, lines=3, products=[*products, products[0], products[2]], quantity=2, stock=16)
    for number in split:
        db.execute("select inventory_split(%s, 4)", (UUID(int=number),))
    written = "select n_tup_ins from pg_stat_xact_user_tables where relname = 'vendor_orders'"

    with psycopg.connect(dsn) as conn:
        assert checkout_sql(conn, cart)["outcome"] == "complete"
        assert values(conn, written) == [2]

    assert values(db, "select array[available_qty, reserved_qty] from inventory_levels order by product_id") == [
        [16 - wanted, wanted] for wanted in (4, 2, 2, 4)
    ]
    assert values(db, "select line_item_id from inventory_holds where qty = 2 order by line_item_id") == sorted(
        item.id for item in cart.items if item.product_id.int in split
    )


@pytest.mark.parametrize("split", [1, 3], ids=["none split", "one split"])
@pytest.mark.parametrize("size", [2, 12])
def test_each_product_gives_the_units_of_its_own_line(dsn, db, add_cart, checkout_sql, size, split):
    """In whatever order they are found: without a sort, as a hash has them. And the orders are written once."""
    written = "select n_tup_ins from pg_stat_xact_user_tables where relname = 'vendor_orders'"
    wanted = {}
    for number in range(24 // size):
        products = [UUID(int=number * size + place + 1) for place in range(size)]
        quantities = {(0, place): {"quantity": place + 1} for place in range(size)}
        cart = add_cart(vendors=1, lines=size, products=products, items=quantities, stock=100 * split)
        db.execute("select inventory_split(%s, %s)", (products[number % size], split))
        with psycopg.connect(dsn, options="-c enable_sort=off") as conn:
            assert checkout_sql(conn, cart)["outcome"] == "complete"
            assert values(conn, written) == [1]
        wanted |= {product: place + 1 for place, product in enumerate(products)}

    assert dict(db.execute("select product_id, reserved_qty from inventory_levels").fetchall()) == wanted


@pytest.mark.parametrize("slots", [1, 3], ids=["one row", "slots"])
def test_a_sold_out_cart_writes_its_orders_once(dsn, db, add_cart, checkout_sql, slots):
    """Thousands come when it is sold out. Each leaves no more dead rows behind than one that gets its goods."""
    cart = add_cart(vendors=2, lines=1, stock=1)
    sold_out = cart.items[0].product_id
    db.execute("select inventory_set(%s, 0)", (sold_out,))
    db.execute("select inventory_split(%s, %s)", (sold_out, slots))
    written = "select n_tup_ins from pg_stat_xact_user_tables where relname = 'vendor_orders'"

    with psycopg.connect(dsn) as conn:
        assert checkout_sql(conn, cart)["outcome"] == "partial"
        assert values(conn, written) == [2]


def test_a_wait_for_stock_leaves_the_stock_of_later_products_free(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=2, stock=5)
    first, second = sorted(item.product_id for item in cart.items)
    holder, buyer = connect(), connect(autocommit=True)
    holder.execute("select from inventory_items where product_id = %s for update", (first,))

    with blocked(db, checkout_sql, buyer, cart):
        db.execute("select inventory_adjust(%s, 1)", (second,))
        holder.rollback()
