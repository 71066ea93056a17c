"""checkout_audit() reports each broken invariant by its name, and nothing on a healthy database, at any moment."""

import contextlib
import re
import subprocess
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from command import PROGRAM, environment
from many import add_orders
from psycopg.rows import dict_row

import pycheckout
from checks import rows, values
from factories import carts_of, execute_sql
from pycheckout._audit import audit as audit_in_slices

pytest_plugins = ["shared"]

FUNCTIONS = Path(__file__).parents[1] / "db" / "functions"

PAYMENT = """
    insert into payment_events (order_id, provider, provider_event_id, kind, amount_cents, currency, created_at)
    select id, 'acme', checkout_uuid()::text, {}, 'USD', now() from vendor_orders
"""
# Each invariant, and what breaks it. Some of it nobody can do but a superuser.
BREAKS = {
    "order_subtotal_is_its_lines": "update order_line_items set line_subtotal_cents = line_subtotal_cents + 1",
    "order_discounts_are_its_lines_and_promotion": "update vendor_orders set promo_discount_cents = null",
    "order_total_is_lines_minus_discounts": "update vendor_orders set total_cents = total_cents - 1",
    "order_amounts_not_negative": "update vendor_orders set promo_discount_cents = -1",
    "order_balance_is_part_of_its_total": "update vendor_orders set balance_due_cents = total_cents + 1",
    "one_intent_an_order": "delete from payment_intents where id = (select min(id::text)::uuid from vendor_orders)",
    "intent_is_order_total": "update payment_intents set amount_cents = amount_cents + 1",
    "line_counts_its_units": "update order_line_items set reserved_qty = reserved_qty - 1",
    "line_counts_are_its_changes": "delete from order_changes",
    "order_adjustments_are_its_changes": "update vendor_orders set adjustments_cents = 7",
    "every_change_has_its_event": "delete from outbox_events where event_type = 'vendor_order.adjusted'",
    "open_line_holds_units": "update order_line_items set reserved_qty = 0",
    "ended_line_holds_nothing": "update order_line_items set status = 'rejected'",
    "ended_order_holds_nothing": "update vendor_orders set status = 'canceled'",
    "two_events_a_conversion": "delete from outbox_events where event_type = 'checkout.converted'",
    "event_will_be_sent": "update outbox_events set next_attempt_at = null where event_type = 'checkout.converted'",
    "event_says_what_it_is": "update outbox_events set payload = '{}' where event_type = 'checkout.converted'",
    "event_names_the_orders": """
        update outbox_events set payload = payload #- '{data,vendor_order_ids,0}'
         where event_type = 'checkout.vendor_orders_created'
    """,
    "event_tells_the_lines": """
        update outbox_events set payload = jsonb_set(payload, '{data,vendor_orders,0,items,0,qty}', '5')
         where event_type = 'checkout.converted'
    """,
    "event_tells_the_attribution": """update vendor_orders set attributed_token = '{"token_id": "7"}'""",
    "event_tells_the_quote": """
        update outbox_events set payload = jsonb_set(payload, '{data,totals,quoted,total_cents}', '5')
         where event_type = 'checkout.converted'
    """,
    "every_ended_line_has_its_event": "delete from outbox_events where event_type = 'order_line.fulfilled'",
    "one_cart_an_anchor": """
        update vendor_orders set cart_id = gen_random_uuid() where id = (select min(id::text)::uuid from vendor_orders)
    """,
    "one_anchor_a_cart": """
        drop index idx_cart_records_checkout_group_id;
        insert into cart_records (buyer_store_id, valid_until, checkout_group_id)
        select gen_random_uuid(), now(), checkout_group_id from cart_records limit 1
    """,
    "anchor_has_its_own_orders_alone": """
        insert into vendor_orders (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        select checkout_group_id, buyer_store_id, gen_random_uuid(), 5000, 5000 from cart_records
    """,
    "order_has_the_anchor_of_its_cart": "update cart_records set checkout_group_id = gen_random_uuid()",
    "order_names_the_cart_of_its_anchor": """
        alter table vendor_orders drop constraint vendor_orders_cart_id_set;
        update vendor_orders set cart_id = null
    """,
    "order_has_the_buyer_of_its_cart": "update vendor_orders set buyer_store_id = gen_random_uuid()",
    "ordered_cart_is_converted": "update cart_records set status = 'active'",
    "converted_cart_is_confirmed": "update cart_records set converted_at = null",
    "cart_totals_are_its_groups": "update cart_records set total_cents = total_cents - 1",
    "key_belongs_to_converted_cart": "update cart_records set status = 'active'",
    "key_belongs_to_the_buyer_of_its_cart": "update checkout_requests set buyer_store_id = gen_random_uuid()",
    "no_permit_is_left": "insert into cart_change_permits (cart_id, transaction_id) select id, '3' from cart_records",
    "every_rejected_vendor_is_in_the_cart": "delete from cart_vendor_groups where status = 'invalid'",
    "every_orderable_item_is_ordered": "delete from order_line_items where status <> 'rejected'",
    "conversion_has_orders": "delete from vendor_orders",
    "line_has_its_cart_item": "delete from cart_items",
    "line_is_its_cart_item": "update order_line_items set unit_price_cents = 1",
    "line_is_described_as_its_cart_item": "update order_line_items set name = 'Pears'",
    "order_has_its_vendor_group": "delete from cart_vendor_groups",
    "vendor_group_has_its_cart": "delete from cart_records",
    "order_names_its_vendor_group": """update cart_vendor_groups set promo = '{"code": "OTHER", "amount_cents": 50}'""",
    "order_is_its_vendor_group_without_rejected_lines": "update cart_vendor_groups set total_cents = total_cents - 1",
    "order_promotion_is_its_share_of_the_group": """
        update vendor_orders set promo_discount_cents = promo_discount_cents - 1, discounts_cents = discounts_cents - 1,
                                 total_cents = total_cents + 1
    """,
    "order_confirms_what_its_cart_does": "update vendor_orders set currency = 'EUR'",
    "order_ships_for_what_its_group_says": """
        update cart_vendor_groups set shipping_cents = 5, total_cents = total_cents + 5
    """,
    "order_tax_is_its_lines_and_shipping": "update vendor_orders set shipping_tax_cents = 1",
    "order_reaches_its_minimum": "update cart_vendor_groups set minimum_cents = 1000000",
    "orders_note_the_same": "update vendor_orders set purchase_order = id::text",
    "line_is_taxed_as_its_cart_item": "update order_line_items set tax_cents = 1",
    "intent_is_due_by_its_terms": "update payment_intents set due_at = now()",
    "refunds_are_of_what_was_captured": PAYMENT.format("'refunded', 1"),
    "captures_are_of_what_was_authorized": PAYMENT.format("'authorized', 1") + ";" + PAYMENT.format("'captured', 2"),
    "what_is_due_follows_from_payments": PAYMENT.format("'captured', 1"),
    "intent_is_in_the_state_of_its_payments": PAYMENT.format("'captured', 1"),
    "every_payment_has_its_event": PAYMENT.format("'authorized', 1"),
    "event_of_a_change_has_its_change": "delete from order_changes where kind = 'adjusted'",
    "payment_has_its_order": PAYMENT.format("'captured', 1") + "; update payment_events set order_id = checkout_uuid()",
    "paid_order_has_its_payments": "update vendor_orders set refund_due_cents = 0",
    "change_of_a_deadline_has_its_event": """
        insert into order_changes (id, order_id, kind, lines, created_at)
        select gen_random_uuid(), id, 'extended', '[]', now() from vendor_orders
    """,
    "expired_order_has_its_change": "delete from order_changes; update vendor_orders set status = 'expired'",
    "reserved_is_what_open_lines_hold": "update inventory_items set reserved_qty = reserved_qty + 1",
    "stock_not_negative": """
        alter table inventory_items drop constraint inventory_items_available_not_negative;
        update inventory_items set available_qty = -1 where slots = 1
    """,
    "split_product_has_its_slots": "delete from inventory_slots where slot = 3",
    "split_product_has_its_stock_in_slots": """
        alter table inventory_items drop constraint inventory_items_split_stock_in_slots;
        update inventory_items set available_qty = 7 where slots > 1
    """,
    "holds_are_what_their_line_holds": "update inventory_holds set qty = qty + 1",
    "only_lines_of_a_checkout_hold_stock": """
        insert into order_line_items (order_id, name, category, unit, unit_price_cents, qty, total_cents, reserved_qty)
        select id, 'Gift wrap', '', '', 200, 1, 200, 1 from vendor_orders
    """,
}

