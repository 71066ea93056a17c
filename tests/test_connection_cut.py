"""A connection that breaks at any point of a checkout: one conversion, and the caller gets its result.

The proxy cuts, and the server has committed or it has not. Which of the two, the caller cannot know: a broken line
looks the same. So each test pins what the server did at the cut, and then what the caller got.
"""

import asyncio
import fcntl
import itertools
import random
import select
import termios
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from functools import partial

import psycopg
import pytest
from proxy import Cut, Point
from psycopg.pq import TransactionStatus
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import pycheckout
from checks import row, values
from factories import request_of
from pycheckout import Unavailable
from races import at_once, wait_until

RESETS = (True, False)
# Of the answer: nothing, a part of its first message, half of it, all but the last byte.
PASSED = (0.0, 0.001, 0.5, -1)

NOTHING = {"orders": 0, "lines": 0, "intents": 0, "events": 0, "reserved": 0}
ONCE = {"orders": 2, "lines": 4, "intents": 2, "events": 2, "reserved": 4}

OTHERS = "datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"

pytestmark = pytest.mark.usefixtures("brief_pauses")


@pytest.fixture
def proxied(proxy, dsn):
    return proxy.dsn(dsn)


@pytest.fixture(params=["pool", "async pool"])
def call(request, proxied, checkout):
    """call(cart, isolation_level=None): the wrapper on a pool behind the proxy, which is sound afterwards."""
    settings = {"min_size": 1, "max_size": 4, "timeout": 10}

    def call(cart, isolation_level=None):
        def configure(conn):
            conn.isolation_level = isolation_level

        with ConnectionPool(proxied, configure=configure, open=True, **settings) as pool:
            try:
                return checkout(pool, cart)
            finally:
                with pool.connection() as conn:
                    assert_sound(conn)

    async def call_async(cart, isolation_level=None):
        async def configure(conn):
            await conn.set_isolation_level(isolation_level)

        async with AsyncConnectionPool(proxied, configure=configure, open=False, **settings) as pool:
            try:
                return await pycheckout.execute_async(pool, **request_of(cart))
            finally:
                async with pool.connection() as conn:
                    assert_sound(conn)

    return call if request.param == "pool" else lambda *args: asyncio.run(call_async(*args))


def assert_sound(conn):
    assert not conn.closed
    assert conn.autocommit is False
    assert conn.info.transaction_status == TransactionStatus.IDLE


def left_by(db, cart):
    """Counts of what a checkout of this cart has left; ONCE is right for two vendors with two lines each."""
    query = """
        select (select count(*) from vendor_orders where cart_id = cart.id) as orders,
               (select count(*) from order_line_items join vendor_orders as o on o.id = order_id
                 where o.cart_id = cart.id) as lines,
               (select count(*) from payment_intents join vendor_orders as o on o.id = order_id
                 where o.cart_id = cart.id) as intents,
               (select count(*) from outbox_events where aggregate_id = cart.checkout_group_id) as events,
               (select sum(reserved_qty)::int from inventory_items join cart_items as i using (product_id)
                 where i.cart_id = cart.id) as reserved
          from cart_records as cart
         where cart.id = %s
    """
    return row(db, query, cart.id)


def while_left(db, cart, left):
    """For Cut.when: at the cut, a checkout of this cart has left just this."""

    def check():
        assert left_by(db, cart) == left

    return check


# The wrapper on a pool: the caller gets the result


def test_cut_before_the_statement_converts_at_the_next_attempt(proxy, call, db, add_cart, attempts):
    for reset in RESETS:
        cart = add_cart()
        proxy.cut(Cut(point=Point.BEFORE, reset=reset, when=while_left(db, cart, NOTHING)))

        result = call(cart)

        assert (result.replayed, result.outcome, attempts()) == (False, "complete", 2), reset
        assert left_by(db, cart) == ONCE


def test_cut_of_the_answer_replays_at_the_next_attempt(proxy, call, db, add_cart, attempts):
    """The order is there: it is given to the caller, not made again."""
    for passed, reset in itertools.product(PASSED, RESETS):
        cart = add_cart()
        proxy.cut(Cut(point=Point.ANSWERED, passed=passed, reset=reset, when=while_left(db, cart, ONCE)))

        result = call(cart)

        assert (result.replayed, result.outcome, attempts()) == (True, "complete", 2), (passed, reset)
        assert left_by(db, cart) == ONCE


