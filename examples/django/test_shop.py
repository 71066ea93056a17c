"""The checkout commits and rolls back with Django's transaction."""

import json

import httpx
import pytest
from django.db import connection, transaction
from django.db.utils import IntegrityError
from django.test import Client
from psycopg.conninfo import conninfo_to_dict

import pycheckout
from examples.django import shop

pytest_plugins = ["pycheckout.testing"]

DEFAULT = dict(connection.settings_dict)


@pytest.fixture(autouse=True)
def this_tests_database(pycheckout_dsn):
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    parts = conninfo_to_dict(pycheckout_dsn)
    connection.close()
    connection.settings_dict.update({name: parts[part] for name, part in names.items() if part in parts})
    yield
    connection.close()
    connection.settings_dict.update(DEFAULT)


@pytest.fixture
def post():
    def post(cart, key="k1", note="ring twice"):
        request = cart.request()
        body = {"cart_id": str(cart.id), "note": note, "payment_method": "ach"}
        body["shipping_address"] = request["shipping_address"]
        headers = {"X-Buyer-Store": str(cart.buyer_store_id), "Idempotency-Key": key, "Host": "localhost"}
        return Client(raise_request_exception=False).post(
            "/checkout", json.dumps(body), content_type="application/json", headers=headers
        )

    return post


def test_a_checkout_commits_with_the_row_of_the_service(post, pycheckout_cart, rows):
    cart = pycheckout_cart()

    first, again = post(cart), post(cart)

    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert rows() == (2, 1)


def test_an_error_after_the_checkout_takes_it_back(post, pycheckout_cart, rows):
    cart = pycheckout_cart()

    assert post(cart, note="x" * 101).status_code == 500

    assert rows() == (0, 0)
    assert post(cart).status_code == 201


@pytest.mark.parametrize("first_statement", ["the checkout", "another"])
def test_the_checkout_belongs_to_the_transaction_whichever_statement_is_first(pycheckout_cart, rows, first_statement):
    cart = pycheckout_cart()

    with pytest.raises(ZeroDivisionError), transaction.atomic():
        if first_statement == "another":
            shop.DeliveryNote.objects.create(cart_id=cart.id, note="first")
        pycheckout.execute(connection, **cart.request())
        assert rows() == (0, 0)
        raise ZeroDivisionError

    assert rows() == (0, 0)
    with transaction.atomic():
        pycheckout.execute(connection, **cart.request())
    assert rows() == (2, 0)


def test_a_refusal_in_a_nested_block_leaves_the_outer_one_usable(pycheckout_cart, rows):
    cart = pycheckout_cart(stock=0)

    with transaction.atomic():
        with pytest.raises(pycheckout.InsufficientInventory), transaction.atomic():
            pycheckout.execute(connection, **cart.request(), reservation_policy="all")
        shop.DeliveryNote.objects.create(cart_id=cart.id, note="sold out")

    assert rows() == (0, 1)


def test_a_refusal_has_its_status_and_its_code(post, pycheckout_cart, rows):
    response = post(pycheckout_cart(), key="")

    assert (response.status_code, response.json()) == (422, {"code": "invalid_request"})
    assert rows() == (0, 0)


def test_a_row_of_the_service_that_breaks_a_rule_raises_as_django_does(pycheckout_cart):
    cart = pycheckout_cart()
    body = {"cart_id": cart.id, "payment_method": "ach", "note": "x" * 101}

    with pytest.raises(IntegrityError):
        shop.order(cart.buyer_store_id, "k1", body | {"shipping_address": cart.request()["shipping_address"]})


def test_the_file_runs_as_a_service(start, pycheckout_dsn, pycheckout_cart, rows):
    cart = pycheckout_cart()
    names = {"dbname": "SHOP_DATABASE", "host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD"}
    parts = conninfo_to_dict(pycheckout_dsn)
    env = {name: parts[part] for part, name in names.items() if part in parts}
    headers = {"X-Buyer-Store": str(cart.buyer_store_id), "Idempotency-Key": "k1", "Host": "localhost"}
    body = {"cart_id": str(cart.id), "payment_method": "ach", "shipping_address": cart.request()["shipping_address"]}

    url = start(shop.__file__, "runserver", "--noreload", "{port}", **env)
    response = httpx.post(f"{url}/checkout", json=body, headers=headers)

    assert response.status_code == 201
    assert rows() == (2, 1)
