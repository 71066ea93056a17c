"""What could stop a migration is found before any change, all of it at once, whoever applies."""

import json
import re
from contextlib import suppress

import psycopg
import pytest
from command import run_command
from psycopg import sql
from psycopg.conninfo import make_conninfo
from upgrade import IDS, MIGRATIONS, SQL_IDS, apply_until, connect, dump, start_yoyo, value

import pycheckout
from pycheckout import MigrationError, _migrate
from races import wait_until


@pytest.fixture
def role(server, worker_id):
    """A login role without any right, dropped after the databases of the test."""
    name = f"pycheckout_owner_{worker_id}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        named = sql.Identifier(name)
        with suppress(psycopg.errors.UndefinedObject):
            admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(named))
        admin.execute(sql.SQL("create role {} login password 'owner'").format(named))
        yield name
        admin.execute(sql.SQL("drop role {}").format(named))


@pytest.fixture
def legacy(role, database):
    """legacy("net"): a database of the earlier system, its URL and a connection."""
    opened = []

    def legacy(shape="net"):
        url = database(shape)
        opened.append(connect(url))
        return url, opened[-1]

    yield legacy
    for conn in opened:
        conn.close()


def refused(url, **address):
    with pytest.raises(MigrationError) as caught:
        pycheckout.migrate(make_conninfo(url, **address))
    assert caught.value.sqlstate == "55000"
    assert "pycheckout_0001_baseline: " in str(caught.value)
    return caught.value


DAMAGES = {
    "a partitioned outbox": (
        """
        alter table outbox_events rename to outbox_old;
        create table outbox_events (like outbox_old) partition by range (created_at);
        create table outbox_events_rest partition of outbox_events default
        """,
        "not_a_table",
        "outbox_events is a partitioned table",
    ),
    "a view in the place of a table": (
        "alter table inventory_items rename to stock; create view inventory_items as select * from stock",
        "not_a_table",
        "inventory_items is a view",
    ),
    "an order's column under another name": (
        "alter table vendor_orders drop column discount_cents",
        "too_old",
        "it has no vendor_orders.discount_cents",
    ),
    "an anchor with orders on an active cart": (
        "update checkout_groups set cart_id = id('cart', 9) where id = id('anchor', 9)",
        "anchor_has_orders",
        "carts are active whose anchor carries orders",
    ),
    "an anchor with orders that only the cart names": (
        "update cart_records set checkout_group_id = id('anchor', 10) where id = id('cart', 13)",
        "anchor_has_orders",
        "carts are active whose anchor carries orders",
    ),
    "two events of a kind": (
        """
        alter table outbox_events alter event_type type text;
        insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)
        select 'checkout.converted', 'checkout_group', id('anchor', 1), '{}' from generate_series(1, 2)
        """,
        "duplicate_events",
        "more than one event of a kind about one checkout",
    ),
    "anyone may create": ("grant create on schema public to public", "public_create", "PUBLIC may create objects"),
    "a table of our name": ("create table inventory_slots (id int)", "name_taken", "inventory_slots: a table of yours"),
    "a view of our name": (
        "create view inventory_levels as select 1 as one",
        "name_taken",
        "inventory_levels: a view of yours",
    ),
    "a type of our name": ("create type ad_placement as enum ('wall')", "name_taken", "ad_placement: a type of yours"),
    "a function of our name": (
        "create function cart_put(text) returns text language sql return 'x'",
        "name_taken",
        "cart_put(text): a function of yours",
    ),
    "a helper's name": (
        "create function checkout_comment(int) returns int language sql return 1",
        "name_taken",
        "checkout_comment(integer): a function of yours",
    ),
    "a trigger of our name": (
        """
        create function of_host() returns trigger language plpgsql as 'begin return new; end';
        create trigger cart_items_converted_immutable before update on cart_items
        for each row execute function of_host()
        """,
        "name_taken",
        "cart_items_converted_immutable on cart_items: a trigger of yours",
    ),
    "a check of our name": (
        "alter table inventory_items add constraint inventory_items_split_stock_in_slots check (available_qty < 1000)",
        "name_taken",
        "inventory_items_split_stock_in_slots on inventory_items: a constraint of yours",
    ),
    "a column of our name": (
        "alter table outbox_events add next_attempt_at timestamptz",
        "name_taken",
        "outbox_events.next_attempt_at: a column of yours",
    ),
    "a claim of the host's own relay": (
        "alter table outbox_events add claim_id uuid",
        "name_taken",
        "outbox_events.claim_id: a column of yours",
    ),
    "what a line of the host's own reserves": (
        "alter table order_line_items add reserved_qty integer",
        "name_taken",
        "order_line_items.reserved_qty: a column of yours",
    ),
    "a trigger of our name on new carts": (
        """
        create function of_host() returns trigger language plpgsql as 'begin return new; end';
        create trigger cart_records_id_not_taken before insert on cart_records
        for each row execute function of_host()
        """,
        "name_taken",
        "cart_records_id_not_taken on cart_records: a trigger of yours",
    ),
    "a column of another type": (
        "alter table vendor_orders add shipping_line text",
        "wrong_type",
        "vendor_orders.shipping_line is text, and must be jsonb",
    ),
    "an index that does less": (
        "create index idx_vendor_orders_cart_id on vendor_orders (vendor_store_id)",
        "other_index",
        "index idx_vendor_orders_cart_id is not what it must be",
    ),
    "rows that are hidden": (
        "alter table vendor_orders enable row level security, force row level security",
        None,
        "",
    ),
}


