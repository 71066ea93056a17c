"""The shop, as its own project would test it: by pycheckout.testing, against a real database and a real Redis."""

import asyncio
import hashlib
import hmac
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from alembic import command
from redis import Redis

import pycheckout
from examples.shop import consumer, payments, quotes
from examples.shop.__main__ import redis_server
from examples.shop.conftest import PAYMENT_SECRET
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


def signed(body):
    return {"X-Payment-Signature": hmac.new(PAYMENT_SECRET, body, hashlib.sha256).hexdigest()}


@pytest.fixture
def tell(shop):
    def tell(charge, amount_cents, kind="captured", event="evt_1", signature=None, **more):
        """What the payment provider sends."""
        told = {"id": event, "type": f"charge.{kind}", "created_at": "2026-01-02T03:04:05Z", "charge_id": charge}
        body = json.dumps(told | {"amount_cents": amount_cents, "currency": "USD"} | more).encode()
        return shop.post("/payments/events", content=body, headers=signature or signed(body))

    return tell


@pytest.fixture
def recorded(pycheckout_pool):
    def recorded():
        """(order, event, kind, cents) of each payment event in the database."""
        with pycheckout_pool.connection() as conn:
            query = (
                "select order_id::text, provider_event_id, kind, amount_cents from payment_events order by created_at"
            )
            return conn.execute(query).fetchall()

    return recorded


def order_of(shop, order):
    return shop.get(f"/orders/{order['order_id']}", headers=AS_BUYER).json()


def due(order):
    """Status, total, and what is due either way."""
    return order["status"], order["total_cents"], order["balance_due_cents"], order["refund_due_cents"]


def by_vendor(result) -> list[Any]:
    """The orders of the potter and of the baker."""
    found = {order["vendor_store_id"]: order for order in result["vendor_orders"]}
    return [found.get(str(vendor)) for vendor in (POTTER, BAKER)]


def test_a_quote_has_the_shops_own_prices_and_is_ordered_once(put, check_out, pycheckout_pool):
    cart = uuid4()
    quoted = put(cart, (CUP, 1), (BREAD, 2), (CUP, 2))

    first, again = check_out(cart), check_out(cart)

    # 3 * 1250 and 2 * 480, 8 % of each, half a cent up, and a parcel of each vendor at 490 and its tax.
    sums = {"subtotal_cents": 4710, "discounts_cents": 0, "tax_cents": 300 + 77 + 39 + 39, "transport_fee_cents": 980}
    assert quoted.json()["totals"]["quoted"] == sums | {"total_cents": 6145}
    assert first.json()["totals"]["confirmed"] == sums | {"total_cents": 6145}
    assert (first.status_code, again.status_code) == (201, 200)
    cups, breads = by_vendor(first.json())
    assert (cups["total_cents"], breads["total_cents"]) == (3750 + 300 + 490 + 39, 960 + 77 + 490 + 39)
    assert cups["vendor_shipping_line"] == {"code": "standard", "title": "Standard"}
    assert cups["expires_at"] is not None
    with pycheckout_pool.connection() as conn:
        mails = conn.execute(
            "select checkout_group_id, buyer_store_id, total_cents, sent_at from confirmations"
        ).fetchall()
        charges = conn.execute("select order_id, checkout_group_id, amount_cents from charges").fetchall()
    charge = UUID(first.json()["checkout_group_id"])
    assert mails == [(charge, BUYER, 6145, None)]
    assert sorted(charges) == sorted((UUID(each["order_id"]), charge, each["total_cents"]) for each in (cups, breads))


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


def test_shipping_is_chosen_with_the_cart_and_confirmed_at_what_was_quoted(put, check_out):
    cart = uuid4()
    not_offered = put(cart, (CUP, 1), shipping="rocket")
    put(cart, (CUP, 1), (BREAD, 1), shipping="express")

    refused = check_out(cart, shipping_line={"code": "standard"})
    answer = check_out(cart, shipping_line={"code": "express"})

    assert (not_offered.status_code, not_offered.json()["errors"][0]["field"]) == (422, "shipping")
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "shipping_line.code")
    assert answer.json()["shipping_line"] == {"code": "express", "title": "Express", "price_cents": 2 * 990}
    assert answer.json()["totals"]["confirmed"]["transport_fee_cents"] == 2 * 990


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


# Payments


def test_one_charge_pays_the_orders_of_all_vendors_however_often_it_is_told(shop, put, check_out, tell, recorded):
    cart = uuid4()
    put(cart, (CUP, 3), (BREAD, 2))
    result = check_out(cart).json()
    cups, breads = by_vendor(result)

    answers = [tell(result["checkout_group_id"], 6145) for _ in range(3)]

    assert [(each.status_code, each.json()["status"]) for each in answers] == [
        (200, "recorded"),
        (200, "known"),
        (200, "known"),
    ]
    assert sorted(recorded()) == sorted(
        (order["order_id"], "evt_1", "captured", order["total_cents"]) for order in (cups, breads)
    )
    for order in (cups, breads):
        now = order_of(shop, order)
        assert due(now) == ("created_pending", order["total_cents"], 0, 0)
        assert (now["payment_intent"]["status"], now["expires_at"]) == ("settled", None)


