"""Prices: the products that a buyer wants become a quote, by what the shop's own table says of them now."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg import AsyncConnection
from psycopg.rows import class_row

from pycheckout import InvalidRequest, Line, Quote, VendorGroup

VALID_FOR = timedelta(minutes=30)


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


async def quote(
    conn: AsyncConnection,
    *,
    cart_id: UUID,
    buyer_store_id: UUID,
    quantities: Mapping[UUID, int],
    ad_tokens: Sequence[str] = (),
) -> Quote:
    """Lines by vendor. The sums are the classes' own. Raises InvalidRequest for a product that is not sold here."""
    found = await products(conn, list(quantities))
    if unknown := quantities.keys() - {product.id for product in found}:
        raise InvalidRequest(detail={"field": "lines", "problem": f"{min(unknown)} is not sold here"})
    lines: dict[UUID, list[Line]] = {}
    for product in found:
        line = Line(
            product_id=product.id,
            title=product.title,
            quantity=quantities[product.id],
            unit_price_cents=product.unit_price_cents,
        )
        lines.setdefault(product.vendor_store_id, []).append(line)
    return Quote(
        id=cart_id,
        buyer_store_id=buyer_store_id,
        currency="USD",
        valid_until=datetime.now(UTC) + VALID_FOR,
        ad_tokens=ad_tokens,
        vendor_groups=[VendorGroup(vendor_store_id=vendor, items=items) for vendor, items in lines.items()],
    )
