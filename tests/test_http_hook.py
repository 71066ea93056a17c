"""Rows of the host's that commit with the checkout, and the host's own routes."""

from contextlib import ExitStack

import psycopg
import pytest
from fastapi import Request
from fastapi.responses import JSONResponse

import pycheckout
from checks import values
from pycheckout.http import install_error_handlers
from web import Api, app, get, serving


class Closed(Exception):
    """An exception of the host's."""


@pytest.fixture(autouse=True)
def notes(db):
    """notes(): how many orders and how many rows of the host's are committed."""
    db.execute("create table delivery_notes (cart_id uuid primary key, note text not null)")
    return lambda: tuple(
        values(db, f"select count(*) from {table}")[0] for table in ("vendor_orders", "delivery_notes")
    )


@pytest.fixture(params=["async", "sync"])
def served(request, dsn):
    """served(write): a client of a host whose hook runs the statements of write(result), by either kind of pool."""

    def hooked(write):
        async def awaited(conn, result):
            for statement, *params in write(result):
                await conn.execute(statement, params)

        def plain(conn, result):
            for statement, *params in write(result):
                conn.execute(statement, params)

        return awaited if request.param == "async" else plain

    with ExitStack() as stack:

        def served(write):
            host = app(dsn, kind=request.param, on_checkout=hooked(write))
            install_error_handlers(host)

            @host.exception_handler(Closed)
            async def closed(request: Request, exc: Closed):
                return JSONResponse({"closed": True}, 418)

            @host.exception_handler(psycopg.errors.ForeignKeyViolation)
            async def broken(request: Request, exc: psycopg.errors.ForeignKeyViolation):
                return JSONResponse({"constraint": exc.diag.constraint_name}, 507)

            @host.get("/shop/own-order/{order_id}")
            def own_order(order_id: str):
                with psycopg.connect(dsn, autocommit=True) as conn:
                    return pycheckout.Checkout(conn).orders.cancel(order_id, reason="asked for").status

            api = Api(stack.enter_context(serving(host)))
            stack.callback(api.http.close)
            return api

        yield served


def note(result):
    yield "insert into delivery_notes values (%s, 'ring')", result.cart_id


def test_rows_of_the_hook_commit_with_the_orders_and_once(served, add_cart, notes):
    api, cart = served(note), add_cart()

    assert api.post(cart).status_code == 201
    assert api.post(cart).status_code == 200
    assert notes() == (2, 1)


def test_exception_of_the_hook_rolls_the_checkout_back_and_goes_to_the_hosts_handler(served, add_cart, notes):
    def refuse(result):
        yield from note(result)
        raise Closed

    api, cart = served(refuse), add_cart()
    answer = api.post(cart)

    assert (answer.status_code, answer.json()) == (418, {"closed": True})
    assert notes() == (0, 0)


@pytest.mark.parametrize("statement", ["insert into delivery_notes values (%s, null)", "select from nothing where %s"])
def test_error_of_the_hosts_statement_is_the_hosts(served, add_cart, notes, statement):
    """A broken constraint of its own table says nothing of the cart, nor a missing one of the installation."""
    api, cart = served(lambda result: [(statement, result.cart_id)]), add_cart()

    answer = api.post(cart)

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert notes() == (0, 0)


DEFERRED = """
    create table drivers (id uuid primary key);
    alter table {table} add constraint host_key foreign key ({column}) references drivers deferrable initially deferred
"""


def test_rule_of_the_hosts_rows_that_waits_for_the_commit_goes_to_the_hosts_handler(served, db, add_cart, notes):
    """The quote is not at fault, and a buyer who quotes again would meet it again."""
    db.execute(DEFERRED.format(table="delivery_notes", column="cart_id"))
    api, cart = served(note), add_cart()

    answer = api.post(cart)

    assert (answer.status_code, answer.json()) == (507, {"constraint": "host_key"})
    assert notes() == (0, 0)
    db.execute("insert into drivers values (%s)", [cart.id])
    assert api.post(cart).status_code == 201
    assert notes() == (2, 1)


def test_rule_of_the_orders_that_waits_for_the_commit_is_still_the_quotes(served, db, add_cart, notes):
    db.execute(DEFERRED.format(table="vendor_orders", column="vendor_store_id"))

    answer = served(note).post(add_cart())

    assert (answer.status_code, answer.json()["code"]) == (409, "cart_inconsistent")
    assert notes() == (0, 0)


def test_hook_that_met_a_conflict_is_called_again_and_committed_once(served, db, add_cart, notes):
    db.execute("""
        create sequence tries;
        create function conflict() returns trigger language plpgsql as $$
        begin
          if nextval('tries') = 1 then
            raise exception 'made to fail' using errcode = '40001';
          end if;
          return new;
        end $$;
        create trigger conflict before insert on delivery_notes for each row execute function conflict()
    """)
    called = []

    def counted(result):
        called.append(result.replayed)
        yield from note(result)

    assert served(counted).post(add_cart()).status_code == 201
    assert called == [False, False]
    assert notes() == (2, 1)


def test_hook_of_the_wrong_kind_is_refused_before_anything_is_committed(dsn, add_cart, notes):
    async def awaited(conn, result):
        raise AssertionError

    def plain(conn, result):
        return None

    for kind, hook in {"sync": awaited, "async": plain}.items():
        with serving(app(dsn, kind=kind, on_checkout=hook)) as url:
            api = Api(url)
            assert api.post(add_cart()).status_code == 500
            api.http.close()
    assert notes() == (0, 0)


def test_errors_on_routes_of_the_hosts_own_are_problems(served):
    api = served(note)

    answer = get(f"{api.url}/shop/own-order/00000000-0000-0000-0000-000000000001")

    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert answer.json()["code"] == "order_not_found"
