"""Orders that are not paid in time end, give their stock back, and never take money or units twice."""

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from events import validate
from test_payment_record import money, record

import pycheckout
from checks import level, refused, row, rows, vacuum, values
from races import at_once, blocked

pytest_plugins = ["shared"]


@pytest.fixture
def db(undone_if_alone):
    return undone_if_alone


HOUR = timedelta(hours=1)


def expire(db, max_rows=100, conn=None):
    return values(conn or db, "select vendor_orders_expire(%s)", max_rows)[0]


def told(db, kind="expired"):
    found = "select payload from outbox_events where event_type::text = %s order by created_at, id"
    return [validate(payload)["data"] for payload in values(db, found, f"vendor_order.{kind}")]


def state(db, order_id):
    return values(db, "select status::text from vendor_orders where id = %s", order_id)[0]


@pytest.fixture
def add_due(db, add_cart, checkout_sql):
    """add_due(**cart): a cart that is checked out, with orders that were to be paid a minute ago."""
    numbers = iter(range(10_000))

    def add_due(ago=timedelta(minutes=1), **of_cart):
        cart = add_cart(**({"vendors": 1, "lines": 1} | of_cart))
        number = next(numbers)
        checkout_sql(db, cart, key=f"due-{number}", expires_in=HOUR)
        due = datetime.now(UTC) - ago + timedelta(microseconds=number)
        db.execute("update vendor_orders set expires_at = %s where cart_id = %s", (due, cart.id))
        return cart

    return add_due


def test_an_order_that_is_not_paid_in_time_gives_its_stock_back(db, add_due):
    cart = add_due(vendors=2, lines=2, quantity=3, stock=10, promo_cents=500)
    deadline = row(db, "select expires_at from vendor_orders where id = %s", cart.groups[0].id)["expires_at"]
    db.execute("update vendor_orders set expires_at = now() + interval '1 hour' where id = %s", (cart.groups[1].id,))
    before = row(db, "select updated_at from vendor_orders where id = %s", cart.groups[0].id)["updated_at"]
    mine = cart.groups[0].id

    assert expire(db) == {"expired": 1, "kept": 0, "order_ids": [str(mine)]}

    assert [level(db, item.product_id) for item in cart.items] == [(10, 0), (10, 0), (7, 3), (7, 3)]
    order = row(db, "select *, status::text as state from vendor_orders where id = %s", mine)
    figures = ("subtotal", "discounts", "promo_discount", "tax", "transport_fee", "total", "balance_due")
    assert [order[f"{figure}_cents"] for figure in figures] == [0] * 7
    assert (order["state"], order["expires_at"], order["updated_at"] > before) == ("expired", None, True)
    assert money(db, mine)[3:] == ("unpaid", 0)
    lines = rows(db, "select * from order_line_items where order_id = %s order by id", mine)
    assert {(line["status"], line["reserved_qty"], line["released_qty"]) for line in lines} == {("rejected", 0, 3)}
    [event] = told(db)
    assert (event["order_id"], event["status"]) == (str(mine), "expired")
    assert datetime.fromisoformat(event["details"]["expires_at"]) == deadline
    assert [item["line_item_id"] for item in event["items"]] == [str(line["id"]) for line in lines]
    change = row(db, "select * from order_changes")
    assert (change["order_id"], change["kind"], change["created_at"]) == (mine, "expired", order["updated_at"])
    told_lines = [(line["line_item_id"], line["released_qty"]) for line in change["lines"]]
    assert told_lines == [(str(line["id"]), 3) for line in lines]
    outbox = row(db, "select * from outbox_events where event_type = 'vendor_order.expired'")
    assert (outbox["id"], outbox["created_at"]) == (change["id"], order["updated_at"])
    # the other vendor's order has an hour left, and the first is done with
    assert expire(db) == {"expired": 0, "kept": 0, "order_ids": []}
    assert state(db, cart.groups[1].id) == "created_pending"


