"""What the roles of a service may do, and above all what they may not."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb
from roles import FOR_THE_OWNER, PASSWORD

import pycheckout
from checks import refused, row, rows, taken_back, values
from pycheckout._release import deployment
from races import blocked, wait_until_blocked

# The matrix: for each kind of role how it comes to be, and what it may do. Nothing else: no other function, table,
# view, sequence, type or schema.


def columns(privilege: str, names: str) -> set[str]:
    return {f"{privilege} ({name})" for name in names.split()}


EXECUTE, READ, WRITE = {"EXECUTE"}, {"SELECT"}, {"SELECT", "INSERT", "UPDATE", "DELETE"}
QUOTED = (
    "shipping_address currency valid_until subtotal_cents discounts_cents total_cents tax_included ad_tokens updated_at"
)

KINDS: dict[str, tuple[str, dict[str, set[str]]]] = {
    "public": ("select 1", {}),
    "service": (
        "select checkout_grant({name})",
        {
            "ad_token_check": EXECUTE,
            "checkout_execute": EXECUTE,
            "checkout_result": EXECUTE,
            "cart_get": EXECUTE,
            "order_get": EXECUTE,
            "orders_list": EXECUTE,
            "order_changes_list": EXECUTE,
            "checkout_version": EXECUTE,
        },
    ),
    "quotes": (
        "select checkout_grant_quotes({name})",
        {
            "cart_put": EXECUTE,
            "cart_get": EXECUTE,
            "checkout_version": EXECUTE,
            # neither status nor anchor nor what the buyer confirmed
            "cart_records": READ
            | {"DELETE"}
            | columns("INSERT", f"id buyer_store_id created_at {QUOTED}")
            | columns("UPDATE", QUOTED),
            "cart_vendor_groups": WRITE,
            "cart_items": WRITE,
        },
    ),
    "orders": (
        "select checkout_grant_orders({name})",
        {
            "order_get": EXECUTE,
            "orders_list": EXECUTE,
            "order_changes_list": EXECUTE,
            "vendor_order_decide": EXECUTE,
            "vendor_order_cancel": EXECUTE,
            "order_line_release": EXECUTE,
            "order_line_fulfil": EXECUTE,
            "order_line_return": EXECUTE,
            "order_adjust": EXECUTE,
            "vendor_order_extend": EXECUTE,
            "checkout_version": EXECUTE,
        },
    ),
    "payments": (
        "select checkout_grant_payments({name})",
        {"payment_record": EXECUTE, "checkout_version": EXECUTE},
    ),
    "stock": (
        "select checkout_grant_stock({name})",
        {
            "inventory_get": EXECUTE,
            "inventory_set": EXECUTE,
            "inventory_set_many": EXECUTE,
            "inventory_adjust": EXECUTE,
            "inventory_restock": EXECUTE,
            "checkout_version": EXECUTE,
        },
    ),
    "operators": (
        "select checkout_grant_operators({name})",
        {
            "vendor_orders_expire": EXECUTE,
            "checkout_metrics": EXECUTE,
            "checkout_version": EXECUTE,
            "checkout_overview": READ,
            "inventory_levels": READ,
            "outbox_backlog": READ,
        },
    ),
    "relay": (
        "select checkout_grant_relay({name})",
        {
            "outbox_claim": EXECUTE,
            "outbox_extend": EXECUTE,
            "outbox_ack": EXECUTE,
            "outbox_fail": EXECUTE,
            "outbox_release": EXECUTE,
            "outbox_discard": EXECUTE,
            "outbox_replay": EXECUTE,
            "outbox_purge": EXECUTE,
            "checkout_metrics": EXECUTE,
            "checkout_version": EXECUTE,
        },
    ),
    # Roles as a DBA makes them for dashboards and backups. They read signing keys too, as docs/limits.md warns: row
    # level security would keep the keys from them, but also make pg_dump fail, and backups are what they are there for.
    "reader": ("grant select on all tables in schema public to {role}", {"every table and view": READ}),
    "reader of all data": (
        "grant pg_read_all_data to {role}",
        {"every table and view": READ, "every sequence": READ},
    ),
}
# What PostgreSQL gives to PUBLIC by itself.
EVERYBODY = {"schema": {"USAGE"}, "every type": {"USAGE"}}
ODD_NAMES = [
    "Shop API",
    'it"s',
    "o'hara",
    "100% $$ \\ $1",
    "%I",
    "drop table cart_items; --",
    "лавка\u202e",
    "public.x",
]


@pytest.fixture
def service(db, new_role, login) -> psycopg.Connection:
    """A connection of a role that has checkout_grant alone."""
    name = new_role()
    db.execute("select checkout_grant(%s)", [name])
    return login(name)


@pytest.fixture
def quoter(db, new_role, login) -> psycopg.Connection:
    """A connection of a role that has checkout_grant_quotes alone."""
    name = new_role()
    db.execute("select checkout_grant_quotes(%s)", [name])
    return login(name)


def denied(conn: psycopg.Connection, query: str | sql.Composable, params: Any = None) -> bool:
    try:
        conn.execute(query, params)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


OBJECTS = """
    select proname::text as name, 'function' as kind, oid from pg_proc
     where pronamespace = current_schema()::regnamespace
     union all
    select relname::text, case when relkind = 'S' then 'sequence' else 'table and view' end, oid from pg_class
     where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p', 'v', 'm', 'f', 'S')
     union all
    select typname::text, 'type', pg_type.oid from pg_type left join pg_class on pg_class.oid = typrelid
     where typnamespace = current_schema()::regnamespace and typelem = 0 and coalesce(relkind, 'c') = 'c'
     union all
    select 'schema', 'schema', current_schema()::regnamespace
