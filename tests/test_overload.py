"""More callers than can be served at once: each gets an answer of a known kind, and none waits for ever.

Nothing here is judged by time: without the bound that a test is about, its callers would wait until it is ended.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool
from roles import PASSWORD

import pycheckout
from checks import values
from factories import Cart, request_of
from pycheckout import Busy, Checkout, Unavailable
from web import Api, app, serving

CALLERS = 24
LOCK_TIMEOUT = "-c statement_timeout=0 -c lock_timeout=200ms"
SHORT_LOCK_TIMEOUT = "-c statement_timeout=0 -c lock_timeout=50ms"  # where no pool's patience is compared with it
NO_BOUND = "-c statement_timeout=0 -c lock_timeout=0"

pytestmark = pytest.mark.usefixtures("brief_pauses")


@pytest.fixture
def carts(add_cart) -> list[Cart]:
    """A cart a caller, all of one product, with stock for each."""
    first = add_cart(vendors=1, lines=1)
    more = [add_cart(vendors=1, lines=1, products=[first.items[0].product_id]) for _ in range(CALLERS - 1)]
    return [first, *more]


@pytest.fixture
def forgotten(connect, carts) -> psycopg.Connection:
    """A session that holds the stock of their product, and does nothing."""
    holder = connect(options=NO_BOUND)
    holder.execute("select from inventory_items where product_id = %s for update", (carts[0].items[0].product_id,))
    return holder


def all_at_once(call: Callable[[Cart], Any], carts: list[Cart]) -> list[Any]:
    """What each caller got: an answer or an error."""

    def one(cart: Cart) -> Any:
        try:
            return call(cart)
        except pycheckout.CheckoutError as error:
            return error

    with ThreadPoolExecutor(len(carts)) as threads:
        return list(threads.map(one, carts))


def nothing_was_done(db: psycopg.Connection) -> bool:
    return values(db, "select count(*) from vendor_orders") == [0]


def each_is_ordered_once(db: psycopg.Connection) -> bool:
    return values(db, "select count(*) from vendor_orders group by cart_id") == [1] * CALLERS


def test_a_small_pool_refuses_whom_it_cannot_serve_and_the_same_calls_order_afterwards(db, dsn, carts, forgotten):
    with ConnectionPool(dsn, min_size=2, max_size=2, timeout=0.3, kwargs={"options": LOCK_TIMEOUT}, open=True) as pool:
        found = all_at_once(lambda cart: pycheckout.execute(pool, **request_of(cart)), carts)

        assert {type(each) for each in found} <= {Busy, Unavailable}
        assert all(each.retryable for each in found)
        assert {each.sqlstate for each in found} == {"55P03", None}, "of those that waited in the pool, none"
        assert {each.outcome for each in found if isinstance(each, Unavailable)} == {"nothing_done"}
        assert nothing_was_done(db)

    forgotten.rollback()
    with ConnectionPool(dsn, min_size=2, max_size=2, timeout=60, open=True) as pool:
        found = all_at_once(lambda cart: pycheckout.execute(pool, **request_of(cart)), carts)
        assert {each.outcome for each in found} == {"complete"}
    assert each_is_ordered_once(db)


@pytest.mark.parametrize(
    ("options", "timeout", "sqlstate"), [(SHORT_LOCK_TIMEOUT, None, "55P03"), (NO_BOUND, 0.5, "57014")]
)
def test_a_connection_for_each_caller_is_bounded_by_the_server_or_by_the_call(
    db, connect, carts, forgotten, options, timeout, sqlstate
):
    conns = {cart.id: connect(autocommit=True, options=options) for cart in carts}

    found = all_at_once(lambda cart: Checkout(conns[cart.id]).execute(**request_of(cart), timeout=timeout), carts)

    assert {each.sqlstate for each in found} == {sqlstate}
    assert {type(each) for each in found} == {Busy if timeout is None else Unavailable}
    assert nothing_was_done(db)


def test_a_pool_larger_than_the_server_has_room_for_serves_by_what_it_gets(db, dsn, carts, new_role):
    role = new_role()
    db.execute("select checkout_grant(%s)", (role,))
    db.execute(f"alter role {role} connection limit 2")
    own = make_conninfo(dsn, user=role, password=PASSWORD)
    with ConnectionPool(own, min_size=1, max_size=CALLERS, timeout=60, open=True) as pool:
        found = all_at_once(lambda cart: pycheckout.execute(pool, **request_of(cart)), carts)

    assert {getattr(each, "outcome", each) for each in found} == {"complete"}
    assert each_is_ordered_once(db)


# The routes


@pytest.fixture
def serve(dsn) -> Iterator[Callable[..., str]]:
    """serve(**options): the URL of a host that runs until the test ends; the options are those of web.app()."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(serving(app(dsn, **options)))


POOL = {"min_size": 2, "max_size": 2}


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        ({"settings": LOCK_TIMEOUT, "pool": {**POOL, "timeout": 0.3}}, {"busy", "unavailable"}),
        ({"settings": NO_BOUND, "pool": {**POOL, "timeout": 60}, "timeout": 0.5}, {"unavailable"}),
        ({"settings": SHORT_LOCK_TIMEOUT, "pool": {**POOL, "timeout": 60, "max_waiting": 4}}, {"busy", "unavailable"}),
        ({"kind": "sync", "settings": NO_BOUND, "pool": {**POOL, "timeout": 60}, "timeout": 0.5}, {"unavailable"}),
    ],
    ids=["lock_timeout and a pool's", "a call's", "a short queue", "a call's, by threads"],
)
def test_the_routes_answer_503_with_retry_after_and_order_afterwards(db, serve, carts, forgotten, options, codes):
    url = serve(**options)

    def post(cart: Cart) -> Any:
        api = Api(url)
        try:
            return api.post(cart)
        finally:
            api.http.close()

    refused = all_at_once(post, carts)
    assert {each.status_code for each in refused} == {503}
    assert {each.json()["code"] for each in refused} == codes
    assert {int(each.headers["Retry-After"]) for each in refused} <= {1, 5}
    assert nothing_was_done(db)

    forgotten.rollback()
    found = [post(cart) for cart in carts]
    # 200: of a call that was given up, the server was let go before it was told so
    assert {each.status_code for each in found} <= {200, 201}
    assert each_is_ordered_once(db)
