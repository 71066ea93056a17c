"""pycheckout.migrate and rollback: any libpq address, any schema, and never a quiet failure."""

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from upgrade import IDS as ALL
from upgrade import ROOT, roll_back_to, yoyo_backend

import pycheckout
from pycheckout import MigrationError, Unavailable, _migrate
from races import wait_until

IDS = tuple(ALL)


@pytest.fixture
def url(request, database):
    """Of an empty database; of a migrated one for a test that asks for `installed`."""
    return database(migrated="installed" in request.fixturenames)


@pytest.fixture
def installed():
    """The database of `url` is migrated."""


@pytest.fixture
def admin(url):
    with psycopg.connect(url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def reader(admin, worker_id):
    """A login role without any right. Roles are the cluster's, and a killed run leaves them."""
    name = f"pycheckout_reader_{worker_id}"
    admin.execute(f"drop role if exists {name}")
    admin.execute(f"create role {name} login password 'reader'")
    yield name
    admin.execute(f"drop role {name}")


def version(conn, schema="public"):
    query = sql.SQL("select {}.checkout_version() ->> 'version'").format(sql.Identifier(schema))
    return conn.execute(query).fetchone()[0]


def objects(conn):
    """Everything but yoyo's own tables, and what PostgreSQL makes for them."""
    return conn.execute("""
        select 'relation', relname::text from pg_class
         where relnamespace = 'public'::regnamespace and relname !~ 'yoyo'
         union all
        select 'function', proname::text from pg_proc where pronamespace = 'public'::regnamespace
         union all
        select 'type', typname::text from pg_type where typnamespace = 'public'::regnamespace and typname !~ 'yoyo'
         order by 1, 2
    """).fetchall()


# Where to


def test_migrate_applies_all_and_tells_what(url, admin):
    done = pycheckout.migrate(url)

    assert done.schema == "public"
    assert done.migrations == IDS
    assert done.version == version(admin)
    again = pycheckout.migrate(url)
    assert (again.migrations, again.version) == ((), done.version)


@pytest.mark.parametrize("form", ["dsn", "environment", "url with parameters"])
def test_address_comes_in_any_form_of_libpq(installed, url, admin, monkeypatch, form):
    admin.execute("drop function checkout_version()")
    params = conninfo_to_dict(url)
    if form == "environment":
        for name, variable in {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "dbname": "PGDATABASE"}.items():
            monkeypatch.setenv(variable, str(params[name]))
        if "password" in params:
            monkeypatch.setenv("PGPASSWORD", str(params["password"]))
        address = ""
    elif form == "dsn":
        address = make_conninfo(**params)
    else:
        address = url + "?connect_timeout=7&options=-c%20search_path%3Dpublic&application_name=mine"

    assert pycheckout.migrate(address).migrations == ()
    assert version(admin)


@pytest.mark.parametrize("schema", ['We"ird Schema; drop', "select"])
def test_schema_of_any_name(url, admin, schema):
    with pytest.raises(MigrationError, match="there is no schema") as caught:
        pycheckout.migrate(url, schema=schema)
    assert "create_schema" in caught.value.hint

    assert pycheckout.migrate(url, schema=schema, create_schema=True).schema == schema
    assert version(admin, schema)
    assert objects(admin) == []
    assert pycheckout.migrate(url, schema=schema, create_schema=True).migrations == ()
    assert pycheckout.rollback(url, schema=schema).migrations == IDS[::-1]


def test_several_installs_in_one_database(url, admin):
    for schema in ("market_us", "market_ca"):
        assert pycheckout.migrate(url, schema=schema, create_schema=True).migrations == IDS
    pycheckout.rollback(url, schema="market_ca")

    assert version(admin, "market_us")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        version(admin, "market_ca")


def test_search_path_without_a_schema_is_refused(url):
    with pytest.raises(MigrationError, match="name one with `schema`"):
        pycheckout.migrate(url + "?options=-c%20search_path%3Dnowhere")


def test_role_that_may_not_create_is_told_so(url, reader):
    with pytest.raises(MigrationError, match=f'"{reader}" may not create'):
        pycheckout.migrate(make_conninfo(url, user=reader, password="reader"))


def test_plan_of_a_role_that_may_not_read_says_where_it_failed(installed, url, reader):
    with pytest.raises(MigrationError, match="looking at the schema: permission denied for table"):
        _migrate.plan(make_conninfo(url, user=reader, password="reader"))


@pytest.mark.parametrize("address", ["postgresql://me:hunter2@host/db?schema=x", "hunter2"])
def test_malformed_address_is_refused_without_showing_its_password(address):
    with pytest.raises(pycheckout.InvalidRequest, match="database is not a libpq URL") as caught:
        pycheckout.migrate(address)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_server_that_does_not_answer_is_unavailable():
    with pytest.raises(Unavailable):
        pycheckout.migrate("host=127.0.0.1 port=1 connect_timeout=2")


# What is deployed


def test_functions_are_deployed_even_when_nothing_is_pending(installed, url, admin):
    admin.execute("drop function checkout_version()")

    assert pycheckout.migrate(url).migrations == ()
    assert version(admin)


def test_plain_yoyo_agrees_on_what_is_applied(installed, url):
    with yoyo_backend(url) as (backend, migrations):
        assert list(backend.to_apply(migrations)) == []
        assert len(list(backend.to_rollback(migrations))) == len(IDS)


def test_refused_deployment_says_what_to_run(installed, url, admin):
    admin.execute("grant create on schema public to public")

    with pytest.raises(MigrationError, match="REVOKE CREATE ON SCHEMA"):
        pycheckout.migrate(url)

    admin.execute("revoke create on schema public from public")
    assert pycheckout.migrate(url).version == version(admin)


def test_newer_release_is_not_overwritten(installed, url, admin):
    admin.execute("insert into checkout_releases (version, hash) values ('99.0.0', 'x')")

    with pytest.raises(MigrationError, match=r"99\.0\.0"):
        pycheckout.migrate(url)


# Never a quiet failure


@pytest.fixture
def source(tmp_path, monkeypatch):
    """The folder of migrations of a copy of db/, which `migrate` takes for its own."""
    copy = tmp_path / "db [copy]"
    shutil.copytree(ROOT / "db", copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(_migrate, "db_folder", lambda: copy)
    return copy / "migrations"


def test_copied_source_works(installed, url, admin, source):
    roll_back_to(url, IDS[-3])
    assert pycheckout.migrate(url).migrations == IDS[-3:]
    assert version(admin)


def test_empty_source_is_refused(url, source):
    shutil.rmtree(source)
    for _ in ("missing", "empty"):
        with pytest.raises(MigrationError, match="no migration"):
            pycheckout.migrate(url)
        with pytest.raises(MigrationError, match="no migration"):
            pycheckout.rollback(url)
        source.mkdir(exist_ok=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pycheckout_9999_broken.py", "this is no Python"),
        ("pycheckout_9999_orphan.sql", "-- depends: pycheckout_9998_nowhere\nselect 1;\n"),
    ],
)
def test_migration_that_does_not_load_is_refused_before_any_change(url, admin, source, name, text):
    (source / name).write_text(text)

    with pytest.raises(MigrationError, match=f"{Path(name).stem} does not load"):
        pycheckout.migrate(url)

    assert objects(admin) == []


def test_failed_migration_is_named_and_run_again(installed, url, admin, source):
    bad = source / "pycheckout_9999_bad.sql"
    bad.write_text(f"-- depends: {IDS[-1]}\n\ncreate table half (id int);\n\nselect 1 / 0;\n")

    with pytest.raises(MigrationError, match="pycheckout_9999_bad: division by zero") as caught:
        pycheckout.migrate(url)

    assert caught.value.sqlstate == "22012"
    assert isinstance(caught.value.__cause__, psycopg.errors.DivisionByZero)
    assert admin.execute("select to_regclass('half')").fetchone() == (None,)
    assert admin.execute("select count(*) from yoyo_lock").fetchone() == (0,)

    bad.write_text(f"-- depends: {IDS[-1]}\n\ncreate table half (id int);\n")
    assert pycheckout.migrate(url).migrations == ("pycheckout_9999_bad",)


# Rollback


def test_rollback_takes_everything_away_and_migrate_brings_it_back(installed, url, admin, empty_database):
    with psycopg.connect(empty_database()) as conn:
        before = objects(conn)
    there = objects(admin)

    assert pycheckout.rollback(url).migrations == IDS[::-1]
    assert objects(admin) == before
    assert pycheckout.rollback(url).migrations == ()
    assert pycheckout.migrate(url).migrations == IDS
    assert objects(admin) == there


def test_rollback_leaves_the_hosts_own_migrations(installed, url, admin):
    admin.execute("""
        insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc) values ('h', '0001_baseline', now())
    """)

    pycheckout.rollback(url)

    assert admin.execute("select migration_id from _yoyo_migration").fetchall() == [("0001_baseline",)]


def test_rollback_refuses_migrations_that_it_does_not_know(installed, url, admin):
    admin.execute("""
        insert into _yoyo_migration (migration_hash, migration_id, applied_at_utc)
        values ('h', 'pycheckout_9999_later', now())
    """)

    with pytest.raises(MigrationError, match="another release: pycheckout_9999_later"):
        pycheckout.rollback(url)
    assert version(admin)


def test_failed_rollback_is_named(installed, url, admin, source):
    (source / "pycheckout_9999_once.sql").write_text(f"-- depends: {IDS[-1]}\n\nselect 1;\n")
    (source / "pycheckout_9999_once.rollback.sql").write_text("select 1 / 0;\n")
    pycheckout.migrate(url)

    with pytest.raises(MigrationError, match="pycheckout_9999_once: division by zero"):
        pycheckout.rollback(url)
    assert version(admin)


# Locks


def python(code, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **kwargs
    )


def test_migrators_at_once_queue(url, admin):
    """One of them builds indexes concurrently, which waits for every snapshot, those of the others included."""
    code = f"import pycheckout; print(len(pycheckout.migrate({url!r}, timeout=60).migrations))"
    processes = [python(code) for _ in range(3)]
    outputs = [process.communicate(timeout=90)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert sorted(int(output.split()[-1]) for output in outputs) == [0, 0, len(IDS)]
    assert version(admin)


def take_yoyo_lock(admin, pid, age="1 hour"):
    admin.execute(
        f"insert into yoyo_lock (locked, ctime, pid) values (1, now() at time zone 'utc' - interval '{age}', %s)",
        (pid,),
    )


def test_lock_of_a_dead_process_is_broken(installed, url, admin):
    with python("pass") as process:
        process.communicate()
    take_yoyo_lock(admin, process.pid)

    started = time.monotonic()
    pycheckout.migrate(url)

    assert time.monotonic() - started < 10
    assert admin.execute("select count(*) from yoyo_lock").fetchone() == (0,)


def test_lock_of_an_earlier_container_with_our_pid_is_broken(installed, url, admin):
    take_yoyo_lock(admin, os.getpid())

    assert pycheckout.migrate(url).migrations == ()


def test_lock_of_a_live_process_is_waited_for(installed, url, admin):
    with python("input()", stdin=subprocess.PIPE) as process:
        take_yoyo_lock(admin, process.pid)

        with pytest.raises(MigrationError, match=f"process {process.pid} holds yoyo's lock for 1:00:") as caught:
            pycheckout.migrate(url, timeout=0.5)
        assert "yoyo break-lock" in caught.value.hint

        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(pycheckout.migrate, url)
            asked = "select from pg_stat_activity where query ~ 'from yoyo_lock$' and pid <> pg_backend_pid()"
            wait_until(lambda: admin.execute(asked).fetchall(), "it never met the lock")
            assert not waiting.done()
            admin.execute("delete from yoyo_lock")
            assert waiting.result(timeout=20).migrations == ()
        process.communicate("\n")


def test_lock_whose_owner_may_live_on_another_machine_is_kept(installed, url, admin):
    with python("pass") as process:
        process.communicate()

    with yoyo_backend(url):
        # As if its process ran elsewhere: the pid is none of this machine.
        admin.execute("update yoyo_lock set pid = %s", (process.pid,))

        with pytest.raises(MigrationError, match=f"process {process.pid} holds yoyo's lock"):
            pycheckout.migrate(url, timeout=1)

    pycheckout.migrate(url)
    assert admin.execute("select count(*) from yoyo_lock").fetchone() == (0,)


def test_own_lock_is_named_when_it_takes_too_long(url, admin):
    with admin.transaction():
        admin.execute("select pg_advisory_lock(hashtext('pycheckout migrate'), hashtext('public'))")
        with pytest.raises(MigrationError, match='another migration of schema "public" is still running'):
            pycheckout.migrate(url, timeout=0.5)


# Where from


@pytest.mark.parametrize("layout", ["checkout", "wheel"])
def test_migrations_are_found_in_any_layout(installed, url, admin, tmp_path, layout):
    roll_back_to(url, IDS[-3])
    ignored = shutil.ignore_patterns("__pycache__", "demo")
    shutil.copytree(ROOT / "pycheckout", tmp_path / "pycheckout", ignore=ignored)
    inside = tmp_path / "pycheckout" / "db" if layout == "wheel" else tmp_path / "db"
    shutil.copytree(ROOT / "db", inside, ignore=ignored)

    code = f"""
import pycheckout
assert pycheckout.__file__.startswith({str(tmp_path)!r})
print(len(pycheckout._migrate._read_migrations()), len(pycheckout.migrate({url!r}).migrations))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == [str(len(IDS)), "3"], done.stderr
    assert version(admin)


def test_package_without_its_migrations_says_so(tmp_path):
    shutil.copytree(ROOT / "pycheckout", tmp_path / "pycheckout", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    done = subprocess.run(
        [sys.executable, "-c", "import pycheckout; pycheckout.migrate()"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )

    assert "MigrationError: no migrations: neither" in done.stderr
