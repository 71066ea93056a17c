"""What goes into the wrapper and what comes out, whatever the host did to its connection."""

import json
import logging
import subprocess
import sys
from collections import UserDict
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.adapt import Loader
from psycopg.rows import args_row, class_row, dict_row, namedtuple_row, scalar_row, tuple_row
from psycopg.types.json import set_json_loads

import pycheckout
from factories import ADDRESS
from pycheckout import (
    ActiveCart,
    CartInconsistent,
    CartNotFound,
    CheckoutResult,
    InvalidRequest,
    NotInstalled,
    SnapshotImmutable,
)
from pycheckout._types import build


def test_result_is_typed(db, add_cart, checkout):
    cart = add_cart(vendors=2, lines=2)
    result = checkout(db, cart, shipping_line={"code": "ground", "title": "Ground", "price_cents": 499})

    assert (result.status, result.outcome, result.replayed) == ("converted", "complete", False)
    assert (result.cart_id, result.buyer_store_id) == (cart.id, cart.buyer_store_id)
    assert isinstance(result.checkout_group_id, UUID)
    assert result.converted_at.utcoffset() is not None
    assert abs(result.converted_at - datetime.now(UTC)).total_seconds() < 60
    assert result.shipping_address["city"] == ADDRESS["city"]
    assert result.shipping_line == pycheckout.ShippingLine(code="ground", title="Ground", price_cents=499)
    assert result.totals.quoted.total_cents == result.totals.confirmed.total_cents == 4000
    assert [order.vendor_store_id for order in result.vendor_orders] == cart.vendors
    for order in result.vendor_orders:
        assert isinstance(order.order_id, UUID)
        assert order.payment_intent.amount_cents == order.total_cents == sum(i.total_cents for i in order.items)
    assert result.rejected_vendors == ()


def test_result_holds_all_that_the_database_answers(db, add_cart, checkout, checkout_sql):
    cart = add_cart(
        vendors=2, lines=2, promo_cents=100, amounts="gross", line_discount_cents=50, groups={1: {"status": "invalid"}}
    )
    first = checkout(db, cart)
    answer = checkout_sql(db, cart)

    assert replace(first, replayed=True) == build(CheckoutResult, answer)
    assert json_keys(answer) <= keys(first)
    said_of_nothing_more = {
        *(".billing_address", ".purchase_order", ".metadata", ".tax_included"),
        *(
            f".totals.{kind}.{name}"
            for kind in ("quoted", "confirmed")
            for name in ("tax_cents", "transport_fee_cents")
        ),
        *(
            f".vendor_orders.{name}_cents"
            for name in ("tax", "transport_fee", "shipping_tax", "adjustments", "refund_due")
        ),
        *(f".vendor_orders.{name}" for name in ("tax_included", "vendor_shipping_line", "expires_at")),
        *(f".vendor_orders.payment_intent.{name}" for name in ("payment_terms", "due_at")),
        *(f".vendor_orders.items.{name}" for name in ("tax_cents", "tax_lines", "left_qty", "left_cents")),
        *(f".vendor_orders.items.{name}_qty" for name in ("reserved", "fulfilled", "released", "returned")),
    }
    assert keys(first) - json_keys(answer) == said_of_nothing_more


def keys(value) -> set[str]:
    """The names of all fields that hold something, as paths."""
    return set(_paths(value, lambda v: ((f.name, getattr(v, f.name)) for f in fields(v)) if is_dataclass(v) else None))


def json_keys(value) -> set[str]:
    return set(_paths(value, lambda v: v.items() if isinstance(v, dict) else None))


def _paths(value, members, path=""):
    if isinstance(value, list | tuple):
        for element in value:
            yield from _paths(element, members, path)
    elif path.endswith(".shipping_address"):
        yield path
    elif (pairs := members(value)) is not None:
        for name, member in pairs:
            yield f"{path}.{name}"
            yield from _paths(member, members, f"{path}.{name}")


def test_nothing_is_known_to_be_given_back_before_a_payment(db, add_cart, checkout):
    """As docs/payments.md says, and SQL."""
    calls = pycheckout.Checkout(db)
    [order, *_] = checkout(db, add_cart()).vendor_orders
    read = calls.orders.get(order.order_id, vendor_store_id=order.vendor_store_id)
    adjusted = calls.orders.adjust(order.order_id, 5, reason="a bag", change_key="c1")
    assert [each.refund_due_cents for each in (order, read, adjusted)] == [None, None, None]

    paid = calls.payments.record(
        order.order_id, provider="p", provider_event_id="e1", kind="captured", amount_cents=1, currency="USD"
    )
    read = calls.orders.get(order.order_id, vendor_store_id=order.vendor_store_id)
    assert (paid.refund_due_cents, read.refund_due_cents) == (0, 0)


