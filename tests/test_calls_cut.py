"""A connection that breaks after the COMMIT of any call: what happened is known, and nothing happens twice."""

import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from proxy import Cut, Point
from psycopg_pool import AsyncConnectionPool, ConnectionPool
from test_calls import GROUPS, calls

from checks import level, row, values
from factories import request_of
from pycheckout import AsyncCheckout, Checkout, Unavailable

pytestmark = pytest.mark.usefixtures("brief_pauses")


@dataclass
class World:
    """What a call finds, and what it is to leave."""

    db: Any
    cart: Any
    order_id: UUID
    line_id: UUID
    product_id: UUID
    event_id: UUID
    other: Any

    def stock(self):
        return level(self.db, self.product_id)

    def status(self):
        return values(self.db, "select status::text from vendor_orders where id = %s", self.order_id)[0]

    def event(self):
        query = "select published_at is not null as sent, attempt_count, last_error from outbox_events where id = %s"
        return row(self.db, query, self.event_id)


@pytest.fixture
def world(db, add_cart, checkout):
    cart = add_cart(vendors=1, lines=1)
    result = checkout(db, cart)
    [order] = result.vendor_orders
    db.execute("update vendor_orders set expires_at = now() + interval '1 day'")
    [event_id] = values(db, "select id from outbox_events where event_type = 'checkout.converted'")
    [item] = order.items
    return World(db, cart, order.order_id, item.line_item_id, item.product_id, event_id, add_cart(vendors=1, lines=1))


# Of each call: the function that it calls, and its arguments.
CALLS = {
    "execute": ("checkout_execute", lambda world: request_of(world.other)),
    "result": ("checkout_result", lambda world: ids_of(world.cart)),
    "audit": ("checkout_audit", lambda world: {}),
    "quotes.put": ("cart_put", lambda world: {"cart": quote(world)}),
    "quotes.get": ("cart_get", lambda world: ids_of(world.cart)),
    "orders.get": (
        "order_get",
        lambda world: {"order_id": world.order_id, "buyer_store_id": world.cart.buyer_store_id},
    ),
    "orders.list": ("orders_list", lambda world: {"buyer_store_id": world.cart.buyer_store_id}),
    "orders.cancel": ("vendor_order_cancel", lambda world: {"order_id": world.order_id, "reason": "late"}),
    "orders.release": ("order_line_release", lambda world: {"line_id": world.line_id, "reason": "late"}),
    "orders.fulfil": ("order_line_fulfil", lambda world: {"line_id": world.line_id}),
    "orders.return_": ("order_line_return", lambda world: returned(world)),
    "orders.decide": ("vendor_order_decide", lambda world: {"order_id": world.order_id}),
    "orders.adjust": (
        "order_adjust",
        lambda world: {"order_id": world.order_id, "amount_cents": -1, "reason": "late", "change_key": "k1"},
    ),
    "orders.history": (
        "order_changes_list",
        lambda world: {"order_id": world.order_id, "buyer_store_id": world.cart.buyer_store_id},
    ),
    "orders.extend": (
        "vendor_order_extend",
        lambda world: {"order_id": world.order_id, "until": datetime.now(UTC) + timedelta(days=2)},
    ),
    "orders.expire": ("vendor_orders_expire", lambda world: overdue(world)),
    "payments.record": (
        "payment_record",
        lambda world: (
            {"order_id": world.order_id, "provider": "p", "provider_event_id": "e", "kind": "captured"}
            | {"amount_cents": 1, "currency": "USD"}
        ),
    ),
    "stock.set": ("inventory_set", lambda world: {"product_id": world.product_id, "available": 70}),
    "stock.set_many": ("inventory_set_many", lambda world: {"levels": {world.product_id: 70}}),
    "stock.adjust": ("inventory_adjust", lambda world: {"product_id": world.product_id, "delta": 5}),
    "stock.restock": ("inventory_restock", lambda world: {"product_id": world.product_id, "qty": 5}),
    "stock.split": ("inventory_split", lambda world: {"product_id": world.product_id, "slots": 3}),
    "stock.level": ("inventory_get", lambda world: {"product_id": world.product_id}),
    "stock.levels": ("inventory_get", lambda world: {"product_ids": [world.product_id]}),
    "ads.verify": ("ad_token_check", lambda world: {"token": "no.token", "buyer_store_id": world.cart.buyer_store_id}),
    "outbox.backlog": ("outbox_backlog", lambda world: {}),
    "outbox.dead_letters": ("outbox_dead_letters", lambda world: {}),
    "outbox.replay": ("outbox_replay", lambda world: sent(world)),
    "outbox.discard": ("outbox_discard", lambda world: {"event_id": world.event_id, "reason": "late"}),
}
READS = {
    *("result", "audit", "quotes.get", "orders.get", "orders.list", "orders.history", "ads.verify"),
    *("stock.level", "stock.levels", "outbox.backlog", "outbox.dead_letters"),
}
NEEDS_A_KEY = ("stock.adjust", "stock.restock")
# A second call undoes what others did since the first: sold units, published the event.
NOT_AGAIN = ("stock.set", "stock.set_many", "outbox.replay")


def ids_of(cart):
    return {"buyer_store_id": cart.buyer_store_id, "cart_id": cart.id}


def returned(world):
    """Only what was shipped comes back; of a world that was asked before, it was."""
    query = "select order_line_fulfil(id) from order_line_items where id = %s and reserved_qty > 0"
    world.db.execute(query, (world.line_id,))
    return {"line_id": world.line_id, "reason": "torn", "restock": True, "change_key": "k1"}


def overdue(world):
    world.db.execute("update vendor_orders set expires_at = now() - interval '1 minute'")
    return {}


