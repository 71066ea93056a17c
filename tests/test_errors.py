"""One table from SQLSTATE to exception; the database decides, Python only names."""

import pickle
import re
from pathlib import Path

import psycopg
import pytest

import pycheckout
from pycheckout import (
    AdTokenInvalid,
    Busy,
    CartExpired,
    CartInconsistent,
    CartNotActive,
    CartNotFound,
    CheckoutError,
    IdempotencyKeyReused,
    InsufficientInventory,
    InvalidRequest,
    MarketMoved,
    MarketMoving,
    MigrationError,
    NoOrderableItems,
    NotInstalled,
    OrderNotFound,
    OrderStateConflict,
    PoolerConflict,
    ReadOnlyServer,
    SnapshotImmutable,
    Unavailable,
    UnknownMarket,
    _errors,
    error_from,
)
from pycheckout import _http_docs as http_docs
from pycheckout._errors import _IN_A_FUNCTION_OF_OURS, BY_SQLSTATE, translated

DB = Path(__file__).parents[1] / "db"

PROMISES = {
    CartNotFound: ("cart_not_found", 404, False),
    CartNotActive: ("cart_not_active", 409, False),
    CartExpired: ("cart_expired", 409, False),
    NoOrderableItems: ("no_orderable_items", 409, False),
    InvalidRequest: ("invalid_request", 422, False),
    IdempotencyKeyReused: ("idempotency_key_reused", 422, False),
    CartInconsistent: ("cart_inconsistent", 409, False),
    AdTokenInvalid: ("ad_token_invalid", 422, False),
    SnapshotImmutable: ("snapshot_immutable", 409, False),
    InsufficientInventory: ("insufficient_inventory", 409, False),
    OrderNotFound: ("order_not_found", 404, False),
    OrderStateConflict: ("order_state_conflict", 409, False),
    Busy: ("busy", 503, True),
    MarketMoving: ("market_moving", 503, True),
    MarketMoved: ("market_moved", 503, False),
    Unavailable: ("unavailable", 503, True),
    ReadOnlyServer: ("read_only_server", 503, False),
    PoolerConflict: ("pooler_conflict", 500, False),
    NotInstalled: ("not_installed", 500, False),
    UnknownMarket: ("unknown_market", 404, False),
    MigrationError: ("migration_failed", 500, False),
}


def raised(conn: psycopg.Connection, sqlstate: str, detail: str = "", hint: str = "") -> psycopg.Error:
    """What psycopg makes of an error that the server raises."""
    with pytest.raises(psycopg.Error) as caught:
        conn.execute(
            "do $$ begin raise exception 'in words' using "
            f"errcode = '{sqlstate}', detail = '{detail}', hint = '{hint}'; end $$"
        )
    return caught.value


def test_tables_whose_rules_are_the_checkouts_are_those_that_it_writes(db, dsn, add_cart, checkout):
    """Of a rule that the COMMIT finds broken: those of other tables are the host's, who may have written there."""
    cart = add_cart(vendors=1, lines=2)
    db.execute("select inventory_split(%s, 2)", [cart.items[0].product_id])
    with psycopg.connect(dsn) as conn:  # a session that has written nothing else
        checkout(conn, cart)
        written = conn.execute(
            "select relname from pg_stat_xact_user_tables where n_tup_ins + n_tup_upd > 0"
        ).fetchall()

    assert {name for [name] in written} == _errors._OF_A_CHECKOUT


def test_table_holds_exactly_the_codes_that_the_sql_raises():
    sources = [path.read_text() for folder in ("functions", "migrations") for path in (DB / folder).rglob("*.sql")]
    raises = set(re.findall(r"errcode\s*=\s*'(OC\w{3})'", "\n".join(sources)))

    assert {code for code in BY_SQLSTATE if code.startswith("OC")} == raises


def test_every_function_of_ours_is_known_by_its_name():
    """Else a step that a deployment replaces would not be Busy."""
    names = {path.stem for path in (DB / "functions").rglob("*.sql")}
    assert names and {name for name in names if not _IN_A_FUNCTION_OF_OURS.search(f"function {name}(uuid)")} == set()


def answered_over_http():
    """The codes that the OpenAPI document names, each with its statuses, and the context of its example."""

    def document(status, code, **more):
        said.append((code, status, set(more.get("context", ()))))
        return {}

    said = []
    http_docs.responses(document, *http_docs._CODES)
    http_docs.order_responses(document, *http_docs._CODES)
    return said


