"""Parts of a line: units that are turned down, shipped or come back, decisions and adjustments, each once a key."""

import json
import re
from functools import partial
from uuid import UUID

import pytest
from events import changes, validate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from checks import level, outcome, refused, row, rows, values
from races import blocked

pytest_plugins = ["shared"]


@pytest.fixture
def db(undone_if_alone):
    return undone_if_alone


MOST = 2**62


@pytest.fixture
def order(db, add_cart, checkout_sql):
    """order(lines=1, quantity=10): the cart of one converted order, with stock for all of it."""

    def order(**shape):
        cart = add_cart(**{"vendors": 1, "lines": 1, "quantity": 10, "stock": 100} | shape)
        checkout_sql(db, cart, key=str(cart.id))
        return cart

    return order


def counts(db, item):
    query = "select reserved_qty, fulfilled_qty, released_qty, returned_qty from order_line_items where id = %s"
    return tuple(db.execute(query, (item.id,)).fetchone())


def state(db, item):
    return values(db, "select status::text from order_line_items where id = %s", item.id)[0]


def figures(db, cart):
    found = row(db, "select * from vendor_orders where id = %s", cart.groups[0].id)
    names = ("subtotal_cents", "discounts_cents", "tax_cents", "transport_fee_cents", "adjustments_cents")
    assert found["balance_due_cents"] == found["total_cents"]
    assert values(db, "select amount_cents from payment_intents where order_id = %s", found["id"]) == [
        found["total_cents"]
    ]
    return *(found[name] or 0 for name in names), found["total_cents"]


def set_order(db, cart, status):
    db.execute("update vendor_orders set status = %s::vendor_order_status where id = %s", (status, cart.groups[0].id))


def taxed(
    db, add_cart, checkout_sql, tax=(190, 95), shipping=500, shipping_tax=40, promo=0, included=False, quantity=7
):
    """A converted order of two lines of 1000 each, with tax, shipping and a promotion."""
    total = 2000 + shipping - promo + (0 if included else sum(tax) + shipping_tax)
    cart = add_cart(
        vendors=1,
        lines=2,
        stock=100,
        promo_cents=promo,
        cart={"tax_included": included, "subtotal_cents": 2000, "discounts_cents": promo, "total_cents": total},
        groups={
            0: {
                "shipping_cents": shipping,
                "shipping_tax_cents": shipping_tax,
                "total_cents": total,
                "promo": {"code": "P", "amount_cents": promo},
            }
        },
        items={
            (0, line): {
                "quantity": quantity,
                "unit_price_cents": 143,
                "line_subtotal_cents": 1000,
                "line_total_cents": 1000,
                "tax_cents": tax[line],
            }
            for line in (0, 1)
        },
    )
    checkout_sql(db, cart, key=str(cart.id))
    return cart


# Units, states and stock


def test_a_part_that_is_released_goes_back_to_the_shelf_with_its_money(db, order, call):
    cart = order()
    [item] = cart.items

    answer = call("order_line_release", item.id, "torn", 3, "k1")

    assert (counts(db, item), state(db, item), level(db, item.product_id)) == ((7, None, 3, None), "pending", (93, 7))
    assert (answer["status"], answer["total_cents"], answer["replayed"]) == ("created_pending", 7000, False)
    assert figures(db, cart) == (7000, 0, 0, 0, 0, 7000)
    [line] = answer["items"]
    assert (line["qty"], line["total_cents"], line["left_qty"], line["left_cents"]) == (10, 10000, 7, 7000)
    assert answer["changes"] == [
        {
            "line_item_id": str(item.id),
            "released_qty": 3,
            "total_cents": 3000,
            "discount_cents": 0,
            "tax_cents": 0,
        }
    ]
    assert values(db, "select qty from order_line_items") == [10]
    assert [kind for kind, _ in changes(db)] == ["order_line.released"]


def test_a_part_that_is_fulfilled_leaves_the_reserve_and_moves_no_money(db, order, call):
    cart = order()
    [item] = cart.items

    answer = call("order_line_fulfil", item.id, 4, "parcel-1", {"carrier": "DHL", "tracking": "123"})

    assert (counts(db, item), state(db, item), level(db, item.product_id)) == ((6, 4, None, None), "pending", (90, 6))
    assert (answer["status"], answer["total_cents"]) == ("partially_fulfilled", 10000)
    assert answer["changes"] == [{"line_item_id": str(item.id), "fulfilled_qty": 4}]
    assert answer["details"] == {"carrier": "DHL", "tracking": "123"}
    assert changes(db)[0][1] | {"replayed": False} == answer

    assert call("order_line_fulfil", item.id)["status"] == "fulfilled"
    assert (counts(db, item), state(db, item)) == ((0, 10, None, None), "fulfilled")
    assert level(db, item.product_id) == (90, 0)


@pytest.mark.parametrize(("restock", "available"), [(True, 93), (False, 90)])
def test_shipped_units_come_back_with_their_money(db, order, call, restock, available):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id)

    answer = call("order_line_return", item.id, "torn", 3, restock, "k1")

    assert (counts(db, item), state(db, item)) == ((0, 10, None, 3), "fulfilled")
    assert level(db, item.product_id) == (available, 0)
    assert (answer["status"], answer["total_cents"]) == ("fulfilled", 7000)
    assert answer["changes"][0]["restocked_qty"] == (3 if restock else 0)

    assert call("order_line_return", item.id, "torn", None, restock, "k2")["total_cents"] == 0
    assert counts(db, item) == (0, 10, None, 10)
    assert len(changes(db)) == 3


def test_a_product_without_a_stock_row_takes_nothing_back(db, order, call):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id)
    db.execute("delete from inventory_items")
    answer = call("order_line_return", item.id, "torn", 3, True, "k1")
    assert answer["changes"][0]["restocked_qty"] == 0
    assert (counts(db, item), level(db, item.product_id)) == ((0, 10, None, 3), None)


def test_a_line_part_shipped_and_part_released_is_open_until_nothing_is_held(db, order, call):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id, 2, "k1")
    assert call("order_line_release", item.id, "torn", 3, "k2")["status"] == "partially_fulfilled"
    assert state(db, item) == "pending"
    answer = call("order_line_release", item.id, "the rest")
    assert (state(db, item), answer["status"], answer["total_cents"]) == ("fulfilled", "fulfilled", 2000)
    assert counts(db, item) == (0, 2, 8, None)
    assert values(db, "select notes from order_line_items") == [None]


@pytest.mark.parametrize("status", ["created_pending", "accepted", "partially_accepted", "hold"])
def test_a_cancel_ends_what_is_held(db, order, call, status):
    cart = order(lines=2)
    first, second = cart.items
    call("order_line_release", first.id, "torn", 4, "k1")
    set_order(db, cart, status)

    answer = call("vendor_order_cancel", cart.groups[0].id, "off")

    assert [change["released_qty"] for change in answer["changes"]] == [6, 10]
    assert (counts(db, first), counts(db, second)) == ((0, None, 10, None), (0, None, 10, None))
    assert (answer["status"], figures(db, cart)) == ("canceled", (0, 0, 0, 0, 0, 0))
    assert [level(db, item.product_id) for item in cart.items] == [(100, 0)] * 2


