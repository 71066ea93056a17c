"""Tax, shipping, minimums, terms and what a buyer notes: from the quote to the orders, to the cent."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from events import validate
from psycopg.types.json import Jsonb

import pycheckout
from checks import level, refused, row, rows, values
from factories import ADDRESS
from pycheckout import (
    CartInconsistent,
    IdempotencyKeyReused,
    InsufficientInventory,
    InvalidRequest,
    Line,
    NoOrderableItems,
    PaymentTerms,
    Promo,
    Quote,
    TaxLine,
    VendorGroup,
    VendorShippingLine,
)

pytest_plugins = ["shared"]


@pytest.fixture
def db(undone_if_alone):
    return undone_if_alone


BUYER, CART = UUID(int=1), UUID(int=2)
A, B, C = UUID(int=0xA), UUID(int=0xB), UUID(int=0xC)
BILLING = {"line1": "1 Bank Street", "city": "Tulsa", "country": "US"}
NET30 = PaymentTerms(code="net30", net_days=30)
REQUEST: dict[str, Any] = {
    "buyer_store_id": BUYER,
    "cart_id": CART,
    "idempotency_key": "k1",
    "shipping_address": ADDRESS,
    "payment_method": "ach",
}


def line(number: int, cents: int, tax: int | None = None, quantity: int = 1, product: int | None = None) -> Line:
    """The line `number`, of product `product`, or of one of its own; of `cents` altogether."""
    return Line(
        id=UUID(int=100 + number),
        product_id=UUID(int=200 + (product or number)),
        title=f"Line {number}",
        quantity=quantity,
        unit_price_cents=cents // quantity,
        tax_cents=tax,
    )


def group(vendor: UUID, *lines: Line, promo: int | None = None, **fields: Any) -> VendorGroup:
    promotion = None if promo is None else Promo(code="SPRING", amount_cents=promo)
    return VendorGroup(vendor_store_id=vendor, items=lines, promo=promotion, **fields)


def quote(*groups: VendorGroup, **fields: Any) -> Quote:
    return Quote(
        id=CART,
        buyer_store_id=BUYER,
        currency="USD",
        valid_until=datetime(2999, 1, 1, tzinfo=UTC),
        vendor_groups=groups,
        **fields,
    )


def put(conn: psycopg.Connection, made: Quote, stock: dict[int, int] | None = None) -> pycheckout.ActiveCart:
    """Write it. `stock`: units of products by number, where they are not plenty."""
    for each in (each for vendor in made.vendor_groups for each in vendor.items):
        units = (stock or {}).get(UUID(str(each.product_id)).int - 200, 100)
        conn.execute("select inventory_set(%s, %s)", (each.product_id, units))
    return pycheckout.put_cart(conn, made)


def written(made: Quote, **totals: int) -> Jsonb:
    """The quote as JSON, its first group with other figures than its own."""
    body = made.to_json()
    body["vendor_groups"][0] |= totals
    for name in ("subtotal_cents", "discounts_cents", "total_cents"):
        del body[name]
    return Jsonb(
        json.loads(json.dumps(body, default=lambda it: it.isoformat() if isinstance(it, datetime) else str(it)))
    )


def ordered(conn: psycopg.Connection, **more: Any) -> pycheckout.CheckoutResult:
    """The first answer, which every replay repeats but for `replayed`."""
    first = pycheckout.execute(conn, **REQUEST, **more)
    assert replace(pycheckout.result(conn, buyer_store_id=BUYER, cart_id=CART), replayed=False) == first
    return first


def orders(result: pycheckout.CheckoutResult) -> dict[UUID, pycheckout.VendorOrder]:
    return {order.vendor_store_id: order for order in result.vendor_orders}


def owed(order: pycheckout.VendorOrder) -> tuple[int, ...]:
    """Subtotal, discounts, tax, shipping, total."""
    return (
        order.subtotal_cents,
        order.discounts_cents,
        order.tax_cents,
        order.transport_fee_cents,
        order.total_cents,
    )


def notes(order: pycheckout.VendorOrder) -> list[str | None]:
    return [item.notes for item in order.items]


@pytest.fixture(autouse=True)
def valid_events(db):
    """The events of whatever was checked out are valid; conftest.py audits its rows."""
    yield
    for payload in values(db, "select payload from outbox_events"):
        validate(payload)


# Tax and shipping

BOTH = (
    group(A, line(1, 1000, 83), line(2, 500, 41), shipping_cents=80, shipping_tax_cents=7),
    group(
        B, line(3, 2000, 165), promo=300, shipping_cents=120, shipping_line=VendorShippingLine(code="van", title="Van")
    ),
)


@pytest.mark.parametrize(
    ("included", "a", "b", "total"),
    [
        (False, (1500, 0, 131, 80, 1711), (2000, 300, 165, 120, 1985), 3696),
        (True, (1500, 0, 131, 80, 1580), (2000, 300, 165, 120, 1820), 3400),
    ],
)
def test_tax_and_shipping_are_copied_to_the_cent(db, included, a, b, total):
    active = put(db, quote(*BOTH, tax_included=included))
    result = ordered(db)

    found = orders(result)
    assert (owed(found[A]), owed(found[B])) == (a, b)
    assert (found[A].shipping_tax_cents, found[B].shipping_tax_cents) == (7, 0)
    assert (found[A].vendor_shipping_line, found[B].vendor_shipping_line) == (
        None,
        VendorShippingLine(code="van", title="Van"),
    )
    assert [item.tax_cents for order in result.vendor_orders for item in order.items] == [83, 41, 165]
    sums = pycheckout.Amounts(
        subtotal_cents=3500, discounts_cents=300, tax_cents=296, transport_fee_cents=200, total_cents=total
    )
    assert active.totals.quoted == result.totals.quoted == result.totals.confirmed == sums
    assert [order.payment_intent.amount_cents for order in result.vendor_orders] == [a[-1], b[-1]]
    assert {result.tax_included, *(order.tax_included for order in result.vendor_orders)} == {included}


def test_a_replay_is_the_first_answer_but_for_replayed(db):
    put(db, quote(*BOTH))
    more = {"billing_address": BILLING, "purchase_order": "PO-1", "metadata": {"a": 1}, "expires_in": timedelta(days=1)}
    first = pycheckout.execute(db, **REQUEST, **more)
    again = pycheckout.execute(db, **REQUEST, **more)
    other = pycheckout.execute(db, **(REQUEST | {"idempotency_key": "k2"}))

    assert (first.replayed, again.replayed, other.replayed) == (False, True, True)
    assert replace(again, replayed=False) == replace(other, replayed=False) == first
    assert replace(pycheckout.result(db, buyer_store_id=BUYER, cart_id=CART), replayed=False) == first
    for order in first.vendor_orders:
        shown = pycheckout.Checkout(db).orders.get(order.order_id, buyer_store_id=BUYER)
        assert (owed(shown), shown.purchase_order, shown.expires_at) == (owed(order), "PO-1", order.expires_at)


def test_tax_lines_travel_to_the_order_and_sum_to_the_tax(db):
    taxes = [TaxLine(code="state", rate="0.0625", amount_cents=63), TaxLine(code="city", rate="0.02", amount_cents=20)]
    put(db, quote(group(A, replace(line(1, 1000, 83), tax_lines=taxes))))
    [order] = ordered(db).vendor_orders
    assert order.items[0].tax_lines == tuple(taxes)


@pytest.mark.parametrize(
    ("tax", "lines", "included", "expected"),
    [
        (83, [63, 21], False, 84),
        (-1, None, False, "at least 0"),
        (1001, None, True, "0 to 1000"),
    ],
)
def test_a_tax_that_is_none_is_refused_with_both_figures(db, tax, lines, included, expected):
    taxes = lines and [TaxLine(code="t", amount_cents=cents) for cents in lines]
    with pytest.raises(CartInconsistent) as caught:
        put(db, quote(group(A, replace(line(1, 1000, tax), tax_lines=taxes)), tax_included=included))
    assert (caught.value.detail["problem"], caught.value.detail["expected"]) == ("line_tax", expected)
    assert caught.value.detail["found"] == tax


@pytest.mark.parametrize("beside", [(), (line(2, 500, 41),)])
def test_tax_lines_alone_only_describe(db, beside):
    described = replace(line(1, 1000), tax_lines=[TaxLine(code="t", amount_cents=83)])
    put(db, quote(group(A, described, *beside)))
    [order] = ordered(db).vendor_orders
    assert order.items[0].tax_lines == (TaxLine(code="t", amount_cents=83),)
    assert order.tax_cents == sum(each.tax_cents for each in beside)


def test_a_shipping_line_alone_is_copied(db):
    van = VendorShippingLine(code="van", title="By van")
    put(db, quote(group(A, line(1, 1000), shipping_line=van)))
    [order] = ordered(db).vendor_orders
    assert (order.vendor_shipping_line, owed(order)) == (van, (1000, 0, 0, 0, 1000))


def test_a_line_that_is_short_takes_its_own_tax_and_no_more(db):
    """A 1190 with 190 of tax, B 595 with 95, both included: with A short, 595 is owed."""
    put(db, quote(group(A, line(1, 1190, 190), line(2, 595, 95)), tax_included=True), {1: 0})
    [order] = ordered(db).vendor_orders
    assert owed(order) == (595, 0, 95, 0, 595)


def test_a_line_that_is_short_takes_its_added_tax(db):
    put(db, quote(group(A, line(1, 1000, 190), line(2, 500, 95), shipping_cents=80, shipping_tax_cents=15)), {1: 0})
    [order] = ordered(db).vendor_orders
    assert owed(order) == (500, 0, 110, 80, 690)
    assert [(item.status, item.tax_cents, item.released_qty) for item in order.items] == [
        ("rejected", 190, 1),
        ("pending", 95, 0),
    ]


@pytest.mark.parametrize("by", ["cart_put", "tables"])
def test_a_forgotten_tax_included_is_refused_with_both_figures(db, by):
    """Lines of 1190 and 595 that hold their tax, as if it were added: no promotion of 285 is known."""
    made = quote(group(A, line(1, 1190, 190), line(2, 595, 95)))
    if by == "cart_put":
        with refused("OC007") as refusal:
            db.execute("select cart_put(%s)", [written(made, total_cents=1785)])
        assert refusal.detail["field"] == "cart.vendor_groups[0].total_cents"
    else:
        put(db, replace(made, tax_included=True))
        db.execute("update cart_records set tax_included = false where id = %s", [CART])
        with refused("OC007") as refusal:
            db.execute("select checkout_execute(%s, %s, 'k', %s, 'ach')", (BUYER, CART, Jsonb(ADDRESS)))
    assert {name: refusal.detail[name] for name in ("problem", "expected", "found")} == {
        "problem": "vendor_total",
        "expected": 2070,
        "found": 1785,
    }


def test_a_promotion_is_capped_at_merchandise_and_shipping_that_are_left(db):
    """A 1000 with 80 of tax is short, B 500 with 40 stays: of a promotion of 700 it leaves the tax, 40 and not 0."""
    put(db, quote(group(A, line(1, 1000, 80), line(2, 500, 40), promo=700)), {1: 0})
    [order] = ordered(db).vendor_orders
    assert owed(order) == (500, 500, 40, 0, 40)
    assert [warning.type for warning in order.warnings] == ["promo_capped"]
    assert row(db, "select promo_discount_cents from vendor_orders") == {"promo_discount_cents": 500}


def test_a_promotion_takes_shipping_too_and_no_tax(db):
    made = quote(group(A, line(1, 1000, 80), promo=1100, shipping_cents=100, shipping_tax_cents=9))
    with refused("OC007") as refusal:  # one cent of the tax as well
        db.execute("select cart_put(%s)", [written(made, total_cents=88)])
    assert (refusal.detail["expected"], refusal.detail["found"]) == (89, 88)

    put(db, made)
    [order] = ordered(db).vendor_orders
    assert owed(order) == (1000, 1100, 89, 100, 89)


@pytest.mark.parametrize("field", ["shipping_cents", "shipping_tax_cents", "minimum_cents"])
def test_what_is_below_zero_is_refused(db, field):
    with pytest.raises(CartInconsistent) as caught:
        put(db, quote(group(A, line(1, 1000), **{field: -1})))
    assert (caught.value.detail["problem"], caught.value.detail["found"]) == ("vendor_shipping", -1)


def test_an_order_without_lines_owes_no_shipping(db):
    made = quote(group(A, line(1, 1000, 80), shipping_cents=100, shipping_tax_cents=9), group(B, line(2, 500, 40)))
    put(db, made, {1: 0})
    result = ordered(db)
    found = orders(result)
    assert (found[A].status, owed(found[A]), found[A].shipping_tax_cents) == ("rejected", (0, 0, 0, 0, 0), 0)
    assert owed(found[B]) == (500, 0, 40, 0, 540)
    assert result.totals.confirmed.transport_fee_cents == 0
    assert [(vendor.vendor_store_id, vendor.reason) for vendor in result.rejected_vendors] == [
        (A, "insufficient_inventory")
    ]


@pytest.mark.parametrize(("price", "taken"), [(200, True), (None, True), (199, False), (201, False)])
def test_the_price_of_the_chosen_shipping_is_the_sum_of_the_vendors(db, price, taken):
    put(db, quote(*BOTH))
    request = REQUEST | {"shipping_line": {"code": "std", "price_cents": price}}
    if taken:
        assert pycheckout.execute(db, **request).shipping_line.price_cents == price
        return
    with pytest.raises(InvalidRequest) as caught:
        pycheckout.execute(db, **request)
    assert caught.value.detail["field"] == "shipping_line.price_cents"
    assert "200" in caught.value.detail["problem"]


def test_the_chosen_shipping_is_free_where_no_vendor_says_what_it_charges(db):
    put(db, quote(group(A, line(1, 1000, 80))))
    request = REQUEST | {"shipping_line": {"code": "std", "price_cents": 5}}
    assert pycheckout.execute(db, **request).totals.confirmed.total_cents == 1080


# Minimums


def test_cart_put_shows_vendors_below_their_minimum(db):
    """After line discounts, before the promotion; 1000 of 1000 is enough."""
    short = replace(line(1, 1000), line_discounts_cents=1)
    active = put(
        db,
        quote(
            group(A, short, minimum_cents=1000),
            group(B, line(2, 1000), promo=500, minimum_cents=1000),
        ),
    )
    assert active.below_minimum == (
        pycheckout.BelowMinimum(vendor_store_id=A, minimum_cents=1000, merchandise_cents=999),
    )
    assert pycheckout.result(db, buyer_store_id=BUYER, cart_id=CART).below_minimum == active.below_minimum


def test_a_quote_of_nothing_but_vendors_below_their_minimum_is_refused_and_can_still_be_filled(db):
    put(db, quote(group(A, line(1, 999), minimum_cents=1000)))
    with pytest.raises(NoOrderableItems) as caught:
        pycheckout.execute(db, **REQUEST)
    assert caught.value.detail["below_minimum"] == [
        {"vendor_store_id": str(A), "minimum_cents": 1000, "merchandise_cents": 999}
    ]
    put(db, quote(group(A, line(1, 1000), minimum_cents=1000)))
    assert ordered(db).outcome == "complete"


@pytest.mark.parametrize("policy", ["partial", "vendor"])
def test_a_vendor_below_its_minimum_is_rejected_before_stock_is_looked_at(db, policy):
    """B gets the last unit, which A would have taken first."""
    made = quote(
        group(A, line(1, 500, 40, product=9), minimum_cents=600, shipping_cents=70), group(B, line(2, 500, product=9))
    )
    put(db, made, {9: 1})
    result = ordered(db, reservation_policy=policy)
    found = orders(result)
    assert (found[A].status, owed(found[A]), notes(found[A])) == ("rejected", (0, 0, 0, 0, 0), ["below_minimum"])
    assert [warning.type for warning in found[A].items[0].warnings] == ["below_minimum"]
    assert (found[B].status, owed(found[B])) == ("created_pending", (500, 0, 0, 0, 500))
    assert result.outcome == "partial"
    assert [(vendor.vendor_store_id, vendor.reason) for vendor in result.rejected_vendors] == [(A, "below_minimum")]
    assert values(db, "select reserved_qty from inventory_items where product_id = %s", UUID(int=209)) == [1]
    [created] = values(
        db, "select payload -> 'data' from outbox_events where event_type = 'checkout.vendor_orders_created'"
    )
    assert created["rejected_vendors"] == [{"vendor_store_id": str(A), "reason": "below_minimum"}]


def test_policy_all_refuses_a_vendor_below_its_minimum_and_writes_nothing(db):
    put(db, quote(group(A, line(1, 500), minimum_cents=600), group(B, line(2, 500))))
    with pytest.raises(InsufficientInventory) as caught:
        pycheckout.execute(db, **REQUEST, reservation_policy="all")
    assert caught.value.detail["below_minimum"] == [
        {"vendor_store_id": str(A), "minimum_cents": 600, "merchandise_cents": 500}
    ]
    assert values(db, "select count(*) from checkout_requests") == [0]
    assert pycheckout.result(db, buyer_store_id=BUYER, cart_id=CART).status == "active"


def test_policy_all_takes_a_quote_with_tax_that_reaches_its_minimum(db):
    put(db, quote(group(A, line(1, 600, tax=50), minimum_cents=600), group(B, line(2, 500))))
    result = ordered(db, reservation_policy="all")
    assert (result.outcome, len(result.vendor_orders)) == ("complete", 2)


SHARED = (
    # A's line 1 is short, so that line 2 alone is below A's minimum; its units of product 9 are what B's line 3 lacks.
    group(A, line(1, 600), line(2, 400, quantity=4, product=9), minimum_cents=700),
    group(B, line(3, 300, quantity=3, product=9), line(4, 50)),
)


@pytest.mark.parametrize("slots", [1, 4])
def test_what_a_minimum_frees_is_offered_once_more_to_short_lines(db, slots):
    put(db, quote(*SHARED), {1: 0, 9: 5})
    if slots > 1:
        db.execute("select inventory_split(%s, %s)", (UUID(int=209), slots))
    result = ordered(db)
    found = orders(result)
    assert (found[A].status, notes(found[A])) == ("rejected", ["insufficient_inventory", "below_minimum"])
    assert (found[B].status, notes(found[B]), owed(found[B])) == ("created_pending", [None, None], (350, 0, 0, 0, 350))
    assert [(vendor.vendor_store_id, vendor.reason) for vendor in result.rejected_vendors] == [(A, "below_minimum")]
    assert level(db, UUID(int=209)) == (2, 3)


def test_what_is_offered_once_more_goes_to_lines_in_their_order_and_no_further(db):
    """Four units are free again: line 3 takes three of them, so line 5 stays short."""
    more = group(C, line(5, 200, quantity=2, product=9), line(6, 60))
    put(db, quote(*SHARED, more), {1: 0, 9: 4})
    found = orders(ordered(db))
    assert [notes(found[vendor]) for vendor in (A, B, C)] == [
        ["insufficient_inventory", "below_minimum"],
        [None, None],
        ["insufficient_inventory", None],
    ]


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize(
    ("stock", "ordered_of", "left"),
    [
        # A's line 2 is short, so its four of product 9 are free again: B takes three, and one is too little for C
        (4, (B,), 1),
        # and here there are enough for both
        (5, (B, C), 0),
    ],
)
def test_what_a_vendor_frees_that_is_rejected_whole_is_offered_once_more_to_whole_vendors(
    db, slots, stock, ordered_of, left
):
    made = quote(
        group(A, line(1, 400, quantity=4, product=9), line(2, 100)),
        group(B, line(3, 300, quantity=3, product=9), line(4, 50)),
        group(C, line(5, 200, quantity=2, product=9), line(6, 60)),
    )
    put(db, made, {2: 0, 9: stock})
    if slots > 1:
        db.execute("select inventory_split(%s, %s)", (UUID(int=209), slots))
    found = orders(ordered(db, reservation_policy="vendor"))

    for vendor in (A, B, C):
        gets = vendor in ordered_of
        assert found[vendor].status == ("created_pending" if gets else "rejected"), vendor
        assert notes(found[vendor]) == [None if gets else "insufficient_inventory"] * 2
    assert level(db, UUID(int=209)) == (left, stock - left)


def test_a_vendor_that_stays_short_of_a_line_keeps_nothing_of_the_second_offer(db):
    """B would have product 9 from A, and not product 8; so C has it, with what B held at first."""
    made = quote(
        group(A, line(1, 400, quantity=4, product=9), line(2, 100)),
        group(B, line(3, 300, quantity=3, product=9), line(4, 50, product=8), line(5, 70, product=7)),
        group(C, line(6, 200, quantity=5, product=9), line(10, 60, product=7)),
    )
    put(db, made, {2: 0, 8: 0, 9: 5, 7: 1})
    found = orders(ordered(db, reservation_policy="vendor"))

    assert [found[vendor].status for vendor in (A, B, C)] == ["rejected", "rejected", "created_pending"]
    levels = rows(db, "select product_id, available_qty, reserved_qty from inventory_levels order by product_id")
    assert [
        (each["available_qty"], each["reserved_qty"]) for each in levels if each["product_id"].int in (207, 209)
    ] == [
        (0, 1),
        (0, 5),
    ]


@pytest.mark.parametrize("slots", [1, 4])
def test_what_a_vendor_gives_up_for_its_second_offer_is_there_for_the_next(db, slots):
    """B held two of product 9 at first, and has three in the end: of the five that A's end leaves two are C's."""
    made = quote(
        group(A, line(1, 300, quantity=3, product=9), line(2, 900, quantity=9, product=9)),
        group(B, line(3, 100, quantity=1, product=9), line(4, 200, quantity=2, product=9)),
        group(C, line(5, 200, quantity=2, product=9)),
    )
    put(db, made, {9: 5})
    if slots > 1:
        db.execute("select inventory_split(%s, %s)", (UUID(int=209), slots))
    found = orders(ordered(db, reservation_policy="vendor"))

    assert [found[vendor].status for vendor in (A, B, C)] == ["rejected", "created_pending", "created_pending"]
    assert level(db, UUID(int=209)) == (0, 5)


def test_a_vendor_that_only_the_second_offer_gave_something_is_judged_by_its_minimum_too(db):
    """All of C was short; the two units of line 5 that A's end frees come to less than C's minimum."""
    more = group(C, line(5, 200, quantity=2, product=9), line(6, 300), minimum_cents=500)
    put(db, quote(SHARED[0], more, group(B, line(4, 50))), {1: 0, 6: 0, 9: 5})
    result = ordered(db)
    found = orders(result)
    assert [notes(found[vendor]) for vendor in (A, C, B)] == [
        ["insufficient_inventory", "below_minimum"],
        ["below_minimum", "insufficient_inventory"],
        [None],
    ]
    assert (found[C].status, owed(found[C])) == ("rejected", (0, 0, 0, 0, 0))
    assert {vendor.vendor_store_id: vendor.reason for vendor in result.rejected_vendors} == {
        A: "below_minimum",
        C: "below_minimum",
    }
    assert level(db, UUID(int=209)) == (5, 0)


def test_policy_vendor_says_short_of_a_vendor_that_would_be_below_its_minimum(db):
    put(db, quote(group(A, line(1, 600), line(2, 400), minimum_cents=700), group(B, line(3, 300))), {1: 0})
    result = ordered(db, reservation_policy="vendor")
    assert notes(orders(result)[A]) == ["insufficient_inventory"] * 2
    assert [vendor.reason for vendor in result.rejected_vendors] == ["insufficient_inventory"]


# Terms and deadlines


def test_terms_say_when_an_order_is_due_and_leave_no_deadline(db):
    free = group(C, line(3, 100), promo=100, shipping_cents=0)
    put(db, quote(group(A, line(1, 1000), payment_terms=NET30), group(B, line(2, 500)), free))
    result = ordered(db, expires_in=timedelta(hours=36))
    found = orders(result)
    assert found[A].payment_intent.payment_terms == NET30
    assert found[A].payment_intent.due_at == result.converted_at + timedelta(days=30)
    assert (found[B].payment_intent.payment_terms, found[B].payment_intent.due_at) == (None, None)
    assert [found[vendor].expires_at for vendor in (A, B, C)] == [None, result.converted_at + timedelta(hours=36), None]
    assert owed(found[C]) == (100, 100, 0, 0, 0)


@pytest.mark.parametrize(
    "terms", [{"code": "x"}, {"code": "x", "net_days": 3661}, {"code": "x", "net_days": -1}, {"net_days": 1}]
)
def test_terms_that_are_none_are_refused(db, terms):
    made = written(quote(group(A, line(1, 1000))), payment_terms=terms)
    with pytest.raises(psycopg.DatabaseError) as caught:
        db.execute("select cart_put(%s)", [made])
    assert caught.value.diag.sqlstate in ("OC005", "OC007")


# What is noted on the orders


NO_TAX_LINES = ["5", '{"a": 1}', '["x"]', "[null]", "[[1]]", '[{"code": "c"}]', '[{"code": 5, "amount_cents": 7}]']
NO_TAX_LINES += [f'[{{"amount_cents": {amount}}}]' for amount in ("0.5", '"7"', 10**30)]
NO_SHIPPING_LINES = ['"van"', "[]", '{"code": 5}', '{"title": ["van"]}']


@pytest.mark.parametrize(
    ("table", "column", "problem", "of_a_host"),
    [
        ("cart_items", "tax_lines", "line_tax", NO_TAX_LINES),
        ("cart_vendor_groups", "shipping_line", "vendor_shipping", NO_SHIPPING_LINES),
    ],
)
def test_what_no_answer_could_show_is_refused_of_a_host_too(
    db, nothing_written, add_cart, checkout_sql, table, column, problem, of_a_host
):
    """Or its orders would be there, and no answer about them fit the types that answers have."""
    cart = add_cart()
    for written in of_a_host:
        db.execute(f"update {table} set {column} = %s::jsonb", (written,))
        with nothing_written(), refused("OC007") as refusal:
            checkout_sql(db, cart)
        assert refusal.detail["problem"] == problem
        assert refusal.detail["found"] == json.loads(written)
    for written in (None, "null", "[]" if column == "tax_lines" else "{}"):
        db.execute(f"update {table} set {column} = %s::jsonb", (written,))
        with db.transaction(force_rollback=True):
            checkout_sql(db, cart)


def test_terms_of_30_point_0_days_are_of_30(db, add_cart, checkout_sql):
    """A host's JSON may write a whole number so."""
    cart = add_cart(vendors=1, groups={0: {"payment_terms": {"code": "net", "net_days": 30.0}}})
    checkout_sql(db, cart)
    assert values(db, "select due_at - created_at from payment_intents") == [timedelta(days=30)]


