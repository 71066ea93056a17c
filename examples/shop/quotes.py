"""Prices, tax and shipping: what a buyer wants becomes a quote. The checkout copies its figures and makes none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from pycheckout import InvalidRequest, Line, Quote, TaxLine, VendorGroup, VendorShippingLine

VALID_FOR = timedelta(minutes=30)

SALES_TAX = Decimal("0.08")
"""On goods and on shipping; prices do not include it."""

SHIPPING = {"standard": ("Standard", 490), "express": ("Express", 990)}
"""Title and price of a parcel by its code: each vendor of a cart sends one."""


@dataclass(frozen=True, slots=True)
class Product:
    id: UUID
    vendor_store_id: UUID
    title: str
    unit_price_cents: int
    units_sold: int = 0


async def products(conn: AsyncConnection, ids: Sequence[UUID] | None = None) -> list[Product]:
    """All that is sold here, or of these ids those that are."""
    async with conn.cursor(row_factory=class_row(Product)) as cur:
        await cur.execute(
            """select id, vendor_store_id, title, unit_price_cents, units_sold from products
                where %(ids)s::uuid[] is null or id = any(%(ids)s) order by vendor_store_id, title""",
            {"ids": None if ids is None else list(ids)},
        )
        return await cur.fetchall()


def tax(cents: int) -> int:
    """The tax on an amount, half a cent up."""
    return int((cents * SALES_TAX).to_integral_value(ROUND_HALF_UP))


async def quote(
    conn: AsyncConnection,
    *,
    cart_id: UUID,
    buyer_store_id: UUID,
    quantities: Mapping[UUID, int],
    shipping: str = "standard",
    ad_tokens: Sequence[str] = (),
) -> Quote:
    """Lines by vendor, each with its tax, and a parcel a vendor. The sums are the classes' own.

    Raises InvalidRequest for a product that is not sold here, and for a shipping that is not offered.
    """
    if shipping not in SHIPPING:
        raise InvalidRequest(detail={"field": "shipping", "problem": "is not offered"})
    title, shipping_cents = SHIPPING[shipping]
    found = await products(conn, list(quantities))
    if unknown := quantities.keys() - {product.id for product in found}:
        raise InvalidRequest(detail={"field": "lines", "problem": f"{min(unknown)} is not sold here"})
    lines: dict[UUID, list[Line]] = {}
    for product in found:
        tax_cents = tax(quantities[product.id] * product.unit_price_cents)
        line = Line(
            product_id=product.id,
            title=product.title,
            quantity=quantities[product.id],
            unit_price_cents=product.unit_price_cents,
            tax_cents=tax_cents,
            tax_lines=[TaxLine(code="sales", title="Sales tax", rate=str(SALES_TAX), amount_cents=tax_cents)],
        )
        lines.setdefault(product.vendor_store_id, []).append(line)
    return Quote(
        id=cart_id,
        buyer_store_id=buyer_store_id,
        currency="USD",
        valid_until=datetime.now(UTC) + VALID_FOR,
        ad_tokens=ad_tokens,
        vendor_groups=[
            VendorGroup(
                vendor_store_id=vendor,
                items=items,
                shipping_cents=shipping_cents,
                shipping_tax_cents=tax(shipping_cents),
                shipping_line=VendorShippingLine(code=shipping, title=title),
            )
            for vendor, items in lines.items()
        ],
    )
