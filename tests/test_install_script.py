"""The release as one file for psql: what it installs is what `pycheckout migrate` installs."""

import os
import subprocess

import pytest
from install_script import script
from upgrade import IDS, connect, dump, value

import pycheckout
from pycheckout._release import release


@pytest.fixture
def install(program, tmp_path):
    """install(url, upto="views", PGOPTIONS="..."): psql runs the file there, or what is in it up to that migration."""
    file = tmp_path / "pycheckout.sql"
    parts = [*script()]

    def install(url, upto=None, **env):
        [end] = [n for n, part in enumerate(parts, 1) if f"_{upto}', now()" in part] if upto else [len(parts)]
        file.write_text("".join(parts[:end]), encoding="utf-8")
        command = [program("psql"), "--no-psqlrc", "--file", file, "--dbname", url]
        env = {"LC_ALL": "C", "PSQL_PAGER": "", **env}
        return subprocess.run(
            command, env=os.environ | env, capture_output=True, encoding="utf-8", timeout=120, check=False
        )

    return install


def test_it_installs_what_migrate_installs(database, install, program):
    url = database()
    done = install(url)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"pycheckout {release()} is in schema public" in done.stdout and done.stdout.count("\n") < 8
    with connect(url) as conn:
        assert conn.execute("select * from checkout_audit()").fetchall() == []
        noted = "select array_agg(migration_id order by migration_id) from _yoyo_migration"
        assert value(conn, noted) == IDS
        deployed = value(conn, "select array_agg(signature order by signature) from checkout_functions")
        ledger = "select array_agg((kind, table_name, name, definition)::text order by id) from checkout_ledger"
        ledger_of_script = value(conn, ledger)
    migrated = database(migrated=True)
    assert dump(program, url) == dump(program, migrated)
    with connect(migrated) as conn:
        assert value(conn, "select array_agg(signature order by signature) from checkout_functions") == deployed
        assert value(conn, ledger) == ledger_of_script
        assert value(conn, "select checkout_version() ->> 'hash'") == pycheckout._migrate.deployment().functions_hash()


def test_migrate_goes_on_from_there_and_takes_it_away(database, install, program):
    url = database()
    install(url)
    before = dump(program, url)

    assert pycheckout.migrate(url).migrations == ()
    assert dump(program, url) == before
    assert pycheckout.rollback(url).migrations == tuple(reversed(IDS))


def test_it_goes_into_a_schema_of_its_own(database, install):
    url = database()
    with connect(url) as conn:
        conn.execute('create schema "Shop 2"')
    done = install(url, PGOPTIONS='-c search_path="Shop\\ 2"')

    assert (done.returncode, done.stderr) == (0, "")
    assert pycheckout.migrate(url, schema="Shop 2").migrations == ()
    with connect(url) as conn:
        assert value(conn, "select to_regclass('public.checkout_ledger') is null")


@pytest.mark.parametrize("last", ["converted_carts_immutable", "catch_up_anchors"])
def test_one_that_broke_off_goes_on(database, install, program, last):
    url = database()
    done = install(url, upto=last)
    assert done.returncode == 0
    with connect(url) as conn:
        assert last in value(conn, "select max(migration_id) from _yoyo_migration")

    done = install(url)
    assert (done.returncode, done.stderr) == (0, "")
    assert dump(program, url) == dump(program, database(migrated=True))


def test_a_schema_that_has_it_is_left_alone(database, install, program):
    url = database(migrated=True)
    before = dump(program, url)
    done = install(url)

    assert done.returncode != 0 and 'schema "public" has pycheckout already' in done.stderr
    assert dump(program, url) == before


def test_default_privileges_let_nobody_in(database, install, new_role):
    url, stranger = database(), new_role()
    with connect(url) as conn:
        conn.execute(f"alter default privileges grant execute on functions to {stranger}")
        conn.execute(f"alter default privileges grant select on tables to {stranger}")
        assert install(url).returncode == 0
        assert not value(conn, f"select has_function_privilege('{stranger}', 'checkout_version()', 'execute')")
        assert not value(conn, f"select has_table_privilege('{stranger}', 'ad_signing_keys', 'select')")
        conn.execute(f"drop owned by {stranger}")