"""

PRIVILEGES = f"""
    with asked as (select %s::name as role, %s::text[] as table_privileges),
    object as (select objects.*, asked.* from ({OBJECTS}) as objects cross join asked)
    select name, privilege from object cross join unnest(table_privileges) as privilege
     where kind = 'table and view' and has_table_privilege(role, oid, privilege)
     union all
    select object.name, format('%%s (%%s)', privilege, attname)
      from object
      join pg_attribute on attrelid = object.oid and attnum > 0 and not attisdropped
     cross join unnest('{{SELECT,INSERT,UPDATE,REFERENCES}}'::text[]) as privilege
     where kind = 'table and view' and has_column_privilege(role, oid, attnum, privilege)
       and not has_table_privilege(role, oid, privilege)
     union all
    select name, 'EXECUTE' from object where kind = 'function' and has_function_privilege(role, oid, 'EXECUTE')
     union all
    select name, privilege from object cross join unnest('{{USAGE,SELECT,UPDATE}}'::text[]) as privilege
     where kind = 'sequence' and has_sequence_privilege(role, oid, privilege)
     union all
    select name, 'USAGE' from object where kind = 'type' and has_type_privilege(role, oid, 'USAGE')
     union all
    select name, privilege from object cross join unnest('{{CREATE,USAGE}}'::text[]) as privilege
     where kind = 'schema' and has_schema_privilege(role, oid, privilege)
"""


@pytest.fixture
def unseen(db) -> Iterator[None]:
    """In a transaction: who reads all data would be found by the doctor of every test beside this one."""
    with taken_back(db):
        yield


@pytest.fixture
def role_of(db, new_role) -> Callable[[str], str]:
    """role_of(kind): the name of a new role of a kind of the matrix."""

    def role_of(kind: str) -> str:
        name = new_role()
        db.execute(sql.SQL(KINDS[kind][0]).format(name=sql.Literal(name), role=sql.Identifier(name)))
        return name

    return role_of


def expected(db: psycopg.Connection, kind: str) -> dict[str, set[str]]:
    """What a kind of role may do, "every ..." spelt out."""
    spelt: dict[str, set[str]] = {}
    for objects in (EVERYBODY, KINDS[kind][1]):
        for name, privileges in objects.items():
            every = name.removeprefix("every ")
            names = values(db, f"select name from ({OBJECTS}) as o where kind = %s", every) if every != name else [name]
            for each in names:
                spelt.setdefault(each, set()).update(privileges)
    return spelt


# The matrix


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_role_has_exactly_its_privileges(db, role_of, kind):
    table = [*WRITE, "TRUNCATE", "REFERENCES", "TRIGGER", *(["MAINTAIN"] if db.info.server_version >= 170000 else [])]
    held: dict[str, set[str]] = {}
    for found in rows(db, PRIVILEGES, role_of(kind), table):
        held.setdefault(found["name"], set()).add(found["privilege"])

    assert held == expected(db, kind)


ATTEMPTS = f"""
    with object as ({OBJECTS}),
    columns as (
      select name, quote_ident(name) as relation, attname, quote_ident(attname) as column
        from object join pg_class on pg_class.oid = object.oid and relkind in ('r', 'p')
        join pg_attribute on attrelid = object.oid and attnum > 0 and not attisdropped
    )
    select name, 'EXECUTE' as privilege,
           -- sub-selects: a strict function of a plain null is never called, so nobody asks for the right to
           format('select %%I(%%s)', name,
                  (select string_agg(concat(case when provariadic <> 0 and position = pronargs then 'variadic ' end,
                                            format('(select null::%%s)', format_type(type, null))),
                                     ', ' order by position)
                     from unnest(proargtypes::oid[]) with ordinality as argument (type, position))) as statement
      from object join pg_proc on pg_proc.oid = object.oid and kind = 'function'
     union all
    select name, 'SELECT', format('select from %%I', name) from object where kind in ('table and view', 'sequence')
     union all
    select name, 'USAGE', format('select nextval(%%L)', quote_ident(name)) from object where kind = 'sequence'
     union all
    select distinct name, privilege, format(statement, relation)
      from columns
     cross join (values ('INSERT', 'insert into %%s default values'),
                        ('DELETE', 'delete from %%s where false'),
                        ('TRUNCATE', 'truncate %%s cascade')) as tried (privilege, statement)
     union all
    select name, format('UPDATE (%%s)', attname), format('update %%s set %%s = default where false', relation, "column")
      from columns
     union all
    select 'schema', 'CREATE', 'create function cart_total(jsonb) returns int language sql return 1'
