"""PF-173, PF-174: whoever changes a cart during its checkout comes before it or is refused; nothing is half in.

Reported elsewhere as: an item is added during the checkout, and the order completes with wrong amounts and untouched
stock; a cart expires while it is being paid.
"""

from uuid import UUID

import psycopg
import pytest

from checks import refused, rows, values
from races import blocked, wait_until

ADDED = UUID(int=99)


@pytest.fixture
def cart(add_cart, add_stock):
    add_stock(ADDED, 10)
    return add_cart(vendors=1, lines=2)


# What a quote does to a cart of 2 x 10.00, and the total it comes to. Each statement may come first.
EDITS = {
    "an item is added": (
        """
        insert into cart_items (cart_id, vendor_store_id, product_id, title, quantity, unit_price_cents,
                                line_subtotal_cents, status)
        select id, %(vendor)s, %(added)s, 'Added', 1, 1000, 1000, 'ok' from cart_records
        """,
        3000,
    ),
    "an item is changed": (
        "update cart_items set quantity = 3, line_subtotal_cents = 3000 where id = %(item)s",
        4000,
    ),
    "an item is deleted": ("delete from cart_items where id = %(item)s", 1000),
    "an item becomes unavailable": ("update cart_items set status = 'not_available' where id = %(item)s", 1000),
}
edits = pytest.mark.parametrize(("edit", "total"), EDITS.values(), ids=EDITS)


def run(conn, statement, cart, total):
    parameters = {"vendor": cart.vendors[0], "added": ADDED, "item": cart.items[0].id, "total": total}
    conn.execute(statement, parameters)


TOTALS = (
    "update cart_vendor_groups set subtotal_cents = %(total)s, total_cents = %(total)s",
    "update cart_records set subtotal_cents = %(total)s, total_cents = %(total)s, updated_at = now()",
)


def statements_of(edit, first):
    """Those of a quote, from its items to its cart or the other way round."""
    statements = [edit, *TOTALS]
    return statements if first == "items" else statements[::-1]


def requote(conn, cart, edit, total, first="items"):
    for statement in statements_of(edit, first):
        run(conn, statement, cart, total)


def ordered(answer):
    [order] = answer["vendor_orders"]
    return {item["product_id"]: item["qty"] for item in order["items"]}


def assert_order_is_cart_is_stock(db, answer, total):
    assert answer["totals"]["confirmed"]["total_cents"] == total
    assert values(db, "select amount_cents from payment_intents") == [total]
    cart = rows(db, "select product_id::text as id, quantity as qty from cart_items where status = 'ok'")
    reserved = rows(
        db, "select product_id::text as id, reserved_qty as qty from inventory_items where reserved_qty > 0"
    )
    for found in (cart, reserved):
        assert {row["id"]: row["qty"] for row in found} == ordered(answer)


@edits
@pytest.mark.parametrize("first", ["items", "cart"])
def test_a_quote_that_came_first_is_in_the_order_whole(db, connect, cart, checkout_sql, edit, total, first):
    """Whichever of its rows it had written when the checkout came."""
    editor, buyer = connect(), connect(autocommit=True)
    begun, *rest = statements_of(edit, first)
    run(editor, begun, cart, total)

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        for statement in rest:
            run(editor, statement, cart, total)
        editor.commit()

    assert_order_is_cart_is_stock(db, waiting.result(), total)


@edits
def test_a_quote_that_is_rolled_back_is_not_in_the_order(db, connect, cart, checkout_sql, edit, total):
    editor, buyer = connect(), connect(autocommit=True)
    requote(editor, cart, edit, total)

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        editor.rollback()

    assert_order_is_cart_is_stock(db, waiting.result(), 2000)


@edits
@pytest.mark.parametrize("first", ["items", "cart"])
def test_a_quote_that_comes_during_the_checkout_is_refused(db, connect, cart, checkout_sql, edit, total, first):
    buyer, editor = connect(), connect()
    answer = checkout_sql(buyer, cart)

    with blocked(db, requote, editor, cart, edit, total, first=first) as waiting:
        buyer.commit()
        with refused("OC009"):
            waiting.result(timeout=10)

    editor.rollback()
    assert_order_is_cart_is_stock(db, answer, 2000)


@edits
def test_a_quote_that_comes_while_the_checkout_waits_for_stock_is_refused(db, connect, cart, checkout_sql, edit, total):
    holder, buyer, editor = connect(), connect(autocommit=True), connect()
    holder.execute("select from inventory_items where product_id = %s for update", (cart.items[0].product_id,))

    with (
        blocked(db, checkout_sql, buyer, cart) as buying,
        blocked(db, requote, editor, cart, edit, total) as waiting,
    ):
        holder.rollback()
        with refused("OC009"):
            waiting.result(timeout=10)

    editor.rollback()
    assert_order_is_cart_is_stock(db, buying.result(), 2000)


