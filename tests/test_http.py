"""The routes over real sockets: a live uvicorn, httpx, and the database behind them."""

import json
import logging
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from datetime import timedelta
from inspect import signature
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urljoin
from uuid import UUID

import httpx
import jsonschema
import psycopg
import pytest
from fastapi import Depends, FastAPI
from fastapi.responses import JSONResponse, RedirectResponse
from quoted import quoted
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session

import pycheckout
from checks import values
from factories import ADDRESS
from pycheckout import AsyncCheckout, Checkout, InvalidRequest, ShippingLine
from pycheckout._types import build
from pycheckout.http import checkout_router, health_router, order_router
from races import at_once, wait_for_waiter
from web import NO_TLS, Api, app, body, buyer, get, headers, party, schemathesis, serving

ROOT = Path(__file__).parents[1]
STRANGER = UUID("b0000000-0000-4000-8000-00000000ffff")
NOWHERE = {"min_size": 0, "timeout": 0.3}


@pytest.fixture
def serve(dsn) -> Iterator[Callable[..., Api]]:
    """serve(**options): a client of a host that runs until the test ends; the options are those of web.app()."""
    with ExitStack() as stack:

        def serve(dsn=dsn, **options):
            api = Api(stack.enter_context(serving(app(dsn, **options))))
            stack.callback(api.http.close)
            return api

        yield serve


@pytest.fixture
def api(serve) -> Api:
    return serve()


@pytest.fixture(params=["async", "sync"])
def either_api(serve, request) -> Api:
    """A host with an async pool, and one with a sync pool."""
    return serve(kind=request.param)


def problem(response, status, code):
    """The problem of a refusal, checked for what each of them has."""
    assert (response.status_code, response.headers["Content-Type"]) == (status, "application/problem+json")
    assert response.headers["Cache-Control"] == "no-store"
    told = response.json()
    assert (told["status"], told["code"], told["type"]) == (status, code, f"urn:pycheckout:problem:{code}"), told
    assert told["title"] and told["detail"]
    assert told.keys() <= {"type", "title", "status", "code", "detail", "errors", "context"}
    assert ("Retry-After" in response.headers) == (status == 503)
    return told


def orders(db):
    return values(db, "select count(*) from vendor_orders")[0]


# The acceptance criteria of the checkout API


MALFORMED = ["", "two words", "a\tb", "schlüssel", "back\\slash", '"', '""', 'in"side', '"in"side"', "k" * 256, '"open']


def test_routers_work_in_a_schema_that_no_search_path_leads_to(serve, empty_database):
    dsn, schema = empty_database(), 'shop "100%"'
    pycheckout.migrate(dsn, schema=schema, create_schema=True)
    for kind in ("async", "sync"):
        with psycopg.connect(dsn, autocommit=True) as conn:
            cart = quoted(pycheckout.Checkout(conn, schema=schema))
        api = serve(dsn, kind=kind, orders=True, schema=schema)

        ready = get(f"{api.url}/readyz")
        assert (ready.status_code, ready.json()["standby"]) == (200, False)
        made = api.post(cart)
        assert made.status_code == 201, made.text
        listed = api.http.get("/orders", headers=headers(cart.buyer_store_id))
        assert {order["order_id"] for order in made.json()["vendor_orders"]} == {
            order["order_id"] for order in listed.json()["orders"]
        }
        lost = serve(dsn, kind=kind)
        assert get(f"{lost.url}/readyz").status_code == 503


def test_a_request_without_a_valid_idempotency_key_is_rejected(api, add_cart, nothing_written):
    cart = add_cart()

    with nothing_written():
        problem(api.post(cart, key=None), 400, "idempotency_key_required")
        for key in MALFORMED:
            malformed = api.post(cart, key=None, more={"Idempotency-Key": key.encode("latin-1")})
            problem(malformed, 400, "idempotency_key_invalid")


def test_a_request_with_two_idempotency_keys_is_rejected(api, add_cart, nothing_written):
    cart = add_cart()
    twice = [*headers(cart.buyer_store_id, "k1").items(), ("Idempotency-Key", "k1")]

    with nothing_written():
        problem(api.http.post("/checkout", json=body(cart), headers=twice), 400, "idempotency_key_invalid")


def test_a_request_without_a_required_field_is_rejected(api, add_cart, nothing_written):
    cart = add_cart()

    with nothing_written():
        for missing in ("cart_id", "shipping_address", "payment_method"):
            request = {name: value for name, value in body(cart).items() if name != missing}
            told = problem(api.post(cart, json=request), 422, "invalid_request")
            assert told["errors"] == [{"field": missing, "problem": "is required"}]


def test_a_field_that_the_request_does_not_have_is_refused(api, add_cart, nothing_written):
    """attributed_ad_click_id of the earlier API among them; ads come from the cart, the buyer from the token."""
    cart = add_cart()

    with nothing_written():
        for name in ("attributed_ad_click_id", "ad_tokens", "buyer_store_id", "idempotency_key", "currency"):
            told = problem(api.post(cart, **{name: str(STRANGER)}), 422, "invalid_request")
            assert told["errors"] == [{"field": name, "problem": "is not a field of this request"}]


