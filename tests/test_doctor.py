"""`pycheckout doctor`: each finding is provoked for real, and gone when its remedy was done as it stands there."""

import json
import re
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from command import ROOT, plain, run_command, run_in_terminal
from pgbouncer import pgbouncer_for
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row
from roles import FOR_THE_OWNER, PASSWORD

import pycheckout
from checks import rows, taken_back, values
from pycheckout._doctor import _CHECKS, findings
from pycheckout._embedded import embedded_server
from races import blocked, wait_until

GRANTS = sorted(name for name in FOR_THE_OWNER if name.startswith("checkout_grant"))


@pytest.fixture
def doctor(dsn):
    """doctor(): what is found in this test's database, each as a dict."""

    def doctor(url=dsn, backlog=timedelta(minutes=15)):
        with psycopg.connect(url, autocommit=True, row_factory=dict_row) as conn:
            return [asdict(finding) for finding in findings(conn, None, backlog)]

    return doctor


@pytest.fixture
def command(dsn):
    """command(...): the same through the executable, whose exit code is looked at."""

    def command(*args, url=dsn):
        done = run_command("doctor", "--json", "--database", url, *args)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.stderr == ""
        assert done.returncode == (1 if found else 0)
        return found

    return command


@pytest.fixture
def mended(db, dsn, doctor):
    """mended(found): does what a finding says, and sees that it is gone."""

    def mended(found):
        if found["remedy"] == "pycheckout migrate":
            pycheckout.migrate(dsn)
        else:
            db.execute(found["remedy"])
        assert found not in doctor()

    return mended


def identifier(name):
    return sql.Identifier(name)


def test_a_fresh_installation_with_every_kind_of_role_is_well(command, db, new_role, add_cart, checkout):
    for grant in GRANTS:
        db.execute(f"select {grant}(%s)", (new_role(" it's"),))
    db.execute("select ad_signing_key_put('k1', %s)", (bytes(32),))
    checkout(db, add_cart())

    assert command() == []


def test_it_changes_nothing(dsn, snapshot, db):
    before = snapshot(db)
    with psycopg.connect(dsn, autocommit=True, row_factory=dict_row) as conn:
        conn.execute("set default_transaction_read_only = on")
        assert findings(conn, None, timedelta(minutes=15)) == []
    assert snapshot(db) == before


# Release


def test_a_database_without_pycheckout(command, empty_database):
    [found] = command(url=empty_database())

    assert (found["check"], found["remedy"].split(",")[0]) == ("not_installed", "pycheckout migrate")


def test_another_schema_is_looked_at_when_it_is_named(command, dsn):
    [found] = command("--schema", "market_eu")
    assert found["check"] == "not_installed"

    pycheckout.migrate(dsn, schema="market_eu", create_schema=True)
    assert command("--schema", "market_eu") == []


def test_functions_of_an_older_release(doctor, mended, db):
    db.execute("insert into checkout_releases (version, hash) values ('0.0.9', 'old')")

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("outdated_functions", "release 0.0.9")
    mended(found)


def test_functions_of_a_newer_release(doctor, db):
    """Here the remedy is another package."""
    db.execute("insert into checkout_releases (version, hash) values ('99.0.0', 'new')")

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("outdated_functions", "release 99.0.0")
    assert found["remedy"].startswith("Upgrade the package")


def test_a_function_that_somebody_changed(doctor, mended, db):
    db.execute("create or replace function checkout_uuid() returns uuid language sql as 'select gen_random_uuid()'")

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("changed_function", "checkout_uuid")
    mended(found)


def test_a_function_that_somebody_dropped(doctor, mended, db):
    db.execute("drop function cart_purge(interval, integer)")

    [found] = doctor()

    assert (found["check"], found["subject"], found["problem"]) == ("changed_function", "cart_purge", "is gone")
    mended(found)


