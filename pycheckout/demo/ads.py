"""Ad tokens as an ad service mints them. Some of them are no good, as in life."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import UUID

from ..ads import mint
from .baskets import Basket, id_of

KID = "demo"
SECRET = secrets.token_bytes(32)


def tokens(basket: Basket, position: int) -> list[str]:
    """The ads that a buyer met on the way to every third basket, by its position in the sample."""
    lines = [line for line in basket["lines"] if line["vendor"] is not None and line["quantity"]]
    if position % 3 or not lines:
        return []
    vendor, first = id_of("vendor", lines[0]["vendor"]), id_of("product", lines[0]["product"])
    found = [
        _token(basket, "store", vendor, "impression", timedelta(hours=2)),
        _token(basket, "product", id_of("product", lines[-1]["product"]), "click", timedelta(minutes=5)),
    ]
    if position % 2:
        found += [
            _token(basket, "product", first, "click", timedelta(days=9)),
            _token(basket, "store", id_of("vendor", 0), "impression", timedelta(hours=2), secret=b"not the key"),
        ]
    return found


def _token(
    basket: Basket,
    target_type: Literal["store", "product"],
    target_id: UUID,
    event_type: Literal["click", "impression"],
    ago: timedelta,
    secret: bytes = SECRET,
) -> str:
    at = datetime.now(UTC) - ago
    token_id, ad_id, creative_id = (
        id_of(name, basket["basket"], target_type, at.date()) for name in ("token", "ad", "creative")
    )
    return mint(
        secret=secret,
        kid=KID,
        token_id=token_id,
        ad_id=ad_id,
        creative_id=creative_id,
        placement=target_type,
        target_type=target_type,
        target_id=target_id,
        buyer_store_id=id_of("buyer", basket["buyer"]),
        event_type=event_type,
        occurred_at=at,
        expires_at=at + timedelta(days=7),
        more={"bid_cents": 42},
    )
