"""What a checkout returns, as frozen values.

Every `_cents` is an int in minor units of the result's currency (ISO 4217: JPY has
none, KWD three). A status or reason is plain text, because a host adds values to the
enums and a newer database may know more; the usual ones are listed. For the same
reason a key that is not known here is left out without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

T = TypeVar("T")
Converter = Callable[[Any], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Sums over a cart."""

    subtotal_cents: int
    discounts_cents: int
    total_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedTotals:
    """The sums that the buyer was quoted."""

    quoted: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals(QuotedTotals):
    """The quoted sums, and those of what was really ordered."""

    confirmed: Amounts


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutWarning:
    """A remark for the buyer, as the quote or the checkout wrote it."""

    type: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Promo:
    """A vendor's promotion as quoted. What it took off is in the order's discounts: less, if lines fell away."""

    code: str | None = None
    amount_cents: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeDiscount:
    """A discount for quantity. It describes a price; it is never taken off again."""

    label: str | None = None
    amount_cents: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShippingLine:
    """The shipping that the buyer chose. It is recorded, and in no total."""

    code: str | None = None
    title: str | None = None
    price_cents: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributedToken:
    """The ad that an order or a line is attributed to."""

    token_id: UUID
    ad_id: UUID
    creative_id: UUID
    placement: str
    """hero, store, product"""
    target_type: str
    """store, product"""
    target_id: UUID
    event_type: str
    """click, impression"""
    occurred_at: str
    """RFC 3339 as the ad service wrote it: up to nanoseconds, which a datetime would lose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentIntent:
    """What is to be paid for one order."""

    payment_intent_id: UUID
    method: str
    """cash, ach, or what the host added"""
    status: str
    """unpaid, pending, settled, paid"""
    amount_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineItem:
    """One line of an order. A rejected line keeps its quoted amounts, but no total counts it."""

    line_item_id: UUID
    cart_item_id: UUID | None = None
    """None on an order of the earlier system"""
    product_id: UUID | None = None
    name: str
    category: str | None = None
    qty: int
    unit: str | None = None
    unit_price_cents: int
    line_subtotal_cents: int | None = None
    discount_cents: int
    total_cents: int
    status: str
    """pending, accepted, rejected, fulfilled, hold"""
    notes: str | None = None
    """insufficient_inventory on a line that was short"""
    warnings: tuple[CheckoutWarning, ...] = ()
    applied_volume_discount: VolumeDiscount | None = None
    attributed_token: AttributedToken | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorOrder:
    """One vendor's order. Its sums count the lines that are not rejected."""

    order_id: UUID
    vendor_store_id: UUID
    status: str
    """created_pending, accepted, partially_accepted, rejected, fulfilled,
    partially_fulfilled, hold, in_transit, delivered, closed, canceled, expired"""
    subtotal_cents: int
    discounts_cents: int
    total_cents: int
    balance_due_cents: int
    promo: Promo | None = None
    warnings: tuple[CheckoutWarning, ...] = ()
    attributed_token: AttributedToken | None = None
    payment_intent: PaymentIntent | None = None
    items: tuple[LineItem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedItem:
    """A line that its vendor's rejection left out, or that was short of stock."""

    cart_item_id: UUID | None = None
    product_id: UUID | None = None
    name: str
    qty: int
    status: str
    """of the cart's item: ok, not_available, invalid"""
    reason: str | None = None
    warnings: tuple[CheckoutWarning, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedVendor:
    """A vendor of the cart of whom nothing was ordered."""

    vendor_store_id: UUID
    reason: str
    """vendor_invalid, no_eligible_items, insufficient_inventory"""
    warnings: tuple[CheckoutWarning, ...] = ()
    items: tuple[RejectedItem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutResult:
    """A converted cart: what was ordered, from whom, and what was not.

    The first answer and every replay are built from the same rows by the same
    function: ids and amounts never differ, a status shows where the order is now.
    """

    status: str
    """converted"""
    outcome: str
    """complete, partial (some lines or vendors rejected), rejected (all of them)"""
    checkout_group_id: UUID
    cart_id: UUID
    buyer_store_id: UUID
    currency: str
    converted_at: datetime | None = None
    """Aware. None on a cart that the earlier system converted."""
    replayed: bool = False
    """Whether this call found the cart converted, and changed nothing."""
    shipping_address: Mapping[str, Any] | None = None
    payment_method: str | None = None
    shipping_line: ShippingLine | None = None
    totals: Totals
    vendor_orders: tuple[VendorOrder, ...] = ()
    rejected_vendors: tuple[RejectedVendor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveCart:
    """A cart that is not converted: the same checkout may still be made."""

    status: str
    """active, or what the host added for a cart that is not converted"""
    cart_id: UUID
    buyer_store_id: UUID
    currency: str
    valid_until: datetime | None
    """Aware. None if the quote has no end."""
    totals: QuotedTotals


def build(cls: type[T], data: Mapping[str, Any]) -> T:
    """A `cls` from a JSON object: fields by name, nested ones by their type."""
    kind: Any = cls
    built: T = _builder(kind)(data)
    return built


@cache
def _builder(cls: Any) -> Converter:
    """`build` for one class, its fields looked up once."""
    hints = get_type_hints(cls)
    plan = [(field.name, field.default is MISSING, _converter(hints[field.name])) for field in fields(cls)]

    def from_json(data: Mapping[str, Any]) -> Any:
        values: dict[str, Any] = {}
        for name, required, convert in plan:
            if name in data:
                value = data[name]
                values[name] = value if convert is None else convert(value)
            elif required:
                raise KeyError(f"{cls.__name__}.{name} is missing in the database's answer")
        return cls(**values)

    return from_json


def _converter(hint: Any) -> Converter | None:
    """How JSON becomes a value of this type; None where it is one already."""
    if get_origin(hint) in (Union, UnionType):
        [inner] = [arg for arg in get_args(hint) if arg is not type(None)]
        convert = _converter(inner)
        return convert and (lambda value: None if value is None else convert(value))
    if get_origin(hint) is tuple:
        element = _builder(get_args(hint)[0])
        # Warnings come from jsonb that the host writes, as a promo does below: one of another
        # shape must not turn a checkout that is committed into an exception.
        return lambda values: (
            tuple([element(value) for value in values if isinstance(value, dict)]) if isinstance(values, list) else ()
        )
    if isinstance(hint, type) and is_dataclass(hint):
        nested = _builder(hint)
        return lambda value: nested(value if isinstance(value, dict) else {})
    if hint is datetime:
        return datetime.fromisoformat
    if hint is UUID:
        return UUID
    return None