def test_indexes_that_somebody_dropped_or_that_are_invalid(doctor, db):
    """Every index of a fresh installation but those of constraints, which cannot go by themselves."""
    there = """
        select class.relname::text as name, pg_get_indexdef(class.oid) as definition
          from pg_index as index
          join pg_class as class on class.oid = index.indexrelid
          join pg_class as indexed on indexed.oid = index.indrelid
         where class.relnamespace = 'public'::regnamespace and indexed.relname !~ 'yoyo' and index.indisvalid
           and not exists (select from pg_constraint where conindid = index.indexrelid)
         order by 1
    """
    before = rows(db, there)
    assert len(before) >= 20
    for index in before[1:]:
        db.execute(f"drop index {index['name']}")
    db.execute("update pg_index set indisvalid = false where indexrelid = %s::regclass", (before[0]["name"],))

    found = doctor()

    assert {each["check"] for each in found} == {"index_missing"}
    assert [each["subject"] for each in found] == [index["name"] for index in before]
    for each in found:
        db.execute(each["remedy"])
    assert rows(db, there) == before
    assert doctor() == []


@pytest.mark.parametrize("shape", ["net", "gross"])
def test_a_database_that_was_taken_over_is_well(doctor, database, shape):
    """Its indexes are its own business, and so are the events that its publisher has not sent."""
    url = database(shape, migrated=True)
    with psycopg.connect(url, autocommit=True) as conn:
        event = "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, created_at)"
        conn.execute(
            f"{event} values ('order_created', 'checkout_group', gen_random_uuid(), '{{}}', now() - interval '1 year')"
        )
    assert doctor(url) == []


def test_a_migration_that_is_not_applied(doctor, mended, db):
    db.execute("delete from _yoyo_migration where migration_id like '%views'")

    [found] = doctor()

    assert found["check"] == "pending_migration" and found["subject"].endswith("_views")
    mended(found)


# Rights


@pytest.mark.parametrize(
    ("grant", "revoke", "lacks"),
    [
        ("checkout_grant", "execute on function checkout_result(uuid, uuid)", "execute on checkout_result(uuid, uuid)"),
        ("checkout_grant", "usage on schema public", "usage on public"),
        ("checkout_grant_quotes", "delete on table cart_items", "delete on cart_items"),
        ("checkout_grant_quotes", "update (currency) on table cart_records", "update on cart_records"),
        (
            "checkout_grant_orders",
            "execute on function order_line_fulfil(uuid, integer, text, jsonb)",
            "execute on order_line_fulfil(uuid, integer, text, jsonb)",
        ),
        ("checkout_grant_operators", "select on table outbox_backlog", "select on outbox_backlog"),
    ],
)
def test_a_role_that_lacks_a_grant(doctor, mended, db, new_role, grant, revoke, lacks):
    role = new_role(" it's")
    db.execute(sql.SQL("select {}(%s)").format(identifier(grant)), (role,))
    usage = revoke.startswith("usage")
    if usage:
        db.execute("revoke usage on schema public from public")
    db.execute(sql.SQL("revoke {} from {}").format(sql.SQL(revoke), identifier(role)))

    [found] = doctor()

    assert (found["check"], found["subject"], found["problem"]) == ("missing_grant", role, f"lacks {lacks}")
    mended(found)


def test_a_remembered_role_that_is_gone(doctor, mended, db, new_role):
    role = new_role(" it's")
    db.execute("select checkout_grant(%s), checkout_grant_quotes(%s)", (role, role))
    db.execute(sql.SQL("drop owned by {0}; drop role {0}").format(identifier(role)))

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("role_changed", role)
    mended(found)
    assert values(db, "select role_name from checkout_roles") == []


@pytest.mark.parametrize("why", ["made anew", "restored elsewhere"])
def test_a_remembered_role_that_is_another_role_now(doctor, mended, db, new_role, why):
    """It has nothing, or what the dump said, and deployments pass it over: granting again by name is the way."""
    role = new_role(" it's")
    db.execute("select checkout_grant(%s), checkout_grant_orders(%s)", (role, role))
    if why == "made anew":
        db.execute(sql.SQL("drop owned by {0}; drop role {0}; create role {0}").format(identifier(role)))
    else:
        db.execute("update checkout_roles set role_oid = 1")

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("role_changed", role)
    mended(found)
    assert doctor() == []
    execute = "select has_function_privilege(%s, 'order_line_fulfil(uuid, integer, text, jsonb)', 'execute')"
    assert values(db, execute, role) == [True]