def test_an_expired_order_is_what_a_cancel_leaves(db, add_due):
    """But for the words, the deadline and the note."""
    due = {"vendors": 1, "lines": 2, "quantity": 2, "promo_cents": 300}
    canceled, expired = add_due(**due), add_due(**due)
    db.execute("select vendor_order_cancel(%s, 'Not paid in time.')", (canceled.groups[0].id,))
    expire(db)

    orders = """
        select to_jsonb(o) - '{id,cart_id,checkout_group_id,buyer_store_id,vendor_store_id}'::text[]
                           - '{order_number,created_at,updated_at,status,expires_at}'::text[]
          from vendor_orders as o where id = %s
    """
    intents = (
        "select to_jsonb(i) - '{id,order_id,created_at,updated_at}'::text[] from payment_intents as i where id = %s"
    )
    for query in (orders, intents):
        assert values(db, query, canceled.groups[0].id) == values(db, query, expired.groups[0].id)
    lines = "select status::text, notes, reserved_qty, total_cents from order_line_items where order_id = %s"
    assert rows(db, lines, canceled.groups[0].id) == rows(db, lines, expired.groups[0].id)


def test_the_longest_due_come_first_and_no_more_than_asked_for(db, add_due):
    carts = [add_due(ago=timedelta(minutes=minutes)) for minutes in (1, 3, 2)]
    ids = [str(cart.groups[0].id) for cart in carts]

    assert expire(db, 1)["order_ids"] == [ids[1]]
    assert expire(db, 1)["order_ids"] == [ids[2]]
    assert expire(db, 5)["order_ids"] == [ids[0]]


@pytest.mark.parametrize("number", [0, -1, 1001, None])
def test_a_number_out_of_range_is_refused(db, nothing_written, number):
    with nothing_written(), refused("OC005") as refusal:
        expire(db, number)
    assert refusal.detail["field"] == "max_rows"


@pytest.mark.parametrize(
    "prepare",
    [
        "update payment_intents set status = 'paid'",
        "update payment_intents set status = 'pending'",
        "update payment_intents set status = 'settled'",
        "update vendor_orders set balance_due_cents = 0",
        "select payment_record(id, 'p', 'e', 'captured', 1, 'USD') from vendor_orders",
        "select payment_record(id, 'p', 'e', 'authorized', 1, 'USD') from vendor_orders",
        # whatever the host makes of the intent
        """select payment_record(id, 'p', 'e', 'authorized', 1, 'USD') from vendor_orders;
           update payment_intents set status = 'unpaid'""",
        """select payment_record(id, 'p', 'e', 'captured', 1, 'USD') from vendor_orders;
           update payment_intents set status = 'unpaid'""",
        """update order_line_items set status = 'fulfilled', reserved_qty = 0;
           update inventory_items set reserved_qty = 0""",
    ],
)
@pytest.mark.breaks_invariants
def test_what_may_not_expire_loses_its_deadline_and_is_not_looked_at_again(db, add_due, prepare):
    cart = add_due()
    db.execute(prepare)

    assert expire(db) == {"expired": 0, "kept": 1, "order_ids": []}
    assert values(db, "select expires_at from vendor_orders") == [None]
    assert expire(db)["kept"] == 0
    assert (state(db, cart.groups[0].id), told(db)) == ("created_pending", [])


@pytest.mark.usefixtures("dsn")  # uses the values that it adds to an enum
@pytest.mark.parametrize("failure", ["failed", "rejected"])
def test_a_payment_that_failed_keeps_no_order(db, add_due, failure):
    db.execute("alter type payment_status add value if not exists 'failed'")
    db.execute("alter type payment_status add value if not exists 'rejected'")
    cart = add_due()
    record(db, cart.groups[0].id, "failed", 0)
    record(db, cart.groups[0].id, "authorized", 500)
    record(db, cart.groups[0].id, "voided", 500)
    db.execute("update payment_intents set status = %s", (failure,))

    assert expire(db)["expired"] == 1
    assert money(db, cart.groups[0].id)[:3] == (0, 0, 0)
    db.execute("update payment_intents set status = 'failed'")  # rejected was the host's


@pytest.mark.parametrize("status", ["accepted", "hold", "canceled"])
def test_an_order_that_is_not_waiting_any_more_is_left_alone(db, add_due, status):
    cart = add_due()
    if status == "canceled":
        db.execute("select vendor_order_cancel(%s, 'off')", (cart.groups[0].id,))
    db.execute("update vendor_orders set status = %s", (status,))

    assert expire(db) == {"expired": 0, "kept": 0, "order_ids": []}


