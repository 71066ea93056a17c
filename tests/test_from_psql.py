"""A DBA's view: the real psql, one SELECT a checkout, refusals that can be read and parsed."""

import json
import re

import pytest

ADDRESS = '{"line1": "12 Main Street", "city": "Tulsa", "country": "US"}'


@pytest.fixture
def ask(psql):
    """ask(cart, ...): checkout_execute through psql, in named arguments; errors in full."""

    def ask(cart, **overrides):
        arguments = {
            "buyer_store_id": f"'{cart.buyer_store_id}'",
            "cart_id": f"'{cart.id}'",
            "idempotency_key": "'from-psql'",
            "shipping_address": f"'{ADDRESS}'",
            "payment_method": "'ach'",
        } | overrides
        select = f"select checkout_execute({', '.join(f'{name} => {value}' for name, value in arguments.items())});"
        return psql("--tuples-only", "--no-align", "--set", "VERBOSITY=verbose", stdin=select)

    return ask


def refusal(done):
    """SQLSTATE, DETAIL and HINT of what psql printed."""
    [sqlstate] = re.findall(r"^ERROR:  (\w{5}): \S", done.stderr, re.MULTILINE)
    [detail] = re.findall(r"^DETAIL:  (.*)$", done.stderr, re.MULTILINE)
    [hint] = re.findall(r"^HINT:  (.*)$", done.stderr, re.MULTILINE)
    assert hint
    return sqlstate, json.loads(detail)


def test_one_select_checks_a_cart_out(ask, add_cart, db):
    done = ask(add_cart(vendors=3))

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "complete"
    assert db.execute("select count(*) from vendor_orders").fetchone() == (3,)


@pytest.mark.parametrize(
    ("sqlstate", "cart", "call"),
    [
        ("OC001", {}, {"buyer_store_id": "gen_random_uuid()"}),
        ("OC003", {"valid_for": -1}, {}),
        ("OC004", {"groups": {0: {"status": "invalid"}, 1: {"status": "invalid"}}}, {}),
        ("OC005", {}, {"payment_method": "'barter'"}),
        ("OC005", {}, {"shipping_address": "'[]'"}),
        ("OC005", {}, {"shipping_line": """'{"code": "x", "price_cents": -1}'"""}),
        ("OC005", {}, {"idempotency_key": "'two words'"}),
        ("OC005", {}, {"reservation_policy": "'some'"}),
        ("OC007", {"groups": {0: {"subtotal_cents": 1}}}, {}),
        ("OC008", {"ad_tokens": ["no token"]}, {"ad_token_policy": "'error'"}),
        ("OC010", {"stock": 0}, {"reservation_policy": "'all'"}),
    ],
)
def test_a_refusal_shows_code_detail_and_hint_and_writes_nothing(ask, add_cart, db, snapshot, sqlstate, cart, call):
    quoted = add_cart(**cart)
    before = snapshot(db)

    shown, detail = refusal(ask(quoted, **call))

    assert shown == sqlstate
    assert isinstance(detail, dict) and detail
    assert snapshot(db) == before


def test_a_status_of_the_host_is_refused(ask, add_cart, db):
    """OC002: a host adds a status to the enum."""
    db.execute("alter type cart_status add value 'abandoned'")
    cart = add_cart(cart={"status": "abandoned"})

    shown, detail = refusal(ask(cart))

    assert (shown, detail["status"]) == ("OC002", "abandoned")


def test_a_key_of_another_request_is_refused(ask, add_cart):
    """OC006"""
    cart = add_cart()
    ask(cart)

    shown, _ = refusal(ask(cart, payment_method="'cash'"))

    assert shown == "OC006"


@pytest.mark.parametrize(
    "change",
    [
        "update cart_records set total_cents = 0",
        "update cart_records set status = 'active'",
        "delete from cart_records",
        "update cart_vendor_groups set total_cents = 0",
        "delete from cart_vendor_groups",
        "insert into cart_vendor_groups (cart_id, vendor_store_id) select id, gen_random_uuid() from cart_records",
        "update cart_items set quantity = 2",
        "delete from cart_items",
        "insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)"
        " select id, gen_random_uuid(), gen_random_uuid(), 1, 1, 1 from cart_records",
        "truncate cart_items",
        "truncate cart_records cascade",
    ],
)
def test_a_converted_cart_refuses_every_change(ask, psql, add_cart, db, snapshot, change):
    """PF-174, OC009: the cart stays what was checked out, whoever asks."""
    ask(add_cart())
    before = snapshot(db)

    shown, _ = refusal(psql("--set", "VERBOSITY=verbose", stdin=change + ";"))

    assert shown == "OC009"
    assert snapshot(db) == before


def test_the_carts_beside_a_converted_one_can_still_change(ask, add_cart, db):
    """PF-174"""
    ask(add_cart())
    other = add_cart()

    db.execute("update cart_items set title = 'new' where cart_id = %s", (other.id,))
    db.execute("delete from cart_records where id = %s", (other.id,))

    assert db.execute("select count(*) from cart_records").fetchone() == (1,)


def test_every_function_says_what_it_is(psql):
    shown = psql("--csv", stdin=r"\df+ checkout_execute" + "\n").stdout

    assert "Checks a cart out" in shown
    assert "OC010 insufficient_inventory" in shown
