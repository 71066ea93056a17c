"""No setting of a database or a role changes what the migrations do, and no default privilege opens what they make."""

from contextlib import suppress

import psycopg
import pytest
from psycopg import sql
from upgrade import ROOT, connect, dump, load_legacy, run_yoyo, value

import pycheckout

# Each would change a name, an expression, a place or an order, if a migration did not say what it wants.
SETTINGS = {
    "quote_all_identifiers": "on",
    "DateStyle": "'German, DMY'",
    "IntervalStyle": "sql_standard",
    "standard_conforming_strings": "off",
    "row_security": "off",
    "check_function_bodies": "off",
    "client_encoding": "LATIN1",
    "TimeZone": "'Asia/Kathmandu'",
    "lock_timeout": "'20s'",
    "transform_null_equals": "on",
    "search_path": "'$user', public, pg_catalog",
    "default_transaction_deferrable": "on",
    "extra_float_digits": "0",
    "bytea_output": "escape",
}


@pytest.fixture
def expected(database, program):
    """expected("net"): the dump of a database that was migrated without any such setting."""
    return lambda shape: dump(program, database(shape, migrated=True))


# yoyo leaves every setting to the migrations, and pycheckout some
@pytest.mark.parametrize(
    ("shape", "tool"), [("fresh", "yoyo"), ("net", "yoyo"), ("gross", "yoyo"), ("net", "pycheckout")]
)
def test_settings_of_the_database_change_nothing(database, program, expected, shape, tool):
    """Through both tools, and a second deployment over the first."""
    wanted = expected(shape)
    url = database(shape)
    with connect(url) as conn:
        for name, setting in SETTINGS.items():
            conn.execute(f"alter database {conn.info.dbname} set {name} = {setting}")

    if tool == "yoyo":
        run_yoyo("apply", dsn=url)
    else:
        pycheckout.migrate(url)
    assert pycheckout.migrate(url).migrations == ()

    with connect(url) as conn:
        assert conn.execute("select * from checkout_audit()").fetchall() == []
        # or pg_dump itself would follow them
        conn.execute(f"alter database {conn.info.dbname} reset all")
    assert dump(program, url) == wanted


def test_limits_of_the_database_do_not_break_an_index_build_off(database):
    """Those of pycheckout migrate's own connection, such as libpq's options, count."""
    url = database("net")
    with connect(url) as conn:
        for name, setting in {
            "statement_timeout": "'40ms'",
            "idle_in_transaction_session_timeout": "'40ms'",
            "default_transaction_isolation": "'repeatable read'",
        }.items():
            conn.execute(f"alter database {conn.info.dbname} set {name} = {setting}")
    pycheckout.migrate(url)
    with pytest.raises((pycheckout.MigrationError, pycheckout.CheckoutError)):
        pycheckout.rollback(f"{url}?options=-c%20statement_timeout%3D1ms")


def test_isolation_that_would_hide_rows_is_refused_by_plain_yoyo(empty_database):
    """The lock that ends the earlier checkout is worth nothing to an older snapshot."""
    url = empty_database()
    with connect(url) as conn:
        conn.execute(f"alter database {conn.info.dbname} set default_transaction_isolation = 'serializable'")
    with pytest.raises(AssertionError, match="transactions begin as serializable"):
        run_yoyo("apply", dsn=url)


def test_migrations_are_plain_ascii():
    """In any client_encoding the server is told the same."""
    assert [path.name for path in (ROOT / "db").rglob("*.sql") if not path.read_bytes().isascii()] == []


# Default privileges


@pytest.fixture
def web(server, worker_id):
    """A role that the owner's default privileges let into everything."""
    name = f"pycheckout_web_{worker_id}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        with suppress(psycopg.errors.UndefinedObject):
            admin.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(name)))
        admin.execute(sql.SQL("create role {}").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


OPEN = """
select class.relname::text as name
  from pg_class as class
 where class.relnamespace = 'public'::regnamespace and class.relname !~ 'yoyo'
   and exists (select from aclexplode(class.relacl) as acl where acl.grantee = %(role)s::regrole or acl.grantee = 0)
 union all
select routine.oid::regprocedure::text
  from pg_proc as routine
 where routine.pronamespace = 'public'::regnamespace
   and exists (select from aclexplode(routine.proacl) as acl where acl.grantee = %(role)s::regrole or acl.grantee = 0)
 order by 1
"""


@pytest.mark.parametrize("shape", ["fresh", "net"])
def test_default_privileges_open_nothing_of_ours(web, empty_database, shape):
    """A host's own tables keep what was given on them."""
    url = empty_database()
    with connect(url) as conn:
        for grant in ("all on tables", "all on sequences", "execute on functions", "all on types"):
            for role in (web, "public"):
                conn.execute(f"alter default privileges grant {grant} to {role}")
        if shape == "net":
            load_legacy(url, shape)
        before = [row["name"] for row in conn.execute(OPEN, {"role": web}).fetchall()]

        pycheckout.migrate(url)

        renamed = [name.replace("checkout_groups", "checkout_groups_archive") for name in before]
        assert [row["name"] for row in conn.execute(OPEN, {"role": web}).fetchall()] == sorted(renamed)
        assert (len(before) > 10) == (shape == "net")
        assert value(conn, "select has_sequence_privilege(%s, 'checkout_ledger_id_seq', 'usage')", web) is False


def test_rights_that_were_given_survive_a_migration_that_is_run_again(web, database):
    """yoyo may die between running a migration and noting it."""
    url = database(migrated=True)
    with connect(url) as conn:
        conn.execute(f"grant select on checkout_overview, cart_records to {web}")
        conn.execute(
            "delete from _yoyo_migration where migration_id >= 'pycheckout_0029' and migration_id < 'pycheckout_0038'"
        )
        pycheckout.migrate(url)
        assert value(conn, "select has_table_privilege(%s, 'checkout_overview', 'select')", web)
        conn.execute(f"drop owned by {web}")
