"""What payment providers tell is written once, whatever it is and whenever it comes; what is due follows from it."""

import itertools
from datetime import timedelta
from uuid import UUID, uuid4

import psycopg
import pytest
from events import validate
from psycopg.types.json import Jsonb

import pycheckout
from checks import refused, row, rows, values
from races import at_once, blocked

pytest_plugins = ["shared"]


@pytest.fixture
def db(undone_if_alone):
    return undone_if_alone


def record(db, of, what, amount, event_id=None, *, provider="acme", currency="USD", conn=None, **more):
    arguments = {
        "order_id": of,
        "provider": provider,
        "provider_event_id": event_id or f"{what}-{amount}",
        "kind": what,
        "amount_cents": amount,
        "currency": currency,
    } | more
    names = ", ".join(f"{name} => %s" for name in arguments)
    given = [Jsonb(value) if isinstance(value, dict | list) else value for value in arguments.values()]
    return values(conn or db, f"select payment_record({names})", *given)[0]


def money(db, order_id):
    """(total, balance, refund due, intent's state, intent's amount)"""
    found = row(
        db,
        """
        select vendor_order.total_cents, balance_due_cents, refund_due_cents, intent.status::text, amount_cents
          from vendor_orders as vendor_order join payment_intents as intent on intent.order_id = vendor_order.id
         where vendor_order.id = %s
        """,
        order_id,
    )
    return tuple(found.values())


def told(db):
    """The data of the events of payments, valid by their schema, in the order in which they go out."""
    payloads = values(
        db, "select payload from outbox_events where event_type = 'payment.changed' order by created_at, id"
    )
    return [validate(payload)["data"] for payload in payloads]


@pytest.fixture
def order(db, add_cart, checkout_sql):
    """The id of an order over 1000."""
    cart = add_cart(vendors=1, lines=1, unit_price_cents=1000)
    checkout_sql(db, cart)
    return cart.groups[0].id


@pytest.fixture
def failing(db, dsn):
    """An enum of payment states that knows failures, as a host may have it; committed, since it is used."""
    db.execute("alter type payment_status add value 'failed'")
    db.execute("alter type payment_status add value 'rejected'")


def test_an_event_has_the_time_of_its_recording_and_not_of_its_transaction(db, connect, order):
    """A host records what came long after it began."""
    conn = connect()
    values(conn, "select 1")
    [later] = values(db, "select clock_timestamp()")
    record(db, order, "captured", 1000, conn=conn)
    conn.commit()
    assert values(db, "select created_at > %s from payment_events", later) == [True]
    assert values(db, "select updated_at > %s from vendor_orders", later) == [True]


def test_a_capture_pays_an_order_and_one_event_tells_it(db, order):
    before = row(db, "select updated_at from vendor_orders")["updated_at"]

    answer = record(db, order, "captured", 1000, "evt_1", occurred_at="2026-01-02T03:04:05Z", details={"charge": "ch"})

    assert money(db, order) == (1000, 0, 0, "settled", 1000)
    [event] = told(db)
    assert event | {"replayed": False} == answer
    assert answer["payment"] == {
        "provider": "acme",
        "provider_event_id": "evt_1",
        "kind": "captured",
        "amount_cents": 1000,
        "occurred_at": "2026-01-02T03:04:05.000000Z",
    }
    assert (answer["captured_cents"], answer["balance_due_cents"], answer["refund_due_cents"]) == (1000, 0, 0)
    assert answer["payment_intent"]["status"] == "settled"
    kept = row(db, "select * from payment_events")
    assert (kept["details"], kept["recorded_by"]) == ({"charge": "ch"}, db.info.user)
    after = row(db, "select updated_at from vendor_orders")["updated_at"]
    outbox = row(db, "select * from outbox_events where event_type = 'payment.changed'")
    assert before < after == kept["created_at"] == outbox["created_at"]
    assert outbox["aggregate_id"] == row(db, "select checkout_group_id from vendor_orders")["checkout_group_id"]


