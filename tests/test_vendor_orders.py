"""PF-175: a vendor order a vendor, copied from the cart's snapshot to the cent."""

import pytest
from psycopg.types.json import Jsonb

from checks import row, rows, values
from factories import ADDRESS

SHORT = {"type": "insufficient_inventory", "message": "Rejected: there was not enough stock."}


def orders(db):
    """The vendor orders by the id of their group, which is theirs too."""
    return {
        order["id"]: order for order in rows(db, "select *, to_jsonb(shipping_address) as address from vendor_orders")
    }


def amounts(order):
    return tuple(order[name] for name in ("subtotal_cents", "discounts_cents", "total_cents"))


def quoted(group):
    return (group.subtotal_cents, group.discounts_cents, group.total_cents)


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"promo_cents": [0, 333, 1]},
        {"amounts": "gross", "line_discount_cents": 7},
        {"amounts": "gross", "line_discount_cents": 999, "promo_cents": [1, 2, 0]},
        {"unit_price_cents": 1, "quantity": 3, "promo_cents": 6},
        {"unit_price_cents": 0},
        {"unit_price_cents": 10**15 + 1, "promo_cents": 10**15},
    ],
    ids=["net", "net with promo", "gross", "gross with promo", "all of it free", "no price", "huge"],
)
def test_totals_are_those_of_the_vendor_groups_to_the_cent(db, add_cart, checkout_sql, columns):
    """PF-175: vendor order totals match cart_vendor_groups exactly."""
    cart = add_cart(vendors=3, **columns)
    result = checkout_sql(db, cart)

    found = orders(db)
    assert {group.id: quoted(group) for group in cart.groups} == {id: amounts(order) for id, order in found.items()}
    assert [amounts(order) for order in result["vendor_orders"]] == [quoted(group) for group in cart.groups]
    assert {(order["tax_cents"], order["transport_fee_cents"]) for order in found.values()} == {(0, 0)}
    assert all(order["balance_due_cents"] == order["total_cents"] for order in found.values())
    # the orders together are the cart that the buyer accepted
    assert result["totals"]["confirmed"] == result["totals"]["quoted"]
    assert result["totals"]["quoted"]["total_cents"] == sum(group.total_cents for group in cart.groups)


def test_a_discount_over_several_vendors_adds_up_to_itself(db, add_cart, checkout_sql):
    """PF-175: no discount is spread anew: 2.00 over three equal vendors stays 2.00."""
    cart = add_cart(vendors=3, lines=1, unit_price_cents=500, promo_cents=[67, 67, 66])
    checkout_sql(db, cart)
    assert sorted(order["discounts_cents"] for order in orders(db).values()) == [66, 67, 67]


def test_nothing_is_computed_from_prices_and_quantities(db, add_cart, checkout_sql):
    """PF-175: no pricing or discount recomputation: the subtotal of a line need not be price times quantity."""
    odd = {"quantity": 3, "unit_price_cents": 333, "line_subtotal_cents": 1000}
    cart = add_cart(vendors=1, lines=1, items={(0, 0): odd})
    checkout_sql(db, cart)
    line = row(db, "select * from order_line_items")
    assert (line["qty"], line["unit_price_cents"], line["line_subtotal_cents"], line["total_cents"]) == (
        3,
        333,
        1000,
        1000,
    )
    assert amounts(orders(db)[cart.groups[0].id]) == (1000, 0, 1000)


def test_the_discount_is_the_subtotal_without_the_total_whatever_else_the_group_says(db, add_cart, checkout_sql):
    """PF-175: of a group, its subtotal and total alone are read: the rest may be stale in an existing database."""
    stale = {"discounts_cents": 777, "line_discounts_cents": 888, "promo_discount_cents": 999}
    cart = add_cart(vendors=2, promo_cents=50, groups={0: stale, 1: dict.fromkeys(stale)})
    checkout_sql(db, cart)
    assert [amounts(order) for order in orders(db).values()] == [(2000, 50, 1950)] * 2


def test_the_volume_discount_of_a_net_line_is_not_taken_off_again(db, add_cart, checkout_sql):
    """PF-175: a net line's discount is in its price already; applied_volume_discount only describes it."""
    label = {"label": "5 or more", "amount_cents": 500}
    cart = add_cart(vendors=1, lines=1, items={(0, 0): {"applied_volume_discount": label, "line_discounts_cents": 500}})
    checkout_sql(db, cart)
    assert amounts(orders(db)[cart.groups[0].id]) == (1000, 0, 1000)
    line = row(db, "select * from order_line_items")
    assert (line["discount_cents"], line["total_cents"], line["applied_volume_discount"]) == (0, 1000, label)


