"""Deploying the functions: one transaction, refused where it would be unsafe, and nobody loses a grant by it."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql
from upgrade import ROOT, apply_until, connect, dump, run_yoyo, start_yoyo, value, yoyo_backend

import pycheckout
from pycheckout import _doctor, _migrate
from pycheckout._release import deployment, release
from races import wait_until_blocked

pytest_plugins = ["shared"]


@pytest.fixture
def url(database):
    return database(migrated=True)


@pytest.fixture
def conn(url):
    with connect(url) as conn:
        yield conn


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """A copy of db/functions, which the deployment takes for its own."""
    copy = shutil.copytree(ROOT / "db" / "functions", tmp_path / "functions")
    monkeypatch.setattr(deployment(), "FUNCTIONS", copy)
    return copy


@pytest.fixture
def role(conn, worker_id):
    """role("name"): a role of this test, dropped at the end with all that it was granted.

    Its name is this process's: another may run the same test on the same server.
    """
    names = []

    def role(name):
        name = f"{name}_{worker_id}"
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        names.append(name)
        return name

    yield role
    for name in names:
        if value(conn, "select count(*) from pg_roles where rolname = %s", name):
            conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))


def deploy(conn):
    with conn.transaction():
        deployment().deploy(conn)


def signatures(conn, name):
    query = "select oid::regprocedure::text as signature from pg_proc where proname = %s order by 1"
    return [row["signature"] for row in conn.execute(query, (name,)).fetchall()]


def all_functions(conn):
    return conn.execute(
        "select oid::regprocedure::text, md5(pg_get_functiondef(oid)), proacl::text from pg_proc"
        " where pronamespace = 'public'::regnamespace order by 1"
    ).fetchall()


def write(functions, name, parameters="", result="int", body="1"):
    text = f"create or replace function {name}({parameters}) returns {result} language sql as $$ select {body} $$;\n"
    (functions / f"{name}.sql").write_text(text)


# Refused


def test_migration_refuses_before_any_change_while_public_may_create_in_the_schema(empty_database):
    """PF-168: somebody's better matching overload would run as the owner. The HINT is the statement to run."""
    url = empty_database()
    tables = "select count(*) from pg_class where relname in ('cart_records', 'checkout_ledger')"
    with connect(url) as conn:
        for schema in ("public", 'Odd "one"'):
            name = sql.Identifier(schema)
            conn.execute(sql.SQL("create schema if not exists {0}; grant create on schema {0} to public").format(name))
            with pytest.raises(pycheckout.MigrationError, match="PUBLIC may create objects") as caught:
                pycheckout.migrate(url, schema=schema)
            assert caught.value.sqlstate == "55000"
            assert value(conn, tables) == 0

        conn.execute(caught.value.hint)
        pycheckout.migrate(url, schema=schema)
        assert value(conn, tables) == 2


def test_deployment_refuses_while_public_may_create_in_the_schema(conn):
    """PF-168: what was revoked for the migrations may have been granted since."""
    conn.execute("drop function cart_purge(interval, integer); grant create on schema public to public")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="PUBLIC may create objects") as caught:
        deploy(conn)
    assert signatures(conn, "cart_purge") == []

    conn.execute(caught.value.diag.message_hint)
    deploy(conn)
    assert signatures(conn, "cart_purge") == ["cart_purge(interval,integer)"]


def test_yoyo_shows_the_refusal_and_its_hint(empty_database):
    """PF-168: and applies once it was followed."""
    url = empty_database()
    with connect(url) as conn:
        conn.execute("grant create on schema public to public")
        process = start_yoyo("apply", dsn=url)
        output, _ = process.communicate(timeout=60)
        assert process.returncode != 0
        assert "HINT:  REVOKE CREATE ON SCHEMA public FROM PUBLIC;" in output
        conn.execute("revoke create on schema public from public")
    run_yoyo("apply", dsn=url)


MAJOR, MINOR, PATCH = map(int, release().split("."))
NEWER = ["99.0.0", f"{MAJOR}.{MINOR + 9}.0", f"{MAJOR + 1}.0.0rc1", f"{MAJOR}.{MINOR}.{PATCH + 1}", f"{release()}.1"]