# A second way to break the same invariant, where one does not say enough.
MORE = [
    ("every_ended_line_has_its_event", "update order_line_items set status = 'rejected' where status = 'fulfilled'"),
    ("order_balance_is_part_of_its_total", "update vendor_orders set balance_due_cents = -1"),
    ("one_intent_an_order", """
        alter table payment_intents drop constraint payment_intents_one_per_order;
        insert into payment_intents (order_id, method, amount_cents)
        select order_id, method, amount_cents from payment_intents
     """),
    # charged in part, and nothing is due any more
    ("intent_is_order_total", """
        update payment_intents set status = 'paid', amount_cents = amount_cents - 1;
        update vendor_orders set balance_due_cents = 0
     """),
    ("line_counts_its_units", "update order_line_items set reserved_qty = null"),
    ("line_counts_its_units", "update order_line_items set reserved_qty = qty + 1"),
    ("line_counts_its_units", "update order_line_items set returned_qty = 1 where status = 'pending'"),
    ("line_counts_its_units", "update order_line_items set returned_qty = -1"),
    ("line_counts_its_units", "update order_line_items set fulfilled_qty = 1 where status = 'pending'"),
    ("line_counts_are_its_changes", "update order_line_items set returned_qty = 1 where status = 'fulfilled'"),
    ("line_counts_are_its_changes", """
        update order_line_items set released_qty = 1, fulfilled_qty = 1 where status = 'fulfilled'
     """),
    ("line_counts_are_its_changes", """
        update order_changes set lines = jsonb_set(lines, '{0,total_cents}', '1') where kind = 'released'
     """),
    ("order_adjustments_are_its_changes", "update order_changes set amount_cents = null"),
    ("every_change_has_its_event", "update outbox_events set aggregate_id = gen_random_uuid()"),
    ("every_change_has_its_event", "update order_changes set kind = 'expired' where kind = 'adjusted'"),
    ("order_subtotal_is_its_lines", "update order_line_items set returned_qty = 1 where status = 'fulfilled'"),
    ("ended_line_holds_nothing", "update order_line_items set status = 'fulfilled'"),
    ("ended_order_holds_nothing", "update vendor_orders set status = 'fulfilled'"),
    ("ended_order_holds_nothing", "update vendor_orders set status = 'expired'"),
    ("ended_order_holds_nothing", "update vendor_orders set status = 'rejected'"),
    ("two_events_a_conversion", "delete from outbox_events"),
    ("two_events_a_conversion", """
        drop index idx_outbox_events_conversion;
        insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)
        select event_type, aggregate_type, aggregate_id, payload from outbox_events
     """),
    ("event_will_be_sent", "update outbox_events set next_attempt_at = null where event_type = 'order_line.fulfilled'"),
    ("event_will_be_sent", "update outbox_events set next_attempt_at = 'infinity' where event_type ~ 'converted'"),
    ("event_will_be_sent", "update outbox_events set next_attempt_at = 'infinity' where event_type ~ 'adjusted'"),
    ("event_says_what_it_is", "update outbox_events set payload = '[]' where event_type = 'order_line.fulfilled'"),
    ("event_says_what_it_is", "update outbox_events set payload = '7' where event_type = 'checkout.converted'"),
    ("event_names_the_orders", """
        update outbox_events set payload = jsonb_set(payload, '{data}', '[]') where event_type !~ 'order_line'
     """),
    ("event_tells_the_lines", """
        update outbox_events set payload = jsonb_set(payload, '{data,vendor_orders}', '"none"')
         where event_type = 'checkout.converted'
     """),
    ("event_tells_the_lines", "update order_line_items set notes = 'x' where notes = 'insufficient_inventory'"),
    ("every_ended_line_has_its_event", "delete from outbox_events where event_type = 'order_line.released'"),
    ("every_ended_line_has_its_event", """
        update outbox_events set aggregate_id = gen_random_uuid() where event_type = 'order_line.fulfilled'
     """),
    ("anchor_has_its_own_orders_alone", "delete from order_line_items"),
    ("anchor_has_its_own_orders_alone", "delete from order_line_items; delete from outbox_events"),
    ("converted_cart_is_confirmed", "update cart_records set shipping_address = null"),
    ("cart_totals_are_its_groups", """
        update cart_records set subtotal_cents = subtotal_cents + 1, discounts_cents = discounts_cents + 1
     """),
    ("cart_totals_are_its_groups", "delete from cart_vendor_groups"),
    ("every_orderable_item_is_ordered", "delete from order_line_items"),
    ("every_orderable_item_is_ordered", "update order_line_items set cart_item_id = gen_random_uuid()"),
    ("every_orderable_item_is_ordered", """
        insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)
        select cart_id, gen_random_uuid(), vendor_store_id, 1, 1, 1 from cart_vendor_groups where status = 'ok'
     """),
    ("conversion_has_orders", "delete from vendor_orders; delete from outbox_events"),
    ("conversion_has_orders", """
        delete from vendor_orders; delete from outbox_events; delete from checkout_requests
     """),
    # a cart that somebody converted by hand: no key, no event, no order
    ("conversion_has_orders", """
        insert into cart_records (buyer_store_id, status, valid_until) values (gen_random_uuid(), 'converted', now())
     """),
    ("line_is_its_cart_item", "update cart_items set quantity = quantity + 1"),
    ("line_is_its_cart_item", "update order_line_items set discount_cents = 1, total_cents = total_cents - 1"),
    # more than the rejected line's amount is gone, and order, intent and sums agree on it
    ("order_is_its_vendor_group_without_rejected_lines", """
        update vendor_orders set discounts_cents = discounts_cents + 1, total_cents = total_cents - 1;
        update payment_intents set amount_cents = amount_cents - 1
     """),
    ("order_confirms_what_its_cart_does", "update vendor_orders set tax_included = true"),
    ("order_names_its_vendor_group", """update vendor_orders set vendor_shipping_line = '{"code": "air"}'"""),
    ("orders_note_the_same", """update vendor_orders set metadata = jsonb_build_object('n', id)"""),
    ("line_is_taxed_as_its_cart_item", "update order_line_items set tax_lines = '[]'"),
    ("intent_is_due_by_its_terms", """update payment_intents set payment_terms = '{"code": "net", "net_days": 3}'"""),
    ("order_confirms_what_its_cart_does", """update vendor_orders set shipping_line = '{"code": "air"}'"""),
    ("reserved_is_what_open_lines_hold", "update inventory_slots set reserved_qty = reserved_qty + 1"),
    ("reserved_is_what_open_lines_hold", "update order_line_items set reserved_qty = 0"),
    ("reserved_is_what_open_lines_hold", "delete from inventory_items where slots = 1"),
    ("stock_not_negative", """
        alter table inventory_slots drop constraint inventory_slots_available_not_negative;
        update inventory_slots set available_qty = -1
     """),
    ("split_product_has_its_slots", "insert into inventory_slots select product_id, 9, 0 from inventory_items"),
    ("split_product_has_its_slots", "update inventory_slots set slot = 9 where slot = 3"),
    ("split_product_has_its_slots", """
        update inventory_items set slots = 4 where slots = 3; update inventory_slots set slot = 4 where slot = 3;
        insert into inventory_slots (product_id, slot, available_qty, version)
        select product_id, slot, 0, version + 1 from inventory_slots where slot = 2
     """),
    ("split_product_has_its_slots", "delete from inventory_items where slots > 1"),
    ("holds_are_what_their_line_holds", "delete from order_line_items"),
    ("holds_are_what_their_line_holds", "update inventory_holds set product_id = gen_random_uuid()"),
]  # fmt: skip


