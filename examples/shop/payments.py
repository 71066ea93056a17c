"""Payments: what the provider tells by its webhook is verified, and recorded for each order that the charge pays.

One charge pays all orders of a checkout; the table `charges` says which they are, and what of it is each one's. Whoever
makes it at the provider does so after the COMMIT, under the checkout's id, which is the charge's id here.

An event may come twice, late, and in any order: `payment_record` takes care of that. So a signature needs no time of
its own; an old event that somebody sends again is known already.
"""

import hmac
import json
import os
from collections.abc import Iterator, Mapping
from typing import get_args
from uuid import UUID

from fastapi import HTTPException, Request
from psycopg import AsyncConnection
from pydantic import AwareDatetime, BaseModel, Field, ValidationError

from pycheckout import AsyncCheckout, CheckoutResult, OrderNotFound, PaymentKind

PROVIDER = "example-pay"
SIGNATURE = "X-Payment-Signature"
KINDS: Mapping[str, PaymentKind] = {f"charge.{kind}": kind for kind in get_args(PaymentKind)}
MOST_BYTES = 65536


class Event(BaseModel):
    """What the provider sends of a charge."""

    id: str
    type: str
    created_at: AwareDatetime
    charge_id: UUID
    order_id: UUID | None = None
    """Of a refund that the shop asked for: the order. None: all orders of the charge."""
    amount_cents: int = Field(ge=0)
    currency: str


async def note_charge(conn: AsyncConnection, result: CheckoutResult) -> None:
    """What is to be charged, in the transaction of the checkout, and what of it is for which order."""
    await conn.cursor().executemany(
        "insert into charges (order_id, checkout_group_id, amount_cents) values (%s, %s, %s)",
        [
            (order.order_id, result.checkout_group_id, order.total_cents)
            for order in result.vendor_orders
            if order.total_cents
        ],
    )


def sign(body: bytes | bytearray) -> str:
    """By the secret that the shop and the provider share, SHOP_PAYMENT_SECRET in hex."""
    return hmac.new(bytes.fromhex(os.environ["SHOP_PAYMENT_SECRET"]), body, "sha256").hexdigest()


async def signed_body(request: Request, signature: str) -> bytes:
    """The body, byte for byte as it was signed: JSON that was read and written again would be other bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "too large")
    if not hmac.compare_digest(sign(body).encode(), signature.encode()):
        raise HTTPException(401, "the signature is wrong")
    return bytes(body)


def read(body: bytes) -> Event | None:
    """None is an event of a type that is nothing to the shop."""
    try:
        told = json.loads(body)
        return Event.model_validate(told) if told["type"] in KINDS else None
    except (ValueError, TypeError, KeyError, ValidationError):
        raise HTTPException(400, "no such event is known") from None


async def record(conn: AsyncConnection, event: Event) -> bool:
    """Record it for each of its orders, in the caller's transaction; whether anything of it was new."""
    query = "select order_id, amount_cents from charges where checkout_group_id = %s order by order_id"
    charged = await (await conn.execute(query, (event.charge_id,))).fetchall()
    if event.order_id is None:
        parts = list(shares(event.amount_cents, charged))
    else:
        parts = [(order, event.amount_cents) for order, _ in charged if order == event.order_id]
    if not parts:
        raise OrderNotFound("nothing was charged for such an order")
    kind, new = KINDS[event.type], False
    for order_id, amount_cents in parts:  # by id: two events of one charge lock its orders in one order
        if amount_cents or kind == "failed":
            change = await AsyncCheckout(conn).payments.record(
                order_id,
                provider=PROVIDER,
                provider_event_id=event.id,
                kind=kind,
                amount_cents=amount_cents,
                currency=event.currency,
                occurred_at=event.created_at,
                details={"charge_id": str(event.charge_id)},
            )
            new = new or not change.replayed
    return new


def shares(amount_cents: int, charged: list[tuple[UUID, int]]) -> Iterator[tuple[UUID, int]]:
    """What of an amount is each order's, by what was charged for it: to the cent, and each time the same."""
    total, before = sum(cents for _, cents in charged), 0
    for order_id, cents in charged:
        yield order_id, amount_cents * (before + cents) // total - amount_cents * before // total
        before += cents
