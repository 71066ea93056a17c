"""One checkout is one statement and one round trip, seen on the wire."""

import asyncio
import tempfile
from collections import Counter
from contextlib import contextmanager

import psycopg
import pytest
from psycopg.pq import Trace
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from test_calls_cut import CALLS, world  # noqa: F401  (fixture)

import pycheckout
from factories import request_of


@contextmanager
def traced(conn):
    """Counts of the protocol's messages in the block, "F Execute" for one sent and "B DataRow" for one received."""
    messages = Counter()
    with tempfile.TemporaryFile("w+") as file:
        conn.pgconn.trace(file.fileno())
        conn.pgconn.set_trace_flags(Trace.SUPPRESS_TIMESTAMPS)
        try:
            yield messages
        finally:
            conn.pgconn.untrace()
        file.seek(0)
        fields = (line.strip().split("\t") for line in file)
        messages.update(f"{line[0]} {line[2]}" for line in fields if line[0] in ("F", "B"))


def assert_one_round_trip(messages):
    assert messages["F Execute"] == messages["F Sync"] == 1, messages
    assert messages["F Parse"] <= 1 and messages["F Query"] == 0
    assert messages["B ReadyForQuery"] == 1
    assert messages["B DataRow"] == 1


def test_an_autocommit_connection_sends_one_statement(dsn, add_cart):
    """With neither BEGIN nor COMMIT, and no other at its side: it is done when the answer is there."""
    cart = add_cart(vendors=3)
    with psycopg.connect(dsn, autocommit=True) as conn:
        for number in range(1, 8):
            with traced(conn) as messages:
                pycheckout.execute(conn, **request_of(cart))
            if number == 6:  # where psycopg prepares it, once a connection, in a message of its own
                assert (messages["F Execute"], messages["F Parse"], messages["F Query"]) == (1, 1, 0)
            else:
                assert_one_round_trip(messages)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", CALLS)
def test_every_call_is_one_statement_and_one_round_trip(dsn, world, name, is_async):  # noqa: F811
    """Also by a pool of connections that are not in autocommit: no BEGIN, no COMMIT."""
    arguments = CALLS[name][1](world)
    group, _, call = name.rpartition(".")

    def of(checkout):
        return getattr(getattr(checkout, group) if group else checkout, call)

    async def run():
        async with AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool:
            async with pool.connection() as conn:
                pass
            with traced(conn) as messages:
                await of(pycheckout.AsyncCheckout(pool))(**arguments)
            return messages

    if is_async:
        messages = asyncio.run(run())
    else:
        with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
            with pool.connection() as conn:
                pass
            with traced(conn) as messages:
                of(pycheckout.Checkout(pool))(**arguments)
    if name == "outbox.backlog":  # nothing is sent with it, and psycopg's protocol for that is the simple one
        assert (messages["F Query"], messages["F Sync"], messages["B ReadyForQuery"]) == (1, 0, 1)
    else:
        assert_one_round_trip(messages)


def test_a_pool_sends_one_statement(dsn, db, add_cart):
    cart = add_cart()
    with ConnectionPool(dsn, min_size=1, max_size=1, open=True) as pool:
        with pool.connection() as conn:
            pass
        with traced(conn) as messages:
            pycheckout.execute(pool, **request_of(cart))
        assert_one_round_trip(messages)

    assert db.execute("select status::text from cart_records").fetchone() == ("converted",)


def test_in_a_callers_transaction_it_adds_one_statement(dsn, add_cart):
    cart = add_cart()
    with psycopg.connect(dsn) as conn:
        conn.execute("select 1")
        with traced(conn) as messages:
            pycheckout.execute(conn, **request_of(cart))
        assert_one_round_trip(messages)


def test_an_async_connection_sends_one_statement(dsn, add_cart):
    cart = add_cart()

    async def run():
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            with traced(conn) as messages:
                await pycheckout.execute_async(conn, **request_of(cart))
            return messages

    assert_one_round_trip(asyncio.run(run()))


def test_reading_a_result_and_writing_a_quote_take_one_statement_each(dsn, add_cart):
    cart = add_cart()
    quote = {
        "id": str(cart.id),
        "buyer_store_id": str(cart.buyer_store_id),
        "currency": "USD",
        "valid_until": "2999-01-01T00:00:00Z",
        "vendor_groups": [],
    }
    with psycopg.connect(dsn, autocommit=True) as conn:
        with traced(conn) as messages:
            pycheckout.result(conn, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)
        assert_one_round_trip(messages)
        with traced(conn) as messages:
            pycheckout.put_cart(conn, quote)
        assert_one_round_trip(messages)


def test_a_refusal_takes_one_statement_too(dsn, add_cart):
    cart = add_cart(valid_for=-1)

    with (
        psycopg.connect(dsn, autocommit=True) as conn,
        traced(conn) as messages,
        pytest.raises(pycheckout.CartExpired),
    ):
        pycheckout.execute(conn, **request_of(cart))

    assert (messages["F Execute"], messages["F Sync"], messages["F Query"]) == (1, 1, 0)


def test_from_psql_it_is_one_select(db, add_cart, checkout_sql):
    """No session state either: what is needed comes in as arguments, and nothing is left behind."""
    before = db.execute("select name, setting from pg_settings where source = 'session' order by 1").fetchall()

    with db.transaction():
        checkout_sql(db, add_cart())
        assert held(db, "advisory") == 0 < held(db, "relation")

    assert db.execute("select name, setting from pg_settings where source = 'session' order by 1").fetchall() == before
    assert db.execute("select count(*) from pg_class where relpersistence = 't'").fetchone() == (0,)
    assert db.execute("select count(*) from pg_prepared_statements where from_sql").fetchone() == (0,)


def held(db, locktype):
    """How many locks of a kind this connection holds; pg_locks shows the whole server's."""
    query = "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = %s"
    return db.execute(query, (locktype,)).fetchone()[0]
