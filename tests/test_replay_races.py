"""IDEMPOTENCY & EMISSION: what a key stands for, when several callers and the purge want it at once.

Reported elsewhere as: the sweep deletes the key between the conflict and the second look; a crash between claiming
a key and storing its answer blocks every retry.
"""

import threading
from functools import partial
from uuid import UUID

import psycopg
import pytest

from checks import refused, rows, values
from races import at_once, blocked

BUYER = UUID(int=7)


def bound(conn):
    return rows(conn, "select idempotency_key as key, cart_id from checkout_requests order by 1, 2")


def test_one_key_raced_for_two_carts_goes_to_the_one_that_commits(db, connect, add_cart, checkout_sql, snapshot):
    one, other = add_cart(buyer_store_id=BUYER), add_cart(buyer_store_id=BUYER)
    first, second = connect(), connect(autocommit=True)
    checkout_sql(first, one, key="shared")

    with blocked(db, checkout_sql, second, other, key="shared") as waiting:
        first.commit()
        before = snapshot(db)
        with refused("OC006") as refusal:
            waiting.result(timeout=10)

    assert refusal.detail["bound_cart_id"] == str(one.id)
    assert snapshot(db) == before
    assert checkout_sql(db, other, key="own")["replayed"] is False


def test_a_key_whose_first_user_rolls_back_goes_to_the_one_that_waited(db, connect, add_cart, checkout_sql):
    one, other = add_cart(buyer_store_id=BUYER), add_cart(buyer_store_id=BUYER)
    first, second = connect(), connect(autocommit=True)
    checkout_sql(first, one, key="shared")

    with blocked(db, checkout_sql, second, other, key="shared") as waiting:
        first.rollback()

    assert waiting.result()["replayed"] is False
    assert bound(db) == [{"key": "shared", "cart_id": other.id}]
    with refused("OC006"):
        checkout_sql(db, one, key="shared")


def test_one_key_raced_for_two_converted_carts_is_refused_too(db, connect, add_cart, checkout_sql):
    """A replay binds its key as well."""
    one, other = add_cart(buyer_store_id=BUYER), add_cart(buyer_store_id=BUYER)
    for cart in (one, other):
        checkout_sql(db, cart, key=str(cart.id))
    first, second = connect(), connect(autocommit=True)
    assert checkout_sql(first, one, key="shared")["replayed"] is True

    with blocked(db, checkout_sql, second, other, key="shared") as waiting:
        first.commit()
        with refused("OC006"):
            waiting.result(timeout=10)


def test_sixteen_carts_raced_under_one_key_make_one_conversion(db, connect, add_cart, checkout_sql):
    carts = [add_cart(buyer_store_id=BUYER, vendors=1) for _ in range(16)]
    conns = [connect(autocommit=True) for _ in carts]

    outcomes = at_once(*[partial(checkout_sql, conn, cart, key="k") for conn, cart in zip(conns, carts, strict=True)])

    codes = [outcome.sqlstate for outcome in outcomes if isinstance(outcome, psycopg.Error)]
    assert codes == ["OC006"] * 15
    assert values(db, "select count(*) from cart_records where status = 'converted'") == [1]
    assert values(db, "select count(*) from outbox_events") == [2]


@pytest.mark.parametrize("ending", ["commit", "rollback"])
def test_a_key_that_is_being_purged_replays(db, connect, add_cart, checkout_sql, ending):
    cart = add_cart()
    converted = checkout_sql(db, cart)
    purge, buyer = connect(), connect(autocommit=True)
    assert values(purge, "select checkout_requests_purge('0')") == [1]

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        getattr(purge, ending)()

    assert waiting.result() == converted | {"replayed": True}
    assert bound(db) == [{"key": "k1", "cart_id": cart.id}]


def test_a_key_that_is_purged_between_the_conflict_and_the_second_look_is_bound_again(
    db, connect, add_cart, checkout_sql
):
    """The purge commits after the insert met the key, and before anyone looks at whose it is."""
    cart = add_cart()
    converted = checkout_sql(db, cart)
    others = add_cart(buyer_store_id=UUID(int=8))
    checkout_sql(db, others)  # another buyer has a key of the same name
    db.execute("""
        create sequence inserts;
        create function insert_and_purge() returns trigger language plpgsql as $$
        begin
          if not exists (select from checkout_requests where buyer_store_id = new.buyer_store_id) then
            perform nextval('inserts');
            return new;
          end if;
          -- the conflict, and what another session's purge would have done right after
          delete from checkout_requests as request where request.buyer_store_id = new.buyer_store_id;
          return null;
        end $$;
        create trigger insert_and_purge before insert on checkout_requests
          for each row execute function insert_and_purge()
    """)

    answer = checkout_sql(connect(autocommit=True), cart)

    assert answer == converted | {"replayed": True}
    assert bound(db) == [{"key": "k1", "cart_id": cart.id}, {"key": "k1", "cart_id": others.id}]
    assert values(db, "select last_value from inserts where is_called") == [1]


def test_replays_under_a_purge_in_a_loop_are_replays(db, connect, add_cart, checkout_sql):
    cart = add_cart()
    converted = checkout_sql(db, cart)
    conns = [connect(autocommit=True) for _ in range(4)]
    purge = connect(autocommit=True)
    done = threading.Event()

    def replay(conn):
        return [checkout_sql(conn, cart) for _ in range(100)]

    def purge_until_done():
        deleted = 0
        while not done.is_set():
            deleted += values(purge, "select checkout_requests_purge('0')")[0]
        return deleted

    def replay_all():
        try:
            return at_once(*[partial(replay, conn) for conn in conns])
        finally:
            done.set()

    answers, deleted = at_once(replay_all, purge_until_done)

    assert answers == [[converted | {"replayed": True}] * 100] * 4
    assert deleted > 1
    assert values(db, "select count(*) from outbox_events") == [2]


@pytest.mark.parametrize("replayed", [False, True])
def test_a_call_that_is_killed_while_it_holds_a_key_leaves_it_free(db, connect, add_cart, checkout_sql, replayed):
    """The key is bound in the transaction of the checkout: it is never there without its result."""
    cart = add_cart()
    if replayed:
        checkout_sql(db, cart, key="before")
    victim, retry = connect(), connect(autocommit=True)
    checkout_sql(victim, cart, key="k1")
    assert "k1" not in [row["key"] for row in bound(db)]

    with blocked(db, checkout_sql, retry, cart, key="k1") as waiting:
        db.execute("select pg_terminate_backend(%s)", (victim.info.backend_pid,))

    assert waiting.result(timeout=10)["replayed"] is replayed


def test_the_same_key_with_another_request_is_refused_once_the_first_has_committed(db, connect, add_cart, checkout_sql):
    cart = add_cart()
    first, second = connect(), connect(autocommit=True)
    checkout_sql(first, cart, key="k1")

    with blocked(db, checkout_sql, second, cart, key="k1", payment_method="cash") as waiting:
        first.commit()
        with refused("OC006"):
            waiting.result(timeout=10)
