"""The checkout commits and rolls back with the transaction of the request."""

import pytest

from examples.flask.shop import create_app

pytest_plugins = ["pycheckout.testing"]


@pytest.fixture
def app(pycheckout_dsn):
    app = create_app(pycheckout_dsn)
    yield app
    app.extensions["pool"].close()


@pytest.fixture
def post(app):
    def post(cart, key="k1", note="ring twice"):
        body = {"cart_id": str(cart.id), "note": note, "payment_method": "ach"}
        body["shipping_address"] = cart.request()["shipping_address"]
        headers = {"X-Buyer-Store": str(cart.buyer_store_id), "Idempotency-Key": key}
        return app.test_client().post("/checkout", json=body, headers=headers)

    return post


def test_a_checkout_commits_with_the_row_of_the_service(post, pycheckout_cart, rows):
    cart = pycheckout_cart()

    first, again = post(cart), post(cart)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json == again.json
    assert rows() == (2, 1)


def test_an_error_after_the_checkout_takes_it_back(post, pycheckout_cart, rows):
    cart = pycheckout_cart()

    assert post(cart, note="x" * 101).status_code == 500

    assert rows() == (0, 0)
    assert post(cart).status_code == 201


def test_a_refusal_has_its_status_and_its_code(post, pycheckout_cart, rows):
    response = post(pycheckout_cart(lines=0))

    assert (response.status_code, response.json) == (409, {"code": "no_orderable_items"})
    assert rows() == (0, 0)