def test_orders_of_the_hosts_own_are_left_alone(db):
    db.execute(
        """
        insert into vendor_orders (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents,
                                   balance_due_cents, expires_at)
        values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 500, 500, 500, now() - interval '1 day')
        """
    )
    assert expire(db) == {"expired": 0, "kept": 0, "order_ids": []}
    assert values(db, "select expires_at is not null from vendor_orders") == [True]


def test_split_products_and_shared_ones_get_all_of_their_units_back(db, add_due, add_stock):
    split, shared = UUID(int=7), UUID(int=8)
    add_stock(split, 100)
    db.execute("select inventory_split(%s, 4)", (split,))
    for _ in range(3):
        add_due(lines=2, products=[split, shared], quantity=5, stock=100)
    assert level(db, split) == (85, 15)

    assert expire(db)["expired"] == 3
    assert [level(db, product) for product in (split, shared)] == [(100, 0), (100, 0)]


def test_a_credit_goes_with_the_rest_and_the_change_says_so(db, add_due):
    cart = add_due()
    db.execute("select order_adjust(%s, -100, 'a scratch', 'k1')", (cart.groups[0].id,))

    expire(db)

    assert money(db, cart.groups[0].id)[:2] == (0, 0)
    assert values(db, "select adjustments_cents from vendor_orders") == [0]
    assert values(db, "select amount_cents from order_changes order by id") == [-100, 100]


def test_amounts_near_the_end_of_bigint_end_too(db, add_due):
    cart = add_due(unit_price_cents=2**62)
    assert expire(db)["expired"] == 1
    record(db, cart.groups[0].id, "captured", 2**62)
    assert money(db, cart.groups[0].id)[:3] == (0, 0, 2**62)


# Payment and expiry of one order, in each order of commits


def test_money_that_is_recorded_first_keeps_the_order(db, connect, add_due):
    """It holds the order's lock: the expiry passes it over, and the next one finds it paid."""
    cart = add_due()
    order = cart.groups[0].id
    paying = connect()
    record(db, order, "captured", 400, conn=paying)

    assert expire(db) == {"expired": 0, "kept": 0, "order_ids": []}
    paying.commit()

    assert expire(db)["kept"] == 1
    assert (state(db, order), money(db, order)[:3]) == ("created_pending", (1000, 600, 0))


def test_money_that_comes_after_the_expiry_is_recorded_and_due_back(db, connect, add_due):
    cart = add_due()
    order = cart.groups[0].id
    expiring, paying = connect(), connect()
    assert expire(db, conn=expiring)["expired"] == 1

    with blocked(db, lambda conn: record(db, order, "captured", 1000, conn=conn), paying) as waiting:
        expiring.commit()
    paying.commit()

    assert waiting.result()["refund_due_cents"] == 1000
    assert (state(db, order), money(db, order)[:3]) == ("expired", (0, 0, 1000))
    assert level(db, cart.items[0].product_id) == (100, 0)


def test_an_expiry_that_is_rolled_back_lets_the_money_count(db, connect, add_due):
    cart = add_due()
    order = cart.groups[0].id
    expiring, paying = connect(), connect()
    expire(db, conn=expiring)

    with blocked(db, lambda conn: record(db, order, "captured", 1000, conn=conn), paying) as waiting:
        expiring.rollback()
    paying.commit()

    assert waiting.result()["balance_due_cents"] == 0
    assert (state(db, order), expire(db)["expired"]) == ("created_pending", 0)


def test_a_host_that_sets_the_intent_to_paid_first_keeps_the_order(db, connect, add_due):
    cart = add_due()
    host = connect()
    host.execute("update payment_intents set status = 'paid'")

    assert expire(db) == {"expired": 0, "kept": 0, "order_ids": []}
    host.commit()

    assert expire(db)["kept"] == 1
    assert state(db, cart.groups[0].id) == "created_pending"


