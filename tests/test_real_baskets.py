"""Every basket of the sample checks out, or is refused for a reason; sums are made here once more, from the data."""

from collections import Counter

import pytest
from psycopg.types.json import Jsonb

import pycheckout
from factories import ADDRESS
from pycheckout.demo.baskets import baskets, id_of, quote, shelf

SAMPLE = baskets()


def put(db, some):
    """These baskets as quoted carts, with stock for all, but for the products that the demo keeps short."""
    levels = [{"product_id": str(product), "available": units} for product, units in shelf(SAMPLE)]
    for at in range(0, len(levels), 500):
        db.execute("select inventory_set_many(%s)", [Jsonb(levels[at : at + 500])])
    for basket in some:
        pycheckout.put_cart(db, quote(basket, "2099-01-01T00:00:00Z", []))


def pay(conn, basket, **overrides):
    return pycheckout.execute(
        conn,
        buyer_store_id=id_of("buyer", basket["buyer"]),
        cart_id=id_of("cart", basket["basket"]),
        idempotency_key=f"basket-{basket['basket']}",
        shipping_address=ADDRESS,
        payment_method="ach",
        **overrides,
    )


def orderable(basket):
    return {
        id_of("item", basket["basket"], position): line
        for position, line in enumerate(basket["lines"])
        if line["quantity"] and line["vendor"] is not None
    }


def shelf_price(line):
    return line["paid_cents"] + line["loyalty_discount_cents"] + line["coupon_match_cents"]


def test_every_basket_checks_out_to_the_cent_or_is_refused_for_a_reason(db):
    """And stock is conserved over the whole sample."""
    put(db, SAMPLE)
    before, sold = dict(shelf(SAMPLE)), Counter()
    refused = Counter()
    rejected_lines = 0
    for basket in SAMPLE:
        lines = orderable(basket)
        try:
            result = pay(db, basket)
        except pycheckout.CheckoutError as error:
            refused[error.code] += 1
            assert not lines
            continue

        items = {item.line_item_id: item for order in result.vendor_orders for item in order.items}
        assert items.keys() == lines.keys()
        for item_id, line in lines.items():
            assert items[item_id].qty == line["quantity"]
            assert items[item_id].total_cents == line["paid_cents"]
            assert items[item_id].line_subtotal_cents == shelf_price(line)
            assert items[item_id].line_subtotal_cents - items[item_id].discount_cents == line["paid_cents"]
        for item in items.values():
            sold[item.product_id] += item.qty if item.status == "pending" else 0
        redeemed = 0
        for order in result.vendor_orders:
            kept = [lines[item.line_item_id] for item in order.items if item.status == "pending"]
            coupons = sum(lines[item.line_item_id]["coupon_cents"] for item in order.items)
            paid = sum(line["paid_cents"] for line in kept)
            redeemed += min(coupons, paid)
            assert order.total_cents == paid - min(coupons, paid)
            assert order.payment_intent.amount_cents == order.total_cents

        rejected = [lines[item.line_item_id] for item in items.values() if item.status == "rejected"]
        rejected_lines += len(rejected)
        quoted_totals, confirmed = result.totals.quoted, result.totals.confirmed
        everything = list(lines.values())
        assert quoted_totals.subtotal_cents == sum(map(shelf_price, everything))
        assert quoted_totals.total_cents == sum(line["paid_cents"] - line["coupon_cents"] for line in everything)
        # What was rejected and what was confirmed make up what was quoted: on the shelf, and before coupons.
        assert confirmed.subtotal_cents + sum(map(shelf_price, rejected)) == quoted_totals.subtotal_cents
        offered = sum(line["coupon_cents"] for line in everything)
        given_up = sum(line["paid_cents"] for line in rejected) - (offered - redeemed)
        assert confirmed.total_cents + given_up == quoted_totals.total_cents
        assert confirmed.total_cents == confirmed.subtotal_cents - confirmed.discounts_cents

    assert refused == {"no_orderable_items": 3}
    assert rejected_lines > 100  # the shelf is short on purpose

    for product, available, reserved in db.execute(
        "select product_id, available_qty, reserved_qty from inventory_levels"
    ):
        assert reserved == sold[product]
        assert available == before[product] - sold[product]


def test_a_line_of_quantity_0_or_of_nobody_is_never_ordered(db):
    odd = next(b for b in SAMPLE if orderable(b) and any(line["vendor"] is None for line in b["lines"]))
    put(db, [odd])

    result = pay(db, odd)

    [nobody] = [vendor for vendor in result.rejected_vendors if vendor.vendor_store_id == id_of("vendor", None)]
    assert nobody.reason == "vendor_invalid"
    assert len(nobody.items) == sum(line["vendor"] is None for line in odd["lines"])


def test_an_ok_line_of_quantity_0_is_refused_by_its_place_in_the_quote(db):
    basket = next(b for b in SAMPLE if any(not line["quantity"] for line in b["lines"]))
    cart = quote(basket, "2099-01-01T00:00:00Z", [])
    for group in cart["vendor_groups"]:
        for item in group["items"]:
            item["status"] = "ok"

    with pytest.raises(pycheckout.CartInconsistent) as refused:
        pycheckout.put_cart(db, cart)

    group_no, item_no, item = next(
        (group_no, item_no, item)
        for group_no, group in enumerate(cart["vendor_groups"])
        for item_no, item in enumerate(group["items"])
        if not item["quantity"]
    )
    assert refused.value.detail == {
        "cart_id": cart["id"],
        "problem": "quantity",
        "field": f"cart.vendor_groups[{group_no}].items[{item_no}].quantity",
        "cart_item_id": item["id"],
        "expected": "at least 1",
        "found": 0,
    }
