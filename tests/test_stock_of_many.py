"""inventory_set_many and inventory_get: the stock of many products in one call."""

import random
import time
from functools import partial
from uuid import UUID

import pytest
from psycopg.types.json import Jsonb

import pycheckout
from checks import refused, rows, values
from races import at_once, blocked

pytest_plugins = ["shared"]


@pytest.fixture
def db(undone_if_alone):
    return undone_if_alone


FIRST, SECOND, THIRD = (UUID(int=number) for number in (5, 6, 7))
MOST = 2**31 - 1


def entry(product, available):
    return {"product_id": str(product), "available": available}


def set_many(conn, *levels):
    [number] = values(conn, "select inventory_set_many(%s)", Jsonb([entry(*level) for level in levels]))
    return number


def get(conn, *products):
    [answer] = values(conn, "select inventory_get(%s::uuid[])", list(products))
    assert list(answer) == ["levels"]
    return answer["levels"]


def levels(conn):
    return {each["product_id"]: each["available_qty"] for each in rows(conn, "select * from inventory_levels")}


# inventory_set_many


def test_many_products_are_set_in_one_call(db, add_cart, checkout_sql):
    """With a row or without, split or not, whatever order lines hold; others stay as they are."""
    db.execute("select inventory_set(%s, 9), inventory_split(%s, 4)", [FIRST, FIRST])
    db.execute("select inventory_set(%s, 9)", [SECOND])
    db.execute("select inventory_set(%s, 9)", [UUID(int=8)])
    checkout_sql(db, add_cart(vendors=1, lines=2, products=[FIRST, SECOND], quantity=2))

    assert set_many(db, (THIRD, 30), (FIRST, 10), (SECOND, 0)) == 3

    assert levels(db) == {FIRST: 10, SECOND: 0, THIRD: 30, UUID(int=8): 9}
    assert values(db, "select available_qty from inventory_slots order by slot") == [3, 3, 2, 2]
    assert values(db, "select reserved_qty from inventory_levels where product_id < %s order by product_id", THIRD) == [
        2,
        2,
    ]


@pytest.mark.parametrize("slots", [1, 2, 7, 256])
@pytest.mark.parametrize("available", [0, 1, 5, 1000, MOST])
def test_a_product_is_set_as_inventory_set_sets_it(db, slots, available):
    for product in (FIRST, SECOND):
        db.execute("select inventory_set(%s, 3)", [product])
        db.execute("select inventory_split(%s, %s)", [product, slots])
    db.execute("select inventory_set(%s, %s)", [FIRST, available])
    assert set_many(db, (SECOND, available)) == 1
    query = "select available_qty from inventory_slots where product_id = %s order by slot"
    assert values(db, query, FIRST) == values(db, query, SECOND)
    assert levels(db) == {FIRST: available, SECOND: available}


def test_no_product_is_no_change(db, snapshot):
    before = snapshot(db)
    assert set_many(db) == 0
    assert snapshot(db) == before


def test_stock_is_dated_after_the_wait_for_it(db, connect):
    set_many(db, (FIRST, 1), (SECOND, 1))
    db.execute("select inventory_split(%s, 2)", [SECOND])
    with connect() as conn:
        conn.execute("select now()")
        set_many(conn, (FIRST, 2), (SECOND, 2))
        query = (
            "select updated_at > now() from inventory_items union all select updated_at > now() from inventory_slots"
        )
        assert values(conn, query) == [True] * 4