def test_unknown_keys_and_enum_values_of_a_newer_database_are_accepted(db, add_cart, checkout, checkout_sql):
    cart = add_cart()
    result = checkout(db, cart)
    answer = checkout_sql(db, cart)
    answer |= {"gift": {"wrap": True}, "outcome": "postponed"}
    answer["vendor_orders"][0] |= {"route": [1, 2], "status": "teleported"}
    answer["vendor_orders"][0]["items"][0] |= {"colour": "red"}

    newer = build(CheckoutResult, answer)

    assert (newer.outcome, newer.vendor_orders[0].status) == ("postponed", "teleported")
    assert newer.vendor_orders[1:] == result.vendor_orders[1:]


def test_odd_warnings_of_a_host_do_not_hide_a_committed_checkout(db, add_cart, checkout, checkout_sql):
    cart = add_cart()
    checkout(db, cart)
    answer = checkout_sql(db, cart)
    answer["vendor_orders"][0]["warnings"] = ["a bare text", {"message": "no type"}, None]
    answer["vendor_orders"][1]["warnings"] = None
    answer["vendor_orders"][0]["promo"] = {"code": "P"}

    first, second = build(CheckoutResult, answer).vendor_orders

    assert first.warnings == (pycheckout.CheckoutWarning(message="no type"),)
    assert first.promo == pycheckout.Promo(code="P")
    assert second.warnings == ()


@pytest.mark.parametrize(
    "row_factory",
    [tuple_row, dict_row, namedtuple_row, scalar_row, class_row(dict), args_row(lambda *values: len(values))],
)
@pytest.mark.parametrize(
    "cursor_factory",
    [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor, type("Traced", (psycopg.RawCursor,), {})],
)
def test_any_row_and_cursor_factory(connect, add_cart, checkout, row_factory, cursor_factory):
    cart = add_cart()
    with connect(autocommit=True, row_factory=row_factory, cursor_factory=cursor_factory) as conn:
        assert checkout(conn, cart).outcome == "complete"
        assert pycheckout.result(conn, buyer_store_id=cart.buyer_store_id, cart_id=cart.id).outcome == "complete"
        assert conn.row_factory is row_factory


def test_call_goes_through_the_hosts_cursor_class(connect, add_cart, checkout):
    """Tracing hooks in there."""
    queries = []

    class Traced(psycopg.Cursor):
        def execute(self, query, *args, **kwargs):
            queries.append(query)
            return super().execute(query, *args, **kwargs)

    checkout(connect(autocommit=True, cursor_factory=Traced), add_cart())

    [query] = queries
    assert "checkout_execute" in query


@pytest.mark.parametrize("prepare_threshold", [None, 0, 5])
def test_any_prepare_threshold(connect, add_cart, checkout, prepare_threshold):
    cart = add_cart()
    conn = connect(autocommit=True, prepare_threshold=prepare_threshold)

    results = [checkout(conn, cart, key=f"k{n}") for n in range(8)]

    assert len({result.checkout_group_id for result in results}) == 1
    prepared = conn.execute(
        "select count(*) from pg_prepared_statements where statement ~ '^select checkout'"
    ).fetchone()
    assert prepared == ((0,) if prepare_threshold is None else (1,))


def test_loaders_of_the_host_do_not_touch_the_answer(connect, add_cart, checkout):
    class Shout(Loader):
        def load(self, data):
            return bytes(data).decode().upper()

    conn = connect(autocommit=True)
    set_json_loads(lambda text: {"mine": True}, conn)
    for name in ("text", "uuid", "timestamptz"):
        conn.adapters.register_loader(name, Shout)

    assert checkout(conn, add_cart()).outcome == "complete"
    assert conn.execute("select 'a'::text, '{}'::jsonb").fetchone() == ("A", {"mine": True})


@pytest.mark.parametrize("client_encoding", ["utf8", "latin1", "sql_ascii"])
def test_any_client_encoding(connect, add_cart, checkout, client_encoding):
    conn = connect(autocommit=True, client_encoding=client_encoding)

    result = checkout(conn, add_cart(), shipping_address=ADDRESS | {"city": "Orléans"})

    assert result.shipping_address["city"] == "Orléans"


