"""A caller's search_path, temporary objects, settings and rights reach nothing inside; any schema may hold it all."""

from contextlib import closing

import jwt
import psycopg
import pytest
from outbox import claim, ids
from psycopg import sql
from psycopg.types.json import Jsonb
from roles import ENTRY_POINTS

import pycheckout
from checks import row, rows, values
from factories import ADDRESS, carts_of, execute_sql

pytest_plugins = ["shared"]

NASTY = "'\"; drop table vendor_orders; -- % %s %I $$ $1 \\ \\' {} \u202e\u00df\U0001f6d2 <script>"
KEY = bytes(range(32))

# What an attacker shadows: our tables, our steps, pg_catalog's functions, and operators that fit better than its own.
SHADOWS = """
create table {schema}.cart_records (id uuid);
create table {schema}.checkout_requests (id uuid);
create table {schema}.checkout_releases (id uuid);
create table {schema}.inventory_items (id uuid);
create table {schema}.inventory_changes (id uuid);
create table {schema}.vendor_orders (id uuid);
create table {schema}.ad_signing_keys (id uuid);
create table {schema}.checkout_roles (id uuid);
create function {schema}.stolen() returns text language plpgsql as
  $$ begin raise exception 'the attacker''s code ran as %', current_user; end $$;
create function {schema}.sha256(bytea) returns bytea language sql as $$ select {schema}.stolen()::bytea $$;
create function {schema}.btrim(text) returns text language sql as $$ select {schema}.stolen() $$;
create function {schema}.length(text) returns int language sql as $$ select {schema}.stolen()::int $$;
create function {schema}.clock_timestamp() returns timestamptz language sql as
  $$ select {schema}.stolen()::timestamptz $$;
create function {schema}.jsonb_typeof(jsonb) returns text language sql as $$ select {schema}.stolen() $$;
create function {schema}.jsonb_build_object(text, uuid) returns jsonb language sql as
  $$ select {schema}.stolen()::jsonb $$;
create function {schema}.checkout_uuid() returns uuid language sql as $$ select {schema}.stolen()::uuid $$;
create function {schema}.checkout_raise_invalid(text, text) returns void language sql as $$ select {schema}.stolen() $$;
create function {schema}.checkout_lock_cart(uuid, uuid) returns int language sql as $$ select {schema}.stolen()::int $$;
create function {schema}.equal(uuid, uuid) returns boolean language sql as $$ select {schema}.stolen()::boolean $$;
create operator {schema}.= (function = {schema}.equal, leftarg = uuid, rightarg = uuid);
create function {schema}.differ(text, text) returns boolean language sql as $$ select {schema}.stolen()::boolean $$;
create operator {schema}.<> (function = {schema}.differ, leftarg = text, rightarg = text);
create type {schema}.address_t as (line1 int);
create type {schema}.payment_method as enum ('nothing');
"""

