"""PF-176: which vendors get an order, and order lines that are snapshots of cart lines."""

import pytest
from psycopg.types.json import Jsonb

from checks import row, rows, values

MOQ = [{"type": "moq", "message": "Fewer than the minimum"}]
TIER = {"label": "10 or more", "amount_cents": 25}
# Everything that a line may carry, as nasty as a host may write it.
FULL = {
    "title": """Olives "Kalamata"; 100 % 'green' \\ <b>""",
    "category": "délicatesse",
    "unit": "jar",
    "quantity": 10,
    "moq": 12,
    "max_qty": 40,
    "unit_price_cents": 250,
    "line_subtotal_cents": 2500,
    "line_discounts_cents": 25,
    "line_total_cents": 2475,
    "warnings": MOQ,
    "applied_volume_discount": TIER,
}


@pytest.mark.parametrize("status", ["not_available", "invalid"])
def test_a_vendor_without_an_eligible_item_gets_no_order_and_is_listed(db, add_cart, checkout_sql, status):
    """PF-176: no order if all items of a vendor are ineligible; the rejection is in the response."""
    group_warnings = [{"type": "vendor", "message": "Nothing left of this vendor"}]
    lines = {(1, 0): {"status": status, "warnings": MOQ}, (1, 1): {"status": "not_available"}}
    cart = add_cart(vendors=2, items=lines, groups={1: {"warnings": group_warnings}})

    result = checkout_sql(db, cart)

    assert values(db, "select vendor_store_id from vendor_orders") == [cart.vendors[0]]
    assert result["outcome"] == "partial"
    assert [order["vendor_store_id"] for order in result["vendor_orders"]] == [str(cart.vendors[0])]
    assert result["rejected_vendors"] == [
        {
            "vendor_store_id": str(cart.vendors[1]),
            "reason": "no_eligible_items",
            "warnings": group_warnings,
            "items": [
                {
                    "cart_item_id": str(item.id),
                    "product_id": str(item.product_id),
                    "name": f"Product 2.{number}",
                    "qty": 1,
                    "status": own_status,
                    "reason": own_status,
                    "warnings": warnings,
                }
                for number, item, own_status, warnings in [
                    (1, cart.items[2], status, MOQ),
                    (2, cart.items[3], "not_available", []),
                ]
            ],
        }
    ]


def test_an_invalid_vendor_gets_no_order_although_its_items_are_ok(db, add_cart, checkout_sql):
    """PF-176: vendor eligibility: an item counts only in a vendor group that is ok."""
    cart = add_cart(vendors=2, lines=1, groups={0: {"status": "invalid", "warnings": MOQ}})
    [rejected] = checkout_sql(db, cart)["rejected_vendors"]
    assert (rejected["vendor_store_id"], rejected["reason"]) == (str(cart.vendors[0]), "vendor_invalid")
    assert rejected["warnings"] == MOQ
    assert [(item["status"], item["reason"]) for item in rejected["items"]] == [("ok", "vendor_invalid")]
    assert values(db, "select vendor_store_id from vendor_orders") == [cart.vendors[1]]


def test_vendors_without_items_or_without_a_group_are_listed_too(db, add_cart, checkout_sql):
    """PF-176: the client sees all vendors of the cart, rejected ones included."""
    cart = add_cart(vendors=3, lines=[1, 0, 1], items={(2, 0): {"status": "invalid"}})
    db.execute("delete from cart_vendor_groups where id = %s", (cart.groups[2].id,))
    rejected = checkout_sql(db, cart)["rejected_vendors"]
    assert [(vendor["vendor_store_id"], vendor["reason"], len(vendor["items"])) for vendor in rejected] == [
        (str(cart.vendors[1]), "no_eligible_items", 0),
        (str(cart.vendors[2]), "no_eligible_items", 1),
    ]