@pytest.mark.parametrize("newer", NEWER)
def test_deployment_over_a_newer_release_is_refused(conn, newer):
    """PF-168: two releases at once happen in every roll-out; 0.10 is newer than 0.9."""
    conn.execute("insert into checkout_releases (version, hash) values (%s, 'x')", (newer,))
    before = all_functions(conn)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=newer):
        deploy(conn)
    assert all_functions(conn) == before


@pytest.mark.parametrize("older", ["0.0.9", release(), f"{release()}rc1", "0.1"])
def test_deployment_over_the_same_or_an_older_release_works(conn, older):
    """PF-168"""
    conn.execute("insert into checkout_releases (version, hash) values (%s, 'x')", (older,))
    deploy(conn)
    assert value(conn, "select checkout_version()") == {"version": release(), "hash": deployment().functions_hash()}


def test_function_of_the_host_with_one_of_our_names_is_refused(empty_database):
    """PF-168: neither replaced nor dropped, also one made after the first migration looked for such names."""
    url = empty_database()
    apply_until(url, "inventory_baseline")
    with connect(url) as conn:
        for theirs in (
            "create function cart_put(cart text) returns int language sql as 'select 1'",
            "create function cart_put(cart jsonb) returns jsonb language sql as 'select cart'",
            "create procedure cart_put() language sql as 'select 1'",
        ):
            conn.execute(theirs)
            before = signatures(conn, "cart_put")
            with pytest.raises(pycheckout.MigrationError, match=r"not ours: cart_put\("):
                pycheckout.migrate(url)
            assert signatures(conn, "cart_put") == before, theirs
            conn.execute("drop routine cart_put")
        pycheckout.migrate(url)
        assert signatures(conn, "cart_put") == ["cart_put(jsonb)"]


def test_deployment_that_fails_changes_nothing(conn, functions):
    """PF-168: all of it is one transaction."""
    before = all_functions(conn)
    write(functions, "aaa_first")
    (functions / "zzz_last.sql").write_text("create function zzz_last() returns nothing_known language sql as ''")
    with pytest.raises(psycopg.errors.UndefinedObject):
        deploy(conn)
    assert all_functions(conn) == before


@pytest.mark.parametrize(
    "text",
    [
        "create function other_name() returns int language sql as 'select 1'",
        "create function twice() returns int language sql as 'select 1';"
        "create function twice(n int) returns int language sql as 'select 1'",
    ],
)
def test_file_creates_the_one_function_of_its_name(conn, functions, text):
    """PF-168"""
    (functions / "twice.sql").write_text(text)
    with pytest.raises(deployment().DeployError, match="must create exactly one function named twice"):
        deploy(conn)


# Replaced, dropped


@pytest.mark.parametrize(
    "change",
    [
        {"parameters": "a int, b int default 1"},
        {"parameters": "renamed int"},
        {"parameters": "a bigint"},
        {"parameters": ""},
        {"parameters": "a int", "result": "text", "body": "'x'"},
        {"parameters": "a int", "body": "2"},
    ],
)
def test_changed_function_replaces_the_old_one_at_once(conn, functions, connect_again, change):
    """PF-168: one signature of each function exists at a time; other sessions see the old one until the commit."""
    write(functions, "checkout_probe", "a int")
    deploy(conn)
    with conn.transaction():
        write(functions, "checkout_probe", **change)
        deployment().deploy(conn)
        assert signatures(connect_again, "checkout_probe") == ["checkout_probe(integer)"]
    assert len(signatures(conn, "checkout_probe")) == 1
    assert value(conn, "select prosrc from pg_proc where proname = 'checkout_probe'").strip() == (
        f"select {change.get('body', '1')}"
    )
    deploy(conn)
    assert len(signatures(conn, "checkout_probe")) == 1


@pytest.fixture
def connect_again(url):
    with connect(url) as conn:
        yield conn


def test_function_that_the_release_no_longer_has_is_dropped(conn, functions):
    """PF-168: and one of the host stays."""
    write(functions, "checkout_probe", "a int")
    deploy(conn)
    conn.execute("create function of_the_host() returns int language sql as 'select 1'")
    (functions / "checkout_probe.sql").unlink()
    deploy(conn)
    assert signatures(conn, "checkout_probe") == []
    assert signatures(conn, "of_the_host") == ["of_the_host()"]