def test_default_privileges_that_let_a_web_role_in(doctor, mended, db, new_role):
    """What a host's ALTER DEFAULT PRIVILEGES, or a GRANT on all tables, opens: everybody is named, with everything."""
    web, everybody = new_role(" it's"), "public"
    db.execute(sql.SQL("grant all on all tables in schema public to {}").format(identifier(web)))
    db.execute("grant select on cart_records to public; grant update (total_cents) on vendor_orders to public")

    found = {each["subject"].strip('"'): each for each in doctor() if each["check"] == "tables_open"}

    assert found.keys() == {web, everybody}
    assert found[everybody]["problem"].endswith("may select on cart_records; update on vendor_orders")
    for table in ("cart_records", "vendor_orders", "checkout_roles", "checkout_ledger", "checkout_requests"):
        assert re.search(rf"delete, insert, .*\b{table}\b", found[web]["problem"])
    for each in found.values():
        mended(each)
    readable = (
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relname !~ 'yoyo'"
        " and relkind in ('r', 'v') and has_any_column_privilege(%s, oid, 'select, insert, update') order by 1"
    )
    # who reads keys is another check's; the other is a view of the catalogue
    assert values(db, readable, web) == ["ad_signing_keys", "checkout_objects"]


def test_a_named_role_with_more_than_it_was_named_for(doctor, mended, db, new_role):
    """What it was granted stays."""
    role = new_role(" it's")
    db.execute("select checkout_grant_quotes(%s), checkout_grant_operators(%s)", (role, role))
    db.execute(
        sql.SQL("grant update on cart_records to {0}; grant select on vendor_orders to {0}").format(identifier(role))
    )

    [found] = doctor()

    assert (found["check"], found["subject"].strip('"')) == ("tables_open", role)
    assert found["problem"].endswith("may update on cart_records; select on vendor_orders")
    mended(found)
    assert doctor() == []
    assert values(db, "select has_column_privilege(%s, 'cart_records', 'currency', 'update')", role) == [True]
    assert values(db, "select has_column_privilege(%s, 'cart_records', 'status', 'update')", role) == [False]


@pytest.mark.parametrize("inherits", ["inherit", "noinherit"])
def test_members_of_a_role_that_reads_tables_are_named_too(doctor, mended, db, new_role, inherits):
    """Whether they have its rights at once or only after SET ROLE."""
    group, member = new_role(), new_role(" it's")
    db.execute(
        sql.SQL("alter role {0} {1}; grant {2} to {0}").format(identifier(member), sql.SQL(inherits), identifier(group))
    )
    assert doctor() == []
    db.execute(f"grant select on vendor_orders to {group}")

    found = {each["subject"].strip('"'): each for each in doctor()}

    assert found.keys() == {group, member} and found[member]["problem"].endswith(f"as a member of {group}")
    mended(found[member])
    mended(found[group])
    assert doctor() == []


def test_members_of_the_owner_and_tables_of_the_host_are_not_named(doctor, empty_database, new_role):
    owner, member, web = new_role(), new_role(), new_role()
    url = empty_database()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"alter database {admin.info.dbname} owner to {owner}; grant {owner} to {member}")
        admin.execute(f"create table host_table (id int); grant all on host_table to {web}")
        pycheckout.migrate(make_conninfo(url, user=owner, password=PASSWORD))
        admin.execute(f"grant all on checkout_roles to {member}")
        try:
            assert doctor(url) == []
        finally:
            admin.execute(f"reassign owned by {owner} to current_user; drop owned by {owner}, {web}, {member}")


