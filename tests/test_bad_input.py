"""Whatever comes in: a clear refusal with the right code, from SQL and from Python, and nothing written."""

import json
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql
from psycopg.types.json import Jsonb

import pycheckout
from checks import refused, values
from factories import ADDRESS
from pycheckout._errors import translated


@pytest.fixture
def raw(db):
    """raw(cart, field="SQL"): the call in plain SQL, as written by hand."""

    def raw(cart, **overrides):
        arguments = {
            "buyer_store_id": f"'{cart.buyer_store_id}'",
            "cart_id": f"'{cart.id}'",
            "idempotency_key": "'k1'",
            "shipping_address": f"'{json.dumps(ADDRESS)}'",
            "payment_method": "'ach'",
        } | overrides
        text = ", ".join(f"{name} => {value}" for name, value in arguments.items())
        return db.execute(f"select checkout_execute({text})").fetchone()[0]

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
    assert (error.message, error.hint) == (from_sql.message, from_sql.hint)
    assert error.detail | {"now": None} == from_sql.detail | {"now": None} != {"now": None}
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
        ("default_transaction_read_only = on", "25006", pycheckout.ReadOnlyServer),
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
    assert caught.value.retryable is (kind is not pycheckout.ReadOnlyServer)


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
    "lat infinite": json.dumps(ADDRESS | {"lat": "Infinity"}),
    "lat 91": json.dumps(ADDRESS | {"lat": 91}),
    "lat -90.0001": json.dumps(ADDRESS | {"lat": -90.0001}),
    "lng 180.1": json.dumps(ADDRESS | {"lng": 180.1}),
    "lat 1e400": '{"line1": "a", "city": "b", "country": "c", "lat": 1e400}',
    "lat 1e-400": '{"line1": "a", "city": "b", "country": "c", "lat": 1e-400}',
    "lat an object": json.dumps(ADDRESS | {"lat": {}}),
    "1,000 levels": nested(1_000),
    "lat with 301 digits behind the point": json.dumps(ADDRESS | {"lat": 1e-301}),
}
# An address of few characters is looked at as a whole first, others are looked through member by member.
LONG = {"postal_code": "7" * 400}

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
def test_a_bad_address_is_refused(add_cart, raw, nothing_written, address):
    refuses(raw, nothing_written, add_cart(), "shipping_address", address)
    if address.startswith("{") and address != "{}":
        long = json.dumps(LONG)[:-1] + ", " + address[1:]  # as it is written: what JSON may hold, Python may not
        refuses(raw, nothing_written, add_cart(), "shipping_address", long)


@pytest.mark.parametrize("line", BAD_SHIPPING_LINES.values(), ids=BAD_SHIPPING_LINES)
def test_a_bad_shipping_line_is_refused(add_cart, raw, nothing_written, line):
    refuses(raw, nothing_written, add_cart(), "shipping_line", line)


@pytest.mark.parametrize("key", BAD_KEYS.values(), ids=BAD_KEYS)
def test_a_bad_key_is_refused(add_cart, raw, nothing_written, key):
    refuses(raw, nothing_written, add_cart(), "idempotency_key", key)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("payment_method", method) for method in ("", "ACH", "ach ", " ach", "shells", "cash,ach", "x" * 10_000_000)),
        *(("ad_token_policy", policy) for policy in ("", "DROP", "keep", "drop ", "error\n")),
        *(("reservation_policy", policy) for policy in ("", "Partial", "none", "all,vendor")),
    ],
)
def test_a_bad_method_or_policy_is_refused(add_cart, raw, nothing_written, field, value):
    refuses(raw, nothing_written, add_cart(), field, value)


def refuses(raw, nothing_written, cart, field, value):
    """Refused for this one field, told in a way to act on, and without giving all of the text back."""
    with nothing_written(), refused("OC005") as refusal:
        raw(cart, **{field: literal(value)})

    assert refusal.detail["field"].split(".")[0] == field
    assert refusal.message == f"{refusal.detail['field']} {refusal.detail['problem']}"
    assert len(refusal.message) < 200