def make_healthy(db, add_cart):
    """A cart with all there is: a split product, a promotion, a short line, an ineligible one, an invalid vendor.

    Of one order a line is fulfilled and another released; the other one has a credit.
    """
    cart = add_cart(
        vendors=3,
        lines=3,
        amounts="gross",
        stock=20,
        promo_cents=50,
        quantity=2,
        items={(0, 1): {"quantity": 21}, (1, 1): {"status": "invalid"}},
        groups={2: {"status": "invalid"}},
    )
    db.execute("select inventory_split(%s, 3)", (cart.items[0].product_id,))
    result = execute_sql(db, cart)
    assert result["outcome"] == "partial"
    db.execute("select order_line_fulfil(%s), order_line_release(%s, 'torn')", (cart.items[3].id, cart.items[5].id))
    db.execute("select order_adjust(%s, -10, 'late', 'k1')", (result["vendor_orders"][0]["order_id"],))
    assert audit(db) == []
    return cart


@pytest.fixture
def healthy(db, add_cart):
    return make_healthy(db, add_cart)


@pytest.fixture(scope="module")
def healthy_once(shared_db):
    return make_healthy(shared_db, carts_of(shared_db))


@pytest.fixture
def sound(healthy_once, undone):
    """The same cart, in a database that the tests share, and a transaction that is rolled back."""
    return healthy_once


