"""The shop's own tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "products",
        sa.Column("id", sa.Uuid, primary_key=True),
        sa.Column("vendor_store_id", sa.Uuid, nullable=False, index=True),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("unit_price_cents", sa.Integer, nullable=False),
        sa.Column(
            "units_sold", sa.Integer, nullable=False, server_default="0", comment="By the events that the consumer saw"
        ),
        sa.CheckConstraint("unit_price_cents >= 0", name="products_price"),
    )
    op.create_table(
        "confirmations",
        sa.Column("checkout_group_id", sa.Uuid, primary_key=True),
        sa.Column("buyer_store_id", sa.Uuid, nullable=False),
        sa.Column("total_cents", sa.BigInteger, nullable=False),
        sa.Column("sent_at", sa.DateTime(timezone=True), comment="Null: the mail is still to be sent"),
    )
    op.create_table(
        "charges",
        sa.Column("order_id", sa.Uuid, primary_key=True),
        sa.Column(
            "checkout_group_id",
            sa.Uuid,
            nullable=False,
            index=True,
            comment="The charge: one for all orders of a checkout",
        ),
        sa.Column("amount_cents", sa.BigInteger, nullable=False, comment="What of the charge is this order's"),
    )
    op.create_table(
        "seen_events",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )


def downgrade() -> None:
    for name in ("seen_events", "charges", "confirmations", "products"):
        op.drop_table(name)