@pytest.mark.parametrize("field", ["shipping_address", "shipping_line"])
@pytest.mark.parametrize(
    ("text", "sqlstate", "kind"),
    [
        ("{line1: 12 Main Street}", "22P02", pycheckout.InvalidRequest),
        ("", "22P02", pycheckout.InvalidRequest),
        ('{"lat": NaN}', "22P02", pycheckout.InvalidRequest),
        ('{"line1": "\\ud800"}', "22P02", pycheckout.InvalidRequest),
        ('{"line1": "a\\u0000b"}', "22P05", pycheckout.InvalidRequest),
        ('{"a\\u0000b": 1}', "22P05", pycheckout.InvalidRequest),
        (nested(100_000), "54001", pycheckout.InvalidRequest),
        ('{"lat": 1e200000}', "22003", pycheckout.InvalidRequest),
    ],
    ids=["no JSON", "nothing", "NaN", "lone surrogate", "NUL", "NUL in a name", "too deep", "beyond numeric"],
)
def test_what_is_no_jsonb_keeps_postgresqls_code(add_cart, raw, nothing_written, field, text, sqlstate, kind):
    """No function of ours is reached. The wrapper says InvalidRequest all the same."""
    cart = add_cart()

    with nothing_written(), pytest.raises(psycopg.Error) as caught:
        raw(cart, **{field: literal(text)})

    assert caught.value.sqlstate == sqlstate
    assert type(translated(caught.value)) is kind


@pytest.mark.parametrize(
    "field",
    [
        "buyer_store_id",
        "cart_id",
        "idempotency_key",
        "shipping_address",
        "payment_method",
        "ad_token_policy",
        "reservation_policy",
    ],
)
def test_null_is_no_argument(add_cart, raw, nothing_written, field):
    cart = add_cart()

    with nothing_written(), refused("OC005") as refusal:
        raw(cart, **{field: "null"})

    assert refusal.detail["field"] == field


def test_null_everywhere_is_refused(db, nothing_written):
    with nothing_written(), refused("OC005"):
        db.execute("select checkout_execute(null, null, null, null, null, null, null, null)")
    with nothing_written(), refused("OC001"):
        db.execute("select checkout_result(null, null)")
    with nothing_written(), refused("OC001"):
        db.execute("select cart_get(null, null)")
    for call in (
        "cart_put(null)",
        "cart_purge(null)",
        "cart_purge(null, null)",
        "checkout_requests_purge(null)",
        "checkout_requests_purge(null, null)",
        "outbox_purge(null, null)",
        "inventory_split(null, null)",
        "inventory_restock(null, null)",
        "inventory_changes_purge(null)",
        "inventory_changes_purge(null, null)",
        "inventory_get(null)",
        "inventory_set_many(null)",
        "order_get(null)",
        "orders_list(null)",
        "inventory_set(null, null)",
        "inventory_adjust(null, null)",
        "ad_signing_key_put(null, null)",
        "ad_signing_key_retire(null)",
        "checkout_grant(null)",
        "checkout_grant_quotes(null)",
        "checkout_grant_operators(null)",
        "checkout_grant_stock(null)",
        "checkout_erase(null)",
    ):
        with nothing_written(), refused("OC005"):
            db.execute(f"select {call}")
    assert values(db, "select count(*) from checkout_audit(null)") == [0]


@pytest.mark.parametrize(
    "value", ["no uuid", "", " ", 7, True, "ca000000-0000-4000-8000-00000000000", "x" * 100_000, b"id"]
)
@pytest.mark.parametrize("field", ["buyer_store_id", "cart_id"])
def test_an_id_that_is_no_uuid_is_like_every_other_bad_argument_in_python(
    db, add_cart, checkout, nothing_written, field, value
):
    """It names the argument and what is wrong with it; the transaction of the caller goes on."""
    cart = add_cart()
    ids = {"buyer_store_id": cart.buyer_store_id, "cart_id": cart.id} | {field: value}
    calls = [
        lambda: checkout(db, cart, **ids),
        lambda: pycheckout.result(db, **ids),
    ]
    with nothing_written(), db.transaction():
        for call in calls:
            with pytest.raises(pycheckout.InvalidRequest) as caught:
                call()
            assert caught.value.detail == {"field": field, "problem": "must be a UUID"}
            assert caught.value.message == f"{field} must be a UUID"
            assert caught.value.hint


def test_ids_are_taken_as_postgresql_takes_them(db, add_cart):
    cart = add_cart()
    for written in (cart.id, str(cart.id).upper(), cart.id.hex, f"{{{cart.id}}}"):
        assert pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=written).cart_id == cart.id


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("id", "no uuid", "must be a UUID"),
        ("buyer_store_id", None, "is required"),
        ("currency", "usd", "must be three capital letters (ISO 4217)"),
    ],
)
def test_python_keeps_the_path_and_the_problem_of_a_bad_quote(db, nothing_written, path, value, problem):
    with nothing_written(), pytest.raises(pycheckout.InvalidRequest) as caught:
        pycheckout.put_cart(db, QUOTE | {"vendor_groups": []} | {path: value})
    assert caught.value.detail == {"field": f"cart.{path}", "problem": problem}
    assert caught.value.message == f"cart.{path} {problem}"