def test_a_host_that_sets_the_intent_to_paid_later_waits_for_the_expiry(db, connect, add_due):
    cart = add_due()
    expiring, host = connect(), connect()
    expire(db, conn=expiring)
    paid = (
        "update payment_intents set status = 'paid' where amount_cents > 0"  # as a host does that knows what it takes
    )

    with blocked(db, lambda conn: conn.execute(paid).rowcount, host) as waiting:
        expiring.commit()
    host.commit()

    assert waiting.result() == 0
    assert (state(db, cart.groups[0].id), money(db, cart.groups[0].id)[3:]) == ("expired", ("unpaid", 0))


def test_a_host_that_changes_a_line_meanwhile_is_waited_for(db, connect, add_due):
    """What was shipped just now is not given back to the shelf."""
    cart = add_due()
    host, ours = connect(), connect()
    host.execute("update order_line_items set fulfilled_qty = 1")

    with blocked(db, lambda conn: expire(db, conn=conn), ours) as waiting:
        host.commit()
    ours.commit()

    assert waiting.result()["kept"] == 1
    assert level(db, cart.items[0].product_id) == (99, 1)
    db.execute("update order_line_items set fulfilled_qty = null")


def test_a_host_that_locks_lines_in_their_order_meets_no_deadlock(db, connect, add_due):
    """Lines are locked by id, whichever orders they are of."""
    lines = sorted(add_due().items[0].id for _ in range(2))
    host, ours = connect(), connect()
    written = "update order_line_items set updated_at = clock_timestamp() where id = %s"
    host.execute(written, (lines[0],))
    with blocked(db, lambda conn: expire(db, conn=conn), ours) as waiting:
        host.execute(written, (lines[1],))
        host.commit()
    ours.commit()
    assert waiting.result()["expired"] == 2


def test_what_fell_due_since_a_transaction_began_is_due(db, connect, add_due):
    add_due()
    conn = connect()
    values(conn, "select 1")
    db.execute("update vendor_orders set expires_at = clock_timestamp()")
    assert expire(db, conn=conn)["expired"] == 1
    conn.commit()


@pytest.mark.parametrize(
    "call",
    ["vendor_order_cancel(%s, 'off')", "order_line_fulfil(%s)", "vendor_order_extend(%s, now() + interval '1 hour')"],
)
def test_another_change_that_is_under_way_is_passed_over(db, connect, add_due, call):
    cart = add_due()
    other = connect()
    other.execute(f"select {call}", (cart.items[0].id if "line" in call else cart.groups[0].id,))

    assert expire(db) == {"expired": 0, "kept": 0, "order_ids": []}
    other.commit()
    assert expire(db)["expired"] == 0


def test_a_cancel_that_waited_for_the_expiry_is_refused(db, connect, add_due):
    cart = add_due()
    expiring, canceling = connect(), connect()
    expire(db, conn=expiring)

    def cancel(conn):
        with pytest.raises(pycheckout.OrderStateConflict):
            pycheckout.Checkout(conn).orders.cancel(cart.groups[0].id, reason="off")

    with blocked(db, cancel, canceling) as waiting:
        expiring.commit()
    waiting.result()
    canceling.rollback()
    assert level(db, cart.items[0].product_id) == (100, 0)


def test_a_checkout_that_waits_gets_what_an_expiry_gives_back(db, connect, add_due, add_cart, checkout_sql):
    product = UUID(int=7)
    add_due(products=[product], quantity=5, stock=5)
    wanted = add_cart(vendors=1, lines=1, products=[product], quantity=5)
    expiring, buying = connect(), connect()
    expire(db, conn=expiring)

    with blocked(db, lambda conn: checkout_sql(conn, wanted), buying) as waiting:
        expiring.commit()
    buying.commit()

    assert waiting.result()["outcome"] == "complete"
    assert level(db, product) == (0, 5)


def test_two_workers_share_what_is_due(db, connect, add_due):
    for _ in range(4):
        add_due(products=[UUID(int=7)], stock=100)
    first, second = connect(), connect()

    one = expire(db, 2, conn=first)
    with blocked(db, lambda conn: expire(db, 4, conn=conn), second) as waiting:  # for the stock of the first
        first.commit()
    second.commit()

    assert (one["expired"], waiting.result()["expired"]) == (2, 2)
    assert set(one["order_ids"]) & set(waiting.result()["order_ids"]) == set()
    assert level(db, UUID(int=7)) == (100, 0)


