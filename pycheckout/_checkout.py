"""The calls, each defined once, and the objects that have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, NotRequired, TypeAlias, TypedDict, Unpack
from uuid import UUID

from . import _arguments as to
from ._calls import AsyncGroup, CallOptions, Sent, SyncGroup, call
from ._connection import AsyncConn, Conn
from ._quotes import Quote
from ._types import (
    ActiveCart,
    BacklogEntry,
    Cart,
    CheckoutResult,
    DeadLetter,
    Expired,
    Finding,
    Order,
    OrderChange,
    OrderPage,
    OrderStep,
    PaymentChange,
    ShippingLine,
    StockLevel,
    StockLevels,
    TokenVerdict,
    build,
    one,
    one_or_none,
    several,
)

ReservationPolicy: TypeAlias = Literal["partial", "vendor", "all"]
"""What a line that is short of stock rejects: itself, its vendor, or everything."""
AdTokenPolicy: TypeAlias = Literal["drop", "error"]
"""What becomes of a cart with a bad ad token: the token is left out, or the cart refused."""

PaymentKind: TypeAlias = Literal["authorized", "captured", "voided", "refunded", "failed", "disputed", "reversed"]
"""What happened to a payment."""


class Decision(TypedDict):
    """What a vendor decides of one line of an order."""

    line_item_id: UUID | str
    accept_qty: int
    """Units, 0 or more, and no more than the line holds."""
    reason: NotRequired[str | None]
    """1 to 1000 characters; required where less is accepted than the line holds."""


def _cart(answer: Any) -> CheckoutResult | ActiveCart:
    if answer["status"] == "converted":
        return build(CheckoutResult, answer)
    return build(ActiveCart, answer)


_cart.answer = "CheckoutResult | ActiveCart"  # type: ignore[attr-defined]


def _text(answer: Any) -> str:
    return str(answer)


def _number(answer: Any) -> int:
    return int(answer)


_text.answer, _number.answer = "str", "int"  # type: ignore[attr-defined]


class CheckoutCalls:
    """Checking out, and reading what a checkout made."""

    called = ""

    @call(
        """\
