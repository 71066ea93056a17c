"""Stock changes under a key: whoever lost the answer makes the change again, and it counts once."""

from uuid import UUID

import psycopg
import pytest
from test_inventory import call

from checks import refused, row, rows, values
from races import at_once, blocked

PRODUCT, OTHER = UUID(int=5), UUID(int=6)


def available(conn, product=PRODUCT):
    return values(conn, "select available_qty from inventory_levels where product_id = %s", product)[0]


def keys(conn):
    return values(conn, "select change_key from inventory_changes order by 1")


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize(("function", "delta", "left"), [("inventory_restock", 5, 15), ("inventory_adjust", -4, 6)])
def test_a_change_that_is_repeated_under_its_key_counts_once(db, function, delta, left, slots):
    db.execute("select inventory_set(%s, 10)", [PRODUCT])
    db.execute("select inventory_split(%s, %s)", [PRODUCT, slots])

    first = call(db, function, PRODUCT, delta, "delivery-1")
    again = [call(db, function, PRODUCT, delta, "delivery-1") for _ in range(3)]

    assert [first, *again] == [{"available_qty": left, "reserved_qty": 0, "slots": slots}] * 4
    assert rows(db, "select product_id, change_key, delta from inventory_changes") == [
        {"product_id": PRODUCT, "change_key": "delivery-1", "delta": delta}
    ]


def test_a_repeat_answers_the_level_as_it_is_by_then(db):
    call(db, "inventory_restock", PRODUCT, 5, "k")
    call(db, "inventory_adjust", PRODUCT, -2)
    before = row(db, "select * from inventory_levels")
    assert (
        row(db, "select * from inventory_restock(%s, 5, 'k')", PRODUCT)
        == before
        == row(db, "select * from inventory_levels")
    )


def test_a_repeat_is_answered_even_if_the_change_could_not_be_made_any_more(db):
    """It was made: neither what is left nor what fits has to be enough for it twice."""
    db.execute("select inventory_set(%s, 3)", [PRODUCT])
    for _ in range(2):
        assert call(db, "inventory_adjust", PRODUCT, -3, "k")["available_qty"] == 0
    db.execute("select inventory_set(%s, %s)", [OTHER, 2**31 - 6])
    for _ in range(2):
        assert call(db, "inventory_restock", OTHER, 5, "k")["available_qty"] == 2**31 - 1


def test_a_key_is_dated_when_the_change_is_made(connect):
    """Not when the transaction began, which may have waited for long: a purge goes by it."""
    with connect() as conn:
        conn.execute("select now()")
        call(conn, "inventory_restock", PRODUCT, 5, "k")
        assert values(conn, "select created_at > now() from inventory_changes") == [True]


def test_without_a_key_each_call_counts(db):
    for _ in range(2):
        call(db, "inventory_restock", PRODUCT, 5)
        call(db, "inventory_restock", PRODUCT, 5, None)
    assert (available(db), keys(db)) == (20, [])


def test_a_restock_is_an_adjustment_by_as_many(db):
    """Whoever repeats one as the other means the same change."""
    call(db, "inventory_restock", PRODUCT, 5, "k")
    assert call(db, "inventory_adjust", PRODUCT, 5, "k")["available_qty"] == 5


@pytest.mark.parametrize("delta", [4, 6, -5, 0])
def test_a_key_is_bound_to_its_change(db, snapshot, delta):
    call(db, "inventory_adjust", PRODUCT, 5, "k")
    before = snapshot(db)
    with refused("OC006") as refusal:
        call(db, "inventory_adjust", PRODUCT, delta, "k")
    assert refusal.detail == {"product_id": str(PRODUCT), "delta": delta, "bound_delta": 5}
    assert snapshot(db) == before


def test_a_key_is_one_products_own(db):
    call(db, "inventory_restock", PRODUCT, 5, "k")
    assert call(db, "inventory_restock", OTHER, 7, "k")["available_qty"] == 7
    assert (available(db), keys(db)) == (5, ["k", "k"])


def test_a_change_that_is_refused_binds_no_key(db):
    db.execute("select inventory_set(%s, 3)", [PRODUCT])
    with refused("OC010"):
        call(db, "inventory_adjust", PRODUCT, -4, "k")
    assert keys(db) == []
    call(db, "inventory_restock", PRODUCT, 1)
    assert call(db, "inventory_adjust", PRODUCT, -4, "k")["available_qty"] == 0


@pytest.mark.parametrize("key", ["", " ", "a b", "a\n", "\x7f", "é", "x" * 256])
@pytest.mark.parametrize("function", ["inventory_adjust", "inventory_restock"])
def test_a_key_is_visible_ascii(db, snapshot, function, key):
    before = snapshot(db)
    with refused("OC005") as refusal:
        call(db, function, PRODUCT, 1, key)
    assert refusal.detail["field"] == "change_key"
    assert snapshot(db) == before


def test_a_key_may_have_any_visible_characters_up_to_255(db):
    for key in ("!", "~", "x" * 255, "'\"\\%s"):
        for _ in range(2):
            call(db, "inventory_restock", PRODUCT, 1, key)
    assert available(db) == 4


# Two at once


@pytest.mark.parametrize("function", ["inventory_adjust", "inventory_restock"])
@pytest.mark.parametrize("there", [True, False], ids=["a row", "no row yet"])
def test_of_two_at_once_under_a_key_one_changes_and_the_other_is_answered(db, connect, function, there):
    if there:
        db.execute("select inventory_set(%s, 10)", [PRODUCT])
    first, second = connect(), connect(autocommit=True)
    made = call(first, function, PRODUCT, 5, "k")

    with blocked(db, call, second, function, PRODUCT, 5, "k") as waiting:
        first.commit()

    assert waiting.result(timeout=10) == made
    assert available(db) == (15 if there else 5)


