"""PF-179: the cart's snapshot is the only source of amounts, and only stock that is not there changes a total.

Random carts, in cents, against a small model in Python that shares nothing with the SQL.
"""

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from checks import refused, rows, values
from factories import ADDRESS

SETTINGS = settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
PRODUCTS = 4

cents = st.one_of(st.integers(0, 3000), st.integers(0, 10**15))


@dataclass(frozen=True)
class Line:
    product: int
    quantity: int
    unit_price: int
    subtotal: int  # any figure: nothing says that it is quantity times price
    discount: int | None  # None: a net line
    described: int | None  # what a net line says of the discount in its price; nobody takes it off
    status: str
    id: UUID

    @property
    def total(self):
        return self.subtotal - (self.discount or 0)


@dataclass(frozen=True)
class Vendor:
    lines: tuple[Line, ...]
    promo: int
    status: str
    store: UUID
    group: UUID

    @property
    def ordered(self):
        return [line for line in self.lines if line.status == "ok" and self.status == "ok"]

    @property
    def counted(self):
        """Lines that the group's figures count; an invalid vendor's as well."""
        return [line for line in self.lines if line.status == "ok"]


@st.composite
def lines(draw):
    subtotal = draw(cents)
    return Line(
        product=draw(st.integers(0, PRODUCTS - 1)),
        quantity=draw(st.integers(1, 6)),
        unit_price=draw(cents),
        subtotal=subtotal,
        discount=draw(st.none() | st.integers(0, subtotal)),
        described=draw(st.none() | st.integers(0, 3000)),
        status=draw(st.sampled_from(["ok"] * 5 + ["not_available", "invalid"])),
        id=draw(st.uuids()),
    )


