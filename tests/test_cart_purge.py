"""PF-174: carts of the past can be deleted, by the owner alone and never before their orders have ended."""

import psycopg
import pytest

from checks import refused, rows, values
from races import blocked

ENDED = ["rejected", "delivered", "closed", "canceled", "expired"]
OPEN = ["created_pending", "accepted", "partially_accepted", "fulfilled", "partially_fulfilled", "hold", "in_transit"]


def purge(conn, older_than="0"):
    [deleted] = values(conn, "select cart_purge(%s::interval)", older_than)
    return deleted


def ended(db, status="closed"):
    if status in ("rejected", "canceled", "expired"):  # nothing that has ended so may hold stock
        db.execute("select vendor_order_cancel(id, 'off') from vendor_orders")
    db.execute("update vendor_orders set status = %s::text::vendor_order_status", (status,))


def ids(db):
    return values(db, "select id from cart_records order by id")


@pytest.mark.parametrize("status", ENDED)
def test_a_cart_whose_orders_have_ended_goes_and_its_orders_stay(db, add_cart, checkout_sql, status):
    """PF-174: the cart with its groups and items is deleted; orders, lines, intents and events are not."""
    cart = add_cart()
    checkout_sql(db, cart)
    ended(db, status)
    tables = ["vendor_orders", "order_line_items", "payment_intents", "outbox_events", "inventory_items"]
    before = {table: rows(db, f"select * from {table} order by 1") for table in tables}

    assert purge(db) == 1

    for table in ("cart_records", "cart_vendor_groups", "cart_items", "cart_change_permits"):
        assert values(db, f"select count(*) from {table}") == [0], table
    assert {table: rows(db, f"select * from {table} order by 1") for table in tables} == before
    assert values(db, "select distinct cart_id from vendor_orders") == [cart.id]


@pytest.mark.parametrize("status", OPEN)
def test_a_cart_with_an_order_that_has_not_ended_stays(db, add_cart, checkout_sql, status):
    """PF-174: one open order of several is enough."""
    cart = add_cart(vendors=2)
    checkout_sql(db, cart)
    ended(db)
    if status == "fulfilled":
        db.execute("update vendor_orders set status = 'accepted' where id = %s", (cart.groups[0].id,))
        db.execute("select order_line_fulfil(id) from order_line_items where order_id = %s", (cart.groups[0].id,))
    reopen = "update vendor_orders set status = %s::text::vendor_order_status where id = %s"
    db.execute(reopen, (status, cart.groups[0].id))
    assert purge(db) == 0
    assert ids(db) == [cart.id]


def test_the_states_that_count_as_ended_are_all_decided_on(db):
    """PF-174: a state added to this list is put on one side or the other."""
    assert sorted(values(db, "select unnest(enum_range(null::vendor_order_status))::text")) == sorted(ENDED + OPEN)


def test_active_carts_and_young_ones_stay(db, add_cart, checkout_sql):
    """PF-174: older_than counts from the conversion."""
    active, young, old = add_cart(), add_cart(), add_cart()
    for cart in (young, old):
        checkout_sql(db, cart)
    ended(db)
    db.execute("alter table cart_records disable trigger user")
    db.execute("update cart_records set converted_at = now() - interval '31 days' where id = %s", (old.id,))
    db.execute("alter table cart_records enable trigger user")

    assert purge(db, "30 days") == 1
    assert ids(db) == [active.id, young.id]


def test_a_wholly_rejected_cart_can_go(db, add_cart, checkout_sql):
    """PF-174: its orders ended when they began."""
    checkout_sql(db, add_cart(stock=0))
    assert purge(db) == 1


@pytest.mark.parametrize("older_than", [None, "-1 day"])
def test_a_purge_without_a_sensible_age_is_refused(db, add_cart, checkout_sql, snapshot, older_than):
    """PF-174: a mistake deletes nothing."""
    checkout_sql(db, add_cart(stock=0))
    before = snapshot(db)
    with refused("OC005") as refusal:
        purge(db, older_than)
    assert refusal.detail["field"] == "older_than"
    assert snapshot(db) == before


def test_an_age_beyond_all_time_deletes_nothing(db, add_cart, checkout_sql):
    """PF-174: an interval that reaches before the calendar is no error."""
    checkout_sql(db, add_cart(stock=0))
    assert purge(db, "10000000 years") == 0