# What is at the edge, and good


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        ("99999-12-31", None),
        ("10000-01-01Z", None),
        ("infinity", None),
        ("9999-12-31 23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_quote_whose_end_a_host_wrote_beyond_all_calendars_can_be_shown(db, add_cart, checkout, end, shown):
    """RFC 3339 and Python have no year 10000; such a quote has no end."""
    cart = add_cart(cart={"valid_until": end})

    [answer] = values(db, "select checkout_result(%s, %s)", cart.buyer_store_id, cart.id)
    found = pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)

    assert answer["valid_until"] == shown
    assert (found.valid_until is None) == (shown is None)
    assert checkout(db, cart).outcome == "complete"


@pytest.mark.parametrize("end", ["-infinity", "4000-01-01 BC", "0001-12-31 BC"])
def test_a_quote_whose_end_a_host_wrote_before_all_calendars_has_run_out(db, add_cart, checkout, end):
    cart = add_cart(cart={"valid_until": end})

    assert (
        pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id).valid_until.isoformat()
        == "0001-01-01T00:00:00+00:00"
    )
    with pytest.raises(pycheckout.CartExpired) as caught:
        checkout(db, cart)
    assert caught.value.detail["valid_until"] == "0001-01-01T00:00:00.000000Z"
    assert "NULL" not in caught.value.message


GOOD_ADDRESSES = {
    "shortest": {"line1": "1", "city": "x", "country": "US"},
    "nulls": ADDRESS | {"line2": None, "state": None, "postal_code": None, "lat": None, "lng": None},
    "empty texts": ADDRESS | {"line2": "", "state": ""},
    "500 characters": ADDRESS | {"line2": "🛒" * 500},
    "poles": ADDRESS | {"lat": 90, "lng": -180},
    "whole degrees": ADDRESS | {"lat": 36, "lng": -95},
    "nearly nothing": ADDRESS | {"lat": 1e-30, "lng": -1e-30},
    "300 digits behind the point": ADDRESS | {"lat": 1e-300},
    "many digits": ADDRESS | {"lat": 36.15398765432109},
    "another script": ADDRESS | {"line1": "東京都千代田区丸の内1-1", "city": "千代田区", "country": "JP"},
}


@pytest.mark.parametrize("address", GOOD_ADDRESSES.values(), ids=GOOD_ADDRESSES)
def test_a_good_address_comes_back_as_it_was(db, add_cart, checkout_sql, address):
    for given_address in (address, address | LONG):
        answer = checkout_sql(db, add_cart(), shipping_address=given_address)

        assert answer["shipping_address"] == {name: value for name, value in given_address.items() if value is not None}


@pytest.mark.parametrize(
    ("line", "recorded"),
    [
        ("null", None),
        ("'null'", None),
        ("""'{"code": "g"}'""", {"code": "g", "title": None, "price_cents": None}),
        ("""'{"code": "g", "title": null, "price_cents": null}'""", {"code": "g", "title": None, "price_cents": None}),
        ("""'{"code": "g", "price_cents": 100.00}'""", {"code": "g", "title": None, "price_cents": 100}),
        ("""'{"code": "g", "price_cents": 1e2}'""", {"code": "g", "title": None, "price_cents": 100}),
        ("""'{"code": "g", "price_cents": -0}'""", {"code": "g", "title": None, "price_cents": 0}),
        (
            """'{"code": "g", "price_cents": 9223372036854775807}'""",
            {"code": "g", "title": None, "price_cents": 9223372036854775807},
        ),
    ],
)
def test_a_good_shipping_line_is_recorded_in_one_form(add_cart, raw, line, recorded):
    assert raw(add_cart(), shipping_line=line)["shipping_line"] == recorded


@pytest.mark.parametrize("key", ["k", "k" * 255, "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"])
def test_a_key_of_visible_characters_is_good(db, add_cart, raw, key):
    raw(add_cart(), idempotency_key=literal(key))

    assert values(db, "select idempotency_key from checkout_requests") == [key]


@pytest.mark.parametrize("purge", ["cart_purge", "checkout_requests_purge", "inventory_changes_purge", "outbox_purge"])
@pytest.mark.parametrize("interval", ["300000 years", "178000000 years", "0"])
def test_a_purge_takes_any_interval(db, purge, interval):
    """Older than time itself: nothing is."""
    assert values(db, f"select {purge}(%s::interval)", interval) == [0]


@pytest.mark.parametrize("purge", ["cart_purge", "checkout_requests_purge", "inventory_changes_purge", "outbox_purge"])
@pytest.mark.parametrize("interval", ["-1 second", "-178000000 years", "1 day -25 hours"])
def test_a_purge_of_the_future_is_refused(db, nothing_written, purge, interval):
    with nothing_written(), refused("OC005"):
        db.execute(f"select {purge}(%s::interval)", [interval])


