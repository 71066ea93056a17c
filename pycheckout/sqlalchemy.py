"""The tables of pycheckout as SQLAlchemy `Table`s, to read with. Needs SQLAlchemy 2 (extra `alembic`).

They are for SELECT: what changes them are the functions of the package, and what makes them is `pycheckout.migrate`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from ._errors import MigrationError
from ._extras import needing

with needing("alembic"):
    from sqlalchemy import (
        BigInteger,
        Boolean,
        Column,
        ColumnElement,
        DateTime,
        ForeignKey,
        Integer,
        LargeBinary,
        MetaData,
        Numeric,
        Table,
        Text,
        Uuid,
        event,
    )
    from sqlalchemy import func as sql
    from sqlalchemy.dialects.postgresql import ARRAY, JSONB
    from sqlalchemy.schema import BLANK_SCHEMA
    from sqlalchemy.types import UserDefinedType

__all__ = ["Address", "Tables", "Word", "tables"]

_MARK = "pycheckout"


class Word(UserDefinedType[str]):
    """Text, or a label of an enum, read as `str` whatever labels a database has.

    A parameter is passed without a cast, so it compares with a column of an enum as well as with one of text: in the
    database of an earlier system `unit` and `event_type` are enums.
    """

    cache_ok = True

    def __init__(self, name: str = "text") -> None:
        self.name = name
        """PostgreSQL's name of the type, as a fresh installation has it."""

    def get_col_spec(self, **kw: Any) -> str:
        return self.name


