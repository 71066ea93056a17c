"""What a relay asks of the database: claim, acknowledge, fail, replay, purge. The brokers are in test_relay.py."""

from collections import defaultdict
from uuid import UUID, uuid4

import pytest
from outbox import ack, claim, fail, ids, make_due, publish_all

from checks import refused, row, rows, values
from races import at_once, blocked, wait_until_gone

UNKNOWN = UUID("e0000000-0000-4000-8000-000000000000")


# Claiming


def test_a_conversions_events_are_claimed_one_after_the_other(db, add_cart, checkout_sql):
    checkout_sql(db, add_cart())

    [first] = claim(db)
    ack(db, [first])
    [second] = claim(db)
    ack(db, [second])

    assert [first["event_type"], second["event_type"]] == ["checkout.vendor_orders_created", "checkout.converted"]
    assert first["payload"]["event_id"] == str(first["id"])
    assert claim(db) == []
    assert values(db, "select count(*) from outbox_events where published_at >= created_at and attempt_count = 0") == [
        2
    ]


def test_the_longest_due_come_first_and_no_more_than_asked_for(db, emit):
    events = [emit(uuid4()) for _ in range(5)]

    assert ids(claim(db, 3)) == events[:3]


def test_two_relays_share_the_work_and_claim_nothing_twice(db, connect, emit):
    aggregates = [uuid4() for _ in range(6)]
    older = [emit(aggregate) for aggregate in aggregates]
    younger = [emit(aggregate) for aggregate in aggregates]
    first, second = connect(), connect()

    one = claim(first, 4)
    other = claim(second)

    assert ids(one) == older[:4]
    assert ids(other) == older[4:], "no younger event of an aggregate that the first relay holds"
    assert claim(connect()) == []
    ack(first, one)
    first.commit()
    assert set(ids(claim(second))) == set(older[4:] + younger[:4]), "what is held already, and what is free now"


def test_four_relays_at_once_send_each_event_once_and_each_aggregate_in_order(db, connect, emit):
    aggregates = [uuid4() for _ in range(10)]
    emitted = {aggregate: [emit(aggregate) for _ in range(8)] for aggregate in aggregates}
    sent = []

    def relay():
        conn = connect()
        while values(conn, "select exists (select from outbox_events where published_at is null)") == [True]:
            for event in claim(conn, 3):
                sent.append((event["aggregate_id"], event["id"]))
                assert ack(conn, [event]) == 1
            conn.commit()

    assert at_once(*[relay] * 4) == [None] * 4

    found = defaultdict(list)
    for aggregate, event in sent:
        found[aggregate].append(event)
    assert found == emitted


def test_a_killed_relays_claim_dies_with_its_session(db, connect, emit):
    """JasperFx/wolverine#565: the rest was sent more than an hour later."""
    event = emit(uuid4())
    relay = connect()
    assert ids(claim(relay)) == [event]
    assert claim(db) == []

    db.execute("select pg_terminate_backend(%s)", (relay.info.backend_pid,))
    wait_until_gone(db, relay.info.backend_pid)

    [again] = claim(db)
    assert (again["id"], again["attempt_count"]) == (event, 0)


def test_an_event_that_commits_late_is_delivered_all_the_same(db, connect, add_cart, checkout_sql, emit):
    """kamu-data/kamu-cli#1398: a reader that asks for what is greater than its last id loses it."""
    slow = connect()
    early = emit(uuid4(), conn=slow)
    checkout_sql(slow, add_cart())
    late = emit(uuid4())
    assert ids(publish_all(db)) == [late]

    slow.commit()

    first, *conversion = publish_all(db)
    assert first["id"] == early
    assert [event["event_type"] for event in conversion] == ["checkout.vendor_orders_created", "checkout.converted"]


def test_a_checkout_that_is_rolled_back_sends_nothing(db, connect, add_cart, checkout_sql):
    conn = connect()
    checkout_sql(conn, add_cart())
    assert len(claim(conn)) == 1, "it is there, for this transaction"

    conn.rollback()

    assert claim(db) == []