def test_a_canceled_order_owes_what_was_shipped_and_takes_that_back(db, order, call):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id, 4, "k1")
    set_order(db, cart, "hold")
    assert call("vendor_order_cancel", cart.groups[0].id, "off")["total_cents"] == 4000
    assert (state(db, item), level(db, item.product_id)) == ("fulfilled", (96, 0))
    answer = call("order_line_return", item.id, "torn", None, True, "k2")
    assert (answer["status"], answer["total_cents"], level(db, item.product_id)) == ("canceled", 0, (100, 0))


RETURNABLE = ["fulfilled", "partially_fulfilled", "in_transit", "delivered", "closed", "canceled"]
KNOWN = [
    "created_pending",
    "accepted",
    "partially_accepted",
    "rejected",
    "hold",
    "expired",
    *RETURNABLE,
]
STATES = {
    "order_line_release": {
        "created_pending",
        "accepted",
        "partially_accepted",
        "partially_fulfilled",
        "hold",
        "canceled",
        "expired",
        "rejected",
    },
    "order_line_fulfil": {
        "created_pending",
        "accepted",
        "partially_accepted",
        "partially_fulfilled",
        "in_transit",
        "delivered",
        "fulfilled",
    },
    "order_line_return": set(RETURNABLE),
    "vendor_order_decide": {"created_pending", "hold"},
    "order_adjust": set(KNOWN) - {"rejected"},
}


@pytest.mark.breaks_invariants  # the states are set by hand
@pytest.mark.parametrize("status", KNOWN)
@pytest.mark.parametrize("function", STATES)
def test_each_call_takes_the_states_of_its_row(db, order, call, snapshot, function, status):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id, 4, "k0")
    set_order(db, cart, status)
    decisions = [{"line_item_id": str(item.id), "accept_qty": 5, "reason": "short"}]
    arguments = {
        "order_line_release": (item.id, "torn", 1, "k1"),
        "order_line_fulfil": (item.id, 1, "k1"),
        "order_line_return": (item.id, "torn", 1, True, "k1"),
        "vendor_order_decide": (cart.groups[0].id, decisions, "k1"),
        "order_adjust": (cart.groups[0].id, 100, "late", "k1"),
    }[function]
    before = snapshot(db)
    if status in STATES[function]:
        assert call(function, *arguments)["replayed"] is False
    else:
        with refused("OC012") as refusal:
            call(function, *arguments)
        assert (refusal.detail["what"], refusal.detail["status"]) == ("order", status)
        assert snapshot(db) == before


@pytest.mark.parametrize("function", ["order_line_release", "order_line_fulfil", "order_line_return"])
def test_no_more_than_there_is(db, order, call, snapshot, function):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id, 4, "k0")
    before = snapshot(db)
    with refused("OC012") as refusal:
        if function == "order_line_fulfil":
            call(function, item.id, 7, "k1")
        elif function == "order_line_release":
            call(function, item.id, "torn", 7, "k1")
        else:
            call(function, item.id, "torn", 5, True, "k1")
    there = (5, 4) if function == "order_line_return" else (7, 6)
    assert (refusal.detail["asked"], refusal.detail["units"]) == there
    assert snapshot(db) == before


def test_of_a_split_product_the_highest_slots_give_first(db, add_cart, checkout_sql, call):
    product = UUID(int=7)
    cart = add_cart(vendors=1, lines=1, products=[product], quantity=18, stock=20)
    call("inventory_split", product, 4)
    checkout_sql(db, cart)
    [item] = cart.items
    holds = "select slot, qty from inventory_holds order by slot"
    before = {each["slot"]: each["qty"] for each in rows(db, holds)}
    assert sum(before.values()) == 18 and len(before) > 2

    highest = max(before)
    call("order_line_release", item.id, "torn", before[highest] + 1, "k1")
    left = {each["slot"]: each["qty"] for each in rows(db, holds)}
    next_one = max(slot for slot in before if slot < highest)
    assert left == {s: q - (s == next_one) for s, q in before.items() if s != highest and q > (s == next_one)}
    assert level(db, item.product_id) == (2 + before[highest] + 1, 17 - before[highest])

    held = sum(left.values())
    call("order_line_fulfil", item.id, held - 1, "k2")
    assert [each["qty"] for each in rows(db, holds)] == [1]
    call("order_line_fulfil", item.id)
    assert rows(db, holds) == [] and level(db, item.product_id)[1] == 0

    call("order_line_return", item.id, "torn", 2, True, "k3")
    assert level(db, item.product_id)[0] == 2 + before[highest] + 1 + 2


def test_a_return_goes_to_the_slot_that_has_least(db, add_cart, checkout_sql, call):
    product = UUID(int=7)
    cart = add_cart(vendors=1, lines=1, products=[product], quantity=4, stock=20)
    call("inventory_split", product, 4)
    checkout_sql(db, cart)
    call("order_line_fulfil", cart.items[0].id)
    [least] = values(db, "select slot from inventory_slots order by available_qty, slot limit 1")
    before = values(db, "select available_qty from inventory_slots where slot = %s", least)[0]
    call("order_line_return", cart.items[0].id, "torn", 3, True, "k1")
    assert values(db, "select available_qty from inventory_slots where slot = %s", least) == [before + 3]


# A vendor's answer


def test_a_vendor_accepts_a_part(db, order, call):
    cart = order(lines=3)
    a, b, c = cart.items
    decisions = [
        {"line_item_id": str(a.id), "accept_qty": 4, "reason": "only four"},
        {"line_item_id": str(b.id).upper(), "accept_qty": 0, "reason": "none"},
    ]

    answer = call("vendor_order_decide", cart.groups[0].id, decisions, "k1")

    assert (answer["status"], answer["total_cents"]) == ("partially_accepted", 14000)
    assert [state(db, item) for item in cart.items] == ["accepted", "rejected", "accepted"]
    assert [counts(db, item) for item in (a, b, c)] == [
        (4, None, 6, None),
        (0, None, 10, None),
        (10, None, None, None),
    ]
    assert [level(db, item.product_id) for item in cart.items] == [(96, 4), (100, 0), (90, 10)]
    assert [(each["released_qty"], each["reason"]) for each in answer["changes"]] == [
        (6, "only four"),
        (10, "none"),
        (0, None),
    ]
    assert values(db, "select notes from order_line_items order by id") == [None, "none", None]
    assert [kind for kind, _ in changes(db)] == ["vendor_order.decided"]
    assert call("vendor_order_decide", cart.groups[0].id, decisions[::-1], "k1") == answer | {"replayed": True}


