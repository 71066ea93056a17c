"""What a checkout returns, as frozen values.

Every `_cents` is an int in minor units of the result's currency (ISO 4217: JPY has
none, KWD three). A status or reason is plain text, because a host adds values to the
enums and a newer database may know more; the usual ones are listed. For the same
reason a key that is not known here is left out without a word.

A figure with the default 0, as `tax_cents`, is 0 where the answer has no such key, or null: there is none of it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints
from uuid import UUID

T = TypeVar("T")
Converter = Callable[[Any], Any]


class Answer:
    """What a function of the database answers."""

    __slots__ = ()

    @classmethod
    def from_json(cls, answer: str | bytes | Mapping[str, Any]) -> Self:
        """The answer of the SQL function, as JSON text or as the object that a driver made of it.

        For drivers other than psycopg, whose own calls return this already.
        """
        return build(cls, answer if isinstance(answer, Mapping) else json.loads(answer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """Sums over a cart: total = subtotal - discounts + tax + shipping, without the tax where prices include it."""

    subtotal_cents: int
    discounts_cents: int
    tax_cents: int = 0
    """Of lines and shipping."""
    transport_fee_cents: int = 0
    """What the vendors charge for shipping."""
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
class TaxLine:
    """A tax on a line, as quoted."""

    code: str | None = None
    title: str | None = None
    rate: str | None = None
    """As it was written: it is never reckoned with."""
    amount_cents: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorShippingLine:
    """The shipping that a vendor charges, as quoted. What it costs is in the group's or the order's own figure."""

    code: str | None = None
    title: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentTerms:
    """When an order is to be paid: so many days of 24 hours after it was made."""

    code: str | None = None
    net_days: int | None = None


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
    payment_terms: PaymentTerms | None = None
    due_at: datetime | None = None
    """Aware. None without terms."""


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
    """Subtotal less discount: without tax, unless prices include it."""
    tax_cents: int = 0
    tax_lines: tuple[TaxLine, ...] = ()
    reserved_qty: int = 0
    """Units that the line holds. This and the next three are in `Order`, and in a result whose orders say more."""
    fulfilled_qty: int = 0
    released_qty: int = 0
    returned_qty: int = 0
    left_qty: int | None = None
    """Units that are still ordered: held, or shipped and not come back. In `Order` alone."""
    left_cents: int | None = None
    """What of `total_cents` is owed for them."""
    status: str
    """pending, accepted, rejected, fulfilled, hold"""
    notes: str | None = None
    """insufficient_inventory on a line that was short, below_minimum where its vendor's order was too small"""
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
    order_number: int | None = None
    """Unique in the installation, with gaps. None on an older order."""
    tax_included: bool = False
    """Whether prices hold their tax: it is not added to the total then."""
    subtotal_cents: int
    discounts_cents: int
    tax_cents: int = 0
    """Of lines and shipping."""
    transport_fee_cents: int = 0
    """What the vendor charges for shipping."""
    shipping_tax_cents: int = 0
    """What of `tax_cents` is the shipping's."""
    adjustments_cents: int = 0
    total_cents: int
    balance_due_cents: int
    refund_due_cents: int | None = None
    """What was paid beyond the total and has not gone back. None: no payment was recorded."""
    vendor_shipping_line: VendorShippingLine | None = None
    expires_at: datetime | None = None
    """Aware. Until when it waits to be paid for; None: for ever."""
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
    """vendor_invalid, no_eligible_items, insufficient_inventory, below_minimum"""
    warnings: tuple[CheckoutWarning, ...] = ()
    items: tuple[RejectedItem, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckoutResult(Answer):
    """A converted cart: what was ordered, from whom, and what was not.

    The first answer and every replay are built from the same rows by the same
    function: ids and amounts never differ, a status shows where the order is now.
    """

    status: Literal["converted"]
    outcome: Literal["complete", "partial", "rejected"]
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
    billing_address: Mapping[str, Any] | None = None
    """None: the shipping address."""
    purchase_order: str | None = None
    metadata: Mapping[str, Any] | None = None
    tax_included: bool = False
    totals: Totals
    vendor_orders: tuple[VendorOrder, ...] = ()
    rejected_vendors: tuple[RejectedVendor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BelowMinimum:
    """A vendor of whom too little is in the cart: a checkout would reject its order."""

    vendor_store_id: UUID
    minimum_cents: int
    merchandise_cents: int
    """What its lines come to, after their discounts and before the promotion."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveCart(Answer):
    """A cart that is not converted: the same checkout may still be made."""

    status: Literal["active", "abandoned"]
    """active, or what the host added for a cart that is not converted"""
    cart_id: UUID
    buyer_store_id: UUID
    currency: str
    valid_until: datetime | None
    """Aware. None: after the year 9999, or null, and then it is not valid."""
    totals: QuotedTotals
    below_minimum: tuple[BelowMinimum, ...] = ()
    """By vendor."""
    vendor_groups: tuple[CartVendorGroup, ...] = ()
    """By vendor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CartLine:
    """A line of a cart, as it was quoted."""

    id: UUID
    product_id: UUID
    title: str | None = None
    category: str | None = None
    unit: str | None = None
    quantity: int
    moq: int | None = None
    """The least quantity that the vendor sells."""
    max_qty: int | None = None
    """The most; None: as many as there are."""
    unit_price_cents: int
    line_subtotal_cents: int
    line_discounts_cents: int | None = None
    line_total_cents: int | None = None
    """What the buyer pays for the line; None on a net line, whose discount is in its price."""
    tax_cents: int = 0
    tax_lines: tuple[TaxLine, ...] = ()
    applied_volume_discount: VolumeDiscount | None = None
    warnings: tuple[CheckoutWarning, ...] = ()
    status: str
    """ok, not_available, or what the host added; only an ok line is ordered"""


@dataclass(frozen=True, slots=True, kw_only=True)
class CartVendorGroup:
    """What a cart has of one vendor."""

    id: UUID | None = None
    """The id that the vendor's order will have. None: the cart has lines of the vendor and no group."""
    vendor_store_id: UUID
    status: str
    """ok, invalid, or what the host added; only of an ok group something is ordered"""
    subtotal_cents: int
    discounts_cents: int
    line_discounts_cents: int | None = None
    """As the quote says; no checkout reads it. None: it does not say."""
    promo_discount_cents: int | None = None
    """As the quote says; no checkout reads it. None: it does not say."""
    total_cents: int
    promo: Promo | None = None
    shipping_cents: int = 0
    shipping_tax_cents: int = 0
    shipping_line: VendorShippingLine | None = None
    minimum_cents: int = 0
    """The least that an order of this vendor may come to."""
    payment_terms: PaymentTerms | None = None
    warnings: tuple[CheckoutWarning, ...] = ()
    items: tuple[CartLine, ...] = ()
    """By id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart(Answer):
    """A cart as its quote stands in the database, whatever became of it."""

    id: UUID
    buyer_store_id: UUID
    status: str
    """active, converted, or what the host added"""
    currency: str
    valid_until: datetime | None = None
    shipping_address: Mapping[str, Any] | None = None
    subtotal_cents: int
    discounts_cents: int
    total_cents: int
    tax_included: bool = False
    vendor_groups: tuple[CartVendorGroup, ...] = ()
    checkout_group_id: UUID | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSummary(Answer):
    """A vendor order without its lines, where it stands now."""

    order_id: UUID
    checkout_group_id: UUID
    """What the buyer checked out at once: the orders of its vendors have it in common."""
    cart_id: UUID | None = None
    """None on an order of the earlier system"""
    buyer_store_id: UUID
    vendor_store_id: UUID
    status: str
    """created_pending, accepted, partially_accepted, rejected, fulfilled,
    partially_fulfilled, hold, in_transit, delivered, closed, canceled, expired, or what the host added"""
    currency: str | None = None
    payment_method: str | None = None
    shipping_address: Mapping[str, Any] | None = None
    shipping_line: ShippingLine | None = None
    billing_address: Mapping[str, Any] | None = None
    """None: the shipping address."""
    purchase_order: str | None = None
    metadata: Mapping[str, Any] | None = None
    order_number: int | None = None
    """Unique in the installation, with gaps. None on an older order."""
    tax_included: bool = False
    """Whether prices hold their tax: it is not added to the total then."""
    subtotal_cents: int
    discounts_cents: int
    tax_cents: int = 0
    """Of lines and shipping."""
    transport_fee_cents: int = 0
    """What the vendor charges for shipping."""
    shipping_tax_cents: int = 0
    """What of `tax_cents` is the shipping's."""
    adjustments_cents: int = 0
    total_cents: int
    balance_due_cents: int
    refund_due_cents: int | None = None
    """What was paid beyond the total and has not gone back. None: no payment was recorded."""
    vendor_shipping_line: VendorShippingLine | None = None
    expires_at: datetime | None = None
    """Aware. Until when it waits to be paid for; None: for ever."""
    payment_intent: PaymentIntent | None = None
    promo: Promo | None = None
    warnings: tuple[CheckoutWarning, ...] = ()
    attributed_token: AttributedToken | None = None
    line_count: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Order(OrderSummary):
    """A vendor order with its lines, where it stands now."""

    items: tuple[LineItem, ...] = ()
    """By id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderPage(Answer):
    """Some orders of a list, newest first."""

    orders: tuple[OrderSummary, ...] = ()
    after: str | None = None
    """What `orders.list(after=...)` takes to go on; None: there are no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangedLine:
    """A line of an order after a change. Its quantity and amounts never change; the counters tell what became of it."""

    line_item_id: UUID
    product_id: UUID | None = None
    qty: int
    total_cents: int
    reserved_qty: int = 0
    """Units that it holds."""
    fulfilled_qty: int = 0
    released_qty: int = 0
    returned_qty: int = 0
    left_qty: int | None = None
    """Units that are still ordered: held, or shipped and not come back."""
    left_cents: int | None = None
    """What of `total_cents` is owed for them."""
    status: str
    """pending, accepted, rejected, fulfilled, hold"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineChange:
    """By how much a change changed a line. Amounts are what came off the order."""

    line_item_id: UUID
    released_qty: int | None = None
    fulfilled_qty: int | None = None
    returned_qty: int | None = None
    restocked_qty: int | None = None
    """Of the returned units, those that are available again."""
    total_cents: int | None = None
    discount_cents: int | None = None
    tax_cents: int | None = None
    reason: str | None = None
    """Of a decision."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderChange(Answer):
    """Where an order stands after a change, the lines of the change, and by how much they changed."""

    order_id: UUID
    checkout_group_id: UUID
    cart_id: UUID | None = None
    buyer_store_id: UUID
    vendor_store_id: UUID
    status: str
    currency: str | None = None
    subtotal_cents: int
    discounts_cents: int
    tax_cents: int = 0
    transport_fee_cents: int = 0
    adjustments_cents: int = 0
    """Credits (below 0) and surcharges."""
    total_cents: int
    balance_due_cents: int
    refund_due_cents: int | None = None
    """What was paid beyond the total and has not gone back. None: no payment was recorded."""
    payment_intent: PaymentIntent | None = None
    """Without its terms and when it is due, which no change touches."""
    items: tuple[ChangedLine, ...] = ()
    """Of a replay without a key: none of an order, the line of a line."""
    changes: tuple[LineChange, ...] = ()
    amount_cents: int | None = None
    """What it added to `adjustments_cents`."""
    details: Mapping[str, Any] | None = None
    change_key: str | None = None
    reason: str | None = None
    expires_at: datetime | None = None
    """The deadline that it has now. None: none, or no more."""
    replayed: bool = False
    """Whether it had been so before, and this call changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderStep(Answer):
    """Something that happened to an order since its checkout."""

    about: str
    """order, payment"""
    kind: str
    """released, fulfilled, returned, decided, canceled, adjusted, expired, extended, or a kind of payment event"""
    lines: tuple[LineChange, ...] = ()
    amount_cents: int | None = None
    """What it added to `adjustments_cents`, or the amount of the payment event."""
    reason: str | None = None
    key: str | None = None
    """Key of the change, or provider and id of the payment event."""
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedPayment:
    """A payment event as it was recorded."""

    provider: str
    provider_event_id: str
    kind: str
    """authorized, captured, voided, refunded, failed, disputed, reversed"""
    amount_cents: int
    """The order's share of it."""
    occurred_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentChange(Answer):
    """What is paid and due of an order after a payment event was recorded."""

    order_id: UUID
    checkout_group_id: UUID
    cart_id: UUID | None = None
    buyer_store_id: UUID
    vendor_store_id: UUID
    status: str
    currency: str
    total_cents: int
    authorized_cents: int
    """Authorised, and neither captured nor voided."""
    captured_cents: int
    refunded_cents: int
    """What went back: refunded, disputed, or reversed."""
    balance_due_cents: int
    refund_due_cents: int = 0
    """What was paid beyond the total and has not gone back."""
    payment_intent: PaymentIntent | None = None
    """Without its terms and when it is due, which no payment touches."""
    payment: RecordedPayment
    replayed: bool = False
    """Whether the event was there already, and this call changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expired(Answer):
    """What a look at the deadlines of orders ended."""

    expired: int
    """How many orders expired."""
    kept: int
    """How many lost their deadline instead: they are paid, being paid, or shipped in part."""
    order_ids: tuple[UUID, ...] = ()
    """Those that expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StockLevel(Answer):
    """Stock of a product, summed over its slots."""

    product_id: UUID
    available_qty: int
    """Units that a checkout can take."""
    reserved_qty: int
    """Units that open order lines hold."""
    slots: int
    """How many rows the available units are spread over, for products that many order at once."""
    updated_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StockLevels(Answer):
    """Stock of several products."""

    levels: tuple[StockLevel, ...] = ()
    """By product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenVerdict(Answer):
    """Whether an ad token counts."""

    reason: str | None = None
    """Why it does not: malformed, unknown_key, bad_signature and so on, as docs/ads.md lists them; None: it counts."""
    claims: Mapping[str, Any] | None = None
    """What the token says; None if it does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BacklogEntry(Answer):
    """Events of one type that wait to be published, tried equally often."""

    event_type: str
    attempt_count: int
    events: int
    aggregates: int
    """How many checkouts they are about; aggregates of the host count too."""
    oldest_at: datetime
    last_error: str | None = None
    leased: int
    """How many a relay has just now."""
    parked: int
    """How many are parked, and hold the younger events of their aggregates back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter(Answer):
    """An event that a broker refused too often. It waits for `outbox.replay` or `outbox.discard`."""

    event_id: UUID
    event_type: str
    aggregate_type: str
    aggregate_id: UUID
    attempt_count: int
    error: str
    parked_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Answer):
    """A rule that rows of the database break."""

    invariant: str
    """Which one: docs/guarantees.md."""
    id: str
    """Of what: an order, a line, a product."""
    expected: str | None = None
    found: str | None = None


def one(cls: type[T]) -> Callable[[Any], T]:
    """What reads an answer that is one `cls`."""

    def read(answer: Any) -> T:
        return build(cls, answer)

    read.answer = cls.__name__  # type: ignore[attr-defined]
    return read


def one_or_none(cls: type[T]) -> Callable[[Any], T | None]:
    """What reads an answer that is one `cls`, or null."""

    def read(answer: Any) -> T | None:
        return None if answer is None else build(cls, answer)

    read.answer = f"{cls.__name__} | None"  # type: ignore[attr-defined]
    return read


def several(cls: type[T]) -> Callable[[Any], tuple[T, ...]]:
    """What reads an answer that is a list of `cls`."""

    def read(answer: Any) -> tuple[T, ...]:
        return tuple(build(cls, each) for each in answer)

    read.answer = f"tuple[{cls.__name__}, ...]"  # type: ignore[attr-defined]
    return read


def build(cls: type[T], data: Mapping[str, Any]) -> T:
    """A `cls` from a JSON object: fields by name, nested ones by their type."""
    kind: Any = cls
    built: T = _builder(kind)(data)
    return built


@cache
def _builder(cls: Any) -> Converter:
    """`build` for one class, its fields looked up once."""
    hints = get_type_hints(cls)
    plan = []
    for field in fields(cls):
        convert = _figure(field.default) if field.default in (0, False) else _converter(hints[field.name])
        plan.append((field.name, getattr(cls, field.name).__set__, field.default, convert))

    def from_json(data: Mapping[str, Any]) -> Any:
        # Slot by slot: a frozen dataclass, by its own __init__, takes longer, and a checkout has 255 fields.
        built = cls.__new__(cls)
        for name, put, default, convert in plan:
            if name in data:
                value = data[name]
                put(built, value if convert is None else convert(value))
            elif default is MISSING:
                raise KeyError(f"{cls.__name__}.{name} is missing in the database's answer")
            else:
                put(built, default)
        return built

    return from_json


def _figure(none: int) -> Converter:
    """Of what is 0 or False where there is none: so is null."""
    return lambda value: none if value is None else value


def _converter(hint: Any) -> Converter | None:
    """How JSON becomes a value of this type; None where it is one already."""
    if get_origin(hint) in (Union, UnionType):
        [inner] = [arg for arg in get_args(hint) if arg is not type(None)]
        convert = _converter(inner)
        return convert and (lambda value: None if value is None else convert(value))
    if get_origin(hint) is tuple:
        if get_args(hint)[0] is UUID:
            return lambda values: tuple(map(UUID, values))
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
