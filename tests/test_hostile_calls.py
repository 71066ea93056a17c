"""Anything at all in any argument of any call in Python and of any route: it works, or it is a typed error.

What a value means is for the database to judge (test_hostile_arguments.py). Here it has to get there, or to be refused
before: never as an error of psycopg's or of an encoder's, never as a 500, and without a row written.
"""

import asyncio
import json
import math
import re
from collections import UserDict, UserString
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from urllib.parse import quote
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from test_calls import GROUPS
from test_calls import calls as calls_of
from test_calls_cut import CALLS, world  # noqa: F401  (fixture)

from pycheckout import AsyncCheckout, Checkout, CheckoutError, InvalidRequest, Line, NotInstalled, Quote, VendorGroup
from web import NO_TLS, app, body, headers, serving


class Text(str):
    """Its text is not what it says."""

    def __str__(self):
        return "\ud800"


class Number(int):
    def __str__(self):
        return "no number"

    __repr__ = __str__


class Fails:
    def __str__(self):
        raise ValueError("no text")

    __repr__ = __str__


class Colour(Enum):
    RED = "red"


def nested(levels, leaf=None):
    for _ in range(levels):
        leaf = [leaf]
    return leaf


def circle():
    found: dict[str, object] = {}
    found["self"] = found
    return found


NUMBERS = [
    0,
    -1,
    2**31,
    2**63,
    -(2**63) - 1,
    10**1000,
    10**5000,
    True,
    Number(5),
    Decimal("1e1000000"),
    Decimal("sNaN"),
]
NUMBERS += [math.nan, math.inf, -math.inf, 1e308, 1.5]
TEXTS = ["", " ", "\0", "a\0b", "\ud800", "x" * 1_000_000, "null", "{}", "'; --", Text("text"), UserString("text")]
BYTES = [b"", b"\0", bytearray(b"x"), memoryview(b"x")]
LISTS = [[], (), [None], [[]], {}, {"a": 1}, UserDict(a=1), {1, 2}, range(3), nested(900), nested(100_000), circle()]
LISTS += [{1: 2, None: 3, (): 4}, {"\ud800": "\0"}, ["\0"], ["\ud800"], [""]]
TIMES = [datetime(2026, 1, 1), datetime.min, datetime.max.replace(tzinfo=UTC), date(2026, 1, 1), time(1), timedelta.max]
TIMES += [
    datetime(2026, 1, 1, tzinfo=timezone(offset)) for offset in (timedelta(microseconds=1), timedelta(hours=-23.9))
]
UUIDS = ["{", "d0000000-0000-4000-8000-00000000009", "g0000000-0000-4000-8000-000000000099", "d" * 33, uuid4().bytes]
OTHERS = [None, object(), object, Fails(), Colour.RED, lambda: None, iter(()), Exception("x")]
HOSTILE = [*NUMBERS, *TEXTS, *BYTES, *LISTS, *TIMES, *UUIDS, *OTHERS]

# Of each type that a placeholder is cast to: what may get there at all. Everything else is refused in Python.
SENDABLE = {
    "uuid": (str, UUID),
    "text": (str,),
    "integer": (int,),
    "bigint": (int,),
    "boolean": (bool,),
    "interval": (timedelta,),
    "timestamptz": (datetime,),
    "jsonb": (object,),
    "uuid[]": (object,),
    "text[]": (object,),
    "seconds": (int, float),
    "name": (object,),
}
# What a call takes beside what is sent.
OPTIONS = {"timeout": "seconds", "request_id": "name"}

LARGE = {
    "uuid[]": lambda: [uuid4()] * 300_000,
    "text[]": lambda: ["x"] * 300_000,
    "jsonb": lambda: {"list": [0] * 1_000_000},
}


def casts(call):
    """The arguments of a call and the types of its placeholders, in their order."""
    found = re.findall(r"%s::(\w+(?:\[\])?)", call._sql)
    names = [each.name for each in call._parameters if each.kind is not each.VAR_KEYWORD]
    assert len(found) == len(names), call._name
    return dict(zip(names, found, strict=True))


ALL = {f"{group.called}.{name}".removeprefix("."): call for group in GROUPS for name, call in calls_of(group).items()}


def test_every_type_that_a_call_sends_is_tried():
    assert {cast for call in ALL.values() for cast in casts(call).values()} <= SENDABLE.keys()


