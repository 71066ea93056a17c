"""Orders and lines under our anchor that this conversion did not write: never billed, told, announced or added up."""

from uuid import UUID

import pytest
from test_cart_validation import insert_order

from checks import refused, rows, values

ANCHOR, THEIRS = UUID(int=9), UUID(int=8)


def told(result):
    return [(order["order_id"], [item["line_item_id"] for item in order["items"]]) for order in result["vendor_orders"]]


def events(db):
    return {
        row["type"]: row["data"]
        for row in rows(db, "select event_type as type, payload -> 'data' as data from outbox_events")
    }


def test_a_cart_whose_anchor_carries_orders_is_refused_by_their_ids(db, add_cart, checkout_sql, nothing_written):
    """A crashed checkout of the earlier system left one there, without an intent."""
    cart = add_cart(cart={"checkout_group_id": ANCHOR})
    insert_order(db, ANCHOR, THEIRS)

    with nothing_written(), refused("OC007") as refusal:
        checkout_sql(db, cart)

    assert refusal.detail["problem"] == "anchor_has_orders"
    assert (refusal.detail["checkout_group_id"], refusal.detail["vendor_order_ids"]) == (str(ANCHOR), [str(THEIRS)])


def test_an_anchor_without_orders_is_kept(db, add_cart, checkout_sql):
    cart = add_cart(cart={"checkout_group_id": ANCHOR})

    assert checkout_sql(db, cart)["checkout_group_id"] == str(ANCHOR)


@pytest.mark.breaks_invariants  # the audit reports the order of the host
@pytest.mark.parametrize("of_the_cart", [False, True], ids=["of no cart", "that names the cart"])
def test_an_order_that_the_host_adds_later_is_no_part_of_the_conversion(db, add_cart, checkout_sql, of_the_cart):
    cart = add_cart(vendors=2, stock=1, quantity=1, items={(1, 1): {"quantity": 2}})
    first = checkout_sql(db, cart)
    insert_order(db, UUID(first["checkout_group_id"]), THEIRS, cart.id if of_the_cart else None)

    replay = checkout_sql(db, cart)

    assert replay == first | {"replayed": True}
    assert values(db, "select checkout_result(%s, %s)", cart.buyer_store_id, cart.id) == [replay]


@pytest.mark.breaks_invariants
def test_an_order_that_is_committed_during_the_checkout_is_not_billed(db, connect, add_cart, checkout_sql):
    """The look for orders under the anchor cannot see it; what was written is counted by what is ours."""
    cart = add_cart(cart={"checkout_group_id": ANCHOR})
    host, buyer = connect(), connect()
    insert_order(host, ANCHOR, THEIRS)
    first = checkout_sql(buyer, cart)
    host.commit()
    buyer.commit()

    assert [order for order, _ in told(first)] == [str(group.id) for group in cart.groups]
    assert checkout_sql(db, cart) == first | {"replayed": True}
    assert values(db, "select order_id from payment_intents order by order_id") == [group.id for group in cart.groups]
    assert events(db)["checkout.vendor_orders_created"]["vendor_order_ids"] == [str(group.id) for group in cart.groups]


def test_a_line_that_the_host_adds_to_our_order_is_not_told_as_ours(db, add_cart, checkout_sql):
    cart = add_cart(vendors=1)
    first = checkout_sql(db, cart)
    db.execute(
        """
        insert into order_line_items (id, order_id, name, category, unit, unit_price_cents, qty, total_cents)
        values (gen_random_uuid(), %s, 'gift wrap', 'other', 'each', 200, 1, 200)
        """,
        (cart.groups[0].id,),
    )

    assert told(checkout_sql(db, cart)) == told(first)


def test_what_the_earlier_system_converted_is_told_whole(db, add_cart, checkout_sql):
    cart = add_cart(cart={"checkout_group_id": ANCHOR})
    db.execute("update cart_records set status = 'converted'")
    insert_order(db, ANCHOR, THEIRS)

    result = checkout_sql(db, cart)

    assert (result["replayed"], [order for order, _ in told(result)]) == (True, [str(THEIRS)])
    assert len(result["vendor_orders"][0]["items"]) == 1