def test_four_workers_expire_each_order_once_and_never_deadlock(db, connect, add_due, add_cart, checkout_sql):
    """Beside checkouts of the same products, which lock stock in the same order."""
    products = [UUID(int=n) for n in range(1, 9)]
    for number in range(48):
        mine = [products[(number * 3 + step * (1 + number % 2)) % 8] for step in range(3)]
        add_due(lines=3, products=mine, stock=1000)
    more = [add_cart(vendors=1, lines=8, products=products[:: 1 - 2 * (n % 2)]) for n in range(12)]
    connections = [connect(autocommit=True) for _ in range(6)]

    def work(conn):
        found = []
        while (answer := expire(db, 5, conn=conn))["expired"]:
            found += answer["order_ids"]
        return found

    def buy(conn, carts):
        return [checkout_sql(conn, cart, key=f"more-{cart.id}") for cart in carts]

    ended = at_once(
        *[lambda conn=conn: work(conn) for conn in connections[:4]],
        *[lambda conn=conn, n=n: buy(conn, more[n::2]) for n, conn in enumerate(connections[4:])],
    )

    assert [str(e) for e in ended if isinstance(e, Exception)] == []
    expired = [order for found in ended[:4] for order in found] + expire(db)["order_ids"]
    assert len(expired) == len(set(expired)) == 48 == len(told(db))
    assert [level(db, product) for product in products] == [(1000 - 12, 12)] * 8


def test_payments_and_expiries_at_once_leave_each_order_paid_or_expired(db, connect, add_due):
    carts = [add_due(products=[UUID(int=7)], stock=100) for _ in range(24)]
    connections = [connect(autocommit=True) for _ in range(4)]

    def pay(conn):
        return [record(db, cart.groups[0].id, "captured", 1000, conn=conn) for cart in carts]

    def work(conn):
        return [expire(db, 1, conn=conn) for _ in range(30)]

    ended = at_once(
        *[lambda conn=conn: pay(conn) for conn in connections[:2]],
        *[lambda conn=conn: work(conn) for conn in connections[2:]],
    )

    assert [str(e) for e in ended if isinstance(e, Exception)] == []
    kept = 0
    for cart in carts:
        is_expired = state(db, cart.groups[0].id) == "expired"
        kept += not is_expired
        assert money(db, cart.groups[0].id)[:3] == ((0, 0, 1000) if is_expired else (1000, 0, 0))
    assert level(db, UUID(int=7)) == (100 - kept, kept)


def test_under_repeatable_read_a_look_that_came_late_says_retry(db, connect, add_due):
    cart = add_due()
    late = connect()
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    late.execute("select from vendor_orders")
    record(db, cart.groups[0].id, "captured", 1)

    with pytest.raises(psycopg.errors.SerializationFailure):
        expire(db, conn=late)


@pytest.mark.parametrize(
    "table", ["order_line_items", "vendor_orders", "payment_intents", "order_changes", "outbox_events"]
)
def test_a_trigger_that_keeps_a_row_out_is_said(db, add_due, nothing_written, table):
    add_due()
    event = "insert" if table in ("order_changes", "outbox_events") else "update"
    db.execute("create function no_row() returns trigger language plpgsql as 'begin return null; end'")
    db.execute(f"create trigger no_row before {event} on {table} for each row execute function no_row()")

    with nothing_written(), refused("OC007") as refusal:
        expire(db)
    assert refusal.detail["table"] == table


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("host_writes", ["reserved_qty = 0", "available_qty = 2147483647"])
def test_stock_that_cannot_be_given_back_keeps_only_its_own_order(db, add_due, host_writes):
    first, *rest = [add_due(vendors=1, lines=2) for _ in range(3)]
    db.execute(f"update inventory_items set {host_writes} where product_id = %s", (first.items[1].product_id,))
    mine = first.groups[0].id

    assert expire(db) == {"expired": 2, "kept": 0, "order_ids": [str(cart.groups[0].id) for cart in rest]}
    assert (state(db, mine), level(db, first.items[0].product_id)) == ("created_pending", (99, 1))
    assert [event["order_id"] for event in told(db)] == [str(cart.groups[0].id) for cart in rest]
    with refused("OC012"):
        expire(db)

    # beside one that is done with it is no reason to fail, and it is not forgotten
    paid = add_due()
    db.execute("update payment_intents set status = 'paid' where order_id = %s", (paid.groups[0].id,))
    assert expire(db) == {"expired": 0, "kept": 1, "order_ids": []}
    db.execute(
        "update inventory_items set available_qty = 99, reserved_qty = 1 where product_id = %s",
        (first.items[1].product_id,),
    )
    assert expire(db) == {"expired": 1, "kept": 0, "order_ids": [str(mine)]}
    assert db.execute("select * from checkout_audit()").fetchall() == []


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("max_rows", [1, 2, 3])
def test_however_many_orders_are_stuck_the_one_behind_them_expires(db, connect, add_due, max_rows):
    stuck = [add_due() for _ in range(5)]
    behind = [str(add_due().groups[0].id) for _ in range(2)]
    products = [cart.items[0].product_id for cart in stuck]
    db.execute("update inventory_items set reserved_qty = 0 where product_id = any (%s)", (products,))

    told_ids = []
    while len(told_ids) < 2:
        with connect() as worker:
            told_ids += expire(db, max_rows, worker)["order_ids"]
    assert told_ids == behind
    with connect() as worker, refused("OC012") as refusal:
        expire(db, max_rows, worker)
    assert refusal.detail["product_ids"]

    paid = add_due()
    db.execute("update payment_intents set status = 'paid' where order_id = %s", (paid.groups[0].id,))
    assert expire(db, max_rows)["kept"] == 1
    assert {state(db, cart.groups[0].id) for cart in stuck} == {"created_pending"}