select {schema}checkout_execute(
  buyer_store_id => %s::uuid,
  cart_id => %s::uuid,
  idempotency_key => %s::text,
  shipping_address => %s::jsonb,
  payment_method => %s::text,
  shipping_line => %s::jsonb,
  ad_token_policy => %s::text,
  reservation_policy => %s::text,
  billing_address => %s::jsonb,
  purchase_order => %s::text,
  metadata => %s::jsonb,
  expires_in => %s::interval
)::text""",
        one(CheckoutResult),
        about="cart_id",
        replays=True,
    )
    def execute(
        self,
        *,
        buyer_store_id: UUID | str,
        cart_id: UUID | str,
        idempotency_key: str,
        shipping_address: Mapping[str, Any],
        payment_method: str,
        shipping_line: ShippingLine | Mapping[str, Any] | None = None,
        ad_token_policy: AdTokenPolicy = "drop",
        reservation_policy: ReservationPolicy = "partial",
        billing_address: Mapping[str, Any] | None = None,
        purchase_order: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        expires_in: timedelta | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """Turn a quoted cart into vendor orders, or replay what that cart became.

        `idempotency_key`: 1 to 255 visible characters, new for each intent of the buyer
        and the same for each retry of it. `shipping_address`: a JSON object with line1,
        city and country at least. `shipping_line`: a `ShippingLine`, or a JSON
        object {code, title, price_cents}, `price_cents` an int in minor units; it is in
        no total, and where the quote has shipping it has to be what the vendors charge
        together.
        `payment_method`: a value of the database's enum (`cash`, `ach`, ...).
        `ad_token_policy`: `drop` leaves bad ad tokens out, `error` refuses the cart.
        `reservation_policy`: what a line that is short of stock rejects, itself
        (`partial`), its vendor (`vendor`) or everything (`all`). `timeout` bounds the
        call, in seconds; `request_id` goes into the log record alone.

        What the orders and the result show beside it is part of what a retry repeats;
        None is none. `billing_address`: as `shipping_address`; None: that one.
        `purchase_order`: the buyer's own number, 1 to 100 visible characters. `metadata`:
        a JSON object of the host's, at most 16 kB and 8 levels. `expires_in`: how long
        each order that has something to pay, and no terms of payment, waits to be paid
        for: above 0, at most 366 days.

        Transaction: with a pool, or an autocommit connection outside a transaction, the
        checkout is committed when this returns; a busy error, and with a pool a lost
        connection, is tried again under the same key: five attempts at most, none begun
        more than about ten seconds after the first. Any other connection belongs to its
        caller, even while it is idle: the checkout becomes part of the caller's
        transaction (in pipeline mode, of what its next sync ends), and after an error the
        caller rolls back. A session of SQLAlchemy is flushed first (unless in
        `no_autoflush`), and refuses to commit after an error that was caught; so does
        Django's `atomic`.

        Raises CartNotFound, CartNotActive, CartExpired, NoOrderableItems, InvalidRequest,
        IdempotencyKeyReused, CartInconsistent, AdTokenInvalid, InsufficientInventory,
        Busy, Unavailable and NotInstalled, all of them `CheckoutError`s. What else psycopg
        raises comes as it is; what is neither a connection nor a pool is a TypeError.
        """
        return (
            to.uuid("buyer_store_id", buyer_store_id),
            to.uuid("cart_id", cart_id),
            to.text("idempotency_key", idempotency_key),
            to.json_text("shipping_address", shipping_address),
            to.text("payment_method", payment_method),
            to.json_text("shipping_line", shipping_line),
            to.text("ad_token_policy", ad_token_policy),
            to.text("reservation_policy", reservation_policy),
            to.json_text("billing_address", billing_address),
            to.text("purchase_order", purchase_order),
            to.json_text("metadata", metadata),
            to.duration("expires_in", expires_in),
        )

    @call(
        "select {schema}checkout_result(buyer_store_id => %s::uuid, cart_id => %s::uuid)::text",
        _cart,
        about="cart_id",
        replays=True,
    )
    def result(self, *, buyer_store_id: UUID | str, cart_id: UUID | str, **options: Unpack[CallOptions]) -> Sent:
        """What became of a cart: its checkout, or an `ActiveCart` while there is none.

        Reads only, in the same transaction as `execute` would use, and is tried again as
        that is. Raises CartNotFound, InvalidRequest, Busy, Unavailable and NotInstalled.
        """
        return to.uuid("buyer_store_id", buyer_store_id), to.uuid("cart_id", cart_id)

    @call(
        "select coalesce(json_agg(found), '[]')::text from {schema}checkout_audit(since => %s::timestamptz) as found",
        several(Finding),
        replays=True,
    )
    def audit(self, since: datetime | None = None, **options: Unpack[CallOptions]) -> Sent:
        """Every rule that rows break, and none if all is well. `since`: orders from then on alone.

        Reads much in one statement: for a large database `pycheckout audit` goes in slices. Raises InvalidRequest,
        Busy, Unavailable, and NotInstalled for a role that may not audit.
        """
        return (to.instant("since", since),)


class QuoteCalls:
    """Writing and reading quotes."""

    called = "quotes"

    @call("select {schema}cart_put(cart => %s::jsonb)::text", one(ActiveCart), about="cart", replays=True)
    def put(self, cart: Mapping[str, Any] | Quote, **options: Unpack[CallOptions]) -> Sent:
        """Write a quote: replace an active cart, its vendor groups and its items.

        `cart` is a `Quote`, or a JSON object as docs/quotes.md describes it, amounts in minor units.
        Same transaction as `execute`, and tried again as that is. Raises CartInconsistent
        with both figures when the amounts do not add up, CartNotFound for another buyer's
        cart, CartNotActive for an abandoned and SnapshotImmutable for a converted one,
        InvalidRequest, Busy, Unavailable and NotInstalled.
        """
        return (to.json_text("cart", cart),)

    @call(
        "select {schema}cart_get(buyer_store_id => %s::uuid, cart_id => %s::uuid)::text",
        one(Cart),
        about="cart_id",
        replays=True,
    )
    def get(self, *, buyer_store_id: UUID | str, cart_id: UUID | str, **options: Unpack[CallOptions]) -> Sent:
        """A buyer's cart with its vendor groups and lines, whatever its status. Its ad tokens are not shown.

        Reads only. Raises CartNotFound for another buyer's cart, InvalidRequest, Busy, Unavailable and NotInstalled.
        """
        return to.uuid("buyer_store_id", buyer_store_id), to.uuid("cart_id", cart_id)


class OrderCalls:
    """Reading vendor orders, and what becomes of them after the checkout."""

    called = "orders"

    @call(
        "select {schema}order_get(order_id => %s::uuid, buyer_store_id => %s::uuid, vendor_store_id => %s::uuid)::text",
        one(Order),
        about="order_id",
        replays=True,
    )
    def get(
        self,
        order_id: UUID | str,
        *,
        buyer_store_id: UUID | str | None = None,
        vendor_store_id: UUID | str | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """An order with its lines, for whoever may see it: its buyer, its vendor, or both where both are given.

        Reads only. Raises OrderNotFound, for another's order too; InvalidRequest if neither is given; Busy,
        Unavailable and NotInstalled.
        """
        return (
            to.uuid("order_id", order_id),
            to.uuid("buyer_store_id", buyer_store_id),
            to.uuid("vendor_store_id", vendor_store_id),
        )

    @call(
        """\