def test_a_charge_that_is_told_by_four_at_once_is_recorded_once(put, check_out, tell, recorded):
    cart = uuid4()
    put(cart, (CUP, 3), (BREAD, 2))
    charge = check_out(cart).json()["checkout_group_id"]

    with ThreadPoolExecutor(4) as provider:
        answers = [each.json()["status"] for each in provider.map(lambda _: tell(charge, 6145), range(4))]

    assert sorted(answers) == ["known"] * 3 + ["recorded"]
    assert len(recorded()) == 2


def test_what_the_provider_did_not_sign_writes_nothing(shop, put, check_out, tell, recorded):
    cart = uuid4()
    put(cart, (CUP, 3))
    [order, _] = by_vendor(result := check_out(cart).json())
    charge = result["checkout_group_id"]
    body = json.dumps({"id": "evt_1", "type": "charge.captured", "charge_id": charge, "amount_cents": 4579}).encode()

    for signature in (signed(body), {"X-Payment-Signature": ""}, {"X-Payment-Signature": "\u00e9".encode()}):
        assert tell(charge, 4579, signature=signature).status_code == 401
    assert shop.post("/payments/events", content=body).status_code == 401

    assert recorded() == []
    assert due(order_of(shop, order)) == ("created_pending", 4579, 4579, None)


def test_what_the_shop_cannot_read_is_refused_and_writes_nothing(shop, put, check_out, tell, recorded):
    cart = uuid4()
    put(cart, (CUP, 3), (BREAD, 2))
    charge = check_out(cart).json()["checkout_group_id"]

    answers = [
        tell(charge, 6145, kind="considered"),
        tell("a charge", 6145),
        tell(str(uuid4()), 6145),
        tell(charge, 6145, order_id=str(uuid4())),
        tell(charge, 6145, currency="EUR"),
        *(shop.post("/payments/events", content=body, headers=signed(body)) for body in (b"[]", b"{", b" " * 65537)),
    ]

    assert [each.status_code for each in answers] == [200, 400, 404, 404, 422, 400, 400, 413]
    assert answers[0].json() == {"status": "ignored"}
    assert recorded() == []


def test_an_id_that_stands_for_another_amount_is_refused(put, check_out, tell, recorded):
    cart = uuid4()
    put(cart, (CUP, 3), (BREAD, 2))
    charge = check_out(cart).json()["checkout_group_id"]
    tell(charge, 6145)
    told = recorded()

    answer = tell(charge, 6000)

    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert recorded() == told


def test_a_vendor_accepts_a_part_and_the_rest_of_the_money_goes_back(shop, put, check_out, tell):
    cart = uuid4()
    put(cart, (CUP, 3), (BREAD, 2))
    [order, _] = by_vendor(result := check_out(cart).json())
    tell(result["checkout_group_id"], 6145)
    decide = f"/orders/{order['order_id']}/decide"
    answer = {
        "decisions": [{"line_item_id": order["items"][0]["line_item_id"], "accept_qty": 2, "reason": "One is broken."}],
        "change_key": "answer-1",
    }

    as_another = [shop.post(decide, json=answer, headers=who).status_code for who in (AS_BUYER, AS_BAKER)]
    decided, again = (shop.post(decide, json=answer, headers=AS_POTTER).json() for _ in range(2))
    owed = due(order_of(shop, order))
    tell(result["checkout_group_id"], owed[-1], kind="refunded", event="evt_2", order_id=order["order_id"])

    assert as_another == [403, 404]
    assert (decided["status"], decided["replayed"], again["replayed"]) == ("partially_accepted", False, True)
    assert owed == ("partially_accepted", 4579 - 1350, 0, 1350)  # a cup and its tax
    assert due(order_of(shop, order)) == ("partially_accepted", 4579 - 1350, 0, 0)
    assert shop.get(f"/stock/{CUP.id}", headers=AS_POTTER).json()["available_qty"] == UNITS - 2