@pytest.mark.breaks_invariants
def test_active_carts_whose_anchor_carries_orders(doctor, mended, db, add_cart, checkout):
    """They cannot be checked out; a cart that was given an anchor and nothing else can."""
    converted, taken, free = add_cart(), add_cart(), add_cart()
    checkout(db, converted)
    db.execute(
        "update cart_records set checkout_group_id = gen_random_uuid() where id in (%s, %s)", (taken.id, free.id)
    )
    db.execute(
        "insert into vendor_orders"
        " (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents, balance_due_cents)"
        " select checkout_group_id, buyer_store_id, gen_random_uuid(), 5000, 5000, 5000"
        " from cart_records where id = %s",
        (taken.id,),
    )

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("anchor_taken", str(taken.id))
    mended(found)
    assert doctor() == []
    assert checkout(db, taken, key="k2").outcome == "complete"


@pytest.mark.parametrize(
    "grant",
    [
        "select on table ad_signing_keys",
        "select (secret) on table ad_signing_keys",
    ],
)
def test_a_role_that_reads_the_signing_keys(doctor, mended, db, new_role, grant):
    role = new_role(" it's")
    db.execute(sql.SQL("grant {} to {}").format(sql.SQL(grant), identifier(role)))

    [found] = doctor()

    assert (found["check"], found["subject"].strip('"')) == ("keys_readable", role)
    mended(found)
    assert values(db, "select has_any_column_privilege(%s, 'ad_signing_keys', 'select')", role) == [False]


def test_everybody_reads_the_signing_keys(doctor, mended, db):
    db.execute("grant select on ad_signing_keys to public")

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("keys_readable", "public")
    mended(found)


def test_a_member_of_pg_read_all_data_reads_the_signing_keys(db, new_role):
    role = new_role(" it's")
    db.row_factory = dict_row
    with taken_back(db):  # committed, it would be found in every database of the server
        db.execute(sql.SQL("grant pg_read_all_data to {}").format(identifier(role)))

        keys, tables = findings(db, None)

        assert (keys.check, tables.check) == ("keys_readable", "tables_open")
        assert (keys.subject, keys.remedy) == (tables.subject, tables.remedy) == (role, keys.remedy)
        db.execute(keys.remedy)
        assert findings(db, None) == []


@pytest.mark.parametrize("who", ["a role", "public"])
def test_somebody_else_may_create_in_the_schema(doctor, mended, db, new_role, who):
    role = new_role(" it's") if who == "a role" else "public"
    to = identifier(role) if who == "a role" else sql.SQL("public")
    db.execute(sql.SQL("grant create on schema public to {}").format(to))

    [found] = doctor()

    assert (found["check"], found["subject"].strip('"')) == ("schema_open", role)
    mended(found)


# Time-outs


@pytest.mark.parametrize("grant", GRANTS)
def test_a_service_role_without_a_lock_timeout(doctor, mended, db, new_role, login, grant):
    role = new_role(" it's")
    db.execute(f"select {grant}(%s)", (role,))
    db.execute(
        sql.SQL("alter role {} in database {} reset lock_timeout").format(*map(identifier, (role, db.info.dbname)))
    )

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("lock_timeout_off", role)
    mended(found)
    assert values(login(role), "show lock_timeout") == ["5s"]


@pytest.mark.parametrize("setting", ["0", "0ms", "0s"])
def test_a_lock_timeout_that_somebody_set_to_nothing(doctor, mended, db, new_role, setting):
    role = new_role()
    db.execute("select checkout_grant(%s)", (role,))
    db.execute(f"alter role {role} in database {db.info.dbname} set lock_timeout = '{setting}'")

    [found] = doctor()

    assert found["check"] == "lock_timeout_off"
    mended(found)


def test_a_member_of_a_service_role_does_not_get_its_lock_timeout(doctor, mended, db, new_role, login):
    """PostgreSQL applies the settings of the role that logs in, and of no other."""
    service, member = new_role(), new_role()
    db.execute("select checkout_grant(%s)", (service,))
    db.execute(f"grant {service} to {member}")
    assert values(login(member), "show lock_timeout") == ["0"]

    [found] = doctor()

    assert (found["check"], found["subject"]) == ("lock_timeout_off", member)
    mended(found)