CALLS = {
    "checkout_execute": "(%(buyer)s, %(cart)s, 'k', %(address)s, 'ach')",
    "checkout_result": "(%(buyer)s, %(cart)s)",
    "checkout_version": "()",
    "checkout_metrics": "()",
    "checkout_audit": "()",
    "checkout_audit_rest": "(null)",
    "checkout_audit_slice": "(null, null, null)",
    "checkout_erase": "(%(cart)s)",
    "checkout_requests_purge": "('1 day')",
    "checkout_grant": "(%(role)s)",
    "checkout_grant_quotes": "(%(role)s)",
    "checkout_grant_orders": "(%(role)s)",
    "checkout_grant_operators": "(%(role)s)",
    "checkout_grant_payments": "(%(role)s)",
    "checkout_grant_relay": "(%(role)s)",
    "checkout_grant_stock": "(%(role)s)",
    "checkout_revoke": "(%(role)s)",
    "checkout_apply_grants": "(%(role)s, 'checkout')",
    "market_status": "()",
    "cart_get": "(%(buyer)s, %(cart)s)",
    "cart_purge": "('1 day')",
    "cart_put": "(%(quote)s)",
    "inventory_split": "(%(product)s, 3)",
    "inventory_restock": "(%(product)s, 1)",
    "inventory_set": "(%(product)s, 50)",
    "inventory_adjust": "(%(product)s, -1, 'k')",
    "inventory_changes_purge": "('1 day')",
    "inventory_get": "(array[%(product)s]::uuid[])",
    "inventory_set_many": "(%(levels)s)",
    "ad_signing_key_put": "('k1', %(secret)s)",
    "ad_signing_key_retire": "('k0')",
    "ad_token_check": "(%(token)s, %(buyer)s)",
    "order_adjust": "(%(order)s, -1, 'why', 'k')",
    "order_changes_list": "(%(order)s, %(order_buyer)s)",
    "order_get": "(%(order)s, %(order_buyer)s)",
    "orders_list": "(%(order_buyer)s, max_rows => 1)",
    "vendor_order_decide": "(%(order)s, %(decisions)s, 'k')",
    "vendor_order_cancel": "(%(order)s, 'why')",
    "order_line_release": "(%(line)s, 'why', 1, 'k')",
    "order_line_fulfil": "(%(line)s, 1, 'k')",
    "order_line_return": "(%(shipped)s, 'why', 1, true, 'k')",
    "payment_record": "(%(order)s, 'p', 'e', 'captured', 1, 'USD', '2026-01-01Z', '{}')",
    "vendor_orders_expire": "()",
    "vendor_order_extend": "(%(order)s, 'now'::timestamptz + interval '1 day')",
    "outbox_claim": "(10)",
    "outbox_extend": "(%(claim)s)",
    "outbox_ack": "(%(claim)s, %(events)s)",
    "outbox_fail": "(%(claim)s, %(event)s, 'why')",
    "outbox_release": "(%(claim)s, %(events)s)",
    "outbox_discard": "(%(event)s, 'why')",
    "outbox_replay": "(%(event)s)",
    "outbox_purge": "('1 day')",
}


def call(function, schema="public"):
    return sql.SQL("select {}.{}").format(sql.Identifier(schema), sql.Identifier(function)) + sql.SQL(CALLS[function])


@pytest.fixture(scope="module")
def arguments(shared_db):
    """What CALLS name, ready to be called with, in the database that the calls share: each is taken back."""
    db, add_cart = shared_db, carts_of(shared_db)
    cart = add_cart(ad_tokens=[token()])
    ordered = add_cart(vendors=1, lines=1)
    execute_sql(db, ordered, key="ordered")
    shipped = add_cart(vendors=1, lines=1)
    execute_sql(db, shipped, key="shipped")
    db.execute("select order_line_fulfil(%s)", [shipped.items[0].id])
    db.execute("select ad_signing_key_put('k0', %s)", [KEY])
    db.execute("update vendor_orders set expires_at = now() + interval '1 hour'")
    quote = {
        "id": "ca000000-0000-4000-8000-000000000099",
        "buyer_store_id": str(cart.buyer_store_id),
        "currency": "USD",
        "valid_until": "2999-01-01T00:00:00Z",
        "vendor_groups": [],
    }
    events = claim(db, lease="1 hour")
    return {
        "buyer": cart.buyer_store_id,
        "cart": cart.id,
        "address": Jsonb(ADDRESS),
        "product": cart.items[0].product_id,
        "quote": Jsonb(quote),
        "secret": KEY,
        "decisions": Jsonb([{"line_item_id": str(ordered.items[0].id), "accept_qty": 0, "reason": "x"}]),
        "token": token(),
        "role": db.info.user,
        "levels": Jsonb([{"product_id": str(cart.items[0].product_id), "available": 9}]),
        "order": ordered.groups[0].id,
        "order_buyer": ordered.buyer_store_id,
        "line": ordered.items[0].id,
        "shipped": shipped.items[0].id,
        "claim": events[0]["claim_id"],
        "event": events[0]["id"],
        "events": ids(events),
    }


