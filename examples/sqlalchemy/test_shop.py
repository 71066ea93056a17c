"""The checkout commits and rolls back with the session's transaction."""

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

import pycheckout
from examples.sqlalchemy import shop

pytest_plugins = ["pycheckout.testing"]


@pytest.fixture
def engine(pycheckout_dsn):
    engine = create_engine(pycheckout_dsn.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def test_a_checkout_commits_with_the_row_of_the_service(engine, pycheckout_cart, rows):
    request = pycheckout_cart().request(note="ring twice")

    first, again = shop.order(engine, request), shop.order(engine, request)

    assert (first.replayed, again.replayed) == (False, True)
    assert rows() == (2, 1)


def test_an_error_after_the_checkout_takes_it_back(engine, pycheckout_cart, rows):
    cart = pycheckout_cart()

    with pytest.raises(IntegrityError):
        shop.order(engine, cart.request(note="x" * 101))

    assert rows() == (0, 0)
    assert shop.order(engine, cart.request()).replayed is False


@pytest.mark.parametrize("first_statement", ["the checkout", "another"])
def test_the_checkout_belongs_to_the_session_whichever_statement_is_first(
    engine, pycheckout_cart, rows, first_statement
):
    cart, other = pycheckout_cart(), pycheckout_cart()

    with Session(engine) as session:
        if first_statement == "another":
            session.add(shop.DeliveryNote(cart_id=other.id, note="first"))
            session.flush()
        shop.checkout(session, **cart.request())
        session.flush()
        assert rows() == (0, 0)
        session.rollback()
        assert rows() == (0, 0)
        shop.checkout(session, **cart.request())
        session.commit()

    assert rows() == (2, 1)


def test_a_refusal_in_a_savepoint_leaves_the_session_usable(engine, pycheckout_cart, rows):
    cart = pycheckout_cart(stock=0)

    with Session(engine) as session, session.begin():
        with pytest.raises(pycheckout.InsufficientInventory), session.begin_nested():
            shop.checkout(session, **cart.request(reservation_policy="all"))
        session.add(shop.DeliveryNote(cart_id=cart.id, note="sold out"))

    assert rows() == (0, 1)


def test_a_busy_cart_is_tried_again_in_a_new_transaction(engine, pycheckout_dsn, pycheckout_cart, rows):
    cart = pycheckout_cart()
    busy = create_engine(engine.url, connect_args={"options": "-c lock_timeout=50ms"})
    with psycopg.connect(pycheckout_dsn) as holder:
        holder.execute("select from cart_records where id = %s for update", [cart.id])
        with pytest.raises(pycheckout.Busy):
            shop.order(busy, cart.request(), attempts=2)

    assert shop.order(busy, cart.request()).outcome == "complete"
    busy.dispose()
    assert rows() == (2, 1)
