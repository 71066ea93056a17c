"""Anything at all in any argument of any function that a role may call: it works, or it is refused as documented.

Documented is an OC code that the function's comment names. Text that never becomes a jsonb keeps the code that
PostgreSQL itself has for it. Whatever is refused changes nothing, says so in few words, and gives no token back.
"""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, TypeAlias
from uuid import UUID

import psycopg
import pytest
from ads import KEY, ad_token
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

import pycheckout
from checks import rows
from factories import ADDRESS

Arguments: TypeAlias = dict[str, Any]
Place: TypeAlias = tuple[str | int, ...]

MB = 1_000_000
FUZZ = settings(
    max_examples=300,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

PRODUCT = "d0000000-0000-4000-8000-000000000099"
# a page of orders that begins at an order of 2024
PLACE = "MjAyNC0wNS0wMSAxMjowMDowMCswMCA2MDAwMDAwMC0wMDAwLTQwMDAtODAwMC0wMDAwMDAwMDAwOTk"
QUOTE = {
    "id": "ca000000-0000-4000-8000-000000000099",
    "buyer_store_id": "b0000000-0000-4000-8000-000000000099",
    "currency": "USD",
    "valid_until": "2999-01-01T00:00:00Z",
    "shipping_address": ADDRESS,
    "ad_tokens": ["x"],
    "subtotal_cents": 1000,
    "discounts_cents": 0,
    "total_cents": 1000,
    "vendor_groups": [
        {
            "id": "60000000-0000-4000-8000-000000000099",
            "vendor_store_id": "50000000-0000-4000-8000-000000000099",
            "status": "ok",
            "subtotal_cents": 1000,
            "discounts_cents": 0,
            "line_discounts_cents": 0,
            "promo_discount_cents": 0,
            "total_cents": 1000,
            "promo": {"code": "PROMO", "amount_cents": 0},
            "warnings": [{"type": "t", "message": "m"}],
            "items": [
                {
                    "id": "17e30000-0000-4000-8000-000000000099",
                    "product_id": PRODUCT,
                    "title": "Apples",
                    "category": "grocery",
                    "unit": "each",
                    "quantity": 2,
                    "moq": 1,
                    "max_qty": 9,
                    "unit_price_cents": 500,
                    "line_subtotal_cents": 1000,
                    "line_discounts_cents": 0,
                    "line_total_cents": 1000,
                    "applied_volume_discount": {"label": "l", "amount_cents": 0},
                    "warnings": [],
                    "status": "ok",
                }
            ],
        }
    ],
}


@pytest.fixture
def calls(db, add_cart, checkout) -> dict[str, Arguments]:
    """A good call of every function that takes a text or a jsonb."""
    db.execute("select ad_signing_key_put('k1', %s)", [KEY])
    ordered, cart = add_cart(vendors=1), add_cart(vendors=1)
    token = ad_token(cart, 1, "product", cart.items[0].product_id)
    db.execute("update cart_records set ad_tokens = %s where id = %s", [[token], cart.id])
    [order] = checkout(db, ordered, key="k0").vendor_orders
    [shipped] = checkout(db, add_cart(vendors=1), key="k2").vendor_orders
    db.execute("select order_line_fulfil(%s)", [shipped.items[0].line_item_id])
    [(event, claim_id)] = db.execute("select id::text, claim_id::text from outbox_claim(1)").fetchall()
    db.execute("select inventory_set(%s, 100)", [PRODUCT])
    db.execute("select inventory_split(%s, 3)", [PRODUCT])
    return {
        "ad_signing_key_put": {"kid": "k2", "secret": KEY},
        "ad_signing_key_retire": {"kid": "k1"},
        "ad_token_check": {"token": token, "buyer_store_id": str(cart.buyer_store_id)},
        "cart_put": {"cart": QUOTE},
        "checkout_execute": {
            "buyer_store_id": str(cart.buyer_store_id),
            "cart_id": str(cart.id),
            "idempotency_key": "k1",
            "shipping_address": ADDRESS,
            "payment_method": "ach",
            "shipping_line": {"code": "ground", "title": "Ground", "price_cents": 100},
            "billing_address": {"line1": "12 Main Street", "city": "Tulsa", "country": "US"},
            "purchase_order": "PO-7",
            "metadata": {"desk": "south"},
            "ad_token_policy": "drop",
            "reservation_policy": "partial",
        },
        "checkout_grant": {"role_name": db.info.user},
        "checkout_grant_operators": {"role_name": db.info.user},
        "checkout_grant_orders": {"role_name": db.info.user},
        "checkout_grant_payments": {"role_name": db.info.user},
        "checkout_grant_quotes": {"role_name": db.info.user},
        "checkout_grant_relay": {"role_name": db.info.user},
        "checkout_grant_stock": {"role_name": db.info.user},
        "checkout_revoke": {"role_name": db.info.user},
        "inventory_adjust": {"product_id": PRODUCT, "delta": 1, "change_key": "delivery-1"},
        "inventory_restock": {"product_id": PRODUCT, "qty": 1, "change_key": "delivery-1"},
        "inventory_set_many": {"levels": [{"product_id": PRODUCT, "available": 1}]},
        "order_adjust": {
            "order_id": str(order.order_id),
            "amount_cents": -1,
            "reason": "sold twice",
            "change_key": "credit-1",
        },
        "order_line_fulfil": {
            "line_id": str(order.items[1].line_item_id),
            "qty": 1,
            "change_key": "parcel-1",
            "details": {"carrier": "DHL", "tracking": ["1"]},
        },
        "order_line_release": {
            "line_id": str(order.items[0].line_item_id),
            "reason": "sold twice",
            "qty": 1,
            "change_key": "short-1",
        },
        "order_line_return": {
            "line_id": str(shipped.items[0].line_item_id),
            "reason": "torn",
            "qty": 1,
            "restock": True,
            "change_key": "back-1",
        },
        "orders_list": {
            "buyer_store_id": str(ordered.buyer_store_id),
            "statuses": ["created_pending", "hold"],
            "after": PLACE,
            "max_rows": 2,
            "order_number": 1,
            "purchase_order": "PO-4711",
        },
        "outbox_discard": {"id": event, "reason": "sold twice"},
        "outbox_fail": {"claim_id": claim_id, "id": event, "error": "no route"},
        "payment_record": {
            "order_id": str(order.order_id),
            "provider": "acme",
            "provider_event_id": "evt_1",
            "kind": "captured",
            "amount_cents": 1,
            "currency": "USD",
            "occurred_at": "2026-01-01T00:00:00Z",
            "details": {"charge": "ch_1"},
        },
        "vendor_order_cancel": {"order_id": str(order.order_id), "reason": "sold twice"},
        "vendor_order_decide": {
            "order_id": str(order.order_id),
            "decisions": [{"line_item_id": str(order.items[0].line_item_id), "accept_qty": 0, "reason": "sold twice"}],
            "change_key": "answer-1",
        },
    }


@pytest.fixture
def api(db) -> dict[str, dict[str, str]]:
    """Of every function that a role may call: its arguments and their types. (Those that pin their search_path.)"""
    found = rows(
        db,
        """
        select proname::text as name, argument, format_type(type, null) as type
          from pg_proc
          left join lateral unnest(proargnames[:pronargs], proargtypes::oid[]) as given (argument, type) on true
         where pronamespace = current_schema()::regnamespace
           and prorettype <> 'trigger'::regtype
           and exists (select from unnest(proconfig) as setting where starts_with(setting, 'search_path='))
        """,
    )
    api: dict[str, dict[str, str]] = {}
    for row in found:
        api.setdefault(row["name"], {}).update({row["argument"]: row["type"]} if row["argument"] else {})
    return api


WORDS = ("text", "jsonb", "json", "text[]", "jsonb[]", "character varying", "name")


def test_every_function_that_takes_text_or_json_is_tried(api, calls):
    """A new one must get its line in `calls`."""
    takes = {name: set(given) for name, given in api.items() if set(given.values()) & set(WORDS)}

    assert takes.keys() - {"checkout_apply_grants"} == calls.keys()  # a step of each deployment
    for name, arguments in calls.items():
        assert {given for given in takes[name] if api[name][given] in WORDS} <= arguments.keys(), name


# Calls, and what may become of one


class Raw(str):
    """JSON text that goes out as it is: duplicate keys, NaN and half surrogate pairs are no Python value."""


def json_text(value: Any) -> str:
    if isinstance(value, Raw):
        return value
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {json_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(json_text, value)) + "]"
    return json.dumps(value)


def places(value: Any, place: Place = ()) -> Iterator[Place]:
    """Everywhere in a value, and one member more in each object."""
    if place:
        yield place
    if isinstance(value, dict):
        for name in [*value, "one_more"] if place else value:
            yield from places(value.get(name), (*place, name))
    elif isinstance(value, list):
        for position, each in enumerate(value):
            yield from places(each, (*place, position))


def put(value: Any, place: Place, hostile: Any) -> Any:
    """The value with something else in that place."""
    if not place:
        return hostile
    key = place[0]
    if isinstance(value, dict) and isinstance(key, str):
        return value | {key: put(value.get(key), place[1:], hostile)}
    if isinstance(value, list) and isinstance(key, int) and key < len(value):
        return [put(each, place[1:], hostile) if position == key else each for position, each in enumerate(value)]
    return value  # an outer place is hostile already


@pytest.fixture
def attempt(db, api) -> Callable[[str, Arguments], str | None]:
    """attempt(function, arguments): its SQLSTATE, or None if it works, which is rolled back."""
    documented = {
        name: set(re.findall(r"OC\d{3}", comment or ""))
        for name, comment in db.execute(
            "select proname::text, obj_description(oid, 'pg_proc') from pg_proc where proname = any (%s)", [[*api]]
        )
    }
    again: set[tuple[str, str | None]] = set()

    def error_of(query: sql.Composable, params: list[Any]) -> psycopg.Error | None:
        try:
            with db.transaction(force_rollback=True):
                db.execute(query, params)
        except psycopg.Error as error:
            return error
        return None

    def attempt(name: str, arguments: Arguments) -> str | None:
        types = {argument: sql.SQL(api[name][argument]) for argument in arguments}
        params = [
            json_text(value) if api[name][argument] == "jsonb" else value for argument, value in arguments.items()
        ]
        query = sql.SQL("select {}({})").format(
            sql.Identifier(name),
            sql.SQL(", ").join(
                sql.SQL("{} => %s::{}").format(sql.Identifier(argument), type_) for argument, type_ in types.items()
            ),
        )
        error = error_of(query, params)
        if error is None:
            return None

        if error.sqlstate not in documented[name]:
            # Then it is PostgreSQL that could not make a value of the text, with no function of ours.
            casts = sql.SQL(", ").join(sql.SQL("%s::{}").format(type_) for type_ in types.values())
            no_value = error_of(sql.SQL("select {}").format(casts), params)
            assert no_value is not None and no_value.sqlstate == error.sqlstate, (error.sqlstate, str(error)[:500])
        else:
            diag = error.diag
            assert sane(diag.message_primary, diag.message_detail, diag.message_hint)
            assert isinstance(json.loads(diag.message_detail), dict)
            assert unrevealing(str(error))

        # Each refusal once more without the transaction around it, so that whatever it left would stay.
        if (name, error.diag.message_detail) not in again:
            again.add((name, error.diag.message_detail))
            with pytest.raises(psycopg.Error):
                db.execute(query, params)
        return error.sqlstate

    return attempt


def sane(message: str | None, detail: str | None, hint: str | None) -> bool:
    """There, in few words, and formatted from what was meant for it."""
    return (
        0 < len(message or "") <= 200
        and 0 < len(detail or "") <= 1000
        and 0 < len(hint or "") <= 200
        and "<NULL>" not in f"{message}{hint}"
    )


def unrevealing(text: str) -> bool:
    return TOKEN not in text and KEY.hex() not in text


@pytest.fixture
def nothing_changes(db, calls, snapshot) -> Iterator[None]:
    """After the test each row is as it was. (Read on the same connection: it is still there.)"""
    before = snapshot(db)
    yield
    assert snapshot(db) == before


# What is hostile

TOKEN = (  # signed by nobody, as long as the real ones
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6ImsxIn0." + "eyJ0b2tlbl9pZCI6IjcwMDAwMDAw" * 8 + ".c2lnbmF0dXJl"
)
TEXTS = {
    "empty": "",
    "blank": " \t\r\n ",
    "controls": "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f",
    "invisible": "\u202e\u200b\ufeff\u2028\ufffe",
    "astral": "\U0001f6d2\U0010ffff",
    "combining": "e" + "\u0301" * 1000,
    "quotes": "'\"; drop table vendor_orders; --",
    "closing": "')) from cart_records; delete from cart_items; /*",
    "dollars": "$$ $1 $body$ ${x} {0}",
    "formats": "% %% %s %I %L %1$s %n",
    "backslashes": "\\ \\' \\\\ \\x00 \\000 \\u0000 \\ud800",
    "null": "null",
    "NULL": "NULL",
    "true": "true",
    "number": "12",
    "fraction": "1.5",
    "exponent": "1e3",
    "hexadecimal": "0x10",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-infinity": "-infinity",
    "400 digits": "9" * 400,
    "array": "{a,b}",
    "array that does not end": "{a",
    "record": "(a,b)",
    "JSON": '{"a": [1]}',
    "no date": "2999-02-30T25:61:61Z",
    "date before years": "4714-11-24 BC",
    "last date": "294276-12-31T23:59:59Z",
    "nil": "00000000-0000-0000-0000-000000000000",
    "public": "public",
    "token": TOKEN,
    "100,000 characters": "x" * 100_000,
    "100,000 quotes": "'" * 100_000,
}
FRAGMENTS = {
    "nothing": "",
    "no JSON": "{line1: 1}",
    "half an object": '{"a": ',
    "two values": "1 2",
    "NUL": '"a\\u0000b"',
    "NUL in a name": '{"a\\u0000b": 1}',
    "high surrogate": '"\\ud800"',
    "low surrogate": '"\\udc00"',
    "surrogates the wrong way round": '"\\udc00\\ud800"',
    "surrogate in a name": '{"\\ud83d": 1}',
    "control inside": '"a\x01b"',
    "NaN": "NaN",
    "Infinity": "-Infinity",
    "10^400": "1" + "0" * 400,
    "-10^400": "-1" + "0" * 400,
    "1e400": "1e400",
    "1e-400": "1e-400",
    "1e131071": "1e131071",
    "1e131072": "1e131072",
    "100,000 digits": "7" * 100_000,
    "many decimals": "0." + "0" * 16_000 + "1",
    "2^31": "2147483648",
    "2^63": "9223372036854775808",
    "-2^63": "-9223372036854775808",
    "-1": "-1",
    "-0": "-0.0",
    "half": "0.5",
    "null": "null",
    "true": "true",
    "list": "[]",
    "object": "{}",
    "null in a list": "[null]",
    "object in a list": '[{"a": [1, "x", null]}]',
    "one name twice": '{"id": 1, "id": null, "code": "a", "code": "b"}',
    "name without letters": '{"": {"": []}}',
    "100,000 characters of a name": '{"' + "n" * 100_000 + '": 1}',
    "10,000 lists deep": "[" * 10_000 + "]" * 10_000,
    "10,000 objects deep": '{"a":' * 10_000 + "1" + "}" * 10_000,
    "100,000 lists deep": "[" * 100_000 + "]" * 100_000,
    "unclosed": "[" * 100_000,
}
JSON_VALUES = {name: Raw(json.dumps(text)) for name, text in TEXTS.items()} | {
    f"JSON {name}": Raw(text) for name, text in FRAGMENTS.items()
}


# In SQL

TAKING_JSON = ["cart_put", "checkout_execute", "inventory_set_many"]


def in_words(api: dict[str, dict[str, str]], name: str, arguments: Arguments) -> list[Place]:
    """The places of a text or jsonb argument; the others are PostgreSQL's to read."""
    return [place for place in places(arguments) if api[name][str(place[0])] in WORDS]


def is_json(db: psycopg.Connection, text: str) -> bool:
    try:
        db.execute("select %s::jsonb", [text])
    except psycopg.Error:
        return False
    return True


# "text": all that take no jsonb
@pytest.mark.parametrize("which", [*TAKING_JSON, "text"])
def test_each_hostile_value_in_each_place(db, api, calls, attempt, nothing_changes, which):
    json_values = {text for text in JSON_VALUES.values() if is_json(db, text)}
    for name in sorted(calls.keys() - {*TAKING_JSON}) if which == "text" else [which]:
        assert attempt(name, calls[name]) is None

        outcomes = [
            attempt(name, put(calls[name], place, hostile))
            for place in in_words(api, name, calls[name])
            for hostile in (JSON_VALUES if api[name][place[0]] == "jsonb" else TEXTS).values()
            # What is no JSON is so wherever it stands: the first place of an argument shows it.
            if api[name][place[0]] != "jsonb" or len(place) == 1 or hostile in json_values
        ]

        assert len(outcomes) >= len(TEXTS)
        # of a token there is no text that is not answered
        assert set(outcomes) <= {None, "22021"} if name == "ad_token_check" else "OC005" in outcomes


def test_ten_megabytes(api, calls, attempt, nothing_changes):
    for name, arguments in calls.items():
        for [argument] in filter(lambda place: len(place) == 1, in_words(api, name, arguments)):
            # an error of any length is noted, cut, and a token of any length is answered
            expected = None if name in ("ad_token_check", "outbox_fail", "outbox_discard") else "OC005"
            endless = "x" * 10 * MB
            given = [endless] if api[name][argument] == "text[]" else endless
            assert attempt(name, arguments | {argument: given}) == expected

    item = ("cart", "vendor_groups", 0, "items", 0)
    for name, place in (
        ("cart_put", ("cart", "id")),
        ("cart_put", (*item, "quantity")),
        ("cart_put", (*item, "status")),
        ("checkout_execute", ("shipping_address", "city")),
        ("checkout_execute", ("shipping_line", "code")),
    ):
        assert attempt(name, put(calls[name], place, "x" * 10 * MB)) == "OC005"
        assert attempt(name, put(calls[name], place, Raw("[" + "0," * 100_000 + "0]"))) == "OC005"


@pytest.mark.parametrize("name", TAKING_JSON)
def test_the_deepest_json_that_postgresql_takes_is_refused_in_words(db, api, calls, attempt, nothing_changes, name):
    """No function of ours runs out of the stack that the parser had left."""

    def parses(levels: int) -> bool:
        try:
            db.execute("select %s::jsonb", ["[" * levels + "]" * levels])
        except psycopg.errors.StatementTooComplex:
            return False
        return True

    deepest, too_deep = 1_000, 1_000_000
    assert parses(deepest)
    while too_deep - deepest > 1:
        middle = (deepest + too_deep) // 2
        deepest, too_deep = (middle, too_deep) if parses(middle) else (deepest, middle)

    for place in places(calls[name]):
        if api[name][place[0]] == "jsonb":
            levels = deepest - len(place) - 10  # the call itself is some bytes deeper than the cast was
            assert attempt(name, put(calls[name], place, Raw("[" * levels + "]" * levels))) == "OC005", place


def test_a_quote_may_be_nested_32_levels_deep_and_comes_back_from_its_checkout(db, calls, attempt):
    """One level more is refused: many a JSON reader, Python's too, ends where jsonb goes on."""
    place = ("cart", "vendor_groups", 0, "items", 0, "warnings")
    deep = [put(calls["cart_put"], place, Raw("[" * levels + "]" * levels)) for levels in (28, 29)]

    assert [attempt("cart_put", arguments) for arguments in deep] == [None, "OC005"]

    db.execute("select cart_put(%s::jsonb)", [json_text(deep[0]["cart"])])
    ids = QUOTE["buyer_store_id"], QUOTE["id"]
    first = pycheckout.execute(
        db,
        buyer_store_id=ids[0],
        cart_id=ids[1],
        idempotency_key="k1",
        shipping_address=ADDRESS,
        payment_method="ach",
    )
    assert pycheckout.result(db, buyer_store_id=ids[0], cart_id=ids[1]).checkout_group_id == first.checkout_group_id


@pytest.mark.parametrize(("field", "text"), [("ad_tokens", "{a,b}"), ("shipping_address", "(a,b,c,d,e,US,,)")])
def test_no_text_form_of_an_array_or_a_record_is_taken_for_json(calls, attempt, nothing_changes, field, text):
    """PostgreSQL itself would take them, and an address by the position of its fields."""
    assert attempt("cart_put", put(calls["cart_put"], ("cart", field), text)) == "OC005"


def test_figures_whose_sum_is_out_of_range_are_refused(calls, attempt, nothing_changes):
    """Each of them is a bigint; what the function makes of them is not."""
    quote = {name: value for name, value in QUOTE.items() if not name.endswith("_cents")}
    [group] = QUOTE["vendor_groups"]
    twin = {"vendor_store_id": str(UUID(int=1)), "subtotal_cents": 2**63 - 1, "total_cents": 2**63 - 1}
    for groups in (
        [group | {"subtotal_cents": 2**63 - 1, "total_cents": -(2**63)}],
        [twin, twin | {"vendor_store_id": str(UUID(int=2))}],
    ):
        assert attempt("cart_put", {"cart": quote | {"vendor_groups": groups}}) == "OC005"


def test_bytes_that_are_no_text_reach_no_function(db, api, calls, nothing_changes):
    """A byte of no character, a NUL, half a surrogate pair in UTF-8, a NUL in two bytes."""
    for escape in ("\\xff", "\\x00", "\\xed\\xa0\\x80", "\\xc0\\x80"):
        for name in calls:
            given = ", ".join(
                f"{argument} => E'a{escape}'::{type_}" if type_ in WORDS else f"{argument} => null"
                for argument, type_ in api[name].items()
            )
            with pytest.raises(psycopg.errors.CharacterNotInRepertoire):
                db.execute(f"select {name}({given})")


# Arguments of other types: what their own input takes and a calculation may not.
EDGES = {
    "bigint": [None, -(2**63), -1, 0, 2**63 - 1],
    "boolean": [None],
    "bytea": [None, b"", b"\0" * 31, b"\0" * 32, b"\xff" * 10 * MB],
    "integer": [None, -(2**31), -1, 0, 1, 256, 257, 2**31 - 1],
    "interval": [None, "0", "infinity", "-infinity", "1 us", "-1 us", "178000000 years", "-178000000 years"],
    "timestamp with time zone": [None, "infinity", "-infinity", "4714-11-24 BC", "294276-12-31"],
    "uuid": [UUID(int=0), UUID(int=2**128 - 1)],
    "uuid[]": [None, [], [None], [UUID(int=0)] * 10_000],
}


def test_each_edge_of_each_other_argument(api, calls, attempt, nothing_changes):
    others = {
        "cart_get": {name: calls["checkout_execute"][name] for name in ("buyer_store_id", "cart_id")},
        "cart_purge": {"older_than": "1 day", "max_rows": 9},
        "checkout_audit": {"since": None},
        "checkout_audit_rest": {"since": None},
        "checkout_audit_slice": {"since": None, "after": None, "upto": None},
        "checkout_erase": {"cart_id": calls["checkout_execute"]["cart_id"]},
        "checkout_requests_purge": {"older_than": "1 day", "max_rows": 9},
        "checkout_result": {name: calls["checkout_execute"][name] for name in ("buyer_store_id", "cart_id")},
        "inventory_changes_purge": {"older_than": "1 day", "max_rows": 9},
        "inventory_get": {"product_ids": [PRODUCT]},
        "inventory_set": {"product_id": PRODUCT, "available": 1},
        "inventory_split": {"product_id": PRODUCT, "slots": 2},
        "order_get": {"order_id": calls["vendor_order_cancel"]["order_id"], "buyer_store_id": str(UUID(int=1))},
        "order_changes_list": {
            "order_id": calls["vendor_order_cancel"]["order_id"],
            "buyer_store_id": str(UUID(int=1)),
        },
        "outbox_ack": {"claim_id": calls["outbox_fail"]["claim_id"], "ids": [calls["outbox_fail"]["id"]]},
        "outbox_claim": {"batch": 1, "lease": "30 seconds"},
        "outbox_extend": {"claim_id": calls["outbox_fail"]["claim_id"], "lease": "30 seconds"},
        "outbox_purge": {"older_than": "1 day", "max_rows": 9},
        "outbox_release": {"claim_id": calls["outbox_fail"]["claim_id"], "ids": [calls["outbox_fail"]["id"]]},
        "outbox_replay": {"id": calls["outbox_fail"]["id"]},
        "vendor_order_extend": {"order_id": calls["vendor_order_cancel"]["order_id"], "until": "2026-01-01T00:00:00Z"},
        "vendor_orders_expire": {"max_rows": 9},
    }
    without_arguments = {"checkout_metrics", "checkout_version", "market_status"}
    assert api.keys() - {"checkout_apply_grants"} - without_arguments == calls.keys() | others.keys()

    for name, arguments in (calls | others).items():
        for argument, type_ in api[name].items():
            for edge in () if type_ in WORDS else EDGES[type_]:
                attempt(name, arguments | {argument: edge})


# Much at once, in SQL

ANY_TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
ANY_JSON = st.recursive(
    st.sampled_from([*JSON_VALUES.values()]) | ANY_TEXT.map(json.dumps) | st.integers().map(str),
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(st.sampled_from(["id", "code", "a", ""]), inner), max_size=3).map(
            lambda members: "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in members) + "}"
        )
    ),
    max_leaves=4,
).map(Raw)


