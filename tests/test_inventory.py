"""PF-178: the stock functions: what they return, what they refuse, and what they do beside checkouts under way."""

from functools import partial
from uuid import UUID

import psycopg
import pytest

from checks import refused, row, values
from races import at_once, blocked

PRODUCT = UUID(int=5)
MOST = 2**31 - 1


@pytest.fixture(params=[1, 4], ids=["1 slot", "4 slots"])
def slots(request):
    return request.param


@pytest.fixture
def shelf(db, slots):
    """shelf(10): the product has ten units, over the slots that the test runs with."""

    def shelf(qty):
        db.execute("select inventory_set(%s, %s)", (PRODUCT, qty))
        db.execute("select inventory_split(%s, %s)", (PRODUCT, slots))

    return shelf


def call(conn, function, *args):
    placeholders = ", ".join("%s" for _ in args)
    return row(conn, f"select available_qty, reserved_qty, slots from {function}({placeholders})", *args)


def level(conn):
    return row(conn, "select available_qty, reserved_qty, slots from inventory_levels where product_id = %s", PRODUCT)


def test_each_function_returns_the_products_level(db, add_cart, checkout_sql, shelf, slots):
    shelf(10)
    checkout_sql(db, add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=3))
    for function, argument, available in (
        ("inventory_restock", 5, 12),
        ("inventory_adjust", -4, 8),
        ("inventory_adjust", 0, 8),
        ("inventory_adjust", 1, 9),
        ("inventory_set", 20, 20),
        ("inventory_set", 0, 0),
        ("inventory_restock", 1, 1),
        ("inventory_adjust", -1, 0),
    ):
        expected = {"available_qty": available, "reserved_qty": 3, "slots": slots}
        assert call(db, function, PRODUCT, argument) == expected == level(db)
    assert call(db, "inventory_split", PRODUCT, 7) == {"available_qty": 0, "reserved_qty": 3, "slots": 7} == level(db)


def test_the_level_names_the_product_and_the_last_change(db, shelf):
    shelf(10)
    [before] = values(db, "select clock_timestamp()")
    changed = row(db, "select * from inventory_restock(product_id => %s, qty => 1)", PRODUCT)
    assert changed == row(db, "select * from inventory_levels where product_id = %s", PRODUCT)
    assert changed["product_id"] == PRODUCT
    assert changed["updated_at"] > before


def test_stock_is_dated_when_it_is_written(db, connect, add_cart, checkout_sql, shelf, slots):
    """Not when the transaction began, which may have waited for long: each row that changed."""
    shelf(10)
    cart = add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=3)
    checkout_sql(db, cart)
    changes = ["order_line_fulfil(%(line)s)", "inventory_set(%(product)s, 8)",
               "inventory_restock(%(product)s, 1)", "inventory_adjust(%(product)s, 1)",
               "inventory_split(%(product)s, %(slots)s)"]  # fmt: skip
    for change in changes:
        with connect() as conn:
            conn.execute(f"select {change}", {"product": PRODUCT, "slots": slots, "line": cart.items[0].id})
            dates = values(
                conn,
                "select updated_at > now() from inventory_items where slots = 1 union all"
                " select bool_or(updated_at > now()) from inventory_slots having count(*) > 0",
            )
            assert dates == [True], change


@pytest.mark.parametrize(
    ("function", "argument", "available"),
    [("inventory_set", 7, 7), ("inventory_set", 0, 0), ("inventory_restock", 7, 7), ("inventory_adjust", 7, 7)],
)
def test_a_product_gets_its_row_with_its_first_stock(db, function, argument, available):
    expected = {"available_qty": available, "reserved_qty": 0, "slots": 1}
    assert call(db, function, PRODUCT, argument) == expected == level(db)


