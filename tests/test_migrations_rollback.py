"""Apply, roll back, apply: the same schema each time, no row lost on the way."""

import re
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb
from upgrade import (
    IDS,
    MIGRATIONS,
    SQL_IDS,
    apply_until,
    connect,
    dump,
    run_yoyo,
    start_yoyo,
    value,
    without_labels,
    yoyo_backend,
)

import pycheckout
from factories import ADDRESS
from races import wait_for_waiter, wait_until_blocked


def rows(conn):
    """Every row of every table but yoyo's and the ledger, whose ids go on counting."""
    tables = conn.execute("select tablename as name from pg_tables where schemaname = 'public' and tablename !~ 'yoyo'")
    return {
        table["name"]: conn.execute(f"select to_jsonb(t) as row from {table['name']} as t order by t::text").fetchall()
        for table in tables.fetchall()
        if table["name"] != "checkout_ledger"
    }


@pytest.fixture(params=["fresh", "net", "gross"])
def shape(request):
    return request.param


def test_apply_rollback_apply_gives_the_same_schema(database, program, shape):
    """PF-168 to PF-171, through yoyo's own program."""
    url = database(shape)
    if shape == "net":
        with connect(url) as conn:
            conn.execute("comment on table checkout_groups is 'the host says'")
    original = dump(program, url)

    run_yoyo("apply", dsn=url)
    first = dump(program, url)
    run_yoyo("rollback", "--all", dsn=url)
    back = dump(program, url)
    run_yoyo("apply", dsn=url)

    assert dump(program, url) == first
    if shape == "fresh":
        assert back == original
    else:
        assert without_labels(back) == without_labels(original)


def test_rollback_and_apply_keep_every_row(database, shape):
    """PF-168: the archive goes back to where it came from; the anchors that carts were given stay."""
    with connect(database(shape)) as conn:
        before = rows(conn)
    url = database(shape, migrated=True)
    with connect(url) as conn:
        migrated = rows(conn)
        pycheckout.rollback(url)
        back = rows(conn)
        if shape == "net":
            conn.execute(
                "update cart_records set checkout_group_id = null where id in (select id('cart', n) from "
                "generate_series(5, 8) as n)"
            )
            back = rows(conn)
        assert back == before
        pycheckout.migrate(url)
        again = rows(conn)
        del migrated["checkout_releases"], again["checkout_releases"]
        assert again == migrated


# the first, those that watch the earlier system, and those around its end
@pytest.mark.parametrize(
    "stop",
    [
        "0001_baseline",
        "watch_checkout_groups",
        "converted_carts_immutable",
        "catch_up_anchors",
        "drop_checkout_groups",
        "inventory_baseline",
    ],
)
def test_rollback_from_halfway_leaves_nothing(database, program, stop):
    """PF-168: an interrupted upgrade can be taken back, whichever migration was the last."""
    url = database("net")
    original = dump(program, url)
    apply_until(url, stop)
    pycheckout.rollback(url)
    assert without_labels(dump(program, url)) == without_labels(original)