def test_cut_while_the_statement_runs_joins_the_first_attempt(proxy, call, connect, db, add_cart, attempts):
    """The server works on for a client that is gone. The next attempt waits for it."""

    def wait_for_waiting(number):
        wait_until(lambda: sessions(db, "wait_event_type = 'Lock'") == number)

    for reset in RESETS:
        cart = add_cart()
        holder = connect()
        holder.execute("select from cart_records where id = %s for update", (cart.id,))
        proxy.cut(Cut(point=Point.RUNNING, reset=reset, when=lambda: wait_for_waiting(1)))

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(call, cart)
            wait_for_waiting(2)
            assert left_by(db, cart) == NOTHING
            holder.rollback()
            result = waiting.result(timeout=20)

        # The first attempt may end with its connection; then the second one converts.
        assert (result.outcome, attempts()) == ("complete", 2), reset
        wait_until(lambda: sessions(db, "state <> 'idle'") == 0)
        assert left_by(db, cart) == ONCE


def test_cut_during_the_commit_joins_the_first_attempt(proxy, call, connect, db, add_cart, attempts):
    """The statement is done and its commit has begun when the line breaks: the commit stands."""
    for reset in RESETS:
        cart = add_cart()
        holder = stop_in_commit(db, connect)
        proxy.cut(Cut(point=Point.RUNNING, reset=reset, when=partial(wait_until_waiting, db, "advisory")))

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(call, cart)
            wait_until_waiting(db, "transactionid")  # the second attempt, for the cart
            assert left_by(db, cart) == NOTHING
            holder.rollback()
            result = waiting.result(timeout=20)

        assert (result.replayed, attempts()) == (True, 2), reset
        assert left_by(db, cart) == ONCE


def test_cut_of_the_pools_own_commit_is_tried_again(proxy, call, db, add_cart, attempts):
    """Where the host chose an isolation level, BEGIN and COMMIT stay around the statement."""
    for (point, left), reset in itertools.product(((Point.BEFORE, NOTHING), (Point.ANSWERED, ONCE)), RESETS):
        cart = add_cart()
        proxy.cut(Cut(point=point, statement=b"COMMIT", reset=reset, when=while_left(db, cart, left)))

        result = call(cart, psycopg.IsolationLevel.REPEATABLE_READ)

        assert (result.replayed, attempts()) == (left == ONCE, 2), (point, reset)
        assert left_by(db, cart) == ONCE


def test_first_attempts_may_be_cut_at_any_points(proxy, call, db, add_cart, attempts):
    rng = random.Random(3)
    for number in (2, 3, 4) * 2:
        cart = add_cart()
        cuts = [
            Cut(
                point=rng.choice([Point.BEFORE, Point.ANSWERED]),
                passed=rng.choice([0.0, rng.random(), -1]),
                reset=rng.choice(RESETS),
            )
            for _ in range(number)
        ]
        proxy.cut(*cuts)

        result = call(cart)

        assert attempts() == number + 1, cuts
        assert result.replayed is any(cut.point is Point.ANSWERED for cut in cuts), cuts
        assert left_by(db, cart) == ONCE


def test_every_attempt_cut_is_a_bounded_error(proxy, call, db, add_cart, attempts):
    for point, left in ((Point.BEFORE, NOTHING), (Point.ANSWERED, ONCE)):
        cart = add_cart()
        proxy.cut(*[Cut(point=point, reset=reset) for reset in (True, False, True, False, True)])

        with pytest.raises(Unavailable) as caught:
            call(cart)

        assert caught.value.retryable is True
        assert isinstance(caught.value.__cause__, psycopg.OperationalError)
        assert (attempts(), proxy.made) == (5, 5)
        assert left_by(db, cart) == left
        # Later, the same call settles it.
        assert call(cart).replayed is (left == ONCE)
        assert left_by(db, cart) == ONCE


def test_cuts_under_load_convert_each_cart_once(proxy, proxied, db, add_cart, checkout):
    """Sixteen calls, two a cart under one key, and every third statement is cut."""
    carts = [add_cart() for _ in range(8)]
    calls = carts * 2
    random.Random(7).shuffle(calls)
    with ConnectionPool(proxied, min_size=4, max_size=8, timeout=10, open=True) as pool:
        pool.wait()
        proxy.cut(*[None, None, Cut(point=Point.ANSWERED), None, None, Cut(point=Point.BEFORE, reset=False)] * 2)
        results = [
            result for n in (0, 8) for result in at_once(*[partial(checkout, pool, cart) for cart in calls[n : n + 8]])
        ]

    assert {type(result) for result in results} == {pycheckout.CheckoutResult}
    assert [result.cart_id for result in results] == [cart.id for cart in calls]
    assert [left_by(db, cart) for cart in carts] == [ONCE] * 8


