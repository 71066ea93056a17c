"""Rows that are dumped alone load into a migrated schema, all of them, for an owner who is no superuser."""

import os
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
from pages import blocks
from psycopg import sql
from psycopg.conninfo import make_conninfo
from upgrade import ROOT, connect, load_legacy, value

import pycheckout
from pycheckout._embedded import embedded_server

COMMANDS, BY_JOBS = [
    block for block in blocks((ROOT / "docs" / "operations.md").read_text(), "sh") if "--data-only" in block
]


@pytest.fixture(scope="module")
def migrated_by(server, worker_id):
    """A plain role, and the name of a database that it migrated, to be cloned."""
    role = f"pycheckout_owner_{worker_id}"
    name = sql.Identifier(f"pycheckout_owned_{worker_id}")
    with psycopg.connect(server.dsn(), autocommit=True) as admin:

        def drop():
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(name))
            with suppress(psycopg.errors.UndefinedObject):
                admin.execute(f"drop owned by {role}; drop role {role}")

        drop()
        admin.execute(f"create role {role} login password 'owner'")
        admin.execute(sql.SQL("create database {} owner {} template template0").format(name, sql.Identifier(role)))
        pycheckout.migrate(make_conninfo(server.dsn(name.as_string().strip('"')), user=role, password="owner"))
        yield role, name
        drop()


@pytest.fixture
def owner(server, worker_id, migrated_by):
    """owner("shop"): the URL of a database that belongs to a plain role; empty, unless `migrated`."""
    role, template = migrated_by
    names = []
    with psycopg.connect(server.dsn(), autocommit=True) as admin:

        def drop(name):
            admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

        def owner(suffix, *, migrated=False):
            names.append(f"pycheckout_{suffix}_{worker_id}")
            drop(names[-1])
            of = template if migrated else sql.Identifier("template0")
            made = sql.SQL("create database {} owner {} template {}")
            admin.execute(made.format(sql.Identifier(names[-1]), sql.Identifier(role), of))
            return make_conninfo(server.dsn(names[-1]), user=role, password="owner")

        yield owner
        for name in names:
            drop(name)


def rows(conn):
    tables = conn.execute(
        "select tablename from pg_tables where schemaname = 'public' and tablename !~ 'yoyo'"
    ).fetchall()
    skipped = {"checkout_ledger", "checkout_releases", "checkout_functions"}
    return {
        name: [row["row"] for row in conn.execute(f"select to_jsonb(t) as row from {name} as t order by t::text")]
        for name in sorted(table["tablename"] for table in tables)
        if name not in skipped
    }