class Method(Enum):
    ACH = "ach"


class StrMethod(str, Enum):  # noqa: UP042  (older code has these)
    ELECTRONIC = "ach"


class ForeignUUID:
    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text


def test_arguments_may_come_in_many_types(db, add_cart, checkout):
    cart = add_cart()
    first = checkout(db, cart, shipping_line={"code": "g", "price_cents": 3_000_000_000})
    same = {"shipping_line": {"code": "g", "title": None, "price_cents": Decimal("3e9")}}

    for arguments in (
        {"buyer_store_id": str(cart.buyer_store_id), "cart_id": str(cart.id).upper()},
        {"buyer_store_id": ForeignUUID(str(cart.buyer_store_id))},
        {"payment_method": StrMethod.ELECTRONIC},
        {"shipping_address": UserDict(ADDRESS)},
        {"shipping_address": ADDRESS | {"lat": Decimal(str(ADDRESS["lat"]))}},
        {"shipping_line": first.shipping_line},
    ):
        assert checkout(db, cart, **(same | arguments)) == replace(first, replayed=True)

    assert checkout(db, add_cart(), shipping_line=None).shipping_line is None


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"line1": value}
    return value


BAD = [
    {"buyer_store_id": "no uuid"},
    {"buyer_store_id": None},
    {"cart_id": 1},
    {"cart_id": 40_000},
    {"cart_id": Decimal("3e9")},
    {"cart_id": {}},
    {"cart_id": "x" * 10_000_000},
    {"cart_id": "a\0b"},
    {"idempotency_key": None},
    {"idempotency_key": ""},
    {"idempotency_key": "a\0b"},
    {"idempotency_key": "a\ud800b"},
    {"idempotency_key": "k" * 10_000_000},
    {"idempotency_key": b"k"},
    {"idempotency_key": 7},
    {"payment_method": "shells"},
    {"payment_method": Method.ACH},
    {"payment_method": None},
    {"ad_token_policy": "keep"},
    {"reservation_policy": None},
    {"shipping_address": None},
    {"shipping_address": []},
    {"shipping_address": "{}"},
    {"shipping_address": {}},
    {"shipping_address": ADDRESS | {"line1": "a\0b"}},
    {"shipping_address": ADDRESS | {"line1": "a\ud800b"}},
    {"shipping_address": ADDRESS | {"line1": "x" * 10_000_000}},
    {"shipping_address": ADDRESS | {"line1": object()}},
    {"shipping_address": ADDRESS | {"line1": {1, 2}}},
    {"shipping_address": ADDRESS | {("a", "b"): 1}},
    {"shipping_address": ADDRESS | {"lat": float("nan")}},
    {"shipping_address": ADDRESS | {"lat": float("inf")}},
    {"shipping_address": ADDRESS | {"lat": Decimal("nan")}},
    {"shipping_address": ADDRESS | {"lat": Decimal("snan")}},
    {"shipping_address": ADDRESS | {"lat": Decimal("1e1000000")}},
    {"shipping_address": nested(500)},
    {"shipping_address": nested(100_000)},
    {"shipping_line": "ground"},
    {"shipping_line": {"code": "g", "price_cents": 1.5}},
]


def test_bad_input_is_an_invalid_request(postgresql, add_cart, checkout, snapshot):
    cart = add_cart()
    before = snapshot(postgresql)

    for arguments in BAD:
        with pytest.raises(InvalidRequest), postgresql.transaction():
            checkout(postgresql, cart, **arguments)

    assert snapshot(postgresql) == before


def test_what_cannot_be_sent_leaves_the_callers_transaction_alone(postgresql, add_cart, checkout):
    cart = add_cart()
    postgresql.execute("select 1")
    for arguments in (
        {"idempotency_key": "a\0b"},
        {"payment_method": "\udfff"},
        {"shipping_line": {"code": object()}},
        {"shipping_address": ADDRESS | {"lat": float("nan")}},
    ):
        with pytest.raises(InvalidRequest) as caught:
            checkout(postgresql, cart, **arguments)
        assert caught.value.detail["field"] == next(iter(arguments))

    assert checkout(postgresql, cart).outcome == "complete"


