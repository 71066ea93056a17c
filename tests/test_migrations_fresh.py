"""Migrations on an empty database: whole, in order, the same through every tool, and side by side with others."""

import itertools
import re
import subprocess
import sys

import psycopg
import pytest
import sqlparse
from psycopg import sql
from upgrade import IDS, MIGRATIONS, ROOT, SQL_IDS, connect, dump, roll_back_to, run_yoyo, value, yoyo_backend, yoyo_url
from yoyo import read_migrations
from yoyo.migrations import read_sql_migration

import pycheckout
from pycheckout._release import release

SQL_FILES = sorted(MIGRATIONS.glob("*.sql"))


def squeezed(text):
    return re.sub(r"\s+", " ", text).strip()


# The files


def test_every_migration_has_a_rollback_twin_and_every_twin_its_migration():
    """PF-168 to PF-171"""
    twins = {path.name.removesuffix(".rollback.sql") for path in SQL_FILES if ".rollback." in path.name}
    assert twins == {path.stem for path in SQL_FILES if ".rollback." not in path.name}


def test_every_migration_loads_and_depends_on_the_one_before_it():
    """PF-168 to PF-171"""
    migrations = read_migrations(str(MIGRATIONS))
    chain = {migration.id: {before.id for before in migration.depends} for migration in migrations}

    assert sorted(chain) == IDS
    assert chain == {IDS[0]: set()} | {later: {before} for before, later in itertools.pairwise(IDS)}
    assert [int(name.split("_")[1]) for name in IDS] == list(range(1, len(IDS) + 1))


def test_the_table_of_the_docs_has_every_migration_once():
    page = (ROOT / "docs" / "earlier-system.md").read_text(encoding="utf-8")
    listed = {}
    for numbers, what in re.findall(r"^\| \**(\d{4}[\d, to]*)\** \| (.*) \|$", page, re.MULTILINE):
        first, *more = map(int, re.findall(r"\d{4}", numbers))
        each = range(first, more[0] + 1) if " to " in numbers else [first, *more]
        assert not listed.keys() & set(each), numbers
        listed |= dict.fromkeys(each, what)

    assert sorted(listed) == list(range(1, len(IDS) + 1))
    said = [IDS[number - 1] for number, what in listed.items() if what == "deploys the functions"]
    assert said == [name for name in IDS if name not in SQL_IDS]


def test_migration_without_a_transaction_is_one_statement_with_a_harmless_twin():
    """PF-168: after a failure there, yoyo runs the twins of the steps that were finished.

    Blocks around a build may be run again, which test_migrations_interrupted sees; they have no twin.
    """
    for migration in read_migrations(str(MIGRATIONS)):
        migration.load()
        if not migration.use_transactions:
            _, _, statements = read_sql_migration(migration.path)
            _, _, twin = read_sql_migration(migration.path.replace(".sql", ".rollback.sql"))
            builds = [text for text in statements if re.search(r"create (unique )?index concurrently", text)]
            assert len(statements) == 1 or (len(builds), twin) == (1, []), migration.id
            assert [text for text in twin if "drop" in text.lower() or "delete" in text.lower()] == [], migration.id


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_yoyo_runs_what_the_file_says(path):
    """PF-168: sqlparse cuts at semicolons, which dollar quotes, strings and comments hold as well."""
    text = path.read_text()
    _, _, statements = read_sql_migration(str(path))

    lines = text.splitlines()
    while lines and (not lines[0].strip() or lines[0].startswith("--")):
        lines.pop(0)
    assert squeezed(" ".join(statements)) == squeezed("\n".join(lines))
    for statement in statements:
        code = sqlparse.format(statement, strip_comments=True).strip()
        assert code.endswith(";"), code
        assert code.count("$$") % 2 == 0, code


@pytest.mark.parametrize("path", SQL_FILES, ids=lambda path: path.name)
def test_comments_call_other_migrations_by_name(path):
    """A number in a comment is wrong once they are renumbered, and nothing would say so. 0001 stays what it is."""
    comments = re.findall(r"^ *--(?! depends:)(.*)$", path.read_text(), re.MULTILINE)
    assert re.findall(r"\b00(?!01)\d{2}\b", "\n".join(comments)) == []


def test_functions_of_the_migrations_are_stored_as_they_are_written(db):
    """PF-168"""
    written = "".join(path.read_text() for path in [*SQL_FILES, *(ROOT / "db" / "functions").rglob("*.sql")])
    stored = db.execute("""
        select proname, prosrc from pg_proc where pronamespace = current_schema()::regnamespace
    """).fetchall()

    assert len(stored) > 40
    assert [name for name, source in stored if source not in written] == []


