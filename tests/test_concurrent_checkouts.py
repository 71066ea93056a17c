"""PF-174, PF-177: one cart, many callers: one conversion, and no other trace of the rest.

Reported elsewhere as: a double click or a proxy's retry makes two orders and two charges; several payment intents for
one order; a half-written order is read; a checkout that died blocks its retry.
"""

import time
from functools import partial

import psycopg
import pytest

from checks import rows, values
from races import at_once, blocked

LOCK_ITEM = "select from inventory_items where product_id = %s for update"

COUNTS = """
    select (select count(*) from vendor_orders) as orders,
           (select count(*) from order_line_items) as lines,
           (select count(*) from payment_intents) as intents,
           (select count(*) from outbox_events) as events,
           (select count(*) from checkout_requests) as keys,
           (select coalesce(sum(reserved_qty), 0) from inventory_levels) as reserved
"""
NOTHING = dict.fromkeys(["orders", "lines", "intents", "events", "keys", "reserved"], 0)


def counts(conn):
    [found] = rows(conn, COUNTS)
    return found


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("keys", ["one key", "many keys"])
def test_sixteen_calls_at_once_convert_a_cart_once(db, connect, add_cart, checkout_sql, keys, slots):
    cart = add_cart(vendors=2, lines=[2, 1])
    db.execute("select inventory_split(product_id, %s) from inventory_items", (slots,))
    conns = [connect(autocommit=True) for _ in range(16)]

    answers = at_once(
        *[partial(checkout_sql, conn, cart, key="k" if keys == "one key" else f"k{n}") for n, conn in enumerate(conns)]
    )

    [first] = [answer for answer in answers if not answer["replayed"]]
    assert [answer for answer in answers if answer["replayed"]] == [first | {"replayed": True}] * 15
    assert counts(db) == {
        "orders": 2,
        "lines": 3,
        "intents": 2,
        "events": 2,
        "keys": 1 if keys == "one key" else 16,
        "reserved": 3,
    }


@pytest.mark.parametrize("key", ["k1", "k2"])
def test_a_call_waits_for_the_one_before_it_and_replays(db, connect, add_cart, checkout_sql, key):
    cart = add_cart()
    first, second = connect(), connect(autocommit=True)
    converted = checkout_sql(first, cart, key="k1")

    with blocked(db, checkout_sql, second, cart, key=key) as waiting:
        assert counts(db) == NOTHING
        first.commit()

    assert waiting.result() == converted | {"replayed": True}
    assert counts(db) == {"orders": 2, "lines": 4, "intents": 2, "events": 2, "keys": len({"k1", key}), "reserved": 4}


@pytest.mark.parametrize("key", ["k1", "k2"])
def test_a_call_converts_when_the_one_before_it_rolls_back(db, connect, add_cart, checkout_sql, key):
    cart = add_cart()
    first, second = connect(), connect(autocommit=True)
    checkout_sql(first, cart, key="k1")

    with blocked(db, checkout_sql, second, cart, key=key) as waiting:
        first.rollback()

    assert waiting.result()["replayed"] is False
    assert counts(db) == {"orders": 2, "lines": 4, "intents": 2, "events": 2, "keys": 1, "reserved": 4}


def test_an_autocommit_call_is_exclusive_from_its_first_step_to_its_last(db, connect, add_cart, checkout):
    """A lock that is taken outside of any transaction does nothing; here the one statement is the transaction."""
    cart = add_cart(vendors=1, lines=1)
    holder, first, second = connect(), connect(autocommit=True), connect(autocommit=True)
    holder.execute(LOCK_ITEM, (cart.items[0].product_id,))

    with blocked(db, checkout, first, cart) as converting:
        with blocked(db, checkout, second, cart, key="k2") as waiting:
            assert values(db, "select pg_blocking_pids(%s)", second.info.backend_pid) == [[first.info.backend_pid]]
            holder.rollback()
        assert (converting.result().replayed, waiting.result().replayed) == (False, True)


def test_two_checkouts_of_one_caller_are_one_transaction(db, connect, add_cart, checkout_sql):
    one, other = add_cart(), add_cart()
    caller = connect()

    checkout_sql(caller, one, key="k1")
    checkout_sql(caller, other, key="k1")
    assert counts(db) == NOTHING
    caller.rollback()
    assert counts(db) == NOTHING

    answers = [checkout_sql(caller, cart, key="k1") for cart in (one, other)]
    caller.commit()
    assert [checkout_sql(db, cart, key="k1") for cart in (one, other)] == [
        answer | {"replayed": True} for answer in answers
    ]


def test_a_hundred_checkouts_at_once_never_share_an_id_or_a_number(db, pool, add_cart, checkout_sql):
    """The host's numbers may come from a sequence, which leaves gaps, and never from the last number + 1."""
    db.execute("alter table vendor_orders add column host_number bigint generated always as identity")
    carts = [add_cart(vendors=2, lines=1) for _ in range(100)]

    def buy(cart):
        with pool.connection() as conn:
            return checkout_sql(conn, cart)

    answers = [answer for n in range(0, 100, 20) for answer in at_once(*[partial(buy, c) for c in carts[n : n + 20]])]

    assert len({answer["checkout_group_id"] for answer in answers}) == 100
    assert values(db, "select count(distinct order_number) from vendor_orders") == [200]
    assert values(db, "select count(distinct host_number) from vendor_orders") == [200]
    assert values(db, "select count(distinct id) from outbox_events") == [200]