class Address(UserDefinedType[dict[str, Any]]):
    """The composite type `address_t`, read as a `dict` of its attributes, those that a host added included."""

    cache_ok = True

    def get_col_spec(self, **kw: Any) -> str:
        return "address_t"

    def column_expression(self, colexpr: ColumnElement[Any]) -> ColumnElement[Any]:
        return sql.to_jsonb(colexpr, type_=self)

    def result_processor(self, dialect: Any, coltype: object) -> Callable[[Any], dict[str, Any] | None]:
        def parsed(value: Any) -> dict[str, Any] | None:
            found: dict[str, Any] | None = json.loads(value) if isinstance(value, (str, bytes)) else value
            return found

        return parsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What `tables` made. Amounts (`..._cents`) are in minor units; docs/entities.md says what each column holds."""

    orders: Table
    """`vendor_orders`"""
    lines: Table
    """`order_line_items`"""
    intents: Table
    """`payment_intents`"""
    carts: Table
    """`cart_records`"""
    groups: Table
    """`cart_vendor_groups`"""
    items: Table
    """`cart_items`"""
    levels: Table
    """`inventory_levels`, a view: the stock of each product over its slots"""
    outbox: Table
    """`outbox_events`"""
    changes: Table
    """`order_changes`: what was done to orders after their checkout"""
    payments: Table
    """`payment_events`: what payment providers told of orders"""
    money: Table
    """`order_money`, a view: what is paid and due of each order"""
    history: Table
    """`order_history`, a view: changes and payments of each order"""


def tables(metadata: MetaData, schema: str | None = None) -> Tables:
    """The tables to read with, in `metadata`.

    `schema`: where pycheckout is installed; None is the first schema of the search_path, whatever schema `metadata`
    has. Call it once for a MetaData. Foreign keys of yours lead to them by name ("vendor_orders.id"). Nothing is
    executed here. `create_all` and `drop_all` of that MetaData raise MigrationError rather than make or drop them:
    `pycheckout.migrate` and `pycheckout.rollback` do that.
    """

    def table(name: str, *columns: Column[Any]) -> Table:
        made = Table(name, metadata, *columns, schema=BLANK_SCHEMA if schema is None else schema, info={_MARK: True})
        event.listen(made, "before_create", _refuse("created", "pycheckout.migrate"))
        event.listen(made, "before_drop", _refuse("dropped", "pycheckout.rollback"))
        return made

    orders = table(
        "vendor_orders",
        Column("id", Uuid(), primary_key=True),
        Column("checkout_group_id", Uuid(), nullable=False),
        Column("buyer_store_id", Uuid(), nullable=False),
        Column("vendor_store_id", Uuid(), nullable=False),
        Column("status", Word("vendor_order_status"), nullable=False),
        Column("subtotal_cents", BigInteger(), nullable=False),
        Column("discounts_cents", BigInteger(), nullable=False),
        Column("tax_cents", BigInteger(), nullable=False),
        Column("transport_fee_cents", BigInteger(), nullable=False),
        Column("total_cents", BigInteger(), nullable=False),
        Column("balance_due_cents", BigInteger(), nullable=False),
        Column("notes", Text()),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("cart_id", Uuid()),
        Column("currency", Text()),
        Column("shipping_address", Address()),
        Column("warnings", JSONB()),
        Column("promo", JSONB()),
        Column("payment_method", Word("payment_method")),
        Column("shipping_line", JSONB()),
        Column("attributed_token", JSONB()),
        Column("promo_discount_cents", BigInteger()),
        Column("tax_included", Boolean()),
        Column("vendor_shipping_line", JSONB()),
        Column("billing_address", Address()),
        Column("purchase_order", Text()),
        Column("metadata", JSONB()),
        Column("order_number", BigInteger()),
        Column("expires_at", DateTime(timezone=True)),
        Column("shipping_tax_cents", BigInteger()),
        Column("adjustments_cents", BigInteger()),
        Column("refund_due_cents", BigInteger()),
    )
    lines = table(
        "order_line_items",
        Column("id", Uuid(), primary_key=True),
        Column("order_id", Uuid(), ForeignKey(orders.c.id), nullable=False),
        Column("product_id", Uuid()),
        Column("name", Text(), nullable=False),
        Column("category", Text(), nullable=False),
        Column("unit", Word(), nullable=False),
        Column("unit_price_cents", BigInteger(), nullable=False),
        Column("qty", Integer(), nullable=False),
        Column("discount_cents", BigInteger(), nullable=False),
        Column("total_cents", BigInteger(), nullable=False),
        Column("status", Word("line_item_status"), nullable=False),
        Column("notes", Text()),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("cart_item_id", Uuid()),
        Column("warnings", JSONB()),
        Column("applied_volume_discount", JSONB()),
        Column("moq", Integer()),
        Column("max_qty", Integer()),
        Column("attributed_token", JSONB()),
        Column("reserved_qty", Integer()),
        Column("line_subtotal_cents", BigInteger()),
        Column("tax_lines", JSONB()),
        Column("fulfilled_qty", Integer()),
        Column("released_qty", Integer()),
        Column("returned_qty", Integer()),
        Column("tax_cents", BigInteger()),
    )
    intents = table(
        "payment_intents",
        Column("id", Uuid(), primary_key=True),
        Column("order_id", Uuid(), ForeignKey(orders.c.id), nullable=False),
        Column("method", Word("payment_method"), nullable=False),
        Column("status", Word("payment_status"), nullable=False),
        Column("amount_cents", BigInteger(), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("payment_terms", JSONB()),
        Column("due_at", DateTime(timezone=True)),
    )
    carts = table(
        "cart_records",
        Column("id", Uuid(), primary_key=True),
        Column("buyer_store_id", Uuid(), nullable=False),
        Column("checkout_group_id", Uuid()),
        Column("status", Word("cart_status"), nullable=False),
        Column("shipping_address", Address()),
        Column("currency", Text(), nullable=False),
        Column("valid_until", DateTime(timezone=True), nullable=False),
        Column("subtotal_cents", BigInteger(), nullable=False),
        Column("discounts_cents", BigInteger(), nullable=False),
        Column("total_cents", BigInteger(), nullable=False),
        Column("ad_tokens", ARRAY(Text())),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("payment_method", Word("payment_method")),
        Column("shipping_line", JSONB()),
        Column("converted_at", DateTime(timezone=True)),
        Column("tax_included", Boolean()),
    )
    groups = table(
        "cart_vendor_groups",
        Column("id", Uuid(), primary_key=True),
        Column("cart_id", Uuid(), ForeignKey(carts.c.id), nullable=False),
        Column("vendor_store_id", Uuid(), nullable=False),
        Column("status", Word("vendor_group_status"), nullable=False),
        Column("subtotal_cents", BigInteger(), nullable=False),
        Column("discounts_cents", BigInteger()),
        Column("total_cents", BigInteger(), nullable=False),
        Column("promo", JSONB()),
        Column("warnings", JSONB(), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("line_discounts_cents", BigInteger()),
        Column("promo_discount_cents", BigInteger()),
        Column("shipping_line", JSONB()),
        Column("payment_terms", JSONB()),
        Column("shipping_cents", BigInteger()),
        Column("shipping_tax_cents", BigInteger()),
        Column("minimum_cents", BigInteger()),
    )
    items = table(
        "cart_items",
        Column("id", Uuid(), primary_key=True),
        Column("cart_id", Uuid(), ForeignKey(carts.c.id), nullable=False),
        Column("product_id", Uuid(), nullable=False),
        Column("vendor_store_id", Uuid(), nullable=False),
        Column("title", Text(), nullable=False),
        Column("category", Text(), nullable=False),
        Column("unit", Word(), nullable=False),
        Column("quantity", Integer(), nullable=False),
        Column("moq", Integer(), nullable=False),
        Column("max_qty", Integer()),
        Column("unit_price_cents", BigInteger(), nullable=False),
        Column("line_subtotal_cents", BigInteger(), nullable=False),
        Column("applied_volume_discount", JSONB()),
        Column("warnings", JSONB(), nullable=False),
        Column("status", Word("cart_item_status"), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("updated_at", DateTime(timezone=True), nullable=False),
        Column("line_discounts_cents", BigInteger()),
        Column("line_total_cents", BigInteger()),
        Column("tax_lines", JSONB()),
        Column("tax_cents", BigInteger()),
    )
    levels = table(
        "inventory_levels",
        Column("product_id", Uuid(), primary_key=True),
        Column("available_qty", BigInteger()),
        Column("reserved_qty", BigInteger()),
        Column("slots", Integer()),
        Column("updated_at", DateTime(timezone=True)),
    )
    outbox = table(
        "outbox_events",
        Column("id", Uuid(), primary_key=True),
        Column("event_type", Word(), nullable=False),
        Column("aggregate_type", Word(), nullable=False),
        Column("aggregate_id", Uuid(), nullable=False),
        Column("payload", JSONB(), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
        Column("published_at", DateTime(timezone=True)),
        Column("attempt_count", Integer(), nullable=False),
        Column("last_error", Text()),
        Column("next_attempt_at", DateTime(timezone=True)),
        Column("claim_id", Uuid()),
        Column("claimed_until", DateTime(timezone=True)),
        Column("claim_count", Integer()),
    )
    changes = table(
        "order_changes",
        Column("id", Uuid(), primary_key=True),
        Column("order_id", Uuid(), nullable=False),
        Column("kind", Text(), nullable=False),
        Column("lines", JSONB(), nullable=False),
        Column("amount_cents", BigInteger()),
        Column("reason", Text()),
        Column("details", JSONB()),
        Column("change_key", Text()),
        Column("request_hash", LargeBinary()),
        Column("made_by", Text(), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
    )
    payments = table(
        "payment_events",
        Column("order_id", Uuid(), primary_key=True),
        Column("provider", Text(), primary_key=True),
        Column("provider_event_id", Text(), primary_key=True),
        Column("kind", Text(), nullable=False),
        Column("amount_cents", BigInteger(), nullable=False),
        Column("currency", Text(), nullable=False),
        Column("occurred_at", DateTime(timezone=True)),
        Column("details", JSONB()),
        Column("recorded_by", Text(), nullable=False),
        Column("created_at", DateTime(timezone=True), nullable=False),
    )
    money = table(
        "order_money",
        Column("order_id", Uuid(), primary_key=True),
        Column("checkout_group_id", Uuid()),
        Column("buyer_store_id", Uuid()),
        Column("vendor_store_id", Uuid()),
        Column("status", Word("vendor_order_status")),
        Column("currency", Text()),
        Column("total_cents", BigInteger()),
        Column("authorized_cents", Numeric()),
        Column("captured_cents", Numeric()),
        Column("refunded_cents", Numeric()),
        Column("balance_due_cents", BigInteger()),
        Column("refund_due_cents", BigInteger()),
        Column("expires_at", DateTime(timezone=True)),
        Column("payment_status", Word("payment_status")),
        Column("due_at", DateTime(timezone=True)),
        Column("events", BigInteger()),
    )
    history = table(
        "order_history",
        Column("order_id", Uuid()),
        Column("created_at", DateTime(timezone=True)),
        Column("about", Text()),
        Column("kind", Text()),
        Column("amount_cents", BigInteger()),
        Column("lines", JSONB()),
        Column("reason", Text()),
        Column("key", Text()),
        Column("made_by", Text()),
    )
    return Tables(
        orders=orders,
        lines=lines,
        intents=intents,
        carts=carts,
        groups=groups,
        items=items,
        levels=levels,
        outbox=outbox,
        changes=changes,
        payments=payments,
        money=money,
        history=history,
    )


def is_ours(table: Table) -> bool:
    """Whether `tables` made it."""
    return _MARK in table.info


def _refuse(done: str, instead: str) -> Callable[..., NoReturn]:
    def refuse(table: Table, connection: object, **kw: Any) -> NoReturn:
        raise MigrationError(f"{table} is not {done} from a MetaData", hint=f"{instead} does that.")

    return refuse
