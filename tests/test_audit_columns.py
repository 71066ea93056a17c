"""Every column of every table is watched by checkout_audit(), or docs/guarantees.md says why not."""

import re
from pathlib import Path

import pytest

from checks import rows, values

GUARANTEES = Path(__file__).parents[1] / "docs" / "guarantees.md"

# A change that breaks something, by type and for single columns.
CHANGES = {
    "uuid": "gen_random_uuid()",
    "bigint": "coalesce({column}, 0) + 1",
    "integer": "coalesce({column}, 0) + 1",
    "boolean": "not coalesce({column}, false)",
    "bytea": "coalesce({column}, '') || 'x'",
    "text": "coalesce({column}, '') || 'x'",
    "jsonb": """'{{"token_id": "changed"}}'""",
    "address_t": "null",
    "timestamp with time zone": "null",
    "cart_items.status": "case {column} when 'ok' then 'invalid' else 'ok' end::cart_item_status",
    "cart_records.payment_method": "'cash'",
    "cart_records.status": "'active'",
    "cart_vendor_groups.status": "case {column} when 'ok' then 'invalid' else 'ok' end::vendor_group_status",
    "inventory_items.available_qty": "-1",
    "inventory_slots.available_qty": "-1",
    "inventory_slots.slot": "{column} + 10",
    "order_changes.change_key": "id::text",
    "order_line_items.status": "'rejected'",
    "cart_vendor_groups.minimum_cents": "1000000000",
    "payment_intents.due_at": "now()",
    # the same on every order of a checkout
    "vendor_orders.billing_address": "jsonb_populate_record(null::address_t, jsonb_build_object('line1', id))",
    "vendor_orders.metadata": "jsonb_build_object('n', id)",
    "vendor_orders.purchase_order": "id::text",
    "vendor_orders.order_number": "null",
    "vendor_orders.status": "'canceled'",
    # what a line of the checkout may not have in it, beside the word of a shortage
    "order_line_items.notes": "'insufficient_inventory'",
}
# Nothing is there to change: a row too many is the fault.
ADDITIONS = {
    "cart_change_permits": "insert into cart_change_permits (cart_id, transaction_id) select id, '1' from cart_records",
}


@pytest.fixture
def not_judged():
    """What the docs list, and that each has a reason."""
    text = GUARANTEES.read_text(encoding="utf-8")
    [section] = re.findall(r"^## What the audit does not judge\n(.+?)^## ", text, flags=re.MULTILINE | re.DOTALL)
    listed = set()
    for what, why in re.findall(r"^\| (`.+?) \| (.+?) \|$", section, flags=re.MULTILINE):
        assert len(why) > 20, what
        names = re.findall(r"`([a-z_.]+)`", what)
        assert not listed & set(names)
        listed |= set(names)
    return listed


@pytest.fixture
def columns(db):
    """Columns of our tables by table, with their types."""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in db.execute(
        """
        select class.relname, attribute.attname, format_type(attribute.atttypid, attribute.atttypmod)
          from pg_class as class join pg_attribute as attribute on attribute.attrelid = class.oid
         where class.relkind = 'r' and class.relnamespace = current_schema()::regnamespace and class.relname !~ 'yoyo'
           and attribute.attnum > 0 and not attribute.attisdropped
         order by 1, attribute.attnum
        """
    ):
        found.setdefault(table, {})[column] = kind
    return found


