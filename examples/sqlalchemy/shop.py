"""A service on SQLAlchemy that sells. The database has the table of examples/shop.sql."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import Engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pycheckout


class Base(DeclarativeBase):
    pass


class DeliveryNote(Base):
    __tablename__ = "delivery_notes"

    cart_id: Mapped[UUID] = mapped_column(primary_key=True)
    note: Mapped[str]


def checkout(session: Session, note: str = "", **request: Any) -> pycheckout.CheckoutResult:
    """The checkout and the service's own row, in the session's transaction."""
    result = pycheckout.execute(session, **request)
    if not result.replayed:
        session.add(DeliveryNote(cart_id=result.cart_id, note=note))
    return result


def order(engine: Engine, request: Mapping[str, Any], *, attempts: int = 3) -> pycheckout.CheckoutResult:
    """A checkout in a transaction of its own, begun again while others are in its way."""
    while True:
        attempts -= 1
        try:
            with Session(engine) as session, session.begin():
                return checkout(session, **request)
        except pycheckout.CheckoutError as error:
            if not (error.retryable and attempts):
                raise
