"""Whatever comes in: a clear refusal with the right code, from SQL and from Python, and nothing written."""

import json
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pycheckout
from checks import refused
from factories import ADDRESS

# JSON that PostgreSQL refuses before our functions see it keeps its code in SQL: malformed, \u0000, nested too deeply,
# a number beyond numeric.
UNPARSABLE = {"22P02", "22P05", "54001", "22003"}


@pytest.fixture
def nothing_written(db, snapshot):
    """A block after which every table is as it was."""

    @contextmanager
    def nothing_written():
        before = snapshot(db)
        yield
        assert snapshot(db) == before

    return nothing_written


@pytest.fixture
def raw(db):
    """raw(cart, field="SQL"): the call in plain SQL, as written by hand."""

    def raw(cart, conn=db, **overrides):
        arguments = {
            "buyer_store_id": f"'{cart.buyer_store_id}'",
            "cart_id": f"'{cart.id}'",
            "idempotency_key": "'k1'",
            "shipping_address": f"'{json.dumps(ADDRESS)}'",
            "payment_method": "'ach'",
        } | overrides
        text = ", ".join(f"{name} => {value}" for name, value in arguments.items())
        return conn.execute(f"select checkout_execute({text})").fetchone()[0]

    return raw


def literal(text: str | None) -> str:
    return sql.Literal(text).as_string()


# The error table, each row from SQL and from Python


def other_buyer(db, add_cart, checkout):
    return add_cart(), {"buyer_store_id": "b0000000-0000-4000-8000-00000000ffff"}


def unknown_cart(db, add_cart, checkout):
    return add_cart(), {"cart_id": "ca000000-0000-4000-8000-00000000ffff"}


def abandoned(db, add_cart, checkout):
    db.execute("alter type cart_status add value 'abandoned'")
    return add_cart(cart={"status": "abandoned"}), {}


def expired(db, add_cart, checkout):
    return add_cart(valid_for=-1), {}


def nothing_ok(db, add_cart, checkout):
    return add_cart(groups={0: {"status": "invalid"}, 1: {"status": "invalid"}}), {}


def no_lines(db, add_cart, checkout):
    return add_cart(vendors=0), {}


def barter(db, add_cart, checkout):
    return add_cart(), {"payment_method": "barter"}


def key_of_another_cart(db, add_cart, checkout):
    checkout(db, add_cart(buyer_store_id=(cart := add_cart()).buyer_store_id))
    return cart, {}


def key_of_another_address(db, add_cart, checkout):
    checkout(db, cart := add_cart())
    return cart, {"shipping_address": ADDRESS | {"city": "Norman"}}


def vendor_without_group(db, add_cart, checkout):
    cart = add_cart()
    db.execute("delete from cart_vendor_groups where id = %s", [cart.groups[0].id])
    return cart, {}


def wrong_subtotal(db, add_cart, checkout):
    return add_cart(groups={0: {"subtotal_cents": 1}}), {}


def buyer_sells(db, add_cart, checkout):
    buyer = "b0000000-0000-4000-8000-00000000eeee"
    return add_cart(buyer_store_id=buyer, vendors=[buyer]), {}


def too_large(db, add_cart, checkout):
    """A host's column may be narrower than the quote's."""
    db.execute("alter table order_line_items alter column total_cents type int")
    return add_cart(quantity=1, unit_price_cents=3_000_000_000), {}


def constraint_of_the_host(db, add_cart, checkout):
    db.execute("alter table vendor_orders add constraint host_rule check (total_cents < 5)")
    return add_cart(), {}


def bad_token(db, add_cart, checkout):
    return add_cart(ad_tokens=["no token"]), {"ad_token_policy": "error"}


def out_of_stock(db, add_cart, checkout):
    return add_cart(stock=0), {"reservation_policy": "all"}


ERRORS = [
    ("OC001", pycheckout.CartNotFound, other_buyer),
    ("OC001", pycheckout.CartNotFound, unknown_cart),
    ("OC002", pycheckout.CartNotActive, abandoned),
    ("OC003", pycheckout.CartExpired, expired),
    ("OC004", pycheckout.NoOrderableItems, nothing_ok),
    ("OC004", pycheckout.NoOrderableItems, no_lines),
    ("OC005", pycheckout.InvalidRequest, barter),
    ("OC006", pycheckout.IdempotencyKeyReused, key_of_another_cart),
    ("OC006", pycheckout.IdempotencyKeyReused, key_of_another_address),
    ("OC007", pycheckout.CartInconsistent, vendor_without_group),
    ("OC007", pycheckout.CartInconsistent, wrong_subtotal),
    ("OC007", pycheckout.CartInconsistent, buyer_sells),
    ("OC007", pycheckout.CartInconsistent, too_large),
    ("OC007", pycheckout.CartInconsistent, constraint_of_the_host),
    ("OC008", pycheckout.AdTokenInvalid, bad_token),
    ("OC010", pycheckout.InsufficientInventory, out_of_stock),
]