def test_function_that_somebody_dropped_or_changed_is_made_right(conn):
    """PF-168"""
    before = all_functions(conn)
    conn.execute("drop function cart_purge(interval, integer)")
    conn.execute("create or replace function checkout_version() returns jsonb language sql as $$ select null::jsonb $$")
    deploy(conn)
    assert all_functions(conn) == before


def test_deployment_is_recorded_once_a_release_and_hash(conn, functions):
    """PF-168: checkout_version() tells the last one."""
    deploy(conn)
    deploy(conn)
    assert value(conn, "select count(*) from checkout_releases") == 1
    write(functions, "checkout_probe")
    deploy(conn)
    assert value(conn, "select count(*) from checkout_releases") == 2
    assert value(conn, "select checkout_version() ->> 'hash'") == deployment().functions_hash()


def test_deployment_leaves_the_search_path_of_the_session_alone(conn):
    """PF-168: the functions keep theirs."""
    conn.execute("set search_path to public, pg_catalog")
    deploy(conn)
    assert value(conn, "select current_setting('search_path')") == "public, pg_catalog"
    pinned = value(
        conn,
        "select count(distinct setting) from pg_proc cross join unnest(proconfig) as setting"
        " where prosecdef and pronamespace = 'public'::regnamespace and starts_with(setting, 'search_path=')",
    )
    assert pinned == 1


# Grants


MAY = "select has_function_privilege(%s, %s, 'execute')"


def change_result(functions):
    """Renames a parameter of checkout_result, so that it has to be dropped and made anew."""
    file = functions / "checkout" / "checkout_result.sql"
    file.write_text(file.read_text().replace("cart_id uuid", "cart uuid").replace("checkout_result.cart_id", "cart"))


def give_also(functions, scope, name):
    """As a release does that lets a scope call one function more."""
    file = functions / "admin" / "steps" / "checkout_privileges.sql"
    row = f"('{scope}', 'execute', 'function', '{name}()', null::text[])"
    file.write_text(file.read_text().replace("  values (", f"  values {row},\n         (", 1))


def test_a_function_that_is_made_anew_keeps_its_callers(conn, role, functions):
    """Whoever granted them, and by whatever name; and nobody else gets in, whatever was revoked."""
    service, quotes = role('Service "x"'), role("pycheckout_test_quotes")
    by_hand, revoked = role("pycheckout_test_by_hand"), role("pycheckout_test_revoked")
    conn.execute("select checkout_grant(%s), checkout_grant_quotes(%s)", (service, quotes))
    conn.execute("select checkout_grant(%s)", (revoked,))
    conn.execute(f"grant execute on function checkout_result(uuid, uuid) to {by_hand} with grant option")
    conn.execute(f"revoke execute on function checkout_result(uuid, uuid) from {revoked}")
    change_result(functions)

    deploy(conn)

    may = {name: value(conn, MAY, name, "checkout_result(uuid, uuid)") for name in (service, quotes, by_hand, revoked)}
    assert may == {service: True, quotes: False, by_hand: True, revoked: False}
    assert value(
        conn,
        MAY,
        service,
        "checkout_execute(uuid, uuid, text, jsonb, text, jsonb, text, text, jsonb, text, jsonb, interval)",
    )
    grants = "select has_function_privilege(%s, 'checkout_result(uuid, uuid)', 'execute with grant option')"
    assert [value(conn, grants, name) for name in (by_hand, service)] == [True, False]


@pytest.mark.parametrize(
    ("kind", "revoke"),
    [
        ("checkout_grant", "execute on function checkout_version()"),
        ("checkout_grant", "usage on schema public"),
        ("checkout_grant_quotes", "execute on function cart_put(jsonb)"),
        ("checkout_grant_quotes", "delete on table cart_items"),
        ("checkout_grant_operators", "select on table outbox_backlog"),
    ],
)
def test_a_revoke_by_hand_stays(conn, role, functions, kind, revoke):
    """A deployment gives back nothing that a DBA took, also when it brings something new for the scope."""
    name = role("pycheckout_test_revoked")
    conn.execute(f"select {kind}(%s)", (name,))
    conn.execute(f"revoke usage on schema public from public; revoke {revoke} from {name}")
    before = conn.execute("select relacl from pg_class where relname ~ '^(cart|outbox)_' order by relname").fetchall()
    write(functions, "checkout_probe")
    for scope in ("checkout", "quotes", "operators"):
        give_also(functions, scope, "checkout_probe")
    change_result(functions)

    deploy(conn)
    deploy(conn)

    target = revoke.partition(" on ")[2]
    if "function" in target:
        assert not value(conn, MAY, name, target.removeprefix("function "))
    elif "schema" in target:
        assert not value(conn, "select has_schema_privilege(%s, 'public', 'usage')", name)
    else:
        after = conn.execute("select relacl from pg_class where relname ~ '^(cart|outbox)_' order by relname")
        assert after.fetchall() == before
    assert value(conn, MAY, name, "checkout_probe()"), "of what is left, it has all that is new"


