"""What the tables themselves refuse, whoever writes: a second row of one identity, and a value that cannot be.

The functions look first and say it better. These are for the host's own statements, and for a function that is wrong.
"""

import psycopg
import pytest
from psycopg import sql

from checks import values

# How a second row comes to be: a copy of one that is there. For those with an id of their own, the copy gets another.
OTHER_ID = "gen_random_uuid()"
DUPLICATES = {
    "ad_signing_keys_pkey": ("ad_signing_keys", {}),
    "cart_change_permits_pkey": ("cart_change_permits", {}),
    "cart_items_pkey": ("cart_items", {}),
    "cart_records_pkey": ("cart_records", {"checkout_group_id": "null"}),
    "cart_vendor_groups_one_per_vendor": ("cart_vendor_groups", {"id": OTHER_ID}),
    "cart_vendor_groups_pkey": ("cart_vendor_groups", {"vendor_store_id": OTHER_ID}),
    "checkout_functions_pkey": ("checkout_functions", {}),
    "checkout_ledger_pkey": ("checkout_ledger", {}),
    "checkout_market_pkey": ("checkout_market", {}),
    "checkout_moves_pkey": ("checkout_moves", {}),
    "checkout_releases_pkey": ("checkout_releases", {}),
    "checkout_requests_pkey": ("checkout_requests", {"cart_id": OTHER_ID}),
    "checkout_roles_pkey": ("checkout_roles", {}),
    "idx_cart_records_checkout_group_id": ("cart_records", {"id": OTHER_ID}),
    "idx_outbox_events_conversion": ("outbox_events", {"id": OTHER_ID}),
    "inventory_baseline_pkey": ("inventory_baseline", {}),
    "inventory_changes_pkey": ("inventory_changes", {"delta": "delta + 1"}),
    "inventory_holds_pkey": ("inventory_holds", {}),
    "inventory_items_pkey": ("inventory_items", {}),
    "inventory_slots_pkey": ("inventory_slots", {}),
    "checkout_audits_pkey": ("checkout_audits", {}),
    "idx_order_changes_order_id_change_key": ("order_changes", {"id": OTHER_ID}),
    "order_changes_pkey": ("order_changes", {"change_key": "'other'"}),
    "order_line_items_pkey": ("order_line_items", {}),
    "outbox_dead_letters_pkey": ("outbox_dead_letters", {}),
    "outbox_events_pkey": ("outbox_events", {"aggregate_id": OTHER_ID}),
    "outbox_purges_pkey": ("outbox_purges", {}),
    "payment_events_pkey": ("payment_events", {}),
    "payment_intents_one_per_order": ("payment_intents", {"id": OTHER_ID}),
    "payment_intents_pkey": ("payment_intents", {"order_id": "(select id from vendor_orders where id <> order_id)"}),
    "idx_vendor_orders_checkout_group_id": ("vendor_orders", {"id": OTHER_ID, "order_number": "null"}),
    "idx_vendor_orders_order_number": ("vendor_orders", {"id": OTHER_ID, "vendor_store_id": OTHER_ID}),
    "vendor_orders_pkey": ("vendor_orders", {"vendor_store_id": OTHER_ID, "order_number": "null"}),
}

