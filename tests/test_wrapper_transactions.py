"""Whose transaction a checkout is, and which errors are tried again."""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

import pycheckout
from pycheckout import Busy, CartExpired, InvalidRequest, Unavailable
from races import wait_until, wait_until_blocked

IDLE, INTRANS, INERROR = TransactionStatus.IDLE, TransactionStatus.INTRANS, TransactionStatus.INERROR

LOCK_CART = "select from cart_records where id = %s for update"


@contextmanager
def cart_locked(conn, cart):
    """`conn` holds the cart's row lock."""
    with conn.transaction():
        conn.execute(LOCK_CART, (cart.id,))
        yield


@pytest.fixture
def fail_times(db):
    """fail_times(n, sqlstate): the next n checkouts fail at their last write."""

    def fail_times(times, sqlstate):
        # A sequence counts on when its transaction is rolled back.
        db.execute(f"""
            drop table if exists failures;
            drop sequence if exists tries;
            create sequence tries;
            create or replace function fail() returns trigger language plpgsql as $$
            begin
              if nextval('tries') <= {times} then
                raise exception 'made to fail' using errcode = '{sqlstate}';
              end if;
              return new;
            end $$;
            create or replace trigger fail before insert on outbox_events
              for each row when (new.event_type = 'checkout.converted') execute function fail()
        """)

    return fail_times


# The caller's transaction


def test_nothing_is_committed_for_the_caller(connect, db, add_cart, checkout, snapshot):
    cart = add_cart()
    before = snapshot(db)
    conn = connect()
    assert conn.info.transaction_status == IDLE

    result = checkout(conn, cart)  # its first statement

    assert result.outcome == "complete"
    assert conn.info.transaction_status == INTRANS
    assert snapshot(db) == before
    conn.rollback()
    assert snapshot(db) == before
    assert checkout(conn, cart).replayed is False
    conn.commit()
    assert checkout(db, cart).replayed is True


def test_checkout_joins_what_the_caller_did_before(connect, db, add_cart, checkout):
    cart = add_cart()
    conn = connect()
    conn.execute("create table diary (line text)")
    checkout(conn, cart)
    conn.execute("insert into diary values ('ordered')")
    conn.commit()

    assert db.execute("select line from diary").fetchall() == [("ordered",)]
    assert checkout(db, cart).replayed is True


def test_open_transaction_on_an_autocommit_connection_is_the_callers(db, connect, add_cart, checkout, snapshot):
    cart = add_cart()
    before = snapshot(db)
    conn = connect(autocommit=True)

    with conn.transaction(force_rollback=True):
        checkout(conn, cart)
        assert conn.info.transaction_status == INTRANS
    assert snapshot(db) == before

    conn.execute("begin")
    checkout(conn, cart)
    conn.execute("rollback")
    assert snapshot(db) == before


def test_savepoint_of_the_caller_survives_an_error(connect, add_cart, checkout):
    good, expired = add_cart(), add_cart(valid_for=-1)
    conn = connect()
    with conn.transaction():
        with pytest.raises(CartExpired), conn.transaction():
            checkout(conn, expired)
        assert checkout(conn, good).outcome == "complete"


def test_error_leaves_the_transaction_to_the_caller(connect, db, add_cart, checkout, snapshot):
    cart = add_cart(valid_for=-1)
    before = snapshot(db)
    conn = connect()

    with pytest.raises(CartExpired):
        checkout(conn, cart)

    assert conn.info.transaction_status == INERROR
    conn.commit()
    assert snapshot(db) == before


@pytest.mark.parametrize("autocommit", [False, True])
def test_pipeline_belongs_to_the_caller(connect, db, add_cart, checkout, snapshot, autocommit):
    """Up to its next sync a pipeline is one transaction, in autocommit as well."""
    cart = add_cart()
    db.execute("create table diary (line int primary key)")
    before = snapshot(db)
    conn = connect(autocommit=autocommit)

    with pytest.raises(psycopg.errors.UniqueViolation), conn.pipeline():
        conn.execute("insert into diary values (1)")
        assert checkout(conn, cart).outcome == "complete"
        conn.execute("insert into diary values (1)")
    conn.rollback()
    assert snapshot(db) == before

    with conn.pipeline() as pipeline:
        conn.execute("insert into diary values (1)")
        assert checkout(conn, cart).replayed is False
        assert checkout(conn, cart).replayed is True
        pipeline.sync()
    conn.commit()
    assert checkout(db, cart).replayed is True
    assert db.execute("select * from diary").fetchall() == [(1,)]


@pytest.mark.parametrize("autocommit", [False, True])
def test_pipeline_error_is_typed(connect, add_cart, checkout, autocommit):
    conn = connect(autocommit=autocommit)
    with conn.pipeline(), pytest.raises(CartExpired):
        checkout(conn, add_cart(valid_for=-1))
    conn.rollback()

    with pytest.raises(psycopg.errors.DivisionByZero), conn.pipeline():
        conn.execute("select 1 / 0")
        # The caller's own statement failed; this one is only told so.
        checkout(conn, add_cart())