def test_the_idempotency_key_and_the_request_reach_the_checkout(either_api, db, add_cart):
    cart = add_cart()

    either_api.post(cart, key='"k-1"', payment_method="cash", shipping_line={"code": "express", "title": "Express"})

    assert values(db, "select idempotency_key from checkout_requests") == ["k-1"]
    assert values(db, "select payment_method::text from cart_records") == ["cash"]
    assert values(db, "select shipping_line from cart_records") == [
        {"code": "express", "title": "Express", "price_cents": None}
    ]
    assert values(db, "select (shipping_address).city from cart_records") == ["Tulsa"]


def test_a_successful_checkout_answers_with_the_confirmed_fields(either_api, db, add_cart):
    cart = add_cart(vendors=3, stock=None)
    db.execute("insert into inventory_items (product_id, available_qty) values (%s, 5)", [cart.items[0].product_id])
    shipping = {"code": "express", "title": None, "price_cents": None}

    response = either_api.post(cart, shipping_line={"code": "express"})

    assert response.status_code == 201
    assert response.headers["Cache-Control"] == "no-store"
    answer = response.json()
    assert (answer["shipping_address"], answer["payment_method"]) == (ADDRESS, "ach")
    assert answer["shipping_line"] == shipping
    assert answer["replayed"] is False and "Idempotent-Replayed" not in response.headers
    # every order and every rejection: PrestaShop/PrestaShop#9594
    assert [order["vendor_store_id"] for order in answer["vendor_orders"]] == [str(vendor) for vendor in cart.vendors]
    assert [vendor["vendor_store_id"] for vendor in answer["rejected_vendors"]] == [str(v) for v in cart.vendors[1:]]
    assert answer["totals"]["confirmed"]["total_cents"] == 1000
    located = urljoin(str(response.url), response.headers["Location"])
    read = either_api.http.get(located, headers=headers(cart.buyer_store_id))
    assert read.json() == answer | {"replayed": True}


def test_the_answer_is_the_librarys_result(either_api, db, add_cart):
    cart = add_cart(promo_cents=100, amounts="gross", line_discount_cents=50)

    answer = either_api.post(cart).json()

    result = replace(pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id), replayed=False)
    assert build(pycheckout.CheckoutResult, answer) == result
    assert set(answer) == {field.name for field in fields(result)}


# Replays


def test_a_replay_is_a_200_that_says_so_and_writes_nothing(either_api, add_cart, nothing_written):
    cart = add_cart()
    first = either_api.post(cart)

    with nothing_written():
        again = either_api.post(cart, key='"k1"')

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Cache-Control"] == "no-store"
    assert again.json() == first.json() | {"replayed": True}


def test_a_new_key_for_a_converted_cart_gets_the_same_orders(api, db, add_cart):
    """The answer was lost and the client made a new key: ProgixDev/incacook-app#36, mercurjs/mercur#909."""
    cart = add_cart()
    first = api.post(cart)

    again = api.post(cart, key="k2")

    assert (again.status_code, again.json()) == (200, first.json() | {"replayed": True})
    assert orders(db) == 2


def test_a_refusal_of_every_line_is_replayed_to_the_byte(api, db, add_cart, add_stock):
    """torkiv-labs/Nexuq#361"""
    cart = add_cart(stock=0)
    first = api.post(cart)
    add_stock(cart.items[0].product_id, 100)

    second, third = api.post(cart), api.post(cart)

    assert first.status_code == 201 and first.json()["outcome"] == "rejected"
    assert second.content == third.content == first.content.replace(b'"replayed":false', b'"replayed":true')
    assert second.headers["Idempotent-Replayed"] == "true"
    assert values(db, "select sum(reserved_qty) from inventory_items") == [0]


def test_a_key_used_again_for_another_cart_is_refused(api, add_cart, nothing_written):
    """josipmusa/idempotency4j#12"""
    cart = add_cart()
    other = add_cart(buyer_store_id=cart.buyer_store_id)
    api.post(cart)

    with nothing_written():
        told = problem(api.post(other), 422, "idempotency_key_reused")
    assert told["context"] == {"cart_id": str(other.id), "bound_cart_id": str(cart.id)}


def test_the_same_key_of_another_buyer_is_another_key(api, add_cart):
    cart, other = add_cart(), add_cart()

    assert (api.post(cart).status_code, api.post(other).status_code) == (201, 201)


# What became of a cart


def test_an_active_cart_reads_as_active_and_then_as_its_orders(either_api, add_cart):
    cart = add_cart()

    before = either_api.get(cart)
    converted = either_api.post(cart)
    after = either_api.get(cart)

    assert (before.status_code, after.status_code) == (200, 200)
    assert before.json()["status"] == "active"
    assert before.json()["totals"] == {
        "quoted": {
            "subtotal_cents": 4000,
            "discounts_cents": 0,
            "tax_cents": 0,
            "transport_fee_cents": 0,
            "total_cents": 4000,
        }
    }
    assert after.json() == converted.json() | {"replayed": True}
    assert "Idempotent-Replayed" not in after.headers
    assert before.headers["Cache-Control"] == after.headers["Cache-Control"] == "no-store"


def test_another_buyers_cart_is_a_404_like_one_that_does_not_exist(api, add_cart, nothing_written):
    cart, converted = add_cart(), add_cart()
    api.post(converted)

    for theirs in (cart, converted):
        unknown = {"cart_id": "ca000000-0000-4000-8000-00000000ffff"}
        token = headers(STRANGER)
        with nothing_written():
            posted = problem(api.post(theirs, more=token), 404, "cart_not_found")
            read = problem(api.get(theirs, buyer_store_id=STRANGER), 404, "cart_not_found")
            absent = problem(api.post(theirs, more=token, **unknown), 404, "cart_not_found")
        assert posted == read == absent | {"context": {"cart_id": str(theirs.id)}}