@pytest.mark.parametrize(
    ("function", "argument", "field"),
    [
        ("inventory_restock", 0, "qty"),
        ("inventory_restock", -1, "qty"),
        ("inventory_restock", None, "qty"),
        ("inventory_set", -1, "available"),
        ("inventory_set", None, "available"),
        ("inventory_adjust", None, "delta"),
        ("inventory_split", 0, "slots"),
        ("inventory_split", -1, "slots"),
        ("inventory_split", 257, "slots"),
        ("inventory_split", None, "slots"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused(db, snapshot, function, argument, field):
    db.execute("select inventory_set(%s, 5)", (PRODUCT,))
    before = snapshot(db)
    with refused("OC005") as refusal:
        call(db, function, PRODUCT, argument)
    assert refusal.detail["field"] == field
    assert snapshot(db) == before


@pytest.mark.parametrize("function", ["inventory_restock", "inventory_set", "inventory_adjust", "inventory_split"])
def test_a_product_must_be_named(db, function):
    with refused("OC005") as refusal:
        call(db, function, None, 1)
    assert refusal.detail["field"] == "product_id"


def test_a_product_without_a_row_cannot_be_split(db, snapshot):
    before = snapshot(db)
    with refused("OC005") as refusal:
        call(db, "inventory_split", PRODUCT, 4)
    assert refusal.detail["field"] == "product_id"
    assert snapshot(db) == before


def test_no_more_can_be_taken_than_is_available(db, add_cart, checkout_sql, shelf, snapshot):
    shelf(5)
    checkout_sql(db, add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=2))
    before = snapshot(db)
    for delta in (-4, -MOST - 1):
        with refused("OC010") as refusal:
            call(db, "inventory_adjust", PRODUCT, delta)
        assert refusal.detail == {"product_id": str(PRODUCT), "available": 3, "delta": delta}
    with refused("OC010"):
        call(db, "inventory_adjust", UUID(int=6), -1)
    assert snapshot(db) == before


def test_more_than_the_columns_hold_is_refused_and_nothing_is_lost(db, snapshot):
    db.execute("select inventory_set(%s, %s)", (PRODUCT, MOST))
    before = snapshot(db)
    for function in ("inventory_restock", "inventory_adjust"):
        with refused("OC005") as refusal:
            call(db, function, PRODUCT, 1)
        assert refusal.detail["field"] == "available"
        assert str(MOST + 1) in refusal.message
    assert snapshot(db) == before

    # Two slots hold twice as much; they cannot be merged any more, nor be filled further.
    call(db, "inventory_split", PRODUCT, 2)
    assert call(db, "inventory_restock", PRODUCT, MOST)["available_qty"] == 2 * MOST
    before = snapshot(db)
    for function, argument in (("inventory_restock", 1), ("inventory_split", 1)):
        with refused("OC005") as refusal:
            call(db, function, PRODUCT, argument)
        assert refusal.detail["field"] == "available"
    assert snapshot(db) == before


@pytest.mark.breaks_invariants  # reserved for no line
def test_more_reserved_units_than_one_row_holds_stay_where_they_are(db, snapshot):
    db.execute("select inventory_set(%s, 0)", (PRODUCT,))
    call(db, "inventory_split", PRODUCT, 2)
    db.execute("update inventory_slots set reserved_qty = %s", (MOST,))
    before = snapshot(db)
    with refused("OC005") as refusal:
        call(db, "inventory_split", PRODUCT, 1)
    assert refusal.detail["field"] == "slots"
    assert snapshot(db) == before


@pytest.mark.breaks_invariants  # reserved for no line
def test_a_checkout_that_reserves_more_than_the_column_holds_is_an_error_and_sells_nothing(
    db, add_cart, checkout_sql, snapshot, shelf, slots
):
    shelf(4 * slots)
    cart = add_cart(vendors=1, lines=1, products=[PRODUCT])
    db.execute(f"update inventory_{'items' if slots == 1 else 'slots'} set reserved_qty = %s", (MOST,))
    before = snapshot(db)
    with refused("OC007") as refusal:
        checkout_sql(db, cart)
    assert (refusal.detail["problem"], refusal.detail["product_id"]) == ("reserved_qty", str(PRODUCT))
    assert (refusal.detail["requested"], refusal.detail["reserved"]) == (1, MOST)
    assert snapshot(db) == before


@pytest.mark.parametrize("stock", [None, 0], ids=["no row", "no units"])
def test_a_product_without_stock_is_short(db, add_cart, checkout_sql, stock):
    cart = add_cart(vendors=1, lines=1, stock=stock)
    assert checkout_sql(db, cart)["outcome"] == "rejected"
    with refused("OC010") as refusal:
        checkout_sql(db, add_cart(vendors=1, lines=1, stock=stock), reservation_policy="all")
    assert [item["available"] for item in refusal.detail["items"]] == [0]
    assert values(db, "select count(*) from inventory_items") == [0 if stock is None else 2]


def test_a_quantity_beyond_all_stock_is_short(db, add_cart, checkout_sql, shelf):
    """Two lines whose quantities add up to more than an integer holds."""
    shelf(5)
    cart = add_cart(vendors=1, lines=2, products=[PRODUCT, PRODUCT], quantity=MOST, unit_price_cents=0)
    assert checkout_sql(db, cart)["outcome"] == "rejected"
    assert level(db)["available_qty"] == 5


def test_stock_changes_wait_for_a_checkout_and_keep_what_it_reserved(db, connect, add_cart, checkout_sql, shelf, slots):
    shelf(10)
    for function, argument, expected in (
        ("inventory_restock", 5, (14, 1, slots)),
        ("inventory_adjust", -3, (10, 2, slots)),
        ("inventory_set", 10, (10, 3, slots)),
        ("inventory_split", 3, (9, 4, 3)),
        ("inventory_split", 1, (8, 5, 1)),
    ):
        buyer, clerk = connect(), connect(autocommit=True)
        checkout_sql(buyer, add_cart(vendors=1, lines=1, products=[PRODUCT]))
        with blocked(db, call, clerk, function, PRODUCT, argument) as waiting:
            buyer.commit()
        expected = dict(zip(("available_qty", "reserved_qty", "slots"), expected, strict=True))
        assert waiting.result() == expected == level(db), function


def test_an_adjustment_judges_what_the_checkout_before_it_left(db, connect, add_cart, checkout_sql, shelf):
    shelf(5)
    buyer, clerk = connect(), connect(autocommit=True)
    checkout_sql(buyer, add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=3))

    with blocked(db, call, clerk, "inventory_adjust", PRODUCT, -3) as waiting:
        buyer.commit()
        with refused("OC010") as refusal:
            waiting.result(timeout=10)
    assert refusal.detail["available"] == 2


@pytest.mark.parametrize("function", ["inventory_restock", "inventory_set", "inventory_adjust"])
def test_two_who_stock_a_new_product_wait_for_each_other(db, connect, function):
    first, second = connect(), connect(autocommit=True)
    call(first, function, PRODUCT, 3)

    with blocked(db, call, second, function, PRODUCT, 4) as waiting:
        first.commit()

    assert waiting.result()["available_qty"] == (4 if function == "inventory_set" else 7)


@pytest.mark.parametrize("function", ["inventory_restock", "inventory_set", "inventory_adjust"])
def test_stock_is_not_lost_when_the_host_deletes_the_row_meanwhile(db, connect, function):
    db.execute("select inventory_set(%s, 1)", (PRODUCT,))
    host, clerk = connect(), connect(autocommit=True)
    host.execute("select from inventory_items for update")

    with blocked(db, call, clerk, function, PRODUCT, 4) as waiting:
        host.execute("delete from inventory_items")
        host.commit()

    assert waiting.result() == {"available_qty": 4, "reserved_qty": 0, "slots": 1} == level(db)


def test_restocks_at_once_all_count(db, connect, shelf):
    shelf(0)
    conns = [connect(autocommit=True) for _ in range(8)]

    def restock(conn):
        for _ in range(10):
            call(conn, "inventory_restock", PRODUCT, 1)

    at_once(*[partial(restock, conn) for conn in conns])
    assert level(db)["available_qty"] == 80


def test_the_hosts_own_upserts_of_an_unsplit_product_work(db, connect, add_cart, checkout_sql):
    """They name none of our columns, and wait for a checkout as they always did."""
    upsert = """
        insert into inventory_items (product_id, available_qty, updated_at) values (%s, %s, now())
        on conflict (product_id) do update set available_qty = excluded.available_qty, updated_at = excluded.updated_at
    """
    db.execute(upsert, (PRODUCT, 5))
    buyer, feed = connect(), connect(autocommit=True)
    checkout_sql(buyer, add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=2))

    with blocked(db, psycopg.Connection.execute, feed, upsert, (PRODUCT, 7)):
        buyer.commit()

    assert level(db) == {"available_qty": 7, "reserved_qty": 2, "slots": 1}