NESTED = r"""
create function nested() returns text language plpgsql as $outer$
declare
  v_text text := 'one; two'; -- three; four
begin
  execute $inner$ create temporary table t as select 'a;b%s' as c; $inner$;
  raise notice '100 %% of %; done', v_text;
  return v_text || ';' || $q$ $$ ; $$ $q$;
end;
$outer$;

comment on function nested() is 'semi;colons % and ''quotes''';
"""


def test_nested_quotes_and_percent_signs_reach_the_server(database, tmp_path):
    url = database(migrated=True)
    (tmp_path / "host_0001_nested.sql").write_text(f"-- depends: {IDS[-1]}\n{NESTED}")
    command = [sys.executable, "-m", "yoyo", "apply", "--batch", "--no-config-file", "--database", yoyo_url(url)]
    subprocess.run([*command, str(MIGRATIONS), str(tmp_path)], check=True, capture_output=True)

    with connect(url) as conn:
        assert value(conn, "select prosrc from pg_proc where proname = 'nested'") in NESTED
        assert value(conn, "select nested()") == "one; two; $$ ; $$ "


# The database


def test_every_way_of_migrating_builds_the_same_database(database, program):
    """PF-168: the API, and the program with the repository's yoyo.ini; with arguments, test_migrations_settings."""
    by_api, by_file = database(migrated=True), database()

    command = [sys.executable, "-m", "yoyo", "apply", "--batch", "--database", yoyo_url(by_file)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)

    expected = dump(program, by_api)
    assert "checkout_execute" in expected
    assert dump(program, by_file) == expected
    with connect(by_file) as conn:
        assert value(conn, "select checkout_version() ->> 'version'") == release()
        assert conn.execute("select * from checkout_audit()").fetchall() == []


def test_source_inside_a_package_applies_as_well(database):
    """PF-168: `package:` is how an installed wheel's migrations are named."""
    url = database(migrated=True)
    roll_back_to(url, SQL_IDS[-1])
    command = [sys.executable, "-m", "yoyo", "apply", "--batch", "--no-config-file", "--database", yoyo_url(url)]
    subprocess.run([*command, "package:db:migrations"], cwd=ROOT, check=True, capture_output=True, timeout=60)

    with connect(url) as conn:
        assert value(conn, "select checkout_version() ->> 'version'") == release()
        noted = "select array_agg(migration_id order by migration_id) from _yoyo_migration"
        assert value(conn, noted) == IDS


TICKET_COLUMNS = {
    "vendor_orders": {
        "checkout_group_id": "uuid",
        "cart_id": "uuid",
        "currency": "text",
        "shipping_address": "address_t",
        "discounts_cents": "bigint",
        "warnings": "jsonb",
        "promo": "jsonb",
        "payment_method": "payment_method",
        "shipping_line": "jsonb",
        "attributed_token": "jsonb",
    },
    "order_line_items": {
        "cart_item_id": "uuid",
        "warnings": "jsonb",
        "applied_volume_discount": "jsonb",
        "moq": "integer",
        "max_qty": "integer",
        "line_subtotal_cents": "bigint",
        "attributed_token": "jsonb",
    },
    "cart_records": {
        "checkout_group_id": "uuid",
        "payment_method": "payment_method",
        "shipping_line": "jsonb",
        "converted_at": "timestamp with time zone",
    },
    "cart_items": {"line_discounts_cents": "bigint", "line_total_cents": "bigint"},
    "cart_vendor_groups": {"line_discounts_cents": "bigint", "promo_discount_cents": "bigint"},
}


@pytest.mark.parametrize("table", TICKET_COLUMNS)
def test_columns_of_the_tickets_are_there(db, table):
    """PF-169, PF-170, PF-171"""
    found = dict(
        db.execute(
            """
            select attname, format_type(atttypid, atttypmod) from pg_attribute
             where attrelid = %s::regclass and attnum > 0 and not attisdropped
            """,
            (table,),
        )
    )
    assert TICKET_COLUMNS[table].items() <= found.items()
    assert "discount_cents" not in found or table == "order_line_items"