@pytest.mark.parametrize("enums", [False, True])
def test_the_hosts_own_events_stay_the_hosts(db, add_cart, checkout_sql, enums):
    """Neither claimed nor acknowledged, replayed or purged, nor in the way of ours; unless the host says so."""
    if enums:
        db.execute("""
            drop view checkout_overview, outbox_backlog;
            drop index idx_outbox_events_conversion;
            create type event_type_enum as enum
              ('order_created', 'checkout.vendor_orders_created', 'checkout.converted');
            alter table outbox_events alter event_type type event_type_enum using event_type::event_type_enum
        """)
    answer = checkout_sql(db, add_cart())
    hosts = [
        *values(db, HOSTS_EVENT, answer["checkout_group_id"], None),
        *values(db, HOSTS_EVENT, answer["checkout_group_id"], "2020-01-02"),
    ]

    sent = publish_all(db)

    assert [event["event_type"] for event in sent] == ["checkout.vendor_orders_created", "checkout.converted"]
    assert values(db, "select outbox_ack(%s)", hosts) == [0]
    for event in hosts:
        with refused("OC005"):
            db.execute("select outbox_replay(%s)", (event,))
    assert values(db, "select outbox_purge('1 year')") == [0]

    db.execute("update outbox_events set next_attempt_at = created_at where id = %s", (hosts[0],))
    assert ids(claim(db)) == [hosts[0]]


HOSTS_EVENT = """
    insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, created_at, published_at)
    values ('order_created', 'checkout_group', %s, '{}', '2020-01-01', %s) returning id
"""


# Failing


def test_a_failed_event_backs_off_and_keeps_what_went_wrong(db, emit):
    emit(uuid4())
    waits = []
    for attempt in range(1, 12):
        make_due(db)
        [event] = claim(db)
        assert event["attempt_count"] == attempt - 1
        answer = fail(db, event, f"refused, attempt {attempt}")
        assert (answer["attempt_count"], answer["parked"]) == (attempt, False)
        assert claim(db) == []
        waits += values(
            db, "select round(extract(epoch from next_attempt_at - clock_timestamp()))::int from outbox_events"
        )
        assert values(db, "select last_error from outbox_events") == [f"refused, attempt {attempt}"]

    assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048]


def test_back_off_is_an_hour_at_most(db, emit):
    emit(uuid4())
    db.execute("update outbox_events set attempt_count = 2000000000")

    answer = fail(db, claim(db)[0], max_attempts=2147483647)

    assert values(db, "select %s::timestamptz - clock_timestamp() <= interval '1 hour'", answer["next_attempt_at"]) == [
        True
    ]


def test_a_poison_event_is_parked_while_the_others_flow(db, emit):
    """Pulsefy/Lumenpulse#1200: one that always fails was retried for ever."""
    poisoned, healthy = uuid4(), uuid4()
    poison, after = emit(poisoned), emit(poisoned)
    others = [emit(healthy) for _ in range(3)]

    sent, attempts = [], 0
    for _ in range(10):
        for event in claim(db):
            if event["id"] == poison:
                attempts += 1
                fail(db, event, "message too large", max_attempts=4)
                assert after not in sent, "the younger one waits while the older backs off"
            else:
                ack(db, [event])
                sent.append(event["id"])
        make_due(db)

    assert attempts == 4
    assert sent == [*others, after]
    [letter] = rows(db, "select * from outbox_dead_letters")
    assert (letter["event_id"], letter["attempt_count"], letter["error"]) == (poison, 4, "message too large")
    assert (letter["aggregate_id"], letter["event_type"]) == (poisoned, "vendor_order.canceled")
    assert row(db, "select attempt_count, last_error, published_at from outbox_events where id = %s", poison) == {
        "attempt_count": 4,
        "last_error": "message too large",
        "published_at": None,
    }


def test_a_parked_event_is_replayed_under_its_id_before_the_younger_ones(db, emit):
    aggregate = uuid4()
    poison = emit(aggregate)
    fail(db, claim(db)[0], max_attempts=1)
    younger = emit(aggregate)
    assert ids(claim(db)) == [younger]

    assert values(db, "select outbox_replay(event_id) from outbox_dead_letters") == ["parked"]

    [again] = claim(db)
    assert (again["id"], again["attempt_count"]) == (poison, 0)
    assert rows(db, "select * from outbox_dead_letters") == []
    ack(db, [again])
    assert ids(claim(db)) == [younger]


def test_a_published_event_is_replayed_and_a_waiting_one_is_due_at_once(db, emit):
    event = emit(uuid4())
    ack(db, claim(db))

    assert values(db, "select outbox_replay(%s)", event) == ["published"]
    fail(db, claim(db)[0])
    assert claim(db) == []
    assert values(db, "select outbox_replay(%s)", event) == ["waiting"]
    assert ids(claim(db)) == [event]