def test_a_key_is_looked_up_under_the_products_lock(db, connect):
    """Even while the first has written nothing yet: the second must not find the key free too."""
    db.execute("select inventory_set(%s, 10)", [PRODUCT])
    db.execute(
        "create function hold() returns trigger language plpgsql as"
        " 'begin perform pg_advisory_xact_lock(1); return new; end';"
        "create trigger hold before insert on inventory_changes for each row execute function hold()"
    )
    gate, first, second = connect(autocommit=True), connect(autocommit=True), connect(autocommit=True)
    gate.execute("select pg_advisory_lock(1)")

    with (
        blocked(db, call, first, "inventory_restock", PRODUCT, 5, "k") as changing,
        blocked(db, call, second, "inventory_restock", PRODUCT, 5, "k") as waiting,
    ):
        gate.execute("select pg_advisory_unlock(1)")

    assert changing.result(timeout=10) == waiting.result(timeout=10)
    assert available(db) == 15


def test_of_two_at_once_the_second_changes_if_the_first_is_rolled_back(db, connect):
    db.execute("select inventory_set(%s, 10)", [PRODUCT])
    first, second = connect(), connect(autocommit=True)
    call(first, "inventory_adjust", PRODUCT, -4, "k")

    with blocked(db, call, second, "inventory_adjust", PRODUCT, -4, "k") as waiting:
        first.rollback()

    assert waiting.result(timeout=10)["available_qty"] == 6
    assert (available(db), keys(db)) == (6, ["k"])


def test_of_two_at_once_with_other_changes_the_second_is_refused(db, connect):
    first, second = connect(), connect(autocommit=True)
    call(first, "inventory_adjust", PRODUCT, 4, "k")

    with blocked(db, call, second, "inventory_adjust", PRODUCT, 5, "k") as waiting:
        first.commit()
        with refused("OC006") as refusal:
            waiting.result(timeout=10)
    assert refusal.detail["bound_delta"] == 4


def test_many_at_once_under_the_same_keys_change_each_once(db, connect):
    conns = [connect(autocommit=True) for _ in range(6)]

    def stock(conn):
        return lambda: [call(conn, "inventory_restock", PRODUCT, 1, f"k{number}") for number in range(20)]

    for answer in at_once(*map(stock, conns)):
        assert isinstance(answer, list), answer
    assert (available(db), len(keys(db))) == (20, 20)


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_under_an_older_snapshot_a_repeat_fails_as_safe_to_retry(db, connect, level):
    """And never as a duplicate key: a retry is what settles it."""
    db.execute("select inventory_set(%s, 10)", [PRODUCT])
    second = connect()
    second.execute(f"set transaction isolation level {level}")
    second.execute("select 1 from inventory_items")
    call(db, "inventory_restock", PRODUCT, 5, "k")

    assert fails(second, "select inventory_restock(%s, 5, 'k')", PRODUCT) == "40001"
    second.rollback()
    assert call(second, "inventory_restock", PRODUCT, 5, "k")["available_qty"] == 15


def fails(conn, query, *params):
    try:
        conn.execute(query, params)
    except psycopg.Error as error:
        return error.sqlstate
    return None


# The end of a key


def test_a_key_that_was_purged_counts_once_more(db):
    call(db, "inventory_restock", PRODUCT, 5, "old")
    call(db, "inventory_restock", PRODUCT, 5, "new")
    db.execute("update inventory_changes set created_at = now() - interval '8 days' where change_key = 'old'")

    assert values(db, "select inventory_changes_purge('7 days')") == [1]

    assert keys(db) == ["new"]
    assert values(db, "select inventory_changes_purge('7 days')") == [0]
    assert call(db, "inventory_restock", PRODUCT, 5, "new")["available_qty"] == 10
    assert call(db, "inventory_restock", PRODUCT, 5, "old")["available_qty"] == 15


def test_a_repeat_that_meets_the_purge_of_its_key_is_made_or_answered(db, connect):
    """It waits for nobody, and finds the key for as long as the purge has not committed."""
    call(db, "inventory_restock", PRODUCT, 5, "k")
    purge, second = connect(), connect(autocommit=True, options="-c lock_timeout=2s")
    purge.execute("select inventory_changes_purge('0')")
    assert call(second, "inventory_restock", PRODUCT, 5, "k")["available_qty"] == 5
    purge.commit()
    assert call(second, "inventory_restock", PRODUCT, 5, "k")["available_qty"] == 10


# Beside checkouts and other changes


def test_a_keyed_change_waits_for_a_checkout_and_judges_what_it_left(db, connect, add_cart, checkout_sql):
    db.execute("select inventory_set(%s, 5)", [PRODUCT])
    buyer, clerk = connect(), connect()
    checkout_sql(buyer, add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=3))

    with blocked(db, call, clerk, "inventory_adjust", PRODUCT, -2, "k") as waiting:
        assert keys(db) == []
        buyer.commit()
    assert waiting.result(timeout=10) == {"available_qty": 0, "reserved_qty": 3, "slots": 1}
    # and a checkout waits for it
    cart, other = add_cart(vendors=1, lines=1, products=[PRODUCT], stock=None), connect(autocommit=True)
    with blocked(db, checkout_sql, other, cart) as buying:
        clerk.rollback()
    assert buying.result(timeout=10)["outcome"] == "complete"