@pytest.mark.parametrize("damage", [name for name, (_, problem, _) in DAMAGES.items() if problem])
def test_what_would_stop_a_later_step_is_named_before_any_change(legacy, program, damage):
    statement, problem, message = DAMAGES[damage]
    url, conn = legacy()
    conn.execute(statement)
    before = dump(program, url)

    error = refused(url)

    assert message in str(error)
    assert error.hint
    assert [each["problem"] for each in error.detail["problems"]] == [problem]
    assert dump(program, url) == before


def test_carts_and_orders_of_an_anchor_are_named(legacy):
    url, conn = legacy()
    conn.execute("update cart_records set checkout_group_id = id('anchor', 10) where id = id('cart', 13)")

    [problem] = refused(url).detail["problems"]

    assert problem["carts"] == [
        {
            "cart_id": str(value(conn, "select id('cart', 13)")),
            "checkout_group_id": str(value(conn, "select id('anchor', 10)")),
            "order_ids": sorted(str(value(conn, "select id('order', %s)", n)) for n in (101, 102)),
        }
    ]


def test_everything_is_named_at_once_and_by_plain_yoyo_too(legacy, program):
    url, conn = legacy()
    names = [
        "anyone may create",
        "a table of our name",
        "an anchor with orders on an active cart",
        "a function of our name",
    ]
    for name in names:
        conn.execute(DAMAGES[name][0])
    before = dump(program, url)

    process = start_yoyo("apply", dsn=url)
    output, _ = process.communicate(timeout=60)
    error = refused(url)

    assert process.returncode != 0
    for said in (output, str(error)):
        for name in names:
            assert DAMAGES[name][2] in said
    assert len(error.detail["problems"]) == len(names)
    assert dump(program, url) == before


# A database that has tables, and none of the earlier system

# What a host may have, and how it is named.
OF_A_HOST = {
    "create table vendor_orders (id bigint primary key, placed_at timestamptz)": "vendor_orders: a table of yours",
    "create table payment_method (id int primary key)": "payment_method: a table of yours",
    "create table checkout_groups (id int primary key)": "checkout_groups: a table of yours",
    "create table cart_records (id int primary key) partition by range (id)": "cart_records: a table of yours",
    "create view cart_items as select 1 as one": "cart_items: a view of yours",
    "create materialized view inventory_items as select 1 as one": "inventory_items: a materialized view of yours",
    "create sequence outbox_events": "outbox_events: a sequence of yours",
    "create type cart_status as enum ('open', 'closed')": "cart_status: a type of yours",
    "create type address_t as (street text)": "address_t: a type of yours",
    "create domain payment_status as text": "payment_status: a domain of yours",
    "create type ad_placement as enum ('wall')": "ad_placement: a type of yours",
    "create table checkout_requests (id int)": "checkout_requests: a table of yours",
    "create function checkout_execute(int) returns int language sql return 1": (
        "checkout_execute(integer): a function of yours"
    ),
}