def audit(conn, since=None):
    return rows(conn, "select * from checkout_audit(%s)", since)


def in_slices(conn, size, since=None):
    """What `pycheckout audit` finds, in slices of so many orders."""
    before, conn.row_factory = conn.row_factory, dict_row
    try:
        return list(audit_in_slices(conn, since, lambda done, total: None, size))
    finally:
        conn.row_factory = before


def ordered(found):
    return sorted(found, key=lambda broken: tuple(broken.values()))


def break_it(conn, statement):
    conn.execute("set session_replication_role = replica")  # no trigger, no foreign key
    conn.execute(statement)
    conn.execute("reset session_replication_role")


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    ("invariant", "statement"), [*BREAKS.items(), *MORE], ids=lambda value: value if value in BREAKS else ""
)
def test_a_broken_invariant_is_reported_by_name(undone, sound, invariant, statement):
    """The audit that every test ends with sees what it is there for."""
    break_it(undone, statement)
    found = [broken for broken in audit(undone) if broken["invariant"] == invariant]
    assert found, [broken["invariant"] for broken in audit(undone)]
    for broken in found:
        assert broken["id"] and broken["expected"] and broken["found"] and broken["expected"] != broken["found"]
    assert ordered(in_slices(undone, size=1)) == ordered(audit(undone))


def test_every_invariant_of_the_audit_is_broken_by_a_test():
    """An invariant that is added gets its case here."""
    parts = "\n".join(file.read_text(encoding="utf-8") for file in FUNCTIONS.rglob("checkout_audit*.sql"))
    assert set(re.findall(r"^  select '(\w+)',", parts, flags=re.MULTILINE)) == set(BREAKS)


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    "statement",
    [
        "update vendor_orders set total_cents = total_cents + 1 where vendor_store_id = %(vendor)s",
        "update inventory_items set reserved_qty = 99 where product_id = %(product)s",
    ],
)
def test_what_is_not_broken_is_not_reported(undone, sound, statement):
    """A row a broken thing, none for the others."""
    undone.execute(statement, {"vendor": sound.vendors[0], "product": sound.items[2].product_id})
    assert max(Counter(broken["invariant"] for broken in audit(undone)).values()) == 1