def test_what_a_buyer_notes_stands_on_every_order_and_in_both_events(db):
    put(db, quote(group(A, line(1, 1000)), group(B, line(2, 500))))
    noted = {"billing_address": BILLING, "purchase_order": "PO 4711/ä", "metadata": {"cost": {"centre": [1, None]}}}
    result = ordered(db, **noted)

    assert {name: getattr(result, name) for name in noted} == noted
    for order in result.vendor_orders:
        shown = pycheckout.Checkout(db).orders.get(order.order_id, vendor_store_id=order.vendor_store_id)
        assert {name: getattr(shown, name) for name in noted} == noted
    created, converted = values(db, "select payload -> 'data' from outbox_events order by event_type desc")
    assert (created["purchase_order"], "metadata" in created) == ("PO 4711/ä", False)
    assert (converted["purchase_order"], converted["metadata"]) == ("PO 4711/ä", noted["metadata"])


def deep(levels: int) -> dict[str, Any]:
    """An object of that many levels."""
    made: dict[str, Any] = {"end": 1}
    for _ in range(levels - 1):
        made = {"next": made}
    return made


@pytest.mark.parametrize(
    ("field", "value", "taken"),
    [
        ("purchase_order", "x", True),
        ("purchase_order", "ä" * 100, True),
        ("purchase_order", "x" * 101, False),
        ("purchase_order", "", False),
        ("purchase_order", " \u200b\u3000", False),
        ("purchase_order", "a\nb", False),
        ("metadata", {}, True),
        ("metadata", {"a": "x" * (16384 - len('{"a": ""}'))}, True),
        ("metadata", {"a": "x" * (16385 - len('{"a": ""}'))}, False),
        ("metadata", deep(8), True),
        ("metadata", deep(9), False),
        ("metadata", [1], False),
        ("billing_address", BILLING, True),
        ("billing_address", {"line1": "1 Bank Street"}, False),
        ("billing_address", BILLING | {"planet": "Mars"}, False),
        ("expires_in", timedelta(microseconds=1), True),
        ("expires_in", timedelta(days=366), True),
        ("expires_in", timedelta(days=366, microseconds=1), False),
        ("expires_in", timedelta(0), False),
        ("expires_in", timedelta(days=-1), False),
        ("expires_in", 5, False),
    ],
)
def test_what_may_be_noted(db, field, value, taken):
    put(db, quote(group(A, line(1, 1000))))
    if taken:
        pycheckout.execute(db, **REQUEST, **{field: value})
        return
    with pytest.raises(InvalidRequest) as caught:
        pycheckout.execute(db, **REQUEST, **{field: value})
    assert caught.value.detail["field"].startswith(field)