@pytest.mark.parametrize("shop", ["0.001"], indirect=True, ids=["a millisecond to pay"])
def test_an_order_that_is_not_paid_in_time_expires_and_late_money_is_due_back(
    shop, put, check_out, tell, pycheckout_dsn
):
    cart = uuid4()
    put(cart, (BOWL, 2))
    [order, _] = by_vendor(result := check_out(cart).json())
    assert shop.get(f"/stock/{BOWL.id}", headers=AS_POTTER).json()["available_qty"] == UNITS - 2

    expire(pycheckout_dsn)

    assert due(order_of(shop, order)) == ("expired", 0, 0, None)
    assert shop.get(f"/stock/{BOWL.id}", headers=AS_POTTER).json()["available_qty"] == UNITS

    late = [tell(result["checkout_group_id"], order["total_cents"]).json()["status"] for _ in range(2)]

    assert late == ["recorded", "known"]
    assert due(order_of(shop, order)) == ("expired", 0, 0, order["total_cents"])
    assert shop.get(f"/stock/{BOWL.id}", headers=AS_POTTER).json()["available_qty"] == UNITS


@pytest.mark.parametrize("shop", ["0.001"], indirect=True, ids=["a millisecond to pay"])
def test_an_order_that_is_paid_when_the_expiry_comes_is_kept(shop, put, check_out, tell, pycheckout_dsn):
    cart = uuid4()
    put(cart, (BOWL, 2))
    [order, _] = by_vendor(result := check_out(cart).json())
    tell(result["checkout_group_id"], order["total_cents"])

    expire(pycheckout_dsn)

    assert due(order_of(shop, order)) == ("created_pending", order["total_cents"], 0, 0)


def expire(dsn):
    """`pycheckout expire`, once."""
    command = [sys.executable, "-c", "from pycheckout.cli import main; main()", "expire"]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"PYCHECKOUT_DATABASE_URL": dsn}, check=True)


@pytest.mark.parametrize("amount_cents", [0, 1, 2, 100, 6145, 6146, 10**15 + 1])
def test_the_shares_of_an_amount_are_all_of_it(amount_cents):
    charged = [(uuid4(), cents) for cents in (4579, 1566, 1)]

    shared = dict(payments.shares(amount_cents, charged))

    assert sum(shared.values()) == amount_cents
    assert all(abs(shared[order] * 6146 - amount_cents * cents) <= 6146 for order, cents in charged)


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

    assert asyncio.run(quote()).total_cents == 3800 + 304 + 490 + 39


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
def test_units_that_come_back_are_counted_by_the_part(put, check_out, shop, pycheckout_dsn):
    cart = uuid4()
    put(cart, (CUP, 5))
    [order, _] = by_vendor(check_out(cart).json())
    at, line = f"/orders/{order['order_id']}", order["items"][0]["line_item_id"]
    decisions = [{"line_item_id": line, "accept_qty": 4, "reason": "One is broken."}]
    changes = [
        ("decide", {"decisions": decisions, "change_key": "answer-1"}),
        (f"lines/{line}/release", {"reason": "One more is.", "qty": 1, "change_key": "short-1"}),
        (f"lines/{line}/fulfil", {}),
        (f"lines/{line}/return", {"reason": "Too small.", "qty": 2, "restock": True, "change_key": "rma-1"}),
    ]
    for what, body in changes:
        assert shop.post(f"{at}/{what}", json=body, headers=AS_POTTER).status_code == 200

    with redis_server() as url, Redis.from_url(url) as redis, psycopg.connect(pycheckout_dsn) as conn:
        asyncio.run(Relay(pycheckout_dsn, url).run(until_empty=True))
        consumer.consume(conn, redis, until_idle=True)

    assert {each["title"]: each["units_sold"] for each in shop.get("/products").json()}["Cup"] == 5 - 1 - 1 - 2


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
    told = output.splitlines()
    assert "2 orders, replayed False: goods 42.30, shipping 9.80, tax 4.16, total 56.26" in told
    assert "2 orders, replayed True: goods 42.30, shipping 9.80, tax 4.16, total 56.26" in told
    assert (told.count("recorded"), told.count("known")) == (1, 1)
    assert "a wrong signature: 401" in told
    assert "partially_accepted: total 32.29, due 0.00, to be given back 13.50" in told
    assert "fulfilled: 2 units" in told
    assert "canceled: total 0.00, due 0.00, to be given back 10.47" in told
    assert told.count(f"{UNITS + 12} available") == 2
    assert "expired: total 0.00, due 0.00, to be given back 0.00" in told
    assert f"{UNITS} bowls available" in told
    assert "expired: total 0.00, due 0.00, to be given back 25.81" in told
    assert "two cups are sold" in output or shutil.which("redis-server") is None
    assert "checkout_audit() finds nothing." in told


def test_where_there_is_no_curl_that_is_said_before_anything_starts(port, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    shop = started(port, "--once")
    output, _ = shop.communicate(timeout=60)

    assert shop.returncode == 1
    assert output == "--once buys by curl, and there is none: install it, or start the shop without --once.\n"


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
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert len(httpx.get(f"http://127.0.0.1:{port}/products").json()) == 3
    finally:
        shop.send_signal(number)
        rest, _ = shop.communicate(timeout=30)  # ends once nothing that it started holds its output

    assert shop.returncode == 0, rest
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")
