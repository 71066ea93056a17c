"""A log record names the file and line of whoever made the call, as logging's own do."""

import asyncio
import inspect
import logging
from pathlib import Path

import psycopg
import pytest

import pycheckout
from factories import request_of


@pytest.fixture
def places(caplog):
    """places(): file, line and function of each record so far."""
    caplog.set_level(logging.INFO, logger="pycheckout")
    return lambda: [(record.pathname, record.lineno, record.funcName) for record in caplog.records]


def here(offset):
    """The place that many lines below the call."""
    frame = inspect.stack()[1]
    return frame.filename, frame.lineno + offset, frame.function


def test_a_call_is_logged_where_it_was_made(db, add_cart, places):
    cart = add_cart()

    expected = here(1)
    pycheckout.execute(db, **request_of(cart))
    again = here(1)
    pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)

    assert places() == [expected, again]


def test_so_is_one_that_is_refused(db, places):
    with pytest.raises(pycheckout.InvalidRequest):
        expected = here(1)
        pycheckout.put_cart(db, {"id": "none"})

    assert places() == [expected]


def test_an_awaited_call_is_logged_where_it_is_awaited(dsn, add_cart, places):
    cart = add_cart()

    async def order():
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            expected = here(1)
            await pycheckout.execute_async(conn, **request_of(cart))
            return expected

    expected = asyncio.run(order())

    assert places() == [expected]


def test_a_task_is_logged_where_its_loop_is_run(dsn, add_cart, places):
    """Nothing knows any more who made the task, and a line of asyncio would help nobody."""
    cart = add_cart()

    async def order():
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            await asyncio.create_task(pycheckout.execute_async(conn, **request_of(cart)))

    expected = here(1)
    asyncio.run(order())

    assert places() == [expected]


def test_a_package_whose_name_begins_like_ours_is_a_caller(db, places):
    folder = Path(f"{Path(pycheckout.__file__).parent}_of_the_host")
    source = "def call(pycheckout, db):\n    pycheckout.put_cart(db, {'id': 'none'})\n"
    names: dict = {}
    exec(compile(source, str(folder / "shop.py"), "exec"), names)
    with pytest.raises(pycheckout.InvalidRequest):
        names["call"](pycheckout, db)

    assert places() == [(str(folder / "shop.py"), 2, "call")]