"""


@pytest.mark.usefixtures("unseen")
@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_role_is_denied_all_else_when_it_tries(db, role_of, kind):
    """Every function called, every table read and written: what the catalogue says is what happens."""
    attempts = rows(db, ATTEMPTS)
    may = expected(db, kind)
    role = role_of(kind)

    with_role = sql.SQL("set role {}").format(sql.Identifier(role))
    allowed: set[tuple[str, str]] = set()
    for attempt in attempts:
        db.execute(with_role)
        try:
            db.execute(attempt["statement"])
        except psycopg.Error as error:
            # with a context it comes from inside of a function: the role was let in there
            if error.sqlstate == "42501" and error.diag.context is None:
                continue
        finally:
            db.execute("reset role")
        allowed.add((attempt["name"], attempt["privilege"]))

    assert len(attempts) > 300
    let_in = [each for each in attempts if covers(may.get(each["name"], set()), each["privilege"])]
    assert allowed == {(each["name"], each["privilege"]) for each in let_in}


def covers(held: set[str], privilege: str) -> bool:
    """Whether a statement that needs the privilege is let in: a table's covers its columns', any column's an INSERT."""
    return (
        privilege in held
        or privilege.split(" ")[0] in held
        or (privilege == "INSERT" and any(each.startswith("INSERT") for each in held))
    )


# checkout_grant


def test_a_service_role_checks_out_reads_the_result_and_asks_the_version(service, add_cart, checkout):
    cart = add_cart()

    assert checkout(service, cart).replayed is False
    assert checkout(service, cart).replayed is True
    assert pycheckout.result(service, buyer_store_id=cart.buyer_store_id, cart_id=cart.id).outcome == "complete"
    [(version,)] = service.execute("select checkout_version()")
    assert set(version) == {"version", "hash"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not kind.startswith("reader")])
def test_signing_keys_stay_secret(db, role_of, login, kind):
    """Not by a table or a function, which the matrix tries, and not by what the server tells about a table."""
    db.execute("select ad_signing_key_put('k1', %s)", [bytes(32)])
    db.execute("analyze ad_signing_keys")
    conn = login(role_of(kind))

    assert denied(conn, "copy ad_signing_keys to stdout")
    # samples of a column, for those alone who may read it
    assert values(conn, "select attname::text from pg_stats where tablename = 'ad_signing_keys'") == []


@pytest.mark.parametrize("suffix", ODD_NAMES)
@pytest.mark.parametrize("function", ["checkout_grant", "checkout_grant_quotes"])
def test_roles_may_have_any_name(db, new_role, login, function, suffix):
    name = new_role(suffix)
    db.execute(sql.SQL("select {}(%s)").format(sql.Identifier(function)), [name])

    conn = login(name)
    assert conn.info.user == name
    assert row(conn, "select checkout_version()")
    assert values(db, "select role_name from checkout_roles") == [name]