def token(**claims):
    return jwt.encode(
        {
            "token_id": "70000000-0000-4000-8000-000000000001",
            "ad_id": "ad000000-0000-4000-8000-000000000001",
            "creative_id": "c0000000-0000-4000-8000-000000000001",
            "target_id": "d0000000-0000-4000-8000-000000000001",
            "buyer_store_id": "b0000000-0000-4000-8000-000000000001",
            "placement": "hero",
            "target_type": "product",
            "event_type": "click",
            "occurred_at": "2024-05-01T12:00:00Z",
            "exp": 4_000_000_000,
        }
        | claims,
        KEY,
        headers={"kid": "k0"},
    )


@pytest.fixture(scope="module")
def attacker(shared_db):
    """A schema with all that an attacker shadows."""
    shared_db.execute("create schema attacker")
    shared_db.execute(SHADOWS.format(schema="attacker"))
    return "attacker"


@pytest.fixture
def caller(shared_dsn):
    """A session of the database that the calls share; what a call does in it is rolled back."""
    with closing(psycopg.connect(shared_dsn, options="-c statement_timeout=30s")) as conn:
        yield conn


def assert_nothing_is_broken(conn):
    """By what the running transaction has written, if it has."""
    [wrote] = values(conn, "select pg_current_xact_id_if_assigned() is not null")
    assert not wrote or rows(conn, "select * from public.checkout_audit()") == []


# Paths and temporary objects


@pytest.mark.parametrize("path", ["''", "attacker", "attacker, pg_catalog, public", "pg_temp, attacker, public"])
@pytest.mark.parametrize("function", CALLS)
def test_a_callers_search_path_reaches_no_function(caller, attacker, arguments, function, path):
    """Of our functions, those for the owner too: it is with a superuser's path that they would do most harm."""
    caller.execute(f"set search_path = {path}")

    caller.execute(call(function), arguments)
    assert_nothing_is_broken(caller)


def test_every_function_that_is_called_from_outside_is_tried(shared_db):
    pinned = "select proname::text from pg_proc where proconfig::text ~ 'search_path=' and prorettype <> 2279"
    assert set(values(shared_db, pinned + " and pronamespace = 'public'::regnamespace")) == set(CALLS)


@pytest.mark.parametrize("function", CALLS)
def test_temporary_objects_of_our_names_reach_no_function(caller, arguments, function):
    """PostgreSQL looks in pg_temp first, unless a path puts it last."""
    caller.execute(SHADOWS.format(schema="pg_temp"))
    caller.commit()

    caller.execute(call(function), arguments)
    assert_nothing_is_broken(caller)


@pytest.mark.parametrize("function", ["checkout_execute", "checkout_result"])
def test_the_shadows_would_be_met_without_the_pinned_path(caller, attacker, arguments, function):
    """So that the tests above are known to try something."""
    caller.execute(
        sql.SQL("do $$ begin execute (select format('alter function %s reset search_path', oid::regprocedure)"
                " from pg_proc where proname = {} and pronamespace = 'public'::regnamespace); end $$").format(function)
    )  # fmt: skip
    caller.execute(f"set search_path = {attacker}, pg_catalog, public")

    with pytest.raises(psycopg.Error, match=r"attacker's code ran|does not exist"):
        caller.execute(call(function), arguments)


def test_triggers_keep_to_their_path(connect, add_cart, checkout, db):
    """OC009 also for a session that has tables of our names before ours."""
    cart = add_cart()
    checkout(db, cart)
    caller = connect(autocommit=True)
    caller.execute(SHADOWS.format(schema="pg_temp"))

    for statement in ("delete from public.cart_items", "update public.cart_records set total_cents = 0"):
        with pytest.raises(psycopg.Error) as refused:
            caller.execute(statement)
        assert refused.value.sqlstate == "OC009"


