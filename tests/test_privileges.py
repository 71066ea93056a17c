"""What the roles of a service may do, and above all what they may not."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg.types.json import Jsonb

import pycheckout
from checks import refused, row, values
from races import wait_until_blocked

PASSWORD = "of-a-test"
API = {"checkout_execute", "checkout_result", "checkout_version"}
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
def new_role(db: psycopg.Connection, worker_id: str) -> Iterator[Callable[..., str]]:
    """new_role(): the name of a new login role. Roles are the cluster's, so this one is dropped at the end."""
    names: list[str] = []

    def drop(name: str) -> None:
        if values(db, "select 1 from pg_roles where rolname = %s", name):
            db.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))

    def new_role(suffix: str = "") -> str:
        name = f"pycheckout_{worker_id}_{len(names)}{suffix}"
        drop(name)
        db.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(PASSWORD)))
        names.append(name)
        return name

    yield new_role
    for name in names:
        drop(name)


@pytest.fixture
def login(dsn: str, connect: Callable[..., psycopg.Connection]) -> Callable[..., psycopg.Connection]:
    """login(role): a connection of a role to this test's database, autocommit on."""
    return lambda role: connect(user=role, password=PASSWORD, autocommit=True)


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


def executable(db: psycopg.Connection, role: str) -> set[str]:
    """The functions of the schema that a role may call."""
    return set(
        values(
            db,
            """
            select proname::text from pg_proc
             where pronamespace = current_schema()::regnamespace and has_function_privilege(%s, oid, 'execute')
            """,
            role,
        )
    )


def within_reach(db: psycopg.Connection, role: str) -> set[str]:
    """The tables, views and sequences of the schema that a role has any right on, a column of them included."""
    query = """
        select relname::text from pg_class cross join (values (%s)) as asked (role)
         where relnamespace = current_schema()::regnamespace
           and case when relkind = 'S' then has_sequence_privilege(role, oid, 'usage, select, update')
                    when relkind in ('r', 'p', 'v') then
                      has_table_privilege(role, oid, 'select, insert, update, delete, truncate, references, trigger')
                      or has_any_column_privilege(role, oid, 'select, insert, update, references')
               end
    """
    return set(values(db, query, role))


# checkout_grant


def test_a_service_role_checks_out_reads_the_result_and_asks_the_version(service, add_cart, checkout):
    cart = add_cart()

    assert checkout(service, cart).replayed is False
    assert checkout(service, cart).replayed is True
    assert pycheckout.result(service, cart.buyer_store_id, cart.id).outcome == "complete"
    [(version,)] = service.execute("select checkout_version()")
    assert set(version) == {"version", "hash"}


def test_a_service_role_calls_nothing_but_the_api(service, db):
    assert executable(db, service.info.user) == API


@pytest.mark.parametrize(
    "call",
    [
        "cart_put('{}')",
        "cart_purge('0')",
        "checkout_requests_purge('0')",
        "inventory_restock(gen_random_uuid(), 1)",
        "inventory_reserve(gen_random_uuid(), 'partial', now())",
        "checkout_audit()",
        "checkout_grant(current_user)",
        "checkout_apply_grants()",
        "checkout_build_result(null, true)",
        "ad_signing_key_put('k', sha256(''))",
        "ad_hmac_pad('', 54)",
        "ad_token_verify('', gen_random_uuid(), now())",
    ],
)
def test_neither_stock_nor_quotes_nor_keys_nor_a_step_alone(service, call):
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        service.execute(f"select {call}")


def test_a_service_role_touches_no_table_and_no_view(service, db, add_cart, checkout):
    checkout(service, add_cart())

    assert within_reach(db, service.info.user) == set()
    for statement in (
        "select from cart_records",
        "select * from inventory_levels",
        "insert into checkout_requests default values",
        "update vendor_orders set total_cents = 0",
        "delete from outbox_events",
        "truncate payment_intents",
    ):
        assert denied(service, statement), statement