def test_errors_keep_code_detail_and_cause(db, checkout, add_cart):
    with pytest.raises(CartNotFound) as caught:
        checkout(db, add_cart(), cart_id=uuid4())

    error = caught.value
    assert error.sqlstate == "OC001"
    assert error.detail
    assert isinstance(error.__cause__, psycopg.Error)
    assert error.message == error.__cause__.diag.message_primary


def test_errors_that_are_not_ours_pass_through(db, add_cart, checkout):
    db.execute("""
        create function broken() returns trigger language plpgsql as $$ begin return 1 / 0; end $$;
        create trigger broken before insert on payment_intents for each row execute function broken()
    """)
    with pytest.raises(psycopg.errors.DivisionByZero):
        checkout(db, add_cart())


# result


def test_result_tells_what_became_of_a_cart(db, add_cart, checkout):
    cart = add_cart()
    active = pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=str(cart.id))
    first = checkout(db, cart)
    converted = pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id)

    assert isinstance(active, ActiveCart)
    assert (active.status, active.cart_id, active.currency) == ("active", cart.id, "USD")
    assert active.valid_until > datetime.now(UTC)
    assert active.totals.quoted == first.totals.quoted
    assert converted == replace(first, replayed=converted.replayed)
    with pytest.raises(CartNotFound):
        pycheckout.result(db, buyer_store_id=uuid4(), cart_id=cart.id)


def test_quote_without_end_is_readable(db, add_cart):
    cart = add_cart(cart={"valid_until": "infinity"})

    assert pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id).valid_until is None


# put_cart


def quote(**changes):
    """A quote of one vendor with one line, as a host's code has it: with UUIDs, datetimes and enums of its own."""
    item = {"product_id": uuid4(), "title": "Rice", "quantity": 2, "unit_price_cents": 250, "line_subtotal_cents": 500}
    group = {"vendor_store_id": uuid4(), "subtotal_cents": 500, "total_cents": 450, "items": [item]}
    cart = {"id": uuid4(), "buyer_store_id": uuid4(), "currency": "EUR", "vendor_groups": [group]}
    return cart | {"valid_until": datetime.now(UTC) + timedelta(hours=1)} | changes


def test_put_cart_writes_a_quote_that_can_be_ordered(db, add_stock, caplog):
    caplog.set_level(logging.INFO, logger="pycheckout")
    cart = quote()
    add_stock(cart["vendor_groups"][0]["items"][0]["product_id"], 10)

    active = pycheckout.put_cart(db, cart, request_id="r-1")

    assert active == pycheckout.result(db, buyer_store_id=cart["buyer_store_id"], cart_id=cart["id"])
    assert (active.status, active.valid_until) == ("active", cart["valid_until"])
    assert active.totals.quoted == pycheckout.Amounts(subtotal_cents=500, discounts_cents=50, total_cents=450)
    assert (caplog.records[0].operation, caplog.records[0].cart_id) == ("quotes.put", str(cart["id"]))

    result = pycheckout.execute(
        db,
        buyer_store_id=cart["buyer_store_id"],
        cart_id=cart["id"],
        idempotency_key="k1",
        shipping_address=ADDRESS,
        payment_method="ach",
    )
    assert result.totals.confirmed == active.totals.quoted
    with pytest.raises(SnapshotImmutable):
        pycheckout.put_cart(db, cart)


def test_put_cart_refuses_contradictions_at_quote_time(db):
    with pytest.raises(CartInconsistent) as caught:
        pycheckout.put_cart(db, quote(total_cents=449))

    assert (caught.value.detail["expected"], caught.value.detail["found"]) == (450, 449)


@pytest.mark.parametrize(
    "cart", [None, [], {}, "{}", quote(valid_until=datetime(2030, 1, 1)), quote(colour="red"), quote(currency=object())]
)
def test_put_cart_refuses_what_is_no_quote(db, cart):
    with pytest.raises(InvalidRequest):
        pycheckout.put_cart(db, cart)


# What conn may be


@pytest.mark.parametrize(
    "conn", [None, "postgresql://", object(), type("Session", (), {"connection": print, "execute": print})()]
)
def test_other_things_than_connections_are_refused(add_cart, checkout, conn):
    with pytest.raises(TypeError, match=r"psycopg\.Connection or a pool"):
        checkout(conn, add_cart())