@pytest.mark.parametrize("action", ["cascade", "set null", "set default"])
def test_a_foreign_key_that_would_carry_the_deletion_on_to_orders_is_named(db, add_cart, checkout_sql, action):
    """PF-174: an existing database may have one; the purge refuses instead of deleting orders."""
    checkout_sql(db, add_cart(stock=0))
    db.execute(
        "alter table vendor_orders add constraint vendor_orders_cart_fk"
        f" foreign key (cart_id) references cart_records on delete {action}"
    )
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
        purge(db)
    assert "vendor_orders_cart_fk" in caught.value.diag.message_primary
    assert caught.value.diag.message_hint.endswith("ALTER TABLE vendor_orders DROP CONSTRAINT vendor_orders_cart_fk;")
    db.execute(caught.value.diag.message_hint.partition(": ")[2])
    assert purge(db) == 1


def test_what_the_host_hangs_on_a_cart_goes_with_it(db, add_cart, checkout_sql):
    """PF-174: only orders are protected from a cascade."""
    cart = add_cart(stock=0)
    checkout_sql(db, cart)
    db.execute("create table cart_notes (cart_id uuid primary key references cart_records on delete cascade)")
    db.execute("insert into cart_notes values (%s)", (cart.id,))
    assert purge(db) == 1
    assert values(db, "select count(*) from cart_notes") == [0]


def test_a_purge_opens_other_carts_to_nobody_and_no_cart_to_others(db, connect, add_cart, checkout_sql):
    """PF-174: the permit is for the purged carts alone and ends with the call, not with the transaction."""
    gone, kept = add_cart(stock=0), add_cart()
    for cart in (gone, kept):
        checkout_sql(db, cart)
    with connect() as conn:
        assert purge(conn) == 1
        with refused("OC009"):
            conn.execute("update cart_items set quantity = 2 where cart_id = %s", (kept.id,))


def test_a_purged_cart_is_not_found_and_its_key_stands_for_no_other(db, add_cart, checkout_sql):
    """PF-174: the retention of carts must be longer than that of keys: a retry after it finds nothing."""
    cart = add_cart(stock=0)
    checkout_sql(db, cart)
    purge(db)
    with refused("OC001"):
        checkout_sql(db, cart)
    with refused("OC006"):
        checkout_sql(db, add_cart(buyer_store_id=cart.buyer_store_id))


def test_a_purge_waits_for_a_replay_under_way(db, connect, add_cart, checkout_sql):
    """PF-174: nobody's cart goes away under a call that reads it."""
    cart = add_cart(stock=0)
    first = checkout_sql(db, cart)
    with connect() as buyer, connect(autocommit=True) as owner:
        assert checkout_sql(buyer, cart) == first | {"replayed": True}
        with blocked(db, purge, owner) as waiting:
            buyer.commit()
        assert waiting.result(timeout=10) == 1


def test_of_two_purges_at_once_one_deletes_and_the_other_finds_nothing_left(db, connect, add_cart, checkout_sql):
    """PF-174: the carts are locked before anything is deleted, so that no cart is counted twice."""
    checkout_sql(db, add_cart(stock=0))
    with connect() as first, connect(autocommit=True) as second:
        assert purge(first) == 1
        with blocked(db, purge, second) as waiting:
            first.commit()
        assert waiting.result(timeout=10) == 0


def test_carts_are_locked_in_the_order_of_their_ids(db, connect, add_cart, checkout_sql):
    """PF-174: so that two purges, or a purge and whoever else keeps that order, cannot lock each other out."""
    for _ in range(2):
        checkout_sql(db, add_cart(stock=0))
    lower, higher = ids(db)
    lock = "select from cart_records where id = %s for update"
    with connect() as holder, connect(autocommit=True) as owner, connect() as other:
        holder.execute(lock, (lower,))
        with blocked(db, purge, owner) as waiting:
            other.execute(lock + " nowait", (higher,))
            other.rollback()
            holder.rollback()
        assert waiting.result(timeout=10) == 2


def test_a_permit_that_the_transaction_has_already_is_no_obstacle(db, connect, add_cart, checkout_sql):
    """PF-174: an owner who changes a converted cart by hand may purge it in the same transaction."""
    cart = add_cart(stock=0)
    checkout_sql(db, cart)
    with connect() as owner:
        owner.execute("insert into cart_change_permits (cart_id) values (%s)", (cart.id,))
        owner.execute("update cart_records set shipping_address = null")
        assert purge(owner) == 1


def test_a_purge_that_is_rolled_back_leaves_all(db, connect, add_cart, checkout_sql, snapshot):
    """PF-174: all or nothing."""
    checkout_sql(db, add_cart(stock=0))
    before = snapshot(db)
    with connect() as conn:
        assert purge(conn) == 1
        conn.rollback()
    assert snapshot(db) == before