# The error table: each row


def expired(db, add_cart, serve):
    return serve(), add_cart(valid_for=-1), {}


def abandoned(db, add_cart, serve):
    db.execute("alter type cart_status add value 'abandoned'")
    return serve(), add_cart(cart={"status": "abandoned"}), {}


def unknown_cart(db, add_cart, serve):
    return serve(), add_cart(), {"cart_id": "ca000000-0000-4000-8000-00000000ffff"}


def empty_cart(db, add_cart, serve):
    return serve(), add_cart(vendors=0), {}


def barter(db, add_cart, serve):
    return serve(), add_cart(), {"payment_method": "barter"}


def bad_address(db, add_cart, serve):
    return serve(), add_cart(), {"shipping_address": ADDRESS | {"city": " "}}


def nul_in_the_address(db, add_cart, serve):
    return serve(), add_cart(), {"shipping_address": ADDRESS | {"city": "\0"}}


def key_of_another_request(db, add_cart, serve):
    api, cart = serve(), add_cart()
    api.post(cart)
    return api, cart, {"payment_method": "cash"}


def wrong_subtotal(db, add_cart, serve):
    return serve(), add_cart(groups={0: {"subtotal_cents": 1}}), {}


def rule_of_the_host(db, add_cart, serve):
    db.execute("alter table vendor_orders add constraint secret_rule check (total_cents < 5)")
    return serve(), add_cart(), {}


def deferred_rule_of_the_host(db, add_cart, serve):
    db.execute("create table secret_stores (id uuid primary key)")
    db.execute(
        "alter table vendor_orders add constraint secret_key foreign key (vendor_store_id) references secret_stores"
        " deferrable initially deferred"
    )
    return serve(), add_cart(), {}


def bad_token(db, add_cart, serve):
    return serve(ad_token_policy="error"), add_cart(ad_tokens=["no token"]), {}


def out_of_stock(db, add_cart, serve):
    return serve(reservation_policy="all"), add_cart(stock=3, quantity=4), {}


def other_writer(db, add_cart, serve):
    """A callback of the host's that quotes a converted cart again."""

    def shipping_line(store, request):
        raise pycheckout.SnapshotImmutable("cart is converted", sqlstate="OC009", detail={"cart_id": "c"})

    return serve(shipping_line=shipping_line), add_cart(), {"shipping_line": {"code": "x"}}


def locked_cart(db, add_cart, serve):
    cart = add_cart()
    db.execute("begin")
    db.execute("select from cart_records where id = %s for update", [cart.id])
    return serve(settings="-c lock_timeout=20ms"), cart, {}


def slow_database(db, add_cart, serve):
    cart = add_cart()
    db.execute("begin")
    db.execute("select from cart_records where id = %s for update", [cart.id])
    return serve(settings="-c statement_timeout=50ms"), cart, {}


def read_only_server(db, add_cart, serve):
    return serve(settings="-c default_transaction_read_only=on"), add_cart(), {}


def no_server(db, add_cart, serve):
    return serve("postgresql://user:secret@127.0.0.1:1/shop", pool=NOWHERE), add_cart(), {}


def no_functions(db, add_cart, serve):
    db.execute("alter function checkout_execute rename to secret_function")
    return serve(), add_cart(), {}


def no_right(db, add_cart, serve):
    # A role of the server's own, whom nobody granted anything.
    return serve(settings="-c role=pg_monitor"), add_cart(), {}


ABOUT = {"cart_id"}
ROWS = [
    (unknown_cart, 404, "cart_not_found", ABOUT),
    (abandoned, 409, "cart_not_active", ABOUT | {"status"}),
    (expired, 409, "cart_expired", ABOUT | {"valid_until", "now"}),
    (empty_cart, 409, "no_orderable_items", ABOUT),
    (barter, 422, "invalid_request", "payment_method"),
    (bad_address, 422, "invalid_request", "shipping_address.city"),
    (nul_in_the_address, 422, "invalid_request", None),
    (key_of_another_request, 422, "idempotency_key_reused", ABOUT | {"bound_cart_id"}),
    (wrong_subtotal, 409, "cart_inconsistent", ABOUT),
    (rule_of_the_host, 409, "cart_inconsistent", ABOUT),
    (deferred_rule_of_the_host, 409, "cart_inconsistent", ABOUT),
    (bad_token, 422, "ad_token_invalid", None),
    (other_writer, 409, "snapshot_immutable", ABOUT),
    (out_of_stock, 409, "insufficient_inventory", ABOUT | {"items"}),
    (locked_cart, 503, "busy", None),
    (slow_database, 503, "unavailable", None),
    (read_only_server, 503, "read_only_server", None),
    (no_server, 503, "unavailable", None),
    (no_functions, 500, "not_installed", None),
    (no_right, 500, "not_installed", None),
]


@pytest.mark.parametrize(("arrange", "status", "code", "told"), ROWS, ids=[row[0].__name__ for row in ROWS])
def test_each_error_has_its_status_and_its_code(db, add_cart, serve, arrange, status, code, told):
    api, cart, request = arrange(db, add_cart, serve)
    before = orders(db)

    refusal = problem(api.post(cart, **request), status, code)

    assert orders(db) == before
    if isinstance(told, str):
        assert [error["field"] for error in refusal["errors"]] == [told]
    else:
        assert refusal.get("context", {}).keys() == (told or set())
    assert not re.search("available_qty|secret|psycopg|postgres|public|[a-z]+_execute|127.0.0.1", json.dumps(refusal))
    db.execute("rollback")


