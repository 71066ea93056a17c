"""Changes of orders, payments and expiries while their cart is erased or purged.

Whoever changes an order holds its lock, and so does an erasure: what was written before it is erased, reason, details
and event too, and what waits for it finds nothing to bring back. What such a call itself says is of its own time; the
next erasure takes it. A purge takes the cart alone and waits for no order, nor is it waited for.
"""

import psycopg
import pytest
from events import validate
from psycopg.types.json import Jsonb
from test_erase import erase, everything

from checks import row, rows, values
from races import at_once, blocked

SECRET = "of Mrs Miller"
BEFORE = ["Main Street", "Tulsa", "Bank Street", "PO of Ann", "a gift for Ann"]  # what was there before the call
BILLING = {"line1": "1 Bank Street", "city": "Enid", "country": "US"}


@pytest.fixture
def bought(db, add_cart, checkout_sql):
    """An order of two lines of 4 units, due by now, of which 2 units of the first were shipped if that is asked for."""

    def bought(shipped=False):
        cart = add_cart(vendors=1, lines=2, quantity=4)
        more = {"billing_address": BILLING, "purchase_order": "PO of Ann", "metadata": {"note": "a gift for Ann"}}
        checkout_sql(db, cart, key=str(cart.id), expires_in="1 hour", **more)
        db.execute("update vendor_orders set expires_at = now() - interval '1 minute' where cart_id = %s", (cart.id,))
        if shipped:
            db.execute("select order_line_fulfil(%s, 2, 'shipped')", (cart.items[0].id,))
        return cart

    return bought


def release(conn, cart):
    return call(conn, "order_line_release", cart.items[0].id, SECRET, 1, "released")


def fulfil(conn, cart):
    return call(conn, "order_line_fulfil", cart.items[0].id, 1, "shipped-1", Jsonb({"to": SECRET}))


def give_back(conn, cart):
    return call(conn, "order_line_return", cart.items[0].id, SECRET, 1, True, "returned")


def decide(conn, cart):
    decisions = [{"line_item_id": str(cart.items[0].id), "accept_qty": 1, "reason": SECRET}]
    return call(conn, "vendor_order_decide", cart.groups[0].id, Jsonb(decisions), "decided")


def cancel(conn, cart):
    return call(conn, "vendor_order_cancel", cart.groups[0].id, SECRET)


def adjust(conn, cart):
    return call(conn, "order_adjust", cart.groups[0].id, -5, SECRET, "adjusted")


def pay(conn, cart):
    details = Jsonb({"name": SECRET})
    return call(conn, "payment_record", cart.groups[0].id, "acme", "evt", "captured", 100, "USD", None, details)


def expire(conn, cart):
    return call(conn, "vendor_orders_expire")


def call(conn, function, *args):
    return values(conn, f"select {function}({', '.join(['%s'] * len(args))})", *args)[0]


def purge(conn):
    return call(conn, "cart_purge", "0 seconds")


def done(db, cart):
    """The kinds of what happened to the order, payments too."""
    return values(db, "select kind from order_history where order_id = %s order by created_at", cart.groups[0].id)


def validate_events(db):
    for payload in values(db, "select payload from outbox_events"):
        validate(payload)


WAITING = [release, fulfil, give_back, decide, cancel, adjust, pay]


@pytest.mark.parametrize("is_erased", [False, True])  # then nothing else on its order is left to be written
@pytest.mark.parametrize("change", [*WAITING, expire], ids=lambda change: change.__name__)
def test_an_erasure_waits_for_a_change_under_way_and_takes_what_it_said(
    db, connect, bought, snapshot, change, is_erased
):
    cart = bought(shipped=change is give_back)
    if is_erased:
        erase(db, cart.id)
    before = done(db, cart)
    with connect() as changing, connect(autocommit=True) as owner:
        change(changing, cart)
        with blocked(db, erase, owner, cart.id) as waiting:
            changing.commit()
        assert waiting.result(timeout=10) > 0

    assert [word for word in [*BEFORE, SECRET] if word in everything(snapshot, db)] == []
    assert len(done(db, cart)) == len(before) + 1
    validate_events(db)
    assert erase(db, cart.id) == 0