BAD = {
    "no array": ({}, "levels"),
    "null": (None, "levels"),
    "no object": ([entry(FIRST, 1), 5], "levels[1]"),
    "null in it": ([None], "levels[0]"),
    "no product": ([{"available": 1}], "levels[0].product_id"),
    "null product": ([{"product_id": None, "available": 1}], "levels[0].product_id"),
    "no number": ([entry(FIRST, 1), {"product_id": str(SECOND)}], "levels[1].available"),
    "null number": ([entry(FIRST, None)], "levels[0].available"),
    "no uuid": ([entry("x", 1)], "levels[0].product_id"),
    "a number for a uuid": ([{"product_id": 5, "available": 1}], "levels[0].product_id"),
    "below 0": ([entry(FIRST, -1)], "levels[0].available"),
    "half a unit": ([entry(FIRST, 1.5)], "levels[0].available"),
    "a text": ([entry(FIRST, "1")], "levels[0].available"),
    "too many units": ([entry(FIRST, MOST + 1)], "levels[0].available"),
    "a misspelt field": ([entry(FIRST, 1) | {"availabel": 1}], "levels[0].availabel"),
    "twice": ([entry(FIRST, 1), entry(SECOND, 1), entry(FIRST, 1)], "levels[2].product_id"),
    "twice, spelt otherwise": ([entry(FIRST, 1), entry("{" + str(FIRST).upper() + "}", 1)], "levels[1].product_id"),
    "the first of several": ([entry(FIRST, 1), entry("x", -1), entry(FIRST, -1)], "levels[1].available"),
    "too many": ([entry(UUID(int=n), 1) for n in range(10_001)], "levels"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_told_by_its_place_and_nothing_is_set(db, snapshot, case):
    given, field = BAD[case]
    before = snapshot(db)
    with refused("OC005") as refusal:
        db.execute("select inventory_set_many(%s)", [None if given is None else Jsonb(given)])
    assert refusal.detail["field"] == field
    assert snapshot(db) == before


def test_numbers_of_units_are_read_as_those_of_a_quote_are(db):
    for number, units in (("4e1", 40), ("-0", 0)):
        db.execute("select inventory_set_many(%s)", [f'[{{"product_id": "{FIRST}", "available": {number}}}]'])
        assert levels(db) == {FIRST: units}
    with refused("OC005"):
        db.execute("select inventory_set_many(%s)", [f'[{{"product_id": "{FIRST}", "available": 40.0}}]'])


@pytest.mark.usefixtures("dsn")  # takes the time of calls that each commit
def test_ten_thousand_products_are_set_in_seconds(db):
    products = [(UUID(int=number + 1), number % 50) for number in range(10_000)]
    random.Random(7).shuffle(products)
    for _ in range(2):  # new ones, then those that are there
        began = time.monotonic()
        assert set_many(db, *products) == 10_000
        assert time.monotonic() - began < 10
    assert levels(db) == dict(products)


# Beside others


@pytest.mark.parametrize("slots", [1, 3])
def test_it_waits_for_a_checkout_and_keeps_what_that_reserved(db, connect, add_cart, checkout_sql, slots):
    set_many(db, (FIRST, 10), (SECOND, 10))
    db.execute("select inventory_split(%s, %s)", [SECOND, slots])
    buyer, feed = connect(), connect(autocommit=True)
    checkout_sql(buyer, add_cart(vendors=1, lines=2, products=[FIRST, SECOND], quantity=2))

    with blocked(db, set_many, feed, (SECOND, 7), (FIRST, 6)) as waiting:
        buyer.commit()

    assert waiting.result(timeout=10) == 2
    assert levels(db) == {FIRST: 6, SECOND: 7}
    assert values(db, "select reserved_qty from inventory_levels") == [2, 2]


def test_it_locks_products_in_their_order_whatever_order_it_was_given(db, connect):
    """While it waits for the first one, the others are free; with another order the two would deadlock."""
    set_many(db, (FIRST, 1), (SECOND, 1), (THIRD, 1))
    clerk, feed = connect(), connect(autocommit=True)
    clerk.execute("select inventory_adjust(%s, 1)", [FIRST])

    with blocked(db, set_many, feed, (THIRD, 5), (SECOND, 5), (FIRST, 5)) as waiting:
        for product in (SECOND, THIRD):
            clerk.execute("select inventory_adjust(%s, 1)", [product])
        clerk.commit()

    assert waiting.result(timeout=10) == 3
    assert levels(db) == {FIRST: 5, SECOND: 5, THIRD: 5}


def test_the_slots_of_a_product_are_locked_before_the_next_product_is(db, connect):
    """As in a checkout, which holds a slot of one product while it waits for the next."""
    set_many(db, (FIRST, 8), (SECOND, 8))
    db.execute("select inventory_split(%s, 2)", [FIRST])
    buyer, feed = connect(), connect(autocommit=True)
    buyer.execute("select from inventory_slots where product_id = %s and slot = 1 for update", [FIRST])

    with blocked(db, set_many, feed, (SECOND, 5), (FIRST, 5)) as waiting:
        buyer.execute("select from inventory_items where product_id = %s for update nowait", [SECOND])
        buyer.commit()

    assert waiting.result(timeout=10) == 2


def test_new_products_of_two_feeds_at_once_wait_for_each_other(db, connect):
    first, second = connect(), connect(autocommit=True)
    set_many(first, (FIRST, 1), (SECOND, 1))
    with blocked(db, set_many, second, (SECOND, 2), (FIRST, 2), (THIRD, 2)) as waiting:
        first.commit()
    assert waiting.result(timeout=10) == 3
    assert levels(db) == {FIRST: 2, SECOND: 2, THIRD: 2}


def test_feeds_checkouts_and_splits_at_once_never_deadlock(db, connect, add_cart, checkout_sql):
    products = [UUID(int=number) for number in range(1, 7)]
    set_many(db, *[(product, 1000) for product in products])
    for product in products[::2]:
        db.execute("select inventory_split(%s, 3)", [product])
    carts = [add_cart(vendors=2, lines=3, products=products) for _ in range(12)]

    def feed(conn, seed):
        mine = random.Random(seed)
        for _ in range(12):
            set_many(conn, *[(product, 1000) for product in mine.sample(products, 5)])

    def split(conn):
        for number in range(12):
            conn.execute("select inventory_split(%s, %s)", [products[number % 6], 1 + number % 3])

    def buy(conn, own):
        for cart in own:
            checkout_sql(conn, cart)

    calls = [
        *[partial(feed, connect(autocommit=True), seed) for seed in range(2)],
        partial(split, connect(autocommit=True)),
        *[partial(buy, connect(autocommit=True), carts[part::2]) for part in range(2)],
    ]
    assert at_once(*calls) == [None] * len(calls)


# inventory_get


def test_levels_are_shown_by_product_as_the_view_has_them(db, add_cart, checkout_sql):
    set_many(db, (FIRST, 10), (SECOND, 20), (THIRD, 30))
    db.execute("select inventory_split(%s, 4)", [SECOND])
    checkout_sql(db, add_cart(vendors=1, lines=2, products=[FIRST, SECOND], quantity=2))

    shown = get(db, THIRD, UUID(int=8), FIRST, SECOND, FIRST)

    assert [list(level) for level in shown] == [
        ["product_id", "available_qty", "reserved_qty", "slots", "updated_at"]
    ] * 3
    assert [[*level.values()][:4] for level in shown] == [
        [str(FIRST), 8, 2, 1],
        [str(SECOND), 18, 2, 4],
        [str(THIRD), 30, 0, 1],
    ]
    written = values(db, "select checkout_timestamp(updated_at) from inventory_levels order by product_id")
    assert [level["updated_at"] for level in shown] == written


def test_no_product_has_no_level(db):
    assert get(db) == get(db, FIRST) == []


def test_a_product_has_its_level_or_none(db):
    set_many(db, (FIRST, 10), (SECOND, 20))
    db.execute("select inventory_split(%s, 4)", [SECOND])
    stock = pycheckout.Checkout(db).stock

    found = [stock.level(product) for product in (FIRST, SECOND, THIRD)]

    assert found == [*stock.levels([FIRST, SECOND]).levels, None]
    with pytest.raises(pycheckout.InvalidRequest, match="must be an array of ids, without null"):
        stock.level(None)


@pytest.mark.parametrize("given", [None, [None], [FIRST, None], [FIRST] * 10_001])
def test_products_must_be_named(db, given):
    with refused("OC005") as refusal:
        db.execute("select inventory_get(%s::uuid[])", [given])
    assert refusal.detail["field"] == "product_ids"


def test_an_array_of_arrays_is_the_products_in_it(db):
    set_many(db, (FIRST, 1), (SECOND, 2))
    [answer] = values(db, "select inventory_get(%s::uuid[])", [[FIRST], [SECOND]])
    assert [level["available_qty"] for level in answer["levels"]] == [1, 2]


def test_levels_of_a_few_products_cost_what_they_are(db, connect):
    """And not the slots of every product that is split."""
    products = [UUID(int=number + 1) for number in range(300)]
    set_many(db, *[(product, 9) for product in products])
    db.execute("select inventory_split(product_id, 16) from inventory_items")
    count = """
        select sum(seq_tup_read + idx_tup_fetch)::int from pg_stat_user_tables
         where relname in ('inventory_items', 'inventory_slots')
    """
    db.execute("select pg_stat_force_next_flush()")
    [before] = values(db, count)
    reader = connect(autocommit=True)
    assert len(get(reader, *products[:3])) == 3
    reader.execute("select pg_stat_force_next_flush()")
    assert values(db, count) == [before + 3 + 3 * 16]


def test_reading_levels_waits_for_nobody(db, connect):
    set_many(db, (FIRST, 9))
    clerk = connect()
    clerk.execute("select inventory_adjust(%s, 1)", [FIRST])
    reader = connect(options="-c default_transaction_read_only=on -c lock_timeout=100ms")
    assert get(reader, FIRST)[0]["available_qty"] == 9
