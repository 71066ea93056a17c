"""The checkout, what becomes of its orders, and health as HTTP routes for a FastAPI service. Needs the extra `http`.

`POST /checkout` converts a cart or replays what it became, `GET /checkout/{cart_id}` says what became of it;
`order_router` has those of orders. docs/services.md tells how to mount them, and what a client has to do.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of functions
# that are made inside checkout_router, and could not find the names in text.

import json
import logging
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, fields
from datetime import timedelta
from functools import partial
from http.client import responses as phrases
from inspect import isawaitable, iscoroutinefunction
from typing import Annotated, Any, TypeAlias, TypeGuard, get_args
from uuid import UUID

import psycopg

from ._extras import needing

with needing("http"):
    from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
    from fastapi.concurrency import run_in_threadpool
    from fastapi.exceptions import RequestValidationError
    from fastapi.routing import APIRoute
    from pydantic import ConfigDict, Field
    from pydantic_core import to_json, to_jsonable_python
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect
    from starlette.types import Message, Receive, Scope, Send

from . import _arguments as to
from . import _http_docs as docs
from ._calls import qualified
from ._checkout import (
    AdTokenPolicy,
    AsyncCheckout,
    Checkout,
    CheckoutCalls,
    ReservationPolicy,
)
from ._connection import AsyncPool, Attempts, Pool, is_pool, run, run_async
from ._errors import CheckoutError, InvalidRequest, OrderNotFound
from ._http_docs import Problem
from ._types import ActiveCart, Answer, CheckoutResult, Order, OrderChange, OrderPage, ShippingLine

__all__ = [
    "CancelRequest",
    "CheckoutRequest",
    "DecideRequest",
    "Decision",
    "FulfilRequest",
    "Hook",
    "Party",
    "Problem",
    "ReleaseRequest",
    "ReturnRequest",
    "ShippingCallback",
    "ShippingChoice",
    "checkout_router",
    "health_router",
    "install_error_handlers",
    "order_router",
]

logger = logging.getLogger("pycheckout")

# What a shipping line or an address may hold, the database judges; the schemas only say so.


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingChoice:
    """The shipping that the buyer chose. What it costs is not the buyer's to say."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    code: Annotated[str, Field(json_schema_extra=docs.text(200, blank=True, least=1))]
    title: Annotated[str | None, Field(json_schema_extra=docs.optional_text(500))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutRequest:
    """The body of `POST /checkout`. Who the buyer is, and which ads count, it does not say."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    cart_id: UUID
    shipping_address: Annotated[dict[str, Any], Field(json_schema_extra=docs.ADDRESS)]
    payment_method: Annotated[str, Field(examples=["ach", "cash"])]
    """a value of the database's enum"""
    shipping_line: ShippingChoice | None = None
    billing_address: Annotated[dict[str, Any] | None, Field(json_schema_extra=docs.BILLING_ADDRESS)] = None
    """null: the shipping address"""
    purchase_order: Annotated[str | None, Field(json_schema_extra=docs.PURCHASE_ORDER)] = None
    metadata: Annotated[dict[str, Any] | None, Field(json_schema_extra=docs.METADATA)] = None


_Line: TypeAlias = ShippingLine | Mapping[str, Any] | None
Hook: TypeAlias = Callable[[Any, CheckoutResult], Awaitable[None] | None]
ShippingCallback: TypeAlias = Callable[[UUID, CheckoutRequest], _Line | Awaitable[_Line]]


def checkout_router(
    *,
    buyer: Callable[..., Any],
    pool: Pool | AsyncPool | Callable[..., Any] | None = None,
    schema: str | None = None,
    market: Callable[..., Any] | None = None,
    reservation_policy: ReservationPolicy = "partial",
    ad_token_policy: AdTokenPolicy = "drop",
    shipping_line: ShippingCallback | None = None,
    expires_in: timedelta | None = None,
    on_checkout: Hook | None = None,
    problem_base: str = "urn:pycheckout:problem:",
    max_body_bytes: int = 65536,
    timeout: float | None = None,
) -> APIRouter:
    """A router with `POST /checkout` and `GET /checkout/{cart_id}`.

    `buyer`: a FastAPI dependency that answers the buyer's store id (a UUID, or its
    text) from the host's own authentication, and raises HTTPException where there is
    none; None is a 401 as well. `pool`: a psycopg ConnectionPool or
    AsyncConnectionPool, or a dependency that answers one, as a pool that is opened in
    the lifespan needs. A connection or a Session is none, since nobody would commit what is done in it: a TypeError,
    and a 500 where a dependency answers it. `schema`: the one that pycheckout is in, where no search_path leads there.
    `market`, instead of a pool: a dependency that answers the `AsyncCheckout` or `Checkout` of the request's market, as
    `markets.async_[name]` does; UnknownMarket is a 404.
    `reservation_policy`, `ad_token_policy`: as in `pycheckout.execute`, for every request. Each request is a
    transaction of its own, committed before the answer.

    `shipping_line(buyer_store_id, request)`: makes the stored shipping line, with its
    price, of `request.shipping_line`, which names a code and a title; called only
    where there is one, plain (then in a thread) or async. It has to answer the same
    for the same cart, or a retry under one key is another request. Raise InvalidRequest
    for a code that does not exist; a price that the database refuses is a 500, and logged. Without it, code and title
    are stored alone.

    `expires_in`: how long orders wait to be paid for, as in `pycheckout.execute`, for every request. A router that is
    given another one makes another request of a retry that was begun before.

    `on_checkout(conn, result)`: writes rows of the host's that commit with the orders, on the connection whose
    transaction the checkout is: async with an async pool, plain with another (in a thread). Called where `replayed` is
    false, perhaps more than once, of which one call is committed: nothing outside the database belongs there. Its
    exception rolls the checkout back, and goes to the host's handlers; so does a rule of those rows that the COMMIT
    finds broken.

    Every error of these routes is problem+json (RFC 9457), `type` being `problem_base`
    and the error's code; the host's other routes stay as they are, and so does an
    exception that the host has a handler of its own for. A body above `max_body_bytes`
    is a 413. The header X-Request-ID goes into the log record of the call.

    `timeout`: seconds that a call may take altogether, waiting for a connection of the pool and for locks included;
    after them the answer is a 503 with Retry-After. None: as long as the pool and the server allow.

    Raises TypeError and ValueError for arguments that cannot be meant. No client could correct them.
    """
    _given_to_a_router(schema=schema, max_body_bytes=max_body_bytes, timeout=timeout)
    _given_to_a_router(reservation_policy=reservation_policy, ad_token_policy=ad_token_policy, expires_in=expires_in)
    problems = _Problems(problem_base)
    router = APIRouter(route_class=_route_class(problems, max_body_bytes), tags=["checkout"])

    async def buyer_store(store: Annotated[Any, Depends(buyer)]) -> UUID:
        if store is None:
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        return store if isinstance(store, UUID) else UUID(str(store))

    Buyer: TypeAlias = Annotated[UUID, Depends(buyer_store)]
    Calls: TypeAlias = Annotated[Any, Depends(_calls(pool, schema, market))]

    @router.post(
        "/checkout",
        status_code=201,
        response_model=CheckoutResult,
        responses=docs.responses(problems.document, 200, 201, 400, 401, 403, 404, 409, 413, 415, 422, 500, 503),
        openapi_extra=docs.REQUEST,
        operation_id="checkout_execute",
        summary="Turn a quoted cart into orders",
    )
    async def checkout(
        request: Request,
        store: Buyer,
        key: Annotated[str, Depends(_idempotency_key)],
        calls: Calls,
        body: CheckoutRequest,
    ) -> Response:
        """Orders the cart, once: the same call again, with the same key or another, answers with the same orders."""
        arguments: dict[str, Any] = {
            "buyer_store_id": store,
            "cart_id": body.cart_id,
            "idempotency_key": key,
            "shipping_address": body.shipping_address,
            "payment_method": body.payment_method,
            "shipping_line": await _shipping_line(shipping_line, store, body),
            "ad_token_policy": ad_token_policy,
            "reservation_policy": reservation_policy,
            "billing_address": body.billing_address,
            "purchase_order": body.purchase_order,
            "metadata": body.metadata,
            "expires_in": expires_in,
            "request_id": _request_id(request),
            "timeout": timeout,
        }
        try:
            if on_checkout is None:
                answer = await _made(calls.execute, **arguments)
            elif isinstance(calls, AsyncCheckout):
                hook = _async_hook(on_checkout)
                answer = await CheckoutCalls.execute.before_commit_async(hook, calls, **arguments)
            else:
                call = CheckoutCalls.execute.before_commit
                answer = await run_in_threadpool(call, _plain_hook(on_checkout), calls, **arguments)
        except InvalidRequest as exc:
            if shipping_line is not None and _is_the_callbacks(exc):
                raise ValueError(f"the shipping_line of the callback cannot be stored: {exc}") from exc
            raise
        if answer.replayed:
            return _json(200, answer, {"Idempotent-Replayed": "true"})
        # Relative to the request's own URL: right behind any prefix that a proxy takes away.
        return _json(201, answer, {"Location": f"checkout/{answer.cart_id}"})

    @router.get(
        "/checkout/{cart_id}",
        response_model=CheckoutResult | ActiveCart,
        responses=docs.responses(problems.document, "200 read", 401, 403, 404, 422, 500, 503),
        operation_id="checkout_result",
        summary="What became of a cart",
    )
    async def read_checkout(request: Request, store: Buyer, calls: Calls, cart_id: UUID) -> Response:
        """The cart's orders, or its status while it is not converted."""
        options = {"request_id": _request_id(request), "timeout": timeout}
        answer: CheckoutResult | ActiveCart = await _made(
            calls.result, buyer_store_id=store, cart_id=cart_id, **options
        )
        return _json(200, answer, {})

    return router


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Who asks for an order: its buyer or its vendor, one of the two."""

    buyer_store_id: UUID | None = None
    vendor_store_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequest:
    """The body of a cancel."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(json_schema_extra=docs.text(1000))]
    """told in the event"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRequest:
    """The body of a release: units that the vendor cannot deliver."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(json_schema_extra=docs.text(1000))]
    """told in the event"""
    qty: Annotated[int | None, Field(strict=True, json_schema_extra=docs.units("All that is held"))] = None
    change_key: Annotated[str | None, Field(json_schema_extra=docs.change_key("a quantity"))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FulfilRequest:
    """The body of a fulfilment, which may have none: units that left."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    qty: Annotated[int | None, Field(strict=True, json_schema_extra=docs.units("All that is held"))] = None
    change_key: Annotated[str | None, Field(json_schema_extra=docs.change_key("a quantity"))] = None
    details: Annotated[dict[str, Any] | None, Field(description="Carrier, tracking: told in the event.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReturnRequest:
    """The body of a return: shipped units that came back."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(json_schema_extra=docs.text(1000))]
    """told in the event"""
    restock: Annotated[bool, Field(strict=True, description="Whether they can be sold again.")]
    change_key: Annotated[str, Field(json_schema_extra=docs.CHANGE_KEY)]
    qty: Annotated[int | None, Field(strict=True, json_schema_extra=docs.units("All that are out"))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How many units of a line a vendor accepts, and why no more."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    line_item_id: UUID
    accept_qty: Annotated[int, Field(strict=True, json_schema_extra={"minimum": 0, "maximum": 2**31 - 1})]
    reason: Annotated[str | None, Field(json_schema_extra=docs.optional_text(1000, blank=False))] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecideRequest:
    """The body of a vendor's answer, which may have none: then the order is accepted whole, as is a line not named."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    decisions: list[Decision] | None = None
    change_key: Annotated[str | None, Field(json_schema_extra=docs.change_key("decisions"))] = None


def _given(body: Any) -> dict[str, Any]:
    """The fields of a body, JSON in them as it came: however deep it is, the database judges it."""
    given = {each.name: getattr(body, each.name) for each in fields(body)}
    if decisions := given.get("decisions"):
        given["decisions"] = [_given(each) for each in decisions]
    return given


def order_router(
    *,
    party: Callable[..., Any],
    pool: Pool | AsyncPool | Callable[..., Any] | None = None,
    schema: str | None = None,
    market: Callable[..., Any] | None = None,
    problem_base: str = "urn:pycheckout:problem:",
    max_body_bytes: int = 65536,
    timeout: float | None = None,
) -> APIRouter:
    """A router to read orders and to change them.

    `GET /orders`, `GET /orders/{order_id}`, `POST /orders/{order_id}/cancel`,
    `POST /orders/{order_id}/decide`, `POST /orders/{order_id}/lines/{line_id}/release`, `.../fulfil` and `.../return`.

    `party`: a FastAPI dependency that answers who asks, a `Party`, from the host's own authentication; None is a 401.
    An order of another buyer or vendor is not found. Orders are decided, and lines released, fulfilled and taken back,
    by their vendor alone (403). Each change is a transaction of its own, committed before the answer, and made again it
    changes nothing. `pool`, `schema`, `market`, `problem_base`, `max_body_bytes`: as for `checkout_router`.
    `timeout` too, for each call: a change reads the order first, which is another one. Raises TypeError and ValueError
    for arguments that cannot be meant.
    """
    _given_to_a_router(schema=schema, max_body_bytes=max_body_bytes, timeout=timeout)
    problems = _Problems(problem_base)
    made = partial(_made, timeout=timeout)
    router = APIRouter(route_class=_route_class(problems, max_body_bytes), tags=["orders"])

    async def the_party(asks: Annotated[Any, Depends(party)]) -> Party:
        if not isinstance(asks, Party) or (asks.buyer_store_id is None) == (asks.vendor_store_id is None):
            raise HTTPException(401, headers={"WWW-Authenticate": "Bearer"})
        return asks

    async def vendor(asks: Annotated[Party, Depends(the_party)]) -> Party:
        if asks.vendor_store_id is None:
            raise HTTPException(403, "only the vendor may")
        return asks

    Asks: TypeAlias = Annotated[Party, Depends(the_party)]
    Vendor: TypeAlias = Annotated[Party, Depends(vendor)]
    Calls: TypeAlias = Annotated[Any, Depends(_calls(pool, schema, market))]
    OrderId: TypeAlias = Annotated[UUID, Path(examples=[docs.ORDER])]
    LineId: TypeAlias = Annotated[UUID, Path(examples=[docs.LINE])]

    def answers(*which: int) -> dict[int | str, dict[str, Any]]:
        return docs.order_responses(problems.document, *which, 401, 403, 422, 500, 503)

    @router.get(
        "/orders",
        response_model=OrderPage,
        responses=answers(),
        operation_id="orders_list",
        summary="Orders, newest first",
    )
    async def list_orders(
        request: Request,
        asks: Asks,
        calls: Calls,
        statuses: Annotated[list[str] | None, Query(description="Of these alone.")] = None,
        after: Annotated[str | None, Query(description="The `after` of the page before.")] = None,
        max_rows: Annotated[
            int, Query(description="1 to 200 orders.", json_schema_extra={"minimum": 1, "maximum": 200})
        ] = 50,
        order_number: Annotated[int | None, Query(json_schema_extra=docs.ORDER_NUMBER_ASKED)] = None,
        purchase_order: Annotated[str | None, Query(json_schema_extra=docs.PURCHASE_ORDER_ASKED)] = None,
    ) -> Response:
        """Of the buyer or the vendor who asks, without their lines."""
        given = {
            "statuses": statuses,
            "after": after,
            "max_rows": max_rows,
            "order_number": order_number,
            "purchase_order": purchase_order,
            "request_id": _request_id(request),
        }
        return _json(200, await made(calls.orders.list, **asdict(asks), **given), {})

    @router.get(
        "/orders/{order_id}",
        response_model=Order,
        responses=answers(404),
        operation_id="order_get",
        summary="An order with its lines",
    )
    async def read_order(request: Request, asks: Asks, calls: Calls, order_id: OrderId) -> Response:
        """Where it stands now."""
        found = await made(calls.orders.get, order_id, **asdict(asks), request_id=_request_id(request))
        return _json(200, found, {})

    @router.post(
        "/orders/{order_id}/cancel",
        response_model=OrderChange,
        responses=answers(400, 404, 409, 413, 415),
        operation_id="order_cancel",
    )
    async def cancel_order(
        request: Request, asks: Asks, calls: Calls, order_id: OrderId, body: CancelRequest
    ) -> Response:
        """Cancels an order that nobody has begun to deliver."""
        await made(calls.orders.get, order_id, **asdict(asks))  # another's is not found
        request_id = _request_id(request)
        return _json(200, await made(calls.orders.cancel, order_id, reason=body.reason, request_id=request_id), {})

    async def of_vendor(calls: Any, asks: Party, order_id: UUID, line_id: UUID) -> None:
        order = await made(calls.orders.get, order_id, **asdict(asks))
        if all(line.line_item_id != line_id for line in order.items):
            raise OrderNotFound("this order has no such line")

    path = "/orders/{order_id}/lines/{line_id}"

    @router.post(
        f"{path}/release",
        response_model=OrderChange,
        responses=answers(400, 404, 409, 413, 415),
        operation_id="order_line_release",
    )
    async def release_line(
        request: Request,
        asks: Vendor,
        calls: Calls,
        order_id: OrderId,
        line_id: LineId,
        body: ReleaseRequest,
    ) -> Response:
        """Turns down units of a line that were not delivered."""
        await of_vendor(calls, asks, order_id, line_id)
        given = _given(body) | {"request_id": _request_id(request)}
        return _json(200, await made(calls.orders.release, line_id, **given), {})

    @router.post(
        f"{path}/fulfil",
        response_model=OrderChange,
        responses=answers(400, 404, 409, 413, 415),
        operation_id="order_line_fulfil",
    )
    async def fulfil_line(
        request: Request,
        asks: Vendor,
        calls: Calls,
        order_id: OrderId,
        line_id: LineId,
        body: FulfilRequest | None = None,
    ) -> Response:
        """Marks units of a line as delivered, all that it holds without a body."""
        await of_vendor(calls, asks, order_id, line_id)
        given = _given(body or FulfilRequest()) | {"request_id": _request_id(request)}
        return _json(200, await made(calls.orders.fulfil, line_id, **given), {})

    @router.post(
        f"{path}/return",
        response_model=OrderChange,
        responses=answers(400, 404, 409, 413, 415),
        operation_id="order_line_return",
    )
    async def return_line(
        request: Request,
        asks: Vendor,
        calls: Calls,
        order_id: OrderId,
        line_id: LineId,
        body: ReturnRequest,
    ) -> Response:
        """Takes shipped units of a line back."""
        await of_vendor(calls, asks, order_id, line_id)
        given = _given(body) | {"request_id": _request_id(request)}
        return _json(200, await made(calls.orders.return_, line_id, **given), {})

    @router.post(
        "/orders/{order_id}/decide",
        response_model=OrderChange,
        responses=answers(400, 404, 409, 413, 415),
        operation_id="order_decide",
    )
    async def decide_order(
        request: Request,
        asks: Vendor,
        calls: Calls,
        order_id: OrderId,
        body: DecideRequest | None = None,
    ) -> Response:
        """A vendor's answer to an order: accepts it, whole without a body."""
        await made(calls.orders.get, order_id, **asdict(asks))  # another's is not found
        given = _given(body or DecideRequest()) | {"request_id": _request_id(request)}
        return _json(200, await made(calls.orders.decide, order_id, **given), {})

    return router


_READY = """
select json_build_object('release', {schema}checkout_version() ->> 'version', 'standby', pg_is_in_recovery())::text
"""


def health_router(
    *,
    pool: Pool | AsyncPool | Callable[..., Any] | None = None,
    schema: str | None = None,
    market: Callable[..., Any] | None = None,
    timeout: float = 2.0,
) -> APIRouter:
    """A router with `GET /livez` and `GET /readyz`, for whoever starts the service and sends it requests.

    `/livez` asks nobody and is a 200 as long as the service answers. `/readyz` asks the database
    (`pool`, `schema`, `market`: as for `checkout_router`) and is a 200 if it has pycheckout and takes writes, and a 503
    with `Retry-After` if it is a standby, has no functions for this role, or does not answer within `timeout` seconds.
    Its body is `release` and `standby`. Neither shows in the OpenAPI document, and nobody need be known to call them.
    Raises TypeError and ValueError for arguments that cannot be meant.
    """
    _given_to_a_router(schema=schema, timeout=timeout)
    route_class = _route_class(_Problems("urn:pycheckout:problem:"), 0)  # no body is taken
    router = APIRouter(route_class=route_class, include_in_schema=False)
    Calls: TypeAlias = Annotated[Any, Depends(_calls(pool, schema, market))]

    @router.get("/livez")
    async def alive() -> Response:
        return Response(b'{"alive": true}', 200, _HEADERS, "application/json")

    @router.get("/readyz")
    async def ready(calls: Calls) -> Response:
        query, attempts = qualified(_READY, calls._schema), Attempts(timeout=to.seconds("timeout", timeout))
        found: dict[str, Any]
        try:
            if isinstance(calls, AsyncCheckout):
                found = await run_async(calls._conn, query, (), attempts)
            else:
                found = await run_in_threadpool(run, calls._conn, query, (), attempts)
        except CheckoutError:
            found = {"release": None, "standby": None}
        is_ready = found["release"] is not None and not found["standby"]
        headers = _HEADERS if is_ready else _HEADERS | {"Retry-After": docs.RETRY_AFTER["unavailable"]}
        return Response(to_json(found), 200 if is_ready else 503, headers, "application/json")

    return router


_POLICIES = {"reservation_policy": get_args(ReservationPolicy), "ad_token_policy": get_args(AdTokenPolicy)}
_CONVERTERS = {"schema": to.text, "max_body_bytes": to.integer, "timeout": to.seconds, "expires_in": to.duration}


def _given_to_a_router(**arguments: Any) -> None:
    """Raises TypeError or ValueError for what every request would be refused for."""
    for name, value in arguments.items():
        if name in _POLICIES:
            if value not in _POLICIES[name]:
                raise ValueError(f"{name} must be one of {', '.join(_POLICIES[name])}, not {value!r:.100}")
            continue
        try:
            _CONVERTERS[name](name, value)
        except InvalidRequest as exc:
            raise TypeError(str(exc)) from None
    if arguments.get("schema") == "":
        raise ValueError("schema must be the name of a schema")
    wait = arguments.get("expires_in")
    if wait is not None and not timedelta(0) < wait <= timedelta(days=366):
        raise ValueError("expires_in must be above 0 and at most 366 days")


def _calls(
    pool: Pool | AsyncPool | Callable[..., Any] | None, schema: str | None, market: Callable[..., Any] | None
) -> Callable[..., Any]:
    """The dependency that answers the calls of a request. Raises TypeError for what is no pool, where it is given or
    answered: nobody would commit what is done in the transaction of a connection."""
    if (pool is None) == (market is None):
        raise TypeError("give pool or market, and not both")
    if schema is not None and market is not None:
        raise TypeError("a market has its schema already")
    if market is not None:

        async def of_the_market(found: Annotated[Any, Depends(market)]) -> Any:
            if not isinstance(found, AsyncCheckout | Checkout):
                raise TypeError(f"market must answer an AsyncCheckout or a Checkout, not {_kind(found)}")
            _require_pool("the Checkout of a market", found._conn)
            return found

        return of_the_market

    async def the_pool() -> Any:
        return pool

    is_dependency = callable(pool) and not hasattr(pool, "execute")  # a scoped_session can be called too
    if not is_dependency:
        _require_pool("pool", pool)
    made: list[Any] = []

    async def calls(connections: Annotated[Any, Depends(pool if is_dependency else the_pool)]) -> Any:
        # One for all requests, as the pool is: its methods are made with their first use.
        if not made or made[0]._conn is not connections:
            _require_pool("pool", connections)
            checkout = AsyncCheckout if _is_async(connections) else Checkout
            made[:] = [checkout(connections, schema=schema)]
        return made[0]

    return calls


def _require_pool(name: str, given: object) -> None:
    if not is_pool(given):
        raise TypeError(f"{name} must be a psycopg pool (ConnectionPool, AsyncConnectionPool), not {_kind(given)}")


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


async def _made(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if iscoroutinefunction(call):
        return await call(*args, **kwargs)
    return await run_in_threadpool(call, *args, **kwargs)


def _plain_hook(hook: Hook) -> Callable[[Any, CheckoutResult], None]:
    def plain(conn: Any, result: CheckoutResult) -> None:
        if not result.replayed and hook(conn, result) is not None:
            raise TypeError("on_checkout of a plain pool must be a plain function")

    return plain


def _async_hook(hook: Hook) -> Callable[[Any, CheckoutResult], Awaitable[None]]:
    async def awaited(conn: Any, result: CheckoutResult) -> None:
        if not result.replayed:
            called = hook(conn, result)
            if called is None:
                raise TypeError("on_checkout of an async pool must be an async function")
            await called

    return awaited


def install_error_handlers(app: FastAPI, *, problem_base: str = "urn:pycheckout:problem:") -> None:
    """Answer each CheckoutError of the host's own routes with the problem+json of the checkout's routes.

    A handler that the host has for one of them, or installs afterwards, goes first.
    """
    problems = _Problems(problem_base)

    async def handle(request: Request, exc: Exception) -> Response:
        return problems.of(exc)

    app.exception_handlers.setdefault(CheckoutError, handle)


def _is_async(pool: Pool | AsyncPool) -> TypeGuard[AsyncPool]:
    return isinstance(pool, AbstractAsyncContextManager)


async def _shipping_line(callback: ShippingCallback | None, store: UUID, body: CheckoutRequest) -> _Line:
    if body.shipping_line is None:
        return None
    if callback is None:
        return asdict(body.shipping_line)
    answer: Any = await run_in_threadpool(callback, store, body)
    line: _Line = await answer if isawaitable(answer) else answer
    return line


def _is_the_callbacks(exc: InvalidRequest) -> bool:
    """Whether it is about what the callback made: a code and a title may be those of the client."""
    field = str(exc.detail.get("field"))
    sent = {f"shipping_line.{each.name}" for each in fields(ShippingChoice)}
    return field.partition(".")[0] == "shipping_line" and field not in sent


async def _idempotency_key(
    request: Request,
    key: Annotated[
        str,
        Header(
            alias="Idempotency-Key",
            description="New for each intent of the buyer, the same for each retry of it. Bare or in double quotes.",
            pattern=docs.KEY,
            examples=["8e03978e-40d5-43e8-bc93-6894a57f9324"],
        ),
    ],
) -> str:
    if len(request.headers.getlist("Idempotency-Key")) > 1:
        raise _Refusal(400, "idempotency_key_invalid")
    return key.strip('"')


def _request_id(request: Request) -> str | None:
    given = request.headers.get("X-Request-ID")
    return given[:128] if given else None


def _json(status: int, answer: Answer, headers: Mapping[str, str]) -> Response:
    # Written as it is, not checked against the model: what is committed must not become an error.
    return Response(to_json(answer), status, {**_HEADERS, **headers}, "application/json")


_HEADERS: dict[str, str] = {"Cache-Control": "no-store"}


class _Refusal(HTTPException):
    """An error of the boundary itself, with its code."""

    def __init__(self, status: int, code: str, errors: list[dict[str, str]] | None = None) -> None:
        super().__init__(status)
        self.code = code
        self.errors = errors or []


class _Problems:
    """Exceptions as problem+json. `base` and a problem's code are its type."""

    def __init__(self, base: str) -> None:
        self.base = base

    def document(self, status: int, code: str, detail: str | None = None, **more: Any) -> dict[str, Any]:
        title = code.replace("_", " ").capitalize()
        known = {"type": self.base + code, "title": title, "status": status, "code": code}
        said = {"detail": detail or docs.DETAILS.get(code, title)}
        return known | said | {name: value for name, value in more.items() if value}

    def response(self, document: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
        return Response(
            to_json(document), document["status"], {**(headers or {}), **_HEADERS}, "application/problem+json"
        )

    def of(self, exc: Exception) -> Response:
        if isinstance(exc, RequestValidationError):
            exc = _refusal(exc)
        if isinstance(exc, _Refusal):
            return self.response(self.document(exc.status_code, exc.code, errors=exc.errors))
        if isinstance(exc, HTTPException):
            return self._of_the_host(exc)
        if isinstance(exc, CheckoutError) and exc.http_status != 500:
            return self._of_the_checkout(exc)
        _report(exc)
        return self.response(self.document(500, exc.code if isinstance(exc, CheckoutError) else "internal_error"))

    def _of_the_host(self, exc: HTTPException) -> Response:
        phrase = phrases.get(exc.status_code, "Refused")
        detail: Any = exc.detail  # FastAPI lets it be any JSON
        said, context = (detail, None) if isinstance(detail, str) else (phrase, to_jsonable_python(detail))
        code = re.sub(r"\W+", "_", phrase.lower())
        return self.response(self.document(exc.status_code, code, said, context=context), exc.headers)

    def _of_the_checkout(self, exc: CheckoutError) -> Response:
        detail = exc.detail
        errors = [detail] if detail.keys() == {"field", "problem"} else []
        if not detail and isinstance(exc, InvalidRequest):
            errors = [{"field": "request", "problem": docs.UNREADABLE.get(exc.sqlstate or "", "cannot be read")}]
        context = {name: detail[name] for name in docs.CONTEXT if name in detail}
        if lines := detail.get("items"):
            # The lines that are short, without what is left of them: stock is nobody's business.
            context["items"] = [{name: line[name] for name in docs.ITEM if name in line} for line in lines]
        document = self.document(exc.http_status, exc.code, errors=errors, context=context)
        return self.response(document, {"Retry-After": docs.RETRY_AFTER[exc.code]} if exc.http_status == 503 else None)


_PROBLEMS = {"missing": "is required", "unexpected_keyword_argument": "is not a field of this request"}


def _refusal(exc: RequestValidationError) -> _Refusal:
    """What FastAPI found wrong with a request, under the code that it has here."""
    errors = exc.errors()
    for error in errors:
        if error["loc"] == ("header", "Idempotency-Key"):
            return _Refusal(400, f"idempotency_key_{'required' if error['type'] == 'missing' else 'invalid'}")
    # A name may be as long as the body, and there may be as many as fit in.
    found = [
        {
            "field": ".".join(map(str, error["loc"][1:] or error["loc"]))[:200],
            "problem": _PROBLEMS.get(error["type"], error["msg"]),
        }
        for error in errors[:20]
    ]
    return _Refusal(422, "invalid_request", found)


def _report(exc: Exception) -> None:
    """Log what the client is not told."""
    # DETAIL of an error of PostgreSQL may quote a row, and so an address: its message alone.
    said = exc.diag.message_primary if isinstance(exc, psycopg.Error) and exc.sqlstate else exc
    where = "".join(traceback.format_tb(exc.__traceback__))
    logger.error("a checkout route failed: %s: %s\n%s", type(exc).__name__, said, where)


def _route_class(problems: _Problems, max_body_bytes: int) -> type[APIRoute]:
    class CheckoutRoute(APIRoute):
        """Answers its own errors, 401, 403 and 405 included, so that the host's other routes stay as they are."""

        def get_route_handler(self) -> Callable[[Request], Any]:
            handler = super().get_route_handler()

            async def handle(request: Request) -> Response:
                try:
                    body = self.body_field
                    if body is not None and (body.field_info.is_required() or _has_body(request)):
                        request = await _json_request(request, max_body_bytes)
                    return await handler(request)
                except (RequestValidationError, HTTPException, CheckoutError) as exc:
                    return problems.of(exc)
                except Exception as exc:
                    if _is_the_hosts(exc, request):
                        raise
                    return problems.of(exc)

            return handle

        async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await super().handle(scope, receive, send)
            except HTTPException as exc:  # 405: no handler was reached
                await problems.of(exc)(scope, receive, send)

    return CheckoutRoute


def _is_the_hosts(exc: Exception, request: Request) -> bool:
    """Whether the host has a handler for it. Of one for all that nobody handles, 500 is another name."""
    handlers = request.app.exception_handlers
    return 500 in handlers or any(kind in handlers for kind in type(exc).__mro__)


def _has_body(request: Request) -> bool:
    """What a client that sends none says of it, differs: no length, 0, or a type all the same."""
    return "Transfer-Encoding" in request.headers or request.headers.get("Content-Length", "0") != "0"


async def _json_request(request: Request, max_body_bytes: int) -> Request:
    """The same request, if its body is JSON and not longer than it may be."""
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        raise _Refusal(415, "unsupported_media_type")
    length = request.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) > max_body_bytes:
        raise _Refusal(413, "content_too_large")
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_body_bytes:  # chunked
                raise _Refusal(413, "content_too_large")
        json.loads(body, parse_constant=_not_json)
    except (ValueError, RecursionError, ClientDisconnect):
        raise _Refusal(400, "malformed_json") from None

    async def receive() -> Message:
        return {"type": "http.request", "body": bytes(body), "more_body": False}

    return Request(request.scope, receive)


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