def test_what_a_release_brings_anew_goes_to_who_holds_something_of_its_scope(conn, role, functions):
    """A new function, and one that was there and that a scope gets now."""
    service, orders, stripped = role('Service "x"'), role("pycheckout_test_orders"), role("pycheckout_test_stripped")
    conn.execute("select checkout_grant(%s), checkout_grant_orders(%s)", (service, orders))
    conn.execute("select checkout_grant(%s)", (stripped,))
    conn.execute(f"drop owned by {stripped}")
    write(functions, "checkout_probe")
    for scope, name in (
        ("checkout", "checkout_probe"),
        ("checkout", "checkout_privileges"),
        ("quotes", "checkout_probe"),
    ):
        give_also(functions, scope, name)

    deploy(conn)

    for name, may in ((service, True), (orders, False), (stripped, False)):
        assert [value(conn, MAY, name, f"{each}()") for each in ("checkout_probe", "checkout_privileges")] == [may] * 2
    holders = sql.SQL(", ").join(map(sql.Identifier, (role("x"), service)))
    conn.execute(sql.SQL("revoke execute on function checkout_privileges() from {}").format(holders))
    deploy(conn)
    assert not value(conn, MAY, service, "checkout_privileges()"), "it is new once"


def test_a_function_that_somebody_dropped_comes_back_with_the_callers_of_its_scope(conn, role):
    service, orders = role("pycheckout_test_service"), role("pycheckout_test_orders")
    conn.execute("select checkout_grant(%s), checkout_grant_orders(%s)", (service, orders))
    conn.execute("drop function checkout_result")
    deploy(conn)
    assert value(conn, MAY, service, "checkout_result(uuid, uuid)")
    assert not value(conn, MAY, orders, "checkout_result(uuid, uuid)")


def test_roles_have_their_rights_again_after_the_functions_were_undeployed(conn, role):
    service = role("pycheckout_test_service")
    conn.execute("select checkout_grant(%s)", (service,))
    with conn.transaction():
        deployment().undeploy(conn)
    assert signatures(conn, "checkout_execute") == []
    deploy(conn)
    assert value(conn, MAY, service, "checkout_result(uuid, uuid)")


def test_a_role_that_was_dropped_and_made_anew_is_another_role(conn, role, functions):
    """Its predecessor's rights are not its own, until somebody grants them; then it is remembered instead."""
    name = role("pycheckout_test_reborn")
    conn.execute("select checkout_grant(%s), checkout_grant_quotes(%s)", (name, name))
    conn.execute(f"drop owned by {name}; drop role {name}; create role {name}")
    conn.execute("drop function checkout_result, cart_put")
    write(functions, "checkout_probe")
    give_also(functions, "checkout", "checkout_probe")
    deploy(conn)
    held = (
        "select count(*) from pg_proc where pronamespace = 'public'::regnamespace"
        " and has_function_privilege(%s, oid, 'execute')"
    )
    assert value(conn, held, name) == 0

    conn.execute("select checkout_grant(%s)", (name,))
    conn.execute("drop function checkout_result, cart_put")
    deploy(conn)
    assert value(conn, MAY, name, "checkout_result(uuid, uuid)")
    assert not value(conn, MAY, name, "cart_put(jsonb)")
    remembered = "select scope from checkout_roles join pg_roles on oid = role_oid where role_name = %s"
    assert [row["scope"] for row in conn.execute(remembered, (name,)).fetchall()] == ["checkout"]


def test_role_that_was_dropped_is_passed_over(conn, role):
    """PF-168"""
    gone, stays = role("pycheckout_test_gone"), role("pycheckout_test_stays")
    conn.execute("select checkout_grant(%s), checkout_grant(%s)", (gone, stays))
    conn.execute(f"drop owned by {gone}; drop role {gone}")
    conn.execute("drop function checkout_version()")

    deploy(conn)

    assert value(conn, MAY, stays, "checkout_version()")


