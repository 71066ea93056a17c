"""Ad tokens as an ad service mints them: compact JWS, HS256 (RFC 7515). Some of them are no good, as in life."""

from __future__ import annotations

import hmac
import json
import secrets
from base64 import urlsafe_b64encode
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from .baskets import Basket, id_of

KID = "demo"
SECRET = secrets.token_bytes(32)


def tokens(basket: Basket, position: int) -> list[str]:
    """The ads that a buyer met on the way to every third basket, by its position in the sample."""
    lines = [line for line in basket["lines"] if line["vendor"] is not None and line["quantity"]]
    if position % 3 or not lines:
        return []
    now = datetime.now(UTC)
    store = _claims(basket, "store", id_of("vendor", lines[0]["vendor"]), "impression", now - timedelta(hours=2))
    click = _claims(basket, "product", id_of("product", lines[-1]["product"]), "click", now - timedelta(minutes=5))
    old = _claims(basket, "product", id_of("product", lines[0]["product"]), "click", now - timedelta(days=9))
    found = [_signed(store, SECRET), _signed(click, SECRET)]
    if position % 2:
        found += [_signed(old, SECRET), _signed(store | {"target_id": str(id_of("vendor", 0))}, b"not the key")]
    return found


def _claims(basket: Basket, target_type: str, target_id: object, event_type: str, at: datetime) -> dict[str, Any]:
    names = ("token", "ad", "creative")
    ids = {f"{name}_id": str(id_of(name, basket["basket"], target_type, at.date())) for name in names}
    return ids | {
        "buyer_store_id": str(id_of("buyer", basket["buyer"])),
        "target_type": target_type,
        "target_id": str(target_id),
        "placement": target_type,
        "event_type": event_type,
        "occurred_at": at.isoformat(),
        "exp": int((at + timedelta(days=7)).timestamp()),
        "bid_cents": 42,
    }


def _signed(claims: dict[str, Any], secret: bytes) -> str:
    header = {"alg": "HS256", "typ": "JWT", "kid": KID}
    body = f"{_encoded(json.dumps(header).encode())}.{_encoded(json.dumps(claims).encode())}"
    return f"{body}.{_encoded(hmac.digest(secret, body.encode(), sha256))}"


def _encoded(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
