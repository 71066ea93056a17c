"""What a line holds and what an order comes to stand where the checkout wrote them, whatever states a host writes."""

from uuid import UUID

import pytest

from checks import level, refused, row, rows, values


@pytest.fixture
def figures(db):
    """figures(cart): subtotal, discounts, promotion's share, total, balance and the intent of its first order."""

    def figures(cart):
        return tuple(
            row(
                db,
                """
                select subtotal_cents, discounts_cents, promo_discount_cents, total_cents, balance_due_cents,
                       amount_cents
                  from vendor_orders as own join payment_intents on order_id = own.id
                 where own.id = %s
                """,
                cart.groups[0].id,
            ).values()
        )

    return figures


@pytest.fixture
def audited(db):
    """audited(): what the audit names, invariant and id."""

    def audited():
        return [(found["invariant"], UUID(found["id"])) for found in rows(db, "select * from checkout_audit()")]

    return audited


def set_line(db, item, status):
    db.execute("update order_line_items set status = %s::text::line_item_status where id = %s", (status, item.id))


def set_order(db, cart, status):
    db.execute(
        "update vendor_orders set status = %s::text::vendor_order_status where id = %s", (status, cart.groups[0].id)
    )


def add_gift_wrap(db, cart, status="pending"):
    """A line of the host's own, as its code writes one."""
    db.execute(
        """
        insert into order_line_items
          (order_id, product_id, name, category, unit, unit_price_cents, qty, total_cents, status)
        values (%s, %s, 'Gift wrap', '', '', 200, 1, 200, %s::text::line_item_status)
        """,
        (cart.groups[0].id, cart.items[0].product_id, status),
    )


# Lines of the host's own count nowhere


@pytest.mark.parametrize("status", ["pending", "accepted", "rejected", "fulfilled", "hold"])
@pytest.mark.parametrize(
    ("does", "left"),
    [
        ("order_line_fulfil", (2000, 0, 0, 2000, 2000, 2000)),
        ("order_line_release", (1000, 0, 0, 1000, 1000, 1000)),
        ("vendor_order_cancel", (0, 0, 0, 0, 0, 0)),
    ],
)
def test_a_line_of_the_host_is_in_no_amount(db, add_cart, checkout_sql, call, figures, does, left, status):
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    add_gift_wrap(db, cart, status)

    if does == "vendor_order_cancel":
        answer = call(does, cart.groups[0].id, "off")
    else:
        answer = call(does, cart.items[0].id, *(["torn"] if does == "order_line_release" else []))

    assert figures(cart) == left
    assert "Gift wrap" not in str(answer) and len(answer["items"]) == (2 if does == "vendor_order_cancel" else 1)
    wrap = row(db, "select status::text, reserved_qty, notes from order_line_items where name = 'Gift wrap'")
    assert wrap == {"status": status, "reserved_qty": None, "notes": None}


def test_an_order_ends_with_its_own_lines_whatever_the_host_added(db, add_cart, checkout_sql, call, figures):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    add_gift_wrap(db, cart)
    assert call("order_line_release", cart.items[0].id, "torn")["status"] == "rejected"
    assert figures(cart) == (0, 0, 0, 0, 0, 0)