def test_busy_is_the_callers_to_retry(connect, add_cart, checkout, fail_times, attempts):
    cart = add_cart()
    fail_times(1, "40P01")
    in_pipeline, in_transaction, autocommit_off = connect(autocommit=True), connect(autocommit=True), connect()

    with pytest.raises(Busy):
        checkout(autocommit_off, cart)
    assert attempts() == 1

    fail_times(1, "40P01")
    with pytest.raises(Busy), in_transaction.transaction():
        checkout(in_transaction, cart)
    assert attempts() == 1

    autocommit_off.rollback()
    fail_times(1, "40P01")
    with pytest.raises(Busy), in_pipeline.pipeline():
        checkout(in_pipeline, cart)
    assert attempts() == 1


# A transaction of its own


def test_autocommit_commits_at_once(connect, db, add_cart, checkout):
    cart = add_cart()
    conn = connect(autocommit=True)

    first = checkout(conn, cart)

    assert conn.info.transaction_status == IDLE
    assert checkout(db, cart) == replace(first, replayed=True)


def test_pool_commits_at_once_and_gets_its_connection_back_as_it_was(dsn, db, add_cart, checkout):
    cart, expired = add_cart(), add_cart(valid_for=-1)

    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        with pool.connection() as before:
            pass
        first = checkout(pool, cart)
        with pytest.raises(CartExpired):
            checkout(pool, expired)
        with pool.connection() as after:
            assert after is before
            assert after.autocommit is False
            assert after.info.transaction_status == IDLE

    assert checkout(db, cart) == replace(first, replayed=True)


@pytest.mark.parametrize("pooled", [False, True])
def test_one_round_trip(dsn, connect, add_cart, checkout, tmp_path, pooled):
    carts = add_cart(), add_cart()
    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool, (tmp_path / "trace").open("w+") as trace:
        with pool.connection() as conn:
            pass
        conn = conn if pooled else connect(autocommit=True)
        checkout(pool if pooled else conn, carts[0])
        conn.pgconn.trace(trace.fileno())
        checkout(pool if pooled else conn, carts[1])
        conn.pgconn.untrace()
        trace.seek(0)
        sent = re.findall(r"\tF\t\d+\t(\w+)", trace.read())

    assert sent == ["Parse", "Bind", "Describe", "Execute", "Sync"]


def test_isolation_level_that_the_host_chose_for_its_pool_is_kept(dsn, db, add_cart, checkout):
    db.execute("""
        create table seen (level text);
        create function note() returns trigger language plpgsql as $$
        begin
          insert into seen values (current_setting('transaction_isolation'));
          return new;
        end $$;
        create trigger note before insert on payment_intents for each row execute function note()
    """)

    def configure(conn):
        conn.isolation_level = psycopg.IsolationLevel.SERIALIZABLE

    with ConnectionPool(dsn, min_size=1, configure=configure, open=True) as pool:
        checkout(pool, add_cart(vendors=1))
        with pool.connection() as conn:
            assert conn.isolation_level == psycopg.IsolationLevel.SERIALIZABLE

    assert db.execute("select level from seen").fetchall() == [("serializable",)]


# Retries


@pytest.mark.parametrize("pooled", [False, True])
def test_lock_time_out_is_tried_again(connect, dsn, db, add_cart, checkout, attempts, pooled):
    cart = add_cart()
    options = "-c lock_timeout=100ms"
    with (
        ConnectionPool(dsn, kwargs={"options": options}, min_size=1, open=True) as pool,
        ThreadPoolExecutor(1) as threads,
    ):
        with pool.connection() as pooled_conn:
            pass
        conn = pooled_conn if pooled else connect(autocommit=True, options=options)
        with cart_locked(connect(), cart):
            call = threads.submit(checkout, pool if pooled else conn, cart)
            wait_until_blocked(db, conn.info.backend_pid)
            first = statement_start(db, conn)
            wait_until(lambda: statement_start(db, conn) != first, "it was not tried again")
            wait_until_blocked(db, conn.info.backend_pid)

        assert call.result(timeout=10).replayed is False
    assert attempts() >= 2


def statement_start(db, conn):
    query = "select query_start from pg_stat_activity where pid = %s"
    return db.execute(query, (conn.info.backend_pid,)).fetchone()


@pytest.mark.parametrize("sqlstate", ["40001", "40P01", "55P03"])
@pytest.mark.parametrize("pooled", [False, True])
def test_busy_is_tried_again_under_the_same_key(
    pool, connect, db, add_cart, checkout, fail_times, attempts, pooled, sqlstate
):
    cart = add_cart()
    fail_times(2, sqlstate)

    result = checkout(pool if pooled else connect(autocommit=True), cart)

    assert attempts() == 3
    assert result.replayed is False
    assert db.execute("select count(*) from checkout_requests").fetchone() == (1,)