@pytest.mark.parametrize("decisions", [None, []])
def test_a_vendor_accepts_all(db, order, call, snapshot, decisions):
    cart = order(lines=2)
    answer = call("vendor_order_decide", cart.groups[0].id, decisions)
    assert (answer["status"], answer["total_cents"]) == ("accepted", 20000)
    assert [state(db, item) for item in cart.items] == ["accepted"] * 2
    before = snapshot(db)
    assert call("vendor_order_decide", cart.groups[0].id, decisions) == answer | {"replayed": True}
    assert snapshot(db) == before
    call("order_line_release", cart.items[0].id, "torn", 1, "k1")
    with refused("OC012"):
        call("vendor_order_decide", cart.groups[0].id, decisions)


def test_a_decision_under_a_key_is_no_answer_to_one_without(db, order, call, snapshot):
    """Who accepts all is not told "done already" of an order that was accepted in part."""
    cart = order(lines=2)
    refusal = {"line_item_id": str(cart.items[0].id), "accept_qty": 0, "reason": "gone"}
    call("vendor_order_decide", cart.groups[0].id, [refusal], "k1")
    before = snapshot(db)

    with refused("OC012"):
        call("vendor_order_decide", cart.groups[0].id)
    assert snapshot(db) == before


def test_a_vendor_refuses_all(db, order, call):
    cart = order(lines=2)
    decisions = [{"line_item_id": str(item.id), "accept_qty": 0, "reason": "closed"} for item in cart.items]
    answer = call("vendor_order_decide", cart.groups[0].id, decisions, "k1")
    assert (answer["status"], figures(db, cart)) == ("rejected", (0, 0, 0, 0, 0, 0))


def test_an_order_with_a_line_that_the_checkout_rejected_is_partially_accepted(db, order, call):
    cart = order(lines=2, items={(0, 0): {"quantity": 101}})
    assert call("vendor_order_decide", cart.groups[0].id)["status"] == "partially_accepted"
    assert state(db, cart.items[0]) == "rejected"


def test_a_vendor_has_nothing_to_decide_where_nothing_is_held(db, order, call, snapshot):
    """What was shipped is past a decision, also while the order waits for one."""
    cart = order()
    call("order_line_fulfil", cart.items[0].id)
    set_order(db, cart, "hold")
    before = snapshot(db)
    with refused("OC012") as refusal:
        call("vendor_order_decide", cart.groups[0].id)
    assert refusal.message == (
        f"order {cart.groups[0].id} is hold without held units, "
        "and this takes one that is created_pending, hold with held units"
    )
    assert (refusal.detail["what"], refusal.detail["status"]) == ("order", "hold")
    assert snapshot(db) == before


BAD_DECISIONS = [
    ("", {"a": 1}),
    ("", "x"),
    ("", 7),
    ("[0]", [7]),
    ("[0].line_item_id", [{}]),
    ("[0].line_item_id", [{"line_item_id": "x", "accept_qty": 1}]),
    ("[0].line_item_id", [{"line_item_id": None, "accept_qty": 1}]),
    ("[0].accept_qty", [{"line_item_id": "{line}"}]),
    ("[0].accept_qty", [{"line_item_id": "{line}", "accept_qty": -1, "reason": "x"}]),
    ("[0].accept_qty", [{"line_item_id": "{line}", "accept_qty": 1.5, "reason": "x"}]),
    ("[0].accept_qty", [{"line_item_id": "{line}", "accept_qty": "1", "reason": "x"}]),
    ("[0].accept_qty", [{"line_item_id": "{line}", "accept_qty": 10**12}]),
    ("[0].accept_qty", [{"line_item_id": "{line}", "accept_qty": 11}]),
    ("[0].reason", [{"line_item_id": "{line}", "accept_qty": 9}]),
    ("[0].reason", [{"line_item_id": "{line}", "accept_qty": 9, "reason": None}]),
    ("[0].reason", [{"line_item_id": "{line}", "accept_qty": 9, "reason": ""}]),
    ("[0].reason", [{"line_item_id": "{line}", "accept_qty": 9, "reason": "insufficient_inventory"}]),
    ("[0].reason", [{"line_item_id": "{line}", "accept_qty": 9, "reason": 7}]),
    ("[0]", [{"line_item_id": "{line}", "accept_qty": 9, "reason": "x", "more": 1}]),
    ("", [{"line_item_id": "{line}", "accept_qty": 9, "reason": "x"}] * 2),
    ("[0].line_item_id", [{"line_item_id": str(UUID(int=99)), "accept_qty": 0, "reason": "x"}]),
    ("[1].reason", [{"line_item_id": "{line}", "accept_qty": 10}, {"line_item_id": "{other}", "accept_qty": 9}]),
    ("[1].accept_qty", [{"line_item_id": "{line}", "accept_qty": 10}, {"line_item_id": "{other}", "accept_qty": "x"}]),
]


@pytest.mark.parametrize(("field", "decisions"), BAD_DECISIONS, ids=range(len(BAD_DECISIONS)))
def test_decisions_that_are_none_are_refused_at_their_place(db, order, call, snapshot, field, decisions):
    cart = order(lines=2)
    named = json.dumps(decisions).replace("{line}", str(cart.items[0].id)).replace("{other}", str(cart.items[1].id))
    before = snapshot(db)
    with refused("OC005") as refusal:
        call("vendor_order_decide", cart.groups[0].id, Jsonb(json.loads(named)), "k1")
    assert refusal.detail["field"] == f"decisions{field}"
    assert snapshot(db) == before


def test_a_decision_that_comes_after_a_release_is_told_what_the_line_holds(db, order, call, snapshot):
    cart = order(lines=2, quantity=2)
    a, b = cart.items
    call("order_line_release", b.id, "torn", 1, "k1")
    before = snapshot(db)

    with refused("OC005") as refusal:
        decisions = [{"line_item_id": str(a.id), "accept_qty": 2}, {"line_item_id": str(b.id), "accept_qty": 2}]
        call("vendor_order_decide", cart.groups[0].id, decisions, "k2")

    problem = f"must be at most 1, the units that line {b.id} holds"
    assert refusal.detail == {"field": "decisions[1].accept_qty", "problem": problem}
    assert snapshot(db) == before


# Money