@pytest.mark.parametrize(
    "statement", ["update public.cart_records set total_cents = 0", "delete from public.cart_items"]
)
def test_a_permit_of_the_callers_own_making_opens_nothing(connect, add_cart, checkout, db, statement):
    """A temporary table of that name, with the running transaction in it, is not the one that counts."""
    checkout(db, add_cart())
    with connect() as caller:
        caller.execute(
            "create temporary table cart_change_permits as"
            " select id as cart_id, pg_current_xact_id() as transaction_id from cart_records;"
            " grant select on cart_change_permits to public"
        )
        with pytest.raises(psycopg.Error) as refused:
            caller.execute(statement)
        assert refused.value.sqlstate == "OC009"


# Rights


@pytest.mark.parametrize("function", sorted(ENTRY_POINTS))
def test_whoever_may_call_it_needs_no_other_right(caller, arguments, function):
    """A DBA may grant any of them alone, to a role that stocks shelves or deletes what is old."""
    caller.execute("create role pycheckout_of_a_test")  # rolled back in the end
    caller.execute(
        sql.SQL("do $$ begin execute (select format('grant execute on function %s to pycheckout_of_a_test',"
                " oid::regprocedure) from pg_proc where proname = {}); end $$").format(function)
    )  # fmt: skip
    caller.execute("set local role pycheckout_of_a_test")

    caller.execute(call(function), arguments)


# Settings