def test_retry_that_finds_no_server_ends_with_the_pools_time_out(proxy, proxied, db, add_cart, checkout, attempts):
    cart = add_cart()

    def refuse():
        proxy.refusing = True

    with ConnectionPool(proxied, min_size=1, max_size=1, timeout=0.3, open=True) as pool:
        pool.wait()
        proxy.cut(Cut(point=Point.ANSWERED, when=refuse))
        with pytest.raises(Unavailable):
            checkout(pool, cart)

    assert attempts() == 2
    assert checkout(db, cart).replayed is True
    assert left_by(db, cart) == ONCE


def test_backends_terminated_between_calls_are_not_noticed(proxied, db, add_cart, checkout):
    """All four, three times, and then a call on each at once: each finds its connection dead."""
    with ConnectionPool(proxied, min_size=4, max_size=4, timeout=10, open=True) as pool:
        for _ in range(3):
            pool.wait()
            db.execute(f"select pg_terminate_backend(pid, 5000) from pg_stat_activity where {OTHERS}")
            carts = [add_cart() for _ in range(4)]
            results = at_once(*[partial(checkout, pool, cart) for cart in carts])
            assert [result.outcome for result in results] == ["complete"] * 4
            assert [left_by(db, cart) for cart in carts] == [ONCE] * 4


class Hasty(psycopg.Connection):
    """As psycopg behaves in the microseconds where a reset is known and not yet readable: it raises without reading."""

    def wait(self, gen, *args, **kwargs):
        return super().wait(self._raising(gen), *args, **kwargs)

    def _raising(self, gen):
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if self._is_reset():
                    raise psycopg.OperationalError("connection socket closed")
                wanted = gen.send(ready)
        except StopIteration as end:
            return end.value

    def _is_reset(self):
        line = select.poll()
        line.register(self.fileno(), 0)  # reports errors, and them alone
        unread = fcntl.ioctl(self.fileno(), termios.FIONREAD, bytes(4))
        return line.poll(0) and not any(unread)


def test_reset_that_psycopg_raises_without_reading_is_tried_again(proxied, proxy, db, add_cart, checkout, attempts):
    def isolate(level, conn):
        conn.isolation_level = level

    cuts = [(None, Cut(point=Point.ANSWERED, passed=passed)) for passed in PASSED]
    cuts += [(psycopg.IsolationLevel.REPEATABLE_READ, Cut(point=Point.ANSWERED, statement=b"COMMIT"))]
    for level, cut in cuts:
        cart = add_cart()
        proxy.cut(cut)
        settings = {"connection_class": Hasty, "configure": partial(isolate, level), "min_size": 1, "timeout": 10}
        with ConnectionPool(proxied, open=True, **settings) as pool:
            assert checkout(pool, cart).replayed is True

        assert (attempts(), proxy.made) == (2, 1), cut
        assert left_by(db, cart) == ONCE


def test_reset_that_psycopg_raises_without_reading_closes_the_callers_connection(proxied, proxy, add_cart, checkout):
    for passed, autocommit in itertools.product(PASSED, (True, False)):
        proxy.cut(Cut(point=Point.ANSWERED, passed=passed))
        with closing(Hasty.connect(proxied, autocommit=autocommit)) as conn:
            with pytest.raises(Unavailable, match="connection socket closed") as caught:
                checkout(conn, add_cart())
            assert conn.closed, (passed, autocommit)
        assert (caught.value.outcome, caught.value.retryable) == ("unknown", True)


# A connection of the caller: a typed error, and the same call again settles it


def test_lost_autocommit_connection_is_settled_by_the_same_call(proxy, proxied, db, add_cart, checkout, attempts):
    cuts = [(Cut(point=Point.BEFORE), NOTHING), *((Cut(point=Point.ANSWERED, passed=p), ONCE) for p in PASSED)]
    for (cut, left), reset in itertools.product(cuts, RESETS):
        cart = add_cart()
        proxy.cut(replace(cut, reset=reset, when=while_left(db, cart, left)))

        with closing(psycopg.connect(proxied, autocommit=True)) as conn:
            with pytest.raises(Unavailable) as caught:
                checkout(conn, cart)
            assert conn.closed

        assert (caught.value.retryable, attempts()) == (True, 1)
        settled = checkout(db, cart)
        assert (settled.replayed, settled.outcome) == (left == ONCE, "complete"), (cut, reset)
        assert left_by(db, cart) == ONCE


