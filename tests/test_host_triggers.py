"""A trigger of the host that leaves a row out, without an error, leaves no half conversion behind."""

import pytest
from psycopg import sql

from checks import refused, values


@pytest.fixture
def leave_out(db):
    """leave_out(table, operation): from now on a trigger of the host keeps such rows from being written."""

    def leave_out(table, operation):
        db.execute("create function leave_out() returns trigger language plpgsql as 'begin return null; end'")
        db.execute(
            sql.SQL("create trigger leave_out before {} on {} for each row execute function leave_out()").format(
                sql.SQL(operation), sql.Identifier(table)
            )
        )

    return leave_out


CONVERSION = [
    ("cart_records", "update", 1),
    ("checkout_requests", "insert", 1),
    ("vendor_orders", "insert", 2),
    ("order_line_items", "insert", 4),
    ("payment_intents", "insert", 2),
    ("outbox_events", "insert", 2),
    ("inventory_items", "update", 4),
]


@pytest.mark.parametrize(("table", "operation", "expected"), CONVERSION, ids=[table for table, _, _ in CONVERSION])
def test_a_conversion_of_which_a_row_is_missing_is_refused(
    db, add_cart, checkout_sql, leave_out, nothing_written, table, operation, expected
):
    cart = add_cart(vendors=2, lines=2)
    leave_out(table, operation)

    with nothing_written(), refused("OC007") as refusal:
        checkout_sql(db, cart)

    assert (refusal.detail["problem"], refusal.detail["table"]) == ("rows_written", table)
    assert (refusal.detail["expected"], refusal.detail["found"]) == (expected, 0)


STOCK = {
    "inventory_set": ("inventory_set(%s, 7)", "inventory_items"),
    "inventory_set of a split product": ("inventory_set(%s, 7)", "inventory_slots"),
    "inventory_adjust": ("inventory_adjust(%s, 5, 'k')", "inventory_items"),
    "inventory_restock": ("inventory_restock(%s, 5, 'k')", "inventory_items"),
    "inventory_restock of a split product": ("inventory_restock(%s, 5, 'k')", "inventory_slots"),
    "inventory_split": ("inventory_split(%s, 4)", "inventory_items"),
    "inventory_split, and the slots alone": ("inventory_split(%s, 4)", "inventory_items"),
    "inventory_split of a split product": ("inventory_split(%s, 4)", "inventory_slots"),
    "inventory_set_many": (
        "inventory_set_many(jsonb_build_array(jsonb_build_object('product_id', %s::text, 'available', 7)))",
        "inventory_items",
    ),
    "inventory_set_many of a split product": (
        "inventory_set_many(jsonb_build_array(jsonb_build_object('product_id', %s::text, 'available', 7)))",
        "inventory_slots",
    ),
}


@pytest.mark.parametrize("call", STOCK)
def test_a_change_of_stock_that_is_not_written_is_no_success(db, add_cart, leave_out, nothing_written, call):
    """Nor is its key bound, or the same call again would say that it is done."""
    statement, table = STOCK[call]
    product = add_cart(vendors=1, lines=1).items[0].product_id
    if "split product" in call:
        db.execute("select inventory_split(%s, 2)", (product,))
    leave_out(table, "update of slots" if "slots alone" in call else "update")

    with nothing_written(), refused("OC007") as refusal:
        db.execute(f"select {statement}", (product,))

    assert refusal.detail.keys() == {"problem", "table", "expected", "found"}, "it is about no cart"
    assert (refusal.detail["problem"], refusal.detail["table"]) == ("rows_written", table)
    assert refusal.detail["found"] < refusal.detail["expected"]


@pytest.mark.parametrize("table", ["inventory_items", "inventory_slots"])
def test_stock_of_a_split_product_that_is_not_written_is_missed(
    db, add_cart, checkout_sql, leave_out, nothing_written, table
):
    cart = add_cart(vendors=1, lines=2)
    db.execute("select inventory_split(%s, 2)", (cart.items[0].product_id,))
    leave_out(table, "update")

    with nothing_written(), refused("OC007") as refusal:
        checkout_sql(db, cart)

    assert (refusal.detail["problem"], refusal.detail["table"]) == ("rows_written", table)


@pytest.mark.parametrize(
    "table", ["order_line_items", "vendor_orders", "inventory_items", "inventory_slots", "outbox_events"]
)
@pytest.mark.parametrize(
    "change", ["order_line_fulfil(%s)", "order_line_release(%s, 'why')", "vendor_order_cancel(%s, 'why')"]
)
def test_a_change_of_an_order_of_which_a_row_is_missing_is_refused(
    db, add_cart, checkout_sql, leave_out, nothing_written, table, change
):
    cart = add_cart(vendors=1, lines=1)
    if table == "inventory_slots":
        db.execute("select inventory_split(%s, 2)", (cart.items[0].product_id,))
    checkout_sql(db, cart)
    leave_out(table, "insert" if table == "outbox_events" else "update")
    subject = cart.groups[0].id if change.startswith("vendor") else cart.items[0].id

    with nothing_written(), refused("OC007") as refusal:
        values(db, f"select {change}", subject)

    assert (refusal.detail["problem"], refusal.detail["table"]) == ("rows_written", table)