SETTINGS = {
    "datestyle": "sql, dmy",
    "intervalstyle": "sql_standard",
    "timezone": "Pacific/Kiritimati",
    "bytea_output": "escape",
    "extra_float_digits": "3",
    "transform_null_equals": "on",
    "array_nulls": "off",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "escape_string_warning": "off",
    "row_security": "off",
    "enable_indexscan": "off",
    "enable_nestloop": "off",
    "plan_cache_mode": "force_custom_plan",
    "check_function_bodies": "off",
    "default_transaction_isolation": "repeatable read",
    "lc_monetary": "C",
    "xmlbinary": "hex",
    "work_mem": "64kB",
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_callers_settings_change_no_answer(db, connect, add_cart, checkout_sql, setting):
    cart, same = add_cart(ad_tokens=["x"]), add_cart(ad_tokens=["x"])
    caller = connect(autocommit=True)
    try:
        caller.execute("select set_config(%s, %s, false)", [setting, SETTINGS[setting]])
    except psycopg.Error as error:  # a later release has given it up
        pytest.skip(str(error))

    first = checkout_sql(caller, cart, shipping_line={"code": "ground", "price_cents": 100})
    replay = checkout_sql(db, cart, shipping_line={"code": "ground", "price_cents": 100})
    usual = checkout_sql(db, same, shipping_line={"code": "ground", "price_cents": 100})

    assert replay == first | {"replayed": True}, "the hash of the request, and each value of the answer"
    assert [len(order["items"]) for order in first["vendor_orders"]] == [2, 2]
    assert first["totals"] == usual["totals"]


# Texts


def test_texts_are_never_code(db, add_cart, checkout_sql):
    """Quotes, per cents, dollars, backslashes and a right-to-left override, in every text and jsonb there is."""
    db.execute("select ad_signing_key_put('k0', %s)", [KEY])
    warnings = [{"type": NASTY, "message": NASTY, NASTY: NASTY}]
    discount = {"label": NASTY, "amount_cents": 0, NASTY: [NASTY]}
    promo = {"code": NASTY, "amount_cents": 0, NASTY: {NASTY: NASTY}}
    cart = add_cart(
        vendors=1,
        lines=1,
        currency=NASTY,
        cart={"shipping_address": dict.fromkeys(("line1", "line2", "city", "state", "country"), NASTY)},
        groups={0: {"promo": promo, "warnings": warnings}},
        items={(0, 0): {"title": NASTY, "category": NASTY, "unit": NASTY, "warnings": warnings,
                        "applied_volume_discount": discount}},
        ad_tokens=[NASTY, NASTY * 500, token(**{NASTY: NASTY, "bid": NASTY})],
    )  # fmt: skip
    address = {name: value if name in ("lat", "lng") else NASTY for name, value in ADDRESS.items()}
    line = {"code": NASTY, "title": NASTY, "price_cents": 1}
    request = {"key": "'\";--%$$\\", "shipping_address": address, "shipping_line": line}

    answer = checkout_sql(db, cart, **request)

    assert answer == checkout_sql(db, cart, **request) | {"replayed": False}
    assert (answer["shipping_address"], answer["shipping_line"], answer["currency"]) == (address, line, NASTY)
    [order] = answer["vendor_orders"]
    assert (order["promo"], order["warnings"]) == (promo, warnings)
    [item] = order["items"]
    assert (item["name"], item["category"], item["unit"], item["warnings"]) == (NASTY, NASTY, NASTY, warnings)
    assert item["applied_volume_discount"] == discount
    [claims] = values(db, "select attributed_token from order_line_items")
    assert (claims[NASTY], claims["bid"]) == (NASTY, NASTY)
    assert values(db, "select idempotency_key from checkout_requests") == [request["key"]]
    assert len(values(db, "select payload from outbox_events")) == 2


@pytest.mark.parametrize(
    "field", ["buyer_store_id", "cart_id", "key", "payment_method", "ad_token_policy", "reservation_policy"]
)
def test_texts_of_a_refusal_are_never_code(db, add_cart, checkout_sql, snapshot, field):
    cart = add_cart()
    before = snapshot(db)

    with pytest.raises(psycopg.Error) as refused:
        checkout_sql(db, cart, **{field: NASTY})

    assert refused.value.sqlstate in ("OC005", "22P02")
    assert snapshot(db) == before


def test_names_of_wrong_fields_are_told_as_they_are(db, add_cart, checkout_sql):
    for argument in ("shipping_address", "shipping_line"):
        with pytest.raises(psycopg.Error) as refused:
            checkout_sql(db, add_cart(), **{argument: {NASTY[:40]: 1}})
        assert f"{argument}.{NASTY[:40]}" in refused.value.diag.message_primary


# Other schemas


@pytest.mark.parametrize("schema", ['O"dd; $$', "select"])
def test_an_install_lives_in_one_schema_of_any_name(empty_database, add_cart, checkout, schema):
    url = empty_database()
    pycheckout.migrate(url, schema=schema, create_schema=True)

    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(SHADOWS.format(schema="public"))
        conn.execute(sql.SQL("set search_path = {}").format(sql.Identifier(schema)))
        cart = add_cart(conn=conn)
        assert checkout(conn, cart).outcome == "complete"

        # from a session that has never heard of it
        conn.execute("set search_path = public")
        query = sql.SQL("select {}.checkout_result(%s, %s)").format(sql.Identifier(schema))
        assert row(conn, query, cart.buyer_store_id, cart.id)["checkout_result"]["outcome"] == "complete"
        audit = sql.SQL("select count(*) from {}.checkout_audit()").format(sql.Identifier(schema))
        assert values(conn, audit) == [0]


def test_two_installs_in_one_database_do_not_meet(database, add_cart, checkout):
    url = database(migrated=True)
    carts = {}
    with psycopg.connect(url, autocommit=True) as conn:
        pycheckout.migrate(url, schema="market_ca", create_schema=True)
        for schema in ("public", "market_ca"):
            conn.execute(f"set search_path = {schema}")
            carts[schema] = add_cart(conn=conn)
        for schema, cart in carts.items():
            conn.execute(f"set search_path = {schema}")
            assert checkout(conn, cart, key="same").replayed is False
        for schema in carts:
            assert values(conn, f"select count(*) from {schema}.checkout_requests") == [1]