@pytest.fixture
def host(role, empty_database):
    """host(*statements): a database of a host's, its URL and a connection."""
    opened = []

    def host(*statements):
        url = empty_database()
        opened.append(connect(url))
        for statement in statements:
            opened[-1].execute(statement)
        return url, opened[-1]

    yield host
    for conn in opened:
        conn.close()


@pytest.mark.parametrize("statement", OF_A_HOST)
def test_a_name_of_ours_in_a_hosts_database_is_called_what_it_is(host, program, statement):
    url, _ = host(statement)
    before = dump(program, url)

    error = refused(url)

    assert [each["problem"] for each in error.detail["problems"]] == ["name_taken"]
    assert error.message == f"pycheckout_0001_baseline: {OF_A_HOST[statement]}, and a name that pycheckout needs"
    assert "--schema checkout" in error.hint
    assert dump(program, url) == before


def relations(conn):
    """yoyo's tables among them."""
    return [row["name"] for row in conn.execute("select oid::regclass::text as name from pg_class order by oid")]


def test_all_names_are_listed_at_once_whoever_looks(host, program):
    url, conn = host(*OF_A_HOST)
    before = dump(program, url)
    there = relations(conn)

    migrate = run_command("migrate", "--database", url)
    plan = run_command("migrate", "--plan", "--database", url)
    doctor = run_command("doctor", "--json", "--database", url)
    assert relations(conn) == there, "yoyo's tables are not made either"
    psql = (MIGRATIONS / "pycheckout_0001_baseline.sql").read_text()
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
        conn.execute(psql)
    yoyo = start_yoyo("apply", dsn=url)
    output, _ = yoyo.communicate(timeout=60)

    assert (migrate.returncode, plan.returncode, doctor.returncode) == (1, 1, 1) and yoyo.returncode
    for said in (migrate.stderr, plan.stderr, str(caught.value), output):
        assert "too old" not in said and "--schema checkout" in said
        for named in OF_A_HOST.values():
            assert named in said
    found = {each["subject"] for each in map(json.loads, doctor.stdout.splitlines()) if each["check"] == "name_taken"}
    assert found == {"{1} {0}".format(*re.split(": an? | of yours", named)[:2]) for named in OF_A_HOST.values()}
    assert dump(program, url) == before


def test_a_schema_of_its_own_is_beside_all_of_them(host):
    url, conn = host(*OF_A_HOST)
    assert pycheckout.migrate(url, schema="checkout", create_schema=True).migrations == tuple(IDS)
    assert value(conn, "select count(*) from vendor_orders") == 0
    assert value(conn, "select count(*) from checkout.vendor_orders") == 0


# Two schemas


@pytest.mark.parametrize("tool", ["pycheckout", "plan", "yoyo"])
def test_no_second_copy_is_made_in_front_of_the_one_that_is_there(host, tool):
    url, conn = host()
    pycheckout.migrate(url, schema="checkout", create_schema=True)
    both = make_conninfo(url, options="-c search_path=public,checkout")
    said = "pycheckout is in schema checkout already, which the search_path names behind public"

    if tool == "pycheckout":
        with pytest.raises(MigrationError, match=said) as caught:
            pycheckout.migrate(both)
        assert "--schema checkout" in caught.value.hint
        assert value(conn, "select count(*) from pg_class where relnamespace = 'public'::regnamespace") == 0
    elif tool == "plan":
        assert [each["problem"] for each in _migrate.plan(both).problems] == ["installed_elsewhere"]
    else:
        yoyo = start_yoyo("apply", dsn=url + "?options=-c%20search_path%3Dpublic%2Ccheckout")
        output, _ = yoyo.communicate(timeout=60)
        assert yoyo.returncode and said in output
    assert value(conn, "select to_regclass('public.checkout_ledger') is null")