@pytest.mark.parametrize(("sqlstate", "kind", "arrange"), ERRORS, ids=[row[2].__name__ for row in ERRORS])
def test_each_error_from_sql_and_from_python(
    db, add_cart, checkout, checkout_sql, nothing_written, sqlstate, kind, arrange
):
    cart, request = arrange(db, add_cart, checkout)

    with nothing_written():
        with refused(sqlstate) as from_sql:
            checkout_sql(db, cart, **request)
        with pytest.raises(kind) as caught:
            checkout(db, cart, **request)

    error = caught.value
    assert error.sqlstate == sqlstate == error.__cause__.sqlstate
    assert (error.message, error.detail, error.hint) == (from_sql.message, from_sql.detail, from_sql.hint)
    assert error.detail
    assert not {"<NULL>", "%"} & set(error.message.split())


def test_a_change_of_a_converted_cart_from_sql_and_from_python(db, add_cart, checkout, nothing_written):
    """OC009"""
    checkout(db, cart := add_cart())
    quote = {
        "id": str(cart.id),
        "buyer_store_id": str(cart.buyer_store_id),
        "currency": "USD",
        "valid_until": "2999-01-01T00:00:00Z",
        "vendor_groups": [],
    }

    with nothing_written():
        with refused("OC009") as from_sql:
            db.execute("update cart_items set quantity = 9")
        with pytest.raises(pycheckout.SnapshotImmutable) as caught:
            pycheckout.put_cart(db, quote)

    assert from_sql.detail["cart_id"] == caught.value.detail["cart_id"] == str(cart.id)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("setting", "sqlstate", "kind"),
    [
        ("lock_timeout = '50ms'", "55P03", pycheckout.Busy),
        ("statement_timeout = '100ms'", "57014", pycheckout.Unavailable),
        ("default_transaction_read_only = on", "25006", pycheckout.Unavailable),
    ],
)
def test_what_the_server_refuses_writes_nothing_either(
    connect, add_cart, checkout, checkout_sql, nothing_written, setting, sqlstate, kind
):
    cart = add_cart()
    holder, caller = connect(), connect()
    holder.execute("select from cart_records where id = %s for update", [cart.id])
    caller.execute(f"set {setting}")
    caller.commit()

    with nothing_written():
        with pytest.raises(psycopg.Error) as from_sql:
            checkout_sql(caller, cart)
        caller.rollback()
        with pytest.raises(kind) as caught:
            checkout(caller, cart)
        caller.rollback()

    assert from_sql.value.sqlstate == caught.value.sqlstate == sqlstate
    assert caught.value.retryable


# Arguments


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in ADDRESS.items() if key != name}


def nested(levels: int) -> str:
    return '{"line1": ' + "[" * levels + "]" * levels + "}"


BAD_ADDRESSES = {
    "null": "null",
    "array": "[]",
    "array of one": json.dumps([ADDRESS]),
    "text": '"12 Main Street"',
    "text of JSON": json.dumps(json.dumps(ADDRESS)),
    "number": "1",
    "boolean": "true",
    "empty": "{}",
    **{f"no {name}": json.dumps(without(name)) for name in ("line1", "city", "country")},
    **{f"{name} null": json.dumps(ADDRESS | {name: None}) for name in ("line1", "city", "country")},
    **{f"{name} blank": json.dumps(ADDRESS | {name: " \t\n "}) for name in ("line1", "city", "country")},
    "unknown member": json.dumps(ADDRESS | {"lime2": "Dock 4"}),
    "member of another case": json.dumps(ADDRESS | {"Line2": "Dock 4"}),
    "member without a name": json.dumps(ADDRESS | {"": "x"}),
    "member with an endless name": json.dumps(ADDRESS | {"x" * 1_000_000: "x"}),
    "line1 a number": json.dumps(ADDRESS | {"line1": 12}),
    "line2 an object": json.dumps(ADDRESS | {"line2": {}}),
    "city an array": json.dumps(ADDRESS | {"city": ["Tulsa"]}),
    "state a boolean": json.dumps(ADDRESS | {"state": False}),
    "501 characters": json.dumps(ADDRESS | {"line2": "x" * 501}),
    "10 MB": json.dumps(ADDRESS | {"line2": "x" * 10_000_000}),
    "lat as text": json.dumps(ADDRESS | {"lat": "36.1"}),
    "lat NaN as text": json.dumps(ADDRESS | {"lat": "NaN"}),
    "lat NaN": '{"line1": "a", "city": "b", "country": "c", "lat": NaN}',
    "lat infinite": json.dumps(ADDRESS | {"lat": "Infinity"}),
    "lat 91": json.dumps(ADDRESS | {"lat": 91}),
    "lat -90.0001": json.dumps(ADDRESS | {"lat": -90.0001}),
    "lng 180.1": json.dumps(ADDRESS | {"lng": 180.1}),
    "lat 1e400": '{"line1": "a", "city": "b", "country": "c", "lat": 1e400}',
    "lat 1e-400": '{"line1": "a", "city": "b", "country": "c", "lat": 1e-400}',
    "lat 1e200000": '{"line1": "a", "city": "b", "country": "c", "lat": 1e200000}',
    "lat an object": json.dumps(ADDRESS | {"lat": {}}),
    "10,000 levels": nested(10_000),
    "1,000 levels": nested(1_000),
    "NUL": json.dumps(ADDRESS | {"line1": "a\0b"}),
    "NUL in a name": json.dumps(ADDRESS | {"a\0b": "x"}),
    "lone surrogate": json.dumps(ADDRESS | {"line1": "a\ud800b"}),
    "not JSON": "{line1: 12 Main Street}",
    "nothing": "",
}

