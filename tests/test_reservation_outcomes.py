"""PF-178: what a checkout reserves, and what becomes of lines and vendors that fall short."""

import pytest
from psycopg.types.json import Jsonb

from checks import level, refused, rows, values

SHORT = {"type": "insufficient_inventory", "message": "Rejected: there was not enough stock."}


def states(result):
    return [(order["status"], [item["status"] for item in order["items"]]) for order in result["vendor_orders"]]


@pytest.fixture(params=[1, 4], ids=["1 slot", "4 slots"])
def split(db, request):
    """split(cart): spread the stock of its products, where the test runs with slots."""

    def split(cart):
        if request.param > 1:
            db.execute(
                "select inventory_split(product_id, %s) from inventory_items where product_id = any(%s)",
                (request.param, [item.product_id for item in cart.items]),
            )

    return split


def test_stock_moves_from_available_to_reserved_and_lines_stay_pending(db, add_cart, checkout_sql, split):
    """PF-178: successful reservations leave line items pending."""
    cart = add_cart(vendors=2, stock=10, quantity=3)
    split(cart)
    result = checkout_sql(db, cart)
    assert states(result) == [("created_pending", ["pending"] * 2)] * 2
    assert result["outcome"] == "complete"
    assert [level(db, item.product_id) for item in cart.items] == [(7, 3)] * 4


def test_the_last_units_can_be_had_from_slots_that_have_one_each(db, add_cart, checkout_sql, split):
    """PF-178: only real shortage rejects."""
    cart = add_cart(vendors=1, lines=1, stock=4, quantity=4)
    split(cart)
    assert states(checkout_sql(db, cart)) == [("created_pending", ["pending"])]
    assert level(db, cart.items[0].product_id) == (0, 4)


def test_a_short_line_is_rejected_alone(db, add_cart, checkout_sql, split):
    """PF-178: reservation failures reject individual line items; a line is reserved whole or not at all."""
    warnings = [{"type": "moq", "message": "Fewer than the minimum"}]
    cart = add_cart(vendors=2, stock=5, items={(0, 1): {"quantity": 6, "warnings": warnings}})
    split(cart)
    result = checkout_sql(db, cart)

    assert states(result) == [("created_pending", ["pending", "rejected"]), ("created_pending", ["pending"] * 2)]
    assert (result["outcome"], result["rejected_vendors"]) == ("partial", [])
    line = result["vendor_orders"][0]["items"][1]
    assert (line["notes"], line["warnings"]) == ("insufficient_inventory", [*warnings, SHORT])
    # quoted quantity and amounts stay on the line; no total counts them
    assert (line["qty"], line["line_subtotal_cents"], line["total_cents"]) == (6, 6000, 6000)
    assert result["vendor_orders"][0]["total_cents"] == 1000
    assert [level(db, item.product_id) for item in cart.items] == [(4, 1), (5, 0), (4, 1), (4, 1)]


def test_a_vendor_whose_every_line_falls_short_is_rejected(db, add_cart, checkout_sql, split):
    """PF-178: vendors with all items rejected are marked rejected, and keep an order of zeros."""
    cart = add_cart(vendors=2, stock=5, promo_cents=50, items={(1, 0): {"quantity": 6}, (1, 1): {"quantity": 7}})
    split(cart)
    result = checkout_sql(db, cart)

    assert states(result) == [("created_pending", ["pending"] * 2), ("rejected", ["rejected"] * 2)]
    assert result["outcome"] == "partial"
    order = result["vendor_orders"][1]
    figures = "subtotal_cents", "discounts_cents", "total_cents", "balance_due_cents"
    assert [order[name] for name in figures] == [0, 0, 0, 0]
    assert order["payment_intent"]["amount_cents"] == 0
    assert result["rejected_vendors"] == [
        {
            "vendor_store_id": str(cart.vendors[1]),
            "reason": "insufficient_inventory",
            "warnings": order["warnings"],
            "items": [
                {
                    "cart_item_id": str(item.id),
                    "product_id": str(item.product_id),
                    "name": f"Product 2.{number}",
                    "qty": item.quantity,
                    "status": "rejected",
                    "reason": "insufficient_inventory",
                    "warnings": [SHORT],
                }
                for number, item in enumerate(cart.items[2:], 1)
            ],
        }
    ]