@pytest.mark.parametrize("function", ["checkout_grant", "checkout_grant_quotes"])
@pytest.mark.parametrize("name", ["no such role", "", "public", "PUBLIC", "current_user", "postgres, x", None])
def test_unknown_role_is_refused(db, snapshot, function, name):
    before = snapshot(db)

    with refused("OC005") as refusal:
        db.execute(f"select {function}(%s)", [name])

    assert refusal.detail["field"] == "role_name"
    assert snapshot(db) == before


def test_grants_survive_a_deployment(db, dsn, new_role):
    """Also of a function that somebody dropped; a role that was dropped meanwhile is passed over."""
    kept, dropped = new_role(), new_role()
    for name in (kept, dropped):
        db.execute("select checkout_grant(%s)", [name])
    db.execute("drop function checkout_result(uuid, uuid)")
    db.execute(f"drop owned by {dropped}; drop role {dropped}")

    pycheckout.migrate(dsn)

    assert values(db, "select has_function_privilege(%s, 'checkout_result(uuid, uuid)', 'execute')", kept) == [True]


def test_granting_twice_is_granting_once(db, new_role):
    name = new_role()
    for _ in range(2):
        db.execute("select checkout_grant(%s), checkout_grant_quotes(%s)", [name, name])

    assert values(db, "select scope from checkout_roles where role_name = %s order by 1", name) == [
        "checkout",
        "quotes",
    ]


def test_two_grants_at_once_queue(db, connect, new_role):
    """Both write the same rows of pg_proc; without a lock the second one fails as "tuple concurrently updated"."""
    first, second = connect(), connect()
    names = [new_role(), new_role()]

    with ThreadPoolExecutor(1) as pool:
        first.execute("select checkout_grant(%s)", [names[0]])
        waiting = pool.submit(second.execute, "select checkout_grant_quotes(%s)", [names[1]])
        wait_until_blocked(db, second.info.backend_pid)
        first.commit()
        waiting.result(timeout=5)
        second.commit()

    assert values(db, "select role_name from checkout_roles order by 1") == sorted(names)


# checkout_revoke

GRANTS = [name for name in sorted(FOR_THE_OWNER) if name.startswith("checkout_grant")]


@pytest.mark.parametrize("suffix", ["", *ODD_NAMES])
def test_a_revoked_role_has_nothing_left_and_is_given_nothing_again(db, new_role, suffix):
    """As if it had never been granted anything, whatever a deployment brings."""
    name, other = new_role(suffix), new_role()
    table = [*WRITE, "TRUNCATE", "REFERENCES", "TRIGGER"]
    by_name = f"{PRIVILEGES} order by name, privilege"
    db.execute("revoke usage on schema public from public")
    before = rows(db, by_name, name, table)
    for function in GRANTS:
        db.execute(sql.SQL("select {0}({1}), {0}({2})").format(sql.Identifier(function), name, other))
    held = rows(db, by_name, other, table)
    assert len(rows(db, by_name, name, table)) == len(held) > len(before) + 20

    db.execute("select checkout_revoke(%s)", [name])
    db.execute("drop function checkout_result(uuid, uuid)")
    with db.transaction():
        deployment().deploy(db)

    assert rows(db, by_name, name, table) == before
    assert set(values(db, "select role_name from checkout_roles")) == {other}
    assert rows(db, by_name, other, table) == held
    db.execute("select checkout_revoke(%s)", [name])  # nothing is left to take


def test_a_revoke_takes_what_was_granted_and_no_more(db, new_role):
    """What the host gave its own role stays, and the schema stays open to it."""
    name = new_role()
    db.execute("revoke usage on schema public from public")
    db.execute(f"grant execute on function inventory_set to {name}; grant select on cart_records to {name}")
    db.execute("select checkout_grant(%s)", [name])

    db.execute("select checkout_revoke(%s)", [name])

    for statement in (
        "has_schema_privilege(%s, 'public', 'usage')",
        "has_function_privilege(%s, 'inventory_set(uuid, integer)', 'execute')",
        "has_table_privilege(%s, 'cart_records', 'select')",
    ):
        assert values(db, f"select {statement}", name) == [True], statement
    assert values(db, "select has_function_privilege(%s, 'checkout_version()', 'execute')", name) == [False]


