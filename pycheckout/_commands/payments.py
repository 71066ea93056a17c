"""`pycheckout payment ...`"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, cast

import typer

from .._checkout import PaymentCalls, PaymentKind
from ._app import CHECKOUT, command_group
from ._options import Order, cents_option, json_argument, moment_option
from ._statements import Statement, calls

payments = command_group("payment", CHECKOUT, "What payment providers told.")


@calls(payments, "record", grant="checkout_grant_payments")
def _payment_record(
    order: Order,
    provider: Annotated[str, typer.Option(metavar="TEXT", help="Who tells it.")],
    event: Annotated[str, typer.Option(metavar="TEXT", help="The id of the event there: the same for each retry.")],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="authorized, captured, voided, refunded, failed, disputed or reversed.")
    ],
    cents: Annotated[int, cents_option("The order's share, in minor units: 949 for 9.49.")],
    currency: Annotated[str, typer.Option(metavar="CODE", help="ISO 4217, that of the order.")],
    occurred_at: Annotated[datetime | None, moment_option("When it happened (UTC): 2026-12-31T18:00:00.")] = None,
    details: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="An object to keep beside it.")] = None,
) -> Statement:
    """Record what a payment provider told of an order. Nothing is charged."""
    return PaymentCalls.record.statement(
        order,
        provider=provider,
        provider_event_id=event,
        kind=cast(PaymentKind, kind),
        amount_cents=cents,
        currency=currency,
        occurred_at=occurred_at,
        details=None if details is None else json_argument("--details", details),
    )
