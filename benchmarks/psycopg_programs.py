"""The checkout as a service writes it with psycopg: three programs, one set of rules (rules.py).

`checkout` is a careful program: one query for what it reads of a table, all rows of a table in one INSERT, no value
asked for that is known. Its INSERTs take their rows as one JSON parameter, which psycopg and the server handle faster
than a hundred and more parameters, and which keeps the statement the same (and so prepared) for any number of rows.
`checkout_pipelined` sends what does not depend on an answer together, which leaves three round trips.
`checkout_naive` does one row at a time.

Stock is locked by one statement in product order: it waits for whoever holds a row, as the function does once it has
skipped what is locked and found no other slot.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import namedtuple_row
from psycopg.types.json import Jsonb

from benchmarks import rules
from benchmarks.rules import Refused, Request, Row, Rows

_CART = """
select id, buyer_store_id, checkout_group_id, status, currency, valid_until, subtotal_cents, discounts_cents,
       total_cents
  from cart_records where id = %s and buyer_store_id = %s for update"""
_GROUPS = """
select id, vendor_store_id, status, subtotal_cents, total_cents, promo, warnings, clock_timestamp() as now
  from cart_vendor_groups where cart_id = %s"""
_ITEMS = """
select id, product_id, vendor_store_id, title, category, unit, quantity, moq, max_qty, unit_price_cents,
       line_subtotal_cents, line_discounts_cents, line_total_cents, applied_volume_discount, warnings, status
  from cart_items where cart_id = %s"""
_ANCHORED = "select id from vendor_orders where checkout_group_id = %s limit 1"
_BIND_KEY = """
insert into checkout_requests (buyer_store_id, idempotency_key, request_hash, cart_id) values (%s, %s, %s, %s)
on conflict do nothing returning cart_id"""
_BOUND_KEY = "select request_hash from checkout_requests where buyer_store_id = %s and idempotency_key = %s"
_LOCK_STOCK = """
select product_id, available_qty from inventory_items where product_id = any (%s) order by product_id for update"""
_TAKE_STOCK = """
update inventory_items as stock
   set available_qty = stock.available_qty - taken.qty, reserved_qty = stock.reserved_qty + taken.qty, updated_at = %s
  from unnest(%s::uuid[], %s::integer[]) as taken (product_id, qty)
 where stock.product_id = taken.product_id"""
_CONVERT = """
update cart_records
   set shipping_address = jsonb_populate_record(null::address_t, %s), payment_method = %s, converted_at = %s,
       status = %s, checkout_group_id = %s, updated_at = %s
 where id = %s"""
_NUMBER = "nextval('checkout_order_number_seq')"
_COLUMNS = {
    "vendor_orders": "order_number, id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency,"
    " shipping_address, payment_method, subtotal_cents, discounts_cents, promo_discount_cents, tax_cents,"
    " transport_fee_cents, total_cents, balance_due_cents, promo, warnings, created_at, updated_at",
    "order_line_items": "id, order_id, cart_item_id, product_id, name, category, unit, unit_price_cents, qty, moq,"
    " max_qty, line_subtotal_cents, discount_cents, total_cents, reserved_qty, released_qty, status, notes, warnings,"
    " applied_volume_discount, created_at, updated_at",
    "payment_intents": "id, order_id, method, amount_cents, created_at, updated_at",
    "outbox_events": "id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at",
}
_VALUES = {"order_number": _NUMBER, "shipping_address": "jsonb_populate_record(null::address_t, %s)"}
_INSERT_ALL = {
    table: f"insert into {table} ({columns}) select {columns.replace('order_number', _NUMBER)}"
    f" from jsonb_populate_recordset(null::{table}, %s)"
    for table, columns in _COLUMNS.items()
}


def connect(dsn: str) -> psycopg.Connection[Any]:
    return psycopg.connect(dsn, autocommit=True, row_factory=namedtuple_row)


def checkout(conn: psycopg.Connection[Any], request: Request) -> UUID:
    """Returns the anchor of the conversion."""
    request.check()
    with conn.transaction():
        cart = conn.execute(_CART, (request.cart_id, request.buyer_store_id)).fetchone()
        if cart is None:
            raise Refused("OC001")
        if cart.status == "converted":
            _bind_key(conn, request)
            return cart.checkout_group_id
        groups = conn.execute(_GROUPS, (cart.id,)).fetchall()
        items = conn.execute(_ITEMS, (cart.id,)).fetchall()
        now = _now(groups)
        checked = rules.check(cart, groups, items, now)
        _check_anchor(conn, cart)
        _bind_key(conn, request)
        wanted = checked.wanted()
        available = dict(conn.execute(_LOCK_STOCK, ([*wanted],)).fetchall())
        taken, short = rules.reserve(wanted, available)
        rows = rules.rows(checked, request, short, now)
        for query, parameters in _writes(cart.id, taken, rows, now):
            conn.execute(query, parameters)
        return rows.cart["checkout_group_id"]


def checkout_pipelined(conn: psycopg.Connection[Any], request: Request) -> UUID:
    """As `checkout`; each block of the pipeline is one round trip."""
    request.check()
    with conn.pipeline(), conn.transaction():
        found = conn.execute(_CART, (request.cart_id, request.buyer_store_id))
        groups_found = conn.execute(_GROUPS, (request.cart_id,))
        items_found = conn.execute(_ITEMS, (request.cart_id,))
        cart = found.fetchone()
        if cart is None:
            raise Refused("OC001")
        if cart.status == "converted":
            _bind_key(conn, request)
            return cart.checkout_group_id
        groups = groups_found.fetchall()
        now = _now(groups)
        checked = rules.check(cart, groups, items_found.fetchall(), now)
        _check_anchor(conn, cart)
        wanted = checked.wanted()
        key = conn.execute(_BIND_KEY, _key(request))
        stock = conn.execute(_LOCK_STOCK, ([*wanted],))
        available = dict(stock.fetchall())
        if not key.fetchone():
            _compare_key(conn, request)
        taken, short = rules.reserve(wanted, available)
        rows = rules.rows(checked, request, short, now)
        for query, parameters in _writes(cart.id, taken, rows, now):
            conn.execute(query, parameters)
    return rows.cart["checkout_group_id"]


def checkout_naive(conn: psycopg.Connection[Any], request: Request) -> UUID:
    request.check()
    with conn.transaction():
        cart = conn.execute(_CART, (request.cart_id, request.buyer_store_id)).fetchone()
        if cart is None:
            raise Refused("OC001")
        if conn.execute(_BOUND_KEY, (request.buyer_store_id, request.idempotency_key)).fetchone():
            _compare_key(conn, request)
        else:
            _bind_key(conn, request)
        if cart.status == "converted":
            return cart.checkout_group_id
        groups = conn.execute(_GROUPS, (cart.id,)).fetchall()
        items = []
        for group in groups:
            query = f"{_ITEMS} and vendor_store_id = %s"
            items += conn.execute(query, (cart.id, group.vendor_store_id)).fetchall()
        now = _now(groups)
        checked = rules.check(cart, groups, items, now)
        _check_anchor(conn, cart)
        wanted = checked.wanted()
        available: dict[UUID, int] = {}
        for product in wanted:
            query = "select available_qty from inventory_items where product_id = %s for update"
            row = (
                conn.execute(f"{query} skip locked", (product,)).fetchone()
                or conn.execute(query, (product,)).fetchone()
            )
            available[product] = row.available_qty if row else 0
        taken, short = rules.reserve(wanted, available)
        rows = rules.rows(checked, request, short, now)
        for product, qty in taken.items():
            conn.execute(_TAKE_STOCK, (now, [product], [qty]))
        conn.execute(_CONVERT, _converted(cart.id, rows))
        for table, written in _tables(rows):
            for row in written:
                names = [column.strip() for column in _COLUMNS[table].split(",")]
                values = ", ".join(_VALUES.get(name, "%s") for name in names)
                parameters = [_parameter(row.get(name)) for name in names if name != "order_number"]
                conn.execute(f"insert into {table} ({_COLUMNS[table]}) values ({values}) returning id", parameters)
        return rows.cart["checkout_group_id"]


def _now(groups: list[Any]) -> datetime:
    """The server's clock after the cart was locked."""
    if not groups:
        raise Refused("OC004")
    return groups[0].now