def test_import_needs_psycopg_alone():
    """yoyo is loaded by the first migrate; nothing of the extras ever is."""
    code = """
import sys
from importlib.metadata import packages_distributions
import pycheckout, pycheckout._migrate
owners = packages_distributions()
loaded = {owner for name in sys.modules for owner in owners.get(name.partition(".")[0], ())}
extra = loaded - {"pycheckout", "psycopg", "psycopg-c", "psycopg-binary", "typing_extensions"}
assert not extra, extra
"""
    subprocess.run([sys.executable, "-S", "-c", _SITE + code], check=True, cwd=Path(__file__).parents[1])


@pytest.mark.parametrize(
    ("missing", "code", "extra"),
    [
        ("fastapi", "import pycheckout.http", "http"),
        ("pydantic", "import pycheckout.http", "http"),
        ("sqlalchemy", "import pycheckout.sqlalchemy", "alembic"),
        ("sqlalchemy", "import pycheckout.alembic", "alembic"),
        ("django", "import pycheckout.django.models", "django"),
        ("faststream", "from pycheckout.relay import Relay; Relay('', 'redis://127.0.0.1')", "relay"),
        ("redis", "from pycheckout.relay import Relay; Relay('', 'redis://127.0.0.1')", "relay"),
        ("psycopg_pool", "Markets({'a': A})['a'].audit()", "pool"),
        ("psycopg_pool", "import asyncio; asyncio.run(Markets({'a': A}).async_['a'].audit())", "pool"),
        ("psycopg_pool", "next(pycheckout.testing.pycheckout_pool.__wrapped__(''))", "pool"),
        ("psycopg_pool", "next(pycheckout.testing.pycheckout_async_pool.__wrapped__(''))", "pool"),
    ],
)
def test_what_is_missing_is_told_with_the_extra_that_brings_it(missing, code, extra):
    setup = f"""
import sys
sys.modules[{missing!r}] = None
import pycheckout.testing
from pycheckout.markets import Market, Markets
A = Market(name='a', server='s', database='postgresql://127.0.0.1', schema='a')
try:
    {code}
except ModuleNotFoundError as exc:
    print(exc.name, exc)
"""
    told = subprocess.run([sys.executable, "-c", setup], capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert told.stdout.startswith(f"{missing} "), told.stderr
    assert told.stdout.rstrip().endswith(f"pip install 'pycheckout[{extra}]'")


# With -S, no .pth file loads modules of its own.
_SITE = f"import sys; sys.path += {sys.path!r}\n"


# Releases


def test_database_without_pycheckout(empty_database, add_cart, checkout):
    cart = add_cart()
    says = r"not installed in this database.*`pycheckout migrate`"
    with psycopg.connect(empty_database(), autocommit=True) as conn, pytest.raises(NotInstalled, match=says) as caught:
        checkout(conn, cart)
    assert caught.value.sqlstate == "42883"
    assert "pass schema=" in caught.value.hint
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedFunction)


@pytest.mark.parametrize(
    "call",
    [lambda calls: calls.stock.levels([uuid4()]), lambda calls: calls.outbox.backlog()],
    ids=["a function", "a view"],
)
def test_a_schema_that_was_forgotten_is_named(empty_database, call):
    """`pycheckout migrate` would install a second one in public."""
    with psycopg.connect(empty_database(), autocommit=True) as conn:
        conn.execute("create schema checkout")
        conn.execute("create function checkout.checkout_version() returns int language sql as 'select 1'")
        with pytest.raises(NotInstalled, match="it is in schema checkout") as caught:
            call(pycheckout.Checkout(conn))
        assert caught.value.hint == "Pass schema='checkout', or put it on the search_path."

        conn.execute('alter schema checkout rename to "it\'s"; create schema two')
        conn.execute("create function two.checkout_version() returns int language sql as 'select 1'")
        with pytest.raises(NotInstalled, match="it is in schema it's, two") as caught:
            call(pycheckout.Checkout(conn))
        assert 'schema="it\'s"' in caught.value.hint


