"""pgbench scripts. A client's i-th transaction takes cart first + i * clients + client_id, so carts go in order.

The floor writes the rows that a checkout leaves by one plain prepared statement a table, in one transaction, and
checks nothing: no lock on the cart, no key looked up, no amount added, no stock compared. Its figures stand in the
script; only the ids are made from the cart's number. It shows what PostgreSQL itself takes for these rows.
"""

from __future__ import annotations

import json

from benchmarks import ids
from benchmarks.loads import ADDRESS, HOT, PRICE, PRODUCTS, Shape

_NEXT = f"""\
\\set i :i + 1
\\set n :first + :i * :clients + :client_id
\\set high {ids.HIGH} + :n / 4096 * 65536 + :n % 4096
"""


def _id(low: str) -> str:
    return f"('0' || to_hex(:high::bigint) || '{low}')::uuid"


def function(schema: str | None = None) -> str:
    """The call; of the market in `schema`, or of what the search_path finds."""
    where = "" if schema is None else f'"{schema}".'
    return f"""{_NEXT}
select {where}checkout_execute({_id(ids.BUYER)}, {_id(ids.CART)}, 'k' || :n, '{json.dumps(ADDRESS)}', 'ach');
"""


def floor(shape: Shape, created: str, converted: str, *, pipelined: bool = False) -> str:
    """`created` and `converted`: the payloads that the function made of such a cart."""
    assert not shape.baskets
    one, total = "(select '0' || to_hex(:high::bigint) as high, :n::bigint as n) as cart", shape.lines * PRICE
    vendors = range(1, shape.vendors + 1)
    lines = [(v, line) for v in vendors for line in range(1, shape.lines + 1)]
    products = [shape.product(":n::bigint", v, line) for v, line in lines]
    orders = ", ".join(f"('{ids.group(v)}', '{ids.vendor(v)}'::uuid)" for v in vendors)
    positions = ", ".join(
        f"('{ids.item(v, line)}', '{ids.group(v)}', {'null' if shape.hot and (v, line) == (1, 1) else position * 19})"
        for position, (v, line) in enumerate(lines, 1)
    )
    product = ids.sql(f"coalesce(1 + (cart.n * 7 + line.at) % {PRODUCTS}, {HOT})", ids.PRODUCT)
    address = "row('12 Main Street', null, 'Tulsa', 'OK', null, 'US', null, null)::address_t"
    statements = [
        "begin",
        f"update cart_records set shipping_address = {address}, payment_method = 'ach', shipping_line = null,"
        f" converted_at = now(), status = 'converted', checkout_group_id = {_id(ids.ANCHOR)}, updated_at = now()"
        f" where id = {_id(ids.CART)}",
        "insert into checkout_requests (buyer_store_id, idempotency_key, request_hash, cart_id, created_at)"
        f" values ({_id(ids.BUYER)}, 'k' || :n, '\\x{'0123456789abcdef' * 4}', {_id(ids.CART)}, now())",
        "update inventory_items set available_qty = available_qty - 1, reserved_qty = reserved_qty + 1,"
        f" updated_at = now() where product_id in ({', '.join(products)})",
        "insert into vendor_orders (id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency,"
        " shipping_address, payment_method, subtotal_cents, discounts_cents, promo_discount_cents, tax_cents,"
        " transport_fee_cents, total_cents, balance_due_cents, warnings, order_number, created_at, updated_at)"
        f" select (high || low)::uuid, (high || '{ids.CART}')::uuid, (high || '{ids.ANCHOR}')::uuid,"
        f" (high || '{ids.BUYER}')::uuid, vendor, 'created_pending', 'USD', {address}, 'ach', {total}, 0, 0, 0, 0,"
        f" {total}, {total}, '[]', nextval('checkout_order_number_seq'), now(), now()"
        f" from {one}, (values {orders}) as vendor_order (low, vendor)",
        "insert into order_line_items (id, order_id, cart_item_id, product_id, name, category, unit, unit_price_cents,"
        " qty, moq, line_subtotal_cents, discount_cents, total_cents, reserved_qty, status, warnings, created_at,"
        " updated_at)"
        f" select (high || low)::uuid, (high || group_low)::uuid, (high || low)::uuid, {product}, 'Product',"
        f" 'grocery', 'each', {PRICE}, 1, 1, {PRICE}, 0, {PRICE}, 1, 'pending', '[]', now(), now()"
        f" from {one}, (values {positions}) as line (low, group_low, at)",
        "insert into payment_intents (id, order_id, method, amount_cents, created_at, updated_at)"
        f" select (high || low)::uuid, (high || low)::uuid, 'ach', {total}, now(), now()"
        f" from {one}, (values {orders}) as vendor_order (low, vendor)",
        "insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at,"
        " next_attempt_at) values"
        f" ({_id(ids.CREATED)}, 'checkout.vendor_orders_created', 'checkout_group', {_id(ids.ANCHOR)},"
        f" {_literal(created)}, now(), now()),"
        f" ({_id(ids.CONVERTED)}, 'checkout.converted', 'checkout_group', {_id(ids.ANCHOR)},"
        f" {_literal(converted)}, now(), now())",
        "commit",
    ]
    body = ";\n".join(statements) + ";\n"
    return _NEXT + (f"\\startpipeline\n{body}\\endpipeline\n" if pipelined else body)


def bare_update() -> str:
    """Taking one unit of the hot product, and nothing else: the most that one row can do."""
    return (
        "update inventory_items set available_qty = available_qty - 1, reserved_qty = reserved_qty + 1,"
        f" updated_at = now() where product_id = '{ids.uuid(HOT, ids.PRODUCT)}' and available_qty >= 1;\n"
    )


def _literal(text: str) -> str:
    # pgbench would take a colon and what follows it for one of its variables, in a literal as well
    escaped = text.replace("\\", "\\\\").replace("'", "''").replace(":", "\\x3a")
    return f"E'{escaped}'"
