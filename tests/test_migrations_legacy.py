"""What the migrations do to the earlier system's database, and what they leave alone."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from uuid import uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb
from upgrade import (
    apply_until,
    connect,
    dump,
    run_yoyo,
    start_yoyo,
    value,
    without_labels,
)

import pycheckout
from factories import ADDRESS
from pycheckout import _migrate
from races import wait_for_waiter, wait_until_blocked

SHAPES = ["net", "gross"]


@pytest.fixture(params=SHAPES)
def shape(request):
    return request.param


@pytest.fixture
def legacy(database):
    """legacy("net"): a database of the earlier system, migrated or not, its URL and a connection."""
    opened = []

    def legacy(shape, *, migrated=False):
        url = database(shape, migrated=migrated)
        opened.append(connect(url))
        return url, opened[-1]

    yield legacy
    for conn in opened:
        with suppress(psycopg.OperationalError):
            assert value(conn, "select to_regproc('checkout_audit') is null") or audit(conn) == []
        conn.close()


def audit(conn):
    return conn.execute("select * from checkout_audit()").fetchall()


def check_out(conn, cart_id, key="k1"):
    return value(
        conn,
        "select checkout_execute(buyer_store_id, id, %s, %s, 'ach') from cart_records where id = %s",
        key,
        Jsonb(ADDRESS),
        cart_id,
    )


COLUMNS = """
select format('%s.%s', relname, attname) as name, format_type(atttypid, atttypmod) as type,
       attnotnull as not_null, pg_get_expr(adbin, adrelid) as fallback, col_description(attrelid, attnum) as comment
  from pg_attribute
  join pg_class on pg_class.oid = attrelid and relnamespace = 'public'::regnamespace and relkind in ('r', 'c')
  left join pg_attrdef on adrelid = attrelid and adnum = attnum
 where attnum > 0 and not attisdropped and relname !~ 'yoyo'
"""
COMMENTS = """
select relname::text as name, obj_description(oid, 'pg_class') as comment from pg_class
 where relnamespace = 'public'::regnamespace and relkind in ('r', 'v') and relname !~ 'yoyo'
 union all
select typname::text, obj_description(oid, 'pg_type') from pg_type
 where typnamespace = 'public'::regnamespace
   and (typtype = 'e' or typrelid in (select oid from pg_class where relkind = 'c'))
"""
OBJECTS = """
select 'index' as kind, indexdef as definition from pg_indexes where schemaname = 'public' and tablename !~ 'yoyo'
 union all