@pytest.mark.breaks_invariants
def test_since_leaves_older_conversions_out(db, healthy, add_cart, checkout_sql):
    """For large databases only what is new is judged, except stock, which is always judged whole."""
    break_it(db, "update payment_intents set amount_cents = amount_cents + 1")
    [(since,)] = db.execute("select clock_timestamp()")
    checkout_sql(db, add_cart())
    assert audit(db) != [] and audit(db, since) == []

    break_it(db, "update inventory_items set reserved_qty = reserved_qty + 1")
    assert {broken["invariant"] for broken in audit(db, since)} == {"reserved_is_what_open_lines_hold"}


# What a host may do, one statement or several each.
LAWFUL = {
    "support corrects an address": "update vendor_orders set shipping_address.line1 = '14 Main Street'",
    "the buyer pays otherwise": "update vendor_orders set payment_method = 'cash'",
    "the intent says so": "update payment_intents set method = 'cash'",
    "a part is paid": """
        update vendor_orders set balance_due_cents = balance_due_cents - 400 where balance_due_cents > 400
    """,
    "a part is charged": """
        update vendor_orders set balance_due_cents = balance_due_cents - 400 where balance_due_cents > 400;
        update payment_intents set status = 'pending', amount_cents = 400 where amount_cents > 400
    """,
    "the intent is over what is left": """
        update vendor_orders set balance_due_cents = balance_due_cents - 400 where balance_due_cents > 400;
        update payment_intents set amount_cents = amount_cents - 400 where amount_cents > 400
    """,
    "all is paid": "update vendor_orders set balance_due_cents = 0; update payment_intents set status = 'paid'",
    "a line of the host's own": """
        insert into order_line_items (order_id, name, category, unit, unit_price_cents, qty, total_cents)
        select id, 'Gift wrap', '', '', 200, 1, 200 from vendor_orders
    """,
    "tax and transport": """
        update vendor_orders set tax_cents = 80, transport_fee_cents = 20, total_cents = total_cents + 100,
                                 balance_due_cents = balance_due_cents + 100;
        update payment_intents set amount_cents = amount_cents + 100
    """,
    "accepted, on hold, under way": """
        update vendor_orders set status = 'accepted' where status = 'created_pending';
        update order_line_items set status = 'accepted'
         where status = 'pending' and id = (select min(id::text)::uuid from order_line_items);
        update order_line_items set status = 'hold' where status = 'pending'
    """,
    "in transit": "update vendor_orders set status = 'in_transit'",
    "delivered": "update vendor_orders set status = 'delivered'",
    "closed": "update vendor_orders set status = 'closed'",
    "notes": """
        update vendor_orders set notes = 'Ring twice.';
        update order_line_items set notes = 'x' where notes is null
    """,
    "another warning": """
        update vendor_orders set warnings = warnings || '[{"type": "late", "message": "Late."}]';
        update order_line_items set warnings = '[]'
    """,
    "keys are purged": "select checkout_requests_purge('0')",
    "events are sent and purged": "select outbox_ack(null, array_agg(id)) from outbox_events; select outbox_purge('0')",
    "a person is erased": "select checkout_erase(id) from cart_records",
    "a cart is purged": "update vendor_orders set status = 'closed'; select cart_purge('0')",
    "stock is counted anew": "update inventory_items set available_qty = 3 where slots = 1",
    "slots are changed": "select inventory_split(product_id, 5) from inventory_items where slots > 1",
    "slots are merged": "select inventory_split(product_id, 1) from inventory_items where slots > 1",
}  # fmt: skip


@pytest.mark.parametrize("statement", LAWFUL.values(), ids=LAWFUL)
def test_what_a_host_may_do_is_not_reported(undone, sound, statement):
    """An audit that cries wolf is not read."""
    undone.execute(statement)
    assert audit(undone) == []
    assert in_slices(undone, size=1) == []


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    ("statement", "invariant", "times"),
    [
        # of each order that has units left to give back
        ("update vendor_orders set status = 'canceled'", "ended_order_holds_nothing", 1),
        ("update vendor_orders set status = 'expired'", "ended_order_holds_nothing", 1),
        ("update vendor_orders set status = 'rejected'", "ended_order_holds_nothing", 1),
        ("update vendor_orders set status = 'fulfilled'", "ended_order_holds_nothing", 1),
        ("update order_line_items set status = 'rejected' where status = 'pending'", "ended_line_holds_nothing", 2),
        ("update order_line_items set status = 'fulfilled' where status = 'pending'", "ended_line_holds_nothing", 2),
    ],
)
def test_stock_that_a_state_of_the_host_leaves_behind_is_named_and_nothing_else(
    undone, sound, statement, invariant, times
):
    """What has ended and still holds stock; the amounts count what is held, so that no other figure is wrong."""
    undone.execute(statement)
    assert [broken["invariant"] for broken in audit(undone)] == [invariant] * times
    held = "select id::text from order_line_items where reserved_qty > 0"
    orders = "select distinct order_id::text from order_line_items where reserved_qty > 0"
    expected = values(undone, orders if "order_holds" in invariant else held)
    assert {broken["id"] for broken in audit(undone)} == set(expected)