@pytest.mark.parametrize(
    ("events", "end"),
    [
        ([("authorized", 1000)], (1000, 0, "pending")),
        ([("authorized", 1000), ("voided", 1000)], (1000, 0, "unpaid")),
        ([("authorized", 1000), ("voided", 400)], (1000, 0, "pending")),
        ([("authorized", 1000), ("captured", 400)], (600, 0, "pending")),
        ([("authorized", 1000), ("captured", 400), ("voided", 600)], (600, 0, "pending")),
        ([("captured", 400), ("captured", 600)], (0, 0, "settled")),
        ([("captured", 1500)], (0, 500, "settled")),
        ([("captured", 1500), ("refunded", 500)], (0, 0, "settled")),
        ([("captured", 1000), ("refunded", 1000)], (0, 0, "settled")),
        ([("captured", 1000), ("disputed", 300)], (0, 0, "settled")),
        ([("captured", 1200), ("reversed", 100)], (0, 100, "settled")),
        ([("failed", 1000)], (1000, 0, "failed")),
        ([("failed", 0)], (1000, 0, "failed")),
        ([("failed", 1000), ("captured", 1000)], (0, 0, "settled")),
        ([("authorized", 1000), ("failed", 1000), ("voided", 1000)], (1000, 0, "failed")),
    ],
)
def test_what_is_due_follows_from_the_sums(db, failing, order, events, end):
    for number, (kind, amount) in enumerate(events):
        record(db, order, kind, amount, f"evt_{number}")

    assert money(db, order)[1:4] == end
    [view] = rows(db, "select * from order_money")
    assert (view["balance_due_cents"], view["refund_due_cents"], view["payment_status"]) == end
    assert view["events"] == len(events) == len(told(db))


STREAM = [
    ("authorized", 900, "a"),
    ("failed", 0, "f"),
    ("captured", 600, "c1"),
    ("captured", 300, "c2"),
    ("refunded", 50, "r"),
]


def test_events_twice_and_in_any_order_come_to_the_same_end(db, failing, add_cart, checkout_sql):
    """A webhook that delivers at least once, in whatever order: each permutation of five, one of them repeated.

    With any of them still missing, it is those that came which count, not the order in which they did.
    """
    seen = {}
    for number, stream in enumerate(itertools.permutations(STREAM)):
        cart = add_cart(vendors=1, lines=1, unit_price_cents=1000, stock=1)
        checkout_sql(db, cart)
        order = cart.groups[0].id
        heard = set()
        for kind, amount, event_id in stream:
            again = stream[number % 5]  # late, early, or for the second time
            for event in ((kind, amount, event_id), again):
                assert record(db, order, *event)["replayed"] is (event in heard)
                heard.add(event)
                assert seen.setdefault(frozenset(heard), money(db, order)) == money(db, order)
        assert values(db, "select count(*) from payment_events where order_id = %s", order) == [5]

    assert len(seen) == 2**5 - 1
    assert seen[frozenset(STREAM)] == (1000, 100, 0, "pending", 1000)
    assert values(db, "select count(*) from outbox_events where event_type = 'payment.changed'") == [5 * 120]


def test_a_charge_of_three_vendors_comes_to_the_same_end_in_every_order(db, add_cart, checkout_sql):
    """One event of the provider's, a record an order; each is heard twice."""
    ends = set()
    for deliveries in sorted(set(itertools.permutations([0, 0, 1, 1, 2, 2]))):
        cart = add_cart(vendors=3, lines=1, stock=1, items={(v, 0): {"unit_price_cents": 700 + v} for v in range(3)})
        checkout_sql(db, cart)
        replayed = [
            record(db, cart.groups[v].id, "captured", cart.groups[v].total_cents, "ch_1")["replayed"]
            for v in deliveries
        ]
        assert sorted(replayed) == [False] * 3 + [True] * 3
        ends.add(tuple(money(db, group.id) for group in cart.groups))

    assert ends == {tuple((700 + v, 0, 0, "settled", 700 + v) for v in range(3))}
    assert len(told(db)) == 90 * 3


def test_a_gap_is_filled_by_what_comes_late(db, order):
    """The refund before its capture, the capture before its authorisation: nothing is refused."""
    record(db, order, "refunded", 200)
    assert money(db, order)[1:4] == (1000, 0, "unpaid")
    assert {each["invariant"] for each in rows(db, "select * from checkout_audit()")} == {
        "refunds_are_of_what_was_captured"
    }
    record(db, order, "captured", 1200)
    assert rows(db, "select * from checkout_audit()") == []
    record(db, order, "authorized", 1000)
    assert {each["invariant"] for each in rows(db, "select * from checkout_audit()")} == {
        "captures_are_of_what_was_authorized"
    }
    record(db, order, "authorized", 200)

    assert money(db, order) == (1000, 0, 0, "settled", 1000)


def test_money_without_an_authorisation_is_right_where_that_was_given_up_whole(db, order):
    """Only one that stands says what can have been captured of it."""
    record(db, order, "authorized", 600)
    record(db, order, "captured", 1000)
    assert {each["invariant"] for each in rows(db, "select * from checkout_audit()")} == {
        "captures_are_of_what_was_authorized"
    }
    record(db, order, "voided", 600)
    assert rows(db, "select * from checkout_audit()") == []
    assert money(db, order) == (1000, 0, 0, "settled", 1000)


