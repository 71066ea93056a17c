"""PF-178: a hot product's stock over slots: split, merged, and never counted twice.

Reported elsewhere as: a limit is counted by a query that skips locked rows, and passes twice.
"""

import random
from functools import partial
from uuid import UUID

import psycopg
import pytest

from checks import row, rows, values
from races import at_once, blocked

PRODUCT = UUID(int=5)


@pytest.fixture
def buy(add_cart, checkout_sql):
    """buy(conn, 3): quote a cart with three units and check it out; its outcome."""

    def buy(conn, quantity=1):
        return checkout_sql(conn, add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=quantity, stock=None))[
            "outcome"
        ]

    return buy


def split(conn, slots, product=PRODUCT):
    return row(conn, "select available_qty, reserved_qty, slots from inventory_split(%s, %s)", product, slots)


def units(conn, column="available_qty"):
    """Slot 0 first."""
    return values(conn, f"select {column} from inventory_items") + values(
        conn, f"select {column} from inventory_slots order by slot"
    )


@pytest.fixture(autouse=True)
def shelf(db):
    db.execute("select inventory_set(%s, 10)", (PRODUCT,))


def test_split_spreads_the_stock_evenly_and_merging_brings_it_back(db):
    for slots, expected in ((4, [0, 3, 3, 2, 2]), (16, [0] + [1] * 10 + [0] * 6), (3, [0, 4, 3, 3]), (1, [10])):
        assert split(db, slots) == {"available_qty": 10, "reserved_qty": 0, "slots": slots}
        assert units(db) == expected


def test_restock_and_set_spread_it_evenly_again(db, buy):
    split(db, 4)
    for _ in range(3):
        buy(db)
    for call, expected in (("inventory_restock(%s, 4)", [0, 3, 3, 3, 2]), ("inventory_set(%s, 5)", [0, 2, 1, 1, 1])):
        db.execute(f"select {call}", (PRODUCT,))
        assert units(db) == expected


def test_reserved_units_move_to_slot_0_when_the_slots_change(db, buy):
    """A line without rows in inventory_holds holds its units there."""
    split(db, 4)
    buy(db, 2)
    buy(db, 7)  # combined
    assert sorted(values(db, "select sum(qty) from inventory_holds group by line_item_id")) == [2, 7]
    assert units(db, "reserved_qty")[0] == 0

    assert split(db, 2) == {"available_qty": 1, "reserved_qty": 9, "slots": 2}
    assert units(db, "reserved_qty") == [9, 0, 0]
    assert values(db, "select count(*) from inventory_holds") == [0]
    assert rows(db, "select * from checkout_audit()") == []

    buy(db, 1)
    assert split(db, 1) == {"available_qty": 0, "reserved_qty": 10, "slots": 1}
    assert units(db, "reserved_qty") == [10]


def test_holds_say_what_a_line_has_of_which_slot(db, add_cart, checkout_sql):
    """And the common case, all from slot 0, costs no row."""
    split(db, 2)
    plain = add_cart(vendors=1, lines=1)
    cart = add_cart(
        vendors=1, lines=2, products=[PRODUCT] * 2, items={(0, 0): {"quantity": 7}, (0, 1): {"quantity": 2}}
    )
    for each in (plain, cart):
        checkout_sql(db, each)

    holds = rows(db, "select line_item_id, slot, qty from inventory_holds order by 1, 2")
    assert [tuple(hold.values()) for hold in holds] == [
        (cart.items[0].id, 1, 5),
        (cart.items[0].id, 2, 2),
        (cart.items[1].id, 2, 2),
    ]
    assert units(db, "reserved_qty")[-2:] == [5, 4]


def test_stock_is_in_the_slots_alone_while_it_is_split(db):
    split(db, 4)
    for statement in (
        "update inventory_items set available_qty = 5",
        # a stock feed that knows nothing of slots: the figure would be sold twice
        f"""
        insert into inventory_items (product_id, available_qty, updated_at) values ('{PRODUCT}', 5, now())
        on conflict (product_id) do update set available_qty = excluded.available_qty
        """,
        "update inventory_items set slots = 0",
        "update inventory_items set slots = 1, available_qty = -1",
    ):
        with pytest.raises(psycopg.errors.CheckViolation) as caught:
            db.execute(statement)
        assert "inventory_items" in caught.value.diag.constraint_name
    assert units(db) == [0, 3, 3, 2, 2]
    split(db, 1)
    db.execute("update inventory_items set available_qty = 5")
    assert units(db) == [5]


