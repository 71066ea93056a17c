"""The shop, as its own project would test it: by pycheckout.testing, against a real database and a real Redis."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from alembic import command
from redis import Redis

import pycheckout
from examples.shop import consumer, quotes
from examples.shop.__main__ import redis_server
from examples.shop.database import BAKER, BOWL, BREAD, CUP, POTTER, UNITS, alembic_config
from pycheckout.relay import Relay

pytest_plugins = ["pycheckout.testing"]

ROOT = Path(__file__).parents[2]
BUYER = UUID("00000000-0000-4000-8000-0000000000c1")
AS_BUYER, AS_POTTER, AS_BAKER = (
    {"X-Buyer-Store": str(BUYER)},
    {"X-Vendor-Store": str(POTTER)},
    {"X-Vendor-Store": str(BAKER)},
)

with_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="apt-get install redis-server")


@pytest.fixture
def put(shop):
    def put(cart, *lines, **more):
        """A cart of (product, quantity)."""
        wanted = [{"product_id": str(product.id), "quantity": quantity} for product, quantity in lines]
        return shop.put(f"/carts/{cart}", json={"lines": wanted} | more, headers=AS_BUYER)

    return put


@pytest.fixture
def check_out(shop):
    def check_out(cart, key="k1", **more):
        address = {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "postal_code": "74103", "country": "US"}
        body = {"cart_id": str(cart), "payment_method": "ach", "shipping_address": address}
        return shop.post("/checkout", json=body | more, headers=AS_BUYER | {"Idempotency-Key": key})

    return check_out


def test_a_quote_has_the_shops_own_prices_and_is_ordered_once(put, check_out, pycheckout_pool):
    cart = uuid4()
    quoted = put(cart, (CUP, 1), (BREAD, 2), (CUP, 2))

    first, again = check_out(cart), check_out(cart)

    total = 3 * CUP.unit_price_cents + 2 * BREAD.unit_price_cents
    assert quoted.json()["totals"]["quoted"]["total_cents"] == total
    assert (first.status_code, again.status_code) == (201, 200)
    assert {order["vendor_store_id"] for order in first.json()["vendor_orders"]} == {str(POTTER), str(BAKER)}
    with pycheckout_pool.connection() as conn:
        mails = conn.execute(
            "select checkout_group_id, buyer_store_id, total_cents, sent_at from confirmations"
        ).fetchall()
    assert mails == [(UUID(first.json()["checkout_group_id"]), BUYER, total, None)]


def test_a_mail_that_cannot_be_noted_takes_the_order_back(put, check_out, pycheckout_pool):
    cart = uuid4()
    put(cart, (CUP, 1))
    with pycheckout_pool.connection() as conn:
        conn.execute("alter table confirmations add constraint none check (total_cents < 0)")

    assert check_out(cart).status_code == 500

    with pycheckout_pool.connection() as conn:
        assert conn.execute("select count(*) from vendor_orders").fetchone() == (0,)
        conn.execute("alter table confirmations drop constraint none")
    assert check_out(cart).status_code == 201


def test_what_is_not_sold_here_is_a_problem(put, shop):
    unknown = quotes.Product(uuid4(), POTTER, "Vase", 1)

    answer = put(uuid4(), (CUP, 1), (unknown, 1))

    assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert answer.json()["errors"] == [{"field": "lines", "problem": f"{unknown.id} is not sold here"}]
    assert shop.put(f"/carts/{uuid4()}", json={"lines": []}).status_code == 401


def test_shipping_costs_what_the_shop_says(put, check_out):
    cart = uuid4()
    put(cart, (CUP, 1))

    refused = check_out(cart, shipping_line={"code": "rocket"})
    answer = check_out(cart, shipping_line={"code": "express"})

    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "shipping_line.code")
    assert answer.json()["shipping_line"] == {"code": "express", "title": "Express", "price_cents": 990}


def test_a_click_is_attributed_to_the_line(shop, put, check_out):
    cart = uuid4()
    token = shop.post(f"/ads/{CUP.id}/click", headers=AS_BUYER).json()["ad_token"]
    put(cart, (CUP, 1), (BOWL, 1), ad_tokens=[token])

    [order] = check_out(cart).json()["vendor_orders"]

    attributed = {line["name"]: line["attributed_token"] for line in order["items"]}
    assert attributed["Bowl"] is None
    assert attributed["Cup"]["target_id"] == str(CUP.id)


def test_an_order_is_its_buyers_and_its_vendors(shop, pycheckout_pool, pycheckout_cart):
    """The cart is the plugin's, of the shop's own products."""
    cart = pycheckout_cart(buyer=BUYER, products={each.id: each.vendor_store_id for each in (CUP, BREAD)}, stock=None)
    orders = pycheckout.execute(pycheckout_pool, **cart.request()).vendor_orders
    [cups], [breads] = ([order for order in orders if order.vendor_store_id == vendor] for vendor in (POTTER, BAKER))
    fulfil = f"/orders/{cups.order_id}/lines/{cups.items[0].line_item_id}/fulfil"

    assert len(shop.get("/orders", headers=AS_BUYER).json()["orders"]) == 2
    assert shop.get(f"/orders/{breads.order_id}", headers=AS_POTTER).json()["code"] == "order_not_found"
    assert shop.post(fulfil, headers=AS_BAKER).status_code == 404
    assert shop.post(fulfil, headers=AS_POTTER).json()["status"] == "fulfilled"
    cancel = {"json": {"reason": "too late"}, "headers": AS_BUYER}
    assert shop.post(f"/orders/{breads.order_id}/cancel", **cancel).json()["status"] == "canceled"
    assert shop.post(f"/orders/{cups.order_id}/cancel", **cancel).json()["code"] == "order_state_conflict"
    assert shop.get("/orders", headers=AS_BUYER | AS_POTTER).status_code == 401


def test_a_vendor_counts_its_own_stock(shop):
    url, change = f"/stock/{BREAD.id}", {"delta": -3, "change_key": "mice-1"}

    assert shop.get(url, headers=AS_BAKER).json()["available_qty"] == UNITS
    assert shop.put(url, json={"available": 5}, headers=AS_BAKER).json()["available_qty"] == 5
    for _ in range(2):
        assert shop.post(f"{url}/changes", json=change, headers=AS_BAKER).json()["available_qty"] == 2
    refused = shop.post(f"{url}/changes", json={"delta": -3, "change_key": "mice-2"}, headers=AS_BAKER)
    assert (refused.status_code, refused.json()["code"]) == (409, "insufficient_inventory")
    assert shop.get(url, headers=AS_POTTER).status_code == 404


def test_prices_are_read_by_an_async_pool(pycheckout_async_pool):
    async def quote():
        async with pycheckout_async_pool as pool, pool.connection() as conn:
            return await quotes.quote(conn, cart_id=uuid4(), buyer_store_id=BUYER, quantities={BOWL.id: 2})

    assert asyncio.run(quote()).total_cents == 2 * BOWL.unit_price_cents


def test_alembic_finds_nothing_to_change(pycheckout_dsn):
    command.check(alembic_config(pycheckout_dsn))


def test_the_shops_tables_go_and_come_back(pycheckout_dsn):
    command.downgrade(alembic_config(pycheckout_dsn), "base")
    command.upgrade(alembic_config(pycheckout_dsn), "head")
    command.check(alembic_config(pycheckout_dsn))


@with_redis
def test_units_are_counted_once_however_often_an_event_comes(put, check_out, shop, pycheckout_dsn):
    cart = uuid4()
    put(cart, (CUP, 3), (BREAD, 1))
    orders = check_out(cart).json()["vendor_orders"]
    [bread] = [order["order_id"] for order in orders if order["vendor_store_id"] == str(BAKER)]
    shop.post(f"/orders/{bread}/cancel", json={"reason": "baked some ourselves"}, headers=AS_BUYER)
    sold = lambda: {each["title"]: each["units_sold"] for each in shop.get("/products").json()}  # noqa: E731

    with redis_server() as url, Redis.from_url(url) as redis, psycopg.connect(pycheckout_dsn) as conn:
        published = asyncio.run(Relay(pycheckout_dsn, url).run(until_empty=True))
        consumer.consume(conn, redis, until_idle=True)
        once = sold()
        copies: Any = redis.xrange(consumer.STREAM)
        for _, fields in copies:
            redis.xadd(consumer.STREAM, fields)
        consumer.consume(conn, redis, until_idle=True)

    assert published == 3
    assert once == sold() == {"Bowl": 0, "Bread": 0, "Cup": 3}


@with_redis
def test_an_event_that_failed_is_taken_up_by_the_next_run(put, check_out, shop, pycheckout_dsn, monkeypatch):
    cart = uuid4()
    put(cart, (CUP, 3))
    check_out(cart)

    with redis_server() as url, Redis.from_url(url) as redis, psycopg.connect(pycheckout_dsn) as conn:
        asyncio.run(Relay(pycheckout_dsn, url).run(until_empty=True))
        conn.execute("alter table products add constraint unsold check (units_sold = 0)")
        conn.commit()
        with pytest.raises(psycopg.errors.CheckViolation):
            consumer.consume(conn, redis, until_idle=True)
        conn.execute("alter table products drop constraint unsold")
        conn.commit()
        consumer.consume(conn, redis, until_idle=True)
        waiting: Any = redis.xpending(consumer.STREAM, consumer.GROUP)

    assert waiting["pending"] == 0
    assert {each["title"]: each["units_sold"] for each in shop.get("/products").json()}["Cup"] == 3


# The one command


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def started(port, *options):
    return subprocess.Popen(
        [sys.executable, "-m", "examples.shop", "--port", str(port), *options],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="apt-get install curl")
def test_one_command_starts_all_of_it_and_buys(port):
    shop = started(port, "--once")
    output, _ = shop.communicate(timeout=120)

    assert shop.returncode == 0, output
    assert '"replayed":true' in output
    assert '"status":"fulfilled"' in output
    assert '"status":"canceled"' in output
    assert f'"available_qty":{UNITS + 12}' in output
    assert "three cups are sold" in output or shutil.which("redis-server") is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped_and_leaves_nothing(port, number):
    shop = started(port)
    assert shop.stdout
    try:
        told = ""
        while "Buy something" not in told:
            line = shop.stdout.readline()
            assert line, told
            told += line
        assert httpx.get(f"http://127.0.0.1:{port}/health").json() == {"status": "ok"}
        assert len(httpx.get(f"http://127.0.0.1:{port}/products").json()) == 3
    finally:
        shop.send_signal(number)
        rest, _ = shop.communicate(timeout=30)  # ends once nothing that it started holds its output

    assert shop.returncode == 0, rest
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/health")