def test_retries_are_bounded(connect, db, add_cart, checkout, snapshot, attempts):
    cart = add_cart()
    before = snapshot(db)
    conn = connect(autocommit=True, options="-c lock_timeout=10ms")

    with cart_locked(connect(), cart), pytest.raises(Busy) as caught:
        checkout(conn, cart)

    assert caught.value.sqlstate == "55P03"
    assert attempts() == 5
    assert snapshot(db) == before


def test_errors_that_would_come_again_are_not_retried(db, pool, add_cart, checkout, attempts):
    with pytest.raises(CartExpired):
        checkout(pool, add_cart(valid_for=-1))
    assert attempts() == 1
    with pytest.raises(InvalidRequest):
        checkout(db, add_cart(), payment_method="shells")
    assert attempts() == 1


def test_dead_connections_of_a_pool_are_replaced(dsn, db, add_cart, checkout, attempts):
    """After a failover, all of them are dead."""
    with ConnectionPool(dsn, min_size=10, max_size=10, open=True) as pool:
        pool.wait()
        db.execute("""
            select pg_terminate_backend(pid, 5000)
              from pg_stat_activity
             where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
        """)

        assert checkout(pool, add_cart()).outcome == "complete"
        assert attempts() == 2


def test_connection_killed_in_mid_checkout(dsn, connect, db, add_cart, checkout, attempts):
    cart = add_cart()
    with ConnectionPool(dsn, min_size=1, open=True) as pool, ThreadPoolExecutor(1) as threads:
        with pool.connection() as conn:
            pid = conn.info.backend_pid
        with cart_locked(connect(), cart):
            call = threads.submit(checkout, pool, cart)
            wait_until_blocked(db, pid)
            db.execute("select pg_terminate_backend(%s, 5000)", (pid,))

        assert call.result(timeout=10).replayed is False
    assert attempts() == 2
    assert db.execute("select count(*) from vendor_orders").fetchone() == (2,)


@pytest.mark.parametrize("autocommit", [False, True])
def test_lost_connection_of_the_caller_is_unavailable(connect, db, add_cart, checkout, attempts, autocommit):
    cart = add_cart()
    conn = connect(autocommit=autocommit)
    db.execute("select pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))

    for _ in range(2):  # lost, then closed
        with pytest.raises(Unavailable):
            checkout(conn, cart)
        assert attempts() == 1


def test_statement_time_out_is_unavailable(connect, add_cart, checkout, attempts):
    cart = add_cart()
    conn = connect(autocommit=True, options="-c statement_timeout=50ms")

    with cart_locked(connect(), cart), pytest.raises(Unavailable) as caught:
        checkout(conn, cart)

    assert caught.value.sqlstate == "57014"
    assert attempts() == 1


def test_read_only_server_is_unavailable(connect, add_cart, checkout):
    conn = connect(autocommit=True, options="-c default_transaction_read_only=on")

    with pytest.raises(Unavailable) as caught:
        checkout(conn, add_cart())

    assert caught.value.sqlstate == "25006"


def test_pool_without_a_connection_is_unavailable(dsn, add_cart, checkout, attempts):
    cart = add_cart()
    with ConnectionPool(dsn, min_size=1, max_size=1, timeout=0.1, open=True) as pool:
        with pool.connection(), pytest.raises(Unavailable):
            checkout(pool, cart)
        assert attempts() == 1
        assert checkout(pool, cart).outcome == "complete"
    with pytest.raises(Unavailable):
        checkout(pool, cart)
    with pytest.raises(Unavailable):
        checkout(ConnectionPool(dsn, open=False), cart)


def test_interrupted_call_gives_the_pool_a_sound_connection_back(dsn, connect, add_cart, checkout):
    """KeyboardInterrupt, or a worker's own time-out."""
    cart = add_cart()

    def interrupt(*_):
        raise KeyboardInterrupt

    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with cart_locked(connect(), cart), pytest.raises(KeyboardInterrupt):
                signal.setitimer(signal.ITIMER_REAL, 0.3)
                checkout(pool, cart)
        finally:
            signal.signal(signal.SIGALRM, before)

        assert checkout(pool, cart).replayed is False
        with pool.connection() as conn:
            assert conn.autocommit is False


def test_result_follows_the_same_rules(connect, pool, db, add_cart):
    cart = add_cart()
    conn = connect()
    pycheckout.result(conn, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)
    assert conn.info.transaction_status == INTRANS
    pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)
    assert db.info.transaction_status == IDLE
    assert pycheckout.result(pool, buyer_store_id=cart.buyer_store_id, cart_id=cart.id).status == "active"


def test_two_processes_never_share_a_retry_rhythm():
    """Jitter: callers that lost one deadlock must not meet again."""
    from pycheckout._connection import Attempts

    def delays():
        attempts = Attempts()
        for _ in range(4):
            attempts.begin()
            attempts.ours = True
            yield attempts.delay(Busy())

    first, second = list(delays()), list(delays())
    assert first != second
    assert all(0.02 <= delay <= 0.4 for delay in first + second)