def test_the_same_event_again_changes_nothing(db, order, snapshot):
    first = record(db, order, "captured", 400, "evt", details={"a": 1}, occurred_at="2026-01-01Z")
    before = snapshot(db)

    again = record(db, order, "captured", 400, "evt", details={"a": 2})

    assert again == first | {"replayed": True}
    assert snapshot(db) == before


@pytest.mark.parametrize(("kind", "amount"), [("captured", 401), ("refunded", 400)])
def test_the_id_of_another_event_is_refused(db, order, nothing_written, kind, amount):
    record(db, order, "captured", 400, "evt")

    with nothing_written(), refused("OC006") as refusal:
        record(db, order, kind, amount, "evt")
    assert refusal.detail == {
        "order_id": str(order),
        "provider": "acme",
        "provider_event_id": "evt",
        "kind": "captured",
        "amount_cents": 400,
    }


def test_one_charge_pays_the_orders_of_three_vendors(db, add_cart, checkout_sql):
    cart = add_cart(vendors=3, lines=1, unit_price_cents=700)
    checkout_sql(db, cart)

    for group in cart.groups:
        assert record(db, group.id, "captured", group.total_cents, "ch_1")["replayed"] is False

    assert [money(db, group.id)[3] for group in cart.groups] == ["settled"] * 3
    assert len({event["checkout_group_id"] for event in told(db)}) == 1
    # the same id of two providers is two events
    assert record(db, cart.groups[0].id, "captured", 1, "ch_1", provider="other")["replayed"] is False


@pytest.mark.parametrize("status", ["canceled", "rejected", "closed", "delivered"])
def test_money_for_an_order_that_has_ended_is_written_and_is_to_be_given_back(db, order, status):
    db.execute("select vendor_order_cancel(%s, 'off')", (order,))
    db.execute("update vendor_orders set status = %s", (status,))

    record(db, order, "captured", 1000)

    assert money(db, order)[:3] == (0, 0, 1000)
    assert values(db, "select status::text from vendor_orders") == [status]


def test_a_cancel_after_a_payment_says_what_to_give_back(db, order):
    record(db, order, "captured", 1000)
    db.execute("select vendor_order_cancel(%s, 'off')", (order,))
    # whoever changes the total judges anew
    record(db, order, "failed", 0)

    assert money(db, order)[:4] == (0, 0, 1000, "settled")
    record(db, order, "refunded", 1000)
    assert money(db, order)[:3] == (0, 0, 0)


@pytest.mark.usefixtures("dsn")  # uses the values that it adds to an enum
@pytest.mark.parametrize("state", ["paid", "on_its_way"])
def test_a_state_of_the_host_stays(db, order, state):
    db.execute("alter type payment_status add value if not exists 'on_its_way'")
    db.execute("update payment_intents set status = %s", (state,))

    for kind in ("captured", "refunded", "failed"):
        record(db, order, kind, 1000)

    assert money(db, order) == (1000, 0, 0, state, 1000)


def test_a_failure_of_a_host_without_that_state_is_unpaid(db, order):
    record(db, order, "failed", 1000)

    assert money(db, order)[3] == "unpaid"


@pytest.mark.usefixtures("dsn")  # changes a type that a session may have planned with
def test_a_state_that_the_host_lacks_is_never_written_and_never_missed(db, order):
    db.execute("drop view order_money")
    db.execute("alter type payment_status rename to payment_status_of_four")
    db.execute("create type payment_status as enum ('unpaid', 'paid')")
    db.execute("alter table payment_intents alter status drop default")
    db.execute("alter table payment_intents alter status type payment_status using status::text::payment_status")
    record(db, order, "captured", 400)
    record(db, order, "captured", 600)
    assert money(db, order)[1:4] == (0, 0, "unpaid")


def test_rejected_is_a_failure_that_a_payment_ends(db, failing, order):
    db.execute("update payment_intents set status = 'rejected'")

    record(db, order, "captured", 1000)

    assert money(db, order)[3] == "settled"


def test_a_full_payment_ends_the_deadline_and_a_part_of_it_does_not(db, order):
    db.execute("update vendor_orders set expires_at = now() + interval '1 hour'")
    record(db, order, "captured", 999)
    assert values(db, "select expires_at is not null from vendor_orders") == [True]
    record(db, order, "captured", 1)
    assert values(db, "select expires_at is not null from vendor_orders") == [False]