@edits
def test_a_quote_that_waited_for_a_checkout_in_vain_counts_for_the_next(db, connect, cart, checkout_sql, edit, total):
    buyer, editor = connect(), connect()
    checkout_sql(buyer, cart)

    with blocked(db, requote, editor, cart, edit, total) as waiting:
        buyer.rollback()
    waiting.result()
    editor.commit()

    assert_order_is_cart_is_stock(db, checkout_sql(db, cart), total)


@edits
def test_an_edit_that_leaves_its_quote_as_it_was_is_refused(db, connect, cart, checkout_sql, snapshot, edit, total):
    """The lines and the quote no longer agree: the order would book wrong amounts."""
    editor, buyer = connect(), connect(autocommit=True)
    run(editor, edit, cart, total)

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        editor.commit()
        before = snapshot(db)
        with refused("OC007"):
            waiting.result(timeout=10)

    assert snapshot(db) == before


def test_a_group_that_becomes_invalid_first_is_not_ordered(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=2, lines=1)
    editor, buyer = connect(), connect(autocommit=True)
    editor.execute("update cart_vendor_groups set status = 'invalid' where id = %s", (cart.groups[0].id,))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        editor.execute("update cart_records set subtotal_cents = 1000, total_cents = 1000, updated_at = now()")
        editor.commit()

    answer = waiting.result()
    assert [order["vendor_store_id"] for order in answer["vendor_orders"]] == [str(cart.vendors[1])]
    assert [vendor["reason"] for vendor in answer["rejected_vendors"]] == ["vendor_invalid"]


def test_a_cart_that_is_deleted_first_is_not_found(db, connect, cart, checkout_sql):
    editor, buyer = connect(), connect(autocommit=True)
    editor.execute("delete from cart_records where id = %s", (cart.id,))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        editor.commit()
        with refused("OC001"):
            waiting.result(timeout=10)


def test_a_cart_that_changes_hands_first_is_not_found(db, connect, cart, checkout_sql):
    editor, buyer = connect(), connect(autocommit=True)
    editor.execute("update cart_records set buyer_store_id = %s", (UUID(int=1),))

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        editor.commit()
        with refused("OC001"):
            waiting.result(timeout=10)


def test_a_cart_that_is_deleted_during_the_checkout_stays(db, connect, cart, checkout_sql):
    buyer, editor = connect(), connect(autocommit=True)
    checkout_sql(buyer, cart)

    with blocked(db, psycopg.Connection.execute, editor, "delete from cart_records") as waiting:
        buyer.commit()
        with refused("OC009"):
            waiting.result(timeout=10)


def test_a_quote_that_runs_out_while_the_cart_is_waited_for_is_refused(db, connect, add_cart, checkout_sql, snapshot):
    """By the clock after the wait: the transaction began while the quote was still good."""
    cart = add_cart(valid_for=1)
    before = snapshot(db)
    holder, buyer = connect(), connect(autocommit=True)
    holder.execute("select from cart_records for update")

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        began = "select xact_start < valid_until from pg_stat_activity, cart_records where pid = %s"
        assert values(db, began, buyer.info.backend_pid) == [True]
        wait_until(lambda: values(db, "select clock_timestamp() > valid_until from cart_records") == [True])
        holder.rollback()
        with refused("OC003"):
            waiting.result(timeout=10)

    assert snapshot(db) == before


def test_a_quote_that_is_renewed_while_the_cart_is_waited_for_counts(db, connect, add_cart, checkout_sql):
    cart = add_cart(valid_for=-1)
    editor, buyer = connect(), connect(autocommit=True)
    editor.execute("update cart_records set valid_until = clock_timestamp() + interval '1 hour'")

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        editor.commit()

    assert waiting.result()["outcome"] == "complete"


def test_a_quote_that_runs_out_while_stock_is_waited_for_is_honoured(db, connect, add_cart, checkout_sql):
    """It is judged once, when the cart is locked."""
    cart = add_cart(vendors=1, lines=1, valid_for=1)
    holder, buyer = connect(), connect(autocommit=True)
    holder.execute("select from inventory_items for update")

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        wait_until(lambda: values(db, "select clock_timestamp() > valid_until from cart_records") == [True])
        holder.rollback()

    assert waiting.result()["outcome"] == "complete"


@pytest.mark.parametrize("what", ["cart", "key", "stock", "slot"])
def test_a_lock_timeout_writes_nothing_and_the_same_call_works_later(
    db, connect, add_cart, checkout_sql, snapshot, what
):
    cart = add_cart(vendors=1, lines=1)
    other = add_cart(buyer_store_id=cart.buyer_store_id)
    if what == "slot":
        db.execute("select inventory_split(product_id, 4) from inventory_items")
    before = snapshot(db)
    holder, buyer = connect(), connect(autocommit=True, options="-c lock_timeout=50ms")
    if what == "key":
        checkout_sql(holder, other)
    else:
        table = {"cart": "cart_records", "stock": "inventory_items", "slot": "inventory_slots"}[what]
        holder.execute(f"select from {table} for update")

    with pytest.raises(psycopg.errors.LockNotAvailable):
        checkout_sql(buyer, cart)

    assert snapshot(db) == before
    holder.rollback()
    assert checkout_sql(buyer, cart)["replayed"] is False