tried = partial(
    settings,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def parts(cuts, units):
    """Cut points of `units` units as the sizes of parts."""
    points = sorted({cut % units for cut in cuts} - {0})
    return [b - a for a, b in zip([0, *points], [*points, units], strict=True)]


@tried(max_examples=200)
@given(
    amount=st.integers(0, MOST) | st.sampled_from([1, 2, 9, MOST - 1, 2**63 - 1, 10**15]),
    units=st.integers(1, 10_000) | st.sampled_from([1, 3, 9999, 10_000]),
    cuts=st.lists(st.integers(0, 10_000), max_size=30),
)
def test_any_parts_of_an_amount_add_up_to_it(db, amount, units, cuts):
    sizes = parts(cuts, units)
    found = values(
        db,
        "select order_part_cents(%s, (sum(part) over w)::int, %s)"
        "       - order_part_cents(%s, (sum(part) over w)::int - part, %s)"
        "  from unnest(%s::int[]) with ordinality as t (part, n) window w as (order by n)",
        amount,
        units,
        amount,
        units,
        sizes,
    )
    assert sum(found) == amount
    assert min(found) >= 0
    done = 0
    for size, cents in zip(sizes, found, strict=True):
        assert cents == amount * (done + size) // units - amount * done // units
        done += size


@pytest.mark.parametrize("currency", ["USD", "JPY", "KWD"])
@pytest.mark.parametrize("sizes", [[1] * 7, [3, 4], [6, 1], [7]])
@pytest.mark.parametrize("comes_off", ["released", "returned", "both"])
def test_parts_of_a_line_take_its_total_discount_and_tax(db, add_cart, checkout_sql, call, currency, sizes, comes_off):
    units, subtotal, discount, tax = 7, 1003, 101, 59
    total = 2 * (subtotal - discount + tax)
    cart = add_cart(
        vendors=1,
        lines=2,
        amounts="gross",
        currency=currency,
        items={
            (0, line): {
                "quantity": units,
                "unit_price_cents": 143,
                "line_subtotal_cents": subtotal,
                "line_discounts_cents": discount,
                "line_total_cents": subtotal - discount,
                "tax_cents": tax,
            }
            for line in (0, 1)
        },
        groups={0: {"subtotal_cents": 2 * subtotal, "total_cents": total, "promo": None}},
        cart={"subtotal_cents": 2 * subtotal, "discounts_cents": 2 * discount, "total_cents": total},
    )
    checkout_sql(db, cart)
    line = cart.items[0]
    shipped = {"released": 0, "returned": units, "both": sum(sizes[len(sizes) // 2 :])}[comes_off]
    if shipped:
        call("order_line_fulfil", line.id, shipped, "ship")
    taken = []
    for n, size in enumerate(sizes):
        is_released = comes_off == "released" or (comes_off == "both" and n < len(sizes) // 2)
        answer = (
            call("order_line_release", line.id, "torn", size, f"k{n}")
            if is_released
            else call("order_line_return", line.id, "torn", size, True, f"k{n}")
        )
        [change] = answer["changes"]
        taken.append([change[f"{name}_cents"] for name in ("total", "discount", "tax")])
        assert min(taken[-1]) >= 0
        assert answer["items"][0]["left_cents"] == subtotal - discount - sum(each[0] for each in taken)
        left = [subtotal * 2 - sum(t + d for t, d, _ in taken), tax * 2 - sum(t for _, _, t in taken)]
        assert [figures(db, cart)[0], figures(db, cart)[2]] == left
    assert [sum(each) for each in zip(*taken, strict=True)] == [subtotal - discount, discount, tax]
    assert figures(db, cart) == (subtotal, discount, tax, 0, 0, subtotal - discount + tax)


@tried(max_examples=60)
@given(
    amounts=st.tuples(st.integers(0, MOST), st.integers(0, MOST // 2), st.integers(0, MOST // 2))
    | st.just((MOST, MOST // 2, MOST // 2))
    | st.tuples(*[st.integers(0, 99)] * 3),
    units=st.integers(1, 10_000) | st.sampled_from([1, 7, 9999, 10_000]),
    cuts=st.lists(st.integers(0, 10_000), max_size=4),
    comes_back=st.lists(st.booleans(), min_size=5, max_size=5),
    currency=st.sampled_from(["USD", "JPY", "KWD"]),
)
def test_parts_of_a_line_of_any_size_come_to_the_line(
    db, add_cart, checkout_sql, call, amounts, units, cuts, comes_back, currency
):
    """Each part is turned down, or shipped and comes back; in the end nothing is left."""
    total, discount, tax = amounts
    cart = add_cart(
        vendors=1,
        lines=1,
        amounts="gross",
        currency=currency,
        stock=units,
        items={
            (0, 0): {
                "quantity": units,
                "line_subtotal_cents": total + discount,
                "line_discounts_cents": discount,
                "line_total_cents": total,
                "tax_cents": tax,
            }
        },
        groups={0: {"total_cents": total + tax}},
        cart={"discounts_cents": discount, "total_cents": total + tax},
    )
    checkout_sql(db, cart, key=str(cart.id))
    [line] = cart.items
    off = 0
    for n, (size, comes_from_the_buyer) in enumerate(zip(parts(cuts, units), comes_back, strict=False)):
        if comes_from_the_buyer:
            call("order_line_fulfil", line.id, size, f"shipped-{n}")
            set_order(db, cart, "delivered")
            answer = call("order_line_return", line.id, "torn", size, True, f"k{n}")
            set_order(db, cart, "partially_fulfilled")
        else:
            answer = call("order_line_release", line.id, "torn", size, f"k{n}")
        [change] = answer["changes"]
        taken = [each * (off + size) // units - each * off // units for each in amounts]
        assert [change[f"{name}_cents"] for name in ("total", "discount", "tax")] == taken
        off += size
        left = [each - each * off // units for each in amounts]
        assert figures(db, cart) == (left[0] + left[1], left[1], left[2], 0, 0, left[0] + left[2])
    assert figures(db, cart)[-1] == 0
    assert level(db, line.product_id) == (units, 0)


@pytest.mark.parametrize("included", [False, True])
def test_shipping_comes_off_only_if_nothing_was_ever_shipped(db, add_cart, checkout_sql, call, included):
    cart = taxed(db, add_cart, checkout_sql, included=included)
    assert figures(db, cart) == (2000, 0, 325, 500, 0, 2500 if included else 2825)
    call("order_line_release", cart.items[0].id, "torn")
    assert figures(db, cart) == (1000, 0, 135, 500, 0, 1500 if included else 1635)
    call("order_line_release", cart.items[1].id, "torn")
    assert figures(db, cart) == (0, 0, 0, 0, 0, 0)

    cart = taxed(db, add_cart, checkout_sql, included=included)
    call("order_line_fulfil", cart.items[0].id, 1, "k1")
    call("order_line_release", cart.items[0].id, "torn")
    call("order_line_release", cart.items[1].id, "torn")
    call("order_line_return", cart.items[0].id, "torn", 1, True, "k2")
    assert figures(db, cart) == (0, 0, 40, 500, 0, 500 if included else 540)


def test_a_promotion_stays_with_the_rest_and_never_pays_a_tax(db, add_cart, checkout_sql, call):
    cart = taxed(db, add_cart, checkout_sql, promo=1700)
    assert figures(db, cart) == (2000, 1700, 325, 500, 0, 1125)
    call("order_line_fulfil", cart.items[0].id)
    call("order_line_fulfil", cart.items[1].id)
    call("order_line_return", cart.items[0].id, "torn", None, False, "k1")
    # 1000 of lines and 500 of shipping are left, 135 of tax is owed whole
    assert figures(db, cart) == (1000, 1500, 135, 500, 0, 135)
    call("order_line_return", cart.items[1].id, "torn", None, False, "k2")
    assert figures(db, cart) == (0, 500, 40, 500, 0, 40)


def test_a_line_of_much_money_and_many_units_is_cut_to_the_cent(db, order, call):
    price = 2**62 // 9999
    cart = order(quantity=9999, unit_price_cents=price, stock=9999)
    [item] = cart.items
    for n, qty in enumerate([1, 9000, 997]):
        call("order_line_release", item.id, "torn", qty, f"k{n}")
    assert figures(db, cart)[-1] == price
    call("order_line_release", item.id, "torn")
    assert figures(db, cart)[-1] == 0


# Adjustments


def test_an_order_is_adjusted_either_way(db, order, call):
    cart = order()
    order_id = cart.groups[0].id
    answer = call("order_adjust", order_id, -2500, "late", "k1")
    assert (answer["total_cents"], answer["adjustments_cents"], answer["amount_cents"]) == (7500, -2500, -2500)
    assert figures(db, cart) == (10000, 0, 0, 0, -2500, 7500)
    assert call("order_adjust", order_id, 3000, "express", "k2")["total_cents"] == 10500
    assert figures(db, cart) == (10000, 0, 0, 0, 500, 10500)
    assert [kind for kind, _ in changes(db)] == ["vendor_order.adjusted"] * 2


@pytest.mark.parametrize(("field", "value"), [("order_id", None), ("amount_cents", 0), ("amount_cents", None)])
def test_an_adjustment_of_nothing_is_refused(db, order, call, snapshot, field, value):
    given = {"order_id": order().groups[0].id, "amount_cents": 1} | {field: value}
    before = snapshot(db)
    with refused("OC005") as refusal:
        call("order_adjust", *given.values(), "late", "k1")
    assert refusal.detail["field"] == field
    assert snapshot(db) == before


@pytest.mark.parametrize("amount", [-10001, -(2**63), 2**63 - 1])
def test_an_order_never_comes_to_less_than_nothing_or_more_than_fits(db, order, call, snapshot, amount):
    cart = order()
    before = snapshot(db)
    with refused("OC012") as refusal:
        call("order_adjust", cart.groups[0].id, amount, "late", "k1")
    assert (refusal.detail["total_cents"], refusal.detail["amount_cents"]) == (10000, amount)
    assert snapshot(db) == before
    assert call("order_adjust", cart.groups[0].id, -10000, "late", "k1")["total_cents"] == 0


def test_a_credit_is_cut_to_what_is_left(order, call):
    """As a promotion is; what it lost stands with the change that cut it, and it does not come back."""
    cart = order()
    order_id = cart.groups[0].id
    call("order_adjust", order_id, -4000, "late", "k1")
    answer = call("order_line_release", cart.items[0].id, "torn", 8, "k2")
    assert (answer["total_cents"], answer["adjustments_cents"], answer["amount_cents"]) == (0, -2000, 2000)
    answer = call("vendor_order_cancel", order_id, "off")
    assert (answer["total_cents"], answer["adjustments_cents"], answer["amount_cents"]) == (0, 0, 2000)


def test_a_surcharge_stays_on_a_canceled_order(order, call):
    cart = order()
    call("order_adjust", cart.groups[0].id, 300, "express", "k1")
    assert call("vendor_order_cancel", cart.groups[0].id, "off")["total_cents"] == 300
    assert call("order_adjust", cart.groups[0].id, 200, "fee", "k2")["total_cents"] == 500


# Keys


def keyed(cart):
    """A call of each kind under the key k1, and other requests that are not it."""
    item, other = cart.items
    order_id = cart.groups[0].id
    decided = [{"line_item_id": str(item.id), "accept_qty": 4, "reason": "short"}]
    return {
        "order_line_release": (
            (item.id, "torn", 2),
            [(item.id, "torn", 3), (item.id, "torn", None), (other.id, "torn", 2)],
        ),
        "order_line_fulfil": ((item.id, 2), [(item.id, 3), (item.id, None), (other.id, 2)]),
        "order_line_return": (
            (item.id, "torn", 1, True),
            [
                (item.id, "torn", 2, True),
                (item.id, "torn", 1, False),
                (item.id, "torn", None, True),
                (other.id, "torn", 1, True),
            ],
        ),
        "order_adjust": ((order_id, -5, "late"), [(order_id, -6, "late"), (order_id, 5, "late")]),
        "vendor_order_decide": (
            (order_id, decided),
            [(order_id, None), (order_id, []), (order_id, [decided[0] | {"accept_qty": 5}])],
        ),
    }


@pytest.mark.parametrize(
    "function", ["order_line_release", "order_line_fulfil", "order_line_return", "order_adjust", "vendor_order_decide"]
)
def test_a_key_is_one_change(db, order, call, snapshot, function):
    cart = order(lines=2)
    if function == "order_line_return":
        call("order_line_fulfil", cart.items[0].id, 5, "shipped")
        call("order_line_fulfil", cart.items[1].id, 5, "shipped-too")
    good, others = keyed(cart)[function]
    answer = call(function, *good, change_key="k1")
    assert (answer["replayed"], answer["change_key"]) == (False, "k1")
    before = snapshot(db)

    assert call(function, *good, change_key="k1") == answer | {"replayed": True}
    for each in others:
        with refused("OC006") as refusal:
            call(function, *each, change_key="k1")
        assert refusal.detail["order_id"] == str(cart.groups[0].id)
    for name, (same, _) in keyed(cart).items():
        if name != function:
            with refused("OC006"):
                call(name, *same, change_key="k1")
    assert snapshot(db) == before


@pytest.mark.parametrize("function", ["order_line_release", "order_line_fulfil", "order_adjust"])
def test_a_repeat_is_answered_whatever_became_of_the_order(db, order, call, snapshot, function):
    cart = order(lines=2)
    good, _ = keyed(cart)[function]
    first = call(function, *good, change_key="k1")
    if function == "order_line_fulfil":
        set_order(db, cart, "hold")
    call("vendor_order_cancel", cart.groups[0].id, "off")
    before = snapshot(db)
    again = call(function, *good, change_key="k1")
    assert (again["replayed"], again["status"], again["changes"]) == (True, "canceled", first["changes"])
    assert snapshot(db) == before


def test_a_reason_is_not_in_the_key(order, call):
    cart = order()
    call("order_line_release", cart.items[0].id, "torn", 2, "k1")
    again = call("order_line_release", cart.items[0].id, "wet", 2, "k1")
    assert (again["replayed"], again["reason"]) == (True, "torn")


def test_keys_are_of_an_order(order, call):
    for cart in (order(), order()):
        assert call("order_line_release", cart.items[0].id, "torn", 2, "k1")["replayed"] is False


@pytest.mark.parametrize("key", [None, "", "a b", "ä", "x" * 256, "a\n"])
def test_a_quantity_needs_a_key(db, order, call, snapshot, key):
    cart = order(lines=2)
    before = snapshot(db)
    for function, (good, _) in keyed(cart).items():
        with refused("OC005") as refusal:
            call(function, *good, change_key=key)
        assert refusal.detail["field"] == "change_key"
    assert snapshot(db) == before


@pytest.mark.parametrize("qty", [0, -1, -(2**31)])
def test_a_quantity_is_at_least_one(order, call, qty):
    [item] = order().items
    for function, args in {
        "order_line_release": (item.id, "torn", qty, "k1"),
        "order_line_fulfil": (item.id, qty, "k1"),
        "order_line_return": (item.id, "torn", qty, True, "k1"),
    }.items():
        with refused("OC005") as refusal:
            call(function, *args)
        assert refusal.detail["field"] == "qty"


def test_without_a_quantity_a_repeat_is_told_by_the_last_change_of_the_line(order, call):
    a, b = order(lines=2).items
    call("order_line_fulfil", a.id, 2, "k1")
    call("order_line_release", a.id, "torn")
    assert call("order_line_release", a.id, "torn")["replayed"] is True
    with refused("OC012"):
        call("order_line_fulfil", a.id)

    call("order_line_release", b.id, "torn", 2, "k2")
    call("order_line_fulfil", b.id)
    assert call("order_line_fulfil", b.id)["replayed"] is True
    with refused("OC012"):
        call("order_line_release", b.id, "torn")
    call("order_line_return", b.id, "torn", 1, True, "k3")
    with refused("OC012"):
        call("order_line_fulfil", b.id)


@pytest.mark.parametrize("details", ["x", 7, [1], {"a": "x" * 17000}, {"a": [[[[[[[[[1]]]]]]]]]}])
def test_details_are_a_small_object(db, order, call, snapshot, details):
    [item] = order().items
    before = snapshot(db)
    with refused("OC005") as refusal:
        call("order_line_fulfil", item.id, 1, "k1", Jsonb(details))
    assert refusal.detail["field"] == "details"
    assert snapshot(db) == before


def test_all_that_went_out_cannot_come_back_twice(db, order, call, snapshot):
    """Null asks for all that is out: of a line of which nothing is, that is no return of nothing."""
    [item] = order().items
    call("order_line_fulfil", item.id)
    call("order_line_return", item.id, "torn", None, True, "k1")
    before = snapshot(db)
    with refused("OC012") as refusal:
        call("order_line_return", item.id, "torn", None, True, "k2")
    assert (refusal.detail["asked"], refusal.detail["units"]) == (None, 0)
    assert snapshot(db) == before


def test_a_return_says_whether_it_goes_to_the_shelf(order, call):
    [item] = order().items
    with refused("OC005") as refusal:
        call("order_line_return", item.id, "torn", 1, None, "k1")
    assert refusal.detail["field"] == "restock"


def test_what_nobody_knows_is_not_found(call):
    for function, args in {
        "order_line_return": ("torn", 1, True, "k1"),
        "vendor_order_decide": (None, "k1"),
        "order_adjust": (1, "torn", "k1"),
    }.items():
        with refused("OC011"):
            call(function, UUID(int=99), *args)
        with refused("OC005"):
            call(function, None, *args)


# History


def test_each_call_is_a_row_and_an_event_of_the_same_id(db, order, call):
    cart = order(lines=2)
    a, b = cart.items
    order_id = cart.groups[0].id
    call("vendor_order_decide", order_id, [{"line_item_id": str(a.id), "accept_qty": 8, "reason": "short"}], "k1")
    call("order_line_fulfil", a.id, 3, "k2", {"carrier": "DHL"})
    call("order_line_return", a.id, "wet", 1, True, "k3")
    call("order_line_release", b.id, "gone", 5, "k4")
    call("order_adjust", order_id, -7, "sorry", "k5")
    set_order(db, cart, "hold")
    call("vendor_order_cancel", order_id, "off")

    changes = rows(db, "select * from order_changes order by created_at, id")
    assert [change["kind"] for change in changes] == [
        "decided",
        "fulfilled",
        "returned",
        "released",
        "adjusted",
        "canceled",
    ]
    sent = rows(db, "select * from outbox_events where event_type::text not like 'checkout.%%' order by created_at, id")
    assert [event["id"] for event in sent] == [change["id"] for change in changes]
    for event, change in zip(sent, changes, strict=True):
        assert event["event_type"].endswith("." + change["kind"])
        assert event["created_at"] == change["created_at"]
        data = validate(event["payload"])["data"]
        assert (data["changes"], data["reason"], data["details"]) == (
            change["lines"],
            change["reason"],
            change["details"],
        )
        assert event["aggregate_id"] == UUID(data["checkout_group_id"])
        assert change["made_by"] == db.info.user

    told = call("order_changes_list", order_id, vendor_store_id=cart.vendors[0])
    assert [step["kind"] for step in told] == [change["kind"] for change in changes]
    assert [step["key"] for step in told] == ["k1", "k2", "k3", "k4", "k5", None]
    assert told[4]["amount_cents"] == -7 and told[3]["reason"] == "gone"
    assert told == call("order_changes_list", order_id, cart.buyer_store_id)
    with refused("OC011"):
        call("order_changes_list", order_id, UUID(int=5))
    with refused("OC005"):
        call("order_changes_list", order_id)
    with refused("OC005"):
        call("order_changes_list", None, UUID(int=5))


def test_changes_keep_their_order_when_the_clock_steps_back(db, order, call):
    cart = order()
    db.execute("update vendor_orders set updated_at = '2999-01-01'")
    for n in range(3):
        call("order_line_release", cart.items[0].id, "torn", 1, f"k{n}")
    dated = rows(db, "select created_at from order_changes order by created_at")
    assert [each["created_at"].microsecond for each in dated] == [1, 2, 3]
    assert [each["created_at"].year for each in dated] == [2999] * 3


def test_the_most_decisions_are_read_in_no_time(db, order, call):
    cart = order()
    most = [{"line_item_id": str(UUID(int=n)), "accept_qty": 0, "reason": "torn" * 250} for n in range(10_000)]
    db.execute("set statement_timeout = '8s'")
    with refused("OC005") as refusal:
        call("vendor_order_decide", cart.groups[0].id, most, "k")
    assert refusal.detail["problem"] != "must be at most 10000"
    with refused("OC005") as refusal:
        call("vendor_order_decide", cart.groups[0].id, most + most[:1], "k")
    assert refusal.detail["problem"] == "must be at most 10000"


def test_changes_keep_their_order_after_an_erasure_when_the_clock_steps_back(db, order, call):
    cart = order()
    db.execute("update vendor_orders set updated_at = '2999-01-01'")
    call("order_line_release", cart.items[0].id, "torn", 1, "k1")
    db.execute("select checkout_erase(%s)", (cart.id,))
    call("order_line_release", cart.items[0].id, "torn", 1, "k2")
    assert values(db, "select change_key from order_changes order by created_at") == ["k1", "k2"]


def test_events_keep_their_order_where_a_trigger_dates_the_orders(db, connect, order, call):
    """By now(), as many a host does: the beginning of a transaction that may have waited for the one before."""
    cart = order()
    db.execute(
        "create function dated() returns trigger language plpgsql as 'begin new.updated_at := now(); return new; end'"
    )
    db.execute("create trigger dated before update on vendor_orders for each row execute function dated()")
    with connect() as early:
        early.execute("select now()")
        call("order_line_release", cart.items[0].id, "torn", 1, "k1")
        call("order_line_release", cart.items[0].id, "torn", 1, "k2", conn=early)
    assert [data["change_key"] for _, data in changes(db)] == ["k1", "k2"]


def test_an_order_shows_what_is_left_of_its_lines(order, call):
    cart = order()
    call("order_line_fulfil", cart.items[0].id, 4, "k1")
    call("order_line_return", cart.items[0].id, "wet", 1, True, "k2")
    call("order_line_release", cart.items[0].id, "torn", 2, "k3")
    [line] = call("order_get", cart.groups[0].id, cart.buyer_store_id)["items"]
    names = (
        "reserved_qty",
        "fulfilled_qty",
        "released_qty",
        "returned_qty",
        "left_qty",
        "left_cents",
        "qty",
        "total_cents",
    )
    assert [line[name] for name in names] == [4, 4, 2, 1, 7, 7000, 10, 10000]


def test_an_erasure_blanks_reasons_and_details_and_leaves_what_was_done(db, order, call):
    cart = order(lines=2)
    a, b = cart.items
    secret = "of Mrs Miller"
    decisions = [{"line_item_id": str(a.id), "accept_qty": 8, "reason": secret}]
    call("vendor_order_decide", cart.groups[0].id, decisions, "k1")
    call("order_line_fulfil", a.id, 3, "k2", {"to": secret})
    done = call("order_line_release", b.id, secret, 5, "k3")
    assert values(db, "select checkout_erase(%s)", cart.id)[0] > 0
    for table in ("order_changes", "outbox_events", "order_line_items", "vendor_orders"):
        assert values(db, f"select count(*) from {table} as each where each::text like '%%Miller%%'") == [0], table
    assert values(db, "select checkout_erase(%s)", cart.id) == [0]
    assert [kind for kind, _ in changes(db)] == ["vendor_order.decided", "order_line.fulfilled", "order_line.released"]
    again = call("order_line_release", b.id, secret, 5, "k3")
    assert (again["replayed"], again["changes"], again["reason"]) == (True, done["changes"], None)


# At once


RACES = {
    "a cancel and a part that ships": (
        lambda cart: ("vendor_order_cancel", cart.groups[0].id, "off"),
        lambda cart: ("order_line_fulfil", cart.items[0].id, 3, "k1"),
        "OC012",
        (0, None, 10, None),
    ),
    "a part that ships and a cancel": (
        lambda cart: ("order_line_fulfil", cart.items[0].id, 3, "k1"),
        lambda cart: ("vendor_order_cancel", cart.groups[0].id, "off"),
        "OC012",
        (7, 3, None, None),
    ),
    "two decisions": (
        lambda cart: (
            "vendor_order_decide",
            cart.groups[0].id,
            [{"line_item_id": str(cart.items[0].id), "accept_qty": 4, "reason": "short"}],
            "k1",
        ),
        lambda cart: (
            "vendor_order_decide",
            cart.groups[0].id,
            [{"line_item_id": str(cart.items[0].id), "accept_qty": 0, "reason": "short"}],
            "k2",
        ),
        "OC012",
        (4, None, 6, None),
    ),
    "one decision twice": (
        lambda cart: (
            "vendor_order_decide",
            cart.groups[0].id,
            [{"line_item_id": str(cart.items[0].id), "accept_qty": 4, "reason": "short"}],
            "k1",
        ),
        lambda cart: (
            "vendor_order_decide",
            cart.groups[0].id,
            [{"line_item_id": str(cart.items[0].id), "accept_qty": 4, "reason": "short"}],
            "k1",
        ),
        "replayed",
        (4, None, 6, None),
    ),
    "one part twice": (
        lambda cart: ("order_line_release", cart.items[0].id, "torn", 2, "k1"),
        lambda cart: ("order_line_release", cart.items[0].id, "torn", 2, "k1"),
        "replayed",
        (8, None, 2, None),
    ),
    "two parts": (
        lambda cart: ("order_line_release", cart.items[0].id, "torn", 6, "k1"),
        lambda cart: ("order_line_fulfil", cart.items[0].id, 6, "k2"),
        "OC012",
        (4, None, 6, None),
    ),
    "two parts that fit": (
        lambda cart: ("order_line_release", cart.items[0].id, "torn", 4, "k1"),
        lambda cart: ("order_line_fulfil", cart.items[0].id, 6, "k2"),
        "done",
        (0, 6, 4, None),
    ),
    "two credits": (
        lambda cart: ("order_adjust", cart.groups[0].id, -6000, "late", "k1"),
        lambda cart: ("order_adjust", cart.groups[0].id, -6000, "late", "k2"),
        "OC012",
        (10, None, None, None),
    ),
}


@pytest.mark.parametrize(
    "change",
    ["vendor_order_cancel(%s, 'no')", "order_adjust(%s, 5, 'gift wrap', 'k')", "order_adjust(%s, -5, 'late', 'k')"],
)
def test_a_host_that_pays_the_intent_meanwhile_is_waited_for(db, connect, order, change):
    """By UPDATE, as hosts do: what he writes is what was charged."""
    cart = order()
    with connect() as host, connect(autocommit=True) as other:
        host.execute("update payment_intents set status = 'paid'")
        with blocked(db, lambda conn: values(conn, f"select {change}", cart.groups[0].id), other) as waiting:
            host.commit()
        [answer] = waiting.result(timeout=10)
    assert answer["payment_intent"] | {"payment_intent_id": None} == {
        "payment_intent_id": None,
        "method": "ach",
        "status": "paid",
        "amount_cents": 10000,
    }
    assert answer["balance_due_cents"] == max(answer["total_cents"] - 10000, 0)


def test_what_moves_no_money_does_not_wait_for_the_intent(connect, order, call):
    cart = order()
    with connect() as host:
        host.execute("update payment_intents set status = 'pending'")
        call("order_line_fulfil", cart.items[0].id, 4, "k")


@pytest.mark.parametrize("state", ["paid", "settled"])
def test_a_host_that_was_paid_is_never_owed_it_again(db, order, call, state):
    """Without a record of payments the intent says what came: less of an order, then more, owes none of it twice."""
    cart = order()
    db.execute("update payment_intents set status = %s::payment_status", (state,))
    db.execute("update vendor_orders set balance_due_cents = 0")
    due = []
    for change, arguments in [
        ("order_line_release", (cart.items[0].id, "torn", 4, "k1")),
        ("order_adjust", (cart.groups[0].id, 4000, "gift wrap", "k2")),
        ("order_adjust", (cart.groups[0].id, 300, "more of it", "k3")),
    ]:
        answer = call(change, *arguments)
        due.append((answer["total_cents"], answer["balance_due_cents"], answer["payment_intent"]["amount_cents"]))
    assert due == [(6000, 0, 10000), (10000, 0, 10000), (10300, 300, 10000)]


def test_an_intent_over_the_rest_follows_the_rest(db, order, call):
    """A host that took a part of it elsewhere asks for what is left, and never again for the whole."""
    cart = order()
    db.execute("update vendor_orders set balance_due_cents = 4000")
    db.execute("update payment_intents set amount_cents = 4000")
    due = []
    for change, arguments in [
        ("order_line_fulfil", (cart.items[0].id, 1, "k1")),
        ("order_line_release", (cart.items[0].id, "torn", 1, "k2")),
        ("order_line_fulfil", (cart.items[0].id, 1, "k3")),
        ("order_line_release", (cart.items[0].id, "torn", 5, "k4")),
    ]:
        answer = call(change, *arguments)
        due.append((answer["total_cents"], answer["balance_due_cents"], answer["payment_intent"]["amount_cents"]))
    assert due == [(10000, 4000, 4000), (9000, 3000, 3000), (9000, 3000, 3000), (4000, 0, 0)]


@pytest.mark.breaks_invariants
@pytest.mark.parametrize(("included", "lowered"), [(False, 200), (False, 150), (True, 200), (True, 150)])
def test_a_tax_that_the_host_lowered_comes_off_once(db, add_cart, checkout_sql, call, included, lowered):
    """No more of it comes off with its units than is there, and none goes below 0."""
    cart = taxed(db, add_cart, checkout_sql, tax=(200, 0), shipping=300, shipping_tax=0, included=included, quantity=2)
    left = 200 - lowered
    total = 2300 + (0 if included else left)
    db.execute(
        "update vendor_orders set tax_cents = %s, total_cents = %s, balance_due_cents = %s", (left, total, total)
    )
    db.execute("update payment_intents set amount_cents = %s", (total,))
    ends = []
    for line, key in ((0, "k1"), (0, "k2"), (1, "k3"), (1, "k4")):
        answer = call("order_line_release", cart.items[line].id, "torn", 1, key)
        tax = values(db, "select tax_cents from vendor_orders")
        ends.append(
            (*tax, answer["total_cents"], answer["balance_due_cents"], answer["payment_intent"]["amount_cents"])
        )
    assert ends == [(0, 1800, 1800, 1800), (0, 1300, 1300, 1300), (0, 800, 800, 800), (0, 0, 0, 0)]


@pytest.mark.breaks_invariants
def test_an_order_that_the_host_lowered_owes_nothing_once_nothing_is_left(db, add_cart, checkout_sql, call):
    """What it took off already is neither taken off twice nor given back as a surcharge."""
    cart = taxed(db, add_cart, checkout_sql, tax=(0, 0), shipping=0, shipping_tax=0, quantity=2)
    db.execute("update vendor_orders set subtotal_cents = 300, total_cents = 300, balance_due_cents = 300")
    ends = []
    for line, key in ((0, "k1"), (0, "k2"), (1, "k3"), (1, "k4")):
        answer = call("order_line_release", cart.items[line].id, "torn", 1, key)
        ends.append((answer["total_cents"], answer["amount_cents"]))
    assert ends == [(0, None)] * 4
    names = "subtotal_cents, discounts_cents, promo_discount_cents, total_cents, adjustments_cents"
    assert list(row(db, f"select {names} from vendor_orders").values()) == [0, 0, 0, 0, None]


@pytest.mark.parametrize("race", RACES)
def test_two_changes_of_one_order_come_one_after_the_other(db, connect, order, call, race):
    first, second, ends, left = RACES[race]
    cart = order()
    with connect() as one, connect(autocommit=True) as other:
        assert call(*first(cart), conn=one)["replayed"] is False
        with blocked(db, lambda conn: outcome(call, *second(cart), conn=conn), other) as waiting:
            one.commit()
        assert waiting.result(timeout=10) == ends
    assert counts(db, cart.items[0]) == left
    assert len(changes(db)) == (2 if ends == "done" else 1)


@pytest.mark.parametrize("first", ["return", "release"])
def test_a_return_and_a_release_of_one_line(db, connect, order, call, first):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id, 4, "k0")
    calls = {
        "return": ("order_line_return", item.id, "wet", 4, True, "k1"),
        "release": ("order_line_release", item.id, "torn", 6, "k2"),
    }
    with connect() as one, connect(autocommit=True) as other:
        call(*calls.pop(first), conn=one)
        [(_, then)] = calls.items()
        with blocked(db, lambda conn: outcome(call, *then, conn=conn), other) as waiting:
            one.commit()
        assert waiting.result(timeout=10) == "done"
    assert (counts(db, item), level(db, item.product_id)) == ((0, 4, 6, 4), (100, 0))
    assert figures(db, cart)[-1] == 0


def test_a_return_is_not_returned_twice_at_once(db, connect, order, call):
    cart = order()
    [item] = cart.items
    call("order_line_fulfil", item.id)
    with connect() as one, connect(autocommit=True) as other:
        call("order_line_return", item.id, "wet", 6, True, "k1", conn=one)
        again = ("order_line_return", item.id, "wet", 6, True, "k2")
        with blocked(db, lambda conn: outcome(call, *again, conn=conn), other) as waiting:
            one.commit()
        assert waiting.result(timeout=10) == "OC012"
    assert level(db, item.product_id) == (96, 0)


def test_a_return_locks_the_stock_of_a_split_product(db, connect, add_cart, checkout_sql, call):
    product = UUID(int=7)
    cart = add_cart(vendors=1, lines=1, products=[product], quantity=4, stock=20)
    call("inventory_split", product, 4)
    checkout_sql(db, cart)
    call("order_line_fulfil", cart.items[0].id)
    with connect() as one, connect(autocommit=True) as other:
        call("inventory_split", product, 2, conn=one)
        back = ("order_line_return", cart.items[0].id, "wet", 4, True, "k1")
        with blocked(db, lambda conn: outcome(call, *back, conn=conn), other) as waiting:
            one.commit()
        assert waiting.result(timeout=10) == "done"
    assert level(db, cart.items[0].product_id) == (20, 0)


def test_a_key_is_looked_up_under_the_lock():
    """In every entry point, and before any state is looked at."""
    from test_catalogue import body

    for name in ("order_line_end", "order_line_return", "vendor_order_decide", "order_adjust"):
        said = body(name)
        places = [re.search(each, said).start() for each in (r"order_lock", r"order_check_key", r"order_raise_state")]
        assert places == sorted(places), name