@pytest.mark.breaks_invariants
def test_a_foreign_order_under_an_anchor_is_reported_whatever_it_carries(undone, sound):
    """With lines and an intent of its own, and the cart's id: no checkout made it."""
    undone.execute(
        """
        insert into vendor_orders
          (cart_id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents, balance_due_cents)
        select id, checkout_group_id, buyer_store_id, gen_random_uuid(), 5000, 5000, 5000 from cart_records
        """
    )
    undone.execute(
        """
        insert into order_line_items (order_id, product_id, name, category, unit, unit_price_cents, qty, total_cents)
        select id, gen_random_uuid(), 'Old', '', '', 5000, 1, 5000 from vendor_orders where total_cents = 5000
        """
    )
    undone.execute(
        "insert into payment_intents (order_id, method, amount_cents)"
        " select id, 'cash', 5000 from vendor_orders where total_cents = 5000"
    )
    [foreign] = values(undone, "select id::text from vendor_orders where total_cents = 5000")
    assert [(broken["invariant"], broken["id"]) for broken in audit(undone)] == [
        ("anchor_has_its_own_orders_alone", foreign)
    ]


@pytest.mark.breaks_invariants
def test_a_data_only_restore_that_lost_the_parts_of_carts_is_seen(healthy, dsn, empty_database, program, psql):
    """The triggers of a migrated database let no part of a converted cart in, and a restore goes on without."""
    into = empty_database()
    pycheckout.migrate(into)
    tables = "cart_records cart_vendor_groups cart_items vendor_orders order_line_items payment_intents outbox_events"
    tables += " inventory_items inventory_slots inventory_holds checkout_requests"
    chosen = [f"--table={table}" for table in tables.split()]
    dump = subprocess.run(
        [program("pg_dump"), "--data-only", *chosen, "--dbname", dsn],
        capture_output=True,
        encoding="utf-8",
        check=True,
        timeout=60,
    )
    psql(stdin=dump.stdout, dsn=into)
    with psycopg.connect(into, row_factory=dict_row) as restored:
        assert values(restored, "select count(*) from vendor_orders") == [2]
        assert values(restored, "select count(*) from cart_items") == [0]
        found = {broken["invariant"] for broken in audit(restored)}
    assert found >= {"line_has_its_cart_item", "order_has_its_vendor_group", "cart_totals_are_its_groups"}


@pytest.fixture(scope="module")
def followed_once(shared_dsns):
    """An order with a deadline that was put off, two adjustments that come to nothing, and a payment."""
    with psycopg.connect(shared_dsns(), autocommit=True) as db:
        cart = carts_of(db)(vendors=1, lines=1, quantity=1, unit_price_cents=1000)
        execute_sql(db, cart, expires_in="1 hour")
        order = cart.groups[0].id
        db.execute("select vendor_order_extend(%s, now() + interval '2 hours')", (order,))
        db.execute("select order_adjust(%(of)s, 7, 'a', 'k1'), order_adjust(%(of)s, -7, 'b', 'k2')", {"of": order})
        db.execute("select payment_record(%s, 'acme', 'evt', 'captured', 400, 'USD')", (order,))
        assert audit(db) == []
        yield db, order


@pytest.fixture
def followed(followed_once):
    """The connection and the order, in a transaction that is rolled back."""
    db, order = followed_once
    with db.transaction(force_rollback=True):
        yield db, order


PAID = "where event_type = 'payment.changed'"


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    ("invariant", "statement"),
    [
        ("every_payment_has_its_event", f"delete from outbox_events {PAID}"),
        ("every_payment_has_its_event", f"update outbox_events set payload = '{{}}' {PAID}"),
        ("every_payment_has_its_event", f"update outbox_events set aggregate_id = gen_random_uuid() {PAID}"),
        ("every_payment_has_its_event", f"update outbox_events set event_type = 'payment' {PAID}"),
        ("every_payment_has_its_event", f"""
            update outbox_events set payload = jsonb_set(payload, '{{data,payment,amount_cents}}', '401') {PAID}
         """),
        ("every_payment_has_its_event", "update payment_events set provider = 'other'"),
        ("event_will_be_sent", f"update outbox_events set next_attempt_at = null {PAID}"),
        ("event_will_be_sent", f"update outbox_events set next_attempt_at = 'infinity' {PAID}"),
        ("event_says_what_it_is", f"update outbox_events set payload = '{{}}' {PAID}"),
        ("event_says_what_it_is", f"update outbox_events set aggregate_type = 'order' {PAID}"),
        ("event_says_what_it_is", f"update outbox_events set payload = payload || '{{\"type\": \"paid\"}}' {PAID}"),
        ("event_of_a_change_has_its_change", "delete from order_changes where kind = 'extended'"),
        ("event_of_a_change_has_its_change", "delete from order_changes where kind = 'adjusted'"),
    ],
)  # fmt: skip
def test_what_became_of_the_events_of_changes_and_payments_is_seen(followed, invariant, statement):
    """Before any purge, each has its own, and is sent as it is."""
    db, _ = followed
    break_it(db, statement)
    assert invariant in {broken["invariant"] for broken in audit(db)}
    assert ordered(in_slices(db, size=1)) == ordered(audit(db))