def test_slots_whose_product_row_is_gone_are_not_sold(db, buy):
    """A product without an inventory row has no stock."""
    split(db, 4)
    with db.transaction(force_rollback=True):
        db.execute("delete from inventory_items")
        assert buy(db) == "rejected"


def test_a_split_waits_for_a_split(db, connect):
    for first_slots, second_slots in ((4, 8), (2, 1), (1, 4), (3, 3)):
        first, second = connect(), connect(autocommit=True)
        split(first, first_slots)
        with blocked(db, split, second, second_slots) as waiting:
            first.commit()
        assert waiting.result() == {"available_qty": 10, "reserved_qty": 0, "slots": second_slots}
        assert len(units(db)) == (1 if second_slots == 1 else second_slots + 1)


def test_a_slot_that_changes_while_it_is_waited_for_is_counted(db, connect, buy):
    """It is found by a version that is gone by then. Without it a line that fits is short, and its units are lost."""
    calls = {
        "a cart of more than one slot has": (partial(buy, quantity=7), "complete"),
        "a merge": (partial(split, slots=1), {"available_qty": 7, "reserved_qty": 3, "slots": 1}),
        "another split": (partial(split, slots=3), {"available_qty": 7, "reserved_qty": 3, "slots": 3}),
    }
    split(db, 2)
    for call, expected in calls.values():
        first, second = connect(), connect()
        assert buy(first, 3) == "complete"
        with blocked(db, call, second) as waiting:
            first.commit()
        assert waiting.result() == expected
        second.rollback()
        db.execute("select vendor_order_cancel(id, 'again') from vendor_orders where status = 'created_pending'")
        assert sum(units(db)) == 10
        db.execute("select inventory_set(%s, 10)", (PRODUCT,))


@pytest.mark.parametrize("slots", [2, 16])
def test_every_change_of_a_slot_counts_its_version_up(db, buy, slots):
    """And no change leaves a slot that is found before its newest version, or not at all."""
    split(db, slots)
    calls = {
        "a checkout": lambda: buy(db, 3),
        "a restock": lambda: db.execute("select inventory_restock(%s, 5)", (PRODUCT,)),
        "a level": lambda: db.execute("select inventory_set(%s, 40)", (PRODUCT,)),
        "levels": lambda: db.execute(
            "select inventory_set_many(jsonb_build_array(jsonb_build_object('product_id', %s::uuid, 'available', 50)))",
            (PRODUCT,),
        ),
        "a cancel": lambda: db.execute("select vendor_order_cancel(id, 'no') from vendor_orders"),
        "a split": lambda: split(db, slots),
    }
    for what, call in calls.items():
        before = dict(db.execute("select slot, version from inventory_slots").fetchall())
        level = dict(db.execute("select slot, available_qty from inventory_slots").fetchall())
        call()
        after = dict(db.execute("select slot, version from inventory_slots").fetchall())
        changed = dict(db.execute("select slot, available_qty from inventory_slots").fetchall())
        assert after.keys() == before.keys(), what
        moved = [slot for slot in before if changed[slot] != level[slot]]
        assert moved or what == "a split", what
        assert all(after[slot] > before[slot] for slot in moved), what
    assert len(set(after.values())) == 1 and min(after.values()) > max(before.values())


CALLS = {
    "adjust": "select inventory_adjust(%s, -1)",
    "level": "select inventory_set(%s, 8)",
    "many levels": (
        "select inventory_set_many(jsonb_build_array(jsonb_build_object('product_id', %s::text, 'available', 8)))"
    ),
    "levels": "select inventory_get(array[%s::uuid])",
}


