"""PF-177: one payment intent an order, over its total, with the method that the checkout confirmed."""

import psycopg
import pytest

from checks import row, rows, values

JOINED = """
select intent.*, vendor_order.total_cents, vendor_order.payment_method
  from vendor_orders as vendor_order
  left join payment_intents as intent on intent.order_id = vendor_order.id
 order by vendor_order.id
"""


def test_each_order_has_one_intent_over_its_total(db, add_cart, checkout_sql):
    """PF-177: exactly one payment intent per vendor order, its amount the order's total."""
    cart = add_cart(vendors=3, lines=[1, 2, 3], promo_cents=[0, 77, 3 * 991], amounts="gross", line_discount_cents=9)
    result = checkout_sql(db, cart)

    intents = rows(db, JOINED)
    assert [intent["order_id"] for intent in intents] == [group.id for group in cart.groups]
    assert [intent["amount_cents"] for intent in intents] == [991, 2 * 991 - 77, 0]
    assert [intent["id"] for intent in intents] == [group.id for group in cart.groups]
    assert [order["payment_intent"] for order in result["vendor_orders"]] == [
        {"payment_intent_id": str(group.id), "method": "ach", "status": "unpaid", "amount_cents": group.total_cents}
        for group in cart.groups
    ]


@pytest.mark.parametrize("method", ["cash", "ach"])
def test_the_method_is_the_one_that_was_confirmed(db, add_cart, checkout_sql, method):
    """PF-177: payment method matches checkout selection, not the column's default."""
    checkout_sql(db, add_cart(), payment_method=method)
    assert [(intent["method"], intent["payment_method"]) for intent in rows(db, JOINED)] == [(method, method)] * 2


def test_a_method_that_the_host_added_is_taken(db, connect, add_cart, checkout_sql):
    """PF-177: the enum says which methods there are."""
    cart = add_cart()
    db.execute("alter type payment_method add value 'wire'")
    result = checkout_sql(connect(autocommit=True), cart, payment_method="wire")
    assert [order["payment_intent"]["method"] for order in result["vendor_orders"]] == ["wire", "wire"]


@pytest.mark.parametrize("default", ["unpaid", "pending"])
def test_the_status_is_the_default_of_the_column(db, add_cart, checkout_sql, default):
    """PF-177: defaults for payment status remain unchanged, a host's own included."""
    db.execute(f"alter table payment_intents alter status set default '{default}'")
    checkout_sql(db, add_cart())
    assert values(db, "select status from payment_intents") == [default, default]


def test_a_rejected_order_has_an_intent_over_nothing(db, add_cart, checkout_sql):
    """PF-177: one payment intent per vendor order, 0 for a rejected one."""
    cart = add_cart(vendors=2, lines=1, stock=5, promo_cents=100, items={(1, 0): {"quantity": 6}})
    checkout_sql(db, cart)
    assert [(intent["amount_cents"], intent["total_cents"]) for intent in rows(db, JOINED)] == [(900, 900), (0, 0)]


def test_a_partly_rejected_order_has_an_intent_over_what_is_left(db, add_cart, checkout_sql):
    """PF-177: the amount matches the order's total after rejections too."""
    cart = add_cart(vendors=1, lines=3, stock=5, promo_cents=100, items={(0, 1): {"quantity": 6}})
    checkout_sql(db, cart)
    assert row(db, JOINED)["amount_cents"] == 1900


def test_replays_make_no_further_intents(db, add_cart, checkout_sql):
    """PF-177: exactly one payment intent an order, however often the call is made."""
    cart = add_cart()
    for key in ("k1", "k1", "k2"):
        checkout_sql(db, cart, key=key)
    assert values(db, "select count(*) from payment_intents") == [2]


def test_the_table_refuses_a_second_intent_of_an_order(db, add_cart, checkout_sql):
    """PF-177: exactly one, whoever writes."""
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute(
            "insert into payment_intents (id, order_id, method, amount_cents) values (gen_random_uuid(), %s, 'ach', 1)",
            (cart.groups[0].id,),
        )


def test_intents_are_dated_with_the_conversion(db, add_cart, checkout_sql):
    """PF-177: order and intent are of one instant."""
    checkout_sql(db, add_cart(vendors=1))
    dates = row(db, "select i.created_at as intent, o.created_at as ordered from payment_intents i, vendor_orders o")
    assert dates["intent"] == dates["ordered"]
