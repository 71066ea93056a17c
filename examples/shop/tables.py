"""The shop's own tables, for Alembic to compare with the database. The service reads and writes them in plain SQL."""

from sqlalchemy import BigInteger, CheckConstraint, Column, DateTime, Integer, MetaData, Table, Text, Uuid, func

metadata = MetaData()

Table(
    "products",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("vendor_store_id", Uuid, nullable=False, index=True),
    Column("title", Text, nullable=False),
    Column(
        "unit_price_cents", Integer, CheckConstraint("unit_price_cents >= 0", name="products_price"), nullable=False
    ),
    Column("units_sold", Integer, nullable=False, server_default="0", comment="By the events that the consumer saw"),
)

Table(
    "confirmations",
    metadata,
    Column("checkout_group_id", Uuid, primary_key=True),
    Column("buyer_store_id", Uuid, nullable=False),
    Column("total_cents", BigInteger, nullable=False),
    Column("sent_at", DateTime(timezone=True), comment="Null: the mail is still to be sent"),
)

Table(
    "charges",
    metadata,
    Column("order_id", Uuid, primary_key=True),
    Column(
        "checkout_group_id", Uuid, nullable=False, index=True, comment="The charge: one for all orders of a checkout"
    ),
    Column("amount_cents", BigInteger, nullable=False, comment="What of the charge is this order's"),
)

Table(
    "seen_events",
    metadata,
    Column("id", Text, primary_key=True),
    Column("seen_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)