def test_an_order_of_nobodys_has_its_money_recorded_too(db):
    """An order of the host's own: no lines of ours, no currency, no intent."""
    order, group = uuid4(), uuid4()
    db.execute(
        """
        insert into vendor_orders (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents,
                                   balance_due_cents)
        values (%s, %s, gen_random_uuid(), gen_random_uuid(), 500, 500, 500)
        """,
        (order, group),
    )
    answer = record(db, order, "captured", 600, currency="EUR")

    assert (answer["currency"], answer["balance_due_cents"], answer["refund_due_cents"]) == ("EUR", 0, 100)
    assert answer["payment_intent"] is None
    with refused("OC005") as refusal:
        record(db, order, "captured", 700, currency="USD")
    assert "must be EUR" in refusal.message, "its payments are of one currency"


@pytest.mark.breaks_invariants  # the orders have another currency than their carts
@pytest.mark.parametrize("currency", ["usd", "Usd ", "USD"])
def test_a_currency_that_the_host_writes_in_its_own_way_is_the_same(db, order, nothing_written, currency):
    db.execute("update vendor_orders set currency = %s", (currency,))
    assert record(db, order, "captured", 1000)["currency"] == "USD"
    assert [data["currency"] for data in told(db)] == ["USD"]
    with nothing_written(), refused("OC005"):
        record(db, order, "captured", 1, currency="EUR")


BAD = [
    ("provider", ["", "a b", "x" * 101, "é", None]),
    ("provider_event_id", ["", "a b", "x" * 256, "\n", None]),
    ("kind", ["", "Captured", "paid", None]),
    ("amount_cents", [0, -1, None]),
    ("currency", ["usd", "", "USDX", "EUR", None]),
    ("occurred_at", ["infinity", "-infinity", "10000-01-01Z"]),
    ("details", [[], {"a": "x" * 16384}, {"a": [[[[[[[[1]]]]]]]]}]),
    ("order_id", [None]),
]


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, bad in BAD for value in bad])
def test_what_is_malformed_is_refused(db, order, nothing_written, field, value):
    with nothing_written(), refused("OC005") as refusal:
        record(db, order, "captured", 1, **{"provider_event_id": "e", field: value})
    assert refusal.detail["field"] == field


@pytest.mark.parametrize("amount", [-1, None])
def test_a_failure_has_no_amount_below_zero(db, order, nothing_written, amount):
    with nothing_written(), refused("OC005"):
        record(db, order, "failed", amount)


def test_an_order_that_is_not_there_is_refused(db, nothing_written):
    with nothing_written(), refused("OC011") as refusal:
        record(db, UUID(int=9), "captured", 1)
    assert refusal.detail == {"order_id": str(UUID(int=9))}


def test_an_erased_person_is_in_no_details(db, order):
    record(db, order, "captured", 1000, details={"name": "Ann"})
    [cart] = values(db, "select cart_id from vendor_orders")

    db.execute("select checkout_erase(%s)", (cart,))

    assert values(db, "select details from payment_events") == [None]
    assert values(db, "select checkout_erase(%s)", cart) == [0]


def test_money_that_a_host_notes_itself_is_shown(db, order):
    db.execute("update payment_intents set status = 'paid'")

    assert values(db, "select captured_cents from order_money") == [1000]
    assert values(db, "select refund_due_cents from order_money") == [None]


def test_details_of_16_kilobytes_are_kept(db, order):
    details = {"a": "x" * (16384 - 9)}
    record(db, order, "captured", 1, details=details)

    assert values(db, "select details from payment_events") == [details]
    assert "xxx" not in str(told(db))


def test_large_sums_are_exact_and_what_64_bits_do_not_hold_is_refused(db, order, nothing_written):
    for number in range(2):
        record(db, order, "captured", 2**62, f"evt_{number}")
    assert money(db, order)[:3] == (1000, 0, 2**63 - 1000)
    with nothing_written(), refused("OC005") as refusal:
        record(db, order, "captured", 2**62, "evt_3")
    assert refusal.detail["field"] == "amount_cents"
    # the sums themselves are larger than that
    for number in range(2):
        record(db, order, "refunded", 2**62, f"back_{number}")
    record(db, order, "captured", 2**62, "evt_3")
    assert money(db, order)[:3] == (1000, 0, 2**62 - 1000)
    assert told(db)[-1]["captured_cents"] == 3 * 2**62


def test_two_deliveries_of_one_event_are_one(db, connect, order):
    first, second = connect(), connect()
    record(db, order, "captured", 1000, "evt", conn=first)
    with blocked(db, lambda conn: record(db, order, "captured", 1000, "evt", conn=conn), second) as waiting:
        first.commit()
    second.commit()

    assert waiting.result()["replayed"] is True
    assert len(told(db)) == 1
    assert money(db, order)[:3] == (1000, 0, 0)