@pytest.mark.parametrize("shape", ["net", "fresh"], indirect=True)
def test_each_migration_can_be_rolled_back_and_applied_alone(database, program, shape):
    """PF-168 to PF-171: its twin undoes it and no more."""
    url = database(shape, migrated=True)
    # the others are a remark
    twins = {migration: (MIGRATIONS / f"{migration}.rollback.sql").read_text() for migration in SQL_IDS}
    undoing = [*(migration for migration, twin in twins.items() if re.search(r"^[^-\n]", twin, re.MULTILINE)), IDS[-1]]
    assert undoing[0] == IDS[0]

    def found():
        """What a migration of that moment would build on."""
        ledger = "select migration, kind, table_name, name, definition from checkout_ledger order by 1, 2, 3, 4"
        there = value(conn, "select to_regclass('checkout_ledger') is not null")
        schema = without_labels(dump(program, url, "--no-comments"))
        # a check that one migration adds and a later one validates stands in another place until then
        said = r"^(?!--|ALTER TABLE public\.\w+$) *(?:ADD )?(.+?)(?: NOT VALID)?[,;]?$"
        lines = re.findall(said, schema, re.MULTILINE)
        return sorted(lines), conn.execute(ledger).fetchall() if there else []

    def without_later_indexes(lines, now):
        """Some migrations note the indexes that later ones build, which have no twin of their own."""
        noted = "|".join(entry["name"] for entry in now[1] if entry["kind"] == "index")
        built = re.compile(rf"CREATE (UNIQUE )?INDEX ({noted}) ")
        return [each for each in lines if each in now[0] or not built.match(each)]

    with connect(url) as conn, yoyo_backend(url) as (backend, migrations):
        expected, before = dump(program, url), {}
        # all the way down, and what is there without each of them is what it is built on, on the way up
        for migration in reversed(migrations):
            backend.rollback_one(migration)
            if migration.id in undoing:
                before[migration.id] = found()
        for migration in migrations:
            if migration.id in undoing:
                now, (lines, noted) = found(), before[migration.id]
                assert now == (without_later_indexes(lines, now), noted), migration.id
            backend.apply_one(migration)
        assert dump(program, url) == expected


# Refused


def convert(conn, cart_id, buyer_store_id):
    conn.execute(
        "select checkout_execute(%s, %s, 'k1', %s, 'ach')",
        (buyer_store_id, cart_id, Jsonb(ADDRESS)),
    )


def add_and_convert(conn):
    """A cart of a fresh install, converted."""
    store, product = UUID(int=1), UUID(int=2)
    conn.execute("insert into inventory_items (product_id, available_qty) values (%s, 10)", (product,))
    conn.execute(
        """
        insert into cart_records (id, buyer_store_id, valid_until, subtotal_cents, total_cents)
        values (%s, %s, now() + interval '1 day', 100, 100)
    """,
        (UUID(int=3), UUID(int=4)),
    )
    conn.execute(
        """
        insert into cart_vendor_groups (cart_id, vendor_store_id, subtotal_cents, total_cents) values (%s, %s, 100, 100)
    """,
        (UUID(int=3), store),
    )
    conn.execute(
        """
        insert into cart_items
          (cart_id, product_id, vendor_store_id, title, quantity, unit_price_cents, line_subtotal_cents)
        values (%s, %s, %s, 'Thing', 1, 100, 100)
    """,
        (UUID(int=3), product, store),
    )
    convert(conn, UUID(int=3), UUID(int=4))


def convert_host_cart(conn):
    convert(
        conn, *conn.execute("select id, buyer_store_id from cart_records where id = id('cart', 13)").fetchone().values()
    )


def convert_host_cart_and_purge_keys(conn):
    convert_host_cart(conn)
    conn.execute("delete from checkout_requests")


REASONS = {
    "carts of a fresh install": ("fresh", add_and_convert, "vendor_orders.order_number"),
    "a converted cart": ("net", convert_host_cart, "checkout_requests"),
    "a converted cart of a host with most columns": ("gross", convert_host_cart, "checkout_requests"),
    "a converted cart without its key": ("net", convert_host_cart_and_purge_keys, "cart_records."),
    "slots": ("net", "select inventory_split(id('product', 1), 4)", "inventory_items.slots"),
    "a signing key": ("fresh", "select ad_signing_key_put('k', decode(repeat('ab', 32), 'hex'))", "ad_signing_keys"),
    "stock of a fresh install": (
        "fresh",
        "insert into inventory_items (product_id) values (gen_random_uuid())",
        "inventory_items",
    ),
    "what a quote wrote": (
        "net",
        "update cart_items set title = 'Better' where id = id('item', 91)",
        "cart_items.title",
    ),
    "an order without its group": (
        "net",
        "update vendor_orders set cart_id = id('cart', 9) where id = id('order', 91)",
        "vendor_orders.cart_id",
    ),
    "an order whose cart was purged": (
        "net",
        "insert into cart_change_permits values (id('cart', 8), pg_current_xact_id());"
        "delete from cart_records where id = id('cart', 8); delete from cart_change_permits",
        "vendor_orders.cart_id",
    ),
    "an order of the host that no group has": (
        "net",
        """
        insert into vendor_orders (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        values (id('order', 999), id('anchor', 999), id('store', 11), id('store', 5), 100, 100)
        """,
        "orders were made since checkout_groups went",
    ),
}


