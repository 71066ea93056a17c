"""What the OpenAPI document of `pycheckout.http` says: schemas, texts and an example of every status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from ._types import CheckoutResult

KEY = r'^([!#-\[\]-~]{1,255}|"[!#-\[\]-~]{1,255}")$'
"""Visible ASCII (RFC 5234 VCHAR) but for quote and backslash: bare, or an RFC 9651 string."""

RETRY_AFTER = {"busy": "1", "market_moving": "1", "market_moved": "5", "unavailable": "5", "read_only_server": "5"}
"""Seconds. The routes have tried a busy call again themselves by then."""

CONTEXT = (
    "cart_id",
    "status",
    "below_minimum",
    "valid_until",
    "now",
    "bound_cart_id",
    "order_id",
    "what",
    "id",
    "allowed",
    "asked",
    "units",
    "total_cents",
    "amount_cents",
    "product_ids",
)
ITEM = ("cart_item_id", "product_id", "requested")
"""What goes out of an error's DETAIL."""

DETAILS = {
    "ad_token_invalid": "The cart has ad tokens that cannot be used: ask for a new quote without them.",
    "busy": "Others held the cart or its stock for too long. Make the same call again, with the same key.",
    "cart_expired": "The quote ran out: ask for a new one.",
    "cart_inconsistent": "The quote contradicts itself: ask for a new one.",
    "cart_not_active": "The cart is neither active nor ordered.",
    "cart_not_found": "There is no such cart.",
    "content_too_large": "The body is larger than such a request can be.",
    "idempotency_key_invalid": "Idempotency-Key must be one key of 1 to 255 visible ASCII characters, bare or in "
    "double quotes, without a quote or a backslash inside.",
    "idempotency_key_required": "The header Idempotency-Key is missing.",
    "idempotency_key_reused": "The key stands for another request. Repeat that one to the letter, or take a new key.",
    "insufficient_inventory": "There is not enough stock for these lines, and nothing was ordered.",
    "internal_error": "The checkout failed, and it is not the request's fault. The same call may be made again.",
    "invalid_request": "The request has to be corrected.",
    "malformed_json": "The body is not JSON.",
    "no_orderable_items": "Nothing in the cart can be ordered: ask for a new quote, or replace the items.",
    "not_installed": "The service is not set up for checkouts.",
    "order_not_found": "There is no such order.",
    "order_state_conflict": "The order is past that, or has not as much of it: read it again.",
    "pooler_conflict": "The service is not set up for checkouts.",
    "read_only_server": "The database takes no writes just now. Make the same call again, with the same key.",
    "unknown_market": "There is no such market.",
    "market_moving": "The market is being moved to another server. Make the same call again, with the same key.",
    "market_moved": "The market is on another server, which this service has to be told. Make the same call later.",
    "unavailable": "The database did not answer. Make the same call again, with the same key: it counts once.",
    "unsupported_media_type": "The body must be application/json.",
}

UNREADABLE = {"22P05": r"holds \u0000, which PostgreSQL does not store"}
"""What PostgreSQL cannot read, by its SQLSTATE. No function was reached that could name the field."""


def text(most: int, *, blank: bool = False, least: int | None = None) -> dict[str, Any]:
    """The schema of a text that the database can store, with something to read in it unless it may be `blank`."""
    pattern = r"^[^\u0000]*$" if blank else r"^[^\u0000]*[^\u0000\s][^\u0000]*$"
    return {"type": "string", "maxLength": most, "pattern": pattern} | ({} if least is None else {"minLength": least})


def optional_text(most: int, *, blank: bool = True) -> dict[str, Any]:
    return {"anyOf": [text(most, blank=blank), {"type": "null"}]}


def _degrees(most: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "number", "minimum": -most, "maximum": most}, {"type": "null"}]}


ADDRESS: dict[str, Any] = {
    "description": "The confirmed address: the fields of the database's address type.",
    "properties": {
        "line1": text(500),
        "line2": optional_text(500),
        "city": text(500),
        "state": optional_text(500),
        "postal_code": optional_text(500),
        "country": text(500),
        "lat": _degrees(90),
        "lng": _degrees(180),
    },
    "required": ["line1", "city", "country"],
    "additionalProperties": False,
}