# What others could write


def test_a_role_that_can_write_what_deployments_believe_gets_nothing_by_it(conn, role, functions):
    """Neither a right, nor SQL of its own; and the tables are the owner's again afterwards."""
    web = role("pycheckout_test_web")
    tables = ("checkout_ledger", "checkout_releases", "checkout_functions", "checkout_roles", "checkout_market")
    conn.execute(f"grant all on {', '.join(tables)} to {web}; grant update (scope) on checkout_roles to public")
    conn.execute(
        f"insert into checkout_roles (role_name, role_oid, scope) select '{web}', '{web}'::regrole, scope"
        " from unnest(array['checkout', 'orders', 'quotes', 'relay']) as scope;"
        "insert into checkout_functions (signature, name)"
        f" values ('cart_put(jsonb); grant execute on function inventory_set to {web}; --', 'cart_put')"
    )
    write(functions, "checkout_probe")
    give_also(functions, "checkout", "checkout_probe")
    conn.execute("drop function checkout_result")
    warnings = []
    conn.add_notice_handler(lambda notice: warnings.append(notice.message_primary))

    deploy(conn)

    open_to_it = (
        "select proname::text as name from pg_proc join checkout_functions on oid = to_regprocedure(signature)"
        " where has_function_privilege(%s, oid, 'execute')"
    )
    assert conn.execute(open_to_it, (web,)).fetchall() == []
    for table in tables:
        for privilege in ("insert", "update", "delete", "truncate", "references", "trigger"):
            assert not value(conn, "select has_table_privilege(%s, %s, %s)", web, table, privilege)
        assert value(conn, "select has_table_privilege(%s, %s, 'select')", web, table), "readers stay"
    assert not value(conn, "select has_any_column_privilege(%s, 'checkout_roles', 'update')", web)
    assert [text for text in warnings if web in text and "checkout_roles" in text]


def test_a_function_that_is_made_anew_stays_shut_whatever_default_privileges_came_meanwhile(conn, role, functions):
    web = role("pycheckout_test_web")
    conn.execute(f"alter default privileges in schema public grant all on functions to {web}, public")
    change_result(functions)
    conn.execute("drop function checkout_version()")
    write(functions, "checkout_probe")
    deploy(conn)
    for name in ("checkout_result(uuid, uuid)", "checkout_version()", "checkout_probe()"):
        assert not value(conn, MAY, web, name)
    conn.execute(f"alter default privileges in schema public revoke all on functions from {web}, public")


# Settings


SETTINGS = [
    "quote_all_identifiers = on",
    "search_path = public, pg_catalog",
    "standard_conforming_strings = off",
    "check_function_bodies = on",
    "DateStyle = 'SQL, DMY'",
    "TimeZone = 'Asia/Kolkata'",
    "array_nulls = off",
    "transform_null_equals = on",
    "default_transaction_isolation = 'serializable'",
    "default_transaction_deferrable = on",
    "row_security = off",
    "client_min_messages = error",
    "plpgsql.variable_conflict = use_column",
    "plpgsql.extra_errors = 'all'",
    "plpgsql.print_strict_params = on",
    "xmlbinary = hex",
    "bytea_output = escape",
    "lc_messages = 'C'",
    "default_toast_compression = pglz",
]


@pytest.fixture(scope="module")
def next_release(tmp_path_factory):
    """The functions of a release that has one more, one less, and one with another parameter."""
    folder = shutil.copytree(ROOT / "db" / "functions", tmp_path_factory.mktemp("next") / "functions")
    change_result(folder)
    write(folder, "checkout_probe")
    give_also(folder, "checkout", "checkout_probe")
    return folder


@pytest.fixture(scope="module")
def usual(shared_dsns, next_release, worker_id):
    """A database with a function that is to go and a role that is to stay, and what a deployment makes of it."""
    url, service = shared_dsns(), f"Service x_{worker_id}"
    with connect(url) as conn:
        conn.execute(sql.SQL("create role {0}; select checkout_grant({1})").format(sql.Identifier(service), service))
        with pytest.MonkeyPatch.context() as patch:
            now = shutil.copytree(ROOT / "db" / "functions", next_release.parent / "now")
            write(now, "checkout_gone")
            patch.setattr(deployment(), "FUNCTIONS", now)
            deploy(conn)
            patch.setattr(deployment(), "FUNCTIONS", next_release)
            with conn.transaction(force_rollback=True):
                deploy(conn)
                state = conn.execute(STATE).fetchall()
        yield url, state
        conn.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(service)))