def run(program, commands, folder, other="", **databases):
    """The documented commands, in a shell, for these databases; `other` is a URL."""
    for name, url in databases.items():
        parts = psycopg.conninfo.conninfo_to_dict(url)
        commands = re.sub(rf"\b{name}\b", parts["dbname"], commands)
    (folder / "bin").mkdir(exist_ok=True)
    for tool in ("pg_dump", "pg_restore", "psql"):
        with suppress(FileExistsError):
            (folder / "bin" / tool).symlink_to(program(tool))
    (folder / "bin" / "pycheckout").write_text(f"#!{sys.executable}\nfrom pycheckout.cli import main\nmain()\n")
    (folder / "bin" / "pycheckout").chmod(0o755)
    env = os.environ | {
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OTHER": other,
        "PGHOST": parts["host"],
        "PGPORT": str(parts["port"]),
        "PGUSER": parts["user"],
        "PGPASSWORD": "owner",
    }
    script = "set -e\n" + commands
    return subprocess.run(["sh", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False)


def test_documented_way_loads_every_row_for_an_owner_who_is_no_superuser(
    owner, program, tmp_path, add_cart, checkout_sql
):
    shop, new = owner("shop", migrated=True), owner("shopnew")
    with connect(shop) as conn:
        add_cart(conn=conn)
        for key in ("k1", "k2"):
            assert checkout_sql(conn, add_cart(conn=conn), key=key)["outcome"] == "complete"
        assert value(conn, "select rolsuper from pg_roles where rolname = current_user") is False
        expected = rows(conn)

    done = run(program, COMMANDS.replace("shop_new", "SHOPNEW"), tmp_path, SHOPNEW=new, shop=shop)

    assert done.returncode == 0, done.stderr
    with connect(new) as conn:
        assert rows(conn) == expected
        assert len(expected["cart_items"]) == 12
        assert conn.execute("select * from checkout_audit()").fetchall() == []
        asleep = "select count(*) from pg_trigger where tgenabled <> 'O' and not tgisinternal"
        assert value(conn, asleep) == 0
        with pytest.raises(psycopg.DatabaseError, match="is converted and cannot be changed"):
            conn.execute("delete from cart_items")


def test_rows_go_to_another_server_by_several_sessions_at_once(owner, program, tmp_path, add_cart, checkout_sql):
    """Each table by itself, in any order: nothing that one of them brings is refused for want of another."""
    shop = owner("shop", migrated=True)
    with connect(shop) as conn:
        carts = [add_cart(conn=conn) for _ in range(40)]
        conn.execute("select inventory_split(%s, 4)", (carts[0].items[0].product_id,))
        for cart in carts:
            checkout_sql(conn, cart)
        conn.execute("select vendor_order_cancel(id, 'The buyer called.') from vendor_orders limit 9")
        expected = rows(conn)

    with embedded_server(fsync=False, in_memory=True) as server:
        other = server.dsn()
        done = run(program, BY_JOBS, tmp_path, other=other, shop=shop)

        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        with connect(other) as conn:
            assert rows(conn) == expected
            assert (len(expected["cart_records"]), len(expected["inventory_slots"])) == (40, 4)
            assert conn.execute("select * from checkout_audit()").fetchall() == []
            asleep = "select count(*) from pg_trigger where tgenabled <> 'O' and not tgisinternal"
            assert value(conn, asleep) == 0
            assert checkout_sql(conn, add_cart(conn=conn), key="next")["outcome"] == "complete"


def test_load_that_fails_halfway_changes_nothing(owner, program, tmp_path, add_cart, checkout_sql):
    """And above all leaves no trigger asleep."""
    shop, new = owner("shop", migrated=True), owner("shopnew", migrated=True)
    with connect(shop) as conn, connect(new) as other:
        assert checkout_sql(conn, add_cart(conn=conn))["outcome"] == "complete"
        stock = conn.execute("select product_id from inventory_items limit 1").fetchone()["product_id"]
        other.execute("insert into inventory_items (product_id) values (%s)", (stock,))

    done = run(program, COMMANDS.replace("shop_new", "SHOPNEW"), tmp_path, SHOPNEW=new, shop=shop)

    assert done.returncode != 0
    assert "inventory_items_pkey" in done.stderr
    with connect(new) as conn:
        assert value(conn, "select count(*) from cart_records") == 0
        asleep = "select count(*) from pg_trigger where tgenabled <> 'O' and not tgisinternal"
        assert value(conn, asleep) == 0


def test_earlier_systems_database_moves_that_way_too(owner, program, tmp_path):
    """The host makes its own tables first; what it had before stands in the dump as it became."""
    shop, new = owner("shop"), owner("shopnew")
    load_legacy(shop, "net")
    with connect(new) as conn:
        conn.execute((Path(__file__).parent / "legacy" / "net.sql").read_text().split("-- Rows. Stores")[0])
    pycheckout.migrate(shop)
    with connect(shop) as conn:
        expected = rows(conn)

    done = run(program, COMMANDS.replace("shop_new", "SHOPNEW"), tmp_path, SHOPNEW=new, shop=shop)

    assert done.returncode == 0, done.stderr
    with connect(new) as conn:
        assert rows(conn) == expected
        assert len(expected["cart_items"]) == 60
        assert conn.execute("select * from checkout_audit()").fetchall() == []
