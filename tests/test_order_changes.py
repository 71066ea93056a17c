"""After the checkout: cancel an order, turn a line down, fulfil it. Stock moves exactly once, with one event each."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest
from events import changes

from checks import level, outcome, refused, row, rows, values
from races import at_once, blocked


def order_of(db, cart, number=0):
    return row(db, "select *, status::text as state from vendor_orders where id = %s", cart.groups[number].id)


def intent_of(db, cart, number=0):
    return row(db, "select *, status::text as state from payment_intents where order_id = %s", cart.groups[number].id)


def test_a_canceled_order_gives_its_stock_back_and_owes_nothing(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=2, lines=2, quantity=3, stock=10, promo_cents=500)
    checkout_sql(db, cart)
    mine, other = cart.groups

    answer = call("vendor_order_cancel", mine.id, "The buyer called.")

    assert (answer["replayed"], answer["status"], answer["total_cents"]) == (False, "canceled", 0)
    assert [level(db, item.product_id) for item in cart.items] == [(10, 0), (10, 0), (7, 3), (7, 3)]
    order = order_of(db, cart)
    figures = ("subtotal_cents", "discounts_cents", "total_cents", "balance_due_cents")
    assert [order[figure] for figure in figures] == [0, 0, 0, 0]
    assert (order["state"], intent_of(db, cart)["amount_cents"]) == ("canceled", 0)
    lines = rows(db, "select status::text, notes, qty, total_cents from order_line_items where order_id = %s", mine.id)
    assert lines == [{"status": "rejected", "notes": "The buyer called.", "qty": 3, "total_cents": 3000}] * 2
    # the other vendor's order is none of this
    assert order_of(db, cart, 1)["total_cents"] == other.total_cents == intent_of(db, cart, 1)["amount_cents"]
    [(kind, data)] = changes(db)
    assert (kind, data["order_id"], data["reason"]) == ("vendor_order.canceled", str(mine.id), "The buyer called.")
    assert data | {"replayed": False} == answer
    assert {(item["line_item_id"], item["qty"]) for item in data["items"]} == {(str(i.id), 3) for i in cart.items[:2]}


def test_canceling_again_changes_nothing(db, add_cart, checkout_sql, call, snapshot):
    cart = add_cart()
    checkout_sql(db, cart)
    call("vendor_order_cancel", cart.groups[0].id, "once")
    before = snapshot(db)

    answer = call("vendor_order_cancel", cart.groups[0].id, "twice")

    assert (answer["replayed"], answer["status"], answer["items"]) == (True, "canceled", [])
    assert snapshot(db) == before


def test_two_cancels_of_one_order_give_its_stock_back_once(db, connect, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=1, quantity=4, stock=10)
    checkout_sql(db, cart)
    order_id = cart.groups[0].id
    first, second = connect(), connect()

    call("vendor_order_cancel", order_id, "first", conn=first)
    with blocked(db, lambda conn: call("vendor_order_cancel", order_id, "second", conn=conn), second) as waiting:
        first.commit()
    second.commit()

    assert waiting.result()["replayed"] is True
    assert level(db, cart.items[0].product_id) == (10, 0)
    assert [kind for kind, _ in changes(db)] == ["vendor_order.canceled"]


def test_a_cancel_that_waited_for_a_release_gives_back_the_rest(db, connect, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=2, quantity=4, stock=10)
    checkout_sql(db, cart)
    first, second = connect(), connect()

    call("order_line_release", cart.items[0].id, "torn", conn=first)
    with blocked(db, lambda c: call("vendor_order_cancel", cart.groups[0].id, "all", conn=c), second) as waiting:
        first.commit()
    second.commit()

    assert [item["line_item_id"] for item in waiting.result()["items"]] == [str(cart.items[1].id)]
    assert [level(db, item.product_id) for item in cart.items] == [(10, 0), (10, 0)]


def test_a_cancel_under_repeatable_read_that_came_late_says_retry(db, connect, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    late = connect()
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    late.execute("select from vendor_orders")
    call("order_line_release", cart.items[0].id, "torn")

    with pytest.raises(psycopg.errors.SerializationFailure):
        call("vendor_order_cancel", cart.groups[0].id, "all", conn=late)


def test_eight_cancels_and_releases_at_once_give_each_unit_back_once(db, connect, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=3, quantity=2, stock=50)
    checkout_sql(db, cart)
    connections = [connect(autocommit=True) for _ in range(8)]

    def one(number):
        conn = connections[number]
        if number % 2:
            return lambda: call("vendor_order_cancel", cart.groups[0].id, "x", conn=conn)
        return lambda: call("order_line_release", cart.items[number % 3].id, "x", conn=conn)

    ended = at_once(*[one(number) for number in range(8)])

    # whoever came when the releases had rejected the whole order is told so
    wrong = [e for e in ended if isinstance(e, Exception) and getattr(e, "sqlstate", None) != "OC012"]
    assert wrong == []
    assert [level(db, item.product_id) for item in cart.items] == [(50, 0)] * 3
    given = [item["line_item_id"] for _, data in changes(db) for item in data["items"]]
    assert sorted(given) == sorted(str(item.id) for item in cart.items)


def test_a_waiting_checkout_gets_what_a_cancel_gives_back(db, connect, add_cart, checkout_sql, call):
    """Not "sold out" because of a cancel that is under way."""
    product = UUID(int=7)
    taken = add_cart(vendors=1, lines=1, products=[product], quantity=5, stock=5)
    wanted = add_cart(vendors=1, lines=1, products=[product], quantity=5)
    checkout_sql(db, taken)
    canceling, buying = connect(), connect()

    call("vendor_order_cancel", taken.groups[0].id, "x", conn=canceling)
    with blocked(db, checkout_sql, buying, wanted) as waiting:
        canceling.commit()
    buying.commit()

    assert waiting.result()["outcome"] == "complete"
    assert level(db, product) == (0, 5)


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("split_between", [False, True])
def test_stock_goes_back_to_where_it_stands(db, add_cart, checkout_sql, call, slots, split_between):
    """Whatever the product's slots were at the checkout, and are now; a line may have combined several."""
    product = UUID(int=7)
    add = {"vendors": 1, "lines": 2, "products": [product, product], "stock": 20, "items": {(0, 1): {"quantity": 12}}}
    cart = add_cart(**add)
    call("inventory_split", product, slots)
    checkout_sql(db, cart)
    assert level(db, product) == (7, 13)
    if split_between:
        call("inventory_split", product, 5 - slots)

    call("order_line_release", cart.items[1].id, "torn")
    assert level(db, product) == (19, 1)
    call("vendor_order_cancel", cart.groups[0].id, "all")
    assert level(db, product) == (20, 0)
    assert values(db, "select count(*) from inventory_holds") == [0]