def test_every_error_of_a_checkout_has_a_row_above():
    raised = re.findall(r"\w+", pycheckout.execute.__doc__.split("Raises")[1].split("all of them")[0])
    codes = {getattr(pycheckout, name).code for name in raised if name != "and"}

    assert len(codes) > 10
    assert codes <= {code for _, _, code, _ in ROWS}


def test_short_lines_are_named_without_what_is_left_of_them(serve, add_cart):
    cart = add_cart(vendors=1, lines=1, stock=3, quantity=4)

    told = problem(serve(reservation_policy="all").post(cart), 409, "insufficient_inventory")

    [item] = cart.items
    assert told["context"]["items"] == [
        {"cart_item_id": str(item.id), "product_id": str(item.product_id), "requested": 4}
    ]


def test_busy_asks_for_the_same_call_again_and_another_request_under_the_key_does_not(serve, connect, add_cart):
    """One is final and the other means wait: KeeperHub/keeperhub#1922."""
    api, cart = serve(settings="-c lock_timeout=50ms"), add_cart()
    with connect() as first:
        first.execute("select from cart_records where id = %s for update", [cart.id])
        waited = api.post(cart)
    told = problem(waited, 503, "busy")
    assert int(waited.headers["Retry-After"]) > 0 and "same key" in told["detail"]

    assert api.post(cart).status_code == 201
    problem(api.post(cart, payment_method="cash"), 422, "idempotency_key_reused")


def test_nothing_of_the_inside_is_in_a_500_and_the_log_has_it(serve, db, add_cart, caplog):
    db.execute("""
        create function fail() returns trigger language plpgsql as $$
        begin raise exception 'secret of the host' using detail = format('row %s', new); end $$;
        create trigger fail before update on cart_records for each row execute function fail()
    """)

    response = serve().post(add_cart(), key="a-key-to-keep")

    told = problem(response, 500, "internal_error")
    assert told.keys() == {"type", "title", "status", "code", "detail"}
    assert "secret" not in response.text + str(response.headers)
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.name == "pycheckout" and "RaiseException: secret of the host" in record.getMessage()
    assert not any(ADDRESS["line1"] in text or "a-key-to-keep" in text for text in (caplog.text, record.getMessage()))


SAYS = """
import sys
import web
asks = iter(sys.argv[2:])
with web.serving(web.app(sys.argv[1], buyer=lambda: next(asks))) as url:
    for _ in sys.argv[2:]:
        print(web.get(f"{url}/shop/checkout/{sys.argv[2]}").status_code)
"""


def test_a_500_is_on_standard_error_where_no_logging_is_configured_and_a_refusal_is_not(dsn):
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", SAYS, dsn, str(STRANGER), "no uuid"]

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.split() == ["404", "500"]
    # The refusal came first, and said nothing.
    assert done.stderr.startswith("a checkout route failed: ValueError: badly formed hexadecimal UUID string\n  File")
    assert "in buyer_store" in done.stderr and done.stderr.count("a checkout route") == 1


def test_an_error_goes_to_standard_error_only_if_no_handler_of_the_hosts_takes_it(monkeypatch):
    class Last(logging.NullHandler):
        def handle(self, record):
            said.append(record.getMessage())
            return True

    said, logger = [], logging.getLogger("pycheckout")
    heard, deaf = logging.StreamHandler(), logging.StreamHandler()
    deaf.setLevel(logging.CRITICAL)
    monkeypatch.setattr(logging, "lastResort", Last())
    monkeypatch.setattr(logger, "propagate", False)
    ours = list(logger.handlers)
    for others, expected in (
        ([], ["failed"]),
        ([logging.NullHandler()], ["failed"]),
        ([deaf], ["failed"]),
        ([heard], []),
        ([deaf, heard], []),
    ):
        monkeypatch.setattr(logger, "handlers", ours + others)
        said.clear()
        logger.error("failed")
        logger.warning("refused")
        assert said == expected, others
    monkeypatch.setattr(logger, "handlers", ours)
    monkeypatch.setattr(logging, "lastResort", None)
    logger.error("failed")


# Who the buyer is


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [(None, 401, "unauthorized"), ("nobody", 401, "unauthorized"), ("closed", 403, "forbidden")],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_is_not_a_buyer_gets_a_problem_of_the_same_kind(
    api, add_cart, nothing_written, method, token, status, code
):
    cart = add_cart()
    named = {name: value for name, value in headers(token, "k1").items() if token or name != "Authorization"}

    with nothing_written():
        if method == "POST":
            response = api.http.post("/checkout", json=body(cart), headers=named)
        else:
            response = api.http.get(f"/checkout/{cart.id}", headers=named)

    problem(response, status, code)
    assert ("WWW-Authenticate" in response.headers) == (status == 401)