BAD_SHIPPING_LINES = {
    "array": "[]",
    "text": '"ground"',
    "number": "0",
    "empty": "{}",
    "no code": '{"title": "Ground", "price_cents": 1}',
    "code null": '{"code": null}',
    "code empty": '{"code": ""}',
    "code a number": '{"code": 1}',
    "code too long": json.dumps({"code": "x" * 201}),
    "title a number": '{"code": "g", "title": 1}',
    "title too long": json.dumps({"code": "g", "title": "x" * 501}),
    "title of 10 MB": json.dumps({"code": "g", "title": "x" * 10_000_000}),
    "price negative": '{"code": "g", "price_cents": -1}',
    "price -0.5": '{"code": "g", "price_cents": -0.5}',
    "price of half a cent": '{"code": "g", "price_cents": 0.5}',
    "price almost whole": '{"code": "g", "price_cents": 1.0000000000000000000001}',
    "price tiny": '{"code": "g", "price_cents": 1e-400}',
    "price 1e30": '{"code": "g", "price_cents": 1e30}',
    "price past bigint": '{"code": "g", "price_cents": 9223372036854775808}',
    "price as text": '{"code": "g", "price_cents": "100"}',
    "price a boolean": '{"code": "g", "price_cents": true}',
    "price an array": '{"code": "g", "price_cents": [100]}',
    "unknown member": '{"code": "g", "price": 100}',
    "nested": '{"code": ' + "[" * 1000 + "]" * 1000 + "}",
    "NUL": '{"code": "a\\u0000"}',
}

BAD_KEYS = {
    "empty": "",
    "space": " ",
    "spaces inside": "two words",
    "space after": "k1 ",
    "line break after": "k1\n",
    "tab": "k\t1",
    "control": "k\x01",
    "delete": "k\x7f",
    "256": "k" * 256,
    "10 MB": "k" * 10_000_000,
    "umlaut": "schlüssel",
    "no-break space": "k\u00a01",
    "emoji": "k\U0001f6d2",
    "right to left": "k\u202e1",
    "full width": "\uff4b1",
}


@pytest.mark.parametrize("address", BAD_ADDRESSES.values(), ids=BAD_ADDRESSES)
def test_a_bad_address_is_refused(db, add_cart, raw, nothing_written, address):
    refuses(raw, nothing_written, add_cart(), "shipping_address", address)


@pytest.mark.parametrize("line", BAD_SHIPPING_LINES.values(), ids=BAD_SHIPPING_LINES)
def test_a_bad_shipping_line_is_refused(db, add_cart, raw, nothing_written, line):
    refuses(raw, nothing_written, add_cart(), "shipping_line", line)


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_refused(db, add_cart, raw, nothing_written, key):
    refuses(raw, nothing_written, add_cart(), "idempotency_key", key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("payment_method", method) for method in ("", "ACH", "ach ", " ach", "shells", "cash,ach", "x" * 10_000_000)),
        *(("ad_token_policy", policy) for policy in ("", "DROP", "keep", "drop ", "error\n")),
        *(("reservation_policy", policy) for policy in ("", "Partial", "none", "all,vendor")),
    ],
)
def test_a_bad_method_or_policy_is_refused(db, add_cart, raw, nothing_written, field, value):
    refuses(raw, nothing_written, add_cart(), field, value)


def refuses(raw, nothing_written, cart, field, value):
    """The call is refused for this one field; a service can tell which, and no more of the text comes back than a name."""
    with nothing_written(), pytest.raises(psycopg.Error) as caught:
        raw(cart, **{field: literal(value)})

    error = caught.value
    if error.sqlstate in UNPARSABLE:
        assert field in ("shipping_address", "shipping_line")
        with pytest.raises(psycopg.Error):
            raw(cart, conn=caught.value.__traceback__ and _same(raw), **{field: "null"}) if False else _reraise(error)
        return
    assert error.sqlstate == "OC005", error
    detail = json.loads(error.diag.message_detail)
    assert detail["field"].split(".")[0] == field
    assert error.diag.message_primary == f"{detail['field']} {detail['problem']}"
    assert error.diag.message_hint
    assert len(str(error)) < 1000