@pytest.mark.parametrize("setting", ["3s", "0.5s"])
def test_a_lock_timeout_of_the_database_is_one(doctor, db, new_role, setting):
    role = new_role()
    db.execute("select checkout_grant(%s)", (role,))
    db.execute(f"alter role {role} in database {db.info.dbname} reset lock_timeout")
    db.execute(f"alter database {db.info.dbname} set lock_timeout = '{setting}'")

    assert doctor() == []


# Autovacuum and backlog


def dead_rows(db, table):
    return values(db, "select n_dead_tup from pg_stat_user_tables where relname = %s", table)[0]


FILL = {
    "inventory_items": "insert into inventory_items (product_id, available_qty) values (gen_random_uuid(), 1)",
    "inventory_slots": "insert into inventory_slots (product_id, slot, available_qty) values (gen_random_uuid(), 1, 1)",
    "outbox_events": "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, published_at)"
    " values ('host', 'host', gen_random_uuid(), '{}', now())",
}


@pytest.mark.breaks_invariants  # slots of no product
@pytest.mark.parametrize("table", FILL)
def test_a_table_that_autovacuum_does_not_keep_up_with(doctor, mended, db, table):
    """Autovacuum leaves it out meanwhile, or it might come by: both are findings."""
    column = "payload" if table == "outbox_events" else "updated_at"
    db.execute(f"alter table {table} set (autovacuum_enabled = off)")
    db.execute(FILL[table])
    with db.transaction():  # of one transaction, no dead row is pruned before the end
        for _ in range(1500):
            db.execute(f"update {table} set {column} = {column}")
    db.execute("select pg_stat_force_next_flush()")
    wait_until(lambda: dead_rows(db, table) >= 1000)

    lags, off = sorted(doctor(), key=lambda found: found["check"])

    assert (lags["check"], off["check"]) == ("autovacuum_lags", "autovacuum_off")
    assert lags["subject"] == off["subject"] == table
    mended(lags)
    mended(off)
    assert doctor() == []


def test_a_server_whose_autovacuum_is_off(doctor):
    with embedded_server(autovacuum=False, fsync=False, in_memory=True) as server:
        url = server.dsn()
        pycheckout.migrate(url)

        [found] = doctor(url=url)

        assert (found["check"], found["subject"]) == ("autovacuum_off", "server")
        with psycopg.connect(url, autocommit=True) as conn:
            for statement in found["remedy"].split(";")[:-1]:
                conn.execute(statement)
        wait_until(lambda: doctor(url=url) == [])


def test_events_that_nobody_publishes(command, db, add_cart, checkout):
    checkout(db, add_cart())
    db.execute("update outbox_events set created_at = now() - interval '20 minutes'")

    [found] = command()

    assert (found["check"], found["subject"]) == ("outbox_backlog", "outbox_events")
    assert found["problem"].startswith("has 2 unpublished events, the oldest for 00:20:")
    assert command("--backlog", "30m") == []
    db.execute(found["remedy"].partition(": ")[2])  # what it names to look at is there
    db.execute("select outbox_ack(null, array_agg(id)) from outbox_events")  # as the relay does
    assert command() == []


def test_orders_that_nobody_ends_in_time(command, db, add_cart, checkout_sql):
    checkout_sql(db, add_cart(vendors=2, lines=1), expires_in=timedelta(hours=1))
    assert command() == []
    db.execute("update vendor_orders set expires_at = now() - interval '20 minutes'")

    [found] = command()

    assert (found["check"], found["subject"]) == ("deadlines_passed", "vendor_orders")
    assert found["problem"].startswith("has 2 orders that were to be paid in time, the first for 00:20:")
    assert command("--backlog", "30m") == []
    db.execute(found["remedy"].partition(": ")[2])
    db.execute("select vendor_orders_expire()")
    assert command() == []