def test_a_replay_waits_for_the_relay_that_has_the_event(db, connect, emit):
    """And says what became of it there: it was sent, and is sent again."""
    event = emit(uuid4())
    relay, operator = connect(), connect(autocommit=True)
    ack(relay, claim(relay))

    with blocked(db, values, operator, "select outbox_replay(%s)", event) as waiting:
        relay.commit()

    assert waiting.result() == ["published"]
    assert ids(claim(db)) == [event]


def test_a_parked_event_can_be_given_up(db, emit):
    emit(uuid4())
    [event] = claim(db)
    fail(db, event, max_attempts=1)

    assert ack(db, [event]) == 1

    assert rows(db, "select * from outbox_dead_letters") == []
    assert claim(db) == []


def test_an_event_that_was_made_due_by_hand_can_be_parked_again(db, emit):
    emit(uuid4())
    fail(db, claim(db)[0], max_attempts=1)
    db.execute("update outbox_events set next_attempt_at = now()")

    fail(db, claim(db)[0], "again", max_attempts=1)

    assert values(db, "select error from outbox_dead_letters") == ["again"]


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ("outbox_ack(array[%(id)s]::uuid[])", "select published_at from outbox_events"),
        ("outbox_fail(%(id)s, 'no route')", "select next_attempt_at - interval '2 seconds' from outbox_events"),
        ("outbox_fail(%(id)s, 'no route', 1)", "select parked_at from outbox_dead_letters"),
        ("outbox_replay(%(id)s)", "select next_attempt_at from outbox_events"),
    ],
)
def test_the_time_is_that_of_the_call_not_of_its_transaction(connect, emit, call, written):
    """A relay claims first, and publishes in the same transaction: its beginning may be long ago."""
    emit(uuid4())
    conn = connect()
    [event] = claim(conn)
    [claimed_at] = values(conn, "select clock_timestamp()")

    conn.execute(f"select {call}", event)

    assert values(conn, written)[0] > claimed_at


def test_a_purge_is_noted_at_its_own_time(db, connect, emit):
    emit(uuid4())
    ack(db, claim(db))
    conn = connect()
    [began] = values(conn, "select clock_timestamp()")

    assert values(conn, "select outbox_purge('0')") == [1]

    assert values(conn, "select purged_at from outbox_purges")[0] > began


def test_acknowledging_again_changes_nothing(db, emit):
    emit(uuid4())
    events = claim(db)
    assert ack(db, events) == 1
    before = rows(db, "select * from outbox_events")

    assert ack(db, events) == 0
    assert values(db, "select outbox_ack(array[%s, null]::uuid[])", UNKNOWN) == [0]

    assert rows(db, "select * from outbox_events") == before


