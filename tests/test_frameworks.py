"""The calls on what SQLAlchemy and Django call a connection: in its transaction, and no error of theirs is lost."""

import asyncio
from uuid import UUID

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import create_engine, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

import examples.django.shop  # noqa: F401 (its settings)
import pycheckout
from checks import values
from factories import request_of
from pycheckout import AsyncCheckout, CartExpired, Checkout, NotInstalled


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "delivery_notes"

    cart_id: Mapped[UUID] = mapped_column(primary_key=True)
    note: Mapped[str]


@pytest.fixture(autouse=True)
def notes(db):
    """notes(): how many orders and how many rows of the host's are committed."""
    db.execute("create table delivery_notes (cart_id uuid primary key, note text not null)")
    return lambda: tuple(
        values(db, f"select count(*) from {table}")[0] for table in ("vendor_orders", "delivery_notes")
    )


@pytest.fixture
def url(dsn):
    return "postgresql+psycopg://" + dsn.partition("://")[2]


@pytest.fixture
def engine(url):
    engine = create_engine(url)
    yield engine
    engine.dispose()


def order(conn, cart):
    return pycheckout.execute(conn, **request_of(cart))


def note(cart):
    return Note(cart_id=cart.id, note="ring")


# SQLAlchemy


def test_session_commits_order_and_rows_of_the_host_at_once(engine, add_cart, notes):
    cart = add_cart()
    with Session(engine) as session:
        session.add(note(cart))
        assert Checkout(session).execute(**request_of(cart)).replayed is False
        assert notes() == (0, 0)
        session.commit()
    assert notes() == (2, 1)


def test_session_is_flushed_before_the_call_unless_its_host_forbids(engine, add_cart):
    cart = add_cart()
    with Session(engine) as session, session.no_autoflush:
        session.add(note(cart))
        order(session, cart)
        assert session.new
    with Session(engine) as session:
        session.add(note(cart))
        order(session, cart)
        assert not session.new


def test_nothing_that_a_session_has_loaded_is_expired(engine, add_cart):
    cart = add_cart()
    with Session(engine) as session:
        kept = note(cart)
        session.add(kept)
        order(session, cart)
        assert "note" in kept.__dict__


@pytest.mark.parametrize("kind", ["Session", "scoped_session", "Connection"])
def test_commit_after_an_error_that_was_caught_is_refused(engine, add_cart, notes, kind):
    """PostgreSQL answers it with a ROLLBACK and no error: the host would take its rows for written."""
    cart, good = add_cart(valid_for=-1), add_cart()
    if kind == "Connection":
        conn = engine.connect()
        conn.execute(text("insert into delivery_notes values (:id, 'ring')"), {"id": cart.id})
    else:
        made = sessionmaker(engine)
        conn = scoped_session(made) if kind == "scoped_session" else made()
        conn.add(note(cart))

    with pytest.raises(CartExpired):
        order(conn, cart)
    with pytest.raises(PendingRollbackError):
        conn.commit()
    conn.rollback()
    assert notes() == (0, 0)

    order(conn, good)
    conn.commit()
    conn.close()
    assert notes() == (2, 0)


def test_savepoint_that_took_the_error_back_lets_the_rest_commit(engine, add_cart, notes):
    cart = add_cart(valid_for=-1)
    with Session(engine) as session:
        session.add(note(cart))
        session.flush()
        with pytest.raises(CartExpired), session.begin_nested():
            order(session, cart)
        session.commit()
    assert notes() == (0, 1)


def test_connection_that_has_begun_nothing_is_in_a_transaction_after_the_call(engine, add_cart, notes):
    cart = add_cart()
    with engine.connect() as conn:
        order(conn, cart)
        assert conn.in_transaction()
        conn.rollback()
        assert notes() == (0, 0)
        order(conn, cart)
        conn.commit()
    assert notes() == (2, 0)


@pytest.mark.parametrize("kind", [Session, None], ids=["Session", "Connection"])
def test_sqlalchemy_in_autocommit_is_refused(engine, add_cart, notes, kind):
    """It would commit the order, and the host's rows or not."""
    cart = add_cart()
    free = engine.execution_options(isolation_level="AUTOCOMMIT")
    with kind(free) if kind else free.connect() as conn, pytest.raises(TypeError, match="AUTOCOMMIT"):
        order(conn, cart)
    assert notes() == (0, 0)


def test_an_engine_is_no_connection(engine):
    with pytest.raises(TypeError, match=r"a SQLAlchemy Connection or Session.* is needed, not sqlalchemy\..*Engine"):
        Checkout(engine).audit()