def test_anchor_is_a_plain_indexed_uuid(db):
    """PF-168"""
    assert db.execute("select to_regclass('checkout_groups'), to_regclass('checkout_groups_archive')").fetchone() == (
        None,
        None,
    )
    assert [
        row[0]
        for row in db.execute(
            "select indexdef from pg_indexes where indexname ~ '_checkout_group_id$' order by indexname"
        )
    ] == [
        "CREATE UNIQUE INDEX idx_cart_records_checkout_group_id ON public.cart_records USING btree (checkout_group_id)"
        " WHERE (checkout_group_id IS NOT NULL)",
        "CREATE UNIQUE INDEX idx_vendor_orders_checkout_group_id ON public.vendor_orders"
        " USING btree (checkout_group_id, vendor_store_id)",
    ]
    keys = db.execute("select pg_get_constraintdef(oid) from pg_constraint where contype = 'f'").fetchall()
    assert [key for (key,) in keys if "checkout_group" in key] == []


def test_one_anchor_cannot_stand_on_two_carts(db, add_cart):
    """PF-168"""
    first, second = add_cart(), add_cart()
    db.execute("update cart_records set checkout_group_id = %s where id = %s", (first.id, first.id))
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute("update cart_records set checkout_group_id = %s where id = %s", (first.id, second.id))


def test_every_check_is_validated(db):
    """PF-169, PF-170"""
    assert db.execute("select conname from pg_constraint where not convalidated").fetchall() == []


# Side by side


def test_schemas_of_one_database_work_independently(empty_database, add_cart, checkout_sql):
    """PF-168: a market is a schema, through yoyo's ?schema= as well as by name."""
    url, odd = empty_database(), 'Märkt "2"; -- %s'
    with connect(url) as admin:
        admin.execute("create schema market_us")
    run_yoyo("apply", dsn=url, schema="market_us")
    pycheckout.migrate(url, schema=odd, create_schema=True)

    with connect(url) as us, connect(url) as other:
        us.execute("set search_path to market_us")
        other.execute(sql.SQL("set search_path to {}").format(sql.Identifier(odd)))
        cart = add_cart(conn=us)
        assert checkout_sql(us, cart)["outcome"] == "complete"
        assert value(other, "select count(*) from cart_records") == 0
        cart = add_cart(conn=other)
        assert checkout_sql(other, cart)["outcome"] == "complete"
        for conn in (us, other):
            assert value(conn, "select count(*) from vendor_orders") == 2
            assert conn.execute("select * from checkout_audit()").fetchall() == []
        assert value(us, "select to_regclass('public.cart_records') is null")

    run_yoyo("apply", dsn=url, schema="market_us")
    with yoyo_backend(url) as (backend, migrations):
        assert len(backend.to_apply(migrations)) == len(IDS), "the schema public has nothing applied"


def test_tables_of_a_later_schema_in_the_path_are_not_taken_for_ours(empty_database):
    """PF-168: with a search_path of several schemas, the first is the one that is installed into."""
    url = empty_database()
    with connect(url) as conn:
        conn.execute("create schema market; create table products (id uuid primary key, title text, category text)")
        conn.execute("create table checkout_groups (id int)")
        conn.execute("create table cart_records (id int)")
        conn.execute("create type cart_status as enum ('other')")

    pycheckout.migrate(url + "?options=-c%20search_path%3Dmarket%2Cpublic")

    with connect(url) as conn:
        assert value(conn, "select to_regclass('public.checkout_groups') is not null")
        assert value(conn, "select to_regclass('market.checkout_groups') is null")
        assert value(conn, "select enum_range(null::market.cart_status)::text") == "{active,converted}"
        assert (
            value(
                conn,
                "select count(*) from pg_attribute where attrelid = 'public.cart_records'::regclass and attnum > 0",
            )
            == 1
        )


def test_a_search_path_that_leads_nowhere_is_refused(empty_database):
    """As when psql runs the files: yoyo itself needs a schema before them."""
    baseline = (MIGRATIONS / "pycheckout_0001_baseline.sql").read_text()
    with connect(empty_database()) as conn:
        conn.execute("set search_path = nowhere")
        with pytest.raises(psycopg.errors.InvalidSchemaName, match="no schema of the search_path") as caught:
            conn.execute(baseline)
    assert "Create the schema first" in caught.value.diag.message_hint


def test_host_table_of_our_name_but_another_shape_is_refused_before_any_change(empty_database, program):
    """PF-168: what is not the earlier system's table is nothing to build on."""
    url = empty_database()
    with connect(url) as conn:
        conn.execute("create table outbox_events (id bigint primary key, body text)")
    before = dump(program, url)

    with pytest.raises(pycheckout.MigrationError, match="outbox_events: a table of yours"):
        pycheckout.migrate(url)
    assert dump(program, url) == before