BILLING_ADDRESS: dict[str, Any] = {
    "description": "The address of the invoice, in the same fields; null: the shipping address.",
    "anyOf": [
        {"type": "object"} | {name: ADDRESS[name] for name in ADDRESS if name != "description"},
        {"type": "null"},
    ],
}

_CONTROL = r"\u0000-\u001f\u007f-\u009f\u2028\u2029"

PURCHASE_ORDER: dict[str, Any] = {
    "description": "The buyer's own number.",
    "anyOf": [
        {"type": "string", "maxLength": 100, "pattern": rf"^[^{_CONTROL}]*[^\s{_CONTROL}][^{_CONTROL}]*$"},
        {"type": "null"},
    ],
}

# What a list of orders is asked for.
ORDER_NUMBER_ASKED: dict[str, Any] = {
    "description": "The one order that has this number.",
    "anyOf": [{"type": "integer", "minimum": 1, "maximum": 2**63 - 1}, {"type": "null"}],
}
PURCHASE_ORDER_ASKED: dict[str, Any] = {
    "description": "Those that the buyer gave this number of its own.",
    "anyOf": [{"type": "string", "minLength": 1, "maxLength": 100}, {"type": "null"}],
}

_CHANGE_KEY = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"}
_UNITS = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
CHANGE_KEY: dict[str, Any] = {"description": "The same for each retry."} | _CHANGE_KEY


def change_key(needed_with: str) -> dict[str, Any]:
    return {
        "description": f"Required with {needed_with}; the same for each retry.",
        "anyOf": [_CHANGE_KEY, {"type": "null"}],
    }


def units(left_out: str) -> dict[str, Any]:
    return {"description": f"{left_out}, if it is left out.", "anyOf": [_UNITS, {"type": "null"}]}


METADATA: dict[str, Any] = {
    "description": "What the client notes on the orders: at most 16 kB, and 8 levels.",
    "anyOf": [{"type": "object"}, {"type": "null"}],
}

_BUYER = "11111111-1111-4111-8111-111111111111"
_CART = "22222222-2222-4222-8222-222222222222"
_VENDOR = "33333333-3333-4333-8333-333333333333"
_PRODUCT = "44444444-4444-4444-8444-444444444444"
ORDER = "66666666-6666-4666-8666-666666666666"
LINE = "77777777-7777-4777-8777-777777777777"
_ADDRESS = {
    "line1": "12 Main Street",
    "line2": None,
    "city": "Tulsa",
    "state": "OK",
    "postal_code": "74103",
    "country": "US",
    "lat": None,
    "lng": None,
}
_AMOUNTS = {
    "subtotal_cents": 2000,
    "discounts_cents": 0,
    "tax_cents": 160,
    "transport_fee_cents": 100,
    "total_cents": 2260,
}
_TAX = {"tax_cents": 160, "tax_lines": [{"code": "state", "title": "State", "rate": "0.08", "amount_cents": 160}]}
_VAN = {"code": "van", "title": "By van"}

_REQUEST = {
    "cart_id": _CART,
    "shipping_address": {name: value for name, value in _ADDRESS.items() if value},
    "payment_method": "ach",
    "shipping_line": {"code": "standard", "title": "Standard"},
    "billing_address": {"line1": "1 Bank Street", "city": "Tulsa", "country": "US"},
    "purchase_order": "PO-4711",
    "metadata": {"cost_centre": "kitchen"},
}

