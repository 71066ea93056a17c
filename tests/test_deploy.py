"""Deploying the functions: one transaction, refused where it would be unsafe, and nobody loses a grant by it."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql
from upgrade import ROOT, connect, dump, run_yoyo, start_yoyo, value, yoyo_backend

import pycheckout
from pycheckout import _migrate
from pycheckout._release import deployment, release
from races import wait_until_blocked


@pytest.fixture
def url(empty_database):
    url = empty_database()
    pycheckout.migrate(url)
    return url


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
def role(conn):
    """role("name"): a role of this test, dropped at the end with all that it was granted."""
    names = []

    def role(name):
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


@pytest.mark.parametrize("schema", ["public", 'Odd "one"'])
def test_migration_refuses_before_any_change_while_public_may_create_in_the_schema(empty_database, schema):
    """PF-168: somebody's better matching overload would run as the owner. The HINT is the statement to run."""
    url = empty_database()
    name = sql.Identifier(schema)
    tables = "select count(*) from pg_class where relname in ('cart_records', 'checkout_ledger')"
    with connect(url) as conn:
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
    conn.execute("drop function cart_purge(interval); grant create on schema public to public")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="PUBLIC may create objects") as caught:
        deploy(conn)
    assert signatures(conn, "cart_purge") == []

    conn.execute(caught.value.diag.message_hint)
    deploy(conn)
    assert signatures(conn, "cart_purge") == ["cart_purge(interval)"]


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


@pytest.mark.parametrize("newer", ["99.0.0", "0.10.0", "1.0.0rc1", "0.1.1", "0.1.0.1"])
def test_deployment_over_a_newer_release_is_refused(conn, newer):
    """PF-168: two releases at once happen in every roll-out; 0.10 is newer than 0.9."""
    conn.execute("insert into checkout_releases (version, hash) values (%s, 'x')", (newer,))
    before = all_functions(conn)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=newer):
        deploy(conn)
    assert all_functions(conn) == before


@pytest.mark.parametrize("older", ["0.0.9", "0.1.0", "0.1.0rc1", "0.1"])
def test_deployment_over_the_same_or_an_older_release_works(conn, older):
    """PF-168"""
    conn.execute("insert into checkout_releases (version, hash) values (%s, 'x')", (older,))
    deploy(conn)
    assert value(conn, "select checkout_version()") == {"version": release(), "hash": deployment().functions_hash()}


@pytest.mark.parametrize(
    "theirs",
    [
        "create function cart_put(cart text) returns int language sql as 'select 1'",
        "create function cart_put(cart jsonb) returns jsonb language sql as 'select cart'",
        "create procedure cart_put() language sql as 'select 1'",
    ],
)
def test_function_of_the_host_with_one_of_our_names_is_refused(empty_database, theirs):
    """PF-168: neither replaced nor dropped."""
    url = empty_database()
    with connect(url) as conn:
        conn.execute(theirs)
        before = signatures(conn, "cart_put")
        with pytest.raises(pycheckout.MigrationError, match=r"not ours: cart_put\("):
            pycheckout.migrate(url)
        assert signatures(conn, "cart_put") == before
        conn.execute("drop routine cart_put")
        pycheckout.migrate(url)


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
    conn.execute("drop function cart_purge(interval)")
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


def test_roles_are_granted_again(conn, role, functions):
    """PF-168: a function that was dropped and made anew has lost its grants."""
    service, quotes = role('Service "x"'), role("pycheckout_test_quotes")
    conn.execute("select checkout_grant(%s), checkout_grant_quotes(%s)", (service, quotes))
    file = functions / "checkout" / "checkout_result.sql"
    file.write_text(file.read_text().replace("cart_id uuid", "cart uuid").replace("checkout_result.cart_id", "cart"))
    conn.execute(sql.SQL("revoke execute on function cart_put(jsonb) from {}").format(sql.Identifier(quotes)))

    deploy(conn)

    may = "select has_function_privilege(%s, %s, 'execute')"
    assert value(conn, may, service, "checkout_result(uuid, uuid)")
    assert value(conn, may, quotes, "cart_put(jsonb)")
    assert not value(conn, may, quotes, "checkout_result(uuid, uuid)")


def test_role_that_was_dropped_is_passed_over(conn, role):
    """PF-168"""
    gone, stays = role("pycheckout_test_gone"), role("pycheckout_test_stays")
    conn.execute("select checkout_grant(%s), checkout_grant(%s)", (gone, stays))
    conn.execute("drop owned by pycheckout_test_gone; drop role pycheckout_test_gone")
    conn.execute("revoke execute on function checkout_version() from pycheckout_test_stays")

    deploy(conn)

    assert value(conn, "select has_function_privilege(%s, 'checkout_version()', 'execute')", stays)


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


def test_hook_repeats_the_deployment_when_a_migration_was_pending(conn, url, tmp_path):
    """PF-168: also for migrations of the host that share the run."""
    conn.execute("drop function checkout_version()")
    run_yoyo("apply", dsn=url)
    assert signatures(conn, "checkout_version") == [], "yoyo runs no hook when nothing is pending"

    with yoyo_backend(url) as (backend, migrations):
        backend.unmark_migrations([next(each for each in migrations if "operations" in each.id)])
    run_yoyo("apply", dsn=url)
    assert signatures(conn, "checkout_version") == ["checkout_version()"]


def test_hook_waits_for_the_tables_that_a_deployment_needs(empty_database, program):
    """PF-168: `yoyo apply --revision` may stop before them."""
    url = empty_database()
    run_yoyo("apply", "--revision", "pycheckout_0008", dsn=url)
    with connect(url) as conn:
        assert signatures(conn, "checkout_execute") == []
    run_yoyo("apply", dsn=url)
    complete = empty_database()
    pycheckout.migrate(complete)
    assert dump(program, url) == dump(program, complete)


def test_migrate_deploys_what_changed_although_nothing_is_pending(conn, url, functions):
    """PF-168: `pycheckout migrate` does so always."""
    assert _migrate.deployment() is deployment()
    write(functions, "checkout_probe")
    assert pycheckout.migrate(url).migrations == ()
    assert signatures(conn, "checkout_probe") == ["checkout_probe()"]
