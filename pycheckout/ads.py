"""Ad tokens: what the ad service gives out, and a checkout attributes orders and lines to. docs/ads.md says it all."""

from __future__ import annotations

import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Literal
from uuid import UUID, uuid4

__all__ = ["mint"]


def mint(
    *,
    secret: bytes,
    kid: str | None,
    ad_id: UUID | str,
    creative_id: UUID | str,
    placement: Literal["hero", "store", "product"],
    target_type: Literal["store", "product"],
    target_id: UUID | str,
    buyer_store_id: UUID | str,
    event_type: Literal["click", "impression"],
    occurred_at: datetime,
    expires_at: datetime,
    token_id: UUID | str | None = None,
    more: Mapping[str, Any] | None = None,
) -> str:
    """A signed ad token: a compact JWS (RFC 7515), HS256.

    `secret` is the key that `ad_signing_key_put` knows as `kid`, 32 bytes or more; None names no key, which is for keys
    that were put with accepts_unnamed. `token_id` stands for the event, by default a new one: two tokens of one id
    count once. `expires_at` is in whole seconds, rounded down. `more` are claims of your own, such as
    {"bid_cents": 42}; buyers see none of them in a result, but whoever holds a token can read its claims.

    Whether the token counts is decided at the checkout, by the database; `ad_token_check` tells before. Raises
    ValueError for a time without a zone.
    """
    claims = {
        **(more or {}),
        "token_id": str(token_id or uuid4()),
        "ad_id": str(ad_id),
        "creative_id": str(creative_id),
        "placement": placement,
        "target_type": target_type,
        "target_id": str(target_id),
        "buyer_store_id": str(buyer_store_id),
        "event_type": event_type,
        "occurred_at": _utc(occurred_at).isoformat(),
        "exp": int(_utc(expires_at).timestamp()),
    }
    header = {"alg": "HS256", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    body = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
    return f"{body}.{_encoded(hmac.digest(secret, body.encode(), sha256))}"


def _utc(at: datetime) -> datetime:
    if at.tzinfo is None:
        raise ValueError(f"{at!r} has no time zone")
    return at.astimezone(UTC)


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