_RESULT: dict[str, Any] = {
    "status": "converted",
    "outcome": "complete",
    "checkout_group_id": "019ab8c0-0000-7000-8000-000000000001",
    "cart_id": _CART,
    "buyer_store_id": _BUYER,
    "currency": "USD",
    "converted_at": "2026-01-01T12:00:00.123456Z",
    "replayed": False,
    "shipping_address": _ADDRESS,
    "payment_method": "ach",
    "shipping_line": {"code": "standard", "title": "Standard", "price_cents": None},
    "billing_address": _REQUEST["billing_address"],
    "purchase_order": _REQUEST["purchase_order"],
    "metadata": _REQUEST["metadata"],
    "tax_included": False,
    "totals": {"quoted": _AMOUNTS, "confirmed": _AMOUNTS},
    "vendor_orders": [
        {
            "order_id": ORDER,
            "vendor_store_id": _VENDOR,
            "status": "created_pending",
            "order_number": 1042,
            "tax_included": False,
            **_AMOUNTS,
            "shipping_tax_cents": 0,
            "adjustments_cents": 0,
            "balance_due_cents": 2260,
            "refund_due_cents": None,
            "vendor_shipping_line": _VAN,
            "promo": None,
            "warnings": [],
            "attributed_token": None,
            "payment_intent": {
                "payment_intent_id": ORDER,
                "method": "ach",
                "status": "unpaid",
                "amount_cents": 2260,
            },
            "items": [
                {
                    "line_item_id": LINE,
                    "cart_item_id": LINE,
                    "product_id": _PRODUCT,
                    "name": "Basil",
                    "category": "herbs",
                    "qty": 5,
                    "unit": "bunch",
                    "unit_price_cents": 400,
                    "line_subtotal_cents": 2000,
                    "discount_cents": 0,
                    "total_cents": 2000,
                    **_TAX,
                    "reserved_qty": 5,
                    "fulfilled_qty": 0,
                    "released_qty": 0,
                    "returned_qty": 0,
                    "left_qty": 5,
                    "left_cents": 2000,
                    "status": "pending",
                    "notes": None,
                    "warnings": [],
                    "applied_volume_discount": None,
                    "attributed_token": None,
                }
            ],
        }
    ],
    "rejected_vendors": [],
}

_ACTIVE = {
    "status": "active",
    "cart_id": _CART,
    "buyer_store_id": _BUYER,
    "currency": "USD",
    "valid_until": "2026-01-01T12:30:00Z",
    "totals": {"quoted": _AMOUNTS},
    "below_minimum": [],
    "vendor_groups": [
        {
            "id": ORDER,
            "vendor_store_id": _VENDOR,
            "status": "ok",
            "subtotal_cents": 2000,
            "discounts_cents": 0,
            "line_discounts_cents": 0,
            "promo_discount_cents": 0,
            "total_cents": 2260,
            "shipping_cents": 100,
            "shipping_tax_cents": 0,
            "shipping_line": _VAN,
            "minimum_cents": 1500,
            "warnings": [],
            "items": [
                {
                    "id": LINE,
                    "product_id": _PRODUCT,
                    "title": "Basil",
                    "category": "herbs",
                    "unit": "bunch",
                    "quantity": 5,
                    "moq": 1,
                    "unit_price_cents": 400,
                    "line_subtotal_cents": 2000,
                    **_TAX,
                    "warnings": [],
                    "status": "ok",
                }
            ],
        }
    ],
}

REQUEST = {"requestBody": {"content": {"application/json": {"example": _REQUEST}}}}


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldProblem:
    """What has to be corrected."""

    field: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """RFC 9457 problem details. Act on `code`."""

    type: Annotated[str, Field(json_schema_extra={"format": "uri"})]
    title: str
    status: int
    code: str
    detail: Annotated[str, Field(description="For a person.")]
    errors: Annotated[Sequence[FieldProblem], Field(description="What has to be corrected.")] = ()
    context: Annotated[
        Any, Field(description="What the problem is about: ids, a status, the lines that are short.")
    ] = None


class _OfProblem(dict[str, Any]):
    """The content of an error response. FastAPI writes the schema of a `model`, a reference to it by whatever name the
    host's other models leave it, under the media type of the route's good answers: here it is that of a problem."""

    def setdefault(self, media_type: str, default: Any = None) -> Any:
        return super().setdefault("application/problem+json", default)


_CODES: dict[int, tuple[str, tuple[str, ...]]] = {
    400: (
        "No key, a malformed key, or no JSON",
        ("idempotency_key_required", "idempotency_key_invalid", "malformed_json"),
    ),
    401: ("The buyer is not known", ("unauthorized",)),
    403: ("This buyer may not", ("forbidden",)),
    404: ("This buyer has no such cart", ("cart_not_found", "unknown_market")),
    409: (
        "Look at the cart",
        ("cart_expired", "cart_not_active", "no_orderable_items", "cart_inconsistent", "insufficient_inventory"),
    ),
    413: ("The body is too large", ("content_too_large",)),
    415: ("The body is not JSON by its Content-Type", ("unsupported_media_type",)),
    422: ("Correct the request", ("invalid_request", "idempotency_key_reused", "ad_token_invalid")),
    500: ("Not the request's fault", ("internal_error", "not_installed", "pooler_conflict")),
    503: (
        "The same call again, with the same key",
        ("busy", "unavailable", "read_only_server", "market_moving", "market_moved"),
    ),
}