def test_a_buyer_dependency_that_finds_nobody_is_a_401(serve, add_cart):
    response = serve(buyer=lambda: None).post(add_cart())

    problem(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"]


def test_a_buyer_dependency_may_answer_text_and_nonsense_from_it_is_not_the_clients_fault(serve, add_cart):
    cart = add_cart()

    assert serve(buyer=lambda: str(cart.buyer_store_id)).post(cart).status_code == 201
    problem(serve(buyer=lambda: "no uuid").post(cart), 500, "internal_error")


# Shipping


def test_a_price_of_the_buyers_is_refused(api, add_cart, nothing_written):
    cart = add_cart()

    with nothing_written():
        told = problem(api.post(cart, shipping_line={"code": "x", "price_cents": 1}), 422, "invalid_request")
    assert told["errors"] == [{"field": "shipping_line.price_cents", "problem": "is not a field of this request"}]


@pytest.mark.parametrize("kind", ["plain", "async", "mapping"])
def test_the_hosts_callback_makes_the_stored_shipping_line(serve, add_cart, kind):
    asked = []

    def line(store, request):
        asked.append((store, request.cart_id, request.shipping_line.code))
        return ShippingLine(code=request.shipping_line.code, title="Express", price_cents=990)

    async def line_async(store, request):
        return line(store, request)

    def line_mapping(store, request):
        line(store, request)
        return {"code": "express", "title": "Express", "price_cents": 990}

    api = serve(shipping_line={"plain": line, "async": line_async, "mapping": line_mapping}[kind])
    cart, other = add_cart(), add_cart()

    answer = api.post(cart, shipping_line={"code": "express"}).json()

    assert answer["shipping_line"] == {"code": "express", "title": "Express", "price_cents": 990}
    assert asked == [(cart.buyer_store_id, cart.id, "express")]
    assert api.post(other).json()["shipping_line"] is None
    assert len(asked) == 1


def test_a_callback_refuses_a_code_that_does_not_exist(serve, add_cart, nothing_written):
    def line(store, request):
        raise InvalidRequest("no such shipping", detail={"field": "shipping_line.code", "problem": "is not offered"})

    api, cart = serve(shipping_line=line), add_cart()
    with nothing_written():
        told = problem(api.post(cart, shipping_line={"code": "rocket"}), 422, "invalid_request")
    assert told["errors"] == [{"field": "shipping_line.code", "problem": "is not offered"}]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ({"code": "x", "price_cents": 1.5}, "shipping_line.price_cents must be a whole number"),
        ({"code": "x", "price": 1}, "shipping_line.price is not a field"),
        ("express", "shipping_line must be a JSON object"),
        ({"code": {"x"}}, "shipping_line cannot be written as JSON"),
    ],
)
def test_a_line_of_the_callbacks_that_cannot_be_stored_is_not_the_buyers_fault(
    serve, add_cart, nothing_written, caplog, line, says
):
    api, cart = serve(shipping_line=lambda store, request: line), add_cart()
    with nothing_written():
        problem(api.post(cart, shipping_line={"code": "x"}), 500, "internal_error")
    [record] = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert says in record.getMessage()


def test_a_title_of_the_buyers_that_the_callback_passes_on_is_the_buyers_to_correct(serve, add_cart, nothing_written):
    api = serve(shipping_line=lambda store, request: asdict(request.shipping_line) | {"price_cents": 990})
    cart = add_cart()
    with nothing_written():
        told = problem(api.post(cart, shipping_line={"code": "x", "title": "t" * 501}), 422, "invalid_request")
    assert [error["field"] for error in told["errors"]] == ["shipping_line.title"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"expires_in": 60},
        {"expires_in": timedelta(0)},
        {"expires_in": timedelta(days=367)},
        {"reservation_policy": "al"},
        {"reservation_policy": None},
        {"ad_token_policy": ["drop"]},
        {"timeout": "2"},
        {"schema": ""},
        {"schema": 7},
        {"max_body_bytes": "64k"},
    ],
    ids=str,
)
def test_an_argument_that_every_request_would_be_refused_for_is_refused_when_the_router_is_made(wrong):
    [name] = wrong
    for router, who in ((checkout_router, {"buyer": buyer}), (order_router, {"party": party}), (health_router, {})):
        if name in signature(router).parameters:
            with pytest.raises((TypeError, ValueError), match=f"^{name} must be"):
                router(pool=lambda: None, **who, **wrong)


# The body

