"""What a checkout asks of its caller, wherever the call comes from: the part of PF-172 that the database decides."""

import inspect

import pytest

import pycheckout
from checks import refused
from factories import ADDRESS

SHIPPING_LINE = {"code": "express", "title": "Next day", "price_cents": 1250}


@pytest.mark.parametrize("key", [None, "", " ", "two words", "tab\tkey", "k" * 256, "schlüssel"])
def test_a_request_without_a_valid_idempotency_key_is_refused(db, add_cart, checkout_sql, nothing_written, key):
    """PF-172: a request without a valid idempotency key is rejected, and nothing is written."""
    cart = add_cart()

    with nothing_written(), refused("OC005") as refusal:
        checkout_sql(db, cart, key=key)

    assert refusal.detail["field"] == "idempotency_key"


@pytest.mark.parametrize("missing", ["cart_id", "shipping_address", "payment_method"])
def test_each_required_field_is_asked_for_by_name(db, add_cart, checkout_sql, missing):
    """PF-172: cart_id, shipping_address and payment_method are required."""
    cart = add_cart()

    with refused("OC005") as refusal:
        checkout_sql(db, cart, **{missing: None})

    assert refusal.detail["field"] == missing


def test_no_argument_names_an_ad():
    """PF-172, cleanup: attribution comes from the cart's ad tokens; no caller can name an ad click."""
    for call in (pycheckout.execute, pycheckout.execute_async):
        assert not [name for name in inspect.signature(call).parameters if "click" in name or "attributed" in name]


def test_the_answer_repeats_what_was_confirmed(db, add_cart, checkout):
    """PF-172: the answer shows the confirmed address, payment method and shipping line beside the orders."""
    answer = checkout(db, add_cart(vendors=2), payment_method="cash", shipping_line=SHIPPING_LINE)

    assert answer.shipping_address == ADDRESS
    assert answer.payment_method == "cash"
    assert (answer.shipping_line.code, answer.shipping_line.title, answer.shipping_line.price_cents) == (
        "express",
        "Next day",
        1250,
    )
    assert len(answer.vendor_orders) == 2


def test_the_idempotency_key_reaches_the_database(db, add_cart, checkout):
    """PF-172: the key of the request is what the checkout is bound to."""
    cart = add_cart()

    checkout(db, cart, key="from-the-header")

    keys = db.execute("select buyer_store_id, idempotency_key, cart_id from checkout_requests").fetchall()
    assert keys == [(cart.buyer_store_id, "from-the-header", cart.id)]
