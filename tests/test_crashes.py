"""Killed at every step: nothing of it stays, and the same call again converts, once. No answer is ever lost."""

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from crash import STOPS, CrashServer, install_stops, release, stopped_at, wait_for_stop
from psycopg_pool import ConnectionPool

import pycheckout
from checks import rows, values
from pycheckout._embedded import embedded_server
from races import wait_until_gone


@pytest.fixture
def stops(db):
    install_stops(db)


@pytest.fixture(scope="module")
def crash_server():
    """A server of its own, durable, since what dies here must come back."""
    if "TEST_DATABASE_URL" in os.environ:
        pytest.skip("kills its server, so it takes the embedded one")
    with embedded_server(in_memory=True, max_connections=50) as embedded:
        with psycopg.connect(embedded.dsn(), autocommit=True) as conn:
            conn.execute("create database migrated")
        pycheckout.migrate(embedded.dsn("migrated"))
        with psycopg.connect(embedded.dsn("migrated"), autocommit=True) as conn:
            install_stops(conn)
        yield CrashServer.of(embedded)


@pytest.fixture
def crash_dsn(crash_server):
    """A database of its own for a test, with stops. The audit at the end, whatever happened to the server."""
    with psycopg.connect(crash_server.embedded.dsn(), autocommit=True) as conn:
        # what is copied by files stands in no log that the server would have to go through again
        conn.execute("create database crash template migrated strategy file_copy")
    yield crash_server.embedded.dsn("crash")
    with psycopg.connect(crash_server.embedded.dsn("crash")) as conn:
        broken = rows(conn, "select * from checkout_audit()")
    # recovery looks at every file of every database: what is not needed any more makes the next test slower
    with psycopg.connect(crash_server.embedded.dsn(), autocommit=True) as conn:
        conn.execute("drop database crash with (force)")
    assert broken == []


def conversion_of(conn, cart):
    """How often the cart was ordered, in every way that counts."""
    return {
        "carts": values(conn, "select status::text from cart_records where id = %s", cart.id),
        "orders": values(conn, "select count(*) from vendor_orders where cart_id = %s", cart.id),
        "intents": values(
            conn, "select count(*) from payment_intents where order_id = any (%s)", [g.id for g in cart.groups]
        ),
        "events": values(
            conn, "select count(*) from outbox_events where payload #>> '{data,cart_id}' = %s", str(cart.id)
        ),
        "reserved": values(
            conn,
            "select sum(reserved_qty) from inventory_items where product_id = any (%s)",
            [item.product_id for item in cart.items],
        ),
    }


def once(cart):
    return {
        "carts": ["converted"],
        "orders": [len(cart.groups)],
        "intents": [len(cart.groups)],
        "events": [2],
        "reserved": [sum(item.quantity for item in cart.items)],
    }


@pytest.mark.parametrize("step", STOPS)
def test_a_backend_killed_at_any_step_leaves_nothing(db, stops, connect, add_cart, checkout, snapshot, step):
    """No lock and no key outlives its session; the same key converts at once."""
    cart = add_cart(vendors=2, lines=2, quantity=3)
    before = snapshot(db)
    with stopped_at(db, step), ThreadPoolExecutor(1) as threads:
        call = threads.submit(checkout, connect(autocommit=True), cart, reservation_policy="all")
        pid = wait_for_stop(db)
        db.execute("select pg_terminate_backend(%s)", (pid,))
        with pytest.raises(pycheckout.Unavailable) as caught:
            call.result()
    assert caught.value.retryable
    wait_until_gone(db, pid)
    assert snapshot(db) == before

    again = checkout(connect(autocommit=True), cart, reservation_policy="all")

    assert (again.replayed, again.outcome) == (False, "complete")
    assert conversion_of(db, cart) == once(cart)


@pytest.mark.parametrize("step", STOPS)
def test_a_pool_whose_backend_is_killed_at_any_step_gets_the_result(db, stops, pool, add_cart, checkout, step):
    """The caller of a pool does not even notice."""
    cart = add_cart(vendors=2, lines=2, quantity=3)
    with stopped_at(db, step), ThreadPoolExecutor(1) as threads:
        call = threads.submit(checkout, pool, cart)
        pid = wait_for_stop(db)
        db.execute("select pg_terminate_backend(%s)", (pid,))
        wait_until_gone(db, pid)
        release(db)
        assert call.result().outcome == "complete"
    assert conversion_of(db, cart) == once(cart)
    assert checkout(pool, cart).replayed