@pytest.fixture
def everything(db, add_cart, checkout_sql):
    """Conversions with a row in every table that a checkout writes, and a value in every column that can have one."""
    cart = add_cart(
        vendors=3,
        lines=3,
        amounts="gross",
        stock=20,
        promo_cents=50,
        quantity=2,
        line_discount_cents=10,
        items={(0, 1): {"quantity": 21}, (1, 1): {"status": "invalid"}},
        groups={2: {"status": "invalid"}},
    )
    db.execute("select inventory_split(%s, 3)", (cart.items[0].product_id,))
    result = checkout_sql(db, cart, shipping_line={"code": "truck", "title": "Truck"})
    assert result["outcome"] == "partial"
    db.execute("select order_line_fulfil(%s), order_line_release(%s, 'torn')", (cart.items[3].id, cart.items[5].id))
    db.execute(
        "select payment_record(id, 'acme', 'evt', 'captured', 1, 'USD', now(), '{}')"
        " from (select id from vendor_orders order by id limit 1) as paid"
    )
    # constraints and keys stand before the audit; here it is alone
    for table, name in db.execute(
        "select conrelid::regclass::text, quote_ident(conname) from pg_constraint where contype in ('c', 'f')"
        " and connamespace = current_schema()::regnamespace and conrelid <> 0"
    ).fetchall():
        db.execute(f"alter table {table} drop constraint {name}")  # type: ignore[arg-type]
    assert audit(db) == []
    return cart


def audit(conn):
    return rows(conn, "select * from checkout_audit()")


def seen(conn, statement, prepare=""):
    """Whether the audit finds anything after the statement, of which nothing stays."""
    with conn.transaction(force_rollback=True):
        conn.execute("set local session_replication_role = replica")  # no trigger
        if prepare:
            conn.execute(prepare)
        done = conn.execute(statement)
        assert done.rowcount > 0, statement
        return audit(conn) != []


def change(table, column, kind):
    value = CHANGES.get(f"{table}.{column}") or CHANGES[kind]
    only = " where status = 'pending'" if (table, column) == ("order_line_items", "notes") else ""
    return f"update {table} set {column} = {value.format(column=column)}{only}"


@pytest.mark.breaks_invariants
def test_a_change_of_any_column_is_seen_or_listed(db, everything, columns, not_judged):
    """A column that is added later gets its invariant or its reason, or this fails."""
    unseen = []
    for table, own in columns.items():
        if table in not_judged or table in ADDITIONS:
            continue
        for column, kind in own.items():
            if f"{table}.{column}" in not_judged:
                continue
            nullable = f"alter table {table} alter column {column} drop not null"
            primary = values(
                db,
                "select conname from pg_constraint where contype = 'p' and conrelid = %s::regclass"
                " and (select attnum from pg_attribute where attrelid = conrelid and attname = %s) = any (conkey)",
                table,
                column,
            )
            if not seen(db, change(table, column, kind), "" if primary else nullable):
                unseen.append(f"{table}.{column}")
    assert unseen == []


@pytest.mark.breaks_invariants
def test_the_loss_of_any_table_is_seen_or_listed(db, everything, columns, not_judged):
    """As after a restore that left a table out."""
    kept = not_judged | {"checkout_requests", *ADDITIONS}  # keys may be purged
    unseen = [table for table in columns if table not in kept and not seen(db, f"delete from {table}")]
    assert unseen == []


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("table", sorted(ADDITIONS))
def test_a_row_where_none_may_be_is_seen(db, everything, table):
    assert seen(db, ADDITIONS[table])


def test_what_is_listed_is_there(columns, not_judged):
    """No reason outlives its column."""
    there = set(columns) | {f"{table}.{column}" for table, own in columns.items() for column in own}
    assert not_judged - there == set()


@pytest.mark.breaks_invariants
def test_what_is_listed_is_not_judged(db, everything, columns, not_judged):
    """A host that changes it is not told off."""
    harmless = CHANGES | {
        "timestamp with time zone": "{column} - interval '1 hour'",
        "address_t": """jsonb_populate_record({column}, '{{"city": "Enid"}}')""",
        "vendor_orders.payment_method": "'cash'",
        "payment_intents.method": "'cash'",
        "payment_intents.status": "'paid'",
        "text[]": "array['a']",
        "bytea": "sha256('x')",
    }
    told = []
    for name in sorted(name for name in not_judged if "." in name):
        table, column = name.split(".")
        value = harmless.get(name) or harmless[columns[table][column]]
        if seen(db, f"update {table} set {column} = {value.format(column=column)}"):
            told.append(name)
    assert told == []