def _check_anchor(conn: psycopg.Connection[Any], cart: Any) -> None:
    """An anchor that the cart brought must not carry orders."""
    if cart.checkout_group_id is not None and conn.execute(_ANCHORED, (cart.checkout_group_id,)).fetchone():
        raise Refused("OC007")


def _key(request: Request) -> tuple[Any, ...]:
    return request.buyer_store_id, request.idempotency_key, request.hash(), request.cart_id


def _bind_key(conn: psycopg.Connection[Any], request: Request) -> None:
    if not conn.execute(_BIND_KEY, _key(request)).fetchone():
        _compare_key(conn, request)


def _compare_key(conn: psycopg.Connection[Any], request: Request) -> None:
    bound = conn.execute(_BOUND_KEY, (request.buyer_store_id, request.idempotency_key)).fetchone()
    if bound is None or bytes(bound.request_hash) != request.hash():
        raise Refused("OC006")


def _writes(cart_id: UUID, taken: dict[UUID, int], rows: Rows, now: datetime) -> Iterable[tuple[str, tuple[Any, ...]]]:
    yield _TAKE_STOCK, (now, [*taken], [*taken.values()])
    yield _CONVERT, _converted(cart_id, rows)
    for table, written in _tables(rows):
        yield _INSERT_ALL[table], (json.dumps(written, default=str),)


def _converted(cart_id: UUID, rows: Rows) -> tuple[Any, ...]:
    return *(_parameter(value) for value in rows.cart.values()), cart_id


def _tables(rows: Rows) -> Iterable[tuple[str, list[Row]]]:
    return (
        ("vendor_orders", rows.orders),
        ("order_line_items", rows.lines),
        ("payment_intents", rows.intents),
        ("outbox_events", rows.events),
    )


def _parameter(value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict | list) else value
