"""A host's foreign keys lead to orders, lines, intents and stock: a row that points there keeps no call waiting.

Its INSERT locks what it points to FOR KEY SHARE. Two transactions that write such a row and then make a call each would
lock each other out if the call took more than it needs: no call of ours ever changes those keys.
"""

from datetime import UTC, datetime, timedelta

import pytest
from psycopg.types.json import Jsonb

from checks import level, values

TABLES = {
    "vendor_orders": "id",
    "order_line_items": "id",
    "payment_intents": "id",
    "inventory_items": "product_id",
}
# What changes an order, its line, its intent or its product.
CALLS = {
    "decide": "vendor_order_decide(%(order)s, %(decisions)s, 'k')",
    "cancel": "vendor_order_cancel(%(order)s, 'off')",
    "fulfil": "order_line_fulfil(%(line)s)",
    "release": "order_line_release(%(line)s, 'torn')",
    "adjust": "order_adjust(%(order)s, 100, 'pallet', 'k')",
    "extend": "vendor_order_extend(%(order)s, %(later)s)",
    "expire": "vendor_orders_expire()",
    "pay": "payment_record(%(order)s, 'stripe', 'evt', 'captured', 100, 'USD')",
    "set stock": "inventory_set(%(product)s, 7)",
    "restock": "inventory_restock(%(product)s, 7)",
}


@pytest.fixture
def pointing(db, connect):
    """pointing(vendor_orders=id, ...): an open transaction of a host that has written rows which point to these."""
    for table, key in TABLES.items():
        db.execute(f"create table host_{table} (id uuid references {table} ({key}))")

    def pointing(**keys):
        conn = connect()
        for table, keys_of_it in keys.items():
            for key in keys_of_it:
                conn.execute(f"insert into host_{table} values (%s)", (key,))
        return conn

    return pointing


@pytest.fixture
def impatient(connect):
    """A connection that waits for no lock."""
    return connect(autocommit=True, options="-c lock_timeout=100ms -c statement_timeout=30s")


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("quantity", [2, 99], ids=["there", "short"])
def test_a_checkout_passes_rows_that_point_to_its_stock(
    db, pointing, impatient, add_cart, checkout_sql, slots, quantity
):
    cart = add_cart(vendors=1, lines=2, quantity=quantity, stock=10)
    products = [item.product_id for item in cart.items]
    for product in products:
        db.execute("select inventory_split(%s, %s)", (product, slots))
    pointing(inventory_items=products)

    result = checkout_sql(impatient, cart)

    assert result["outcome"] == ("complete" if quantity == 2 else "rejected")


def test_two_checkouts_of_lines_that_point_to_stock_do_not_lock_each_other_out(db, connect, add_cart, checkout_sql):
    """What the lines of another checkout would hold of a product, FOR KEY SHARE, is held all the time."""
    db.execute("alter table order_line_items add foreign key (product_id) references inventory_items (product_id)")
    carts = [add_cart(vendors=1, lines=2, quantity=2, stock=10)]
    carts.append(
        add_cart(vendors=1, products=[item.product_id for item in carts[0].items][::-1], quantity=2, stock=None)
    )
    product = carts[0].items[0].product_id
    with connect() as reader:
        reader.execute("select from inventory_items where product_id = %s for key share", (product,))
        for cart in carts:
            with connect(options="-c lock_timeout=100ms") as buyer:
                assert checkout_sql(buyer, cart)["outcome"] == "complete"
    assert level(db, product) == (6, 4)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_passes_rows_that_point_to_what_it_changes(db, pointing, impatient, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=1, quantity=2, stock=10)
    result = checkout_sql(db, cart, expires_in=timedelta(hours=1))
    [order] = result["vendor_orders"]
    if call == "expire":
        db.execute("update vendor_orders set expires_at = created_at")
    keys = {
        "order": order["order_id"],
        "line": order["items"][0]["line_item_id"],
        "product": cart.items[0].product_id,
        "later": datetime.now(UTC) + timedelta(days=3),
        "decisions": Jsonb([{"line_item_id": order["items"][0]["line_item_id"], "accept_qty": 2}]),
    }
    [intent] = values(db, "select id from payment_intents")
    pointing(
        vendor_orders=[keys["order"]],
        order_line_items=[keys["line"]],
        payment_intents=[intent],
        inventory_items=[keys["product"]],
    )

    impatient.execute(f"select {CALLS[call]}", keys)

    if call == "expire":
        assert values(db, "select status::text from vendor_orders") == ["expired"]