# Either has the same function look; yoyo in the migration that it would undo first.
BY_YOYO = ["carts of a fresh install", "a converted cart", "an order without its group"]


@pytest.mark.parametrize(
    ("reason", "tool"), [*((reason, "pycheckout") for reason in REASONS), *((reason, "yoyo") for reason in BY_YOYO)]
)
def test_rollback_that_would_lose_rows_says_which_and_changes_nothing(database, program, reason, tool):
    """PF-168 to PF-171: refused while the functions still work, not halfway down."""
    shape, statement, named = REASONS[reason]
    url = database(shape, migrated=True)
    with connect(url) as conn:
        statement(conn) if callable(statement) else conn.execute(statement)
        before, schema = rows(conn), dump(program, url)

        if tool == "pycheckout":
            with pytest.raises(pycheckout.MigrationError) as caught:
                pycheckout.rollback(url)
            said = f"{caught.value} {caught.value.hint}"
        else:
            process = start_yoyo("rollback", "--all", dsn=url)
            said, _ = process.communicate(timeout=60)
            assert process.returncode != 0

        assert "would lose" in said or "has no row for them" in said
        assert named in said
        assert dump(program, url) == schema
        assert rows(conn) == before
        assert value(conn, "select checkout_version() ->> 'version'")


def test_row_that_is_still_uncommitted_is_not_lost(database):
    """PF-168 to PF-171: the rollback waits for its transaction before it looks."""
    url = database("fresh", migrated=True)
    with connect(url, autocommit=False) as other, connect(url) as watcher, ThreadPoolExecutor(1) as pool:
        other.execute("insert into checkout_requests values (gen_random_uuid(), 'k', '', gen_random_uuid())")
        rollback = pool.submit(pycheckout.rollback, url)
        wait_until_blocked(watcher, wait_for_waiter(watcher, other.info.backend_pid))
        other.commit()
        with pytest.raises(pycheckout.MigrationError, match="would lose the rows of table checkout_requests"):
            rollback.result(timeout=30)
        assert value(watcher, "select count(*) from checkout_requests") == 1


def test_rollback_names_the_rows_by_a_query(database):
    """PF-168: DETAIL is a statement that shows them."""
    url = database("net", migrated=True)
    with connect(url) as conn:
        convert_host_cart_and_purge_keys(conn)
        with pytest.raises(psycopg.errors.ObjectInUse) as caught:
            conn.execute("select checkout_migration_check('pycheckout_0015_cart_confirmation')")
        found = conn.execute(caught.value.diag.message_detail).fetchall()
        assert [row["id"] for row in found] == [value(conn, "select id('cart', 13)")]


def test_rollback_of_orders_that_the_archive_does_not_know_is_refused(database):
    """PF-168: whoever clears what would be lost, and not the orders, gets no orders without a group."""
    url = database("net")
    apply_until(url, "drop_checkout_groups")
    with connect(url) as conn:
        conn.execute("""
            insert into vendor_orders
              (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
            values (id('order', 999), id('anchor', 999), id('store', 11), id('store', 5), 100, 100)
        """)
        with pytest.raises(pycheckout.MigrationError, match="orders were made since checkout_groups went") as caught:
            pycheckout.rollback(url)
        assert str(value(conn, "select id('order', 999)")) in str(caught.value)
        assert value(conn, "select to_regclass('checkout_groups_archive') is not null")


def test_rollback_after_the_archive_was_dropped_is_refused(database):
    """PF-168: the DBA may drop it; that is the end of the way back."""
    url = database("net", migrated=True)
    with connect(url) as conn:
        conn.execute("drop table checkout_groups_archive")
        with pytest.raises(pycheckout.MigrationError, match="its archive was dropped"):
            pycheckout.rollback(url)
        assert value(conn, "select checkout_version() ->> 'version'"), "nothing was undone"