def test_a_released_line_takes_its_own_amounts_with_it(db, add_cart, checkout_sql, call):
    """As if the checkout had rejected it: the promotion's share is capped at what is left."""
    cart = add_cart(
        vendors=1, lines=2, amounts="gross", line_discount_cents=100, promo_cents=1500, items={(0, 1): {"quantity": 3}}
    )
    checkout_sql(db, cart)

    def figures():
        order = order_of(db, cart)
        return [order[f"{name}_cents"] for name in ("subtotal", "discounts", "total", "balance_due")]

    assert figures() == [4000, 1700, 2300, 2300]
    answer = call("order_line_release", cart.items[1].id, "torn")
    assert figures() == [1000, 1000, 0, 0]
    assert (answer["total_cents"], answer["status"]) == (0, "created_pending")
    assert intent_of(db, cart)["amount_cents"] == 0
    [(kind, data)] = changes(db)
    assert (kind, data["items"][0]["line_item_id"]) == ("order_line.released", str(cart.items[1].id))

    call("order_line_release", cart.items[0].id, "torn too")
    assert (figures(), order_of(db, cart)["state"]) == ([0, 0, 0, 0], "rejected")


def test_a_payment_under_way_keeps_its_amount(db, add_cart, checkout_sql, call):
    """What was charged is a fact; the event shows it beside what is owed now."""
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    db.execute("update payment_intents set status = 'settled'")
    db.execute("update vendor_orders set balance_due_cents = 0")

    answer = call("order_line_release", cart.items[0].id, "torn")

    assert (answer["total_cents"], answer["balance_due_cents"]) == (1000, 0)
    assert answer["payment_intent"]["amount_cents"] == intent_of(db, cart)["amount_cents"] == 2000