@pytest.mark.breaks_invariants
def test_a_payment_that_was_lost_leaves_its_event(followed):
    """Of two, since an order without any is as its host left it."""
    db, order = followed
    db.execute("select payment_record(%s, 'acme', 'later', 'failed', 0, 'USD')", (order,))
    break_it(db, "delete from payment_events where kind = 'failed'")
    assert [broken["invariant"] for broken in audit(db)] == ["every_payment_has_its_event"]


@pytest.mark.parametrize(
    "statement",
    [
        "select payment_record(id, 'acme', 'rest', 'captured', 600, 'USD') from vendor_orders;"
        " update payment_intents set status = 'pending'",
        "select outbox_ack(null, array_agg(id)) from outbox_events; select outbox_purge('0')",
        "select outbox_ack(null, array_agg(id)) from outbox_events where event_type <> 'payment.changed';"
        " select outbox_purge('0')",
        "select outbox_park(id, 1, 'refused', now()) from outbox_events",
        "select outbox_park(id, 1, 'refused', now()) from outbox_events; select outbox_replay(id) from outbox_events",
        "select outbox_park(id, 1, 'no', now()) from outbox_events; select outbox_discard(id, 'x') from outbox_events",
        "select checkout_erase(id) from cart_records",
        "update vendor_orders set status = 'closed'; select cart_purge('0')",
    ],
)
def test_what_becomes_of_the_events_of_changes_and_payments_is_not_reported(followed, statement):
    """Sent, purged, parked, replayed, given up, erased."""
    db, _ = followed
    db.execute(statement)
    assert audit(db) == []
    assert in_slices(db, size=1) == []


def test_a_cart_that_took_the_ids_of_a_purged_one_is_not_judged_by_its_orders(db, add_cart, checkout_sql):
    """A host's own statements may do that; the order's group and items went with its cart."""
    cart = add_cart(vendors=1, lines=1, quantity=2)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set status = 'closed'")
    assert values(db, "select cart_purge('0')") == [1]
    later = add_cart(vendors=1, lines=1, quantity=1, unit_price_cents=5)
    db.execute(
        "update cart_vendor_groups set id = %s, minimum_cents = 1000000 where cart_id = %s",
        (cart.groups[0].id, later.id),
    )
    db.execute("update cart_items set id = %s where cart_id = %s", (cart.items[0].id, later.id))
    assert audit(db) == []


# In slices


@pytest.mark.breaks_invariants
def test_slices_of_any_size_find_what_one_look_finds(db, add_cart, checkout_sql):
    """Nothing is found less, and nothing twice, wherever the slices end."""
    for _ in range(7):
        checkout_sql(db, add_cart(vendors=3))
    for statement in (
        "update payment_intents set amount_cents = amount_cents + 1",
        "update cart_records set status = 'active' where id in (select id from cart_records order by id limit 3)",
        "delete from vendor_orders where cart_id = (select max(id::text)::uuid from cart_records)",
        "delete from outbox_events where event_type = 'checkout.converted'",
        "update inventory_items set reserved_qty = reserved_qty + 1",
    ):
        break_it(db, statement)
    # a conversion of which nothing is left but its key, and one without even an anchor
    break_it(db, "insert into cart_records (buyer_store_id, status, converted_at, valid_until)"
                 " values (gen_random_uuid(), 'converted', now(), now())")  # fmt: skip
    break_it(db, "insert into checkout_requests select buyer_store_id, 'k', '', id from cart_records"
                 " where checkout_group_id is null")  # fmt: skip

    whole = audit(db)

    assert len({broken["invariant"] for broken in whole}) >= 6
    for size in (1, 2, 4, 18, 1000):
        assert ordered(in_slices(db, size)) == ordered(whole), size
    [(middle,)] = db.execute(
        "select converted_at from cart_records where converted_at is not null order by 1 offset 3 limit 1"
    )
    for size in (1, 1000):
        assert ordered(in_slices(db, size, middle)) == ordered(audit(db, middle))


def test_a_slice_is_found_by_indexes(db):
    """So that many slices cost no more than their rows: none has to read a whole table."""
    add_orders(db, 2000)
    db.execute("set enable_seqscan = off")  # tables of this size are read whole for less
    tables = ("cart_records", "vendor_orders", "order_line_items", "payment_intents", "outbox_events", "cart_items")
    [(after, upto)] = db.execute(
        "select min(anchor)::uuid, max(anchor)::uuid from (select distinct checkout_group_id::text as anchor"
        " from vendor_orders order by 1 limit 100) as first"
    )
    scans = "select sum(seq_scan)::int from pg_stat_xact_user_tables where relname = any(%s)"

    with db.transaction():
        assert values(db, "select count(*) from checkout_audit_slice(null, %s, %s)", after, upto) == [0]
        assert values(db, scans, list(tables)) == [0]