def test_the_schema_that_is_named_is_the_one_that_is_meant(host):
    url, _ = host()
    pycheckout.migrate(url, schema="checkout", create_schema=True)
    both = make_conninfo(url, options="-c search_path=public,checkout")

    assert pycheckout.migrate(both, schema="checkout").migrations == ()
    assert pycheckout.migrate(both, schema="public").migrations == tuple(IDS)
    assert pycheckout.migrate(both).schema == "public", "where one is in front, it is that one"


def test_a_schema_that_is_there_takes_no_right_to_create_schemas(host, role):
    url, conn = host(f"create schema shop authorization {role}")
    assert not value(conn, "select has_database_privilege(%s, current_database(), 'create')", role)
    conn.execute(f"grant temporary on database {conn.info.dbname} to {role}")
    owner = make_conninfo(url, user=role, password="owner")

    assert pycheckout.migrate(owner, schema="shop", create_schema=True).migrations == tuple(IDS)
    with pytest.raises(MigrationError, match="permission denied for database"):
        pycheckout.migrate(owner, schema="other", create_schema=True)


# Who migrates


def test_tables_and_types_of_another_role_are_named(legacy, program, role):
    url, conn = legacy()
    conn.execute(f"grant all on schema public to {role}; grant all on all tables in schema public to {role}")
    conn.execute(f"grant temporary on database {conn.info.dbname} to {role}")
    before = dump(program, url)

    found = refused(url, user=role, password="owner").detail["problems"]

    assert {each["problem"] for each in found} == {"not_owner"}
    assert {each["name"] for each in found} == {
        "cart_records",
        "cart_vendor_groups",
        "cart_items",
        "checkout_groups",
        "vendor_orders",
        "order_line_items",
        "payment_intents",
        "inventory_items",
        "outbox_events",
        "stores",
        "event_type_enum",
        "aggregate_type_enum",
    }
    assert dump(program, url) == before


def test_member_of_the_role_that_owns_them_may_migrate(legacy, role):
    url, conn = legacy()
    owner = value(conn, "select current_user")
    conn.execute(f"create role {role}_group; grant all on schema public to {role}_group")
    conn.execute(
        f"""
        do $$ declare v_name text; begin
          for v_name in select format('alter %s %s owner to ', kind, name) from (
            select 'table' as kind, oid::regclass::text as name from pg_class
             where relnamespace = 'public'::regnamespace and relkind = 'r'
            union all
            select 'type', oid::regtype::text from pg_type where typnamespace = 'public'::regnamespace and typtype = 'e'
          ) as owned loop execute v_name || '{role}_group'; end loop; end $$;
        """
    )
    conn.execute(f"grant {role}_group to {role}")
    try:
        assert pycheckout.migrate(make_conninfo(url, user=role, password="owner")).migrations == tuple(IDS)
    finally:
        conn.execute(f"reassign owned by {role} to {owner}; reassign owned by {role}_group to {owner}")
        conn.execute(f"drop owned by {role}; drop owned by {role}_group; drop role {role}_group")


def test_rights_that_are_missing_are_named(role, empty_database):
    url = empty_database()
    with connect(url) as conn:
        conn.execute(f"revoke temporary on database {conn.info.dbname} from public")
        conn.execute("create schema shop")
        conn.execute(f"grant usage on schema shop to {role}")
        address = make_conninfo(url, user=role, password="owner", options="-c search_path=shop")
        with connect(address) as theirs, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as caught:
            theirs.execute(
                (MIGRATIONS / "pycheckout_0001_baseline.sql").read_text().split("$preflight$;")[0] + "$preflight$;"
            )
    found = json.loads(caught.value.diag.message_detail)["problems"]
    assert [each["problem"] for each in found] == ["may_not_create", "may_not_use_temporary_tables"]


def test_rows_that_row_level_security_would_hide_are_no_rows_to_judge_by(legacy, role):
    """A superuser sees all of them."""
    url, conn = legacy()
    conn.execute(DAMAGES["rows that are hidden"][0])
    conn.execute(f"grant all on schema public to {role}; grant all on all tables in schema public to {role}")
    found = refused(url, user=role, password="owner").detail["problems"]
    assert [each["name"] for each in found if each["problem"] == "hidden_rows"] == ["vendor_orders"]
    assert pycheckout.migrate(url).migrations == tuple(IDS)