def test_a_fulfilled_line_leaves_the_reserve(db, add_cart, checkout_sql, call, snapshot):
    cart = add_cart(vendors=1, lines=2, quantity=3, stock=10)
    checkout_sql(db, cart)

    states = [call("order_line_fulfil", item.id)["status"] for item in cart.items]

    assert states == ["partially_fulfilled", "fulfilled"]
    assert [level(db, item.product_id) for item in cart.items] == [(7, 0), (7, 0)]
    assert order_of(db, cart)["total_cents"] == cart.groups[0].total_cents
    assert [kind for kind, _ in changes(db)] == ["order_line.fulfilled"] * 2
    before = snapshot(db)
    assert call("order_line_fulfil", cart.items[0].id)["replayed"] is True
    assert snapshot(db) == before


def test_fulfilling_from_slots_empties_the_holds(db, add_cart, checkout_sql, call):
    product = UUID(int=7)
    cart = add_cart(vendors=1, lines=1, products=[product], quantity=12, stock=20)
    call("inventory_split", product, 4)
    checkout_sql(db, cart)
    call("order_line_fulfil", cart.items[0].id)
    assert level(db, product) == (8, 0)
    assert values(db, "select count(*) from inventory_holds") == [0]


def test_states_follow_what_is_left(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=3)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set status = 'accepted'")
    db.execute("update order_line_items set status = 'accepted'")
    assert call("order_line_release", cart.items[0].id, "x")["status"] == "partially_accepted"
    assert call("order_line_fulfil", cart.items[1].id)["status"] == "partially_fulfilled"
    assert call("order_line_release", cart.items[2].id, "x")["status"] == "fulfilled"