select {schema}orders_list(
  buyer_store_id => %s::uuid, vendor_store_id => %s::uuid, statuses => %s::text[],
  after => %s::text, max_rows => %s::integer, order_number => %s::bigint, purchase_order => %s::text
)::text""",
        one(OrderPage),
        replays=True,
    )
    def list(
        self,
        *,
        buyer_store_id: UUID | str | None = None,
        vendor_store_id: UUID | str | None = None,
        statuses: Sequence[str] | None = None,
        after: str | None = None,
        max_rows: int = 50,
        order_number: int | None = None,
        purchase_order: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """Orders of a buyer or of a vendor, newest first, without their lines.

        `statuses`: of these alone. `max_rows`: 1 to 200 orders a page; `after`: the `after` of the page before.
        `order_number`: the one order that has it. `purchase_order`: those that the buyer's own number stands on,
        exactly as it was given. What is ordered meanwhile moves no page. Reads only. Raises InvalidRequest unless
        there is a buyer or a vendor and not both, and for an unknown status, a cursor that is none, a number below 1
        or a purchase order of other than 1 to 100 characters; Busy, Unavailable and NotInstalled.
        """
        return (
            to.uuid("buyer_store_id", buyer_store_id),
            to.uuid("vendor_store_id", vendor_store_id),
            to.texts("statuses", statuses),
            to.text("after", after),
            to.integer("max_rows", max_rows),
            to.integer("order_number", order_number),
            to.text("purchase_order", purchase_order),
        )

    @call(
        "select {schema}vendor_order_cancel(order_id => %s::uuid, reason => %s::text)::text",
        one(OrderChange),
        about="order_id",
        replays=True,
    )
    def cancel(self, order_id: UUID | str, *, reason: str, **options: Unpack[CallOptions]) -> Sent:
        """Cancel an order that nobody has begun to deliver: its stock is available again, nothing is due any more.

        Canceling it again changes nothing and answers `replayed`. `reason`: 1 to 1000 characters, told in the event.
        Same transaction as `execute`, and tried again as that is. Raises OrderNotFound, OrderStateConflict,
        InvalidRequest, CartInconsistent if a trigger of the host keeps a row from being written, Busy, Unavailable and
        NotInstalled.
        """
        return to.uuid("order_id", order_id), to.text("reason", reason)

    @call(
        """\
select {schema}order_line_release(
  line_id => %s::uuid, reason => %s::text, qty => %s::integer, change_key => %s::text
)::text""",
        one(OrderChange),
        about="line_id",
        replays=True,
    )
    def release(
        self,
        line_id: UUID | str,
        *,
        reason: str,
        qty: int | None = None,
        change_key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """Turn down units of a line that were not delivered: available again, and their amounts come off the order.

        `qty`: how many; None, all that it holds. `change_key`: 1 to 255 visible characters, required with a quantity,
        the same for each retry of one change, which then answers `replayed`. Without either, a line whose last change
        this was does. Transaction, attempts and errors as those of `cancel`, and IdempotencyKeyReused for the key of
        another change.
        """
        return (
            to.uuid("line_id", line_id),
            to.text("reason", reason),
            to.integer("qty", qty),
            to.text("change_key", change_key),
        )

    @call(
        """\