@FUZZ
@given(st.data())
def test_anything_in_several_places_at_once(api, calls, attempt, nothing_changes, data):
    name = data.draw(st.sampled_from(TAKING_JSON * 3 + sorted(calls)))
    changed = calls[name]
    everywhere = st.sampled_from(in_words(api, name, changed))
    for place in data.draw(st.lists(everywhere, min_size=1, max_size=4, unique=True)):
        kind = ANY_JSON if api[name][place[0]] == "jsonb" else ANY_TEXT | st.sampled_from([*TEXTS.values()])
        changed = put(changed, place, data.draw(kind))
    attempt(name, changed)


# Through the wrapper


class Odd:
    """No value of JSON."""

    def __repr__(self) -> str:
        return TOKEN * 1000


def endless_list() -> list[Any]:
    circle: list[Any] = []
    circle.append(circle)
    return circle


def nested(levels: int) -> Any:
    value: Any = []
    for level in range(levels):
        value = [value] if level % 2 else {"a": value}
    return value


VALUES = TEXTS | {
    "NUL": "a\0b",
    "high surrogate": "\ud800",
    "low surrogate": "a\udc00b",
    "surrogates the wrong way round": "\udc00\ud800",
    "surrogate in a name": {"\ud83d": 1},
    "NUL in a name": {"a\0b": 1},
    "integer": 12,
    "10^400": 10**400,
    "-10^400": -(10**400),
    "10^5000": 10**5000,  # Python itself does not write it
    "2^63": 2**63,
    "NaN": float("nan"),
    "infinity": float("-inf"),
    "smallest": 5e-324,
    "Decimal": Decimal("0.1"),
    "Decimal NaN": Decimal("NaN"),
    "signaling NaN": Decimal("sNaN"),
    "Decimal beyond float": Decimal("1e400"),
    "Decimal beyond everything": Decimal("1e999999"),
    "True": True,
    "list": [],
    "object": {},
    "names of other types": {1: 1, None: None, 1.5: True},
    "names of tuples": {(1, 2): 3},
    "tuple": (1, 2),
    "set": {1},
    "bytes": b"bytes",
    "complex": 1j,
    "odd": Odd(),
    "type": Odd,
    "circle": endless_list(),
    "500 levels": nested(500),
    "10,000 levels": nested(10_000),
}


