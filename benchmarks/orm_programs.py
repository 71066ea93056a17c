"""The checkout as a service writes it with SQLAlchemy's ORM: two programs, one set of rules (rules.py).

`checkout` loads a cart's parts eagerly, locks stock by one query, and lets the unit of work batch its INSERTs.
`checkout_naive` is what one gets without care: lazy loads, a query a product, a flush after each object.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, LargeBinary, Sequence, create_engine, func, literal_column, select
from sqlalchemy.dialects.postgresql import ENUM, JSONB, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload
from sqlalchemy.types import DateTime, TypeDecorator

from benchmarks import rules
from benchmarks.rules import Refused, Request


class Address(TypeDecorator[dict[str, Any]]):
    """The composite type of the database, written by name from JSON."""

    impl = JSONB
    cache_ok = True

    def bind_expression(self, bindvalue: Any) -> Any:
        return func.jsonb_populate_record(literal_column("null::address_t"), bindvalue)


class Base(DeclarativeBase):
    type_annotation_map = {dict[str, Any]: JSONB, list[Any]: JSONB, datetime: DateTime(timezone=True)}  # noqa: RUF012


def enum(name: str, *values: str) -> ENUM:
    return ENUM(*values, name=name, create_type=False)


LINE_STATUS = enum("line_item_status", "pending", "accepted", "rejected", "fulfilled", "hold")
METHOD = enum("payment_method", "cash", "ach")


class Cart(Base):
    __tablename__ = "cart_records"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    buyer_store_id: Mapped[UUID]
    checkout_group_id: Mapped[UUID | None]
    status: Mapped[str] = mapped_column(enum("cart_status", "active", "converted"))
    shipping_address: Mapped[Any] = mapped_column(Address(), deferred=True)
    currency: Mapped[str]
    valid_until: Mapped[datetime]
    subtotal_cents: Mapped[int]
    discounts_cents: Mapped[int]
    total_cents: Mapped[int]
    payment_method: Mapped[str | None] = mapped_column(METHOD)
    converted_at: Mapped[datetime | None]
    updated_at: Mapped[datetime]
    groups: Mapped[list[Group]] = relationship(back_populates="cart")


class Group(Base):
    __tablename__ = "cart_vendor_groups"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    cart_id: Mapped[UUID] = mapped_column(ForeignKey("cart_records.id"))
    vendor_store_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(enum("vendor_group_status", "ok", "invalid"))
    subtotal_cents: Mapped[int]
    total_cents: Mapped[int]
    promo: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[Any]]
    cart: Mapped[Cart] = relationship(back_populates="groups")
    items: Mapped[list[Item]] = relationship(
        primaryjoin="and_(foreign(Item.cart_id) == Group.cart_id,"
        " foreign(Item.vendor_store_id) == Group.vendor_store_id)",
        viewonly=True,
    )


class Item(Base):
    __tablename__ = "cart_items"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    cart_id: Mapped[UUID] = mapped_column(ForeignKey("cart_records.id"))
    product_id: Mapped[UUID]
    vendor_store_id: Mapped[UUID]
    title: Mapped[str]
    category: Mapped[str]
    unit: Mapped[str]
    quantity: Mapped[int]
    moq: Mapped[int]
    max_qty: Mapped[int | None]
    unit_price_cents: Mapped[int]
    line_subtotal_cents: Mapped[int]
    line_discounts_cents: Mapped[int | None]
    line_total_cents: Mapped[int | None]
    applied_volume_discount: Mapped[dict[str, Any] | None]
    warnings: Mapped[list[Any]]
    status: Mapped[str] = mapped_column(enum("cart_item_status", "ok", "not_available", "invalid"))


class Stock(Base):
    __tablename__ = "inventory_items"
    product_id: Mapped[UUID] = mapped_column(primary_key=True)
    available_qty: Mapped[int]
    reserved_qty: Mapped[int]
    updated_at: Mapped[datetime]


class Key(Base):
    __tablename__ = "checkout_requests"
    buyer_store_id: Mapped[UUID] = mapped_column(primary_key=True)
    idempotency_key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[bytes] = mapped_column(LargeBinary)
    cart_id: Mapped[UUID]


class Order(Base):
    __tablename__ = "vendor_orders"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    cart_id: Mapped[UUID]
    checkout_group_id: Mapped[UUID]
    buyer_store_id: Mapped[UUID]
    vendor_store_id: Mapped[UUID]
    status: Mapped[str] = mapped_column(enum("vendor_order_status", "created_pending", "rejected"))
    currency: Mapped[str]
    shipping_address: Mapped[Any] = mapped_column(Address())
    payment_method: Mapped[str] = mapped_column(METHOD)
    subtotal_cents: Mapped[int]
    discounts_cents: Mapped[int]
    promo_discount_cents: Mapped[int]
    tax_cents: Mapped[int]
    transport_fee_cents: Mapped[int]
    total_cents: Mapped[int]
    balance_due_cents: Mapped[int]
    promo: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    warnings: Mapped[list[Any]]
    order_number: Mapped[int] = mapped_column(BigInteger, Sequence("checkout_order_number_seq"))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    lines: Mapped[list[Line]] = relationship()
    intent: Mapped[Intent] = relationship()


class Line(Base):
    __tablename__ = "order_line_items"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("vendor_orders.id"))
    cart_item_id: Mapped[UUID]
    product_id: Mapped[UUID]
    name: Mapped[str]
    category: Mapped[str]
    unit: Mapped[str]
    unit_price_cents: Mapped[int]
    qty: Mapped[int]
    moq: Mapped[int]
    max_qty: Mapped[int | None]
    line_subtotal_cents: Mapped[int]
    discount_cents: Mapped[int]
    total_cents: Mapped[int]
    reserved_qty: Mapped[int]
    released_qty: Mapped[int | None]
    status: Mapped[str] = mapped_column(LINE_STATUS)
    notes: Mapped[str | None]
    warnings: Mapped[list[Any]]
    applied_volume_discount: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Intent(Base):
    __tablename__ = "payment_intents"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    order_id: Mapped[UUID] = mapped_column(ForeignKey("vendor_orders.id"))
    method: Mapped[str] = mapped_column(METHOD)
    amount_cents: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class Event(Base):
    __tablename__ = "outbox_events"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    event_type: Mapped[str]
    aggregate_type: Mapped[str]
    aggregate_id: Mapped[UUID]
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    next_attempt_at: Mapped[datetime]


def connect(dsn: str) -> Any:
    """An engine with one connection."""
    return create_engine(dsn.replace("postgresql:", "postgresql+psycopg:", 1), pool_size=1)


def checkout(engine: Any, request: Request) -> UUID:
    """Returns the anchor of the conversion."""
    request.check()
    with Session(engine) as session, session.begin():
        cart = session.scalars(_cart(request)).one_or_none()
        if cart is None:
            raise Refused("OC001")
        if cart.status == "converted":
            _bind_key(session, request)
            return cart.checkout_group_id
        groups = session.scalars(select(Group).where(Group.cart_id == cart.id).options(selectinload(Group.items))).all()
        now = session.scalar(select(func.clock_timestamp()))
        checked = rules.check(cart, groups, [item for group in groups for item in group.items], now)
        _check_anchor(session, cart)
        _bind_key(session, request)
        wanted = checked.wanted()
        stock = {
            row.product_id: row
            for row in session.scalars(
                select(Stock).where(Stock.product_id.in_([*wanted])).order_by(Stock.product_id).with_for_update()
            )
        }
        rows = _write(checked, request, wanted, stock, now)
        orders = {row["id"]: Order(**row) for row in rows.orders}
        for row in rows.lines:
            orders[row["order_id"]].lines.append(Line(**row))
        for row in rows.intents:
            orders[row["order_id"]].intent = Intent(**row)
        session.add_all(orders.values())
        session.add_all(Event(**row) for row in rows.events)
        return rows.cart["checkout_group_id"]


def checkout_naive(engine: Any, request: Request) -> UUID:
    request.check()
    with Session(engine) as session, session.begin():
        cart = session.scalars(_cart(request)).one_or_none()
        if cart is None:
            raise Refused("OC001")
        bound = session.get(Key, (request.buyer_store_id, request.idempotency_key))
        if bound is None:
            _bind_key(session, request)
        elif bound.request_hash != request.hash():
            raise Refused("OC006")
        if cart.status == "converted":
            return cart.checkout_group_id
        now = session.scalar(select(func.clock_timestamp()))
        checked = rules.check(cart, cart.groups, [item for group in cart.groups for item in group.items], now)
        _check_anchor(session, cart)
        wanted = checked.wanted()
        stock: dict[UUID, Any] = {}
        for product in wanted:
            found = session.get(Stock, product, with_for_update={"skip_locked": True})
            stock[product] = found or session.get(Stock, product, with_for_update=True)
        rows = _write(checked, request, wanted, {key: row for key, row in stock.items() if row}, now)
        session.flush()
        for model, written in ((Order, rows.orders), (Line, rows.lines), (Intent, rows.intents), (Event, rows.events)):
            for row in written:
                session.add(model(**row))
                session.flush()
        return rows.cart["checkout_group_id"]


def _cart(request: Request) -> Any:
    mine = select(Cart).where(Cart.id == request.cart_id, Cart.buyer_store_id == request.buyer_store_id)
    return mine.with_for_update()


def _check_anchor(session: Session, cart: Cart) -> None:
    """An anchor that the cart brought must not carry orders."""
    if cart.checkout_group_id is not None:
        orders = select(Order.id).where(Order.checkout_group_id == cart.checkout_group_id).limit(1)
        if session.scalar(orders) is not None:
            raise Refused("OC007")


def _bind_key(session: Session, request: Request) -> None:
    values = {
        "buyer_store_id": request.buyer_store_id,
        "idempotency_key": request.idempotency_key,
        "request_hash": request.hash(),
        "cart_id": request.cart_id,
    }
    bind = insert(Key).values(values).on_conflict_do_nothing().returning(Key.cart_id)
    if session.execute(bind).first() is None:
        bound = session.get(Key, (request.buyer_store_id, request.idempotency_key))
        if bound is None or bound.request_hash != request.hash():
            raise Refused("OC006")


def _write(checked: Any, request: Request, wanted: Any, stock: dict[UUID, Any], now: datetime) -> rules.Rows:
    """Change the cart and its stock; the rows to add are returned."""
    taken, short = rules.reserve(wanted, {product: row.available_qty for product, row in stock.items()})
    rows = rules.rows(checked, request, short, now)
    for product, qty in taken.items():
        stock[product].available_qty -= qty
        stock[product].reserved_qty += qty
        stock[product].updated_at = now
    for name, value in rows.cart.items():
        setattr(checked.cart, name, value)
    return rows