def test_a_cart_whose_every_line_falls_short_is_converted_and_rejected(db, add_cart, checkout_sql, split):
    """PF-178: even a whole cart may end up rejected; calling again says the same and takes no stock."""
    cart = add_cart(vendors=2, lines=1, stock=1, quantity=2)
    split(cart)
    result = checkout_sql(db, cart)
    assert (result["status"], result["outcome"]) == ("converted", "rejected")
    assert result["totals"]["confirmed"] == {"subtotal_cents": 0, "discounts_cents": 0, "total_cents": 0}

    db.execute("select inventory_restock(%s, 50)", (cart.items[0].product_id,))
    assert checkout_sql(db, cart) == result | {"replayed": True}
    assert level(db, cart.items[0].product_id) == (51, 0)


def test_a_product_without_an_inventory_row_has_no_stock(db, add_cart, checkout_sql):
    """PF-178: reservation failure for want of a row."""
    cart = add_cart(vendors=1, stock=None)
    assert states(checkout_sql(db, cart)) == [("rejected", ["rejected"] * 2)]
    assert values(db, "select count(*) from inventory_items") == [0]


def test_two_lines_of_one_product_cannot_take_the_same_units(db, add_cart, checkout_sql, split):
    """PF-178: lines are served in the order of their ids; what the first took, the second cannot have."""
    product = add_cart(lines=1, vendors=1, stock=3).items[0].product_id
    cart = add_cart(vendors=2, lines=1, products=[product] * 2, quantity=2)
    split(cart)
    assert states(checkout_sql(db, cart)) == [("created_pending", ["pending"]), ("rejected", ["rejected"])]
    assert level(db, product) == (1, 2)


def test_a_smaller_line_may_still_fit_after_a_larger_one_did_not(db, add_cart, checkout_sql, split):
    """PF-178: each line is decided by what is left, in the order of the ids."""
    product = add_cart(lines=1, vendors=1, stock=5).items[0].product_id
    cart = add_cart(
        vendors=1,
        lines=4,
        products=[product] * 4,
        items={(0, line): {"quantity": qty} for line, qty in enumerate([3, 4, 2, 1])},
    )
    split(cart)
    assert states(checkout_sql(db, cart)) == [("created_pending", ["pending", "rejected", "pending", "rejected"])]
    assert level(db, product) == (0, 5)


def test_only_orderable_lines_are_reserved(db, add_cart, checkout_sql, split):
    """PF-178: reservation requests only for cart items with the status ok, in a vendor group that is ok."""
    cart = add_cart(
        vendors=3,
        lines=1,
        stock=5,
        items={(0, 0): {"status": "invalid"}, (1, 0): {"quantity": 2}},
        groups={2: {"status": "invalid"}},
    )
    split(cart)
    checkout_sql(db, cart)
    assert [level(db, item.product_id) for item in cart.items] == [(5, 0), (3, 2), (5, 0)]


def test_nothing_but_the_checkout_reserves(db, add_cart, checkout_sql):
    """PF-178: inventory is reserved only during checkout: not by the quote, not by a look at it, not by a replay."""
    cart = add_cart(stock=5)
    quote = {
        "id": str(cart.id),
        "buyer_store_id": str(cart.buyer_store_id),
        "currency": "USD",
        "valid_until": "2126-01-01T00:00:00Z",
        "vendor_groups": [],
    }
    before = rows(db, "select * from inventory_items order by 1")
    other = add_cart(stock=5)
    db.execute("select checkout_result(%s, %s)", (cart.buyer_store_id, cart.id))
    db.execute("select cart_put(%s)", (Jsonb(quote),))
    own = [item.product_id for item in cart.items]
    assert rows(db, "select * from inventory_items where product_id = any(%s) order by 1", own) == before

    checkout_sql(db, other)
    after = rows(db, "select * from inventory_items order by 1")
    checkout_sql(db, other)
    checkout_sql(db, other, key="k2")
    assert rows(db, "select * from inventory_items order by 1") == after


def test_nothing_is_reserved_unless_the_transaction_commits(db, connect, add_cart, checkout_sql, split):
    """PF-178: reservation executes inside the checkout's transaction."""
    cart = add_cart(vendors=1, lines=1, stock=5)
    split(cart)
    with connect() as conn:
        checkout_sql(conn, cart)
        assert level(conn, cart.items[0].product_id) == (4, 1)
        conn.rollback()
    assert level(db, cart.items[0].product_id) == (5, 0)
    assert values(db, "select count(*) from inventory_holds") == [0]