@st.composite
def vendors(draw):
    own = draw(st.lists(lines(), min_size=0, max_size=5))
    total = sum(line.total for line in own if line.status == "ok")
    return Vendor(
        lines=tuple(own),
        promo=draw(st.sampled_from([0, total, total // 2]) | st.integers(0, total)),
        status=draw(st.sampled_from(["ok"] * 6 + ["invalid"])),
        store=draw(st.uuids()),
        group=draw(st.uuids()),
    )


carts = st.lists(vendors(), min_size=1, max_size=4)
stocks = st.lists(st.none() | st.integers(0, 12), min_size=PRODUCTS, max_size=PRODUCTS)


def short_lines(cart, stock, policy):
    """Ids of the lines that find too little stock: a product's lines are served by id, each whole or not at all.

    With the policy `vendor` those of a vendor are short together, and what they give back is offered once more: to
    vendors, each whole or not at all, by the id of their first line.
    """
    left = [units or 0 for units in stock]
    short = set()
    for line in sorted((line for vendor in cart for line in vendor.ordered), key=lambda line: line.id):
        if line.quantity > left[line.product]:
            short.add(line.id)
        else:
            left[line.product] -= line.quantity
    if policy == "vendor":
        out = [vendor.ordered for vendor in cart if short & {line.id for line in vendor.ordered}]
        for line in (line for own in out for line in own if line.id not in short):
            left[line.product] += line.quantity
        short = {line.id for own in out for line in own}
        for own in sorted(out, key=lambda own: min(line.id for line in own)):
            rest = left.copy()
            for line in own:
                rest[line.product] -= line.quantity
            if min(rest) >= 0:
                left, short = rest, short - {line.id for line in own}
    return short


def expected_order(vendor, short):
    """(subtotal, discounts, total, capped) of a vendor's order."""
    kept = [line for line in vendor.ordered if line.id not in short]
    subtotal, total = sum(line.subtotal for line in kept), sum(line.total for line in kept)
    promo = min(vendor.promo, total)
    return subtotal, subtotal - total + promo, total - promo, promo < vendor.promo


class Shop:
    """Writes carts and stock, and checks out; the same database for all examples, so every id is new."""

    def __init__(self, db):
        self.db = db

    def put(self, cart, stock):
        self.cart_id, self.buyer = uuid4(), uuid4()
        self.products = sorted(uuid4() for _ in stock)
        self.fresh = [
            Vendor(
                lines=tuple(Line(**vars(line) | {"id": self.new(line.id)}) for line in vendor.lines),
                promo=vendor.promo,
                status=vendor.status,
                store=self.new(vendor.store),
                group=self.new(vendor.group),
            )
            for vendor in cart
        ]
        with self.db.transaction(), self.db.cursor() as cur:
            counted = [vendor for vendor in self.fresh if vendor.status == "ok"]
            subtotal = sum(line.subtotal for vendor in counted for line in vendor.counted)
            total = sum(self.group_total(vendor) for vendor in counted)
            cur.execute(
                """
                insert into cart_records (id, buyer_store_id, valid_until, subtotal_cents, discounts_cents, total_cents)
                values (%s, %s, now() + interval '1 hour', %s, %s, %s)
                """,
                (self.cart_id, self.buyer, subtotal, subtotal - total, total),
            )
            cur.executemany(
                """
                insert into cart_vendor_groups
                  (id, cart_id, vendor_store_id, status, promo, subtotal_cents, total_cents)
                values (%s, %s, %s, %s, %s, %s, %s)
                """,
                [
                    (vendor.group, self.cart_id, vendor.store, vendor.status, Jsonb({"amount_cents": vendor.promo}),
                     sum(line.subtotal for line in vendor.counted), self.group_total(vendor))
                    for vendor in self.fresh
                ],
            )  # fmt: skip
            cur.executemany(
                """
                insert into cart_items (id, cart_id, product_id, vendor_store_id, title, quantity, unit_price_cents,
                                        line_subtotal_cents, line_discounts_cents, line_total_cents, status)
                values (%s, %s, %s, %s, 'A thing', %s, %s, %s, %s, %s, %s)
                """,
                [
                    (line.id, self.cart_id, self.products[line.product], vendor.store, line.quantity, line.unit_price,
                     line.subtotal, line.described if line.discount is None else line.discount,
                     None if line.discount is None else line.total, line.status)
                    for vendor in self.fresh for line in vendor.lines
                ],
            )  # fmt: skip
            cur.executemany(
                "insert into inventory_items (product_id, available_qty) values (%s, %s)",
                [(product, units) for product, units in zip(self.products, stock, strict=True) if units is not None],
            )
        return self.fresh

    @staticmethod
    def group_total(vendor):
        return sum(line.total for line in vendor.counted) - vendor.promo

    @staticmethod
    def new(drawn):
        """As random as drawn and never used before: examples are repeated while hypothesis shrinks."""
        return UUID(int=drawn.int ^ uuid4().int, version=4)

    def split(self, slots):
        self.db.execute(
            "select inventory_split(product_id, %s) from inventory_items where product_id = any(%s)",
            (slots, self.products),
        )

    def checkout(self, policy):
        [(result,)] = self.db.execute(
            "select checkout_execute(%s, %s, 'k', %s, 'ach', reservation_policy => %s)",
            (self.buyer, self.cart_id, Jsonb(ADDRESS), policy),
        )
        return result


@pytest.fixture
def shop(db):
    return Shop(db)


@SETTINGS
@given(cart=carts, stock=stocks, policy=st.sampled_from(["partial", "vendor"]), slots=st.sampled_from([1, 1, 3]))
def test_amounts_are_the_snapshots_without_exactly_the_rejected_lines(db, shop, cart, stock, policy, slots):
    """PF-179, PF-175, PF-178: totals change only when lines are rejected, by exactly their amounts, to the cent."""
    cart = shop.put(cart, stock)
    if slots > 1:
        shop.split(slots)
    ordering = {vendor.store: vendor for vendor in cart if vendor.ordered}
    if not ordering:
        with refused("OC004"):
            shop.checkout(policy)
        return
    short = short_lines(cart, stock, policy)

    result = shop.checkout(policy)

    assert [UUID(order["vendor_store_id"]) for order in result["vendor_orders"]] == sorted(ordering)
    for order in result["vendor_orders"]:
        vendor = ordering[UUID(order["vendor_store_id"])]
        subtotal, discounts, total, capped = expected_order(vendor, short)
        figures = (order["subtotal_cents"], order["discounts_cents"], order["total_cents"])
        assert figures == (subtotal, discounts, total)
        assert order["balance_due_cents"] == order["payment_intent"]["amount_cents"] == total
        assert ("promo_capped" in [warning["type"] for warning in order["warnings"]]) == capped

        shown = [
            (UUID(item["line_item_id"]), item["qty"], item["unit_price_cents"], item["line_subtotal_cents"],
             item["discount_cents"], item["total_cents"], item["status"])
            for item in order["items"]
        ]  # fmt: skip
        assert shown == [
            (line.id, line.quantity, line.unit_price, line.subtotal, line.discount or 0, line.total,
             "rejected" if line.id in short else "pending")
            for line in sorted(vendor.ordered, key=lambda line: line.id)
        ]  # fmt: skip
        everything_short = all(line.id in short for line in vendor.ordered)
        assert order["status"] == ("rejected" if everything_short else "created_pending")
        if everything_short:
            assert figures == (0, 0, 0)
        if not short & {line.id for line in vendor.ordered}:
            assert total == shop.group_total(vendor)

    confirmed = result["totals"]["confirmed"]
    for name in confirmed:
        assert confirmed[name] == sum(order[name] for order in result["vendor_orders"])

    lines = [line for vendor in ordering.values() for line in vendor.ordered]
    everyone = len(ordering) == len(cart)
    assert result["outcome"] == (
        "complete" if not short and everyone else "rejected" if len(short) == len(lines) else "partial"
    )

    taken = [
        sum(line.quantity for line in lines if line.product == n and line.id not in short) for n in range(PRODUCTS)
    ]
    levels = rows(db, "select * from inventory_levels where product_id = any(%s) order by product_id", shop.products)
    assert [(level["available_qty"], level["reserved_qty"]) for level in levels] == [
        (units - out, out) for units, out in zip(stock, taken, strict=True) if units is not None
    ]


@SETTINGS
@given(cart=carts, stock=stocks)
def test_policy_all_orders_everything_or_names_what_is_short(db, shop, cart, stock):
    """PF-179, PF-178: all or nothing: the quote to the cent, or not one unit and not one row."""
    cart = shop.put(cart, stock)
    short = short_lines(cart, stock, "all")
    if not any(vendor.ordered for vendor in cart):
        return
    if short:
        with refused("OC010") as refusal:
            shop.checkout("all")
        assert {UUID(item["cart_item_id"]) for item in refusal.detail["items"]} == short
        assert values(db, "select count(*) from vendor_orders where buyer_store_id = %s", shop.buyer) == [0]
    else:
        result = shop.checkout("all")
        assert result["totals"]["confirmed"] == result["totals"]["quoted"]


@SETTINGS
@given(
    cart=st.lists(vendors().filter(lambda vendor: vendor.ordered), min_size=1, max_size=2),
    which=st.integers(0, 9),
    what=st.sampled_from(["subtotal_cents", "total_cents"]),
    by=st.integers(-3, 3).filter(bool),
)
def test_a_group_that_does_not_add_up_is_never_ordered(db, shop, cart, which, what, by):
    """PF-179: the snapshot is authoritative, or refused: no figure of it is ever corrected."""
    cart = shop.put(cart, [99] * PRODUCTS)
    vendor = cart[which % len(cart)]
    total = shop.group_total(vendor) + (by if what == "total_cents" else 0)
    db.execute(f"update cart_vendor_groups set {what} = {what} + %s where id = %s", (by, vendor.group))
    db.execute(
        """
        update cart_records as cart
           set (subtotal_cents, discounts_cents, total_cents) = (
             select sum(subtotal_cents), sum(subtotal_cents - total_cents), sum(total_cents)
               from cart_vendor_groups where cart_id = cart.id and status = 'ok')
         where cart.id = (select cart_id from cart_vendor_groups where id = %s)
        """,
        (vendor.group,),
    )

    # a smaller total is a larger promotion: that is the quote's to say, down to zero
    consistent = what == "total_cents" and 0 <= total <= sum(line.total for line in vendor.ordered)
    if consistent:
        [order] = [o for o in shop.checkout("partial")["vendor_orders"] if o["order_id"] == str(vendor.group)]
        assert order["total_cents"] == total
    else:
        with refused("OC007"):
            shop.checkout("partial")


@pytest.mark.parametrize(
    ("promo", "expected", "capped"),
    [
        (0, (1000, 100, 900), False),
        (899, (1000, 999, 1), False),
        (900, (1000, 1000, 0), False),  # exactly what is left
        (901, (1000, 1000, 0), True),
        (2400, (1000, 1000, 0), True),
    ],
)
def test_a_promotion_is_capped_at_what_is_left(shop, promo, expected, capped):
    """PF-179: nothing goes below zero, and the order says so."""
    kept = Line(
        product=0, quantity=1, unit_price=1, subtotal=1000, discount=100, described=None, status="ok", id=UUID(int=1)
    )
    gone = Line(
        product=1, quantity=5, unit_price=1, subtotal=1500, discount=None, described=7, status="ok", id=UUID(int=2)
    )
    shop.put([Vendor(lines=(kept, gone), promo=promo, status="ok", store=uuid4(), group=uuid4())], [1, 4, None, None])
    [order] = shop.checkout("partial")["vendor_orders"]
    assert (order["subtotal_cents"], order["discounts_cents"], order["total_cents"]) == expected
    assert [warning["type"] for warning in order["warnings"]] == ["promo_capped"] * capped


def test_a_price_that_changes_after_the_quote_changes_nothing(db, add_cart, checkout_sql):
    """PF-179: no price is looked up: the host's own products table may say what it likes."""
    cart = add_cart(vendors=1, lines=1)
    db.execute("create table products (id uuid primary key, price_cents int)")
    db.execute("insert into products select product_id, 1 from cart_items")
    assert checkout_sql(db, cart)["totals"]["confirmed"]["total_cents"] == 1000
