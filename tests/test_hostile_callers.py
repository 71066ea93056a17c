"""What a caller's session and a caller's texts cannot do."""

import psycopg
import pytest
from psycopg.types.json import Jsonb

from factories import ADDRESS

NASTY = "'\"; drop table vendor_orders; -- % %s %I $$ $1 \\ \\' {} \u202e\u00df\U0001f6d2 <script>"


@pytest.fixture
def service(db, dsn, worker_id):
    """A login role that has checkout_grant and nothing else, and a connection of it."""
    role = f"pycheckout_service_{worker_id}"
    db.execute(f"drop role if exists {role}")
    db.execute(f"create role {role} login password 'service'")
    db.execute("select checkout_grant(%s)", (role,))
    with psycopg.connect(dsn, user=role, password="service", autocommit=True) as conn:
        yield conn
    db.execute(f"drop owned by {role}")
    db.execute(f"drop role {role}")


def test_a_service_role_checks_out_and_reads_results(service, add_cart, checkout):
    answer = checkout(service, cart := add_cart())

    assert answer.outcome == "complete"
    [(seen,)] = service.execute("select checkout_result(%s, %s)", (cart.buyer_store_id, cart.id)).fetchall()
    assert seen["replayed"] is True
    assert service.execute("select checkout_version() ->> 'version'").fetchone()[0]


def test_a_service_role_waits_for_locks_no_longer_than_five_seconds(service):
    assert service.execute("show lock_timeout").fetchone() == ("5s",)


def test_a_service_role_can_touch_no_table_and_no_other_function(service, db):
    tables = db.execute(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'v')"
    )
    for (table,) in tables.fetchall():
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute(psycopg.sql.SQL("select * from {}").format(psycopg.sql.Identifier(table)))
    allowed = db.execute(
        "select proname from pg_proc"
        " where pronamespace = 'public'::regnamespace and has_function_privilege(%s, oid, 'execute')",
        (service.info.user,),
    ).fetchall()
    assert sorted(allowed) == [("checkout_execute",), ("checkout_result",), ("checkout_version",)]


def test_temp_tables_and_functions_of_our_names_change_nothing(service, db, add_cart, checkout):
    cart = add_cart()
    db.execute(f"grant temporary on database {db.info.dbname} to public")
    for table in (
        "cart_records",
        "cart_items",
        "checkout_requests",
        "vendor_orders",
        "inventory_items",
        "ad_signing_keys",
    ):
        service.execute(f"create temporary table {table} (id uuid)")
    service.execute("create function pg_temp.sha256(bytea) returns bytea language sql as 'select null::bytea'")

    answer = checkout(service, cart)

    assert answer.outcome == "complete"
    assert db.execute("select count(*) from public.vendor_orders").fetchone() == (len(answer.vendor_orders),)


@pytest.mark.parametrize(
    "path", ["''", "attacker, public", "attacker, pg_catalog, public", "pg_temp, attacker, public"]
)
def test_a_hostile_search_path_changes_nothing(db, connect, add_cart, snapshot, path):
    cart = add_cart()
    db.execute("create schema attacker")
    db.execute("create table attacker.cart_records (like public.cart_records)")
    db.execute("create function attacker.sha256(bytea) returns bytea language sql as $$ select 'x'::bytea $$")
    db.execute("create function attacker.jsonb_typeof(jsonb) returns text language sql as $$ select 'object' $$")
    db.execute("create function attacker.checkout_lock_cart(uuid, uuid) returns int language sql as 'select 1'")
    db.execute("create function attacker.checkout_uuid() returns uuid language sql as 'select null::uuid'")
    caller = connect(autocommit=True)
    caller.execute(f"set search_path = {path}")

    [(answer,)] = caller.execute(
        "select public.checkout_execute(%s, %s, 'k', %s, 'ach')",
        (cart.buyer_store_id, cart.id, Jsonb(ADDRESS)),
    ).fetchall()

    assert answer["outcome"] == "complete"
    assert db.execute("select octet_length(request_hash) from checkout_requests").fetchone() == (32,)


def test_nasty_texts_come_back_as_they_went_in(db, add_cart, checkout_sql, snapshot):
    warnings = [{"type": NASTY, "message": NASTY}]
    cart = add_cart(
        vendors=1,
        lines=1,
        groups={0: {"promo": {"code": NASTY, "amount_cents": 0}, "warnings": warnings}},
        items={(0, 0): {"title": NASTY, "category": NASTY, "unit": NASTY, "warnings": warnings}},
        ad_tokens=[NASTY, NASTY * 500],
    )
    address = ADDRESS | {"line1": NASTY, "line2": NASTY, "city": NASTY, "state": NASTY}
    line = {"code": NASTY, "title": NASTY, "price_cents": 1}
    key = "'\";--%$$\\"

    answer = checkout_sql(db, cart, key=key, shipping_address=address, shipping_line=line)

    assert answer == checkout_sql(db, cart, key=key, shipping_address=address, shipping_line=line) | {"replayed": False}
    assert answer["shipping_address"] == address
    assert answer["shipping_line"] == line
    [order] = answer["vendor_orders"]
    assert (order["promo"]["code"], order["warnings"]) == (NASTY, warnings)
    [item] = order["items"]
    assert (item["name"], item["category"], item["unit"], item["warnings"]) == (NASTY, NASTY, NASTY, warnings)


def test_a_role_that_quotes_can_write_carts_but_not_convert_one(db, dsn, worker_id, add_cart):
    role = f"pycheckout_quotes_{worker_id}"
    db.execute(f"drop role if exists {role}")
    db.execute(f"create role {role} login password 'quotes'")
    db.execute("select checkout_grant_quotes(%s)", (role,))
    cart = add_cart()
    try:
        with psycopg.connect(dsn, user=role, password="quotes", autocommit=True) as quotes:
            quotes.execute("update cart_items set title = 'new' where cart_id = %s", (cart.id,))
            quotes.execute("update cart_records set valid_until = now() + interval '1 day', updated_at = now()")
            for forbidden in (
                "update cart_records set status = 'converted'",
                "update cart_records set checkout_group_id = gen_random_uuid()",
                "update cart_records set payment_method = 'ach'",
                "select * from ad_signing_keys",
                "select * from vendor_orders",
                "select checkout_audit()",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    quotes.execute(forbidden)
    finally:
        db.execute(f"drop owned by {role}")
        db.execute(f"drop role {role}")