def test_statement_cut_in_the_callers_transaction_is_not_retried(proxy, proxied, db, add_cart, checkout, attempts):
    """Its transaction went with the connection, and the rest of it is not ours to repeat."""
    db.execute("create table diary (line text)")
    for point, reset in itertools.product((Point.BEFORE, Point.ANSWERED), RESETS):
        cart = add_cart()
        proxy.cut(Cut(point=point, reset=reset, when=while_left(db, cart, NOTHING)))

        with closing(psycopg.connect(proxied)) as conn:
            conn.execute("insert into diary values ('before')")
            with pytest.raises(Unavailable):
                checkout(conn, cart)
            assert attempts() == 1

        wait_until(lambda: sessions(db, "state <> 'idle'") == 0)
        assert left_by(db, cart) == NOTHING
        assert checkout(db, cart).replayed is False
        assert left_by(db, cart) == ONCE
    assert values(db, "select count(*) from diary") == [0]


def test_cut_of_the_callers_commit_is_settled_by_the_same_call(proxy, proxied, db, add_cart, checkout):
    """The COMMIT is the caller's statement, and so is its error; what became of it the same call tells."""
    for (point, left), reset in itertools.product(((Point.BEFORE, NOTHING), (Point.ANSWERED, ONCE)), RESETS):
        cart = add_cart()
        proxy.cut(Cut(point=point, statement=b"COMMIT", reset=reset, when=while_left(db, cart, left)))

        with closing(psycopg.connect(proxied)) as conn:
            answer = checkout(conn, cart)
            with pytest.raises(psycopg.OperationalError):
                conn.commit()

        settled = checkout(db, cart)
        assert settled.replayed is (left == ONCE), reset
        assert left == NOTHING or settled == replace(answer, replayed=True)
        assert left_by(db, cart) == ONCE


def test_cut_while_the_callers_commit_runs_is_settled_by_the_same_call(proxy, proxied, db, connect, add_cart, checkout):
    for reset in RESETS:
        cart = add_cart()
        holder = stop_in_commit(db, connect)
        again = connect(autocommit=True)

        with closing(psycopg.connect(proxied)) as conn, ThreadPoolExecutor(1) as threads:
            stopped = partial(wait_until_waiting, db, "advisory")
            proxy.cut(Cut(point=Point.RUNNING, statement=b"COMMIT", reset=reset, when=stopped))
            answer = checkout(conn, cart)
            with pytest.raises(psycopg.OperationalError):
                conn.commit()
            assert left_by(db, cart) == NOTHING

            waiting = threads.submit(checkout, again, cart)
            wait_until_waiting(db, "transactionid")
            holder.rollback()

            assert waiting.result(timeout=20) == replace(answer, replayed=True), reset
        assert left_by(db, cart) == ONCE


# A caller who takes a new key for each try


def test_lost_answer_and_a_new_key_is_still_one_order(proxy, proxied, db, add_cart, checkout):
    """Reported elsewhere as: a random key per call, and a second order, intent and stock decrement."""
    for passed, reset in itertools.product(PASSED, RESETS):
        cart = add_cart()
        proxy.cut(Cut(point=Point.ANSWERED, passed=passed, reset=reset))
        with closing(psycopg.connect(proxied, autocommit=True)) as conn, pytest.raises(Unavailable):
            checkout(conn, cart, key="first")
        assert left_by(db, cart) == ONCE

        for key in ("second", "third"):
            assert checkout(db, cart, key=key).replayed is True

        assert left_by(db, cart) == ONCE
        keys = values(db, "select idempotency_key from checkout_requests where cart_id = %s order by 1", cart.id)
        assert keys == ["first", "second", "third"]


# Helpers


def wait_until_waiting(db, event):
    """Return once one session waits for this kind of lock."""
    wait_until(lambda: sessions(db, "wait_event = %s", event) == 1)


def sessions(db, condition, *params):
    """How many other sessions of this test's database are like this; also those whose client is gone."""
    return values(db, f"select count(*) from pg_stat_activity where {OTHERS} and {condition}", *params)[0]


def stop_in_commit(db, connect):
    """Stop every checkout in its commit, until the connection that is returned rolls back."""
    db.execute("""
        create or replace function stop() returns trigger language plpgsql as $$
        begin
          perform pg_advisory_xact_lock_shared(1);
          return null;
        end $$;
        drop trigger if exists stop on outbox_events;
        create constraint trigger stop after insert on outbox_events
          deferrable initially deferred for each row execute function stop()
    """)
    holder = connect()
    holder.execute("select pg_advisory_xact_lock(1)")
    return holder