def test_a_cancel_that_is_killed_gives_nothing_back(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=1, quantity=3)
    checkout_sql(db, cart)
    db.execute(
        """
        create function crash_stop() returns trigger language plpgsql
        as $$ begin perform pg_advisory_xact_lock_shared(hashtext('crash'), hashtext('cancel')); return null; end $$;
        create trigger crash_stop after insert on outbox_events for each statement execute function crash_stop();
        """
    )
    cancel = f"select vendor_order_cancel('{cart.groups[0].id}', 'called off')"
    with stopped_at(db, "cancel"), ThreadPoolExecutor(1) as threads:
        call = threads.submit(connect(autocommit=True).execute, cancel)
        db.execute("select pg_terminate_backend(%s)", (wait_for_stop(db),))
        with pytest.raises(psycopg.OperationalError):
            call.result()
    assert conversion_of(db, cart) == once(cart)

    db.execute(cancel)
    assert values(db, "select sum(reserved_qty) from inventory_items") == [0]


@pytest.mark.parametrize("step", STOPS)
def test_a_postmaster_killed_at_any_step_leaves_nothing(crash_server, crash_dsn, add_cart, checkout, snapshot, step):
    """SIGKILL, then crash recovery from the log; the caller's retry with the same key converts."""
    conn = psycopg.connect(crash_dsn, autocommit=True)
    cart = add_cart(vendors=2, lines=2, quantity=3, conn=conn)
    before = snapshot(conn)
    with stopped_at(conn, step), ThreadPoolExecutor(1) as threads:
        call = threads.submit(checkout, psycopg.connect(crash_dsn, autocommit=True), cart)
        wait_for_stop(conn)
        crash_server.kill()
        with pytest.raises(pycheckout.Unavailable):
            call.result()
    crash_server.start()

    with psycopg.connect(crash_dsn, autocommit=True) as conn:
        assert snapshot(conn) == before
        assert checkout(conn, cart).replayed is False
        assert conversion_of(conn, cart) == once(cart)


def test_what_was_answered_survives_a_kill(crash_server, crash_dsn, add_cart, checkout):
    """The commit is on disk before the answer is out: the replay has the same ids."""
    conn = psycopg.connect(crash_dsn, autocommit=True)
    cart = add_cart(quantity=3, conn=conn)
    answer = checkout(conn, cart)
    crash_server.kill()
    crash_server.start()

    with psycopg.connect(crash_dsn, autocommit=True) as conn:
        replay = checkout(conn, cart)
        assert replay.replayed
        assert replay.checkout_group_id == answer.checkout_group_id
        assert [order.order_id for order in replay.vendor_orders] == [order.order_id for order in answer.vendor_orders]
        assert conversion_of(conn, cart) == once(cart)


def test_a_pool_gets_over_a_crash_of_the_whole_server(crash_server, crash_dsn, add_cart, checkout):
    """SIGKILL of one backend makes the postmaster throw out all of them; the caller gets the result all the same."""
    conn = psycopg.connect(crash_dsn, autocommit=True)
    cart = add_cart(quantity=3, conn=conn)
    with ConnectionPool(crash_dsn, min_size=2, max_size=2, open=True) as pool:
        pool.wait()
        with stopped_at(conn, "order without lines"), ThreadPoolExecutor(1) as threads:
            call = threads.submit(checkout, pool, cart)
            os.kill(wait_for_stop(conn), signal.SIGKILL)
            try:
                answer = call.result()
            except pycheckout.Unavailable:
                # recovery took longer than the wrapper tries: the caller's own retry settles it
                crash_server.wait_until_ready()
                answer = checkout(pool, cart)
        assert answer.outcome == "complete"
    with psycopg.connect(crash_dsn, autocommit=True) as conn:
        assert conversion_of(conn, cart) == once(cart)
