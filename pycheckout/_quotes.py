"""A quote in Python, whose sums are made here, once, by who quotes.

Each field is that of the quote's JSON in docs/quotes.md and docs/quote.schema.json. What is None is left out. A quote
refuses what it cannot add up or write. Whether it is right, `quotes.put` says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from . import _arguments as to
from ._types import CheckoutWarning, PaymentTerms, Promo, TaxLine, VendorShippingLine, VolumeDiscount

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a quote.

    Net, its discount is in `unit_price_cents`. Gross, `line_discounts_cents` comes off its subtotal, and
    `line_total_cents` is what is left.
    """

    id: UUID | str | None = None
    """The id of the order's line; None: the database makes one."""
    product_id: UUID | str
    title: str = ""
    """The name on the order."""
    category: str = ""
    unit: str | None = None
    """What one of `quantity` is; None: nothing is said, or the first value where the database has an enum of units."""
    quantity: int
    """1 or more."""
    moq: int = 1
    """The least quantity that the vendor sells."""
    max_qty: int | None = None
    """The most; None: as many as there are."""
    unit_price_cents: int
    """Of one, in minor units of the quote's currency."""
    line_discounts_cents: int | None = None
    """What comes off the whole line, in minor units; None: a net line."""
    tax_cents: int | None = None
    """The tax on the whole line, after its discounts; None: none."""
    tax_lines: Sequence[TaxLine] | None = None
    """What `tax_cents` is made of: they sum to it."""
    applied_volume_discount: VolumeDiscount | None = None
    """Describes a price; it is never taken off again."""
    warnings: Sequence[CheckoutWarning] = ()
    """For the buyer; copied to the order."""
    status: str = "ok"
    """Only an ok line is ordered."""

    @property
    def line_subtotal_cents(self) -> int:
        """Quantity times price."""
        return self.quantity * self.unit_price_cents

    @property
    def line_total_cents(self) -> int | None:
        """Subtotal less discounts; None on a net line."""
        return None if self.line_discounts_cents is None else self.line_subtotal_cents - self.line_discounts_cents


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorGroup:
    """What a quote has of one vendor. Its sums are over its ok lines."""

    id: UUID | str | None = None
    """The id of the vendor's order; None: the database makes one."""
    vendor_store_id: UUID | str
    status: str = "ok"
    """Only of an ok group something is ordered."""
    promo: Promo | None = None
    """`promo.amount_cents` comes off the group's total."""
    shipping_cents: int | None = None
    """What the vendor charges for shipping this order; None: nothing."""
    shipping_tax_cents: int | None = None
    """The tax on that."""
    shipping_line: VendorShippingLine | None = None
    """What shipping that is."""
    minimum_cents: int | None = None
    """The least that an order of this vendor may come to, after line discounts, before the promotion."""
    payment_terms: PaymentTerms | None = None
    """When the order is to be paid; None: at once."""
    warnings: Sequence[CheckoutWarning] = ()
    """For the buyer; copied to the order."""
    items: Sequence[Line]
    _tax_included: bool = field(default=False, init=False, repr=False, compare=False)
    # What its quote says: of a group alone, tax is added.

    @property
    def subtotal_cents(self) -> int:
        """Of the ok lines, before discounts."""
        return sum(line.line_subtotal_cents for line in self._ok)

    @property
    def line_discounts_cents(self) -> int:
        """What the ok lines' own discounts take off."""
        return sum(line.line_discounts_cents or 0 for line in self._ok)

    @property
    def promo_discount_cents(self) -> int:
        """What the promotion takes off."""
        return (self.promo.amount_cents or 0) if self.promo else 0

    @property
    def discounts_cents(self) -> int:
        """Of lines and promotion."""
        return self.line_discounts_cents + self.promo_discount_cents

    @property
    def total_cents(self) -> int:
        """What the buyer pays this vendor: with shipping, and with tax unless the quote's prices include it."""
        shipped = self.subtotal_cents - self.discounts_cents + (self.shipping_cents or 0)
        return shipped if self._tax_included else shipped + self._tax_cents

    @property
    def _tax_cents(self) -> int:
        return sum(line.tax_cents or 0 for line in self._ok) + (self.shipping_tax_cents or 0)

    @property
    def _ok(self) -> list[Line]:
        return [line for line in self.items if line.status == "ok"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """What `quotes.put` writes. Its sums are over its ok groups.

    Raises InvalidRequest, with the path to the field, where a part or an amount is of another type, and for a
    `valid_until` without a time zone.
    """

    id: UUID | str
    """The cart's id, a UUIDv7 best, so that indexes grow at their right end."""
    buyer_store_id: UUID | str
    currency: str
    """ISO 4217, three capital letters: says what a minor unit is."""
    valid_until: datetime
    """Aware. From then on it cannot be checked out."""
    shipping_address: Mapping[str, Any] | None = None
    """A first guess; the checkout confirms one."""
    ad_tokens: Sequence[str] | None = None
    """Signed tokens of the ads that the buyer saw or clicked: docs/ads.md."""
    tax_included: bool | None = None
    """True: prices include their tax, which only informs and is not added. None: no."""
    vendor_groups: Sequence[VendorGroup]

    def __post_init__(self) -> None:
        _check(self)
        told = [_told(each, tax_included=bool(self.tax_included)) for each in self.vendor_groups]
        if any(one is not other for one, other in zip(told, self.vendor_groups, strict=True)):
            object.__setattr__(self, "vendor_groups", told)

    @property
    def subtotal_cents(self) -> int:
        """Before discounts."""
        return sum(group.subtotal_cents for group in self._ok)

    @property
    def discounts_cents(self) -> int:
        """Of lines and promotions."""
        return sum(group.discounts_cents for group in self._ok)

    @property
    def total_cents(self) -> int:
        """What the buyer pays."""
        return sum(group.total_cents for group in self._ok)

    @property
    def _ok(self) -> list[VendorGroup]:
        return [group for group in self.vendor_groups if group.status == "ok"]

    def to_json(self) -> dict[str, Any]:
        """The object that `cart_put` takes, sums included; `quotes.put` takes the quote itself."""
        written = _written(self)
        assert isinstance(written, dict)
        return written


def _check(quote: Quote) -> None:
    """Refuse what is not of the type that sums are made of, before any is made."""
    to.instant("cart.valid_until", quote.valid_until)
    to.boolean("cart.tax_included", quote.tax_included)
    for group, path in _parts("cart.vendor_groups", quote.vendor_groups, VendorGroup):
        _check_whole(path, group, "shipping_cents", "shipping_tax_cents")
        if group.promo is not None:
            _check_is(f"{path}.promo", group.promo, Promo)
            _check_whole(f"{path}.promo", group.promo, "amount_cents")
        for line, place in _parts(f"{path}.items", group.items, Line):
            _check_whole(place, line, "quantity", "unit_price_cents", is_required=True)
            _check_whole(place, line, "line_discounts_cents", "tax_cents")


def _parts(path: str, parts: Sequence[T], kind: type[T]) -> Iterator[tuple[T, str]]:
    if isinstance(parts, str | bytes) or not isinstance(parts, Sequence):
        raise to.invalid(path, f"must be a list, not {type(parts).__name__}")
    for place, part in enumerate(parts):
        _check_is(f"{path}[{place}]", part, kind)
        yield part, f"{path}[{place}]"


def _check_is(path: str, value: object, kind: type[object]) -> None:
    if not isinstance(value, kind):
        raise to.invalid(path, f"must be a {kind.__name__}, not {type(value).__name__}")


def _check_whole(path: str, part: object, *names: str, is_required: bool = False) -> None:
    for name in names:
        if to.integer(f"{path}.{name}", getattr(part, name)) is None and is_required:
            raise to.invalid(f"{path}.{name}", "is required")


to.json_value.register(Quote, Quote.to_json)


def _told(group: VendorGroup, *, tax_included: bool) -> VendorGroup:
    """The group itself if it knows, else a copy that does: it may stand in another quote as well."""
    if group._tax_included != tax_included:
        group = copy(group)
        object.__setattr__(group, "_tax_included", tax_included)
    return group


def _written(value: object) -> object:
    if isinstance(
        value,
        Quote
        | VendorGroup
        | Line
        | Promo
        | VolumeDiscount
        | CheckoutWarning
        | TaxLine
        | VendorShippingLine
        | PaymentTerms,
    ):
        names = [each.name for each in fields(value) if each.name[0] != "_"]
        names += [name for name, of in vars(type(value)).items() if isinstance(of, property) and name[0] != "_"]
        found = {name: _written(getattr(value, name)) for name in names}
        return {name: each for name, each in found.items() if each is not None}
    if isinstance(value, list | tuple):
        return [_written(each) for each in value]
    return value
