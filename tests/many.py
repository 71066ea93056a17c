"""Many orders at once, made by SQL as checkouts would have left them: no checkout makes a million in a test's time."""

from hashlib import md5
from uuid import UUID

import psycopg
from psycopg import sql

from checks import vacuum

VENDORS = 2  # a cart; each order has one line

# A time-ordered anchor, as checkout_uuid() makes them; the other ids are the host's, and random.
_SELECT = """
with cart as (
  select n, md5('cart' || n)::uuid as id, md5('buyer' || n % 1000)::uuid as buyer,
         ('01900000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid as anchor,
         timestamptz '2026-01-01' + n * interval '1 second' as at
    from generate_series({after} + 1, {carts}) as n
), part as (
  select cart.*, md5('order' || n || '.' || v)::uuid as order_id, md5('vendor' || v)::uuid as vendor,
         md5('item' || n || '.' || v)::uuid as item_id, md5('product' || (n + v) % 5000)::uuid as product
    from cart cross join generate_series(1, {vendors}) as v
)
"""
_ADDRESS = """jsonb_populate_record(null::address_t, '{"line1": "1", "city": "Tulsa", "country": "US"}')"""
_FILL = [
    """
    insert into cart_records (
      id, buyer_store_id, checkout_group_id, status, shipping_address, payment_method, valid_until, subtotal_cents,
      total_cents, converted_at, created_at, updated_at)
    select id, buyer, anchor, 'converted', {address}, 'ach', at, 2000, 2000, at, at, at from cart
    """,
    """
    insert into cart_vendor_groups (id, cart_id, vendor_store_id, subtotal_cents, total_cents)
    select order_id, id, vendor, 1000, 1000 from part
    """,
    """
    insert into cart_items (
      id, cart_id, product_id, vendor_store_id, title, quantity, unit_price_cents, line_subtotal_cents)
    select item_id, id, product, vendor, 'Apples', 1, 1000, 1000 from part
    """,
    """
    insert into vendor_orders (
      id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, currency, shipping_address, payment_method,
      subtotal_cents, promo_discount_cents, total_cents, balance_due_cents, warnings, created_at, updated_at)
    select order_id, id, anchor, buyer, vendor, 'USD', {address}, 'ach', 1000, 0, 1000, 1000, '[]', at, at from part
    """,
    """
    insert into order_line_items (
      id, order_id, cart_item_id, product_id, name, category, unit, unit_price_cents, qty, line_subtotal_cents,
      total_cents, reserved_qty, moq, warnings, created_at, updated_at)
    select item_id, order_id, item_id, product, 'Apples', '', '', 1000, 1, 1000, 1000, 1, 1, '[]', at, at from part
    """,
    "insert into payment_intents (order_id, method, amount_cents) select order_id, 'ach', 1000 from part",
    """
    insert into outbox_events (
      id, event_type, aggregate_type, aggregate_id, payload, created_at, published_at, next_attempt_at)
    select id, type, 'checkout_group', anchor,
           jsonb_build_object(
             'version', 1, 'event_id', id, 'type', type, 'occurred_at', at,
             'data', data
                     || jsonb_build_object('checkout_group_id', anchor, 'cart_id', cart_id, 'buyer_store_id', buyer)),
           at, at, at
      from (
        select md5('created' || n)::uuid as id, 'checkout.vendor_orders_created' as type, anchor, at, id as cart_id,
               buyer,
               jsonb_build_object(
                 'rejected_vendors', '[]'::jsonb, 'vendor_order_ids', jsonb_agg(order_id order by vendor)) as data
          from part group by n, anchor, at, id, buyer
         union all
        select md5('converted' || n)::uuid, 'checkout.converted', anchor, at, id, buyer,
               jsonb_build_object(
                 'currency', 'USD', 'payment_method', 'ach',
                 'totals', '{{"quoted": {{"subtotal_cents": 2000, "discounts_cents": 0, "total_cents": 2000}}}}'::jsonb,
                 'vendor_orders', jsonb_agg(jsonb_build_object(
                   'order_id', order_id, 'items', jsonb_build_array(jsonb_build_object(
                   'line_item_id', item_id, 'qty', 1, 'total_cents', 1000, 'status', 'pending')))))
          from part group by n, anchor, at, id, buyer
      ) as event
    """,
    """
    insert into checkout_requests (buyer_store_id, idempotency_key, request_hash, cart_id, created_at)
    select buyer, 'key-' || n, sha256(''), id, at from cart
    """,
    """
    insert into inventory_items (product_id, available_qty, reserved_qty)
    select product, 10, count(*) from part group by product
        on conflict (product_id) do update set reserved_qty = inventory_items.reserved_qty + excluded.reserved_qty
    """,
]


def order_id(cart: int, vendor: int) -> UUID:
    return UUID(md5(f"order{cart}.{vendor}".encode()).hexdigest())


def line_id(cart: int, vendor: int) -> UUID:
    return UUID(md5(f"item{cart}.{vendor}".encode()).hexdigest())


def add_orders(conn: psycopg.Connection, orders: int, *, after: int = 0, analyzed: bool = True) -> None:
    """Fill an empty database, in autocommit, with so many orders; checkout_audit() finds nothing in it.

    `after`: so many of them are there already.
    """
    conn.execute("set session_replication_role = replica")  # no trigger and no key, row by row
    conn.execute("set statement_timeout = 0")
    for statement in _FILL:
        query = sql.SQL(_SELECT + statement).format(
            after=sql.Literal(after // VENDORS),
            carts=sql.Literal(orders // VENDORS),
            vendors=sql.Literal(VENDORS),
            address=sql.SQL(_ADDRESS),
        )
        conn.execute(query)
    conn.execute("reset session_replication_role")
    if analyzed:
        vacuum(conn)