@pytest.fixture
def set_there(usual, next_release, monkeypatch):
    """set_there(setting): for all sessions of that database, until the end of the test."""
    monkeypatch.setattr(deployment(), "FUNCTIONS", next_release)
    url, _ = usual
    with connect(url) as conn:
        database = sql.Identifier(conn.info.dbname)
        yield lambda setting: conn.execute(sql.SQL("alter database {} set {}").format(database, sql.SQL(setting)))
        conn.execute(sql.SQL("alter database {} reset all").format(database))


@pytest.mark.parametrize("setting", SETTINGS)
def test_no_setting_of_a_database_changes_a_deployment(usual, set_there, setting):
    """Names are compared as what they are, not as some setting has them written."""
    url, state = usual
    set_there(setting)
    with connect(url) as other, other.transaction(force_rollback=True):
        deploy(other)
        assert other.execute(STATE).fetchall() == state
        deployment().undeploy(other)
        assert value(other, "select count(*) from pg_proc where proname ~ '^(checkout_execute|inventory_set)$'") == 0


def test_all_settings_of_a_database_together_change_no_migration(usual, set_there):
    url, state = usual
    with connect(url) as conn:
        for setting in SETTINGS:
            set_there(setting)
        for _ in range(2):
            pycheckout.migrate(url)
            assert conn.execute(STATE).fetchall() == state


STATE = """
    select routine.oid::regprocedure::text as name, pg_get_functiondef(routine.oid) as definition, proacl::text as acl,
           signature
      from pg_proc as routine left join checkout_functions on checkout_functions.name = proname
     where pronamespace = 'public'::regnamespace order by 1
"""


# Two at once


def test_two_deployments_at_once_queue(url, conn):
    """PF-168: the second waits for the first to commit, and finds its work done."""
    with (
        connect(url, autocommit=False) as first,
        connect(url, autocommit=False) as second,
        ThreadPoolExecutor(1) as pool,
    ):
        deployment().deploy(first)
        waiting = pool.submit(deployment().deploy, second)
        wait_until_blocked(conn, second.info.backend_pid)
        first.commit()
        waiting.result(timeout=20)
        second.commit()
    assert value(conn, "select count(*) from checkout_releases") == 1


def test_deployments_of_two_schemas_do_not_wait_for_each_other(url):
    """PF-168: a market is a schema."""
    pycheckout.migrate(url, schema="market", create_schema=True)
    with connect(url, autocommit=False) as first, connect(url, autocommit=False) as second:
        second.execute("set search_path to market; set local lock_timeout = '2s'")
        deployment().deploy(first)
        deployment().deploy(second)


# Through the migrations


def test_rollback_of_the_functions_migration_drops_them_and_keeps_the_hosts(conn, url):
    """PF-168: the steps of migrations and the triggers stay: they come with their migrations."""
    conn.execute("create function of_the_host() returns int language sql as 'select 1'")
    ours = {path.stem for path in deployment().function_files()}
    names = "select proname from pg_proc where pronamespace = 'public'::regnamespace"
    with yoyo_backend(url) as (backend, migrations):
        [last] = [migration for migration in migrations if migration.id == deployment().functions_migration().stem]
        backend.rollback_one(last)
        left = {row["proname"] for row in conn.execute(names).fetchall()}
        assert not ours & left
        assert {"of_the_host", "cart_refuse_change", "checkout_migration_undo"} <= left
        for table in ("checkout_functions", "checkout_releases"):
            assert value(conn, f"select count(*) from {table}") == 0
        backend.apply_one(last)
    assert value(conn, "select checkout_version() ->> 'version'") == release()