select {schema}order_line_fulfil(
  line_id => %s::uuid, qty => %s::integer, change_key => %s::text, details => %s::jsonb
)::text""",
        one(OrderChange),
        about="line_id",
        replays=True,
    )
    def fulfil(
        self,
        line_id: UUID | str,
        *,
        qty: int | None = None,
        change_key: str | None = None,
        details: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """Mark units of a line as delivered: they are no longer reserved.

        `details`, such as carrier and tracking, travel in the event. Quantity, key, transaction, attempts and errors
        as those of `release`.
        """
        return (
            to.uuid("line_id", line_id),
            to.integer("qty", qty),
            to.text("change_key", change_key),
            to.json_text("details", details),
        )

    @call(
        """\
select {schema}order_line_return(
  line_id => %s::uuid, reason => %s::text, restock => %s::boolean, change_key => %s::text, qty => %s::integer
)::text""",
        one(OrderChange),
        about="line_id",
        replays=True,
    )
    def return_(
        self,
        line_id: UUID | str,
        *,
        reason: str,
        restock: bool,
        change_key: str,
        qty: int | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """Take shipped units of a line back: their amounts come off the order; with `restock` they are available again.

        `qty`: how many; None, all that are out. Key, transaction, attempts and errors as those of `release`.
        """
        return (
            to.uuid("line_id", line_id),
            to.text("reason", reason),
            to.boolean("restock", restock),
            to.text("change_key", change_key),
            to.integer("qty", qty),
        )

    @call(
        """\
select {schema}vendor_order_decide(
  order_id => %s::uuid, decisions => %s::jsonb, change_key => %s::text
)::text""",
        one(OrderChange),
        about="order_id",
        replays=True,
    )
    def decide(
        self,
        order_id: UUID | str,
        decisions: Sequence[Decision] | None = None,
        *,
        change_key: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """A vendor's answer to an order that waits for one. What is not accepted is available again.

        `decisions`: of a line each, `{"line_item_id", "accept_qty", "reason"}`; lines that are not named are accepted
        whole. With decisions a `change_key` is required. Key, transaction, attempts and errors as those of `release`.
        """
        return (
            to.uuid("order_id", order_id),
            to.json_text("decisions", decisions),
            to.text("change_key", change_key),
        )

    @call(
        """\
select {schema}order_adjust(
  order_id => %s::uuid, amount_cents => %s::bigint, reason => %s::text, change_key => %s::text
)::text""",
        one(OrderChange),
        about="order_id",
        replays=True,
    )
    def adjust(
        self, order_id: UUID | str, amount_cents: int, *, reason: str, change_key: str, **options: Unpack[CallOptions]
    ) -> Sent:
        """Add a surcharge to an order, or below 0 a credit, which never makes its total less than 0.

        Key, transaction, attempts and errors as those of `release`.
        """
        return (
            to.uuid("order_id", order_id),
            to.integer("amount_cents", amount_cents),
            to.text("reason", reason),
            to.text("change_key", change_key),
        )

    @call(
        """\
select {schema}order_changes_list(
  order_id => %s::uuid, buyer_store_id => %s::uuid, vendor_store_id => %s::uuid
)::text""",
        several(OrderStep),
        about="order_id",
        replays=True,
    )
    def history(
        self,
        order_id: UUID | str,
        *,
        buyer_store_id: UUID | str | None = None,
        vendor_store_id: UUID | str | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """What happened to an order since its checkout, payments too, oldest first.

        Reads only. Who may ask, and errors, as those of `get`.
        """
        return (
            to.uuid("order_id", order_id),
            to.uuid("buyer_store_id", buyer_store_id),
            to.uuid("vendor_store_id", vendor_store_id),
        )

    @call(
        "select {schema}vendor_order_extend(order_id => %s::uuid, until => %s::timestamptz)::text",
        one(OrderChange),
        about="order_id",
        replays=True,
    )
    def extend(self, order_id: UUID | str, until: datetime, **options: Unpack[CallOptions]) -> Sent:
        """Give an order that waits for its payment until later, at most 366 days away.

        The deadline that it has already changes nothing and answers `replayed`. Raises OrderStateConflict for an order
        that has none or waits no longer. Transaction, attempts and other errors as those of `cancel`.
        """
        return to.uuid("order_id", order_id), to.instant("until", until)

    @call(
        "select {schema}vendor_orders_expire(max_rows => %s::integer)::text",
        one(Expired),
        replays=True,
    )
    def expire(self, max_rows: int = 100, **options: Unpack[CallOptions]) -> Sent:
        """End the orders that were not paid in time, longest due first: their stock is available again.

        At most `max_rows` of them, 1 to 1000: call it again until it answers none. Any number of callers at once. For a
        role with `checkout_grant_operators`. Transaction and attempts as those of `cancel`. Raises InvalidRequest,
        OrderStateConflict if less stock is reserved than the lines hold, CartInconsistent if a trigger of the host
        keeps a row from being written, Busy, Unavailable and NotInstalled.
        """
        return (to.integer("max_rows", max_rows),)


class PaymentCalls:
    """What payment providers told, as records. Nothing is charged here."""

    called = "payments"

    @call(
        """\