@pytest.mark.parametrize("slots", [1, 4])
def test_a_killed_checkout_leaves_nothing_and_its_retry_succeeds_at_once(db, connect, add_cart, checkout_sql, slots):
    """Its key, its cart and the stock it held are free with its session: no lease to wait for."""
    cart = add_cart(vendors=2, lines=1)
    db.execute("select inventory_split(product_id, %s) from inventory_items", (slots,))
    last = max(item.product_id for item in cart.items)
    holder, victim, retry = connect(), connect(autocommit=True), connect(autocommit=True)
    table = "inventory_items" if slots == 1 else "inventory_slots"
    holder.execute(f"select from {table} where product_id = %s for update", (last,))

    with blocked(db, checkout_sql, victim, cart) as waiting:
        db.execute("select pg_terminate_backend(%s)", (victim.info.backend_pid,))
        with pytest.raises(psycopg.errors.AdminShutdown):
            waiting.result(timeout=10)
    assert counts(db) == NOTHING

    # The retry gets as far as the first did: it waits for the stock that is still locked, not for its own past.
    with blocked(db, checkout_sql, retry, cart) as waiting:
        assert values(db, "select pg_blocking_pids(%s)", retry.info.backend_pid) == [[holder.info.backend_pid]]
        holder.rollback()
    answer = waiting.result()
    assert (answer["replayed"], answer["outcome"]) == (False, "complete")
    assert counts(db) == {"orders": 2, "lines": 2, "intents": 2, "events": 2, "keys": 1, "reserved": 2}


def test_a_failure_after_the_first_order_leaves_nothing(db, add_cart, checkout_sql, snapshot):
    """Reported elsewhere as: the shopper retries with a copy of the cart, and there are two orders."""
    cart = add_cart(vendors=2)
    copy = add_cart(
        buyer_store_id=cart.buyer_store_id,
        vendors=cart.vendors,
        products=[item.product_id for item in cart.items],
    )
    before = snapshot(db)
    db.execute("""
        create function fail() returns trigger language plpgsql as $$
        begin
          if (select count(*) from vendor_orders) = 1 then
            raise exception 'made to fail' using errcode = 'XX001';
          end if;
          return new;
        end $$;
        create trigger fail before insert on vendor_orders for each row execute function fail()
    """)

    with pytest.raises(psycopg.errors.DataCorrupted, match="made to fail"):
        checkout_sql(db, cart)

    db.execute("drop trigger fail on vendor_orders")
    assert snapshot(db) == before
    assert checkout_sql(db, copy, key="k2")["outcome"] == "complete"
    assert counts(db) == {"orders": 2, "lines": 4, "intents": 2, "events": 2, "keys": 1, "reserved": 4}
    assert values(db, "select distinct cart_id from vendor_orders") == [copy.id]


def test_an_attempt_that_failed_does_not_hold_the_last_unit_against_its_retry(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=1, stock=1)
    caller = connect()
    with caller.transaction():
        with pytest.raises(psycopg.errors.DivisionByZero), caller.transaction():
            assert checkout_sql(caller, cart)["outcome"] == "complete"
            caller.execute("select 1 / 0")
        # in the same transaction, and from another session afterwards
        assert checkout_sql(caller, cart)["outcome"] == "complete"
        raise psycopg.Rollback
    assert checkout_sql(db, cart)["outcome"] == "complete"


def test_nobody_reads_an_order_without_its_lines(db, connect, add_cart, checkout_sql):
    """Stopped between its orders and their lines, with a second call waiting: a reader sees nothing of it."""
    cart = add_cart(vendors=2)
    db.execute("""
        create function pause() returns trigger language plpgsql as $$
        begin
          perform pg_advisory_xact_lock(1);
          return null;
        end $$;
        create trigger pause after insert on vendor_orders for each statement execute function pause()
    """)
    gate, first, second = connect(autocommit=True), connect(autocommit=True), connect(autocommit=True)
    gate.execute("select pg_advisory_lock(1)")

    with blocked(db, checkout_sql, first, cart) as converting:
        with blocked(db, checkout_sql, second, cart, key="k2") as waiting:
            assert counts(db) == NOTHING
            assert values(db, "select status::text from cart_records") == ["active"]
            gate.execute("select pg_advisory_unlock(1)")
        assert waiting.result() == converting.result() | {"replayed": True}

    assert {item["cart_item_id"] for order in waiting.result()["vendor_orders"] for item in order["items"]} == {
        str(item.id) for item in cart.items
    }


def test_readers_under_load_see_whole_orders_alone(connect, pool, add_cart, checkout_sql):
    """checkout_audit() judges one snapshot: it is clean at any moment, not only when all is quiet."""
    carts = [add_cart(vendors=2) for _ in range(60)]
    watcher = connect(autocommit=True)
    audits = []

    def buy(some):
        for cart in some:
            with pool.connection() as conn:
                checkout_sql(conn, cart)

    def watch():
        deadline = time.monotonic() + 20
        while counts(watcher)["orders"] < 120 and time.monotonic() < deadline:
            audits.append(rows(watcher, "select * from checkout_audit()"))

    for outcome in at_once(watch, *[partial(buy, carts[n::6]) for n in range(6)]):
        if isinstance(outcome, Exception):
            raise outcome
    assert audits and not any(audits)