@pytest.mark.parametrize(("interval", "taken"), [("8784 hours", True), ("1 month", False), ("1 year", False)])
def test_an_interval_of_months_is_no_deadline(db, interval, taken):
    put(db, quote(group(A, line(1, 1000))))
    query = "select checkout_execute(%s, %s, 'k', %s, 'ach', expires_in => %s::interval)"
    if taken:
        db.execute(query, (BUYER, CART, Jsonb(ADDRESS), interval))
        return
    with refused("OC005") as refusal:
        db.execute(query, (BUYER, CART, Jsonb(ADDRESS), interval))
    assert refusal.detail["field"] == "expires_in"


# What a key is bound to


def test_the_hash_of_a_call_that_uses_none_of_it_is_as_before(db):
    put(db, quote(group(A, line(1, 1000))))
    pycheckout.execute(db, **REQUEST)
    [found] = values(db, "select encode(request_hash, 'hex') from checkout_requests")
    assert found == "4e0b408a2a990eb4efb4cf38411c9527fc2be728aab6d26c41f89f7b4f370477"
    query = "select checkout_execute(%s, %s, 'k1', %s, 'ach', metadata => 'null', billing_address => 'null')"
    db.execute(query, (BUYER, CART, Jsonb(ADDRESS)))


NOTED = {"billing_address": BILLING, "purchase_order": "1", "metadata": {"n": 40}, "expires_in": timedelta(hours=24)}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ({}, True),
        ({"metadata": {"n": 40.0}}, True),
        ({"metadata": {"n": 41}}, False),
        ({"expires_in": timedelta(days=1)}, True),
        ({"expires_in": timedelta(hours=24, microseconds=1)}, False),
        ({"purchase_order": "2"}, False),
        ({"purchase_order": None}, False),
        ({"billing_address": BILLING | {"city": "Reno"}}, False),
        ({"billing_address": BILLING | {"line2": None}}, True),
    ],
)
def test_a_key_is_bound_to_what_is_noted_by_value(db, other, same):
    put(db, quote(group(A, line(1, 1000))))
    pycheckout.execute(db, **REQUEST, **NOTED)
    if same:
        assert pycheckout.execute(db, **REQUEST, **(NOTED | other)).replayed
        return
    with pytest.raises(IdempotencyKeyReused):
        pycheckout.execute(db, **REQUEST, **(NOTED | other))