@pytest.fixture(params=["sync", "async"])
def made(request, dsn):
    """made(name, arguments): the call by either object, on an autocommit connection that has to stay of use."""
    settings = {"autocommit": True, "options": "-c statement_timeout=30s -c client_min_messages=error"}

    def of(checkout, name):
        group, _, call = name.rpartition(".")
        return getattr(getattr(checkout, group) if group else checkout, call)

    if request.param == "sync":
        with psycopg.connect(dsn, **settings) as conn:
            yield lambda name, arguments: of(Checkout(conn), name)(**arguments)
            assert conn.execute("select 1").fetchone() == (1,)
        return
    with asyncio.Runner() as runner:
        conn = runner.run(psycopg.AsyncConnection.connect(dsn, **settings))

        async def called(name, arguments):
            return await of(AsyncCheckout(conn), name)(**arguments)

        yield lambda name, arguments: runner.run(called(name, arguments))
        assert runner.run(conn.execute("select 1")).pgresult.ntuples == 1
        runner.run(conn.close())


@pytest.mark.parametrize("name", ALL)
def test_anything_in_an_argument_is_a_typed_error_or_taken(made, world, db, snapshot, name):  # noqa: F811
    for argument, cast in casts(ALL[name]).items():
        tried(made, db, snapshot, name, CALLS[name][1](world), argument, cast)


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", ["execute", "stock.adjust"])
def test_anything_in_an_option_is_a_typed_error_or_taken(made, world, db, snapshot, name, option, caplog):  # noqa: F811
    caplog.set_level("INFO", logger="pycheckout")  # the option may be what the record cannot show
    tried(made, db, snapshot, name, CALLS[name][1](world), option, OPTIONS[option])


def tried(made, db, snapshot, name, good, argument, cast):
    before = snapshot(db)
    for value in [*HOSTILE, *(make() for kind, make in LARGE.items() if kind == cast)]:
        may_be_sent = value is None or isinstance(value, SENDABLE[cast])
        try:
            made(name, good | {argument: value})
        except CheckoutError as exc:
            assert not isinstance(exc, NotInstalled), (argument, value, exc)
            assert may_be_sent or type(exc) is InvalidRequest, (argument, value, exc)
            assert len(str(exc)) < 1000
        else:
            assert may_be_sent, f"{argument}: {value!r:.80} was taken"
            before = snapshot(db)
    assert snapshot(db) == before, "what was refused wrote rows"


def test_time_that_is_beyond_what_a_clock_can_count_has_no_end(made, world):  # noqa: F811
    for value in (math.inf, 1e308, 10**5000):
        assert made("result", CALLS["result"][1](world) | {"timeout": value}).status == "converted"


@pytest.mark.parametrize(
    "value", [each for each in HOSTILE if each is not None], ids=lambda value: f"{type(value).__name__}"
)
def test_anything_in_a_quote_is_a_typed_error_or_taken(db, nothing_written, value):
    line = Line(product_id=uuid4(), quantity=1, unit_price_cents=1)
    group = VendorGroup(vendor_store_id=uuid4(), items=[line])
    until = datetime.max.replace(tzinfo=UTC)
    whole = Quote(id=uuid4(), buyer_store_id=uuid4(), currency="USD", valid_until=until, vendor_groups=[group])
    damaged = [{"vendor_groups": [replace(group, items=[replace(line, **{name: value})])]} for name in FIELDS]
    damaged += [{"vendor_groups": [replace(group, **{name: value})]} for name in ("items", "promo", "shipping_cents")]
    damaged += [{"vendor_groups": value}, {"vendor_groups": [value]}, {"valid_until": value}]
    with nothing_written():
        for each in damaged:
            with suppress(CheckoutError), db.transaction(force_rollback=True):
                Checkout(db).quotes.put(replace(whole, **each))


FIELDS = ("product_id", "quantity", "unit_price_cents", "line_discounts_cents", "applied_volume_discount")


@pytest.mark.parametrize("kind", [Checkout, AsyncCheckout])
def test_anything_for_a_connection_or_a_schema_is_refused(db, kind):
    for value in HOSTILE:
        if value is not None and (not isinstance(value, str) or set("\0\ud800") & set(value) or not value):
            with pytest.raises(InvalidRequest):
                kind(db, schema=value)
        elif value is not None and kind is Checkout:
            with pytest.raises(NotInstalled):
                kind(db, schema=value).audit()
        with pytest.raises(TypeError):
            asyncio.run(kind(value).audit()) if kind is AsyncCheckout else kind(value).audit()
    assert db.execute("select 1").fetchone() == (1,)


# Over HTTP