def test_the_last_line_of_a_canceled_or_moving_order_does_not_move_its_state(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set status = 'in_transit'")
    assert call("order_line_fulfil", cart.items[0].id)["status"] == "in_transit"


@pytest.mark.parametrize("status", ["canceled", "expired"])
def test_an_order_that_the_host_ended_itself_gives_its_stock_back(db, add_cart, checkout_sql, call, status):
    cart = add_cart(vendors=1, lines=1, quantity=4, stock=10)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set status = %s::vendor_order_status", (status,))

    answer = call("vendor_order_cancel", cart.groups[0].id, "clean up")

    assert (answer["replayed"], answer["status"]) == (False, "canceled")
    assert level(db, cart.items[0].product_id) == (10, 0)
    assert len(changes(db)) == 1


ENDED = ["rejected", "fulfilled", "partially_fulfilled", "in_transit", "delivered", "closed"]


@pytest.mark.breaks_invariants  # the host ends it itself and gives nothing back
@pytest.mark.parametrize("status", ENDED)
def test_an_order_past_it_is_not_canceled(db, add_cart, checkout_sql, call, snapshot, status):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set status = %s::vendor_order_status", (status,))
    before = snapshot(db)
    with refused("OC012") as refusal:
        call("vendor_order_cancel", cart.groups[0].id, "late")
    assert (refusal.detail["what"], refusal.detail["status"]) == ("order", status)
    assert snapshot(db) == before


@pytest.mark.parametrize(
    ("function", "order_status", "line_status", "what"),
    [
        ("order_line_release", "accepted", "fulfilled", "order line"),
        ("order_line_release", "in_transit", "accepted", "order"),
        ("order_line_release", "closed", "accepted", "order"),
        ("order_line_fulfil", "accepted", "rejected", "order line"),
        ("order_line_fulfil", "accepted", "hold", "order line"),
        ("order_line_fulfil", "hold", "accepted", "order"),
        ("order_line_fulfil", "canceled", "accepted", "order"),
    ],
)
@pytest.mark.breaks_invariants  # the states are set by hand, the stock is not
def test_a_line_past_it_stays(db, add_cart, checkout_sql, call, snapshot, function, order_status, line_status, what):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set status = %s::vendor_order_status", (order_status,))
    db.execute("update order_line_items set status = %s::line_item_status", (line_status,))
    before = snapshot(db)
    with refused("OC012") as refusal:
        call(function, cart.items[0].id, *(["late"] if function == "order_line_release" else []))
    assert refusal.detail["what"] == what
    assert snapshot(db) == before


def test_a_line_that_the_checkout_rejected_holds_nothing_to_give_back(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=2, stock=5, items={(0, 0): {"quantity": 6}})
    checkout_sql(db, cart)
    answer = call("order_line_release", cart.items[0].id, "why not")
    assert (answer["replayed"], answer["reason"]) == (True, "insufficient_inventory")
    assert level(db, cart.items[0].product_id) == (5, 0)


def test_a_release_does_not_look_like_a_shortage_at_the_checkout(db, add_cart, checkout_sql, call):
    """The first answer's outcome stays true: what was turned down later is told by the line's state and notes."""
    cart = add_cart(vendors=2, lines=1)
    first = checkout_sql(db, cart)
    call("vendor_order_cancel", cart.groups[0].id, "The buyer called.")
    replay = checkout_sql(db, cart)
    assert (replay["outcome"], replay["rejected_vendors"]) == (first["outcome"], []) == ("complete", [])
    assert replay["vendor_orders"][0]["status"] == "canceled"
    assert replay["totals"]["quoted"] == first["totals"]["quoted"]


@pytest.mark.parametrize("reason", [None, "", " \n\t", "x" * 1001, "insufficient_inventory"])
@pytest.mark.parametrize("function", ["vendor_order_cancel", "order_line_release", "order_adjust"])
def test_a_reason_is_a_text_of_up_to_1000_characters(db, add_cart, checkout_sql, call, snapshot, function, reason):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    order_id, line_id = cart.groups[0].id, cart.items[0].id
    of = {"vendor_order_cancel": [order_id], "order_line_release": [line_id], "order_adjust": [order_id, 1]}
    before = snapshot(db)
    with refused("OC005") as refusal:
        call(function, *of[function], reason, *(["k1"] if function == "order_adjust" else []))
    assert refusal.detail["field"] == "reason"
    assert snapshot(db) == before


@pytest.mark.parametrize(
    "call_of", ["vendor_order_cancel(%s, 'x')", "order_line_release(%s, 'x')", "order_line_fulfil(%s)"]
)
def test_an_unknown_id_is_not_found(db, call_of):
    with refused("OC011") as refusal:
        db.execute(f"select {call_of}", (UUID(int=99),))
    assert refusal.detail == {"line_item_id" if "line" in call_of else "order_id": str(UUID(int=99))}
    with refused("OC005"):
        db.execute(f"select {call_of}", (None,))


@pytest.mark.breaks_invariants
def test_history_is_not_ours_to_cancel(db, add_cart, checkout_sql, call, snapshot):
    """A line is ours if cart_item_id = id; the earlier system's orders hold stock by rules of their own."""
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    db.execute("update order_line_items set cart_item_id = null")
    before = snapshot(db)
    with refused("OC011"):
        call("vendor_order_cancel", cart.groups[0].id, "x")
    with refused("OC011"):
        call("order_line_release", cart.items[0].id, "x")
    assert snapshot(db) == before


@pytest.mark.breaks_invariants
def test_stock_that_somebody_took_off_by_hand_is_said_and_not_made_up(db, add_cart, checkout_sql, call, snapshot):
    cart = add_cart(vendors=1, lines=1, quantity=4)
    checkout_sql(db, cart)
    db.execute("update inventory_items set reserved_qty = 1")
    before = snapshot(db)
    with refused("OC012") as refusal:
        call("vendor_order_cancel", cart.groups[0].id, "x")
    assert refusal.detail == {"what": "stock", "product_ids": [str(cart.items[0].product_id)]}
    assert "checkout_audit()" in refusal.hint
    assert snapshot(db) == before


def test_stock_that_no_row_could_hold_is_not_given_back(db, add_cart, checkout_sql, call, snapshot):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    call("inventory_set", cart.items[0].product_id, 2**31 - 1)
    before = snapshot(db)
    with refused("OC012") as refusal:
        call("vendor_order_cancel", cart.groups[0].id, "why")
    assert refusal.detail == {"what": "stock", "product_ids": [str(cart.items[0].product_id)]}
    assert "can count no more units" in refusal.hint
    assert snapshot(db) == before


@pytest.mark.breaks_invariants  # the host fulfils the line itself
@pytest.mark.parametrize(("function", "args"), [("order_line_fulfil", ()), ("order_line_release", ("why",))])
def test_a_line_that_the_host_is_changing_is_waited_for(db, connect, add_cart, checkout_sql, call, function, args):
    """The host's own statement has no lock on the order; what it made of the line is what counts."""
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    line = cart.items[0].id
    with connect() as host, connect(autocommit=True) as vendor:
        host.execute("update order_line_items set status = 'fulfilled' where id = %s", (line,))
        host.execute("update inventory_items set reserved_qty = 0 where product_id = %s", (cart.items[0].product_id,))
        with blocked(db, lambda conn: outcome(call, function, line, *args, conn=conn), vendor) as waiting:
            host.commit()
        assert waiting.result(timeout=10) == "OC012"
    assert level(db, cart.items[0].product_id)[1] == 0
    assert values(db, "select status::text from order_line_items where id = %s", line) == ["fulfilled"]


@pytest.mark.breaks_invariants  # the host takes the other line off by hand
def test_what_is_left_is_asked_of_lines_that_the_host_is_done_with(db, connect, add_cart, checkout_sql, call):
    """An uncommitted change to any line of the order is waited for before its lines are counted."""
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    mine, others = cart.items
    with connect() as host, connect(autocommit=True) as vendor:
        host.execute("update order_line_items set status = 'rejected', reserved_qty = 0 where id = %s", (others.id,))
        host.execute("update inventory_items set reserved_qty = 0 where product_id = %s", (others.product_id,))
        with blocked(db, lambda conn: call("order_line_release", mine.id, "why", conn=conn), vendor) as waiting:
            host.commit()
        assert waiting.result(timeout=10)["total_cents"] == 0


def test_lines_are_locked_in_the_order_of_their_ids(db, connect, add_cart, checkout_sql, call):
    """So that a host that keeps to it and a cancel cannot lock each other out."""
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    lower, higher = sorted(item.id for item in cart.items)
    lock = "select from order_line_items where id = %s for update"
    with connect() as host, connect(autocommit=True) as vendor, connect() as other:
        host.execute(lock, (lower,))
        cancel = ("vendor_order_cancel", cart.groups[0].id, "why")
        with blocked(db, lambda conn: call(*cancel, conn=conn), vendor) as waiting:
            other.execute(lock + " nowait", (higher,))
            other.rollback()
            host.rollback()
        assert waiting.result(timeout=10)["replayed"] is False


def test_a_change_is_dated_when_it_is_made(db, connect, add_cart, checkout_sql, call):
    """Order, line, intent and event: not when the transaction began, which may have waited for long."""
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    with connect() as conn:
        conn.execute("select now()")
        call("order_line_release", cart.items[0].id, "why", conn=conn)
        for table, dated in {
            "vendor_orders": "updated_at",
            "order_line_items": "updated_at",
            "payment_intents": "updated_at",
            "outbox_events": "created_at",
        }.items():
            assert values(conn, f"select max({dated}) > now() from {table}") == [True], table
        conn.commit()


@pytest.mark.parametrize("ahead", ["2099-01-01", "infinity"])
def test_an_event_of_an_order_that_the_host_dated_ahead_is_due_at_once(db, add_cart, checkout_sql, call, ahead):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    db.execute("update vendor_orders set updated_at = %s", (ahead,))
    db.execute(
        "select payment_record(%s, 'acme', 'e1', 'authorized', 1, 'USD')",
        (cart.groups[0].id,),
    )
    call("vendor_order_cancel", cart.groups[0].id, "why")

    assert claimed(db)[-2:] == ["payment.changed", "vendor_order.canceled"]


@pytest.fixture
def step_back(db):
    """step_back(): what was written was written by a clock that was an hour ahead; the host wrote the orders since."""

    def step_back():
        with db.transaction():
            db.execute("set local session_replication_role = replica")  # nobody may change what is done
            for table in ("vendor_orders", "order_changes", "payment_events", "outbox_events"):
                db.execute(f"update {table} set created_at = created_at + interval '1 hour'")
            db.execute("update vendor_orders set updated_at = now()")

    return step_back


def claimed(db):
    return values(db, "select event_type::text from outbox_claim(100, '1 minute')")


def test_no_order_ends_before_its_conversion_when_the_clock_steps_back(db, add_cart, checkout_sql, call, step_back):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    step_back()

    call("vendor_order_cancel", cart.groups[0].id, "why")

    assert claimed(db) == ["checkout.vendor_orders_created", "checkout.converted", "vendor_order.canceled"]


def test_no_order_expires_before_its_conversion_when_the_clock_steps_back(db, add_cart, checkout_sql, call, step_back):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart, expires_in=timedelta(hours=1))
    step_back()
    db.execute("update vendor_orders set expires_at = now()")

    assert call("vendor_orders_expire", 1)["expired"] == 1

    assert claimed(db) == ["checkout.vendor_orders_created", "checkout.converted", "vendor_order.expired"]