def test_a_role_that_is_gone_is_forgotten(db, new_role):
    name = new_role()
    db.execute("select checkout_grant(%s)", [name])
    db.execute(f"drop owned by {name}; drop role {name}")

    db.execute("select checkout_revoke(%s)", [name])

    assert values(db, "select role_name from checkout_roles") == []
    with refused("OC005") as refusal:
        db.execute("select checkout_revoke(%s)", [name])
    assert refusal.detail["field"] == "role_name"


def test_a_revoke_waits_for_a_deployment(db, connect, new_role):
    """Or the deployment would give the role again what it read before."""
    name, deploying, owner = new_role(), connect(), connect(autocommit=True)
    db.execute("select checkout_grant(%s)", [name])
    deployment().deploy(deploying)
    with blocked(db, lambda conn: conn.execute("select checkout_revoke(%s)", [name]), owner) as waiting:
        deploying.commit()
    waiting.result(timeout=10)
    assert values(db, "select has_function_privilege(%s, 'checkout_version()', 'execute')", name) == [False]


# lock_timeout


@pytest.mark.parametrize("function", GRANTS)
def test_a_role_that_was_granted_something_waits_five_seconds_for_a_lock(db, new_role, login, function):
    name = new_role(" it's")
    db.execute(sql.SQL("select {}(%s)").format(sql.Identifier(function)), [name])
    assert values(login(name), "show lock_timeout") == ["5s"]


@pytest.mark.parametrize("where", ["", "in database {database}"])
@pytest.mark.parametrize("own", ["1s", "0"])
def test_a_lock_timeout_of_the_role_stays(db, new_role, login, where, own):
    name = new_role()
    db.execute(f"alter role {name} {where.format(database=db.info.dbname)} set lock_timeout = '{own}'")

    db.execute("select checkout_grant(%s)", [name])

    assert values(login(name), "show lock_timeout") == [own]


def test_a_lock_timeout_in_another_database_does_not_count(db, new_role, login, server):
    name = new_role()
    db.execute(f"alter role {name} in database {server.maintenance_dbname} set lock_timeout = '1s'")

    db.execute("select checkout_grant(%s)", [name])

    assert values(login(name), "show lock_timeout") == ["5s"]


def test_an_owner_who_is_no_superuser_installs_grants_and_is_warned(empty_database, new_role, add_cart, checkout):
    """Only somebody who administers a role may set its lock_timeout; the grant itself stands."""
    owner, name = new_role(), new_role()
    url = empty_database()
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(f"alter database {admin.info.dbname} owner to {owner}")
    pycheckout.migrate(make_conninfo(url, user=owner, password=PASSWORD))
    warnings: list[tuple[str, str]] = []

    with psycopg.connect(url, user=owner, password=PASSWORD, autocommit=True) as conn:
        conn.add_notice_handler(lambda notice: warnings.append((notice.message_primary, notice.message_hint)))
        conn.execute("select checkout_grant(%s)", [name])
        cart = add_cart(conn=conn)
    with psycopg.connect(url, user=name, password=PASSWORD, autocommit=True) as conn:
        assert checkout(conn, cart).outcome == "complete"
        assert values(conn, "show lock_timeout") == ["0"]

    [(message, hint)] = warnings
    assert "lock_timeout" in message
    assert f"ALTER ROLE {name} IN DATABASE" in hint
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute(hint[hint.index("ALTER ROLE") :])
        admin.execute(f"reassign owned by {owner} to current_user; drop owned by {owner}, {name}")


# checkout_grant_quotes


def quote(cart_id: str) -> dict[str, Any]:
    item = {
        "product_id": "d0000000-0000-4000-8000-000000000099",
        "title": "Apples",
        "quantity": 2,
        "unit_price_cents": 500,
        "line_subtotal_cents": 1000,
    }
    vendor = {
        "vendor_store_id": "50000000-0000-4000-8000-000000000099",
        "subtotal_cents": 1000,
        "total_cents": 1000,
        "items": [item],
    }
    return {
        "id": cart_id,
        "buyer_store_id": "b0000000-0000-4000-8000-000000000099",
        "currency": "USD",
        "valid_until": "2999-01-01T00:00:00Z",
        "vendor_groups": [vendor],
    }


CART_ID = "ca000000-0000-4000-8000-000000000099"