def test_an_order_is_fulfilled_with_its_own_lines_whatever_the_host_added(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    add_gift_wrap(db, cart)
    assert call("order_line_fulfil", cart.items[0].id)["status"] == "fulfilled"


def test_a_line_of_the_host_is_not_ours_to_end(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    add_gift_wrap(db, cart)
    [wrap] = values(db, "select id from order_line_items where name = 'Gift wrap'")
    for call_it in (lambda: call("order_line_release", wrap, "x"), lambda: call("order_line_fulfil", wrap)):
        with refused("OC011"):
            call_it()


def test_a_replay_shows_no_line_of_the_host(db, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=2)
    first = checkout_sql(db, cart)
    add_gift_wrap(db, cart)
    assert checkout_sql(db, cart) == first | {"replayed": True}


# A state that a host wrote moves no stock: the function that is called afterwards does, once


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize(
    ("status", "ends", "left"),
    [("rejected", "order_line_release", (10, 0)), ("fulfilled", "order_line_fulfil", (6, 0))],
)
def test_a_line_that_the_host_ended_itself_still_ends_once(
    db, add_cart, checkout_sql, call, audited, snapshot, slots, status, ends, left
):
    cart = add_cart(vendors=1, lines=2, quantity=4, stock=10)
    line = cart.items[0]
    call("inventory_split", line.product_id, slots)
    checkout_sql(db, cart)
    set_line(db, line, status)
    assert level(db, line.product_id) == (6, 4)
    assert audited() == [("ended_line_holds_nothing", line.id)]

    why = ["torn"] if status == "rejected" else []
    assert call(ends, line.id, *why)["replayed"] is False

    assert (level(db, line.product_id), audited()) == (left, [])
    assert values(db, "select reserved_qty from order_line_items where id = %s", line.id) == [0]
    before = snapshot(db)
    assert call(ends, line.id, *why)["replayed"] is True
    assert snapshot(db) == before


@pytest.mark.parametrize(("status", "other"), [("fulfilled", "order_line_release"), ("rejected", "order_line_fulfil")])
@pytest.mark.breaks_invariants  # the state is set by hand, the stock is not
def test_a_line_that_the_host_ended_does_not_end_the_other_way(db, add_cart, checkout_sql, call, status, other):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    set_line(db, cart.items[0], status)
    with refused("OC012"):
        call(other, cart.items[0].id, *(["x"] if other == "order_line_release" else []))
    assert level(db, cart.items[0].product_id) == (99, 1)


@pytest.mark.parametrize("status", ["canceled", "expired", "rejected"])
def test_lines_of_an_order_that_the_host_ended_are_released(db, add_cart, checkout_sql, call, figures, audited, status):
    cart = add_cart(vendors=1, lines=2, quantity=4, stock=10)
    checkout_sql(db, cart)
    set_order(db, cart, status)
    assert audited() == [("ended_order_holds_nothing", cart.groups[0].id)]

    for item in cart.items:
        assert call("order_line_release", item.id, "off")["status"] == status

    assert [level(db, item.product_id) for item in cart.items] == [(10, 0)] * 2
    assert (figures(cart), audited()) == ((0, 0, 0, 0, 0, 0), [])


def test_lines_of_an_order_that_the_host_called_fulfilled_are_fulfilled(db, add_cart, checkout_sql, call, audited):
    cart = add_cart(vendors=1, lines=2, quantity=4, stock=10)
    checkout_sql(db, cart)
    set_order(db, cart, "fulfilled")
    assert audited() == [("ended_order_holds_nothing", cart.groups[0].id)]

    assert [call("order_line_fulfil", item.id)["status"] for item in cart.items] == ["fulfilled"] * 2

    assert ([level(db, item.product_id) for item in cart.items], audited()) == ([(6, 0)] * 2, [])


@pytest.mark.parametrize("status", ["created_pending", "canceled", "expired"])
def test_a_cancel_takes_along_what_the_host_rejected(db, add_cart, checkout_sql, call, figures, status):
    """A line that was fulfilled before, or whose stock went back, is none of it."""
    cart = add_cart(vendors=1, lines=3, quantity=4, stock=10)
    checkout_sql(db, cart)
    call("order_line_release", cart.items[2].id, "torn")
    set_line(db, cart.items[0], "rejected")
    set_order(db, cart, status)

    answer = call("vendor_order_cancel", cart.groups[0].id, "off")

    assert [UUID(item["line_item_id"]) for item in answer["items"]] == [cart.items[0].id, cart.items[1].id]
    assert [level(db, item.product_id) for item in cart.items] == [(10, 0)] * 3
    assert figures(cart) == (0, 0, 0, 0, 0, 0)
    assert call("vendor_order_cancel", cart.groups[0].id, "off")["replayed"] is True


def test_a_canceled_order_keeps_what_was_fulfilled(db, add_cart, checkout_sql, call, figures):
    """Its host said canceled although a line had left: that line is owed, the other is given back."""
    cart = add_cart(vendors=1, lines=2, quantity=4, stock=10, promo_cents=500)
    checkout_sql(db, cart)
    call("order_line_fulfil", cart.items[0].id)
    set_order(db, cart, "canceled")

    call("vendor_order_cancel", cart.groups[0].id, "off")

    assert [level(db, item.product_id) for item in cart.items] == [(6, 0), (10, 0)]
    assert figures(cart) == (4000, 500, 500, 3500, 3500, 3500)


# What an order comes to


GROSS = {
    "vendors": 1,
    "lines": 3,
    "amounts": "gross",
    "items": {
        (0, 0): {"line_discounts_cents": 300},
        (0, 1): {"unit_price_cents": 500},
        (0, 2): {"unit_price_cents": 400},
    },
}


def test_a_line_that_the_host_rejected_counts_as_long_as_it_holds_stock(
    db, add_cart, checkout_sql, call, figures, audited
):
    cart = add_cart(**GROSS)
    a, b, c = cart.items
    checkout_sql(db, cart)
    assert figures(cart) == (1900, 300, 0, 1600, 1600, 1600)

    set_line(db, a, "rejected")
    call("order_line_release", b.id, "torn")
    assert figures(cart) == (1400, 300, 0, 1100, 1100, 1100)
    assert audited() == [("ended_line_holds_nothing", a.id)]

    call("order_line_release", a.id, "torn")
    assert figures(cart) == (400, 0, 0, 400, 400, 400)
    assert audited() == []

    call("order_line_fulfil", c.id)
    assert figures(cart) == (400, 0, 0, 400, 400, 400)


def test_the_last_line_that_holds_stock_is_owed_whatever_its_state(db, add_cart, checkout_sql, call, figures):
    cart = add_cart(**GROSS)
    a, b, c = cart.items
    checkout_sql(db, cart)
    set_line(db, a, "rejected")
    call("order_line_release", b.id, "torn")
    assert call("order_line_release", c.id, "torn")["status"] == "created_pending"
    assert figures(cart) == (1000, 300, 0, 700, 700, 700)
    assert call("order_line_release", a.id, "torn")["status"] == "rejected"
    assert figures(cart) == (0, 0, 0, 0, 0, 0)


def test_an_order_is_not_fulfilled_before_the_last_line_that_holds_stock(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    set_line(db, cart.items[0], "fulfilled")
    assert call("order_line_fulfil", cart.items[1].id)["status"] == "partially_fulfilled"
    assert call("order_line_fulfil", cart.items[0].id)["status"] == "fulfilled"


def test_a_discount_of_a_line_is_never_taken_for_the_promotion(db, add_cart, checkout_sql, call, figures, audited):
    cart = add_cart(**GROSS, promo_cents=200)
    a, b, _ = cart.items
    checkout_sql(db, cart)
    assert figures(cart) == (1900, 500, 200, 1400, 1400, 1400)
    set_line(db, a, "rejected")
    call("order_line_release", b.id, "torn")
    assert figures(cart) == (1400, 500, 200, 900, 900, 900)
    call("order_line_release", a.id, "torn")
    assert figures(cart) == (400, 200, 200, 200, 200, 200)
    assert audited() == []


def test_a_promotion_is_capped_step_by_step_and_never_grows_again(db, add_cart, checkout_sql, call, figures):
    cart = add_cart(
        vendors=1,
        lines=4,
        promo_cents=2800,
        items={(0, n): {"unit_price_cents": price} for n, price in enumerate([2000, 1000, 600, 400])},
    )
    checkout_sql(db, cart)
    assert figures(cart) == (4000, 2800, 2800, 1200, 1200, 1200)
    for item, left in zip(
        cart.items,
        [(2000, 2000, 2000, 0, 0, 0), (1000, 1000, 1000, 0, 0, 0), (400, 400, 400, 0, 0, 0), (0, 0, 0, 0, 0, 0)],
        strict=True,
    ):
        call("order_line_release", item.id, "torn")
        assert figures(cart) == left


def test_a_promotion_that_the_checkout_capped_stays_so(db, add_cart, checkout_sql, call, figures):
    cart = add_cart(
        vendors=1,
        lines=3,
        stock=5,
        promo_cents=2500,
        items={(0, 0): {"quantity": 6}, (0, 1): {"unit_price_cents": 700}},
    )
    checkout_sql(db, cart)
    assert figures(cart) == (1700, 1700, 1700, 0, 0, 0)
    call("order_line_release", cart.items[1].id, "torn")
    assert figures(cart) == (1000, 1000, 1000, 0, 0, 0)
    call("order_line_fulfil", cart.items[2].id)
    assert figures(cart) == (1000, 1000, 1000, 0, 0, 0)


def test_tax_and_transport_of_the_host_stay_until_nothing_is_left(db, add_cart, checkout_sql, call, figures):
    cart = add_cart(vendors=1, lines=2, promo_cents=300)
    checkout_sql(db, cart)
    db.execute(
        "update vendor_orders set tax_cents = 80, transport_fee_cents = 20,"
        " total_cents = 1800, balance_due_cents = 1800"
    )
    db.execute("update payment_intents set amount_cents = 1800")
    call("order_line_release", cart.items[0].id, "torn")
    assert figures(cart) == (1000, 300, 300, 800, 800, 800)
    call("order_line_release", cart.items[1].id, "torn")
    assert figures(cart) == (0, 0, 0, 0, 0, 0)
    assert values(db, "select tax_cents + transport_fee_cents from vendor_orders") == [0]


def test_what_was_paid_in_part_is_not_asked_for_again(db, add_cart, checkout_sql, call, figures):
    cart = add_cart(vendors=1, lines=3)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set balance_due_cents = 1500")
    db.execute("update payment_intents set status = 'pending', amount_cents = 1500")
    call("order_line_release", cart.items[0].id, "torn")
    assert figures(cart) == (2000, 0, 0, 2000, 500, 1500)
    call("order_line_release", cart.items[1].id, "torn")
    assert figures(cart) == (1000, 0, 0, 1000, 0, 1500)
    call("vendor_order_cancel", cart.groups[0].id, "off")
    assert figures(cart) == (0, 0, 0, 0, 0, 1500)


def test_the_promotion_is_not_inferred_from_what_the_host_wrote(db, add_cart, checkout_sql, call, figures):
    """A correction of the payment method, an address or a note between two changes is in no amount."""
    cart = add_cart(**GROSS, promo_cents=200)
    checkout_sql(db, cart)
    call("order_line_release", cart.items[1].id, "torn")
    db.execute("update vendor_orders set payment_method = 'cash', notes = 'x', shipping_address.city = 'Enid'")
    db.execute("update order_line_items set notes = 'y', warnings = '[]'")
    call("order_line_release", cart.items[2].id, "torn")
    assert figures(cart) == (1000, 500, 200, 500, 500, 500)