@pytest.mark.parametrize("first", ["payment", "change"])
def test_what_happens_to_an_order_stays_in_its_order_when_the_clock_steps_back(
    db, add_cart, checkout_sql, call, step_back, first
):
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    order = cart.groups[0].id
    paid = "select payment_record(%s, 'acme', %s, 'captured', 1, 'USD')"

    def pay(number):
        db.execute(paid, (order, f"event_{number}"))

    def adjust(number):
        call("order_adjust", order, number, "why", f"adjust_{number}")

    steps = [pay, adjust] if first == "payment" else [adjust, pay]
    for number in range(1, 4):
        for step in steps:
            step(number)
            step_back()

    kinds = {pay: "payment.changed", adjust: "vendor_order.adjusted"}
    assert claimed(db)[2:] == [kinds[step] for step in steps] * 3
    told = changes(db)
    assert [data["captured_cents"] for kind, data in told if kind == "payment.changed"] == [1, 2, 3]
    assert [data["amount_cents"] for kind, data in told if kind == "vendor_order.adjusted"] == [1, 2, 3]
    listed = call("order_changes_list", order, cart.buyer_store_id)
    assert [step["about"] for step in listed] == ["payment" if step is pay else "order" for step in steps] * 3


def test_a_repeat_is_told_by_what_came_last_when_the_clock_steps_back(db, add_cart, checkout_sql, call, step_back):
    cart = add_cart(vendors=1, lines=1, quantity=2)
    checkout_sql(db, cart)
    line = cart.items[0].id
    call("order_line_release", line, "why", 1, "k")
    step_back()
    assert call("order_line_fulfil", line)["replayed"] is False

    assert call("order_line_fulfil", line)["replayed"] is True


