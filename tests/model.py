"""What a shop must come to, reckoned in Python alone: carts, stock, orders, changes, payments and deadlines.

A few dictionaries that know what every call of test_state_machine.py must answer, to the unit and to the cent, before
it is made. It follows the rules as they are written down, never what the database says.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from factories import Cart, CartItem

OPEN = ("pending", "accepted", "hold")  # states of lines
ENDED = ("rejected", "delivered", "closed", "canceled", "expired")  # whose carts may be purged
CHANGING = ("created_pending", "accepted", "partially_accepted", "partially_fulfilled", "hold")  # states that follow
CANCELED_FROM = ("created_pending", "accepted", "partially_accepted", "hold")
DECIDED_FROM = ("created_pending", "hold")
CHANGED_FROM = {
    "released": (*CHANGING, "canceled", "expired", "rejected"),
    "fulfilled": (*CANCELED_FROM[:3], "partially_fulfilled", "in_transit", "delivered", "fulfilled"),
    "returned": ("fulfilled", "partially_fulfilled", "in_transit", "delivered", "closed", "canceled"),
}
LINE_ENDS_AS = {"released": "rejected", "fulfilled": "fulfilled"}
OFF = ("released", "decided", "canceled", "expired")  # kinds of changes that give held units back
EVENTS = {kind: f"order_line.{kind}" for kind in CHANGED_FROM} | {
    kind: f"vendor_order.{kind}" for kind in ("decided", "canceled", "adjusted", "extended", "expired")
}

SHORT, BELOW = "insufficient_inventory", "below_minimum"
UNDECIDED = ("unpaid", "failed")  # states of an intent of which nothing is under way
LATER = -1  # a deadline that is not over; those that are count upwards from 0, the longest due first


@dataclass
class Owed:
    """What the quote of one vendor says beyond its lines and discounts."""

    shipping: int | None = None
    shipping_tax: int | None = None
    minimum: int | None = None
    terms: dict[str, Any] | None = None


@dataclass
class CartOwed:
    """The same of a cart, and how long its orders wait to be paid for."""

    is_tax_included: bool = False
    taxes: dict[UUID, int | None] = field(default_factory=dict)
    vendors: dict[UUID, Owed] = field(default_factory=dict)
    expires_in: str | None = None

    def of(self, vendor: UUID) -> Owed:
        return self.vendors.get(vendor, Owed())


@dataclass
class Line:
    product_id: UUID
    vendor: UUID
    qty: int
    subtotal: int
    discount: int
    total: int
    tax: int
    note: str | None = None  # why the checkout rejected it
    status: str = "pending"
    held: int = 0
    fulfilled: int = 0
    released: int = 0
    returned: int = 0
    last: str | None = None  # what the last change did to it: released, fulfilled or returned

    @property
    def out(self) -> int:
        """Units that were shipped and have not come back."""
        return self.fulfilled - self.returned

    @property
    def left(self) -> int:
        """Units that are still ordered: they alone are owed."""
        return self.held + self.out

    def worth(self, amount: int, units: int) -> int:
        """The part of one of its amounts that the first `units` that come off take with them."""
        return amount * units // self.qty

    def left_of(self, amount: int) -> int:
        return amount - self.worth(amount, self.qty - self.left)


@dataclass
class Order:
    cart_id: UUID
    vendor: UUID
    lines: dict[UUID, Line]
    promo: int  # a share that was capped once does not grow again
    owed: Owed
    is_tax_included: bool
    is_taxed: bool  # its quote says something of tax
    status: str = "created_pending"
    host_tax: int = 0
    adjustments: int = 0
    balance: int = 0
    refund_due: int | None = None  # None: no payment was recorded
    intent: int = 0
    intent_status: str = "unpaid"
    deadline: int | None = None
    payments: dict[str, tuple[str, int]] = field(default_factory=dict)
    changes: list[tuple[Any, ...]] = field(default_factory=list)  # kind, lines, amount and key, as the history has them
    keys: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # the call that was made under it, and another

    @property
    def holding(self) -> list[UUID]:
        return [line_id for line_id, line in self.lines.items() if line.held]

    @property
    def is_kept(self) -> bool:
        """Whether anything is left of it, or was ever shipped: else it owes neither shipping nor tax."""
        return any(line.left or line.fulfilled for line in self.lines.values())

    @property
    def merchandise(self) -> int:
        return sum(line.left_of(line.total) for line in self.lines.values())

    @property
    def shipping(self) -> int:
        return (self.owed.shipping or 0) if self.is_kept else 0

    @property
    def shipping_tax(self) -> int:
        return (self.owed.shipping_tax or 0) if self.is_kept else 0

    @property
    def tax(self) -> int:
        lines = sum(line.left_of(line.tax) for line in self.lines.values())
        return lines + self.shipping_tax + (self.host_tax if self.is_kept else 0)

    @property
    def share(self) -> int:
        """Of the promotion: it takes nothing off a tax."""
        return min(self.promo, self.merchandise + self.shipping)

    @property
    def room(self) -> int:
        """What it comes to before adjustments."""
        return self.merchandise - self.share + self.shipping + (0 if self.is_tax_included else self.tax)

    @property
    def total(self) -> int:
        return self.room + self.adjustments

    @property
    def discounts(self) -> int:
        return sum(line.left_of(line.discount) for line in self.lines.values()) + self.share

    @property
    def subtotal(self) -> int:
        return self.merchandise + sum(line.left_of(line.discount) for line in self.lines.values())

    def amounts(self) -> tuple[int, int, int]:
        return self.subtotal, self.discounts, self.total

    def paid(self, *kinds: str) -> int:
        return sum(amount for kind, amount in self.payments.values() if kind in kinds)

    @property
    def captured(self) -> int:
        return self.paid("captured")

    @property
    def refunded(self) -> int:
        return self.paid("refunded", "disputed", "reversed")

    @property
    def authorized(self) -> int:
        """What is still open of the authorisations."""
        return max(self.paid("authorized") - self.paid("voided", "captured"), 0)

    @property
    def may_expire(self) -> bool:
        was_shipped = any(line.fulfilled for line in self.lines.values())
        is_paid = self.captured or self.paid("authorized") > self.paid("voided")
        return self.balance > 0 and self.intent_status in UNDECIDED and not is_paid and not was_shipped

    def take(self, kind: str, units: dict[UUID, int]) -> list[dict[str, Any]]:
        """Move units of lines; returns, as the history has it, what that takes off the order."""
        told: list[dict[str, Any]] = []
        for line_id, qty in sorted(units.items()):
            line = self.lines[line_id]
            off = line.qty - line.left
            if kind == "returned":
                line.returned += qty
            elif kind == "fulfilled":
                line.held, line.fulfilled = line.held - qty, line.fulfilled + qty
            else:
                line.held, line.released = line.held - qty, line.released + qty
            if kind != "returned" and not line.held:
                line.status = "fulfilled" if line.fulfilled else "rejected"
            elif kind == "decided":
                line.status = "accepted"
            counter = "released" if kind in OFF else kind
            if qty:
                line.last = counter
            amounts = {"total": line.total, "discount": line.discount, "tax": line.tax}
            parts = {f"{name}_cents": line.worth(of, off + qty) - line.worth(of, off) for name, of in amounts.items()}
            told.append({"line_item_id": str(line_id), f"{counter}_qty": qty} | ({} if kind == "fulfilled" else parts))
        return told

    def adjust(self, kind: str, amount: int) -> int | None:
        """Add an amount; a credit is cut to what is left. Returns what the history says of it."""
        before = self.adjustments
        self.adjustments = max(before + amount, -self.room)
        if kind == "expired" and self.room == 0:
            self.adjustments = 0
        return self.adjustments - before or None

    def follow(self, kind: str) -> None:
        """The state that a change leaves it in."""
        held = sum(line.held for line in self.lines.values())
        fulfilled = sum(line.fulfilled for line in self.lines.values())
        if kind in ("canceled", "expired"):
            self.status = kind
        elif kind not in ("released", "fulfilled", "decided") or self.status not in CHANGING:
            pass
        elif not held:
            self.status = "fulfilled" if fulfilled else "rejected"
        elif fulfilled:
            self.status = "partially_fulfilled"
        elif kind == "decided" and not any(line.released for line in self.lines.values()):
            self.status = "accepted"
        elif kind == "decided" or self.status == "accepted":
            self.status = "partially_accepted"

    def bill(self, before: int) -> None:
        """What is due once the total is no longer what it was before."""
        if self.total != before:
            asks_for_the_rest = self.intent == self.balance
            self.balance = max(self.balance + self.total - before, 0)
            if self.intent_status in ("settled", "paid"):  # its amount is what came
                self.balance = min(self.balance, max(self.total - self.intent, 0))
            if self.intent_status in UNDECIDED:
                self.intent = self.balance if asks_for_the_rest else self.total
        self.settle()

    def settle(self) -> None:
        """What is due, and the state of its intent, by the sums of its payments, if there are any."""
        if not self.payments:
            return
        is_paid = self.captured > 0 and self.captured >= self.total
        self.balance = max(self.total - self.captured, 0)
        self.refund_due = max(self.captured - self.refunded - self.total, 0)
        if is_paid:
            self.deadline = None
        if self.intent_status == "paid":  # the host's word
            pass
        elif is_paid:
            self.intent_status = "settled"
        elif self.captured or self.authorized:
            self.intent_status = "pending"
        else:
            has_failed = any(kind == "failed" for kind, _ in self.payments.values())
            self.intent_status = "failed" if has_failed else "unpaid"
        if self.intent_status in UNDECIDED:
            self.intent = self.total
        else:
            self.intent = max(self.intent, self.total - self.balance)


@dataclass
class Model:
    available: Counter[UUID] = field(default_factory=Counter)
    slots: dict[UUID, int] = field(default_factory=dict)
    carts: dict[UUID, Cart] = field(default_factory=dict)
    owed: dict[UUID, CartOwed] = field(default_factory=dict)
    expired: set[UUID] = field(default_factory=set)
    converted: dict[UUID, dict[str, Any]] = field(default_factory=dict)  # the first answer
    orders: dict[UUID, Order] = field(default_factory=dict)
    keys: dict[tuple[UUID, str], tuple[UUID, str, str | None]] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    erased: set[UUID] = field(default_factory=set)
    wrong: dict[UUID, str] = field(default_factory=dict)  # carts with a wrong figure, and what mends it
    anchors: dict[UUID, UUID] = field(default_factory=dict)  # of carts, active ones too
    foreign: dict[UUID, UUID] = field(default_factory=dict)  # orders of the host's, and the anchor they stand under
    gifts: dict[UUID, str] = field(default_factory=dict)  # lines of the host's in our orders
    seen: Counter[str] = field(default_factory=Counter)  # what the last conversion met
    serial: int = 0

    def next(self) -> int:
        """A number that was not there yet: of a change key, a payment event, a deadline that is over."""
        self.serial += 1
        return self.serial

    # checkouts

    def orderable(self, cart: Cart) -> list[CartItem]:
        """In the order in which they are offered stock."""
        good = {group.vendor_store_id for group in cart.groups if group.status == "ok"}
        found = [item for item in cart.items if item.status == "ok" and item.vendor_store_id in good]
        return sorted(found, key=lambda item: (item.product_id, item.id))

    def below_minimum(self, cart: Cart, items: list[CartItem]) -> set[UUID]:
        """Vendors whose share of these lines comes to something, but to less than their minimum."""
        merchandise: Counter[UUID] = Counter()
        for item in items:
            merchandise[item.vendor_store_id] += item.line_total_cents
        least = {vendor: self.owed[cart.id].of(vendor).minimum or 0 for vendor in merchandise}
        return {vendor for vendor, total in merchandise.items() if total < least[vendor]}

    def rejected(self, cart: Cart, policy: str) -> dict[UUID, str]:
        """Lines that a checkout would reject, and why.

        Each takes its units whole or not at all, from what the lines before it left. What a minimum frees is offered
        once more, and then the minimums are judged once more, and never again; what the policy `vendor` frees, to
        vendors whole.
        """
        left, notes = self.available.copy(), {}
        lines = self.orderable(cart)

        def reject(vendors: set[UUID], note: str) -> list[CartItem]:
            ended = [item for item in lines if item.vendor_store_id in vendors and item.id not in notes]
            notes.update((item.id, note) for item in ended)
            return ended

        def kept() -> list[CartItem]:
            return [item for item in lines if item.id not in notes]

        reject(self.below_minimum(cart, lines), BELOW)
        for item in kept():
            if item.quantity <= left[item.product_id]:
                left[item.product_id] -= item.quantity
            else:
                notes[item.id] = SHORT
        if policy == "vendor":
            short = {item.vendor_store_id for item in lines if notes.get(item.id) == SHORT}
            for item in reject(short, SHORT):
                left[item.product_id] += item.quantity
            for vendor in sorted(short, key=lambda each: min(it.id for it in lines if it.vendor_store_id == each)):
                own = [item for item in lines if item.vendor_store_id == vendor and notes[item.id] == SHORT]
                rest = left.copy()
                for item in own:
                    rest[item.product_id] -= item.quantity
                if min(rest.values()) >= 0:
                    left = rest
                    for item in own:
                        del notes[item.id]
                    self.seen["offered once more to a vendor"] += 1
            return notes

        ended = self.below_minimum(cart, kept())
        for item in reject(ended, BELOW):
            left[item.product_id] += item.quantity
        for item in lines:
            is_offered = bool(ended) and notes.get(item.id) == SHORT and item.vendor_store_id not in ended
            if is_offered and item.quantity <= left[item.product_id]:
                left[item.product_id] -= item.quantity
                del notes[item.id]
                self.seen["offered once more"] += 1
        if reject(self.below_minimum(cart, kept()), BELOW):
            self.seen["offered once more in vain"] += 1
        return notes

    def erase(self, cart_id: UUID) -> None:
        """Its keys go, and none is bound to it any more; so do the reasons of vendors."""
        self.erased.add(cart_id)
        for order in self.orders.values():
            for part in (part for change in order.changes for part in change[1] if order.cart_id == cart_id):
                part.update({"reason": None} if "reason" in part else {})
        self.keys = {key: bound for key, bound in self.keys.items() if bound[0] != cart_id}

    def refusal(self, cart: Cart, key: str, policy: str, expires_in: str | None) -> str | None:
        bound = self.keys.get((cart.buyer_store_id, key))
        if bound and bound != (cart.id, policy, expires_in):
            return "OC006"
        if cart.id in self.converted:
            return None
        if cart.id in self.expired:
            return "OC003"
        if self.anchors.get(cart.id) in self.foreign.values():
            return "OC007"
        if cart.id in self.wrong:
            return "OC007"
        lines = self.orderable(cart)
        if not lines:
            return "OC004"
        below = self.below_minimum(cart, lines)
        if policy == "all" and (below or self.rejected(cart, policy)):
            return "OC010"
        if below == {item.vendor_store_id for item in lines}:
            return "OC004"
        return None

    def convert(self, cart: Cart, policy: str, expires_in: str | None) -> None:
        self.seen.clear()
        notes, owed = self.rejected(cart, policy), self.owed[cart.id]
        self.seen.update(notes.values())
        for group in cart.groups:
            items = [item for item in self.orderable(cart) if item.vendor_store_id == group.vendor_store_id]
            if not items:
                continue
            lines = {
                item.id: Line(
                    item.product_id,
                    item.vendor_store_id,
                    item.quantity,
                    item.line_subtotal_cents,
                    item.line_discounts_cents,
                    item.line_total_cents,
                    owed.taxes.get(item.id) or 0,
                )
                for item in items
            }
            for line_id, line in lines.items():
                line.note = notes.get(line_id)
                if line.note:
                    line.status, line.released = "rejected", line.qty
                else:
                    line.held = line.qty
                    self.available[line.product_id] -= line.qty
            of_vendor = owed.of(group.vendor_store_id)
            is_taxed = of_vendor.shipping_tax is not None or any(owed.taxes.get(item.id) is not None for item in items)
            order = Order(
                cart.id, group.vendor_store_id, lines, group.promo_cents, of_vendor, owed.is_tax_included, is_taxed
            )
            order.promo = order.share
            order.balance = order.intent = order.total
            if not order.is_kept:
                order.status = "rejected"
            if expires_in and order.total and not of_vendor.terms:
                order.deadline = LATER
            self.orders[group.id] = order
        self.events.update(["checkout.converted", "checkout.vendor_orders_created"])

    # what becomes of orders

    def change(
        self,
        order: Order,
        kind: str,
        units: dict[UUID, int],
        *,
        amount: int = 0,
        key: str | None = None,
        restock: bool | None = None,
        reasons: dict[UUID, str | None] | None = None,
    ) -> None:
        """Units of lines are turned down, shipped or come back, the total is adjusted, the order ends."""
        before = order.total
        told = order.take(kind, units)
        for step in told:
            line = UUID(step["line_item_id"])
            if restock is not None:
                step["restocked_qty"] = units[line] if restock else 0
            if reasons is not None:
                step["reason"] = reasons[line]
            if kind in OFF or restock:
                self.available[order.lines[line].product_id] += units[line]
        adjusted = order.adjust(kind, amount)
        order.promo = order.share
        order.follow(kind)
        if kind == "expired":
            order.deadline = None
        order.bill(before)
        order.changes.append((kind, told, adjusted, key))
        self.events[EVENTS[kind]] += 1

    def pay(self, order: Order, event: str, kind: str, amount: int) -> None:
        order.payments[event] = (kind, amount)
        order.settle()
        self.events["payment.changed"] += 1

    def expire(self, most: int) -> tuple[list[UUID], list[UUID]]:
        """Ends what was to be paid by now, the longest due first; what may not expire loses its deadline."""
        due = [
            order_id
            for order_id, order in self.orders.items()
            if order.status == "created_pending" and order.deadline not in (None, LATER)
        ]
        due = sorted(due, key=lambda order_id: self.orders[order_id].deadline or 0)[:most]
        ended = sorted(order_id for order_id in due if self.orders[order_id].may_expire)
        kept = [order_id for order_id in due if order_id not in ended]
        for order_id in kept:
            self.orders[order_id].deadline = None
        for order_id in ended:
            order = self.orders[order_id]
            self.change(order, "expired", {line_id: order.lines[line_id].held for line_id in order.holding})
        return ended, kept

    def faults(self) -> Any:
        """What the audit must name.

        Stock that a host's word has ended, orders of others under our anchors, and payments that cannot be right.
        """
        ours = {UUID(answer["checkout_group_id"]) for answer in self.converted.values()}
        yield from (("anchor_has_its_own_orders_alone", key) for key, anchor in self.foreign.items() if anchor in ours)
        for order_id, order in self.orders.items():
            if order.status in ("rejected", "fulfilled", "canceled", "expired") and order.holding:
                yield "ended_order_holds_nothing", order_id
            for line_id in order.holding:
                if order.lines[line_id].status in ("rejected", "fulfilled"):
                    yield "ended_line_holds_nothing", line_id
            if order.refunded > order.captured:
                yield "refunds_are_of_what_was_captured", order_id
            if order.paid("voided") < order.paid("authorized") < order.captured:
                yield "captures_are_of_what_was_authorized", order_id
