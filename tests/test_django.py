"""pycheckout.django: a project of its own (tests/django_shop), by the commands that its developers type."""

from pathlib import Path

import psycopg
import pytest
from command import run_manage
from psycopg import sql
from upgrade import value

PROJECT = Path(__file__).with_name("django_shop")


class Manage:
    """manage("migrate", ..., fails=False, SCHEMA=...): what manage.py said of a database."""

    def __init__(self, dsn):
        self.dsn = dsn

    def __call__(self, *arguments, fails=False, **env):
        done = run_manage(PROJECT, *arguments, env={"DATABASE": self.dsn} | env)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def manage(empty_database, server):
    """manage(...), of an empty database and of those that Django makes beside it."""
    manage = Manage(empty_database())
    yield manage
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        name = psycopg.conninfo.conninfo_to_dict(manage.dsn)["dbname"] + "_test"
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def ask(dsn, query, *params):
    with psycopg.connect(dsn, autocommit=True) as conn:
        return value(conn, query, *params)


def test_a_project_lives_with_it(manage):
    """Installed, found right, upgraded by the next `migrate`, and gone again; with nothing for makemigrations to do."""
    assert manage("check", "--database", "default").count("pycheckout.") == 0  # nothing is said before it is there
    assert "Applying pycheckout.0001_pycheckout... OK" in manage("migrate")
    assert "No changes detected" in manage("makemigrations", "--check", "--dry-run")

    with psycopg.connect(manage.dsn, autocommit=True) as conn:  # as if an earlier release were there
        conn.execute("update checkout_releases set hash = 'earlier'")
        conn.execute("drop function inventory_split")
    found = manage("check", "--database", "default", "--fail-level", "WARNING", fails=True)
    assert "(pycheckout.outdated_functions)" in found and "HINT: manage.py migrate" in found
    assert "No migrations to apply" in manage("migrate")
    assert ask(manage.dsn, "select count(*) from pg_proc where proname = 'inventory_split'") == 1
    assert "no issues" in manage("check", "--database", "default", "--fail-level", "WARNING")

    manage("migrate", "pycheckout", "zero")
    assert ask(manage.dsn, "select to_regclass('vendor_orders')") is None
    assert ask(manage.dsn, "select to_regclass('shop_note')") is None


def test_its_reverse_loses_no_row(dsn):
    manage = Manage(dsn)
    manage("migrate")  # what is there is found there
    with psycopg.connect(manage.dsn, autocommit=True) as conn:
        conn.execute("select inventory_set(gen_random_uuid(), 5)")

    refused = manage("migrate", "pycheckout", "zero", fails=True)

    assert "would lose the rows of table" in refused
    assert ask(manage.dsn, "select sum(available_qty) from inventory_levels") == 5
    assert "[X] 0001_pycheckout" in manage("showmigrations", "pycheckout")


@pytest.mark.parametrize("env", [{}, {"SCHEMA": "check out"}, {"WITHOUT_MIGRATIONS": "1"}], ids=str)
def test_the_tests_of_a_project_run_on_databases_of_their_own(manage, env):
    said = manage("test", **env)

    assert "Ran 7 tests" in said and "OK" in said
    assert ask(manage.dsn, "select count(*) from pg_class where relname = 'vendor_orders'") == 0


def test_the_role_that_django_assumes_owns_the_tables_of_a_schema_of_its_own(manage):
    """It may make no schema, and needs no right to while the one that is named is there."""
    role = "pycheckout_django_owner"
    with psycopg.connect(manage.dsn, autocommit=True) as conn:
        conn.execute(f"drop role if exists {role}")
        conn.execute(f"create role {role}")
        conn.execute(f"grant all on schema public to {role}")
        conn.execute(f'create schema "check out" authorization {role}')
        try:
            manage("migrate", ROLE=role, SCHEMA="check out")
            owned = "select array_agg((schemaname, tableowner)::text) from pg_tables where tablename = 'vendor_orders'"
            assert value(conn, owned) == [f'("check out",{role})']
            assert "No changes detected" in manage("makemigrations", "--check", "--dry-run", SCHEMA="check out")
            assert "pycheckout." not in manage("check", "--database", "default", ROLE=role, SCHEMA="check out")
        finally:
            conn.execute(f"drop owned by {role} cascade")
            conn.execute(f"drop role {role}")


def test_a_database_that_is_not_postgresql_is_left_alone(manage):
    assert "Applying pycheckout.0001_pycheckout... OK" in manage("migrate", "pycheckout", "--database", "archive")
    assert "no issues" in manage("check", "--database", "archive")


def test_emptying_leaves_what_a_deployment_wrote(db):
    """Of all tables only the ledger, the functions, roles and releases, and yoyo's keep their rows."""
    from pycheckout.django.testing import _EMPTY

    tables = [name for (name,) in db.execute("select tablename from pg_tables where schemaname = 'public'")]
    before = {name: value(db, f"select count(*) from {name}") for name in tables}
    db.execute("select inventory_set(gen_random_uuid(), 5), ad_signing_key_put('k', %s)", (b"x" * 32,))
    db.execute(_EMPTY)
    assert {name: value(db, f"select count(*) from {name}") for name in tables} == before
