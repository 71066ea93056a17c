"""pycheckout.sqlalchemy: the tables are those of a migrated database, and read what is there."""

import asyncio
from dataclasses import fields
from pathlib import Path

import psycopg
import pytest
from pages import block, section
from psycopg.rows import dict_row
from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table, Uuid, create_engine, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Session

import pycheckout
from factories import ADDRESS, request_of
from pycheckout.sqlalchemy import Tables, tables

PAGE = (Path(__file__).parents[1] / "docs" / "frameworks.md").read_text(encoding="utf-8")
CATALOGUE = """
select attname as name, format_type(atttypid, atttypmod) as type, attnotnull as not_null,
       coalesce(attnum = any ((
         select conkey from pg_constraint where conrelid = attrelid and contype = 'p')::smallint[]), false) as key,
       (select confrelid::regclass::text || '.id' from pg_constraint
         where conrelid = attrelid and contype = 'f' and conkey = array[attnum]) as reference
  from pg_attribute
 where attrelid = %s::regclass and attnum > 0 and not attisdropped
 order by attnum
"""


def url(dsn):
    return dsn.replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def engine(dsn):
    engine = create_engine(url(dsn))
    yield engine
    engine.dispose()


def every_table(found):
    return [getattr(found, field.name) for field in fields(Tables)]


@pytest.mark.parametrize("name", [field.name for field in fields(Tables)])
def test_a_table_is_the_one_of_the_catalogue(db, name):
    table = getattr(tables(MetaData()), name)
    is_view = name in {"levels", "money", "history"}

    with db.cursor(row_factory=dict_row) as cur:
        catalogue = cur.execute(CATALOGUE, (table.name,)).fetchall()

    assert [
        {
            "name": column.name,
            "type": column.type.compile(postgresql.dialect()).lower(),
            "not_null": not column.nullable and not is_view,  # a view promises nothing
            "key": column.primary_key and not is_view,
            "reference": next((key.target_fullname for key in column.foreign_keys), None),
        }
        for column in table.columns
    ] == catalogue


def test_rows_are_read_as_values_of_python(db, engine, add_cart):
    cart = add_cart()
    result = pycheckout.execute(db, **request_of(cart))
    found = tables(MetaData())

    with engine.connect() as conn:
        query = (
            select(found.orders.c.status, found.orders.c.shipping_address, found.lines.c.unit, found.intents.c.method)
            .select_from(found.orders.join(found.lines).join(found.intents))
            .where(found.orders.c.status == "created_pending", found.lines.c.status.in_(["pending", "hold"]))
        )
        lines = conn.execute(query).all()
        for table in every_table(found):
            conn.execute(select(table)).all()

    assert len(lines) == sum(len(order.items) for order in result.vendor_orders)
    assert {(line.status, line.method) for line in lines} == {("created_pending", "ach")}
    assert ADDRESS.items() <= lines[0].shipping_address.items()


def test_the_page_reads_the_orders_of_a_vendor(db, engine, add_cart):
    code = block(section(PAGE, "SQLAlchemy"), "python")
    [order, _] = pycheckout.execute(db, **request_of(add_cart())).vendor_orders
    names = {}
    exec(code, names)

    with engine.connect() as conn:
        rows = names["open_orders"](conn, order.vendor_store_id)

    assert [(row.id, row.name) for row in rows] == [(order.order_id, line.name) for line in order.items]


async def read(dsn):
    found = tables(MetaData())
    engine = create_async_engine(url(dsn))
    async with engine.connect() as conn:
        rows = (await conn.execute(select(found.outbox).where(found.outbox.c.event_type == "checkout.converted"))).all()
    await engine.dispose()
    return rows


def test_an_async_engine_reads_them_too(db, dsn, add_cart):
    pycheckout.execute(db, **request_of(add_cart()))

    [row] = asyncio.run(read(dsn))
    assert row.payload["data"]


@pytest.mark.parametrize("shape", ["net", "gross"])
def test_the_database_of_an_earlier_system_is_read_with_its_own_labels(database, shape):
    """Enums where a fresh installation has text, labels that only the host has, an address with one attribute more."""
    dsn = database(shape, migrated=True)
    found = tables(MetaData())
    engine = create_engine(url(dsn))

    with engine.connect() as conn:
        for table in every_table(found):
            conn.execute(select(table)).all()
        units = conn.execute(select(func.count()).where(found.lines.c.unit != "unit")).scalar_one()
        own = conn.execute(select(func.count()).where(found.outbox.c.event_type == "order_created")).scalar_one()
        address = conn.execute(select(found.carts.c.shipping_address)).scalars().first()
    engine.dispose()

    assert (units > 0, own > 0) == (True, True)
    assert address["geohash"]


@pytest.mark.parametrize("schema_of_the_host", [None, "shop"])
def test_they_lie_in_the_schema_that_is_named_whatever_the_metadata_has(schema_of_the_host):
    metadata = MetaData(schema=schema_of_the_host)
    named = tables(metadata, schema="checkout")

    assert named.orders.fullname == "checkout.vendor_orders"
    assert str(named.lines.join(named.orders).onclause) == (
        "checkout.vendor_orders.id = checkout.order_line_items.order_id"
    )
    assert tables(metadata).orders.fullname == "vendor_orders"


def test_tables_of_the_host_lead_to_them_and_classes_are_mapped_on_them(db, engine, add_cart):
    pycheckout.execute(db, **request_of(add_cart()))

    class Base(DeclarativeBase):
        pass

    ours = tables(Base.metadata)
    notes = Table(
        "notes",
        Base.metadata,
        Column("id", Integer, primary_key=True),
        Column("order_id", Uuid, ForeignKey("vendor_orders.id")),
    )

    class Order(Base):
        __table__ = ours.orders

    Base.metadata.create_all(engine)
    with Session(engine) as session:
        order = session.scalars(select(Order)).first()
        session.execute(notes.insert().values(order_id=order.id))
        session.commit()
        assert session.scalar(select(Order.id).join(notes)) == order.id


def test_a_metadata_neither_makes_nor_drops_them(empty_database):
    dsn = empty_database()
    engine = create_engine(url(dsn))
    metadata = MetaData()
    tables(metadata)

    with pytest.raises(pycheckout.MigrationError, match=r"is not created"):
        metadata.create_all(engine)
    pycheckout.migrate(dsn)
    metadata.create_all(engine)
    with pytest.raises(pycheckout.MigrationError, match=r"is not dropped"):
        metadata.drop_all(engine)
    engine.dispose()

    with psycopg.connect(dsn) as conn:
        assert conn.execute("select count(*) from vendor_orders").fetchone() == (0,)
