"""The calls that a service makes: one statement each, and one log record each."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from ._connection import AsyncConn, Attempts, Conn, call, call_async
from ._errors import CartInconsistent, CheckoutError, InvalidRequest
from ._logging import caller
from ._types import ActiveCart, CheckoutResult, build

logger = logging.getLogger("pycheckout")
logger.addHandler(logging.NullHandler())  # silent where the host configures no logging

T = TypeVar("T", CheckoutResult, ActiveCart, CheckoutResult | ActiveCart)

# Each argument is cast, so that what psycopg makes of a Python value never decides
# which function is meant.
_EXECUTE = """\
select checkout_execute(
  buyer_store_id => %s::uuid,
  cart_id => %s::uuid,
  idempotency_key => %s::text,
  shipping_address => %s::jsonb,
  payment_method => %s::text,
  shipping_line => %s::jsonb,
  ad_token_policy => %s::text,
  reservation_policy => %s::text
)::text"""
_RESULT = "select checkout_result(buyer_store_id => %s::uuid, cart_id => %s::uuid)::text"
_PUT_CART = "select cart_put(cart => %s::jsonb)::text"


def execute(
    conn: Conn,
    *,
    buyer_store_id: UUID | str,
    cart_id: UUID | str,
    idempotency_key: str,
    shipping_address: Mapping[str, Any],
    payment_method: str,
    shipping_line: Mapping[str, Any] | None = None,
    ad_token_policy: str = "drop",
    reservation_policy: str = "partial",
    request_id: str | None = None,
) -> CheckoutResult:
    """Turn a quoted cart into vendor orders, or replay what that cart became.

    `idempotency_key`: 1 to 255 visible characters, new for each intent of the buyer
    and the same for each retry of it. `shipping_address` and `shipping_line`
    ({code, title, price_cents}): JSON objects; `price_cents` is an int in minor
    units. `payment_method`: a value of the database's enum (`cash`, `ach`, ...).
    `ad_token_policy`: `drop` leaves bad ad tokens out, `error` refuses the cart.
    `reservation_policy`: what a line that is short of stock rejects, itself
    (`partial`), its vendor (`vendor`) or everything (`all`). `request_id` goes into
    the log record alone.

    Transaction: with a pool, or an autocommit connection outside a transaction, the
    checkout is committed when this returns; a busy error, and with a pool a lost
    connection, is tried again under the same key: five attempts at most, none begun
    more than about ten seconds after the first. Any other connection belongs to its
    caller, even while it is idle: the checkout becomes part of the caller's
    transaction (in pipeline mode, of what its next sync ends), and after an error the
    caller rolls back.

    Raises CartNotFound, CartNotActive, CartExpired, NoOrderableItems, InvalidRequest,
    IdempotencyKeyReused, CartInconsistent, AdTokenInvalid, InsufficientInventory,
    Busy, Unavailable and NotInstalled, all of them `CheckoutError`s. What else psycopg
    raises comes as it is; what is neither a connection nor a pool is a TypeError.
    """
    with _logged("execute", cart_id, request_id) as record:
        params = _arguments(
            buyer_store_id,
            cart_id,
            idempotency_key,
            shipping_address,
            payment_method,
            shipping_line,
            ad_token_policy,
            reservation_policy,
        )
        return record.of(build(CheckoutResult, call(conn, _EXECUTE, params, record.attempts)))


async def execute_async(
    conn: AsyncConn,
    *,
    buyer_store_id: UUID | str,
    cart_id: UUID | str,
    idempotency_key: str,
    shipping_address: Mapping[str, Any],
    payment_method: str,
    shipping_line: Mapping[str, Any] | None = None,
    ad_token_policy: str = "drop",
    reservation_policy: str = "partial",
    request_id: str | None = None,
) -> CheckoutResult:
    """Like `execute`, for an async connection or pool."""
    with _logged("execute", cart_id, request_id) as record:
        params = _arguments(
            buyer_store_id,
            cart_id,
            idempotency_key,
            shipping_address,
            payment_method,
            shipping_line,
            ad_token_policy,
            reservation_policy,
        )
        answer = await call_async(conn, _EXECUTE, params, record.attempts)
        return record.of(build(CheckoutResult, answer))


def result(
    conn: Conn,
    buyer_store_id: UUID | str,
    cart_id: UUID | str,
    *,
    request_id: str | None = None,
) -> CheckoutResult | ActiveCart:
    """What became of a cart: its checkout, or an `ActiveCart` while there is none.

    Reads only, in the same transaction as `execute` would use, and is tried again as
    that is. Raises CartNotFound, InvalidRequest, Busy, Unavailable and NotInstalled.
    """
    with _logged("result", cart_id, request_id) as record:
        params = (_id("buyer_store_id", buyer_store_id), _id("cart_id", cart_id))
        return record.of(_cart(call(conn, _RESULT, params, record.attempts)))


async def result_async(
    conn: AsyncConn,
    buyer_store_id: UUID | str,
    cart_id: UUID | str,
    *,
    request_id: str | None = None,
) -> CheckoutResult | ActiveCart:
    """Like `result`, for an async connection or pool."""
    with _logged("result", cart_id, request_id) as record:
        params = (_id("buyer_store_id", buyer_store_id), _id("cart_id", cart_id))
        return record.of(_cart(await call_async(conn, _RESULT, params, record.attempts)))


def put_cart(conn: Conn, cart: Mapping[str, Any], *, request_id: str | None = None) -> ActiveCart:
    """Write a quote: replace an active cart, its vendor groups and its items.

    `cart` is a JSON object as docs/quotes.md describes it, amounts in minor units.
    Same transaction as `execute`, and tried again as that is. Raises CartInconsistent
    with both figures when the amounts do not add up, CartNotFound for another buyer's
    cart, CartNotActive for an abandoned and SnapshotImmutable for a converted one,
    InvalidRequest, Busy, Unavailable and NotInstalled.
    """
    with _logged("put_cart", _id_in(cart), request_id) as record:
        params = (_json("cart", cart),)
        return record.of(build(ActiveCart, call(conn, _PUT_CART, params, record.attempts)))


async def put_cart_async(conn: AsyncConn, cart: Mapping[str, Any], *, request_id: str | None = None) -> ActiveCart:
    """Like `put_cart`, for an async connection or pool."""
    with _logged("put_cart", _id_in(cart), request_id) as record:
        params = (_json("cart", cart),)
        answer = await call_async(conn, _PUT_CART, params, record.attempts)
        return record.of(build(ActiveCart, answer))


def _cart(answer: Mapping[str, Any]) -> CheckoutResult | ActiveCart:
    if answer["status"] == "converted":
        return build(CheckoutResult, answer)
    return build(ActiveCart, answer)


def _arguments(
    buyer_store_id: object,
    cart_id: object,
    idempotency_key: object,
    shipping_address: object,
    payment_method: object,
    shipping_line: object,
    ad_token_policy: object,
    reservation_policy: object,
) -> tuple[str | None, ...]:
    return (
        _id("buyer_store_id", buyer_store_id),
        _id("cart_id", cart_id),
        _text("idempotency_key", idempotency_key),
        _json("shipping_address", shipping_address),
        _text("payment_method", payment_method),
        _json("shipping_line", shipping_line),
        _text("ad_token_policy", ad_token_policy),
        _text("reservation_policy", reservation_policy),
    )


# Values become text here, and only what cannot be sent at all is refused: whether a
# value is right, the database decides.


# What PostgreSQL takes for a uuid: any other text would never reach the function that says what is wrong.
_UUID = re.compile(r"[0-9a-f]{4}(-?[0-9a-f]{4}){7}|\{[0-9a-f]{4}(-?[0-9a-f]{4}){7}\}", re.IGNORECASE)


def _id(name: str, value: object) -> str | None:
    if value is None:
        return None
    # Any class of UUID, not only the standard library's.
    try:
        text = value if isinstance(value, str) else str(value)
    except (ValueError, RecursionError) as exc:  # an int of 5,000 digits, a list of 1,000 levels
        raise _invalid(name, "must be a UUID") from exc
    if not _UUID.fullmatch(text):
        raise _invalid(name, "must be a UUID")
    return text


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _invalid(name, f"must be text, not {type(value).__name__}")
    try:
        sendable = b"\0" not in value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        sendable = False
    if not sendable:
        raise _invalid(name, "holds a character that PostgreSQL cannot store")
    return value


def _json(name: str, value: object) -> str | None:
    if value is None:
        return None
    try:
        return _encoder.encode(dict(value) if isinstance(value, Mapping) else value)
    except (TypeError, ValueError, ArithmeticError, RecursionError) as exc:
        raise _invalid(name, f"cannot be written as JSON ({exc})") from exc


def _json_value(value: object) -> object:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime) and value.utcoffset() is not None:
        return value.isoformat()
    if isinstance(value, Decimal):
        # Not int() of whatever is whole: 1e1000000 would take half a minute.
        whole = abs(value) < 2**63 and value == value.to_integral_value()
        return int(value) if whole else float(value)
    raise TypeError(f"{value!r:.80} has no JSON form")


_encoder = json.JSONEncoder(allow_nan=False, default=_json_value)


def _invalid(field: str, problem: str) -> InvalidRequest:
    # As checkout_raise_invalid says it.
    return InvalidRequest(
        f"{field} {problem}",
        detail={"field": field, "problem": problem},
        hint="Correct the request and send it again.",
    )


class _Record:
    """What the log record of a call says. Never an address, a key or a token."""

    def __init__(self) -> None:
        self.attempts = Attempts()
        self.outcome = ""
        self.replayed = False
        self.sqlstate: str | None = None

    def of(self, answer: T) -> T:
        self.outcome = answer.outcome if isinstance(answer, CheckoutResult) else answer.status
        self.replayed = isinstance(answer, CheckoutResult) and answer.replayed
        return answer


@contextmanager
def _logged(operation: str, cart_id: object, request_id: str | None) -> Iterator[_Record]:
    record = _Record()
    level = logging.INFO
    try:
        yield record
    except BaseException as exc:
        level = logging.WARNING
        if isinstance(exc, CartInconsistent):  # what the commit refused does not know whose call it was
            exc.detail.setdefault("cart_id", _loggable(cart_id))
        record.outcome = exc.code if isinstance(exc, CheckoutError) else type(exc).__name__
        record.sqlstate = getattr(exc, "sqlstate", None)
        raise
    finally:
        if logger.isEnabledFor(level):
            fields = {
                "operation": operation,
                "cart_id": _loggable(cart_id),
                "outcome": record.outcome,
                "replayed": record.replayed,
                "sqlstate": record.sqlstate,
                "attempts": record.attempts.count,
                "duration_ms": round(record.attempts.seconds * 1000, 3),
                "request_id": request_id,
            }
            _log(level, operation, fields)


def _log(level: int, operation: str, fields: Mapping[str, Any]) -> None:
    """One record with these fields.

    Not by `extra`, which raises where the host's record factory set one of the names: a `request_id` often.
    By now the checkout may be committed. What the factory set stays where the call has no value of its own.
    """
    text = " ".join(f"{name}={value!r}" for name, value in fields.items())
    file, line, function = caller()
    record = logger.makeRecord(logger.name, level, file, line, "%s %s", (operation, text), None, function)
    for name, value in fields.items():
        if value is not None or not hasattr(record, name):
            setattr(record, name, value)
    logger.handle(record)


def _id_in(cart: object) -> object:
    return cart.get("id") if isinstance(cart, Mapping) else None


def _loggable(cart_id: object) -> str:
    # What is no UUID may be anything, a token in the wrong place too.
    try:
        return str(UUID(str(cart_id)))
    except (ValueError, RecursionError):
        return "invalid"