@pytest.mark.parametrize("tool", ["pycheckout", "yoyo"])
def test_database_that_knows_no_characters_is_refused_by_its_encoding(server, worker_id, tool):
    name = f"pycheckout_ascii_{worker_id}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(f"drop database if exists {name} with (force)")
        admin.execute(f"create database {name} template template0 encoding 'SQL_ASCII' lc_collate 'C' lc_ctype 'C'")
        try:
            if tool == "pycheckout":
                with pytest.raises(MigrationError, match="encoding SQL_ASCII"):
                    pycheckout.migrate(server.dsn(name))
            else:
                # without it yoyo itself stumbles, in its own tables
                process = start_yoyo("apply", dsn=server.dsn(name) + "?client_encoding=utf8")
                output, _ = process.communicate(timeout=60)
                assert process.returncode != 0
                assert "encoding SQL_ASCII" in output
            with connect(server.dsn(name)) as conn:
                found = conn.execute(
                    "select relname from pg_class where relname ~ '^(cart|checkout|vendor)_'"
                ).fetchall()
                assert found == []
        finally:
            admin.execute(f"drop database {name} with (force)")


# The plan


def test_plan_shows_what_is_in_the_way_and_what_each_step_costs(legacy):
    url, conn = legacy()
    conn.execute("analyze")
    for name in ("anyone may create", "a table of our name"):
        conn.execute(DAMAGES[name][0])

    text = run_command("migrate", "--plan", "--database", url)
    machine = run_command("migrate", "--plan", "--json", "--database", url)

    assert (text.returncode, machine.returncode) == (1, 1)
    steps = text.stdout.splitlines()
    assert (
        "would apply pycheckout_0007_backfill_anchors: 10 rows, about 1 s; locks rows, a batch at a time"
        in "\n".join(steps)
    )
    for name in ("anyone may create", "a table of our name"):
        assert DAMAGES[name][2] in text.stderr
    planned = json.loads(machine.stdout)
    assert [each["problem"] for each in planned["problems"]] == ["public_create", "name_taken"]
    [orders] = [each for each in planned["pending"] if each["migration"] == "pycheckout_0010_order_cart_index"]
    assert (orders["tables"], orders["rows"]) == (["vendor_orders"], 20)
    assert value(conn, "select to_regclass('checkout_ledger') is null"), "it only looks"


def test_plan_says_where_nobody_has_counted_rows(legacy):
    url, conn = legacy()
    assert value(conn, "select reltuples = -1 from pg_class where oid = 'vendor_orders'::regclass")

    text = run_command("migrate", "--plan", "--database", url).stdout

    assert "_0010_order_cart_index: no statistics: ANALYZE first; builds an index" in text
    [orders] = [each for each in _migrate.plan(url).pending if each.migration == "pycheckout_0010_order_cart_index"]
    assert (orders.rows, orders.seconds) == (None, None)


def test_plan_of_a_database_halfway_takes_nothing_of_ours_for_the_hosts(legacy):
    url, _ = legacy()
    for stop in ("0001_baseline", "order_buyer_index", "catch_up_anchors", "drop_checkout_groups"):
        apply_until(url, stop)
        assert _migrate.plan(url).problems == (), stop


def test_rows_are_judged_by_joins_not_one_at_a_time(legacy):
    """PF-168, a database of any size: the earlier system has no index on checkout_groups.cart_id."""
    url, conn = legacy()
    conn.execute("""
        insert into cart_records (buyer_store_id, status)
        select id('store', 11), 'active' from generate_series(1, 200)
    """)

    def scans():
        query = "select relname::text, seq_scan from pg_stat_user_tables where schemaname = 'public'"
        return {each["relname"]: each["seq_scan"] for each in conn.execute(query)}

    before = scans()
    _migrate.plan(url)

    # what a session did is told when it ends
    wait_until(lambda: scans()["checkout_groups"] > before["checkout_groups"])
    assert max(now - before[name] for name, now in scans().items()) < 20