@pytest.fixture
def call(db, calls, caplog) -> dict[str, tuple[Callable[..., Any], Arguments]]:
    """Each function of the wrapper that takes anything, with good arguments."""
    caplog.set_level("CRITICAL", "pycheckout")
    request = calls["checkout_execute"]
    ids = {name: request[name] for name in ("buyer_store_id", "cart_id")}
    return {
        "execute": (lambda **given: pycheckout.execute(db, **given), request),
        "put_cart": (lambda **given: pycheckout.put_cart(db, **given), calls["cart_put"]),
        "result": (lambda **given: pycheckout.result(db, **given), ids),
    }


IN_PYTHON = ["execute", "put_cart", "result"]


@pytest.fixture
def attempt_python(db, call) -> Callable[[str, Arguments], str | None]:
    """attempt_python(function, arguments): the code of its error, or None if it works, which is rolled back."""
    again: set[tuple[str, str]] = set()

    def attempt_python(name: str, arguments: Arguments) -> str | None:
        function, _ = call[name]
        try:
            with db.transaction(force_rollback=True):
                function(**arguments)
        except pycheckout.CheckoutError as error:  # and nothing else, ever
            assert type(error) is not pycheckout.CheckoutError
            assert not error.retryable and error.http_status < 500
            assert 0 < len(error.message) <= 200 and len(error.hint or "") <= 200
            assert len(json.dumps(error.detail)) <= 1000
            assert unrevealing(f"{error}{error.detail}")
            if (name, error.code) not in again:
                again.add((name, error.code))
                with pytest.raises(type(error)):
                    function(**arguments)
            return error.code
        return None

    return attempt_python