def test_policy_vendor_rejects_every_line_of_a_vendor_with_a_short_one(db, add_cart, checkout_sql, split):
    """PF-178: escalation to the vendor; its other lines reserve nothing, other vendors are served."""
    cart = add_cart(vendors=3, stock=5, promo_cents=10, items={(1, 1): {"quantity": 6}})
    split(cart)
    result = checkout_sql(db, cart, reservation_policy="vendor")

    assert states(result) == [
        ("created_pending", ["pending"] * 2),
        ("rejected", ["rejected"] * 2),
        ("created_pending", ["pending"] * 2),
    ]
    assert {item["notes"] for item in result["vendor_orders"][1]["items"]} == {"insufficient_inventory"}
    assert [vendor["reason"] for vendor in result["rejected_vendors"]] == ["insufficient_inventory"]
    assert result["totals"]["confirmed"]["total_cents"] == 2 * (2000 - 10)
    assert [level(db, item.product_id) for item in cart.items] == [(4, 1), (4, 1), (5, 0), (5, 0), (4, 1), (4, 1)]
    assert checkout_sql(db, cart, reservation_policy="vendor") == result | {"replayed": True}


def test_policy_vendor_orders_everything_when_nothing_is_short(db, add_cart, checkout_sql):
    """PF-178: policies differ only where a line is short."""
    cart = add_cart(vendors=2)
    assert checkout_sql(db, cart, reservation_policy="vendor")["outcome"] == "complete"


def test_policy_all_refuses_the_cart_and_names_every_short_line(db, add_cart, checkout_sql, snapshot, split):
    """PF-178: nothing is written, and the cart can be checked out when the stock is there."""
    short = {(0, 1): {"quantity": 6}, (1, 0): {"quantity": 7}}
    cart = add_cart(vendors=2, stock=5, items=short)
    split(cart)
    before = snapshot(db)

    with refused("OC010") as refusal:
        checkout_sql(db, cart, reservation_policy="all")

    assert snapshot(db) == before
    assert refusal.detail == {
        "cart_id": str(cart.id),
        "items": [
            {
                "cart_item_id": str(cart.items[line].id),
                "product_id": str(cart.items[line].product_id),
                "requested": requested,
                "available": 5,
            }
            for line, requested in [(1, 6), (2, 7)]
        ],
    }
    for line in (1, 2):
        db.execute("select inventory_restock(%s, 10)", (cart.items[line].product_id,))
    assert checkout_sql(db, cart, reservation_policy="all")["outcome"] == "complete"


def test_policy_all_says_what_is_left_after_earlier_lines_of_the_product(db, add_cart, checkout_sql, split):
    """PF-178: two lines of one product: the second is told what the first leaves."""
    product = add_cart(lines=1, vendors=1, stock=3).items[0].product_id
    cart = add_cart(vendors=1, lines=2, products=[product] * 2, quantity=2)
    split(cart)
    with refused("OC010") as refusal:
        checkout_sql(db, cart, reservation_policy="all")
    assert [(item["requested"], item["available"]) for item in refusal.detail["items"]] == [(2, 1)]


def test_a_rejected_line_stays_rejected_on_replay_whatever_the_stock(db, add_cart, checkout_sql):
    """PF-178: the outcome of a conversion does not change any more."""
    cart = add_cart(vendors=1, stock=1, items={(0, 1): {"quantity": 2}})
    result = checkout_sql(db, cart)
    db.execute("select inventory_restock(%s, 100)", (cart.items[1].product_id,))
    assert checkout_sql(db, cart, key="k2") == result | {"replayed": True}


def test_a_vendor_that_declines_later_is_not_listed_as_short_of_stock(db, add_cart, checkout_sql):
    """PF-178: rejected_vendors tells what the checkout found, not what a vendor decided afterwards."""
    cart = add_cart(vendors=1, lines=1, stock=1)
    result = checkout_sql(db, cart)
    db.execute("select order_line_release(%s, 'sold elsewhere')", (cart.items[0].id,))
    replay = checkout_sql(db, cart)
    assert (replay["outcome"], replay["rejected_vendors"]) == (result["outcome"], []) == ("complete", [])