def test_every_object_that_migrations_make_is_looked_for(legacy):
    """Without the ledger all are the host's; what is not named would stop a later step, or be taken for ours."""
    url, conn = legacy()
    apply_until(url, "catch_up_anchors")
    made = conn.execute("""
        select kind, table_name, name from checkout_ledger
         where kind in ('table', 'view', 'type', 'function', 'trigger', 'constraint')
    """).fetchall()
    conn.execute("alter table checkout_ledger rename to ledger_of_host")

    taken = {(each["kind"], each["name"]) for each in _migrate.plan(url).problems if each["problem"] == "name_taken"}

    wanted = {
        (each["kind"], f"{each['name']} on {each['table_name']}" if each["table_name"] else each["name"])
        for each in made
    }
    assert len(wanted) > 30
    assert wanted <= taken


# Columns of which any type that holds amounts, numbers or texts will do.
OF_ANY_TYPE = {"title", "category", "unit", "currency", "moq", "max_qty", "line_discounts_cents", "line_total_cents"}
OF_ANY_TYPE |= {"discounts_cents", "line_subtotal_cents"}


def test_every_index_and_column_that_migrations_add_is_looked_at(database):
    """A host's own of that name is taken over where it is the same, and in the way where it is not."""
    text = (MIGRATIONS / "pycheckout_0001_baseline.sql").read_text()
    preflight = text[: text.index("create table if not exists checkout_ledger")]
    with connect(database("net", migrated=True)) as conn:
        added = conn.execute("select name from checkout_ledger where kind in ('index', 'column')").fetchall()

    names = {each["name"] for each in added}
    assert len(names) > 25
    assert {name for name in names - OF_ANY_TYPE if not re.search(rf"\b{name}\b", preflight)} == set()


def test_every_migration_after_a_release_says_what_it_brings(database):
    """Where the first is applied, nobody looks into its preflight any more."""
    [released, *_] = [name for name in IDS if name not in SQL_IDS]
    with connect(database("net", migrated=True)) as conn:
        made = conn.execute(
            """
            select migration, concat_ws('.', table_name, split_part(name, '(', 1)) as name from checkout_ledger
             where migration > %s collate "C" and kind in ('table', 'view', 'type', 'function', 'column', 'constraint')
            """,
            (released,),
        ).fetchall()
    for each in made:
        text = (MIGRATIONS / f"{each['migration']}.sql").read_text()
        [brings] = re.findall(r"checkout_migration_open\(([^)]*)\)", text)
        assert f"'{each['name']}'" in brings, each


def test_every_migration_says_what_it_costs():
    for name in SQL_IDS:
        found = re.findall(r"^-- cost: (\w+)", (MIGRATIONS / f"{name}.sql").read_text(), re.MULTILINE)
        assert len(found) == 1 and found[0] in _migrate._COSTS, name


# The names


def test_names_of_the_preflight_are_those_that_a_migrated_database_has(db):
    """Whoever adds a table or a type adds it there."""
    text = (MIGRATIONS / "pycheckout_0001_baseline.sql").read_text()
    [relations] = re.findall(r"v_relations constant text\[\] := '\{(.*?)\}'", text, re.DOTALL)
    [types] = re.findall(r"v_types constant text\[\] := '\{(.*?)\}'", text)
    named = set(re.sub(r"[^\w,]", "", relations).split(",")) | set(types.split(","))
    earlier = set(re.findall(r"create (?:table|type) (?:if not exists )?(\w+)", text)) - {"checkout_ledger"}
    found = {
        row[0]
        for row in db.execute("""
            select relname::text from pg_class
             where relnamespace = 'public'::regnamespace and relname !~ 'yoyo'
               -- sequences of serial columns go with them
               and (relkind in ('r', 'v') or relkind = 'S' and relname !~ '_id_seq$')
            union all
            select typname::text from pg_type where typnamespace = 'public'::regnamespace and typtype = 'e'
        """)
    }
    assert found - earlier == {
        name for name in named if name not in ("checkout_groups_changed", "checkout_groups_archive")
    } - {name for name in named if name.startswith("idx_")}