WORDS = [
    "",
    " ",
    "\0",
    "x" * 5_000,
    "\ud800",
    "-1",
    "1e400",
    str(2**63),
    str(10**1000),
    "NaN",
    "null",
    "{}",
    "'; --",
    "..",
    "ü",
]
# JSON as it goes out: NaN, half of a surrogate pair and a name twice are no value of Python's.
RAW = [
    "null",
    "true",
    "-1",
    "0.5",
    "1e999",
    "1e1000000",
    "9" * 4_000,
    "NaN",
    "-Infinity",
    '"\\ud800"',
    '"\\u0000"',
    '""',
]
RAW += ['"' + "x" * 60_000 + '"', "[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900, "[]", "{}", '{"a":1,"a":2}']
RAW += ['{"\\ud800":1}', '{"\\u0000":1}', "[" + "0," * 20_000 + "0]", '"2026-01-01"', '"{}"', "'x'", ""]


@pytest.fixture
def served(dsn):
    with serving(app(dsn, orders=True)) as url, httpx.Client(base_url=url, timeout=30, verify=NO_TLS) as client:
        yield client


def sent(client, method, path, query, headers, content):
    named = {"Content-Type": "application/json"} if content is not None else {}
    written = [(name.encode(), text.encode("utf-8", "surrogatepass")) for name, text in (headers | named).items()]
    return client.request(method, path, params=query, headers=written, content=content)


def escaped(text):
    return quote(text.encode("utf-8", "surrogatepass"), safe="")


def requests_of(what, operation, document, good):
    """Requests of an operation, each with one hostile place."""
    method, path = what
    names = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
    plain = path.format(**{name: good[name] for name in names})
    content = good["body"](operation)
    for name in names:
        for word in WORDS:
            hostile = path.format(**{other: escaped(word) if other == name else good[other] for other in names})
            yield method, hostile, "", {}, content and content()
    for each in operation.get("parameters", []):
        for word in WORDS:
            if each["in"] == "query":
                yield method, plain, f"{each['name']}={escaped(word)}", {}, content and content()
            elif each["in"] == "header" and word == word.strip(" \0"):  # no client and no server passes those on
                yield method, plain, "", {each["name"]: word}, content and content()
    if content:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        [described] = [each["$ref"] for each in schema.get("anyOf", [schema]) if "$ref" in each]
        fields = described.rpartition("/")[2]
        for field in document["components"]["schemas"][fields]["properties"]:
            for raw in RAW:
                yield method, plain, "", {}, content(field, raw)
        for name in ("other", "\\ud800", "x" * 60_000):
            yield method, plain, "", {}, content(name, "1")
        for raw in RAW:
            yield method, plain, "", {}, raw.encode()


def test_anything_in_a_request_is_a_problem_or_answered(served, db, world, snapshot, caplog):  # noqa: F811
    caplog.set_level("CRITICAL")
    document = served.get("/openapi.json").json()
    good = {"cart_id": world.other.id, "order_id": world.order_id, "line_id": world.line_id}
    checkout = {name: json.dumps(value) for name, value in body(world.other).items()}
    bodies = {
        "checkout_execute": checkout,
        "order_cancel": {"reason": '"late"'},
        "order_line_release": {"reason": '"late"'},
        "order_line_return": {"reason": '"late"', "restock": "true", "change_key": '"back"'},
    }

    def content(operation):
        if "requestBody" not in operation:
            return None
        whole = bodies.get(operation["operationId"], {})
        return lambda *place: (
            "{" + ",".join(f'"{name}":{raw}' for name, raw in (whole | dict([place] if place else [])).items()) + "}"
        ).encode()

    before, count = snapshot(db), 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            token = world.other.buyer_store_id if "checkout" in path else world.cart.buyer_store_id
            if "lines" in path:
                token = f"vendor-{world.cart.vendors[0]}"
            for request in requests_of((method, path), operation, document, good | {"body": content}):
                named = headers(token, f"k{count}") | {"X-Request-ID": "r"} | request[3]
                answer = sent(served, *request[:3], named, request[4])
                count += 1
                told = (request, answer.status_code, answer.text[:300])
                assert answer.status_code < 500, told
                if answer.status_code < 300:
                    before = snapshot(db)
                elif answer.headers.get("Content-Type") != "application/problem+json":
                    # no route of ours: an empty part, a slash or dots in the path
                    assert answer.status_code in (400, 404, 405, 307), told
    assert count > 300
    assert snapshot(db) == before, "what was refused wrote rows"