def test_index_and_columns_of_the_host_outlive_the_rollback(database):
    """PF-168, PF-169: the ledger knows what was there before."""
    url = database("gross")
    with connect(url) as conn:
        conn.execute(
            "create unique index concurrently idx_cart_records_checkout_group_id on cart_records"
            " (checkout_group_id) where checkout_group_id is not null"
        )
    pycheckout.migrate(url)
    pycheckout.rollback(url)
    with connect(url) as conn:
        assert value(conn, "select count(*) from pg_indexes where indexname ~ '^idx_.*checkout_group_id$'") == 2
        assert (
            value(
                conn,
                "select count(*) from pg_attribute where attrelid = 'vendor_orders'::regclass"
                " and attname in ('cart_id', 'shipping_line') and not attisdropped",
            )
            == 2
        )


# What depends on ours

DEPENDANTS = {
    "a foreign key": (
        "net",
        "create table returns (id int, request_buyer uuid, request_key text,"
        " constraint returns_request foreign key (request_buyer, request_key) references checkout_requests)",
        "constraint returns_request on table returns",
    ),
    "a foreign key to a fresh install's orders": (
        "fresh",
        "create table returns (id int, order_id uuid constraint returns_order references vendor_orders)",
        "constraint returns_order on table returns",
    ),
    "a view on a column": ("net", "create view promos as select id, promo from vendor_orders", "view promos"),
    "a view on a view": ("net", "create view stock as select * from inventory_levels", "view stock"),
    "a materialized view in another schema": (
        "net",
        "create schema reports; create materialized view reports.promos as select id, cart_id from vendor_orders",
        "materialized view reports.promos",
    ),
    "a function with a row": (
        "net",
        "create function split(slot inventory_slots) returns int language sql return 1",
        "function split(inventory_slots)",
    ),
    "a default that calls a function": (
        "net",
        "create table notes (id int, version jsonb default checkout_version())",
        "default value for column version of table notes",
    ),
    "a trigger on a column": (
        "net",
        "create function of_host() returns trigger language plpgsql as 'begin return new; end';"
        " create trigger watch_promos before update of promo on vendor_orders for each row execute function of_host()",
        "trigger watch_promos on table vendor_orders",
    ),
    "a trigger on a table": (
        "net",
        "create function of_host() returns trigger language plpgsql as 'begin return new; end';"
        " create trigger watch_keys before insert on checkout_requests for each row execute function of_host()",
        "trigger watch_keys on table checkout_requests",
    ),
    "a column of a type": ("net", "create table ads (id int, place ad_placement)", "table ads"),
}


@pytest.mark.parametrize(
    ("kind", "tool"), [*((kind, "pycheckout") for kind in DEPENDANTS), ("a view on a column", "yoyo")]
)
def test_rollback_names_what_depends_on_ours_and_undoes_nothing(database, program, kind, tool):
    """PF-168: and says nothing of CASCADE."""
    shape, statement, named = DEPENDANTS[kind]
    url = database(shape, migrated=True)
    with connect(url) as conn:
        conn.execute(statement)
        before = dump(program, url)

        if tool == "pycheckout":
            with pytest.raises(pycheckout.MigrationError, match="which depend on pycheckout") as caught:
                pycheckout.rollback(url)
            assert caught.value.detail["dependants"] == [named]
            said = f"{caught.value} {caught.value.hint}"
        else:
            process = start_yoyo("rollback", "--all", dsn=url)
            said, _ = process.communicate(timeout=60)
            assert process.returncode != 0

        assert named in said
        assert "CASCADE" not in said.upper()
        assert dump(program, url) == before
        assert value(conn, "select checkout_version() ->> 'version'")


def test_nothing_of_ours_depends_on_ours(database, shape):
    """Nor what of the host depends on its own tables and columns."""
    url = database(shape, migrated=True)
    with connect(url) as conn:
        if shape != "fresh":
            conn.execute("create view host as select id, buyer_store_id, status from vendor_orders")
        assert value(conn, "select checkout_migration_dependants()") is None
    pycheckout.rollback(url)