@pytest.mark.parametrize("name", IN_PYTHON)
def test_each_hostile_value_in_each_place_in_python(call, attempt_python, nothing_changes, name):
    _, arguments = call[name]
    assert attempt_python(name, arguments) is None

    codes = {
        (place, label): attempt_python(name, put(arguments, place, hostile))
        for place in places(arguments)
        for label, hostile in VALUES.items()
        # Within an argument, texts are the database's to judge: above, each of them in each place.
        if len(place) == 1 or label not in TEXTS
    }

    assert "invalid_request" in codes.values()


def test_ten_megabytes_in_python(call, attempt_python, nothing_changes):
    for name, (_, arguments) in call.items():
        for argument in arguments:
            for endless in ("x" * 10 * MB, {"x" * 10 * MB: 1}):
                assert attempt_python(name, arguments | {argument: endless}) == "invalid_request"


def hostile_value(label: str) -> Any:
    return VALUES[label]


ANY_VALUE = st.recursive(
    st.sampled_from([*VALUES]).map(hostile_value) | st.text(max_size=40) | st.integers() | st.floats() | st.decimals(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)


@FUZZ
@given(st.data())
def test_anything_in_several_places_at_once_in_python(call, attempt_python, nothing_changes, data):
    name = data.draw(st.sampled_from(IN_PYTHON))
    _, changed = call[name]
    for place in data.draw(st.lists(st.sampled_from([*places(changed)]), min_size=1, max_size=4, unique=True)):
        changed = put(changed, place, data.draw(ANY_VALUE))
    attempt_python(name, changed)