def test_sqlalchemy_on_another_driver_is_refused():
    with create_engine("sqlite://").connect() as conn, pytest.raises(TypeError, match="psycopg 3 is needed"):
        pycheckout.result(conn, buyer_store_id=UUID(int=1), cart_id=UUID(int=2))


@pytest.mark.parametrize("kind", ["AsyncSession", "async_scoped_session", "AsyncConnection"])
def test_async_sqlalchemy(url, add_cart, notes, kind):
    cart, good = add_cart(valid_for=-1), add_cart()

    async def work():
        engine = create_async_engine(url)
        try:
            if kind == "AsyncConnection":
                conn = await engine.connect()
                await conn.execute(text("insert into delivery_notes values (:id, 'ring')"), {"id": cart.id})
            else:
                conn = AsyncSession(engine)
                if kind == "async_scoped_session":
                    conn = async_scoped_session(async_sessionmaker(engine), scopefunc=asyncio.current_task)
                conn.add(note(cart))
            checkout = AsyncCheckout(conn)
            with pytest.raises(CartExpired):
                await checkout.execute(**request_of(cart))
            with pytest.raises(PendingRollbackError):
                await conn.commit()
            await conn.rollback()
            assert notes() == (0, 0)

            assert (await checkout.execute(**request_of(good))).replayed is False
            assert notes() == (0, 0)
            await conn.commit()
            await conn.close()
        finally:
            await engine.dispose()

    asyncio.run(work())
    assert notes() == (2, 0)


# Django


@pytest.fixture
def django(dsn):
    """Django's connection, not connected yet."""
    from django.db import connection

    address = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "HOST": "host", "PORT": "port", "USER": "user", "PASSWORD": "password"}
    kept = dict(connection.settings_dict)
    connection.close()
    connection.settings_dict.update({ours: address.get(theirs, "") for ours, theirs in names.items()})
    yield connection
    connection.close()
    connection.settings_dict.update(kept)


def test_django_is_connected_if_it_is_not_yet(django, add_cart, notes):
    assert django.connection is None
    assert order(django, add_cart()).replayed is False
    assert notes() == (2, 0)


def test_atomic_commits_order_and_rows_of_the_host_at_once(django, add_cart, notes):
    from django.db import transaction

    cart = add_cart()
    with transaction.atomic():
        django.cursor().execute("insert into delivery_notes values (%s, 'ring')", [cart.id])
        order(django, cart)
        assert notes() == (0, 0)
    assert notes() == (2, 1)


def test_atomic_says_that_it_is_broken_after_an_error_that_was_caught(django, add_cart, notes):
    from django.db import transaction
    from django.db.transaction import TransactionManagementError

    cart, good = add_cart(valid_for=-1), add_cart()
    with transaction.atomic():
        django.cursor().execute("insert into delivery_notes values (%s, 'ring')", [cart.id])
        with pytest.raises(CartExpired):
            order(django, cart)
        assert django.needs_rollback
        with pytest.raises(TransactionManagementError):
            django.cursor().execute("select 1")
        with pytest.raises(TransactionManagementError):
            order(django, good)
    assert notes() == (0, 0)


def test_inner_atomic_takes_the_error_back_alone(django, add_cart, notes):
    from django.db import transaction

    cart, good = add_cart(valid_for=-1), add_cart()
    with transaction.atomic():
        with pytest.raises(CartExpired), transaction.atomic():
            order(django, cart)
        order(django, good)
    assert notes() == (2, 0)


# What is none of them


def test_schema_names_where_the_functions_are(db, connect, add_cart):
    db.execute("create schema elsewhere")
    conn = connect(autocommit=True, options="-c search_path=elsewhere")
    with pytest.raises(NotInstalled):
        order(conn, add_cart())
    assert Checkout(conn, schema="public").execute(**request_of(add_cart())).outcome == "complete"
    with pytest.raises(NotInstalled):
        Checkout(conn, schema='no "such" %s schema').quotes.get(buyer_store_id=UUID(int=1), cart_id=UUID(int=2))


def test_asyncpg_is_told_what_to_do():
    class Connection:
        def execute(self):
            raise AssertionError

    Connection.__module__ = "asyncpg.connection"
    with pytest.raises(TypeError, match=r"CheckoutResult\.from_json"):
        asyncio.run(pycheckout.result_async(Connection(), buyer_store_id=UUID(int=1), cart_id=UUID(int=2)))


def test_answers_of_another_driver_are_read_from_their_json(db, add_cart):
    cart = add_cart()
    result = order(db, cart)
    [(answer,)] = db.execute(
        "select checkout_result(%s, %s)::text", (cart.buyer_store_id, cart.id), binary=False
    ).fetchall()
    assert pycheckout.CheckoutResult.from_json(answer).vendor_orders == result.vendor_orders