# Numbers


def test_orders_have_numbers_of_their_own_in_every_answer(db, add_cart, checkout):
    results = [checkout(db, add_cart(vendors=3)) for _ in range(2)]
    numbers = [order.order_number for result in results for order in result.vendor_orders]
    assert len(set(numbers)) == 6
    assert None not in numbers
    assert sorted(values(db, "select order_number from vendor_orders")) == sorted(numbers)


def test_numbers_are_the_hosts_where_the_column_is(database):
    dsn = database("net", migrated=True)
    with psycopg.connect(dsn, autocommit=True) as conn:
        [before] = values(conn, "select max(order_number) from vendor_orders")
        conn.execute("insert into stores select id, 'Store' from unnest(%s::uuid[]) as id", [[BUYER, A, B]])
        conn.execute(
            "insert into products select id, %s, id, 'Basil', 'edible', 'unit', 1, 5 from unnest(%s::uuid[]) as id",
            (A, [UUID(int=201), UUID(int=202)]),
        )
        lines = [replace(line(number, 500, 40), category="edible") for number in (1, 2)]
        put(conn, quote(group(A, lines[0], shipping_cents=80), group(B, lines[1])))
        result = pycheckout.execute(conn, **REQUEST)
        found = orders(result)
        assert sorted(order.order_number for order in result.vendor_orders) == [before + 1, before + 2]
        for order in result.vendor_orders:
            listed = pycheckout.Checkout(conn).orders.list(buyer_store_id=BUYER, order_number=order.order_number)
            assert [each.order_id for each in listed.orders] == [order.order_id]
        assert (owed(found[A]), owed(found[B])) == ((500, 0, 40, 80, 620), (500, 0, 40, 0, 540))
        assert values(conn, "select to_regclass('checkout_order_number_seq')") == [None]