select {schema}payment_record(
  order_id => %s::uuid,
  provider => %s::text,
  provider_event_id => %s::text,
  kind => %s::text,
  amount_cents => %s::bigint,
  currency => %s::text,
  occurred_at => %s::timestamptz,
  details => %s::jsonb
)::text""",
        one(PaymentChange),
        about="order_id",
        replays=True,
    )
    def record(
        self,
        order_id: UUID | str,
        *,
        provider: str,
        provider_event_id: str,
        kind: PaymentKind,
        amount_cents: int,
        currency: str,
        occurred_at: datetime | None = None,
        details: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Sent:
        """Record one event of a payment provider for an order, in whatever state the order is.

        `provider`: who told it. `provider_event_id`: its id there. `kind`: `authorized`, `captured`, `voided`,
        `refunded`, `failed`, `disputed` or `reversed`. `amount_cents`: this order's share of it, above 0; one charge
        for a cart of three vendors is three calls. `details`: a JSON object of 16 kB and 8 levels at most, in no event.

        The same event again changes nothing and answers `replayed`; events may come late, twice, and in any order. Same
        transaction as `execute`, and tried again as that is. Raises OrderNotFound, IdempotencyKeyReused if it was
        recorded with another kind or amount, InvalidRequest, CartInconsistent if a trigger of the host keeps a row from
        being written, Busy, Unavailable and NotInstalled.
        """
        return (
            to.uuid("order_id", order_id),
            to.text("provider", provider),
            to.text("provider_event_id", provider_event_id),
            to.text("kind", kind),
            to.integer("amount_cents", amount_cents),
            to.text("currency", currency),
            to.instant("occurred_at", occurred_at),
            to.json_text("details", details),
        )


class StockCalls:
    """Stock of products. Who may change it, the database's owner says by `checkout_grant_stock`."""

    called = "stock"

    @call(
        "select to_json({schema}inventory_set(product_id => %s::uuid, available => %s::integer))::text",
        one(StockLevel),
        about="product_id",
    )
    def set(self, product_id: UUID | str, available: int, **options: Unpack[CallOptions]) -> Sent:
        """Set the units that can be ordered, as counted. What open orders hold is not touched.

        After a lost connection it is Unavailable with `outcome` unknown, and not tried again: a second call would put
        back what was sold since the first. Else same transaction and attempts as `execute`. Raises InvalidRequest,
        CartInconsistent if a trigger of the host keeps a row from being written, Busy, Unavailable and NotInstalled.
        """
        return to.uuid("product_id", product_id), to.integer("available", available)

    @call(
        "select {schema}inventory_set_many(levels => %s::jsonb)::text",
        _number,
    )
    def set_many(self, levels: Mapping[Any, int], **options: Unpack[CallOptions]) -> Sent:
        """`set` for up to 10,000 products at once, all or none; returns how many. `levels`: units by product id.

        Transaction, attempts and errors as those of `set`.
        """
        given = to.mapping("levels", levels)
        listed = [{"product_id": product_id, "available": units} for product_id, units in given.items()]
        return (to.json_text("levels", listed),)

    @call(
        """\
select to_json({schema}inventory_adjust(
  product_id => %s::uuid, delta => %s::integer, change_key => %s::text))::text""",
        one(StockLevel),
        about="product_id",
        replays="change_key",
    )
    def adjust(
        self, product_id: UUID | str, delta: int, *, change_key: str | None = None, **options: Unpack[CallOptions]
    ) -> Sent:
        """Add units, or take them where `delta` is negative, and return the level after that.

        `change_key`: 1 to 255 visible characters, the same for each retry of one change: the second call changes
        nothing. Without the key a lost connection is Unavailable with `outcome` unknown, and not tried again: a second
        call would count the units twice. Same transaction as `execute`. Raises InsufficientInventory if fewer are
        there, IdempotencyKeyReused for a key of another change, InvalidRequest, CartInconsistent, Busy, Unavailable and
        NotInstalled.
        """
        return to.uuid("product_id", product_id), to.integer("delta", delta), to.text("change_key", change_key)

    @call(
        """\
select to_json({schema}inventory_restock(
  product_id => %s::uuid, qty => %s::integer, change_key => %s::text))::text""",
        one(StockLevel),
        about="product_id",
        replays="change_key",
    )
    def restock(
        self, product_id: UUID | str, qty: int, *, change_key: str | None = None, **options: Unpack[CallOptions]
    ) -> Sent:
        """Add units that arrived, one or more. `change_key`, transaction, attempts and errors as those of `adjust`."""
        return to.uuid("product_id", product_id), to.integer("qty", qty), to.text("change_key", change_key)

    @call(
        "select to_json({schema}inventory_split(product_id => %s::uuid, slots => %s::integer))::text",
        one(StockLevel),
        about="product_id",
        replays=True,
    )
    def split(self, product_id: UUID | str, slots: int, **options: Unpack[CallOptions]) -> Sent:
        """Spread the units of a product that many order at once over 1 to 256 rows, so that they do not wait.

        Same transaction as `execute`, and tried again as that is. Errors as those of `set`.
        """
        return to.uuid("product_id", product_id), to.integer("slots", slots)

    @call(
        "select coalesce({schema}inventory_get(product_ids => array[%s::uuid]) -> 'levels' ->> 0, 'null')",
        one_or_none(StockLevel),
        about="product_id",
        replays=True,
    )
    def level(self, product_id: UUID | str, **options: Unpack[CallOptions]) -> Sent:
        """Stock of a product; None where it has no stock row.

        Reads only. Raises InvalidRequest, Busy, Unavailable and NotInstalled.
        """
        return (to.uuid("product_id", product_id),)

    @call("select {schema}inventory_get(product_ids => %s::uuid[])::text", one(StockLevels), replays=True)
    def levels(self, product_ids: Sequence[UUID | str], **options: Unpack[CallOptions]) -> Sent:
        """Stock of up to 10,000 products. Those that have no stock row are not in the answer.

        Reads only. Raises InvalidRequest, Busy, Unavailable and NotInstalled.
        """
        return (to.uuids("product_ids", product_ids),)


