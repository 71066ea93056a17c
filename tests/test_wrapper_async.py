"""The async twins keep the same promises."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import psycopg
import pytest
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import pycheckout
from factories import request_of
from pycheckout import Busy, CartExpired, CartNotFound, InvalidRequest, NotInstalled, Unavailable
from races import wait_until_blocked

IDLE, INTRANS = TransactionStatus.IDLE, TransactionStatus.INTRANS


def checkout_async(conn, cart, key="k1", **overrides):
    return pycheckout.execute_async(conn, **(request_of(cart, key) | overrides))


@pytest.fixture
def run(dsn) -> Callable[..., object]:
    """run(test, autocommit=True): await test(conn) on an async connection of its own."""

    def run(test: Callable[[psycopg.AsyncConnection], Awaitable[object]], **kwargs):
        async def main():
            async with await psycopg.AsyncConnection.connect(dsn, **kwargs) as conn:
                return await test(conn)

        return asyncio.run(main())

    return run


@pytest.fixture
def run_pool(dsn):
    """run_pool(test): await test(pool) on an async pool."""

    def run_pool(test, **kwargs):
        async def main():
            async with AsyncConnectionPool(dsn, **({"min_size": 1, "max_size": 4, "open": False} | kwargs)) as pool:
                return await test(pool)

        return asyncio.run(main())

    return run_pool


def test_same_answer_as_the_sync_twin(run, db, add_cart, checkout):
    cart = add_cart()

    first = run(lambda conn: checkout_async(conn, cart), autocommit=True)

    assert checkout(db, cart) == replace(first, replayed=True)


@pytest.mark.parametrize("cursor_factory", [psycopg.AsyncCursor, psycopg.AsyncClientCursor, psycopg.AsyncRawCursor])
def test_any_row_and_cursor_factory(run, add_cart, cursor_factory):
    cart = add_cart()

    async def test(conn):
        assert (await checkout_async(conn, cart)).outcome == "complete"
        return await pycheckout.result_async(conn, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)

    assert run(test, autocommit=True, row_factory=dict_row, cursor_factory=cursor_factory).outcome == "complete"


def test_nothing_is_committed_for_the_caller(run, db, add_cart, snapshot):
    cart = add_cart()
    before = snapshot(db)

    async def test(conn):
        await checkout_async(conn, cart)
        assert conn.info.transaction_status == INTRANS
        await conn.rollback()

    run(test)
    assert snapshot(db) == before


@pytest.mark.parametrize("autocommit", [False, True])
def test_pipeline_belongs_to_the_caller(run, db, add_cart, snapshot, autocommit):
    cart = add_cart()
    before = snapshot(db)

    async def test(conn):
        with pytest.raises(psycopg.errors.DivisionByZero):
            async with conn.pipeline():
                assert (await checkout_async(conn, cart)).outcome == "complete"
                await conn.execute("select 1 / 0")
        await conn.rollback()

    run(test, autocommit=autocommit)
    assert snapshot(db) == before


def test_pool_commits_at_once_and_gets_its_connection_back_as_it_was(run_pool, db, add_cart, checkout):
    cart = add_cart()

    async def test(pool):
        first = await checkout_async(pool, cart)
        with pytest.raises(CartExpired):
            await checkout_async(pool, add_cart(valid_for=-1))
        async with pool.connection() as conn:
            assert conn.autocommit is False
            assert conn.info.transaction_status == IDLE
        return first

    first = run_pool(test)
    assert checkout(db, cart) == replace(first, replayed=True)


def test_many_tasks_convert_a_cart_once(run_pool, db, add_cart):
    cart = add_cart()

    async def test(pool):
        return await asyncio.gather(*(checkout_async(pool, cart) for _ in range(12)))

    results = run_pool(test)

    assert sorted(result.replayed for result in results) == [False] + [True] * 11
    assert len({result.checkout_group_id for result in results}) == 1
    assert db.execute("select count(*) from outbox_events").fetchone() == (2,)


def test_busy_is_tried_again(run, run_pool, connect, add_cart, attempts):
    cart = add_cart()
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    async def test(conn):
        with pytest.raises(Busy):
            await checkout_async(conn, cart)

    run(test, autocommit=True, options="-c lock_timeout=10ms")
    assert attempts() == 5
    run(test, autocommit=False, options="-c lock_timeout=10ms")
    assert attempts() == 1
    run_pool(test, kwargs={"options": "-c lock_timeout=10ms"})
    assert attempts() == 5


def test_connection_killed_in_mid_checkout(run_pool, connect, db, add_cart, attempts):
    cart = add_cart()
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    async def test(pool):
        async with pool.connection() as conn:
            pid = conn.info.backend_pid
        call = asyncio.create_task(checkout_async(pool, cart))
        await asyncio.to_thread(wait_until_blocked, db, pid)
        db.execute("select pg_terminate_backend(%s, 5000)", (pid,))
        holder.rollback()
        return await call

    assert run_pool(test, max_size=1).replayed is False
    assert attempts() == 2
    assert db.execute("select count(*) from vendor_orders").fetchone() == (2,)


def test_cancelled_task_gives_the_pool_a_sound_connection_back(run_pool, connect, db, add_cart):
    cart = add_cart()
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    async def test(pool):
        async with pool.connection() as conn:
            pid = conn.info.backend_pid
        call = asyncio.create_task(checkout_async(pool, cart))
        await asyncio.to_thread(wait_until_blocked, db, pid)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        holder.rollback()
        async with pool.connection() as conn:
            assert conn.autocommit is False
        return await checkout_async(pool, cart)

    assert run_pool(test, max_size=1).replayed is False


def test_errors_are_typed(run, run_pool, add_cart):
    cart = add_cart()

    async def test(conn):
        with pytest.raises(InvalidRequest):
            await checkout_async(conn, cart, idempotency_key="\0")
        with pytest.raises(CartNotFound):
            await pycheckout.result_async(conn, buyer_store_id=cart.id, cart_id=cart.id)
        await conn.close()
        with pytest.raises(Unavailable):
            await checkout_async(conn, cart)

    run(test, autocommit=True)
    run_pool(test)


def test_database_without_pycheckout(empty_database, add_cart):
    cart = add_cart()

    async def main():
        async with await psycopg.AsyncConnection.connect(empty_database(), autocommit=True) as conn:
            with pytest.raises(NotInstalled, match="`pycheckout migrate`"):
                await checkout_async(conn, cart)
            await conn.execute("create schema checkout")
            await conn.execute("create function checkout.checkout_version() returns int language sql as 'select 1'")
            with pytest.raises(NotInstalled, match="it is in schema checkout"):
                await checkout_async(conn, cart)

    asyncio.run(main())


def test_sync_and_async_connections_are_not_mixed_up(run, db, dsn, add_cart, checkout):
    cart = add_cart()

    async def test(conn):
        with pytest.raises(TypeError):
            checkout(conn, cart)
        with pytest.raises(TypeError):
            await checkout_async(db, cart)
        needed = r"a psycopg\.AsyncConnection or a pool of them.*AsyncSession is needed, not psycopg_pool\.pool\."
        with ConnectionPool(dsn, min_size=1, open=True) as pool, pytest.raises(TypeError, match=needed):
            await checkout_async(pool, cart)
        needed = r"a psycopg\.Connection or a pool of them.*Django.* is needed, not psycopg_pool\.pool_async\."
        async with AsyncConnectionPool(dsn, min_size=1) as pool:
            with pytest.raises(TypeError, match=needed):
                checkout(pool, cart)

    run(test, autocommit=True)