def test_rejected_vendors_come_in_the_order_of_their_ids(db, add_cart, checkout_sql):
    """PF-176: the vendor-level rejection is surfaced deterministically, whatever its reason."""
    lines = {(0, 0): {"quantity": 9}, (1, 0): {"status": "invalid"}, (4, 0): {"quantity": 9}}
    cart = add_cart(vendors=5, lines=1, stock=5, items=lines, groups={3: {"status": "invalid"}})
    result = checkout_sql(db, cart)
    assert [(vendor["vendor_store_id"], vendor["reason"]) for vendor in result["rejected_vendors"]] == [
        (str(cart.vendors[0]), "insufficient_inventory"),
        (str(cart.vendors[1]), "no_eligible_items"),
        (str(cart.vendors[3]), "vendor_invalid"),
        (str(cart.vendors[4]), "insufficient_inventory"),
    ]
    assert checkout_sql(db, cart) == result | {"replayed": True}


def test_one_eligible_item_makes_an_order_of_that_item(db, add_cart, checkout_sql):
    """PF-176: an order if the vendor has at least one ok item, with the ok items alone."""
    cart = add_cart(vendors=1, lines=3, items={(0, 0): {"status": "invalid"}, (0, 2): {"status": "not_available"}})
    result = checkout_sql(db, cart)
    assert values(db, "select cart_item_id from order_line_items") == [cart.items[1].id]
    assert result["totals"]["confirmed"] == result["totals"]["quoted"]
    assert result["outcome"] == "complete"


def test_each_line_references_its_cart_item(db, add_cart, checkout_sql):
    """PF-176: each order line item references its originating cart_item_id, and its order."""
    cart = add_cart(vendors=3, lines=3)
    checkout_sql(db, cart)
    lines = rows(db, "select id, cart_item_id, order_id from order_line_items order by id")
    group_of = {group.vendor_store_id: group.id for group in cart.groups}
    assert lines == [
        {"id": item.id, "cart_item_id": item.id, "order_id": group_of[item.vendor_store_id]} for item in cart.items
    ]


def test_a_line_is_a_copy_of_its_cart_item(db, add_cart, checkout_sql):
    """PF-176: line item warnings and discounts match the cart snapshot."""
    cart = add_cart(vendors=1, lines=1, amounts="gross", items={(0, 0): FULL})
    result = checkout_sql(db, cart)

    line = row(db, "select * from order_line_items")
    expected = FULL | {"name": FULL["title"], "qty": 10, "discount_cents": 25, "total_cents": 2475}
    for name in ("title", "quantity", "line_discounts_cents", "line_total_cents"):
        del expected[name]
    assert line == line | expected | {"status": "pending", "notes": None, "product_id": cart.items[0].product_id}

    [[shown]] = [order["items"] for order in result["vendor_orders"]]
    for name in ("moq", "max_qty"):
        del expected[name]
    assert shown == shown | expected | {"status": "pending", "notes": None, "cart_item_id": str(cart.items[0].id)}


def test_a_line_without_a_title_is_named_by_its_product(db, add_cart, checkout_sql):
    """PF-176: an existing database has no titles on old lines."""
    cart = add_cart(vendors=2, lines=1, items={(0, 0): {"title": ""}, (1, 0): {"title": "", "status": "invalid"}})
    result = checkout_sql(db, cart)
    assert result["vendor_orders"][0]["items"][0]["name"] == str(cart.items[0].product_id)
    assert result["rejected_vendors"][0]["items"][0]["name"] == str(cart.items[1].product_id)


def test_what_happens_to_the_line_later_does_not_reach_the_snapshot(db, add_cart, checkout_sql):
    """PF-176: lines are copies: an accepted line is shown as accepted, the cart item stays."""
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    before = rows(db, "select * from cart_items")
    db.execute("update order_line_items set status = 'accepted', warnings = %s", (Jsonb(MOQ),))
    [order] = checkout_sql(db, cart)["vendor_orders"]
    assert (order["items"][0]["status"], order["items"][0]["warnings"]) == ("accepted", MOQ)
    assert rows(db, "select * from cart_items") == before