_ABOUT_CART: dict[str, Any] = {"cart_id": _CART}

_MORE: dict[str, dict[str, Any]] = {
    "cart_expired": {"context": _ABOUT_CART | {"valid_until": "2026-01-01T12:30:00Z", "now": "2026-01-01T12:30:01Z"}},
    "cart_inconsistent": {"context": _ABOUT_CART},
    "cart_not_active": {"context": _ABOUT_CART | {"status": "abandoned"}},
    "cart_not_found": {"context": _ABOUT_CART},
    "forbidden": {"detail": "Forbidden"},
    "idempotency_key_reused": {"context": _ABOUT_CART | {"bound_cart_id": "99999999-9999-4999-8999-999999999999"}},
    "insufficient_inventory": {
        "context": _ABOUT_CART | {"items": [{"cart_item_id": LINE, "product_id": _PRODUCT, "requested": 5}]}
    },
    "invalid_request": {"errors": [{"field": "shipping_address.city", "problem": "is required"}]},
    "no_orderable_items": {"context": _ABOUT_CART},
    "order_state_conflict": {
        "context": {"what": "order line", "id": LINE, "status": "pending", "asked": 5, "units": 3}
    },
    "unauthorized": {"detail": "Not authenticated"},
}


def responses(document: Callable[..., dict[str, Any]], *which: int | str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route; `document` makes a problem of a status and a code."""
    return {(200 if status == "200 read" else status): _response(document, status) for status in which}


def order_responses(document: Callable[..., dict[str, Any]], *which: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for orders; what they answer, their model says."""
    of_orders = {
        400: ("The body is not JSON", ("malformed_json",)),
        401: ("Whoever asks is not known", ("unauthorized",)),
        403: ("Whoever asks may not", ("forbidden",)),
        404: ("Whoever asks has no such order, or the order no such line", ("order_not_found", "unknown_market")),
        409: (
            "The order is past that, or has not as much of it: read it again",
            ("order_state_conflict", "cart_inconsistent"),
        ),
        422: ("Correct the request", ("invalid_request", "idempotency_key_reused")),
    }
    return {status: _problem(document, status, *of_orders.get(status, _CODES[status])) for status in which}


def _response(document: Callable[..., dict[str, Any]], status: int | str) -> dict[str, Any]:
    if status == 201:
        return _success("The cart is converted", {"converted": _RESULT}, {"Location": "Where to read it again."})
    if status == 200:
        replay = {"replayed": _RESULT | {"replayed": True}}
        answer = _success("It was converted already", replay, {"Idempotent-Replayed": "`true`"})
        return answer | {"model": CheckoutResult}
    if status == "200 read":
        return _success("What became of it", {"active": _ACTIVE, "converted": _RESULT | {"replayed": True}}, {})
    assert isinstance(status, int)
    return _problem(document, status, *_CODES[status])


def _problem(
    document: Callable[..., dict[str, Any]], status: int, description: str, codes: tuple[str, ...]
) -> dict[str, Any]:
    examples = {code: {"value": document(status, code, **_MORE.get(code, {}))} for code in codes}
    headers = {"Retry-After": "Seconds."} if status == 503 else {}
    return {
        "description": description,
        "headers": _headers(headers),
        "model": Problem,
        "content": _OfProblem({"application/problem+json": {"examples": examples}}),
    }


def _success(description: str, examples: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
    content = {"examples": {name: {"value": value} for name, value in examples.items()}}
    return {"description": description, "headers": _headers(headers), "content": {"application/json": content}}


def _headers(described: Mapping[str, str]) -> dict[str, Any]:
    named = {"Cache-Control": "`no-store`"} | dict(described)
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in named.items()}