def test_a_quoting_role_writes_quotes_by_cart_put(quoter, db):
    for _ in range(2):
        [(answer,)] = quoter.execute("select cart_put(%s)", [Jsonb(quote(CART_ID))])

    assert answer["totals"]["quoted"]["total_cents"] == 1000
    assert row(db, "select count(*) from cart_items where cart_id = %s", CART_ID)["count"] == 1


def test_a_quoting_role_writes_quotes_into_the_tables(quoter, db, add_cart, checkout):
    """As docs/quotes.md has it: under the cart's lock, with the cart row updated."""
    cart = add_cart()
    statements = (
        "select from cart_records where id = %s for update",
        "update cart_items set quantity = 1, title = 'Pears' where cart_id = %s",
        "update cart_vendor_groups set warnings = '[]' where cart_id = %s",
        "update cart_records set valid_until = valid_until + interval '1 hour', updated_at = now() where id = %s",
    )
    with quoter.transaction():
        for statement in statements:
            quoter.execute(statement, [cart.id])
    assert {item.name for order in checkout(db, cart).vendor_orders for item in order.items} == {"Pears"}

    doomed = add_cart()
    quoter.execute("delete from cart_records where id = %s", [doomed.id])
    assert quoter.execute("select from cart_items where cart_id = %s", [doomed.id]).rowcount == 0


def test_a_quoting_role_cannot_touch_a_converted_cart(quoter, db, add_cart, checkout):
    cart = add_cart()
    checkout(db, cart)

    for statement in (
        "update cart_items set quantity = 9 where cart_id = %s",
        "delete from cart_vendor_groups where cart_id = %s",
        "delete from cart_records where id = %s",
    ):
        with refused("OC009"):
            quoter.execute(statement, [cart.id])


def test_a_role_for_orders_may_change_them_and_nothing_else(db, new_role, login, add_cart, checkout_sql):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    name = new_role()
    db.execute("select checkout_grant_orders(%s)", [name])
    orders = login(name)
    [fulfilled] = values(orders, "select order_line_fulfil(%s)", cart.items[0].id)
    assert fulfilled["status"] == "partially_fulfilled"
    for forbidden in (
        "select from vendor_orders",
        "update inventory_items set reserved_qty = 0",
        f"select inventory_return('{cart.id}', array['{cart.items[1].id}']::uuid[], true)",
        f"select checkout_result('{cart.buyer_store_id}', '{cart.id}')",
    ):
        assert denied(orders, forbidden), forbidden


def test_default_privileges_of_the_host_open_neither_keys_nor_functions(new_role, empty_database):
    """Some hosts give every new table and function to their web role (ALTER DEFAULT PRIVILEGES)."""
    role, url = new_role(" it's"), empty_database()
    with psycopg.connect(url, autocommit=True) as conn:
        for kind in ("tables", "functions"):
            conn.execute(
                sql.SQL("alter default privileges in schema public grant all on {} to {}, public").format(
                    sql.SQL(kind), sql.Identifier(role)
                )
            )
        pycheckout.migrate(url)
        pycheckout.migrate(url)
        for table in ("ad_signing_keys", "cart_change_permits"):
            for privilege in ("select", "insert", "update", "delete", "truncate"):
                assert values(conn, "select has_table_privilege(%s, %s, %s)", role, table, privilege) == [False]
        open_to_it = """
            select proname::text from pg_proc join checkout_functions on oid = to_regprocedure(signature)
             where has_function_privilege(%s, oid, 'execute')
        """
        assert values(conn, open_to_it, role) == []
        # what it is given afterwards, it keeps
        conn.execute(sql.SQL("grant execute on function inventory_set to {}").format(sql.Identifier(role)))
        pycheckout.migrate(url)
        assert values(conn, open_to_it, role) == ["inventory_set"]
        conn.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(role)))


def test_the_comment_of_each_grant_names_what_it_gives(db):
    """It is what the reference says, and whoever calls it reads."""
    given = rows(
        db,
        "select scope, array_agg(split_part(object, '(', 1)) as names from checkout_privileges() group by scope",
    )
    assert len(given) == 7
    for each in given:
        grant = "checkout_grant" if each["scope"] == "checkout" else f"checkout_grant_{each['scope']}"
        [comment] = values(db, "select obj_description(to_regproc(%s), 'pg_proc')", grant)
        # of the tables of quotes it says what they are
        named = {name for name in each["names"] if not name.startswith("cart_") or name in ("cart_get", "cart_put")}
        assert {name for name in named if name not in re.findall(r"\w+", comment)} == set(), grant