class AdCalls:
    """Looking at ad tokens. Signing them is `pycheckout.ads.mint`."""

    called = "ads"

    @call(
        "select {schema}ad_token_check(token => %s::text, buyer_store_id => %s::uuid)::text",
        one(TokenVerdict),
        replays=True,
    )
    def verify(self, token: str, *, buyer_store_id: UUID | str, **options: Unpack[CallOptions]) -> Sent:
        """Whether a checkout of this buyer would count the token now, and if not, why.

        Reads only. Raises InvalidRequest for what is no text, Busy, Unavailable and NotInstalled.
        """
        return to.text("token", token), to.uuid("buyer_store_id", buyer_store_id)


class OutboxCalls:
    """What waits to be published, for operators."""

    called = "outbox"

    @call(
        """\
select coalesce(json_agg(entry order by oldest_at, event_type, attempt_count), '[]')::text
  from {schema}outbox_backlog as entry""",
        several(BacklogEntry),
        replays=True,
    )
    def backlog(self, **options: Unpack[CallOptions]) -> Sent:
        """The events that nobody has published yet, by type and number of attempts, what waits longest first.

        None if nothing waits. Reads only. Raises Busy, Unavailable, and NotInstalled for a role that may not look.
        """
        return ()

    @call(
        """\
select coalesce(json_agg(letter), '[]')::text
  from (select * from {schema}outbox_dead_letters order by parked_at, event_id limit %s::integer) as letter""",
        several(DeadLetter),
        replays=True,
    )
    def dead_letters(self, max_rows: int = 100, **options: Unpack[CallOptions]) -> Sent:
        """Events that a broker refused too often, the oldest first.

        Reads only. Raises InvalidRequest, Busy, Unavailable, and NotInstalled for a role that may not look.
        """
        return (to.integer("max_rows", max_rows),)

    @call("select to_json({schema}outbox_replay(id => %s::uuid))::text", _text, about="event_id")
    def replay(self, event_id: UUID | str, **options: Unpack[CallOptions]) -> Sent:
        """Make an event due now, under the same id, and return what it was: parked, published, waiting, or claimed.

        A claimed one stays as it is: a relay is sending it. Same transaction as `execute`; after a lost connection it
        is not tried again, since the event may have been sent meanwhile. Raises InvalidRequest for what is no event of
        the relay, Busy, Unavailable and NotInstalled.
        """
        return (to.uuid("event_id", event_id),)

    @call(
        "select to_json({schema}outbox_discard(id => %s::uuid, reason => %s::text))::text",
        _text,
        about="event_id",
        replays=True,
    )
    def discard(self, event_id: UUID | str, *, reason: str, **options: Unpack[CallOptions]) -> Sent:
        """Give an event up: it is never sent, and younger events of its aggregate go on. Returns what it was.

        `reason`: why; up to 1000 characters of it stand in `last_error`. Transaction and errors as those of `replay`;
        tried again after a lost connection, and then it was published, as far as that call knows.
        """
        return to.uuid("event_id", event_id), to.text("reason", reason)