def test_two_events_of_one_order_count_both(db, connect, order):
    first, second = connect(), connect()
    record(db, order, "captured", 400, conn=first)
    with blocked(db, lambda conn: record(db, order, "captured", 600, conn=conn), second) as waiting:
        first.commit()
    second.commit()

    assert waiting.result()["payment_intent"]["status"] == "settled"
    assert money(db, order)[:3] == (1000, 0, 0)


def test_a_payment_waits_for_a_host_that_writes_the_intent_and_leaves_paid_alone(db, connect, order):
    """The intent is locked before its state is judged."""
    host, ours = connect(), connect()
    host.execute("update payment_intents set status = 'paid'")
    with blocked(db, lambda conn: record(db, order, "captured", 1000, conn=conn), ours) as waiting:
        host.commit()
    ours.commit()

    assert waiting.result()["payment_intent"]["status"] == "paid" == money(db, order)[3]


def test_many_deliveries_at_once_add_up(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=3, lines=1, unit_price_cents=1000)
    checkout_sql(db, cart)
    connections = [connect(autocommit=True) for _ in range(6)]

    def deliver(conn):
        return lambda: [
            record(db, group.id, "captured", 100, f"evt_{number}", conn=conn)
            for number in range(10)
            for group in cart.groups
        ]

    ended = at_once(*[deliver(conn) for conn in connections])

    assert [e for e in ended if isinstance(e, Exception)] == []
    assert [money(db, group.id)[:4] for group in cart.groups] == [(1000, 0, 0, "settled")] * 3
    assert len(told(db)) == 30


def test_under_repeatable_read_a_payment_that_came_late_says_retry(db, connect, order):
    late = connect()
    late.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    late.execute("select from vendor_orders")
    record(db, order, "captured", 1)

    with pytest.raises(psycopg.errors.SerializationFailure):
        record(db, order, "captured", 2, conn=late)


def test_a_clock_that_stepped_back_keeps_the_order_of_events(db, order):
    db.execute("update vendor_orders set updated_at = now() + interval '1 hour'")
    last = row(db, "select updated_at from vendor_orders")["updated_at"]

    for number in range(3):
        record(db, order, "captured", 1, f"evt_{number}")

    times = values(db, "select created_at from outbox_events where event_type = 'payment.changed' order by created_at")
    assert times == [last + timedelta(microseconds=n) for n in (1, 2, 3)]


def test_events_keep_their_order_where_a_trigger_dates_the_orders(db, connect, order):
    """By now(), as many a host does: the beginning of a transaction that may have waited for the one before."""
    db.execute(
        "create function dated() returns trigger language plpgsql as 'begin new.updated_at := now(); return new; end'"
    )
    db.execute("create trigger dated before update on vendor_orders for each row execute function dated()")
    with connect() as early:
        early.execute("select now()")
        record(db, order, "authorized", 1000)
        record(db, order, "captured", 1000, conn=early)
    assert [data["payment"]["kind"] for data in told(db)] == ["authorized", "captured"]


@pytest.mark.parametrize("table", ["payment_events", "vendor_orders", "payment_intents", "outbox_events"])
def test_a_trigger_that_keeps_a_row_out_is_said(db, order, nothing_written, table):
    event = "update" if table in ("vendor_orders", "payment_intents") else "insert"
    db.execute("create function no_row() returns trigger language plpgsql as 'begin return null; end'")
    db.execute(f"create trigger no_row before {event} on {table} for each row execute function no_row()")

    with nothing_written(), refused("OC007") as refusal:
        record(db, order, "captured", 1000)
    assert refusal.detail["table"] == table


def test_in_python(db, order):
    shop = pycheckout.Checkout(db)
    options = {
        "provider": "acme",
        "provider_event_id": "evt",
        "kind": "captured",
        "amount_cents": 400,
        "currency": "USD",
    }

    change = shop.payments.record(order, **options, details={"charge": "ch_1"})

    assert (change.order_id, change.balance_due_cents, change.captured_cents) == (order, 600, 400)
    assert (change.payment.kind, change.payment_intent.status, change.replayed) == ("captured", "pending", False)
    assert shop.payments.record(order, **options).replayed is True
    with pytest.raises(pycheckout.IdempotencyKeyReused):
        shop.payments.record(order, **(options | {"amount_cents": 401}))
    with pytest.raises(pycheckout.OrderNotFound):
        shop.payments.record(uuid4(), **options)