@pytest.mark.parametrize("call", [lambda calls: calls.stock.levels([uuid4()]), lambda calls: calls.outbox.backlog()])
def test_a_schema_that_is_not_there_has_a_remedy(db, call):
    with pytest.raises(NotInstalled) as caught:
        call(pycheckout.Checkout(db, schema="nowhere"))
    assert caught.value.sqlstate in ("3F000", "42P01") and "pass schema=" in caught.value.hint


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("0.0.9", "has pycheckout 0.0.9 and .*`pycheckout migrate` is due"),
        ("99.0", "has pycheckout 99.0.*upgrade the package"),
    ],
)
@pytest.mark.breaks_invariants
def test_database_of_another_release(db, pool, add_cart, checkout, version, says):
    cart = add_cart()
    db.execute("drop function checkout_execute")
    db.execute(
        "create or replace function checkout_version() returns jsonb language sql as "
        f"""$$ select '{{"version": "{version}", "hash": ""}}'::jsonb $$"""
    )
    for conn in (db, pool):
        with pytest.raises(NotInstalled, match=says):
            checkout(conn, cart)


@pytest.mark.breaks_invariants
def test_version_is_not_asked_for_in_a_callers_transaction(postgresql, db, add_cart, checkout):
    cart = add_cart()
    db.execute("drop function checkout_execute")

    with pytest.raises(NotInstalled) as caught:
        checkout(postgresql, cart)

    assert caught.value.sqlstate == "42883"
    assert postgresql.info.transaction_status == psycopg.pq.TransactionStatus.INERROR


def test_role_without_rights(connect, new_role, add_cart, checkout):
    cart = add_cart()
    conn = connect(autocommit=True)
    conn.execute(f"set role {new_role()}")

    with pytest.raises(NotInstalled) as caught:
        checkout(conn, cart)

    assert caught.value.sqlstate == "42501"
    assert "checkout_grant" in caught.value.hint and "owner" in caught.value.hint


# The log


def test_one_log_record_a_call(db, add_cart, checkout, caplog):
    caplog.set_level(logging.INFO, logger="pycheckout")
    cart = add_cart()

    checkout(db, cart, key="secret-key", request_id="r-1")
    checkout(db, cart, key="secret-key")
    with pytest.raises(CartNotFound):
        checkout(db, cart, key="secret-key", buyer_store_id=uuid4())
    pycheckout.result(db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id, request_id="r-2")
    with pytest.raises(InvalidRequest):
        checkout(db, cart, cart_id="secret-token\n", payment_method="\0")

    first, replay, failed, read, invalid = records = caplog.records
    assert {record.name for record in records} == {"pycheckout"}
    assert (first.cart_id, first.outcome, first.replayed) == (str(cart.id), "complete", False)
    assert (first.sqlstate, first.attempts, first.request_id) == (None, 1, "r-1")
    assert (first.operation, first.levelname) == ("execute", "INFO")
    assert first.duration_ms > 0
    assert (replay.outcome, replay.replayed) == ("complete", True)
    assert (failed.outcome, failed.sqlstate, failed.levelname) == ("cart_not_found", "OC001", "WARNING")
    assert (read.operation, read.outcome, read.request_id) == ("result", "complete", "r-2")
    assert (invalid.outcome, invalid.cart_id, invalid.attempts) == ("invalid_request", "invalid", 0)

    for field in ("cart_id", "outcome", "sqlstate", "attempts", "duration_ms", "request_id"):
        assert field in first.getMessage()
    for record in records:
        text = json.dumps(vars(record), default=str) + record.getMessage()
        assert not any(word in text for word in ("secret", ADDRESS["line1"], ADDRESS["city"]))


def test_a_record_factory_of_the_host_may_have_a_request_id_too(db, add_cart, checkout, caplog):
    caplog.set_level(logging.INFO, logger="pycheckout")
    usual = logging.getLogRecordFactory()

    def factory(*args, **kwargs):
        record = usual(*args, **kwargs)
        record.request_id = "the host's"
        return record

    cart = add_cart()
    logging.setLogRecordFactory(factory)
    try:
        checkout(db, cart)
        checkout(db, cart, request_id="r-1")
    finally:
        logging.setLogRecordFactory(usual)

    first, replay = caplog.records
    assert (first.outcome, first.request_id) == ("complete", "the host's")
    assert (replay.replayed, replay.request_id) == (True, "r-1")


def test_errors_that_are_not_ours_are_logged_too(connect, add_cart, checkout, caplog):
    caplog.set_level(logging.INFO, logger="pycheckout")
    conn = connect()
    with pytest.raises(psycopg.errors.UndefinedTable):
        conn.execute("select from nothing")
    with pytest.raises(psycopg.errors.InFailedSqlTransaction):
        checkout(conn, add_cart())

    [record] = caplog.records
    assert (record.outcome, record.sqlstate) == ("InFailedSqlTransaction", "25P02")