@pytest.mark.parametrize("change", WAITING, ids=lambda change: change.__name__)
def test_a_change_that_waits_for_an_erasure_is_made_and_brings_nothing_back(db, connect, bought, snapshot, change):
    cart = bought(shipped=change is give_back)
    before = done(db, cart)
    with connect() as owner, connect(autocommit=True) as changing:
        erase(owner, cart.id)
        with blocked(db, change, changing, cart) as waiting:
            owner.commit()
        assert waiting.result(timeout=10)["replayed"] is False

    assert [word for word in BEFORE if word in everything(snapshot, db)] == []
    assert len(done(db, cart)) == len(before) + 1
    assert change(db, cart)["replayed"] is True
    # its own words came after the erasure; the next one takes them
    assert SECRET in everything(snapshot, db)
    assert erase(db, cart.id) > 0
    assert SECRET not in everything(snapshot, db)
    validate_events(db)
    assert erase(db, cart.id) == 0


def test_an_expiry_passes_over_an_order_that_is_being_erased(db, connect, bought, snapshot):
    cart = bought()
    with connect() as owner:
        erase(owner, cart.id)
        assert expire(db, cart)["order_ids"] == []
        owner.commit()

    assert expire(db, cart)["order_ids"] == [str(cart.groups[0].id)]
    assert [word for word in BEFORE if word in everything(snapshot, db)] == []
    assert erase(db, cart.id) > 0
    validate_events(db)


@pytest.mark.parametrize("change", [give_back, adjust, pay], ids=lambda change: change.__name__)
def test_a_change_and_a_purge_of_the_cart_do_not_wait_for_each_other(db, connect, bought, snapshot, change):
    carts = [bought(shipped=True), bought(shipped=True)]
    for cart in carts:
        db.execute("select order_line_release(%s, 'gone')", (cart.items[0].id,))
        db.execute("select order_line_release(%s, 'gone')", (cart.items[1].id,))
    db.execute("update vendor_orders set status = 'closed'")

    with connect() as changing, connect() as purging:
        change(changing, carts[0])
        assert purge(purging) == 2
        change(changing, carts[1])
        changing.commit()
        purging.commit()

    for cart in carts:
        assert values(db, "select count(*) from cart_records where id = %s", cart.id) == [0]
        assert change(db, cart)["replayed"] is True
        assert erase(db, cart.id) > 0
    assert [word for word in [*BEFORE, SECRET] if word in everything(snapshot, db)] == []
    validate_events(db)


def test_a_cart_whose_order_is_about_to_expire_is_purged_once_it_has(db, connect, bought):
    cart = bought()
    with connect() as expiring:
        expire(expiring, cart)
        assert purge(db) == 0
        expiring.commit()
    assert purge(db) == 1
    pay(db, cart)
    found = row(db, "select status::text, balance_due_cents, refund_due_cents from vendor_orders")
    assert found == {"status": "expired", "balance_due_cents": 0, "refund_due_cents": 100}


def test_an_erasure_waits_for_a_purge_and_then_for_a_change_of_the_order(db, connect, bought, snapshot):
    cart = bought(shipped=True)
    db.execute("select order_line_release(%s, 'gone')", (cart.items[0].id,))
    db.execute("select order_line_release(%s, 'gone')", (cart.items[1].id,))
    db.execute("update vendor_orders set status = 'closed'")

    with connect() as purging, connect() as changing, connect(autocommit=True) as owner:
        purge(purging)
        give_back(changing, cart)
        with blocked(db, erase, owner, cart.id) as waiting:
            purging.commit()
            changing.commit()
        assert waiting.result(timeout=10) > 0
    assert [word for word in [*BEFORE, SECRET] if word in everything(snapshot, db)] == []
    assert values(db, "select count(*) from cart_records") == [0]


def test_changes_payments_expiries_erasures_and_purges_at_once_never_deadlock(db, connect, bought, snapshot):
    carts = [bought() for _ in range(12)]
    connections = [connect(autocommit=True) for _ in range(5)]

    def each(conn, *calls):
        def run():
            for cart in carts[:: -1 if calls[0] is decide else 1]:
                for made in calls:
                    try:
                        made(conn, cart)
                    except psycopg.DatabaseError as error:
                        if error.sqlstate != "OC012":  # it expired before, or was canceled
                            raise

        return run

    ended = at_once(
        each(connections[0], decide, fulfil, cancel),
        each(connections[1], pay, adjust),
        each(connections[2], lambda conn, cart: erase(conn, cart.id)),
        each(connections[3], lambda conn, cart: purge(conn)),
        each(connections[4], expire, release),
    )

    assert [str(end) for end in ended if isinstance(end, Exception)] == []
    for cart in carts:
        erase(db, cart.id)
    assert [word for word in [*BEFORE, SECRET] if word in everything(snapshot, db)] == []
    assert rows(db, "select * from checkout_audit()") == []
    validate_events(db)