@pytest.mark.breaks_invariants
def test_stuck_orders_that_were_looked_at_stay_free(db, connect, add_due):
    stuck, _ = add_due(), add_due()
    db.execute("update inventory_items set reserved_qty = 0 where product_id = %s", (stuck.items[0].product_id,))
    worker = connect()

    assert expire(db, 1, worker)["expired"] == 1

    db.execute("select from vendor_orders where id = %s for update nowait", (stuck.groups[0].id,))
    db.execute("select from inventory_items where product_id = %s for update nowait", (stuck.items[0].product_id,))
    worker.commit()


def test_orders_whose_intents_are_being_written_keep_none_behind_them(db, connect, add_due):
    first, second = add_due(), add_due()
    with connect() as host:
        host.execute("select from payment_intents where order_id = %s for update", (first.groups[0].id,))
        assert expire(db, 1)["order_ids"] == [str(second.groups[0].id)]
    assert expire(db, 1)["order_ids"] == [str(first.groups[0].id)]


@pytest.mark.usefixtures("dsn")  # vacuums
def test_what_is_not_due_costs_nothing(db, add_due):
    """The index of what waits is read, as far as it is due, and no other page of the table."""
    cart = add_due()
    db.execute(
        """
        insert into vendor_orders (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents,
                                   expires_at)
        select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 0, 0,
               case when n % 2 = 0 then now() + interval '1 day' end
          from generate_series(1, 40000) as n
        """
    )
    vacuum(db, "vendor_orders")
    read = "select seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'vendor_orders'"
    with db.transaction():
        before = row(db, read)
        assert expire(db)["order_ids"] == [str(cart.groups[0].id)]
        after = row(db, read)
    assert after["seq_tup_read"] == before["seq_tup_read"]
    assert after["idx_tup_fetch"] - before["idx_tup_fetch"] < 20
    db.execute("delete from vendor_orders where promo_discount_cents is null")


# More time


def extend(db, order_id, until, conn=None):
    return values(conn or db, "select vendor_order_extend(%s, %s)", order_id, until)[0]


def test_an_order_gets_more_time_with_one_event(db, add_due):
    cart = add_due()
    order = cart.groups[0].id
    until = datetime.now(UTC) + 3 * HOUR

    answer = extend(db, order, until)

    assert expire(db)["expired"] == 0
    found = row(db, "select expires_at, updated_at from vendor_orders")
    assert found["expires_at"] == until == datetime.fromisoformat(answer["expires_at"])
    [event] = told(db, "extended")
    assert event | {"replayed": False} == answer
    change = row(db, "select * from order_changes")
    assert (change["kind"], change["lines"], change["created_at"]) == ("extended", [], found["updated_at"])


