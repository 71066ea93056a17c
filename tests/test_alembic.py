"""pycheckout.alembic, by the real program in a shop of its own: ours is left alone, and the shop's own change is found."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import SAWarning
from upgrade import load_legacy

import pycheckout
from pycheckout.alembic import filters
from pycheckout.sqlalchemy import tables

ROOT = Path(__file__).parents[1]
ENV = """
import pickle
import sqlalchemy as sa
from alembic import context
import pycheckout.alembic

context.config.attributes  # as in each env.py
with open({models!r}, "rb") as file:
    target_metadata = pickle.load(file)
{more}
engine = sa.create_engine({url!r})
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=target_metadata, include_schemas={schemas!r}, {filters})
    with context.begin_transaction():
        context.run_migrations()
"""


class Shop:
    """A project that keeps its own tables with Alembic, and its database."""

    def __init__(self, folder, dsn):
        self.folder, self.dsn = folder, dsn
        self.url = dsn.replace("postgresql://", "postgresql+psycopg://")
        self.models = sa.MetaData()
        (folder / "migrations" / "versions").mkdir(parents=True)
        template = Path(sys.modules["alembic"].__file__).parent / "templates" / "generic" / "script.py.mako"
        (folder / "migrations" / "script.py.mako").write_text(template.read_text())
        (folder / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\n")
        self.configure()

    def configure(self, *, more="", filtered=True, include_schemas=False):
        """Write env.py. `more`: what it does with `target_metadata` in front."""
        self.env = ENV.format(
            models=str(self.folder / "models"),
            url=self.url,
            more=more,
            schemas=include_schemas,
            filters="**pycheckout.alembic.filters(connection)" if filtered else "",
        )

    def reflect(self):
        """Take what the database holds for the shop's models."""
        with pytest.warns(SAWarning, match="Did not recognize type"), sa.create_engine(self.url).connect() as conn:
            self.models.reflect(conn)

    def run(self, *arguments):
        (self.folder / "migrations" / "env.py").write_text(self.env)
        (self.folder / "models").write_bytes(pickle.dumps(self.models))
        return subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(self.folder / "alembic.ini"), *arguments],
            env={"PYTHONPATH": str(ROOT), "PATH": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def operations(self, name):
        """What a new revision would do: ("add_column", "vendor_orders", "colour") and the like."""
        done = self.run("revision", "--autogenerate", "-m", name)
        assert done.returncode == 0, done.stderr
        [file] = (self.folder / "migrations" / "versions").glob(f"*_{name}.py")
        [body] = re.findall(r"^def upgrade.*?(?=^def downgrade)", file.read_text(), re.DOTALL | re.MULTILINE)
        return {
            tuple(part for part in found if part)
            for found in re.findall(r"op\.(\w+)\((?:op\.f\()?'(\w+)'\)?(?:, (?:sa\.Column\()?'(\w+)')?", body)
        }

    def is_up_to_date(self):
        done = self.run("check")
        assert done.returncode == 0 or "New upgrade operations detected" in done.stdout + done.stderr, done.stderr
        return done.returncode == 0

    def upgrade(self):
        done = self.run("upgrade", "head")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def shop(tmp_path, empty_database):
    import alembic  # noqa: F401

    return Shop(tmp_path, empty_database())


def notes(models, *columns, target="vendor_orders.id"):
    return sa.Table(
        "notes",
        models,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("order_id", sa.Uuid, *([sa.ForeignKey(target)] if target else [])),
        *columns,
    )


def relations(dsn):
    with psycopg.connect(dsn) as conn:
        query = "select attrelid::regclass::text, attname from pg_attribute join pg_class on pg_class.oid = attrelid"
        query += (
            " where relkind in ('r', 'v') and relnamespace::regnamespace::text !~ '^pg_|^information' and attnum > 0"
        )
        return set(conn.execute(query).fetchall())


def test_in_the_same_schema(shop):
    notes(shop.models, target=None)
    pycheckout.migrate(shop.dsn)
    before = relations(shop.dsn)

    shop.configure(filtered=False)
    assert ("drop_table", "vendor_orders") in shop.operations("unfiltered")
    next((shop.folder / "migrations" / "versions").glob("*_unfiltered.py")).unlink()

    shop.configure()
    assert shop.operations("own") == {("create_table", "notes")}
    shop.upgrade()
    assert shop.is_up_to_date()
    assert relations(shop.dsn) - before == {
        *(("notes", name) for name in ("id", "order_id")),
        ("alembic_version", "version_num"),
    }
    assert relations(shop.dsn) > before


@pytest.mark.parametrize("include_schemas", [False, True])
def test_with_our_tables_in_the_metadata_of_the_shop(shop, include_schemas):
    """Declared tables, which no ledger names while the database is empty, and the shop's foreign key to one of them."""
    more = "from pycheckout.sqlalchemy import tables\ntables(target_metadata)\n"
    notes(shop.models)
    shop.configure(more=more, include_schemas=include_schemas)
    assert shop.operations("empty") == {("create_table", "notes")}

    pycheckout.migrate(shop.dsn)
    shop.upgrade()
    assert shop.is_up_to_date()

    shop.models.clear()
    notes(shop.models, sa.Column("colour", sa.Text))
    assert shop.operations("own") == {("add_column", "notes", "colour")}
    assert not shop.is_up_to_date()


@pytest.mark.parametrize("declared", [False, True])
def test_in_a_schema_of_its_own(shop, declared):
    pycheckout.migrate(shop.dsn, schema="check out", create_schema=True)
    notes(shop.models, target="check out.vendor_orders.id" if declared else None)
    more = "from pycheckout.sqlalchemy import tables\ntables(target_metadata, schema='check out')\n" if declared else ""

    shop.configure(more=more, filtered=False, include_schemas=True)
    assert ("drop_table", "checkout_requests") in shop.operations("unfiltered")
    next((shop.folder / "migrations" / "versions").glob("*_unfiltered.py")).unlink()

    shop.configure(more=more, include_schemas=True)
    assert shop.operations("own") == {("create_table", "notes")}
    shop.upgrade()
    assert shop.is_up_to_date()
    shop.configure(more=more, include_schemas=declared)
    assert shop.is_up_to_date() is True


@pytest.mark.parametrize("shape", ["net", "gross"])
@pytest.mark.parametrize("declared", ["nothing of ours", "columns of ours"])
def test_in_the_schema_of_an_earlier_system(shop, shape, declared):
    """Its tables stay the shop's to change; columns, indexes, constraints and tables that we brought are ours."""
    load_legacy(shop.dsn, shape)
    shop.reflect()
    pycheckout.migrate(shop.dsn)
    models = shop.models
    if shape == "net":  # what the migration took away goes from the models as well
        models.remove(models.tables["checkout_groups"])
        for table in models.tables.values():
            for key in [key for key in table.foreign_key_constraints if key.referred_table.name == "checkout_groups"]:
                table.constraints.remove(key)
                for element in key.elements:
                    element.parent.foreign_keys.discard(element)
        orders = models.tables["vendor_orders"]
    else:
        orders = models.tables["vendor_orders"]
    if declared == "columns of ours":
        # to read them with, in whatever type
        orders.append_column(sa.Column("attributed_token", sa.Text, nullable=False))
        orders.append_column(sa.Column("promo_discount_cents", sa.Numeric))
    shop.configure(filtered=False)
    unfiltered = shop.operations("unfiltered")
    next((shop.folder / "migrations" / "versions").glob("*_unfiltered.py")).unlink()
    assert ("drop_table", "checkout_requests") in unfiltered
    assert ("drop_column", "order_line_items", "reserved_qty") in unfiltered

    shop.configure()
    assert shop.operations("nothing") == set(), unfiltered
    shop.upgrade()
    assert shop.is_up_to_date()

    orders.append_column(sa.Column("colour", sa.Text))
    sa.Index("notes_of_orders", orders.c.notes)
    orders.c.tax_cents.type = sa.BigInteger()
    notes(models)
    assert shop.operations("own") == {
        ("add_column", "vendor_orders", "colour"),
        ("alter_column", "vendor_orders", "tax_cents"),
        ("create_index", "notes_of_orders", "vendor_orders"),
        ("create_table", "notes"),
    }


def test_filters_of_the_shop_are_asked_about_the_rest(shop):
    pycheckout.migrate(shop.dsn)
    asked = []

    def include(*about):
        asked.append(about)
        return False

    engine = sa.create_engine(shop.url)
    with engine.connect() as conn:
        found = filters(conn, include_name=include, include_object=include)
        assert not conn.in_transaction()  # or Alembic would leave the commit of all that follows to another
        assert found["include_name"]("vendor_orders", "table", {"schema_name": None}) is False
        assert found["include_object"](tables(sa.MetaData()).orders, "vendor_orders", "table", False, None) is False
        assert asked == []
        assert found["include_name"](None, "schema", {}) is False
        assert found["include_name"]("notes", "table", {"schema_name": None}) is False
        table = notes(sa.MetaData(), target=None)
        assert found["include_object"](table.c.id, "id", "column", False, None) is False
        assert len(asked) == 3
    engine.dispose()


def test_a_role_that_may_not_read_the_ledger_is_told(shop, new_role):
    pycheckout.migrate(shop.dsn)
    role = new_role()
    engine = sa.create_engine(shop.url)

    with engine.connect() as conn:
        conn.execute(sa.text(f"set role {role}"))
        found = filters(conn)
        assert found["include_name"]("notes", "table", {"schema_name": "elsewhere"}) is True
        with pytest.raises(pycheckout.MigrationError, match="GRANT SELECT ON .public.\\.checkout_ledger"):
            found["include_name"]("notes", "table", {"schema_name": None})
    engine.dispose()