def test_signing_keys_stay_secret_from_a_service_role(service, db):
    db.execute("select ad_signing_key_put('k1', %s)", [bytes(32)])

    assert denied(service, "select kid from ad_signing_keys")
    assert denied(service, "select ad_signing_key_retire('k1')")
    # pg_stats shows samples of a column, to those alone who may read it
    db.execute("analyze ad_signing_keys")
    assert values(service, "select attname::text from pg_stats where tablename = 'ad_signing_keys'") == []


def test_a_role_that_reads_all_data_reads_signing_keys_too(db, new_role, login):
    """What pg_read_all_data means; docs/limits.md warns. Row level security would keep the keys from such a role, but
    also make its pg_dump fail, and backups are what the role is there for."""
    name = new_role()
    db.execute(sql.SQL("grant pg_read_all_data to {}").format(sql.Identifier(name)))
    db.execute("select ad_signing_key_put('k1', %s)", [bytes(32)])
    reader = login(name)

    assert values(reader, "select kid from ad_signing_keys") == ["k1"]
    assert executable(db, name) == set()
    assert denied(reader, "delete from ad_signing_keys")


def test_a_role_without_grants_can_do_nothing(db, new_role, login):
    """What PUBLIC may do, anyone may."""
    name = new_role()
    nobody = login(name)

    assert executable(db, name) == set()
    assert within_reach(db, name) == set()
    assert denied(nobody, "select from cart_records")
    assert denied(nobody, "create function cart_total(jsonb) returns int language sql return 1")


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
    """Each deployment grants again, and passes over a role that was dropped meanwhile."""
    kept, dropped = new_role(), new_role()
    for name in (kept, dropped):
        db.execute("select checkout_grant(%s)", [name])
    db.execute("revoke execute on function checkout_result(uuid, uuid) from " + kept)
    db.execute(f"drop owned by {dropped}; drop role {dropped}")

    pycheckout.migrate(dsn)

    assert values(db, "select has_function_privilege(%s, 'checkout_result(uuid, uuid)', 'execute')", kept) == [True]


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


# lock_timeout


def test_a_service_role_waits_five_seconds_for_a_lock(service):
    assert values(service, "show lock_timeout") == ["5s"]


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


def test_an_owner_who_is_no_superuser_installs_grants_and_is_warned(
    empty_database, new_role, server, add_cart, connect, checkout
):
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


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "gen_random_uuid()"),
        ("buyer_store_id", "gen_random_uuid()"),
        ("status", "'converted'"),
        ("checkout_group_id", "gen_random_uuid()"),
        ("payment_method", "'ach'"),
        ("shipping_line", "'{}'"),
        ("converted_at", "now()"),
    ],
)
def test_a_quoting_role_cannot_convert_a_cart_or_confirm_anything(quoter, add_cart, column, value):
    cart = add_cart()

    assert denied(quoter, f"update cart_records set {column} = {value} where id = %s", [cart.id])


@pytest.mark.parametrize("column", ["status", "checkout_group_id", "payment_method", "shipping_line", "converted_at"])
def test_a_quoting_role_cannot_insert_a_cart_that_is_more_than_quoted(quoter, column):
    assert denied(
        quoter,
        f"insert into cart_records (id, buyer_store_id, valid_until, {column}) "
        "values (gen_random_uuid(), gen_random_uuid(), now(), null)",
    )


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


def test_a_quoting_role_reaches_nothing_else(quoter, db):
    assert executable(db, quoter.info.user) == {"cart_put", "checkout_version"}
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        quoter.execute("select checkout_execute(gen_random_uuid(), gen_random_uuid(), 'k', '{}', 'ach')")

    assert within_reach(db, quoter.info.user) == {"cart_records", "cart_vendor_groups", "cart_items"}
    assert denied(quoter, "select from ad_signing_keys")
    assert denied(quoter, "truncate cart_records")
