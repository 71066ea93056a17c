"""Ad tokens as tests need them: signed with one key, good until one claim or another is changed."""

from typing import Any
from uuid import UUID

import jwt

from factories import Cart

KEY = bytes(range(32))


def ad_token(cart: Cart, number: int, target_type: str, target: UUID, **claims: Any) -> str:
    """Token `number`: a click on an ad for `target`, seen by the cart's buyer, signed by `KEY` under the kid "k1"."""
    return jwt.encode(
        {
            "token_id": f"70000000-0000-4000-8000-{number:012}",
            "ad_id": "a0000000-0000-4000-8000-000000000001",
            "creative_id": "c0000000-0000-4000-8000-000000000001",
            "placement": "hero",
            "target_type": target_type,
            "target_id": str(target),
            "buyer_store_id": str(cart.buyer_store_id),
            "event_type": "click",
            "occurred_at": "2026-01-01T00:00:00Z",
            "expires_at": "2126-01-01T00:00:00Z",
            "bid_cents": 125,
        }
        | claims,
        KEY,
        algorithm="HS256",
        headers={"kid": "k1"},
    )