def test_money_that_is_to_be_given_back(command, db, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    db.execute("select payment_record(%s, 'acme', 'a', 'captured', 1500, 'USD')", (cart.groups[0].id,))

    [found] = command()

    assert (found["check"], found["subject"]) == ("refunds_due", "vendor_orders")
    assert found["problem"] == "owe buyers 500 (minor units of USD) that were paid beyond the totals of 1 orders"
    assert values(db, found["remedy"].partition(": ")[2]) == [cart.groups[0].id]
    db.execute("select payment_record(%s, 'acme', 'b', 'refunded', 500, 'USD')", (cart.groups[0].id,))
    assert command() == []


def test_payments_that_cannot_be_all(command, db, add_cart, checkout_sql):
    more, less = add_cart(vendors=1, lines=1), add_cart(vendors=1, lines=1)
    for cart, kinds in ((more, ("refunded",)), (less, ("authorized", "captured"))):
        checkout_sql(db, cart, key=str(cart.id))
        for number, kind in enumerate(kinds):
            record = "select payment_record(%s, 'acme', %s, %s, %s, 'USD')"
            db.execute(record, (cart.groups[0].id, kind, kind, 900 + number))

    first, second = command()

    assert (first["check"], first["subject"]) == ("payments_at_odds", str(more.groups[0].id))
    assert first["problem"] == "has 900 given back of 0 captured"
    assert (second["subject"], second["problem"]) == (str(less.groups[0].id), "has 901 captured of 900 authorised")
    db.execute(second["remedy"].partition(": ")[2])
    db.execute("select payment_record(%s, 'acme', 'c', 'captured', 900, 'USD')", (more.groups[0].id,))
    db.execute("select payment_record(%s, 'acme', 'd', 'authorized', 1, 'USD')", (less.groups[0].id,))
    assert command() == []
    # money beside the authorisation, which then turns out to have been given up whole
    db.execute("select payment_record(%s, 'acme', 'e', 'captured', 5, 'USD')", (less.groups[0].id,))
    assert [found["subject"] for found in command()] == [str(less.groups[0].id)]
    db.execute("select payment_record(%s, 'acme', 'f', 'voided', 901, 'USD')", (less.groups[0].id,))
    assert command() == []


# The way to the server


def test_functions_that_a_rest_gateway_serves_to_anybody(doctor, mended, db):
    """As where a schema is exposed, and default privileges or a GRANT opened its functions."""
    existed = values(db, "select rolname from pg_roles where rolname = 'anon'")
    if not existed:
        db.execute("create role anon")
    try:
        assert doctor() == []
        db.execute("grant execute on function vendor_order_cancel(uuid, text), cart_put(jsonb) to anon")
        [found] = doctor()
        assert (found["check"], found["subject"]) == ("served_over_rest", "anon")
        assert "may call cart_put, vendor_order_cancel" in found["problem"]
        mended(found)
        db.execute("grant execute on function checkout_audit(timestamptz) to public")
        [found] = [each for each in doctor() if each["check"] == "served_over_rest"]
        mended(found)
    finally:
        if not existed:
            db.execute("drop owned by anon; drop role anon")


def test_who_holds_a_snapshot(doctor, connect, db):
    holder = connect(application_name="report")
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from vendor_orders")
    assert doctor() == []

    def impatient():
        return doctor(backlog=timedelta(milliseconds=1))

    [found] = wait_until(impatient)
    assert (found["check"], found["subject"]) == ("snapshot_held", f"session {holder.info.backend_pid}")
    assert "(report), idle in transaction, holds a snapshot" in found["problem"]
    db.execute(found["remedy"])
    wait_until(lambda: not impatient())


def test_a_product_that_many_wait_for_and_that_is_not_split(doctor, db, connect, mended):
    product, other = uuid4(), uuid4()
    db.execute("select inventory_set(each, 100) from unnest(%s::uuid[]) as each", ([product, other],))
    holder = connect()
    holder.execute("select from inventory_items for update")
    waiting = ("select from inventory_items where product_id = %s for update", (product,))
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(blocked(db, psycopg.Connection.execute, connect(autocommit=True), *waiting))
        assert doctor() == []
        stack.enter_context(blocked(db, psycopg.Connection.execute, connect(autocommit=True), *waiting))
        [found] = doctor()
        assert (found["check"], found["subject"]) == ("stock_row_waits", f"product {product}")
        assert found["problem"] == "4 sessions wait for its one row of stock"
        holder.rollback()
    mended(found)


def test_a_market_that_is_not_sold_in_here(doctor, db):
    """Nothing else is said of it: its calls are not what was deployed while it moves."""
    db.execute("insert into checkout_market (state, epoch, server) values ('leaving', 1, 'b')")
    db.execute("select market_guard()")
    [found] = doctor()
    assert (found["check"], found["subject"], found["problem"]) == (
        "market_away",
        "market",
        "is leaving, in move 1 (server b)",
    )
    db.execute("update checkout_market set state = 'moved'")
    assert [(each["check"], each["remedy"]) for each in doctor()] == [("market_away", 'server = "b" in the map')]
    db.execute("select market_unguard()")
    db.execute("update checkout_market set state = 'selling'")
    assert doctor() == []


def test_what_a_move_needs_is_not_held_against_it(doctor, db, worker_id):
    """The role that the other server comes in as, which reads everything, and tables without autovacuum."""
    name = f"pycheckout_move_back_{worker_id}"
    db.execute(
        "insert into checkout_market (state, epoch, server, vacuumed) values ('leaving', 1, 'b', '{outbox_events}')"
    )
    db.execute("alter table outbox_events set (autovacuum_enabled = off)")
    db.execute(f"create role {name}; grant select on all tables in schema public to {name}")
    try:
        assert {each["subject"] for each in doctor() if each["check"] in ("keys_readable", "tables_open")} == {name}
        db.execute(f"create publication {name} for table cart_records")
        assert [each["check"] for each in doctor()] == ["market_away"]
        db.execute("update checkout_market set state = 'selling', followed_until = now() + interval '1 day'")
        assert [each["check"] for each in doctor()] == ["market_away", "autovacuum_off"]
        db.execute("update checkout_market set followed_until = null")
        assert {each["check"] for each in doctor()} == {"keys_readable", "tables_open", "autovacuum_off"}
    finally:
        db.execute(f"drop owned by {name}; drop role {name}")


def test_a_pooler_in_the_way(command, server, postgresql):
    """The remedy is another address."""
    dbname = postgresql.info.dbname
    with pgbouncer_for(server) as pooler:
        [found] = command(url=pooler.dsn(dbname))

        assert (found["check"], found["subject"]) == ("pooler", f"{pooler.host}:{pooler.port}")
    assert command(url=server.dsn(dbname)) == []


# How it tells


def test_people_get_sentences_and_remedies_to_copy(dsn, db, new_role):
    role = new_role()
    db.execute(f"grant create on schema public to {role}")

    done = run_command("doctor", "--database", dsn)
    code, shown = run_in_terminal("doctor", "--database", dsn)

    assert done.returncode == code == 1
    assert re.search(rf"^schema_open: {role} may create objects in schema public", done.stdout, re.MULTILINE)
    assert f"\n  remedy: revoke create on schema public from {role} cascade;\n" in done.stdout
    assert plain(shown) == done.stdout
    db.execute(f"revoke create on schema public from {role}")
    assert run_command("doctor", "--database", dsn).stdout == "nothing is wrong\n"


def test_who_may_not_look_is_told_so(dsn, new_role):
    role = new_role()

    refused = run_command("doctor", "--database", make_conninfo(dsn, user=role, password=PASSWORD))

    assert refused.returncode == 1
    assert refused.stderr.startswith("pycheckout: permission denied")


def test_every_check_is_provoked_by_a_test_and_explained_in_the_docs():
    tests = Path(__file__).read_text(encoding="utf-8")
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    own = {"not_installed", "pending_migration", "outdated_functions", "changed_function", "pooler"}

    assert {file.stem for file in (ROOT / "pycheckout" / "_doctor").glob("*.sql")} == {*_CHECKS}
    for check in own.union(_CHECKS):
        assert tests.count(f'"{check}"') > (check in own), "named above, and provoked"
        assert f"`{check}`" in page