CHECKS = {
    "cart_items_gross_adds_up": "update cart_items set line_total_cents = line_subtotal_cents - 1",
    "cart_items_orderable_quantity": "update cart_items set quantity = 0",
    "cart_items_price_not_negative": "update cart_items set unit_price_cents = -1",
    "checkout_market_one_row": "update checkout_market set place = 'there'",
    "checkout_market_state_known": "update checkout_market set state = 'lost'",
    "checkout_roles_scope_known": "update checkout_roles set scope = 'everything'",
    "inventory_holds_qty_positive": "update inventory_holds set qty = 0",
    "inventory_items_available_not_negative": "update inventory_items set available_qty = -1 where slots = 1",
    "inventory_items_reserved_not_negative": "update inventory_items set reserved_qty = -1",
    "inventory_items_split_stock_in_slots": "update inventory_items set available_qty = 1 where slots > 1",
    "inventory_slots_available_not_negative": "update inventory_slots set available_qty = -1",
    "inventory_slots_reserved_not_negative": "update inventory_slots set reserved_qty = -1",
    "inventory_slots_slot_positive": "update inventory_slots set slot = slot - 2",
    "order_changes_kind_known": "update order_changes set kind = 'forgotten'",
    "payment_events_amount_not_negative": "update payment_events set amount_cents = -1",
    "payment_events_kind_known": "update payment_events set kind = 'forgotten'",
    "vendor_orders_buyer_is_not_vendor": "update vendor_orders set buyer_store_id = vendor_store_id",
    "vendor_orders_cart_id_set": "update vendor_orders set cart_id = null",
}


@pytest.fixture
def filled(connect, add_cart, checkout_sql):
    """A connection, its transaction never committed, to a database that has a row in every table."""
    cart = add_cart(vendors=2, lines=1)
    conn = connect()
    conn.execute("select inventory_split(%s, 2)", (cart.items[0].product_id,))
    order_id = checkout_sql(conn, cart)["vendor_orders"][0]["order_id"]
    conn.execute("select order_adjust(%s, 1, 'freight', 'k')", (order_id,))
    conn.execute("select payment_record(%s, 'acme', 'evt', 'captured', 1, 'USD')", (order_id,))
    conn.execute("select inventory_restock(%s, 1, 'k')", (cart.items[1].product_id,))
    conn.execute("select ad_signing_key_put('k1', %s)", (bytes(32),))
    conn.execute("select checkout_grant(current_user)")
    conn.execute("insert into cart_change_permits values (%s)", (cart.id,))
    conn.execute("insert into inventory_baseline values (%s, 1)", (cart.items[0].product_id,))
    conn.execute("select outbox_fail(claim_id, id, 'no route', 1) from outbox_claim(1)")
    conn.execute("insert into checkout_audits (began_at, ended_at, findings) values (now(), now(), 0)")
    conn.execute("insert into checkout_market (state, epoch) values ('selling', 1)")
    conn.execute("insert into checkout_moves (epoch, destination) values (1, 'b')")
    conn.execute("insert into outbox_purges (purged_before, deleted, purged_at) values (now(), 1, now())")
    return conn


def test_every_constraint_is_tried(db):
    found = values(
        db,
        """
        select conname::text from pg_constraint
         where connamespace = current_schema()::regnamespace and contype in ('p', 'u', 'c')
         union
        select index.relname::text from pg_index join pg_class as index on index.oid = indexrelid
         where relnamespace = current_schema()::regnamespace and indisunique
        """,
    )
    assert {name for name in found if "yoyo" not in name} == set(DUPLICATES) | set(CHECKS)


@pytest.mark.parametrize("name", DUPLICATES)
def test_a_second_row_of_one_identity_is_refused(filled, name):
    table, changed = DUPLICATES[name]
    columns = values(
        filled,
        "select attname::text from pg_attribute where attrelid = %s::regclass and attnum > 0 and not attisdropped",
        table,
    )
    assert set(changed) <= set(columns)
    query = sql.SQL("insert into {} ({}) overriding system value select {} from {} limit 1").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, columns)),
        sql.SQL(", ").join(sql.SQL(changed[name]) if name in changed else sql.Identifier(name) for name in columns),
        sql.Identifier(table),
    )

    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        filled.execute(query)

    assert refused.value.diag.constraint_name == name


@pytest.mark.parametrize("name", CHECKS)
def test_a_value_that_cannot_be_is_refused(filled, name):
    with pytest.raises(psycopg.errors.CheckViolation) as refused:
        filled.execute(CHECKS[name])

    assert refused.value.diag.constraint_name == name