def test_a_long_error_is_cut(db, emit):
    emit(uuid4())
    fail(db, claim(db)[0], "x" * 5_000_000)

    assert values(db, "select length(last_error) from outbox_events") == [1000]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("outbox_claim(null)", "batch"),
        ("outbox_claim(0)", "batch"),
        ("outbox_claim(-1)", "batch"),
        ("outbox_ack(null)", "ids"),
        (f"outbox_fail('{UNKNOWN}', 'x')", "id"),
        ("outbox_fail(null, 'x')", "id"),
        (f"outbox_fail('{UNKNOWN}', null)", "error"),
        (f"outbox_fail('{UNKNOWN}', '')", "error"),
        (f"outbox_fail('{UNKNOWN}', 'x', 0)", "max_attempts"),
        (f"outbox_fail('{UNKNOWN}', 'x', null)", "max_attempts"),
        (f"outbox_replay('{UNKNOWN}')", "id"),
        ("outbox_replay(null)", "id"),
        ("outbox_purge(null)", "older_than"),
        ("outbox_purge('-1 day')", "older_than"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(db, emit, snapshot, call, field):
    emit(uuid4())
    before = snapshot(db)

    with refused("OC005") as refusal:
        db.execute(f"select {call}")

    assert refusal.detail["field"] == field
    assert snapshot(db) == before


def test_a_published_event_cannot_fail(db, emit):
    emit(uuid4())
    events = claim(db)
    ack(db, events)

    with refused("OC005"):
        fail(db, events[0])


# Purging


def test_the_purge_deletes_what_was_published_and_leaves_the_rest(db, add_cart, checkout_sql, emit):
    checkout_sql(db, add_cart())
    publish_all(db)
    waiting, parked = emit(uuid4()), emit(uuid4())
    fail(db, next(event for event in claim(db) if event["id"] == parked), max_attempts=1)
    assert values(db, "select outbox_purge('1 hour')") == [0]
    assert rows(db, "select * from outbox_purges") == [], "nothing was deleted, nothing is noted"

    assert values(db, "select outbox_purge('0')") == [2]

    assert set(values(db, "select id from outbox_events")) == {waiting, parked}
    assert values(db, "select deleted from outbox_purges") == [2]
    assert rows(db, "select * from checkout_audit()") == []


@pytest.mark.breaks_invariants
def test_the_audit_knows_what_was_purged_and_misses_the_rest(db, add_cart, checkout_sql):
    checkout_sql(db, add_cart())
    publish_all(db)
    db.execute("select outbox_purge('0')")
    answer = checkout_sql(db, add_cart())
    assert rows(db, "select * from checkout_audit()") == []

    db.execute("delete from outbox_events where event_type = 'checkout.converted'")

    [broken] = rows(db, "select * from checkout_audit()")
    assert broken == {
        "invariant": "two_events_a_conversion",
        "id": answer["checkout_group_id"],
        "expected": "2",
        "found": "1",
    }


@pytest.mark.breaks_invariants
def test_the_audit_still_sees_too_many_events_where_the_purge_went(db, add_cart, checkout_sql):
    checkout_sql(db, add_cart())
    db.execute(
        "insert into outbox_purges (purged_before, deleted, purged_at) values (now() + interval '1 hour', 1, now())"
    )
    db.execute("drop index idx_outbox_events_conversion")
    db.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
        " select event_type, aggregate_type, aggregate_id, payload from outbox_events"
    )

    # the copies contradict their payloads as well
    [broken] = rows(db, "select * from checkout_audit() where invariant = 'two_events_a_conversion'")
    assert (broken["expected"], broken["found"]) == ("at most 2", "4")


def test_an_event_that_was_published_by_a_clock_in_the_past_is_judged_by_its_creation(db, add_cart, checkout_sql):
    checkout_sql(db, add_cart())
    publish_all(db)
    db.execute("update outbox_events set published_at = '2020-01-01'")

    assert values(db, "select outbox_purge('1 hour')") == [0]


# Size


def buffers(conn, query):
    """Pages that a query touches, in the cache or out of it."""
    [(plan,)] = conn.execute(f"explain (analyze, buffers, format json) {query}").fetchall()
    top = plan[0]["Plan"]
    return top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def fill(conn, count):
    conn.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)"
        " select 'vendor_order.canceled', 'vendor_order', gen_random_uuid(), '{}', clock_timestamp(), clock_timestamp()"
        "   from generate_series(1, %s)",
        (count,),
    )


def poll(conn):
    """Pages that a claim of 100 events touches, once a first one has marked what is dead."""
    for _ in range(2):
        touched = buffers(conn, "select * from outbox_claim(100)")
        conn.rollback()
    return touched


def pages(conn, relation):
    [count] = values(conn, "select pg_relation_size(%s) / current_setting('block_size')::int", relation)
    return int(count)


def test_the_poll_stays_flat_with_100000_sent_rows_and_a_purge_under_way(db, connect):
    relay, purge = connect(), connect()
    fill(db, 200)
    small = poll(relay)

    publish_all(db)
    db.execute("vacuum analyze outbox_events")  # in an idle hour: the statistics know of no backlog
    fill(db, 100_000)
    assert poll(relay) < 2 * small, "what a poll reads is what it claims, not the backlog"

    db.execute("select outbox_ack(array_agg(id)) from outbox_events where published_at is null")
    fill(db, 200)
    assert values(purge, "select outbox_purge('0')") == [100_200]
    assert pages(db, "outbox_events") > 3000
    assert poll(relay) < 2 * small + pages(db, "idx_outbox_events_due"), "dead entries of the index, but no sent row"

    purge.commit()
    db.execute("vacuum outbox_events")  # as autovacuum does
    assert poll(relay) < 2 * small
    assert len(claim(relay)) == 100