ODD_JSON = ["null", "1", '"text"', "[]", "{}", "[null]", "[1, [2]]", '{"type": 1}', '{"code": 7, "amount_cents": "x"}']


@pytest.mark.parametrize("odd", ODD_JSON)
def test_odd_json_of_a_host_stops_no_checkout(db, add_cart, checkout, checkout_sql, odd):
    """Promotions, warnings and discounts are the host's and only copied: an odd one hides no committed checkout."""
    cart = add_cart(stock=0)  # rejected lines append a warning of ours
    for change in (
        "update cart_vendor_groups set promo = %(odd)s, warnings = %(odd)s",
        "update cart_items set applied_volume_discount = %(odd)s, warnings = %(odd)s",
    ):
        db.execute(change, {"odd": odd})

    first = checkout(db, cart)

    assert first.outcome == "rejected"
    assert checkout_sql(db, cart)["vendor_orders"][0]["promo"] == json.loads(odd)


# Anything at all

TEXTS = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([-1, 0, 90, 91, 0.5, 1e-320, 10**30, -(10**400), 2**63 - 1, 2**63]),
)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def objects_like(example):
    """Any JSON, most often an object that differs a little from a good one."""
    members = st.fixed_dictionaries({}, optional={name: st.just(value) | JSON for name, value in example.items()})
    more = st.just({}) | st.dictionaries(TEXTS, JSON, max_size=2)
    near = st.builds(lambda members, more: example | members | more, members, more)
    return st.one_of(near, near, members, JSON)


FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def outcome(conn, call, *params):
    """The SQLSTATE of a call that is rolled back, or None."""
    with conn.transaction(force_rollback=True):
        try:
            with conn.transaction():
                conn.execute(call, params)
        except psycopg.Error as error:
            assert json.loads(error.diag.message_detail), error
            return error.sqlstate
    return None


@pytest.fixture
def quoted(add_cart):
    return add_cart()


@FUZZ
@given(address=objects_like(ADDRESS))
def test_any_json_is_an_address_or_refused(db, quoted, address):
    call = "select checkout_execute(%s, %s, 'k1', %s, 'ach')"

    judged = outcome(db, call, quoted.buyer_store_id, quoted.id, Jsonb(address))
    assert judged in (None, "OC005")
    if isinstance(address, dict):
        assert outcome(db, call, quoted.buyer_store_id, quoted.id, Jsonb(LONG | address)) == judged


@FUZZ
@given(line=objects_like({"code": "ground", "title": "Ground", "price_cents": 100}))
def test_any_json_is_a_shipping_line_or_refused(db, quoted, line):
    call = "select checkout_execute(%s, %s, 'k1', %s, 'ach', %s)"

    assert outcome(db, call, quoted.buyer_store_id, quoted.id, Jsonb(ADDRESS), Jsonb(line)) in (None, "OC005")


@FUZZ
@given(key=st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=300), method=TEXTS, policy=TEXTS)
def test_any_text_is_a_key_a_method_or_refused(db, quoted, key, method, policy):
    call = "select checkout_execute(%s, %s, %s, %s, %s, null, %s)"
    address = Jsonb(ADDRESS)

    assert outcome(db, call, quoted.buyer_store_id, quoted.id, key, address, "ach", "drop") in (None, "OC005")
    for words in ((method, "drop"), ("ach", policy)):
        assert outcome(db, call, quoted.buyer_store_id, quoted.id, "k1", address, *words) in (None, "OC005")


LINE = {
    "product_id": "d0000000-0000-4000-8000-000000000099",
    "title": "Apples",
    "quantity": 2,
    "unit_price_cents": 500,
    "line_subtotal_cents": 1000,
    "applied_volume_discount": None,
    "warnings": [],
}
GROUP = {
    "vendor_store_id": "50000000-0000-4000-8000-000000000099",
    "subtotal_cents": 1000,
    "total_cents": 1000,
    "promo": None,
    "warnings": [],
}
QUOTE = {
    "id": "ca000000-0000-4000-8000-000000000099",
    "buyer_store_id": "b0000000-0000-4000-8000-000000000099",
    "currency": "USD",
    "valid_until": "2999-01-01T00:00:00Z",
    "shipping_address": ADDRESS,
    "ad_tokens": ["x"],
}


@FUZZ
@given(
    quote=st.builds(
        lambda quote, group, line: (
            quote | {"vendor_groups": [group | {"items": [line]}]}
            if all(isinstance(part, dict) for part in (quote, group, line))
            else quote
        ),
        objects_like(QUOTE),
        objects_like(GROUP),
        objects_like(LINE),
    )
)
def test_any_json_is_a_quote_or_refused(db, quote):
    assert outcome(db, "select cart_put(%s)", Jsonb(quote)) in (None, "OC005", "OC007")