def test_an_order_copies_its_group_and_what_the_checkout_confirmed(db, add_cart, checkout_sql):
    """PF-175: orders are created only from the snapshot, and reference cart_id and checkout_group_id."""
    warnings = [{"type": "moq", "message": 'Below "minimum", 50 % more'}]
    promo = {"code": "SPRING", "amount_cents": 40}
    cart = add_cart(vendors=1, currency="KWD", promo_cents=40, groups={0: {"warnings": warnings, "promo": promo}})
    line = {"code": "ground", "title": None, "price_cents": None}

    result = checkout_sql(db, cart, payment_method="cash", shipping_line={"code": "ground"})

    order = orders(db)[cart.groups[0].id]
    assert order["cart_id"] == cart.id
    assert str(order["checkout_group_id"]) == result["checkout_group_id"]
    assert (order["buyer_store_id"], order["vendor_store_id"]) == (cart.buyer_store_id, cart.vendors[0])
    assert (order["currency"], order["payment_method"], order["status"]) == ("KWD", "cash", "created_pending")
    assert (order["warnings"], order["promo"], order["notes"]) == (warnings, promo, None)
    assert (order["address"], order["shipping_line"]) == (ADDRESS, line)
    assert order["created_at"].isoformat()[:26] == result["converted_at"][:26]
    [shown] = result["vendor_orders"]
    assert (shown["warnings"], shown["promo"]) == (warnings, promo)


@pytest.mark.parametrize("nothing", [None, "null"])
def test_a_group_without_warnings_or_promo_gives_an_order_without(db, add_cart, checkout_sql, nothing):
    """PF-175: an existing database may have null or JSON null there."""
    db.execute("alter table cart_vendor_groups alter warnings drop not null")
    db.execute("alter table cart_items alter warnings drop not null")
    cart = add_cart(vendors=2, lines=1, promo_cents=1000, stock=0)
    for table in ("cart_vendor_groups", "cart_items"):
        db.execute(f"update {table} set warnings = %s", (nothing,))
    db.execute("update cart_vendor_groups set promo = %s", (nothing,))
    db.execute("update cart_items set applied_volume_discount = %s", (nothing,))

    result = checkout_sql(db, cart)

    capped = {
        "type": "promo_capped",
        "message": "The promotion was larger than what is left of this order and was reduced to it.",
    }
    assert [order["warnings"] for order in result["vendor_orders"]] == [[capped]] * 2
    assert [order["promo"] for order in orders(db).values()] == [None] * 2
    lines = rows(db, "select warnings, applied_volume_discount from order_line_items")
    assert lines == [{"warnings": [SHORT], "applied_volume_discount": None}] * 2


def test_a_vendor_has_one_order_however_many_lines(db, add_cart, checkout_sql):
    """PF-175: one vendor order per vendor with eligible items."""
    cart = add_cart(vendors=4, lines=[1, 2, 7, 3])
    checkout_sql(db, cart)
    counts = rows(db, "select order_id, count(*) as lines from order_line_items group by order_id order by order_id")
    assert [(count["order_id"], count["lines"]) for count in counts] == list(
        zip([group.id for group in cart.groups], [1, 2, 7, 3], strict=True)
    )


def test_a_vendor_whose_lines_come_apart_has_one_order(db, add_cart, checkout_sql):
    """PF-175: items are grouped by vendor_store_id, wherever they stand in the cart."""
    cart = add_cart(vendors=2, lines=2)
    # newly inserted, so that the vendors' lines stand mixed in the table
    [moved] = values(db, "delete from cart_items where id = %s returning to_jsonb(cart_items)", cart.items[0].id)
    db.execute("insert into cart_items select * from jsonb_populate_record(null::cart_items, %s)", (Jsonb(moved),))
    result = checkout_sql(db, cart)
    assert [len(order["items"]) for order in result["vendor_orders"]] == [2, 2]


def test_the_result_lists_every_order_every_rejection_and_the_totals(db, add_cart, checkout_sql):
    """PF-175: none of the orders that a cart is split into is left out of the answer."""
    cart = add_cart(vendors=3, lines=2, stock=5, items={(1, 1): {"quantity": 6}})
    result = checkout_sql(db, cart)

    assert result["outcome"] == "partial"
    assert [order["order_id"] for order in result["vendor_orders"]] == [str(group.id) for group in cart.groups]
    states = [[item["status"] for item in order["items"]] for order in result["vendor_orders"]]
    assert states == [["pending"] * 2, ["pending", "rejected"], ["pending"] * 2]
    assert result["rejected_vendors"] == []
    assert result["totals"] == {
        "quoted": {"subtotal_cents": 11000, "discounts_cents": 0, "total_cents": 11000},
        "confirmed": {"subtotal_cents": 5000, "discounts_cents": 0, "total_cents": 5000},
    }