class Quotes(QuoteCalls, SyncGroup):
    """`Checkout.quotes`"""


class AsyncQuotes(QuoteCalls, AsyncGroup):
    """`AsyncCheckout.quotes`"""


class Orders(OrderCalls, SyncGroup):
    """`Checkout.orders`"""


class AsyncOrders(OrderCalls, AsyncGroup):
    """`AsyncCheckout.orders`"""


class Payments(PaymentCalls, SyncGroup):
    """`Checkout.payments`"""


class AsyncPayments(PaymentCalls, AsyncGroup):
    """`AsyncCheckout.payments`"""


class Stock(StockCalls, SyncGroup):
    """`Checkout.stock`"""


class AsyncStock(StockCalls, AsyncGroup):
    """`AsyncCheckout.stock`"""


class Ads(AdCalls, SyncGroup):
    """`Checkout.ads`"""


class AsyncAds(AdCalls, AsyncGroup):
    """`AsyncCheckout.ads`"""


class Outbox(OutboxCalls, SyncGroup):
    """`Checkout.outbox`"""


class AsyncOutbox(OutboxCalls, AsyncGroup):
    """`AsyncCheckout.outbox`"""


class Checkout(CheckoutCalls, SyncGroup):
    """What a service holds: the calls, on one connection or pool.

    `conn`: a psycopg connection or pool, a SQLAlchemy `Connection` or `Session` on psycopg, or Django's `connection`.
    `schema`: where pycheckout is installed, if the search_path does not name it.

    What it is made of is kept, not opened or closed, and it is as thread-safe as that: one for a pool serves all
    threads.
    """

    def __init__(self, conn: Conn, *, schema: str | None = None) -> None:
        super().__init__(conn, schema)
        self.quotes = Quotes(conn, schema)
        self.orders = Orders(conn, schema)
        self.payments = Payments(conn, schema)
        self.stock = Stock(conn, schema)
        self.ads = Ads(conn, schema)
        self.outbox = Outbox(conn, schema)


class AsyncCheckout(CheckoutCalls, AsyncGroup):
    """Like `Checkout`, for an async psycopg connection or pool, or SQLAlchemy's AsyncConnection or AsyncSession."""

    def __init__(self, conn: AsyncConn, *, schema: str | None = None) -> None:
        super().__init__(conn, schema)
        self.quotes = AsyncQuotes(conn, schema)
        self.orders = AsyncOrders(conn, schema)
        self.payments = AsyncPayments(conn, schema)
        self.stock = AsyncStock(conn, schema)
        self.ads = AsyncAds(conn, schema)
        self.outbox = AsyncOutbox(conn, schema)


execute = CheckoutCalls.execute.function("execute")
execute_async = CheckoutCalls.execute.async_function("execute_async")
result = CheckoutCalls.result.function("result")
result_async = CheckoutCalls.result.async_function("result_async")
put_cart = QuoteCalls.put.function("put_cart")
put_cart_async = QuoteCalls.put.async_function("put_cart_async")
