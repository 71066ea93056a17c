"""The service under uvicorn, in a process of its own."""

import json

import httpx
import pytest

pytest_plugins = ["pycheckout.testing"]

BUYER = "11111111-1111-4111-8111-111111111111"
TOKEN = {"Authorization": "Bearer a-token"}


@pytest.fixture
def shop(start, pycheckout_dsn):
    env = {"SHOP_DATABASE_URL": pycheckout_dsn, "SHOP_TOKENS": json.dumps({"a-token": BUYER})}
    url = start("-m", "uvicorn", "examples.fastapi.shop:app", "--port", "{port}", **env)
    with httpx.Client(base_url=url) as client:
        yield client


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