def test_a_product_that_the_host_deleted_takes_nothing_back(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=2)
    checkout_sql(db, cart)
    db.execute("update order_line_items set product_id = null where id = %s", (cart.items[0].id,))
    db.execute("delete from inventory_items where product_id = %s", (cart.items[0].product_id,))
    assert call("vendor_order_cancel", cart.groups[0].id, "x")["status"] == "canceled"
    assert level(db, cart.items[1].product_id) == (100, 0)


def test_holds_of_a_product_whose_stock_the_host_deleted_end_with_their_line(db, add_cart, checkout_sql, call):
    cart = add_cart(vendors=1, lines=1)
    call("inventory_split", cart.items[0].product_id, 3)
    checkout_sql(db, cart)
    assert values(db, "select count(*) from inventory_holds") == [1]
    db.execute("delete from inventory_slots")
    db.execute("delete from inventory_items")

    assert call("vendor_order_cancel", cart.groups[0].id, "x")["status"] == "canceled"

    assert values(db, "select count(*) from inventory_holds") == [0]


def test_cancels_of_opposite_orders_and_checkouts_never_deadlock(db, connect, add_cart, checkout_sql, call):
    """Each takes its order first and then stock by product and slot, as a checkout takes its cart."""
    a, b = UUID(int=1), UUID(int=2)
    carts = [
        add_cart(vendors=1, products=[a, b] if number % 2 else [b, a], stock=1000, quantity=1) for number in range(48)
    ]
    call("inventory_split", a, 4)
    for cart in carts[:24]:
        checkout_sql(db, cart)
    connections = [connect(autocommit=True) for _ in range(4)]

    def run(number):
        conn = connections[number]
        for old, new in zip(carts[number:24:4], carts[24 + number :: 4], strict=True):
            call("vendor_order_cancel", old.groups[0].id, "x", conn=conn)
            checkout_sql(conn, new, key=str(new.id))

    assert at_once(*[lambda number=number: run(number) for number in range(4)]) == [None] * 4
    assert [level(db, product) for product in (a, b)] == [(976, 24)] * 2