@pytest.mark.parametrize("planned", ["now", "while there was little"])
@pytest.mark.parametrize("call", ["own slot", "another slot", "slot waited for", "all slots", "cancel", *CALLS])
def test_dead_versions_that_a_held_snapshot_keeps_are_not_read(db, connect, add_cart, checkout_sql, call, planned):
    """Of 300 versions a slot, a call looks at those that are alive, in the index too.

    Nor by plans of a session that knew the table as one of four rows, all of which look as cheap as one by its key.
    """
    split(db, 4)
    holder, conn = connect(), connect()
    if planned != "now":
        db.execute("vacuum analyze inventory_slots")
        checkout_sql(conn, add_cart(vendors=1, lines=1, products=[PRODUCT], stock=None))
        conn.execute("select vendor_order_cancel(id, 'no') from vendor_orders")
        for each in CALLS.values():
            conn.execute(each, (PRODUCT,))
        conn.execute("select pg_stat_force_next_flush()")
        conn.rollback()
    report = connect()
    report.execute("set transaction isolation level repeatable read")
    report.execute("select from inventory_items")
    more = f"perform inventory_adjust('{PRODUCT}', 4)"
    db.execute(f"do $$ begin for i in 1 .. 300 loop {more}; end loop; end $$")
    quantity = 1000 if call == "all slots" else 1
    cart = add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=quantity, stock=None)
    pid = conn.info.backend_pid
    if call == "another slot":
        holder.execute("select from inventory_slots where slot = %s for update", (1 + pid % 4,))
    elif call == "slot waited for":
        holder.execute("select from inventory_slots for update")
    elif call == "cancel":
        checkout_sql(db, cart)

    if call == "cancel":
        conn.execute("select vendor_order_cancel(id, 'no') from vendor_orders")
    elif call in CALLS:
        conn.execute(CALLS[call], (PRODUCT,))
    elif call == "slot waited for":
        with blocked(db, checkout_sql, conn, cart) as waiting:
            holder.rollback()
        assert waiting.result()["outcome"] == "complete"
    else:
        assert checkout_sql(conn, cart)["outcome"] == "complete"

    [read] = values(conn, "select pg_stat_get_xact_tuples_returned('inventory_slots_pkey'::regclass)")
    assert 0 < read < 100
    report.rollback()


def test_a_split_that_is_rolled_back_changes_nothing(db, connect, add_cart, checkout_sql):
    split(db, 4)
    cart = add_cart(vendors=1, lines=1, products=[PRODUCT])
    for slots in (1, 8):
        splitter, buyer = connect(), connect()
        split(splitter, slots)
        with blocked(db, checkout_sql, buyer, cart) as waiting:
            splitter.rollback()
        assert waiting.result()["outcome"] == "complete"
        buyer.rollback()
    assert units(db) == [0, 3, 3, 2, 2]


def test_everything_at_once_loses_nothing_and_makes_nothing(db, connect, add_cart, checkout_sql):
    """Checkouts, splits, restocks and adjustments race over one product; what went in is there."""
    rng = random.Random(5)
    conns = [connect(autocommit=True) for _ in range(8)]
    carts = [
        [add_cart(vendors=1, lines=1, products=[PRODUCT], quantity=rng.randint(1, 3)) for _ in range(20)]
        for _ in range(4)
    ]

    def check_out(conn, some):
        for cart in some:
            checkout_sql(conn, cart)
        return 0

    def stock(conn, call, amounts):
        added = 0
        for amount in amounts:
            try:
                conn.execute(f"select {call}(%s, %s)", (PRODUCT, amount))
                added += amount
            except psycopg.DatabaseError as error:
                assert error.sqlstate == "OC010"
        return added

    def split_again(conn, some):
        for slots in some:
            split(conn, slots)
        return 0

    numbers = [[rng.choice([1, 2, 4, 8, 16]) for _ in range(15)] for _ in range(2)]
    outcomes = at_once(
        *[partial(check_out, conns[n], carts[n]) for n in range(4)],
        *[partial(split_again, conns[4 + n], numbers[n]) for n in range(2)],
        partial(stock, conns[6], "inventory_restock", [3] * 20),
        partial(stock, conns[7], "inventory_adjust", [rng.randint(-3, 3) for _ in range(20)]),
    )

    assert not [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    level = row(db, "select available_qty + reserved_qty as units, reserved_qty from inventory_levels")
    assert level["units"] == 10 + sum(outcomes)
    assert values(db, "select coalesce(sum(qty), 0) from order_line_items where status = 'pending'") == [
        level["reserved_qty"]
    ]


@pytest.mark.parametrize("slots", [1, 256])
def test_a_cart_of_more_units_than_any_slot_has(db, buy, slots):
    db.execute("select inventory_set(%s, 300)", (PRODUCT,))
    split(db, slots)
    assert buy(db, 299) == "complete"
    assert buy(db, 2) == "rejected"
    assert buy(db, 1) == "complete"
    assert split(db, 1) == {"available_qty": 0, "reserved_qty": 300, "slots": 1}
