"""Carts for tests with servers of their own: quoted through the calls, with ids that nothing else has."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from factories import request_of
from pycheckout import Checkout, Line, Quote, VendorGroup


@dataclass(frozen=True, slots=True)
class Quoted:
    """A cart in a market, and the key that it is to be checked out with."""

    id: UUID
    buyer_store_id: UUID
    key: str

    def request(self) -> dict[str, Any]:
        return request_of(self, self.key)


def quoted(
    on: Checkout, products: list[UUID] | None = None, *, vendors: int = 2, timeout: float | None = None
) -> Quoted:
    """A cart of a unit of each product, dealt out to vendors; by default of new products, 100 units of each."""
    if products is None:
        products = [uuid4() for _ in range(vendors)]
        on.stock.set_many(dict.fromkeys(products, 100))
    cart = Quoted(uuid4(), uuid4(), f"key-{uuid4()}")
    groups = [
        VendorGroup(
            vendor_store_id=uuid4(),
            items=[Line(product_id=product, quantity=1, unit_price_cents=250) for product in products[start::vendors]],
        )
        for start in range(vendors)
    ]
    on.quotes.put(
        Quote(
            id=cart.id,
            buyer_store_id=cart.buyer_store_id,
            currency="USD",
            valid_until=datetime.now(UTC) + timedelta(hours=1),
            vendor_groups=groups,
        ),
        timeout=timeout,
    )
    return cart
