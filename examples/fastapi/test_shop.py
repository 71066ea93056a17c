"""The service under uvicorn, in a process of its own."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

pytest_plugins = ["pycheckout.testing"]

ROOT = Path(__file__).parents[2]
BUYER = "11111111-1111-4111-8111-111111111111"
TOKEN = {"Authorization": "Bearer a-token"}


@pytest.fixture
def shop(pycheckout_dsn):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    env = os.environ | {"SHOP_DATABASE_URL": pycheckout_dsn, "SHOP_TOKENS": json.dumps({"a-token": BUYER})}
    command = [sys.executable, "-m", "uvicorn", "examples.fastapi.shop:app", "--port", str(port)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as server:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
                deadline = time.monotonic() + 30
                while True:
                    try:
                        client.get("/openapi.json")
                        break
                    except httpx.ConnectError:
                        assert server.poll() is None, server.stderr.read()
                        assert time.monotonic() < deadline
                        time.sleep(0.05)
                yield client
        finally:
            server.terminate()
            server.communicate(timeout=10)


def test_a_buyer_with_a_token_checks_out_and_pays_the_shipping_of_the_shop(shop, pycheckout_cart, rows):
    cart = pycheckout_cart(buyer_store_id=BUYER)
    request = {name: value for name, value in cart.request().items() if name in ("shipping_address", "payment_method")}
    request |= {"cart_id": str(cart.id), "shipping_line": {"code": "express"}}

    def post(**headers):
        return shop.post("/checkout", json=request, headers=headers | {"Idempotency-Key": "k1"})

    assert post().status_code == 401
    assert post(Authorization="Bearer nobody").json()["code"] == "unauthorized"
    first, again = post(**TOKEN), post(**TOKEN)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["shipping_line"] == {"code": "express", "title": "Express", "price_cents": 990}
    assert shop.get(f"/checkout/{cart.id}", headers=TOKEN).json() == again.json() == first.json() | {"replayed": True}
    assert rows() == (2, 0)


def test_shipping_that_the_shop_does_not_offer_is_refused(shop, pycheckout_cart):
    cart = pycheckout_cart(buyer_store_id=BUYER)
    request = {"cart_id": str(cart.id), "payment_method": "ach", "shipping_address": cart.request()["shipping_address"]}

    response = shop.post(
        "/checkout", json=request | {"shipping_line": {"code": "rocket"}}, headers=TOKEN | {"Idempotency-Key": "k1"}
    )

    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")