NO_JSON = [b"", b"{", b"NaN", b'{"cart_id": NaN}', b"\xff", b"[" * 60_000, b"1" * 5_000, b"\0", b"{} {}", b"'k'"]
NO_CHECKOUT = [b"null", b"[]", b'"k"', b"5", b'{"cart_id": 7}', b'{"cart_id": "x"}']
NO_JSON_TYPE = [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonx", "application/xml"]


def test_a_body_that_is_no_json_is_a_400(api, add_cart, nothing_written):
    cart = add_cart()

    with nothing_written():
        for content in NO_JSON:
            problem(api.post_raw(cart, content), 400, "malformed_json")


def test_json_of_another_shape_is_a_422(api, add_cart, nothing_written):
    cart = add_cart()

    with nothing_written():
        for content in NO_CHECKOUT:
            assert problem(api.post_raw(cart, content), 422, "invalid_request")["errors"]


def test_a_422_says_what_postgresql_could_not_read(api, add_cart, nothing_written):
    """No function of ours is reached that could name the field: metadata has no schema to refuse it by."""
    cart = add_cart()

    with nothing_written():
        answer = api.post_raw(cart, json.dumps(body(cart, metadata={"note": "a\0b"})))

    said = r"holds \u0000, which PostgreSQL does not store"
    assert problem(answer, 422, "invalid_request")["errors"] == [{"field": "request", "problem": said}]


def test_a_body_that_does_not_say_it_is_json_is_a_415(api, add_cart, nothing_written):
    cart = add_cart()

    with nothing_written():
        for media_type in NO_JSON_TYPE:
            problem(api.post_raw(cart, json.dumps(body(cart)), media_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("media_type", ["application/json; charset=utf-8", "Application/JSON"])
def test_parameters_and_case_of_the_media_type_do_not_matter(api, add_cart, media_type):
    cart = add_cart()

    assert api.post_raw(cart, json.dumps(body(cart)), media_type).status_code == 201


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_above_the_limit_is_a_413_and_one_below_is_not(serve, add_cart, nothing_written, chunked):
    api, cart = serve(max_body_bytes=2_000), add_cart()

    def post(size):
        content = json.dumps(body(cart)).ljust(size).encode()
        parts = (content[at : at + 500] for at in range(0, size, 500))
        return api.post_raw(cart, parts if chunked else content)

    with nothing_written():
        problem(post(2_001), 413, "content_too_large")
        problem(post(1_000_000), 413, "content_too_large")
    assert post(2_000).status_code == 201


def test_a_thousand_wrong_fields_are_answered_briefly(api, add_cart):
    told = problem(api.post(add_cart(), **{f"field{n}" * 5: 1 for n in range(1_000)}), 422, "invalid_request")

    assert len(told["errors"]) == 20


# The host's other routes


def test_the_hosts_other_routes_answer_as_they_did(api):
    assert api.http.get(f"{api.url}/own/0").json() == {"detail": "no such number"}
    refused = api.http.get(f"{api.url}/own/x")
    assert (refused.status_code, list(refused.json())) == (422, ["detail"])
    assert api.http.get(f"{api.url}/nowhere").json() == {"detail": "Not Found"}


def test_a_method_that_is_not_there_is_a_problem_with_its_allow_header(api):
    response = api.http.delete("/checkout")
    problem(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == "POST"


def test_an_exception_that_the_host_handles_itself_stays_the_hosts(dsn):
    class NotLoggedIn(Exception):
        pass

    def buyer():
        raise NotLoggedIn

    host = app(dsn, buyer=buyer)

    @host.exception_handler(NotLoggedIn)
    async def log_in(request, exc):
        return RedirectResponse("/login")

    with serving(host) as url:
        assert get(f"{url}/shop/checkout/{STRANGER}").status_code == 307


@pytest.mark.parametrize("kind", [Exception, 500])
def test_a_handler_for_all_exceptions_gets_what_is_no_error_of_a_checkout(dsn, kind):
    class NotLoggedIn(Exception):
        pass

    asks = iter([STRANGER, NotLoggedIn()])

    def buyer():
        asked = next(asks)
        if isinstance(asked, Exception):
            raise asked
        return asked

    host = app(dsn, buyer=buyer)

    @host.exception_handler(kind)
    async def failed(request, exc):
        return JSONResponse({"failed": type(exc).__name__}, 500)

    with serving(host) as url:
        problem(get(f"{url}/shop/checkout/{STRANGER}"), 404, "cart_not_found")
        assert get(f"{url}/shop/checkout/{STRANGER}").json() == {"failed": "NotLoggedIn"}


def test_problem_types_stand_under_a_base_of_the_hosts(serve, add_cart):
    response = serve(problem_base="https://shop.example/problems/").post(add_cart(), key=None)

    assert response.json()["type"] == "https://shop.example/problems/idempotency_key_required"


def test_a_pool_that_is_no_dependency_is_taken_as_it_is(pool, add_cart):
    host = FastAPI()
    host.include_router(checkout_router(buyer=buyer, pool=pool), prefix="/shop")
    with serving(host) as url:
        assert Api(url).post(add_cart()).status_code == 201


def no_pools(dsn):
    """What is no pool, made by a dependency or by the host, with what an error calls it."""

    def connection():
        with psycopg.connect(dsn) as conn:
            yield conn

    async def async_connection():
        async with await psycopg.AsyncConnection.connect(dsn) as conn:
            yield conn

    def session():
        with Session(create_engine(alchemy(dsn))) as session:
            yield session

    async def async_session():
        async with AsyncSession(create_async_engine(alchemy(dsn))) as session:
            yield session

    return {
        "psycopg.Connection": connection,
        "psycopg.AsyncConnection": async_connection,
        "sqlalchemy.orm.session.Session": session,
        "sqlalchemy.ext.asyncio.session.AsyncSession": async_session,
        "builtins.NoneType": lambda: None,
    }


def market_of(calls, dependency):
    def market(found: Annotated[Any, Depends(dependency)]):
        return calls(found)

    return market


def found_pool():
    raise NotImplementedError  # a host overrides it, as it does the next one


def found_market():
    raise NotImplementedError


def alchemy(dsn):
    return dsn.replace("postgresql://", "postgresql+psycopg://", 1)


def test_a_dependency_that_answers_no_pool_is_a_500_that_says_so_and_orders_nothing(
    dsn, add_cart, nothing_written, caplog
):
    """Such as a Session of get_db, which would be closed without a commit after a 201."""
    cart, host = add_cart(), FastAPI()
    for prefix, given in (("/pool", {"pool": found_pool}), ("/market", {"market": found_market})):
        host.include_router(checkout_router(buyer=buyer, **given), prefix=prefix)
        host.include_router(order_router(party=party, **given), prefix=prefix)
        host.include_router(health_router(**given), prefix=prefix)
    named = headers(cart.buyer_store_id, "k1")
    with serving(host) as url, nothing_written(), httpx.Client(base_url=url, headers=named, verify=NO_TLS) as client:
        for kind, dependency in no_pools(dsn).items():
            market = market_of(AsyncCheckout if "Async" in kind else Checkout, dependency)
            host.dependency_overrides = {found_pool: dependency, found_market: market}
            for prefix in ("/pool", "/market"):
                caplog.clear()
                for answer in (
                    client.post(f"{prefix}/checkout", json=body(cart)),
                    client.get(f"{prefix}/checkout/{cart.id}"),
                    client.get(f"{prefix}/orders"),
                    client.get(f"{prefix}/readyz"),
                ):
                    problem(answer, 500, "internal_error")
                said = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
                assert len(said) == 4 and all(
                    f"must be a psycopg pool (ConnectionPool, AsyncConnectionPool), not {kind}" in each for each in said
                )


def test_what_is_no_pool_is_refused_when_the_router_is_made(dsn, db):
    session = Session(create_engine(alchemy(dsn)))
    for no_pool in (db, session, scoped_session(lambda: session), dsn):
        for router, who in ((checkout_router, {"buyer": buyer}), (order_router, {"party": party}), (health_router, {})):
            with pytest.raises(TypeError, match=f"not {type(no_pool).__module__}.{type(no_pool).__name__}"):
                router(pool=no_pool, **who)


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_health_that_may_take_for_ever_is_told(pool):
    host = FastAPI()
    host.include_router(health_router(pool=pool, timeout=float("inf")))
    with serving(host) as url:
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200


def test_a_market_is_asked_for_its_health_too(pool):
    async def market(market: str):
        if market != "ok":
            raise pycheckout.UnknownMarket("there is no such market")
        return Checkout(pool)

    host = FastAPI()
    host.include_router(health_router(market=market))
    with serving(host) as url, httpx.Client(base_url=url, verify=NO_TLS) as http:
        assert http.get("/livez").status_code == 200
        assert http.get("/readyz", params={"market": "ok"}).json()["standby"] is False
        problem(http.get("/readyz", params={"market": "xx"}), 404, "unknown_market")
    with pytest.raises(TypeError, match="pool or market"):
        health_router()


def test_the_request_id_is_in_the_log_record(either_api, add_cart, caplog):
    caplog.set_level(logging.INFO, logger="pycheckout")
    cart = add_cart()

    either_api.post(cart, more={"X-Request-ID": "req-7"})
    either_api.http.get(f"/checkout/{cart.id}", headers=headers(cart.buyer_store_id) | {"X-Request-ID": "r" * 5_000})

    posted, read = (record for record in caplog.records if record.name == "pycheckout")
    assert (posted.request_id, posted.cart_id, posted.outcome) == ("req-7", str(cart.id), "complete")
    assert read.request_id == "r" * 128


# Races and broken lines


@pytest.mark.parametrize("keys", ["one key", "a key each"])
def test_fifty_posts_of_one_cart_at_once_make_one_set_of_orders(either_api, db, add_cart, keys):
    """A double click, a proxy's retry, two tabs: woocommerce/woocommerce#62659."""
    cart = add_cart(vendors=2, lines=[2, 1])

    answers = at_once(
        *(lambda n=n: either_api.post(cart, key=f"k{n if keys == 'a key each' else ''}") for n in range(50))
    )

    assert sorted(answer.status_code for answer in answers) == [200] * 49 + [201]
    [first] = [answer.json() for answer in answers if answer.status_code == 201]
    assert all(answer.json() == first | {"replayed": True} for answer in answers if answer.status_code == 200)
    assert orders(db) == 2
    assert values(db, "select count(*) from outbox_events") == [2]


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_client_that_hangs_up_in_the_middle_gets_the_orders_with_its_retry(serve, db, connect, add_cart, kind):
    api, cart = serve(kind=kind), add_cart()
    request = httpx.Request(
        "POST", f"{api.url}/shop/checkout", json=body(cart), headers=headers(cart.buyer_store_id, "k1")
    )
    lines = [b"POST /shop/checkout HTTP/1.1", *(b": ".join(header) for header in request.headers.raw)]

    with connect() as holder:
        holder.execute("select from cart_records where id = %s for update", [cart.id])
        with socket.create_connection(api.address) as client:
            client.sendall(b"\r\n".join(lines) + b"\r\n\r\n" + request.content)
            wait_for_waiter(db, holder.info.backend_pid)
        with ThreadPoolExecutor(1) as threads:
            retry = threads.submit(api.post, cart)
            holder.rollback()
            answer = retry.result(timeout=20)

    assert answer.status_code in (200, 201) and answer.json()["outcome"] == "complete"
    assert orders(db) == 2
    assert api.post(cart).json() == answer.json() | {"replayed": True}


def test_a_client_that_hangs_up_before_its_body_is_whole_orders_nothing(api, add_cart, nothing_written):
    cart = add_cart()
    lines = [
        "POST /shop/checkout HTTP/1.1",
        "Host: shop",
        "Content-Type: application/json",
        "Content-Length: 900",
        "",
        "{",
    ]

    with nothing_written():
        with socket.create_connection(api.address) as client:
            client.sendall("\r\n".join(lines).encode())
        assert api.get(cart).json()["status"] == "active"
    assert api.post(cart).status_code == 201


STARTS = """
import sys, warnings
import web
warnings.simplefilter("error")
for kind in ["async", "sync"] * 5:
    with web.serving(web.app(sys.argv[1], kind=kind, pool={"min_size": 2})) as url:
        answer = web.get(f"{url}/shop/checkout/{sys.argv[2]}", headers=web.headers(sys.argv[2]))
        print(answer.status_code)
"""


def test_a_host_starts_and_stops_five_times_without_a_warning(dsn):
    """A pool that is opened in the constructor warns, or fails: fraiseql/fraiseql-python#9, psycopg/psycopg#1131."""
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "PYTHONDEVMODE": "1"}
    command = [sys.executable, "-c", STARTS, dsn, str(STRANGER)]

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    assert (done.stdout.split(), done.stderr) == (["404"] * 10, "")


# The OpenAPI document


@pytest.fixture(scope="module")
def document():
    return json.loads(json.dumps(app("").openapi()))


def examples(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                for media_type, content in response["content"].items():
                    for name, example in content["examples"].items():
                        yield f"{method} {path} {status} {name}", media_type, content["schema"], example["value"]


def test_every_status_has_an_example_that_its_schema_allows(document):
    shown = {what: value for what, *_, value in examples(document)}
    statuses = {what.rpartition(" ")[0] for what in shown}

    post, get = "post /shop/checkout", "get /shop/checkout/{cart_id}"
    assert statuses == {f"{post} {s}" for s in (200, 201, 400, 401, 403, 404, 409, 413, 415, 422, 500, 503)} | {
        f"{get} {s}" for s in (200, 401, 403, 404, 422, 500, 503)
    }
    for what, media_type, schema, value in examples(document):
        jsonschema.validate(value, schema | {"components": document["components"]})
        problem_like = not what.split()[2].startswith("2")
        assert media_type == ("application/problem+json" if problem_like else "application/json")
        assert not problem_like or str(value["status"]) == what.split()[2]


def test_the_examples_are_what_the_service_answers(document, api, db):
    [request] = [document["paths"]["/shop/checkout"]["post"]["requestBody"]["content"]["application/json"]["example"]]
    shown = {what: value for what, *_, value in examples(document)}
    converted = shown["post /shop/checkout 201 converted"]
    active = shown["get /shop/checkout/{cart_id} 200 active"]
    [order] = converted["vendor_orders"]
    [line] = order["items"]
    pycheckout.put_cart(
        db,
        {
            "id": request["cart_id"],
            "buyer_store_id": converted["buyer_store_id"],
            "currency": "USD",
            "valid_until": "2999-01-01T00:00:00Z",
            "vendor_groups": [
                {
                    "id": order["order_id"],
                    "vendor_store_id": order["vendor_store_id"],
                    "subtotal_cents": 2000,
                    "total_cents": 2260,
                    "shipping_cents": 100,
                    "shipping_line": order["vendor_shipping_line"],
                    "minimum_cents": 1500,
                    "items": [
                        {
                            "id": line["line_item_id"],
                            "product_id": line["product_id"],
                            "title": line["name"],
                            "category": line["category"],
                            "unit": line["unit"],
                            "quantity": 5,
                            "unit_price_cents": 400,
                            "line_subtotal_cents": 2000,
                            "tax_cents": 160,
                            "tax_lines": line["tax_lines"],
                        }
                    ],
                }
            ],
        },
    )
    db.execute("select inventory_set(%s, 5)", [line["product_id"]])
    named = headers(converted["buyer_store_id"], "k1")

    before = api.http.get(f"/checkout/{request['cart_id']}", headers=named).json()
    answer = api.http.post("/checkout", json=request, headers=named).json()

    assert without_nulls(before | {"valid_until": active["valid_until"]}) == active
    answer["vendor_orders"][0]["order_number"] = order["order_number"]
    made = {"checkout_group_id", "converted_at"}
    assert without_nulls(answer | {name: converted[name] for name in made}) == converted


def without_nulls(value):
    """As FastAPI writes examples."""
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return value


def test_the_description_of_the_request_is_that_of_the_dto(document):
    request = document["components"]["schemas"]["CheckoutRequest"]
    [key] = [p for p in document["paths"]["/shop/checkout"]["post"]["parameters"] if p["in"] == "header"]

    assert set(request["required"]) == {"cart_id", "shipping_address", "payment_method"}
    assert set(request["properties"]) == set(request["required"]) | {
        *("shipping_line", "billing_address", "purchase_order", "metadata")
    }
    assert request["additionalProperties"] is False
    assert (key["name"], key["required"]) == ("Idempotency-Key", True)


def search(api, cart, *options):
    done = schemathesis(api.url, cart.buyer_store_id, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 selected / 2 total" in done.stdout


def test_schemathesis_finds_nothing(api, db, add_cart, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cart = add_cart(cart_id=UUID("22222222-2222-4222-8222-222222222222"))  # the cart of the examples

    search(api, cart, "--phases", "examples,coverage,fuzzing", "--max-examples", "15")

    assert values(db, "select status::text from cart_records") == ["converted"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_schemathesis_finds_nothing_in_a_long_search(api, db, add_cart, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cart = add_cart(cart_id=UUID("22222222-2222-4222-8222-222222222222"))

    search(api, cart, "--max-examples", "200")

    assert values(db, "select status::text from cart_records") == ["converted"]