def test_every_error_that_a_route_answers_is_described_there_and_no_other():
    """No route writes quotes or migrates; how a request is read, or who sent it, is the routes' own to refuse."""
    ours = {kind.code: kind.http_status for kind in PROMISES}
    told = {code for code, _, _ in answered_over_http()}

    assert ours.keys() - told == ours.keys() - http_docs.DETAILS.keys() == {"snapshot_immutable", "migration_failed"}
    assert {(code, status) for code, status, _ in answered_over_http() if code in ours} == {
        (code, status) for code, status in ours.items() if code in told
    }
    assert http_docs.DETAILS.keys() - ours.keys() == {
        *("idempotency_key_required", "idempotency_key_invalid", "malformed_json"),
        *("content_too_large", "unsupported_media_type", "internal_error"),
    }
    assert told - http_docs.DETAILS.keys() == {"unauthorized", "forbidden"}, "what whose_buyer raises says it itself"
    assert http_docs._MORE.keys() <= told


def test_what_an_example_says_of_an_error_is_what_goes_out():
    shown = {name for _, _, context in answered_over_http() for name in context}
    assert "cart_id" in shown and shown <= {*http_docs.CONTEXT, "items"}


def test_every_sqlstate_of_the_table_arrives_as_its_class(db):
    for sqlstate, kind in BY_SQLSTATE.items():
        error = translated(raised(db, sqlstate, '{"cart_id": "c1"}', "Do this."))

        assert type(error) is kind
        assert (error.sqlstate, error.message) == (sqlstate, "in words")
        assert (error.detail, error.hint) == ({"cart_id": "c1"}, "Do this.")


def test_what_the_server_leaves_without_a_hint_has_one():
    codes = {code for code in BY_SQLSTATE if not code.startswith("OC")} | {"08006"}
    assert {code for code in codes if not error_from(code, "in words").hint} == set()


@pytest.mark.parametrize(
    ("sqlstate", "kind"),
    [("08000", Unavailable), ("08006", Unavailable), ("OC999", CheckoutError)],
)
def test_codes_beyond_the_table_go_by_their_class(db, sqlstate, kind):
    error = translated(raised(db, sqlstate))

    assert type(error) is kind
    assert error.sqlstate == sqlstate


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "53300", "53400", "58030"])
def test_a_server_without_disk_memory_or_connections_may_be_asked_again(db, sqlstate):
    assert type(translated(raised(db, sqlstate))) is Unavailable


def test_errors_that_are_not_ours_are_left_alone(db):
    assert translated(raised(db, "22012")) is None
    assert translated(raised(db, "23505")) is None
    assert translated(psycopg.ProgrammingError("a mistake of the caller")) is None
    # An earlier statement of the caller's failed.
    assert translated(psycopg.errors.PipelineAborted("pipeline aborted")) is None


def test_errors_of_another_driver_get_their_class():
    """asyncpg has sqlstate, message, detail and hint as attributes."""
    error = error_from("OC010", "short", detail='{"cart_id": "c1"}', hint="Order less.")

    assert type(error) is InsufficientInventory
    assert (error.sqlstate, error.message, error.detail, error.hint) == (
        "OC010",
        "short",
        {"cart_id": "c1"},
        "Order less.",
    )
    assert type(error_from("40001", "could not serialize")) is Busy
    assert error_from("23505", "duplicate key") is None


def test_no_answer_at_all_is_unavailable():
    error = translated(psycopg.OperationalError("the connection is lost"))

    assert type(error) is Unavailable
    assert error.sqlstate is None


@pytest.mark.parametrize("detail", ["Key (id)=(1) already exists.", "[1]", "", "{"])
def test_detail_that_is_no_json_object_is_empty(db, detail):
    assert translated(raised(db, "40001", detail)).detail == {}


def test_classes_keep_their_promises():
    ours = {
        value
        for value in vars(pycheckout).values()
        if isinstance(value, type) and issubclass(value, CheckoutError) and value is not CheckoutError
    }

    assert {kind: (kind.code, kind.http_status, kind.retryable) for kind in ours} == PROMISES
    assert all(kind.__doc__ for kind in ours)


def test_hint_is_shown_with_the_message():
    assert str(CartExpired("quote expired", hint="Quote again.")) == "quote expired\nHINT:  Quote again."
    assert str(CartExpired("quote expired")) == "quote expired"


def test_errors_cross_process_borders():
    error = CartNotFound("no such cart", sqlstate="OC001", detail={"cart_id": "c1"}, hint="Look again.")
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is CartNotFound
    assert vars(copy) == vars(error)
    assert str(copy) == str(error)