@pytest.fixture
def measured(dsn):
    """measured(): exit code and lines of `pycheckout audit --json`, and what it and its backend took at most, in MB."""

    def resident(pid, what):
        with contextlib.suppress(OSError, ValueError):
            [size] = re.findall(rf"^{what}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
            return int(size) / 1024
        return 0.0

    def measured(*args):
        command = [PROGRAM, "audit", "--json", "--database", dsn, *args]
        with (
            tempfile.TemporaryFile() as output,
            psycopg.connect(dsn, autocommit=True) as watch,
            subprocess.Popen(command, env=environment(), stdout=output) as process,
        ):
            find = "select pid from pg_stat_activity where datname = %s and application_name = 'pycheckout'"
            own = theirs = 0.0
            while process.poll() is None:
                own = max(own, resident(process.pid, "VmHWM"))
                # without the shared buffers that it touched
                theirs = max(theirs, *(resident(pid, "RssAnon") for pid in values(watch, find, watch.info.dbname)), 0.0)
                time.sleep(0.02)
            output.seek(0)
            return process.returncode, sum(1 for _ in output), own, theirs

    return measured


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(
    "orders", [40_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)
def test_an_audit_takes_no_more_memory_however_much_there_is(db, server, measured, orders):
    """Neither the client nor its backend grows, not even when everything is broken."""
    if server.host not in ("127.0.0.1", "localhost") or not Path("/proc/self/status").exists():
        pytest.skip("the backend's memory is read in /proc")
    add_orders(db, orders)

    db.execute("update payment_intents set amount_cents = amount_cents + 1")
    db.execute("update inventory_items set reserved_qty = reserved_qty + 1")

    code, lines, own, theirs = measured()

    assert (code, lines) == (3, orders + 5000)
    # 48 MB each, however many orders; PostgreSQL 15 takes 130
    assert 10 < own < 100
    assert 5 < theirs < (100 if db.info.server_version >= 160000 else 200)


# What it judges


def test_history_that_the_package_did_not_write_is_not_judged(db, add_cart, checkout_sql):
    """An existing database's converted carts and orders keep whatever figures they have."""
    cart = add_cart(cart={"checkout_group_id": "ac000000-0000-4000-8000-000000000001"})
    db.execute("update cart_records set status = 'converted', converted_at = now() where id = %s", (cart.id,))
    db.execute(
        """
        insert into vendor_orders
          (checkout_group_id, cart_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        select checkout_group_id, id, buyer_store_id, gen_random_uuid(), 5, 77 from cart_records
        """
    )
    db.execute(
        """
        insert into order_line_items (order_id, product_id, name, category, unit, unit_price_cents, qty, total_cents)
        select id, gen_random_uuid(), 'Old', '', '', 3, 4, 5 from vendor_orders
        """
    )
    assert audit(db) == []
    # it replays, under a key that is bound from now on, and stays history
    assert checkout_sql(db, cart)["replayed"] is True
    assert audit(db) == []


def test_stock_that_was_reserved_before_the_package_came_is_allowed_for(db, add_cart, checkout_sql):
    """The migration noted it; the audit counts from there."""
    cart = add_cart(vendors=1, lines=1)
    product = cart.items[0].product_id
    db.execute("update inventory_items set reserved_qty = 5 where product_id = %s", (product,))
    db.execute("insert into inventory_baseline values (%s, 5)", (product,))
    checkout_sql(db, cart)
    assert audit(db) == []
    db.execute(
        "update inventory_items set reserved_qty = 1 where product_id = %s", (product,)
    )  # the host released its own
    assert audit(db) == []


def test_the_audit_writes_nothing(db, healthy, snapshot):
    """It may run anywhere, on a standby too."""
    before = snapshot(db)
    with db.transaction():
        db.execute("set transaction read only")
        assert audit(db) == []
    assert snapshot(db) == before


def test_a_healthy_database_gives_no_rows_while_checkouts_run(db, connect, pool, add_cart, checkout):
    """Zero rows at any moment, under load: one snapshot sees each checkout whole or not at all."""
    products = [item.product_id for item in add_cart(vendors=1, lines=6, stock=50).items]
    for product in products[:3]:
        db.execute("select inventory_split(%s, 4)", (product,))
    # more than there is, in both orders, with some replays in between
    carts = [
        add_cart(vendors=2, lines=2, products=chosen) for chosen in (products[:4], products[5:1:-1]) for _ in range(30)
    ]
    done = threading.Event()
    audits = []

    def watch(conn):
        while not done.is_set() or not audits:
            audits.append(audit(conn))

    def buy(own):
        with pool.connection() as conn:
            for cart in own:
                checkout(conn, cart, key=f"k-{cart.id}")
                conn.commit()

    with ThreadPoolExecutor(4) as threads:
        watching = threads.submit(watch, connect(autocommit=True))
        try:
            for buying in [threads.submit(buy, carts[part::3]) for part in range(3)]:
                buying.result()
        finally:
            done.set()
        watching.result()

    assert audits and not any(audits)
    assert values(db, "select count(*) from cart_records where status = 'converted'") == [60]