select 'constraint', format('%s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid)) from pg_constraint
 where connamespace = 'public'::regnamespace and contype <> 'n' and conrelid::regclass::text !~ 'yoyo'
"""


# The host's schema


def test_everything_of_the_host_is_as_it_was(legacy, shape):
    """PF-168 to PF-171: columns, comments, indexes, constraints, but for the two names that the tickets change."""
    url, conn = legacy(shape)
    conn.execute("comment on column vendor_orders.checkout_group_id is 'the host says'")
    conn.execute("comment on table outbox_events is 'the host says'; comment on type cart_status is 'the host says'")
    if shape == "gross":
        conn.execute("comment on column vendor_orders.promo is 'the host says'")

    def read():
        columns = {row.pop("name"): row for row in conn.execute(COLUMNS).fetchall()}
        comments = {row["name"]: row["comment"] for row in conn.execute(COMMENTS).fetchall()}
        return columns, comments, {tuple(row.values()) for row in conn.execute(OBJECTS).fetchall()}

    columns, comments, objects = read()
    run_yoyo("apply", dsn=url)
    columns_after, comments_after, objects_after = read()

    assert comments.keys() - comments_after.keys() == ({"checkout_groups"} if shape == "net" else set())
    assert {name: comments[name] for name in comments.keys() & comments_after.keys()}.items() <= comments_after.items()
    assert [name for name in comments_after.keys() - comments.keys() if not comments_after[name]] == []
    for name, column in columns.items():
        name = name.replace("vendor_orders.discount_cents", "vendor_orders.discounts_cents")
        name = name.replace("checkout_groups.", "checkout_groups_archive.")
        assert columns_after.pop(name) == column, name
    assert [name for name, column in columns_after.items() if not column["comment"]] == [], "the rest is ours"
    to_groups = {
        each
        for each in objects
        if "REFERENCES checkout_groups" in each[1] or (each[1].startswith("checkout_groups ") and "FOREIGN" in each[1])
    }
    assert len(to_groups) == (3 if shape == "net" else 0)
    renamed = {(kind, text.replace("checkout_groups_archive", "checkout_groups")) for kind, text in objects_after}
    assert objects - to_groups <= renamed
    assert not to_groups & renamed


def test_new_columns_take_the_types_of_their_counterparts(legacy, shape):
    """PF-169, PF-170: int beside int, the enum beside the enum, and enum labels only ever added at the end."""
    url, conn = legacy(shape)
    labels = "select enum_range(null::event_type_enum)::text[] || enum_range(null::aggregate_type_enum)::text[]"
    before = value(conn, labels)
    pycheckout.migrate(url)

    types = {row["name"]: row["type"] for row in conn.execute(COLUMNS).fetchall()}
    for name in (
        "cart_items.line_total_cents",
        "cart_items.line_discounts_cents",
        "cart_items.tax_cents",
        "cart_vendor_groups.discounts_cents",
        "cart_vendor_groups.minimum_cents",
        "cart_vendor_groups.shipping_cents",
        "cart_vendor_groups.shipping_tax_cents",
        "cart_vendor_groups.promo_discount_cents",
        "order_line_items.line_subtotal_cents",
        "order_line_items.tax_cents",
        "vendor_orders.adjustments_cents",
        "vendor_orders.discounts_cents",
        "vendor_orders.refund_due_cents",
        "vendor_orders.shipping_tax_cents",
    ):
        assert types[name] == "integer", name
    assert types["cart_items.unit"] == "unit"
    assert types["cart_items.category"] == types["cart_items.title"] == "text"
    assert types["address_t.geohash"] == "text"
    assert set(value(conn, labels)) - set(before) == {
        "checkout.vendor_orders_created",
        "checkout.converted",
        "vendor_order.canceled",
        "vendor_order.decided",
        "vendor_order.adjusted",
        "vendor_order.expired",
        "vendor_order.extended",
        "order_line.released",
        "order_line.fulfilled",
        "order_line.returned",
        "payment.changed",
    }


def test_enum_types_of_another_schema_learn_our_values_too(legacy):
    """PF-168: the outbox of a host may use types that all its schemas share."""
    url, conn = legacy("net")
    conn.execute("create schema shared; alter type event_type_enum set schema shared")
    pycheckout.migrate(url)
    assert "checkout.converted" in value(conn, "select enum_range(null::shared.event_type_enum)::text[]")
    assert check_out(conn, value(conn, "select id('cart', 9)"))["outcome"] == "complete"


# PF-168


def test_archive_holds_every_group_and_an_install_without_them_has_none(legacy, shape):
    """PF-168: the clicks and dates of checkout_groups stand nowhere else."""
    url, conn = legacy(shape)
    groups = conn.execute("select * from checkout_groups order by id").fetchall() if shape == "net" else []
    pycheckout.migrate(url)

    assert value(conn, "select to_regclass('checkout_groups') is null")
    if shape == "net":
        assert conn.execute("select * from checkout_groups_archive order by id").fetchall() == groups
    else:
        assert value(conn, "select to_regclass('checkout_groups_archive') is null")


def test_orders_and_carts_have_the_anchor_that_checkout_groups_says(legacy, shape):
    """PF-168: those whose group names no cart keep a null, and no active cart gets one."""
    _url, conn = legacy(shape, migrated=True)
    found = conn.execute("""
        select distinct n, cart.id = id('cart', n) as own_cart, vendor_order.cart_id = id('cart', n) as orders_say_so
          from generate_series(1, 20) as n
          left join cart_records as cart on cart.checkout_group_id = id('anchor', n)
          left join vendor_orders as vendor_order on vendor_order.checkout_group_id = id('anchor', n)
         order by n
    """).fetchall()
    assert [tuple(row.values()) for row in found] == [
        (n, True, True) if n <= 8 else (n, None, None) for n in range(1, 21)
    ]


def test_foreign_keys_of_other_tables_and_schemas_to_checkout_groups_go_and_come_back(legacy, program):
    """PF-168: no orphaned key, wherever it starts, and the rollback restores each."""
    url, conn = legacy("net")
    conn.execute('create schema "Ads; x"')
    conn.execute('create table "Ads; x"."click s" (id uuid primary key, "a b" uuid references checkout_groups)')
    conn.execute("""insert into "Ads; x"."click s" values (id('click', 1), id('anchor', 1))""")
    before = dump(program, url)

    pycheckout.migrate(url)
    assert value(conn, "select count(*) from pg_constraint where confrelid::regclass::text ~ 'checkout_groups'") == 0
    assert value(conn, """select count(*) from "Ads; x"."click s" """) == 1
    run_yoyo("rollback", "--all", dsn=url)
    assert without_labels(dump(program, url)) == without_labels(before)


def add_order_as_the_earlier_system(conn, n, *, cart=None):
    """A checkout of the earlier system: a group first, then its order; the cart itself stays without the anchor."""
    conn.execute(
        "insert into checkout_groups (id, buyer_store_id, cart_id) select %s, id('store', 11), %s",
        (value(conn, "select id('anchor', %s)", n), cart),
    )
    add_order_to_group(conn, n)


def add_order_to_group(conn, n):
    conn.execute(
        """
        insert into vendor_orders (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        values (id('late', %(n)s), id('anchor', %(n)s), id('store', 11), id('store', 5), 100, 100)
        """,
        {"n": n},
    )


def test_rows_that_came_after_the_backfill_are_caught_up(legacy):
    """PF-168: a new group with its order, an order that an old group got late, and a group that learnt its cart."""
    url, conn = legacy("net")
    apply_until(url, "outbox_unsent")
    add_order_as_the_earlier_system(conn, 50, cart=value(conn, "select id('cart', 9)"))
    add_order_to_group(conn, 1)
    conn.execute("update checkout_groups set cart_id = id('cart', 10) where id = id('anchor', 10)")

    pycheckout.migrate(url)

    assert value(conn, "select cart_id = id('cart', 9) from vendor_orders where id = id('late', 50)")
    assert value(conn, "select cart_id = id('cart', 1) from vendor_orders where id = id('late', 1)")
    assert value(conn, "select bool_and(cart_id = id('cart', 10)) from vendor_orders where id = id('order', 101)")
    assert value(conn, "select checkout_group_id = id('anchor', 50) from cart_records where id = id('cart', 9)")
    assert value(conn, "select checkout_group_id = id('anchor', 10) from cart_records where id = id('cart', 10)")


def test_checkout_of_the_earlier_system_that_still_runs_is_waited_for(legacy):
    """PF-168: its rows become visible only after the backfill, and under the lock."""
    url, conn = legacy("net")
    apply_until(url, "outbox_unsent")
    with connect(url, autocommit=False) as running, ThreadPoolExecutor(1) as pool:
        add_order_as_the_earlier_system(running, 50, cart=value(conn, "select id('cart', 9)"))
        rest = pool.submit(pycheckout.migrate, url)
        wait_until_blocked(conn, wait_for_waiter(conn, running.info.backend_pid))
        running.commit()
        rest.result(timeout=30)

    assert value(conn, "select cart_id = id('cart', 9) from vendor_orders where id = id('late', 50)")
    assert value(conn, "select checkout_group_id = id('anchor', 50) from cart_records where id = id('cart', 9)")


# Names of the lines


def test_lines_of_active_carts_take_their_names_from_products(legacy, shape):
    """PF-170: those columns that the migration brought; a title that the host left empty is the host's."""
    _url, conn = legacy(shape, migrated=True)
    [found] = conn.execute("""
        select bool_and(item.category = product.category::text) as categories,
               bool_and(item.unit = product.unit) as units, bool_and(item.title = product.title) as titles
          from cart_items as item
          join cart_records as cart on cart.id = item.cart_id and cart.status = 'active'
          join products as product on product.id = item.product_id
    """).fetchall()
    assert found == {"categories": True, "units": shape == "net", "titles": shape == "net"}
    assert value(conn, "select count(*) from cart_items where category <> ''") == 36, "converted carts stay as they are"


@pytest.mark.parametrize(
    "change",
    [
        "drop table products cascade",
        "alter table products alter title drop not null; update products set title = null, unit = 'gram'",
        "alter table products alter unit type text; update products set unit = 'bushel'",
        "alter table products drop column category, drop column unit",
        "alter table products rename id to key",
    ],
)
def test_products_of_any_shape_do_not_stop_the_migration(legacy, change):
    """PF-170: what is not there, null or of another type is left out."""
    url, conn = legacy("net")
    conn.execute(change)
    pycheckout.migrate(url)
    assert check_out(conn, value(conn, "select id('cart', 9)"))["outcome"] == "complete"


def test_columns_that_come_take_any_enum_of_the_order_lines(legacy):
    """PF-170: a category that is an enum there is one on the cart's lines as well."""
    url, conn = legacy("net")
    conn.execute("alter table order_line_items alter category type category using category::category")
    pycheckout.migrate(url)
    assert value(
        conn,
        "select format_type(atttypid, 0) from pg_attribute where attrelid = 'cart_items'::regclass "
        "and attname = 'category'",
    ).startswith("category")
    assert check_out(conn, value(conn, "select id('cart', 9)"))["outcome"] == "complete"


# The host goes on


def test_quotes_and_stock_that_the_host_writes_without_our_columns_check_out(legacy, shape):
    """PF-168 to PF-171: its statements name none of the new columns."""
    _url, conn = legacy(shape, migrated=True)
    with conn.transaction():
        conn.execute("""
            insert into cart_records (id, buyer_store_id, subtotal_cents, total_cents)
            values (id('cart', 99), id('store', 12), 1000, 1000)
        """)
        conn.execute("""
            insert into cart_items
              (id, cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)
            values (id('item', 990), id('cart', 99), id('product', 1), id('store', 2), 2, 500, 1000)
        """)
        if shape == "gross":
            conn.execute("update cart_items set line_total_cents = 1000 where id = id('item', 990)")
        conn.execute("""
            insert into cart_vendor_groups (cart_id, vendor_store_id, subtotal_cents, total_cents)
            values (id('cart', 99), id('store', 2), 1000, 1000)
        """)
    conn.execute("""
        insert into inventory_items (product_id, available_qty, reserved_qty, updated_at)
        values (id('product', 1), 40, 1, now())
        on conflict (product_id) do update set available_qty = excluded.available_qty, updated_at = excluded.updated_at
    """)
    conn.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
        " values ('order_created'::event_type_enum, 'store'::aggregate_type_enum, id('store', 1), '{}')"
    )
    conn.execute("update vendor_orders set status = 'accepted', internal_notes = 'seen' where id = id('order', 11)")

    result = check_out(conn, value(conn, "select id('cart', 99)"))

    [order] = result["vendor_orders"]
    assert (order["subtotal_cents"], order["total_cents"], order["items"][0]["qty"]) == (1000, 1000, 2)
    assert order["items"][0]["name"] == str(value(conn, "select id('product', 1)"))
    assert value(conn, "select available_qty from inventory_items where product_id = id('product', 1)") == 38
    assert value(conn, "select (shipping_address).geohash is null from vendor_orders where id = %s", order["order_id"])


def test_orders_equal_their_groups_to_the_cent(legacy, shape):
    """PF-169, PF-170: net discounts are not taken off twice; gross lines add up and the promo is what remains."""
    _url, conn = legacy(shape, migrated=True)
    for n in range(13, 21):
        for order in check_out(conn, value(conn, "select id('cart', %s)", n))["vendor_orders"]:
            [group] = conn.execute(
                "select * from cart_vendor_groups where cart_id = id('cart', %s) and vendor_store_id = %s",
                (n, order["vendor_store_id"]),
            ).fetchall()
            assert (order["subtotal_cents"], order["total_cents"]) == (group["subtotal_cents"], group["total_cents"])
            assert order["discounts_cents"] == group["subtotal_cents"] - group["total_cents"]
            lines = sum(item["discount_cents"] for item in order["items"])
            assert order["discounts_cents"] - lines == (300 if shape == "gross" else 0)
            assert sum(item["total_cents"] for item in order["items"]) - group["total_cents"] == (
                300 if shape == "gross" else 0
            )


def test_line_that_is_not_available_gets_no_order(legacy):
    """PF-170: cart 12 has one, alone in its vendor's group."""
    _url, conn = legacy("net", migrated=True)
    result = check_out(conn, value(conn, "select id('cart', 12)"))

    [vendor] = result["rejected_vendors"]
    assert (result["outcome"], vendor["reason"]) == ("partial", "vendor_invalid")
    assert [(item["status"], item["warnings"][0]["type"]) for item in vendor["items"]] == [
        ("not_available", "not_available")
    ]
    assert str(vendor["vendor_store_id"]) not in {order["vendor_store_id"] for order in result["vendor_orders"]}


def test_gross_line_without_its_total_is_refused_with_both_figures(legacy):
    """PF-170: line_total_cents is 0 on every row written before the host had it."""
    _url, conn = legacy("gross", migrated=True)
    for n in range(9, 13):
        with pytest.raises(psycopg.DatabaseError) as caught:
            check_out(conn, value(conn, "select id('cart', %s)", n))
        assert caught.value.sqlstate == "OC007"
        detail = json.loads(caught.value.diag.message_detail)
        assert (detail["problem"], detail["found"]) == ("line_amounts", 0)
        assert detail["expected"] > 0


def test_stock_that_was_reserved_before_is_allowed_for(legacy, shape):
    """PF-170: the audit counts from what the migration found, and no further."""
    url, conn = legacy(shape)
    expected = conn.execute(
        "select product_id, reserved_qty from inventory_items where reserved_qty > 0 order by 1"
    ).fetchall()
    pycheckout.migrate(url)
    assert conn.execute("select * from inventory_baseline order by 1").fetchall() == expected

    check_out(conn, value(conn, "select id('cart', 13)"))
    assert audit(conn) == []
    conn.execute("update inventory_items set reserved_qty = reserved_qty + 1 where product_id = id('product', 1)")
    assert [row["invariant"] for row in audit(conn)] == ["reserved_is_what_open_lines_hold"]
    conn.execute("update inventory_items set reserved_qty = reserved_qty - 1 where product_id = id('product', 1)")


# Refused before any change


@pytest.mark.parametrize(
    ("damage", "message", "named"),
    [
        ("alter table cart_items drop column quantity", "too old for pycheckout: it has no cart_items.quantity", []),
        ("drop table cart_vendor_groups", "too old for pycheckout: it has no cart_vendor_groups", []),
        (
            "update checkout_groups set cart_id = id('cart', 1) where id = id('anchor', 9)",
            "not one to one",
            [("cart", 1), ("anchor", 1), ("anchor", 9)],
        ),
        (
            "update cart_records set checkout_group_id = id('anchor', 1) where id = id('cart', 9)",
            "not one to one",
            [("anchor", 1), ("cart", 1), ("cart", 9)],
        ),
        (
            "update cart_records set checkout_group_id = id('anchor', 77) where id = id('cart', 5)",
            "not one to one",
            [("cart", 5), ("anchor", 77), ("anchor", 5)],
        ),
    ],
)
def test_what_cannot_be_carried_over_stops_yoyo_before_any_change(legacy, program, damage, message, named):
    """PF-168: with the rows named; a second try, where yoyo has its tables by now, says the same."""
    url, conn = legacy("net")
    conn.execute(damage)
    before = dump(program, url)

    process = start_yoyo("apply", dsn=url)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0
    with pytest.raises(pycheckout.MigrationError, match=message) as caught:
        pycheckout.migrate(url)
    for said in (output, f"{caught.value} {caught.value.detail}"):
        assert message in said
        for kind, n in named:
            assert str(value(conn, "select id(%s, %s)", kind, n)) in said
    assert dump(program, url) == before


def test_anchor_on_two_carts_is_refused_without_checkout_groups_too(legacy, program):
    """PF-168"""
    url, conn = legacy("gross")
    conn.execute("update cart_records set checkout_group_id = id('anchor', 1) where id = id('cart', 9)")
    before = dump(program, url)
    with pytest.raises(pycheckout.MigrationError, match="not one to one"):
        pycheckout.migrate(url)
    assert dump(program, url) == before


# Indexes


def test_invalid_index_that_a_failed_build_left_is_built_anew(legacy):
    """PF-168: IF NOT EXISTS would take it for done."""
    url, conn = legacy("net")
    conn.execute("update cart_records set checkout_group_id = id('anchor', 1) where id = id('cart', 9)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        conn.execute(
            "create unique index concurrently idx_cart_records_checkout_group_id on cart_records (checkout_group_id)"
        )
    conn.execute("update cart_records set checkout_group_id = null where id = id('cart', 9)")

    pycheckout.migrate(url)

    assert value(
        conn,
        "select indisvalid and indisunique and indpred is not null from pg_index"
        " where indexrelid = 'idx_cart_records_checkout_group_id'::regclass",
    )


def test_build_that_fails_within_the_migration_is_begun_anew(legacy):
    """PF-168: IF NOT EXISTS would pass over the invalid index the second time."""
    url, conn = legacy("net")
    apply_until(url, "order_anchor_index")
    conn.execute("update cart_records set checkout_group_id = id('anchor', 1) where id = id('cart', 9)")
    with pytest.raises(pycheckout.MigrationError, match="could not create unique index"):
        pycheckout.migrate(url)
    conn.execute("update cart_records set checkout_group_id = null where id = id('cart', 9)")

    pycheckout.migrate(url)


def test_index_that_is_invalid_when_it_is_confirmed_is_told_with_the_way_out(legacy):
    """PF-168"""
    url, conn = legacy("net")
    apply_until(url, "order_buyer_index")
    invalid = "update pg_index set indisvalid = false where indexrelid = 'idx_cart_records_checkout_group_id'::regclass"
    conn.execute(invalid)

    with pytest.raises(pycheckout.MigrationError, match="missing, invalid") as caught:
        pycheckout.migrate(url)
    statement, rest = caught.value.hint.split("; ")
    assert rest == "then apply again."
    conn.execute(statement)
    pycheckout.migrate(url)


@pytest.mark.parametrize(
    ("index", "name"),
    [
        ("create index {} on cart_records (checkout_group_id)", "idx_cart_records_checkout_group_id"),
        ("create unique index {} on cart_records (id, checkout_group_id)", "idx_cart_records_checkout_group_id"),
        (
            "create unique index {} on cart_records (checkout_group_id) where status = 'active'",
            "idx_cart_records_checkout_group_id",
        ),
        ("create index {} on vendor_orders (vendor_store_id)", "idx_vendor_orders_checkout_group_id"),
        (
            "create index {} on vendor_orders (checkout_group_id) where notes is null",
            "idx_vendor_orders_checkout_group_id",
        ),
        ("create index {} on outbox_events (aggregate_id, event_type)", "idx_outbox_events_conversion"),
        ("create index {} on outbox_events (created_at)", "idx_outbox_events_due"),
        ("create index {} on outbox_events (aggregate_id) where published_at is null", "idx_outbox_events_waiting"),
        ("create index {} on outbox_events (published_at)", "idx_outbox_events_published"),
        ("create index {} on cart_records (valid_until)", "idx_cart_records_converted_at_valid_until"),
    ],
)
def test_index_of_the_host_that_has_our_name_but_does_less_is_refused(legacy, index, name):
    """PF-168: before any change; once the host has renamed its own, ours is built."""
    url, conn = legacy("net")
    conn.execute(index.format(name))
    with pytest.raises(
        pycheckout.MigrationError, match=f"0001_baseline: index {name} is not what it must be"
    ) as caught:
        pycheckout.migrate(url)
    assert "Drop or rename" in caught.value.hint

    conn.execute(f"alter index {name} rename to of_the_host")
    assert _migrate.plan(url).problems == ()
    if name == "idx_outbox_events_conversion":
        pycheckout.migrate(url)
        assert value(conn, f"select indisvalid from pg_index where indexrelid = '{name}'::regclass")


def test_index_of_the_host_that_does_the_same_is_kept(legacy):
    """PF-168: also one over both columns, as a fresh install has it; the rollback leaves it there."""
    url, conn = legacy("net")
    conn.execute(
        "create unique index idx_vendor_orders_checkout_group_id on vendor_orders (checkout_group_id, vendor_store_id)"
    )
    pycheckout.migrate(url)
    pycheckout.rollback(url)
    assert value(
        conn, "select indisunique from pg_index where indexrelid = 'idx_vendor_orders_checkout_group_id'::regclass"
    )
    assert value(conn, "select to_regclass('idx_vendor_orders_cart_id') is null")


def test_unsent_events_of_ours_become_the_relays_and_those_of_the_host_do_not(legacy):
    """Also when the relay's migrations are rolled back and applied again."""
    url, conn = legacy("net")
    apply_until(url, "outbox_waiting_index")
    conn.execute("""
        insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, published_at)
        values ('checkout.converted', 'checkout_group', gen_random_uuid(), '{}', null),
               ('vendor_order.canceled', 'vendor_order', gen_random_uuid(), '{}', null),
               ('vendor_order.canceled', 'vendor_order', gen_random_uuid(), '{}', now())
    """)

    pycheckout.migrate(url)

    claimed = conn.execute("select event_type from outbox_claim(1000) order by 1").fetchall()
    assert [row["event_type"] for row in claimed] == ["checkout.converted", "vendor_order.canceled"]
    assert value(conn, "select count(*) from outbox_events where published_at is null and next_attempt_at is null") > 0


# Size


# What a host runs all day, a session each: the statements of a transaction.
HOST = {
    "read": ["select * from cart_records where id = id('cart', 9)"],
    "orders read": [
        "select * from vendor_orders join order_line_items on order_id = vendor_orders.id where order_number = 5"
    ],
    "quote": [
        "insert into cart_records (id, buyer_store_id) values (%(id)s, id('store', 12))",
        "insert into cart_vendor_groups (cart_id, vendor_store_id, subtotal_cents, total_cents)"
        " values (%(id)s, id('store', 2), 500, 500)",
        "insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)"
        " values (%(id)s, id('product', 1), id('store', 2), 1, 500, 500)",
        "update cart_records set subtotal_cents = 500, total_cents = 500 where id = %(id)s",
    ],
    "stock": [
        "insert into inventory_items (product_id, available_qty) values (id('product', %(n)s), 40)"
        " on conflict (product_id) do update set available_qty = excluded.available_qty, updated_at = now()"
    ],
    "outbox": [
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
        " values ('order_state_changed', 'vendor_order', %(id)s, '{}')"
    ],
    "order": [
        "insert into cart_records (id, buyer_store_id) values (%(id)s, id('store', 12))",
        "insert into checkout_groups (id, buyer_store_id, cart_id) values (%(id)s, id('store', 12), %(id)s)",
        "insert into vendor_orders (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents,"
        " discount_cents, total_cents) values (%(id)s, %(id)s, id('store', 12), id('store', 2), 500, 0, 500)",
        "insert into order_line_items (order_id, name, category, unit, unit_price_cents, qty, total_cents)"
        " values (%(id)s, 'x', 'edible', 'gram', 500, 1, 500)",
        "insert into payment_intents (order_id, amount_cents) values (%(id)s, 500)",
        "update cart_records set status = 'converted' where id = %(id)s",
    ],
}
# Rows of its own, so that nobody but a migration waits for them.
LONG = """
update vendor_orders set notes = 'seen' where id = id('order', 11);
update cart_records set updated_at = now() where id = id('cart', 20);
update cart_items set updated_at = now() where cart_id = id('cart', 20);
update inventory_items set updated_at = now() where product_id = id('product', 40);
insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)
values ('order_state_changed', 'vendor_order', id('order', 11), '{}');
select pg_sleep(1)
"""


class Probes:
    """The host at work, how long its statements took by the clock, and how long the server saw them wait for locks."""

    def __init__(self, url):
        self.url, self.done = url, False
        self.longest, self.waits, self.errors = {}, {}, []

    def work(self, name):
        with connect(self.url, application_name=f"host {name}", prepare_threshold=None) as own:
            n = 0
            while not self.done:
                n += 1
                values = {"id": uuid4(), "n": 1 + n % 39}
                try:
                    with own.transaction():
                        for statement in HOST[name]:
                            started = time.monotonic()
                            try:
                                own.execute(statement, values)
                            finally:
                                seconds = time.monotonic() - started
                                if seconds > self.longest.get(name, (0, ""))[0]:
                                    self.longest[name] = (seconds, statement[:40])
                except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn):
                    assert name == "order", "the earlier checkout alone ends"
                time.sleep(0.01)

    def linger(self):
        with connect(self.url, prepare_threshold=None) as own:
            while not self.done:
                with own.transaction():
                    own.execute(LONG)
                time.sleep(1)

    def watch(self):
        query = """
            select application_name as name, extract(epoch from clock_timestamp() - waitstart)::float as seconds,
                   left(query, 40) as query
              from pg_locks join pg_stat_activity using (pid)
             where not granted and waitstart is not null and starts_with(application_name, 'host ')
        """
        with connect(self.url) as own:
            while not self.done:
                for row in own.execute(query).fetchall():
                    if row["seconds"] > self.waits.get(row["name"], (0, ""))[0]:
                        self.waits[row["name"]] = (row["seconds"], row["query"])
                time.sleep(0.005)

    def during(self, work):
        self.done, self.longest, self.waits = False, {}, {}
        with ThreadPoolExecutor(len(HOST) + 2) as pool:
            running = [pool.submit(self.work, name) for name in HOST]
            running += [pool.submit(self.linger), pool.submit(self.watch)]
            started = time.monotonic()
            try:
                work()
            finally:
                self.done = True
            seconds = time.monotonic() - started
            for each in running:
                each.result()
        return seconds


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_million_orders_migrate_while_the_host_reads_and_writes(legacy, capsys):
    """PF-168: no statement of the host waits for longer than 250 ms, whatever its own long transactions hold up."""
    url, conn = legacy("net")
    conn.execute("set statement_timeout = 0; set session_replication_role = replica")
    conn.execute("""
        insert into products
        select id('product', n), id('store', 1 + n % 5), 'SKU-' || n, 'Product ' || n,
               (enum_range(null::category))[1 + n % 4], (enum_range(null::unit))[1 + n % 6], 1, 500
          from generate_series(41, 600000) as n;
        insert into inventory_items select id('product', n), 100, n % 3, now() from generate_series(41, 600000) as n;
        insert into cart_records (id, buyer_store_id, status)
        select id('big cart', n), id('store', 11 + n % 10),
               case when n % 10 = 0 then 'active' else 'converted' end::cart_status
          from generate_series(1, 800000) as n;
        insert into checkout_groups (id, buyer_store_id, cart_id)
        select id('big anchor', n), id('store', 11 + n % 10), id('big cart', n)
          from generate_series(1, 800000) as n where n % 10 > 0;
        insert into vendor_orders (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        select id('big anchor', n), id('store', 11 + n % 10), id('store', 1 + v), 100, 100
          from generate_series(1, 800000) as n, generate_series(0, n % 2) as v where n % 10 > 0;
        insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents)
        select id('big cart', n), id('product', 1 + n % 40), id('store', 1), 1, 100
          from generate_series(1, 800000) as n;
        insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, published_at)
        select 'order_created', 'checkout_group', id('big anchor', n), '{}', now() from generate_series(1, 800000) as n;
    """)
    conn.execute("vacuum analyze")
    probes = Probes(url)

    idle = probes.during(lambda: time.sleep(20))
    without = dict(probes.longest)
    taken = probes.during(lambda: run_yoyo("apply", dsn=url, seconds=2400))

    with capsys.disabled():
        print(f"\na million orders: {taken:.0f} s, and before {idle:.0f} s without a migration; longest statements")
        for name, (seconds, statement) in sorted(probes.longest.items()):
            waited, query = probes.waits.get(f"host {name}", (0, ""))
            print(
                f"  {name}: {seconds * 1000:.0f} ms ({statement}), without {without[name][0] * 1000:.0f} ms;"
                f" of locks {waited * 1000:.0f} ms ({query})"
            )

    assert value(conn, "select count(*) from vendor_orders where cart_id is null") == 4
    assert max(waited for waited, _ in probes.waits.values()) < 0.25
    assert max(seconds for seconds, _ in probes.longest.values()) < 0.25