def test_functions_may_need_what_came_after_an_earlier_functions_migration(empty_database, tmp_path):
    """PF-168: a second release, on an empty database."""
    db = shutil.copytree(ROOT / "db", tmp_path / "db")
    first = deployment().functions_migration()
    table, second = "pycheckout_9998_probes", "pycheckout_9999_functions"
    (db / "migrations" / f"{table}.sql").write_text(
        f"-- depends: {first.stem}\n\ncreate table checkout_probes (id int primary key);\n"
    )
    (db / "migrations" / f"{second}.py").write_text(
        re.sub(r'__depends__ = {".+"}', f'__depends__ = {{"{table}"}}', first.read_text())
    )
    write(db / "functions", "checkout_probe", "probe checkout_probes")
    url = empty_database()

    run_yoyo("apply", dsn=url, migrations=db / "migrations")

    with connect(url) as conn:
        assert signatures(conn, "checkout_probe") == ["checkout_probe(checkout_probes)"]
        assert value(conn, "select count(*) from checkout_releases") == 1


def test_hook_repeats_the_deployment_when_a_migration_was_pending(conn, url):
    """PF-168: also for migrations of the host that share the run."""
    conn.execute("drop function checkout_version()")
    run_yoyo("apply", dsn=url)
    assert signatures(conn, "checkout_version") == [], "yoyo runs no hook when nothing is pending"

    with yoyo_backend(url) as (backend, migrations):
        backend.unmark_migrations([next(each for each in migrations if "operations" in each.id)])
    run_yoyo("apply", dsn=url)
    assert signatures(conn, "checkout_version") == ["checkout_version()"]


def test_hook_waits_for_the_functions_migration(empty_database, database, program):
    """PF-168: `yoyo apply --revision` may stop before it, where tables are missing or the earlier checkout goes on."""
    url = empty_database()
    for revision in ("pycheckout_0008", "pycheckout_0025", "pycheckout_0037"):
        run_yoyo("apply", "--revision", revision, dsn=url)
        with connect(url) as conn:
            assert signatures(conn, "checkout_execute") == []
    run_yoyo("apply", dsn=url)
    assert dump(program, url) == dump(program, database(migrated=True))


def test_migrate_deploys_what_changed_although_nothing_is_pending(conn, url, functions):
    """PF-168: `pycheckout migrate` does so always."""
    assert _migrate.deployment() is deployment()
    write(functions, "checkout_probe")
    assert pycheckout.migrate(url).migrations == ()
    assert signatures(conn, "checkout_probe") == ["checkout_probe()"]


# Citus: what holds of it on a plain server


def test_no_statement_reads_our_tables_beside_a_catalog():
    """A coordinator of Citus has no plan for that. A check of the doctor reads its tables apart from the catalogs."""
    checks = sorted((ROOT / "pycheckout" / "_doctor").glob("*.sql"))
    texts = [*vars(deployment()).values(), *vars(_doctor).values(), *(file.read_text() for file in checks)]
    statements = [
        re.sub(r"\w+ as materialized \(\s+select [^()]* from checkout_[^;]*?\n\)", "", statement)
        for text in texts
        if isinstance(text, str)
        for statement in re.sub(r"--[^\n]*", "", text).split(";\n")
    ]
    catalog = re.compile(r"\b(from|join)\s+pg_\w+")
    ours = re.compile(r"\b(from|join)\s+(checkout|inventory|outbox|vendor|order|payment|cart|ad)_\w+\b(?!\()")
    assert [statement for statement in statements if catalog.search(statement)]
    assert [statement for statement in statements if ours.search(statement)]

    assert [each for each in statements if catalog.search(each) and ours.search(each)] == []


def test_the_nodes_are_told_the_path_that_the_deployment_has(conn):
    """On a plain server the setting of Citus is a name without a meaning."""
    with conn.transaction():
        conn.execute(deployment()._PIN)
        pinned = value(conn, "select current_setting('search_path')")
        conn.execute(deployment()._PIN_NODES)
        assert value(conn, "select current_setting('search_path')") == pinned
        assert value(conn, "select current_setting('citus.propagate_set_commands')") == "local"


def test_a_plan_that_must_not_look_at_its_parameters_can_be_left_out():
    """Citus distributes none: the line goes, and nothing else does."""
    texts = [file.read_text(encoding="utf-8") for file in deployment().function_files()]
    forced = [text for text in texts if "force_generic_plan" in text]
    assert len(forced) > 5
    for text in forced:
        left = deployment()._GENERIC.sub("", text)
        assert len(text.splitlines()) - len(left.splitlines()) == 1
        assert "force_generic_plan" not in left