def test_the_same_deadline_again_changes_nothing(db, add_due, snapshot):
    cart = add_due()
    until = datetime.now(UTC) + HOUR
    first = extend(db, cart.groups[0].id, until)
    before = snapshot(db)

    assert extend(db, cart.groups[0].id, until) == first | {"replayed": True}
    assert snapshot(db) == before


@pytest.mark.parametrize(
    "until",
    [
        None,
        "infinity",
        "-infinity",
        "now",
        timedelta(minutes=-1),
        timedelta(minutes=30),
        timedelta(days=366, seconds=9),
    ],
)
def test_a_deadline_that_is_none_is_refused(db, add_due, nothing_written, until):
    cart = add_due()
    extend(db, cart.groups[0].id, datetime.now(UTC) + HOUR)

    with nothing_written(), refused("OC005") as refusal:
        extend(db, cart.groups[0].id, datetime.now(UTC) + until if isinstance(until, timedelta) else until)
    assert refusal.detail["field"] == "until"


def test_a_deadline_in_the_past_is_refused_of_an_order_that_is_due(db, add_due, nothing_written):
    cart = add_due()
    with nothing_written(), refused("OC005"):
        extend(db, cart.groups[0].id, datetime.now(UTC) - timedelta(seconds=1))


def test_a_deadline_that_passed_since_a_transaction_began_is_refused(db, connect, add_due, nothing_written):
    cart, conn = add_due(), connect()
    [began] = values(conn, "select now()")
    [until] = values(db, "select clock_timestamp()")
    assert until > began
    with nothing_written(), refused("OC005"):
        extend(db, cart.groups[0].id, until, conn)


@pytest.mark.parametrize(
    ("prepare", "status", "said"),
    [
        (
            "update vendor_orders set expires_at = null",
            "created_pending",
            "created_pending without a deadline, and this takes one that is created_pending with a deadline",
        ),
        (
            "update vendor_orders set status = 'accepted'",
            "accepted",
            "accepted, and this takes one that is created_pending",
        ),
        ("select vendor_orders_expire()", "expired", "expired, and this takes one that is created_pending"),
    ],
)
def test_an_order_without_a_deadline_gets_none(db, add_due, nothing_written, prepare, status, said):
    cart = add_due()
    db.execute(prepare)

    with nothing_written(), refused("OC012") as refusal:
        extend(db, cart.groups[0].id, datetime.now(UTC) + HOUR)
    assert (refusal.detail["status"], refusal.detail["allowed"]) == (status, ["created_pending"])
    assert refusal.message == f"order {cart.groups[0].id} is {said}"


def test_an_order_that_is_not_there_is_refused(db, nothing_written):
    with nothing_written(), refused("OC011"):
        extend(db, uuid4(), datetime.now(UTC) + HOUR)
    with nothing_written(), refused("OC005"):
        extend(db, None, datetime.now(UTC) + HOUR)


def test_more_time_waits_for_an_expiry_and_comes_too_late(db, connect, add_due):
    cart = add_due()
    expiring, late = connect(), connect()
    expire(db, conn=expiring)

    def call(conn):
        with pytest.raises(pycheckout.OrderStateConflict):
            pycheckout.Checkout(conn).orders.extend(cart.groups[0].id, datetime.now(UTC) + HOUR)

    with blocked(db, call, late) as waiting:
        expiring.commit()
    waiting.result()
    late.rollback()


def test_a_trigger_that_keeps_a_deadline_out_is_said(db, add_due, nothing_written):
    cart = add_due()
    db.execute("create function no_row() returns trigger language plpgsql as 'begin return null; end'")
    db.execute("create trigger no_row before update on vendor_orders for each row execute function no_row()")

    with nothing_written(), refused("OC007"):
        extend(db, cart.groups[0].id, datetime.now(UTC) + HOUR)


def test_in_python(db, add_due):
    carts = [add_due(), add_due()]
    shop = pycheckout.Checkout(db)

    until = datetime.now(UTC) + HOUR
    change = shop.orders.extend(carts[0].groups[0].id, until)
    found = shop.orders.expire(5)

    assert (change.expires_at, change.replayed) == (until, False)
    assert (found.expired, found.kept, found.order_ids) == (1, 0, (carts[1].groups[0].id,))