def sent(world):
    query = "update outbox_events set published_at = now(), attempt_count = 3, last_error = 'away' where id = %s"
    world.db.execute(query, (world.event_id,))
    return {"event_id": world.event_id}


def quote(world):
    cents = {"subtotal_cents": 500, "discounts_cents": 0, "total_cents": 500}
    item = {"id": uuid4(), "product_id": world.product_id, "quantity": 1, "unit_price_cents": 500}
    item |= {"line_subtotal_cents": 500, "title": "Tea", "category": "edible", "unit": "each"}
    group = {"id": uuid4(), "vendor_store_id": uuid4(), **cents, "items": [item]}
    cart = {"id": uuid4(), "buyer_store_id": world.cart.buyer_store_id, "valid_until": "2999-01-01T00:00:00Z"}
    return cart | cents | {"currency": "USD", "vendor_groups": [group]}


def left(world):
    """What a call could have done twice: rows by their numbers, stock, and what became of the order and the event."""
    tables = (
        "vendor_orders",
        "order_line_items",
        "payment_intents",
        "outbox_events",
        "cart_records",
        "inventory_changes",
        "order_changes",
        "payment_events",
        "inventory_slots",
    )
    counts = {table: values(world.db, f"select count(*) from {table}")[0] for table in tables}
    return counts, world.stock(), world.status(), world.event()


def left_by_one(world, name, arguments):
    """What the call leaves that is made once, on a connection that holds; it is taken back."""
    group, _, call = name.rpartition(".")
    checkout = Checkout(world.db)
    with world.db.transaction(force_rollback=True):
        getattr(getattr(checkout, group) if group else checkout, call)(**arguments)
        return left(world)


def made(proxy, dsn, name, arguments, is_async):
    """The call on a pool behind the proxy."""
    group, _, call = name.rpartition(".")
    settings = {"min_size": 1, "max_size": 2, "timeout": 10}

    async def called():
        async with AsyncConnectionPool(proxy.dsn(dsn), open=False, **settings) as pool:
            checkout = AsyncCheckout(pool)
            return await getattr(getattr(checkout, group) if group else checkout, call)(**arguments)

    if is_async:
        return asyncio.run(called())
    with ConnectionPool(proxy.dsn(dsn), open=True, **settings) as pool:
        checkout = Checkout(pool)
        return getattr(getattr(checkout, group) if group else checkout, call)(**arguments)


def test_every_call_is_here():
    named = {f"{group.called}.{name}".removeprefix(".") for group in GROUPS for name in calls(group)}
    assert named == CALLS.keys()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", [name for name in CALLS if name not in NEEDS_A_KEY + NOT_AGAIN])
def test_answer_that_was_lost_is_asked_for_again_and_nothing_is_done_twice(proxy, dsn, world, name, is_async):
    statement, arguments = CALLS[name]
    given = arguments(world)
    once = left_by_one(world, name, given)
    assert (once == left(world)) == (name in READS)
    proxy.cut(Cut(point=Point.ANSWERED, statement=statement.encode()))

    answer = made(proxy, dsn, name, given, is_async)

    assert proxy.made == 1
    assert left(world) == once
    made(proxy, dsn, name, given, is_async)
    assert left(world) == once, "the same call again"
    assert answer is not None


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", NEEDS_A_KEY)
def test_stock_change_without_a_key_is_not_tried_again(proxy, dsn, world, name, is_async):
    statement, arguments = CALLS[name]
    available, _ = world.stock()
    proxy.cut(Cut(point=Point.ANSWERED, statement=statement.encode()))

    with pytest.raises(Unavailable) as caught:
        made(proxy, dsn, name, arguments(world), is_async)

    assert (caught.value.outcome, caught.value.retryable) == ("unknown", False)
    assert world.stock()[0] == available + 5


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", NOT_AGAIN)
def test_what_would_undo_the_work_of_others_is_not_tried_again(proxy, dsn, world, name, is_async):
    statement, arguments = CALLS[name]
    proxy.cut(Cut(point=Point.ANSWERED, statement=statement.encode()))

    with pytest.raises(Unavailable) as caught:
        made(proxy, dsn, name, arguments(world), is_async)

    assert (caught.value.outcome, caught.value.retryable) == ("unknown", False)
    assert proxy.made == 1
    if name == "outbox.replay":
        assert world.event() == {"sent": False, "attempt_count": 0, "last_error": None}
    else:
        assert world.stock()[0] == 70


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", NEEDS_A_KEY)
def test_stock_change_with_a_key_counts_once(proxy, dsn, world, name, is_async):
    statement, arguments = CALLS[name]
    available, _ = world.stock()
    proxy.cut(Cut(point=Point.ANSWERED, statement=statement.encode()))

    changed = made(proxy, dsn, name, arguments(world) | {"change_key": "delivery-1"}, is_async)

    assert changed.available_qty == world.stock()[0] == available + 5


def test_outcome_of_a_call_that_never_reached_the_server_is_unknown_too(proxy, dsn, world):
    """It was not made, and is not repeated: where the line broke, nobody can tell."""
    proxy.cut(Cut(point=Point.BEFORE, statement=b"inventory_adjust"))
    available, _ = world.stock()

    with pytest.raises(Unavailable) as caught:
        made(proxy, dsn, "stock.adjust", CALLS["stock.adjust"][1](world), False)

    assert caught.value.outcome == "unknown"
    assert world.stock()[0] == available


def test_calls_that_are_repeated_are_those_that_replay():
    replays = {f"{group.called}.{name}": call._replays for group in GROUPS for name, call in calls(group).items()}
    assert {name for name, replay in replays.items() if replay is not True} == {*NEEDS_A_KEY, *NOT_AGAIN}
