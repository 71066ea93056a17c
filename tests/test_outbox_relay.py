"""What a relay asks of the database: claim, extend, acknowledge, fail, release, replay, discard, purge.

The brokers are in test_relay.py.
"""

from collections import defaultdict
from uuid import UUID, uuid4

import psycopg
import pytest
from outbox import ack, claim, end_leases, extend, fail, ids, make_due, publish_all, release

from checks import blocks_again, refused, row, rows, vacuum, values
from races import at_once, blocked, paused_at

UNKNOWN = UUID("e0000000-0000-4000-8000-000000000000")


# Claiming


def test_a_conversions_events_are_claimed_as_a_run_in_order(db, add_cart, checkout_sql):
    checkout_sql(db, add_cart())

    events = claim(db)

    assert [event["event_type"] for event in events] == ["checkout.vendor_orders_created", "checkout.converted"]
    assert all(event["payload"]["event_id"] == str(event["id"]) for event in events)
    assert len({(event["claim_id"], event["claimed_until"]) for event in events}) == 1
    assert claim(db) == []
    assert ack(db, events) == 2
    assert values(db, "select count(*) from outbox_events where published_at >= created_at and attempt_count = 0") == [
        2
    ]


def test_the_longest_due_come_first_and_no_more_than_asked_for(db, emit):
    events = [emit(uuid4()) for _ in range(5)]

    assert ids(claim(db, 3)) == events[:3]


def test_the_longest_due_come_first_in_runs(db, emit):
    """What is due for long brings the younger events of its aggregate with it."""
    a, b, c = uuid4(), uuid4(), uuid4()
    events = [emit(aggregate) for aggregate in (a, b, a, c, a)]

    assert ids(claim(db, 4)) == [events[place] for place in (0, 2, 4, 1)]


def test_a_claim_leaves_no_lock_and_no_open_transaction(db, connect, emit):
    """taskcluster#2577: a broker is asked long after that."""
    event = emit(uuid4())
    relay = connect(autocommit=True)
    [claimed] = claim(relay)

    assert values(db, "select state from pg_stat_activity where pid = %s", relay.info.backend_pid) == ["idle"]
    assert values(db, "select id from outbox_events where id = %s for update nowait", event) == [event]
    lease = "select claimed_until - clock_timestamp() between interval '25 seconds' and interval '30 seconds'"
    assert values(db, f"{lease} and claim_id = %s from outbox_events", claimed["claim_id"]) == [True]


def test_a_leased_aggregate_is_nobody_elses_until_its_lease_ends(db, emit):
    first, second = uuid4(), uuid4()
    events = [emit(first), emit(first), emit(second)]
    assert ids(claim(db, 1)) == events[:1]
    younger = emit(first)

    assert ids(claim(db)) == events[2:], "not even events that the lease does not cover"
    end_leases(db)

    assert ids(claim(db)) in ([*events[:2], younger, events[2]], [events[2], *events[:2], younger])


def test_what_a_dead_relay_held_comes_back_in_order_and_before_what_is_due(db, emit):
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(3)]
    dead = claim(db, 2)
    end_leases(db)
    other = emit(uuid4())
    db.execute("update outbox_events set next_attempt_at = '2020-01-01' where id = %s", (other,))

    again = claim(db)

    assert ids(again) == [*events, other]
    assert again[0]["claim_id"] != dead[0]["claim_id"]
    assert [event["attempt_count"] for event in again] == [0, 0, 0, 0]


def test_of_what_a_dead_relay_held_the_longest_due_comes_first(db, emit):
    events = [emit(uuid4()) for _ in range(3)]
    claim(db)
    end_leases(db)

    assert ids(claim(db, 2)) == events[:2]


def test_several_dead_relays_claims_come_back(db, emit):
    events = {emit(uuid4()) for _ in range(6)}
    for _ in range(3):
        assert len(claim(db, 1)) == 1
    alive = claim(db, 1, "1 day")
    db.execute("update outbox_events set claimed_until = '2020-01-01' where claim_id <> %s", (alive[0]["claim_id"],))

    assert set(ids(claim(db))) == events - set(ids(alive))
    assert claim(db) == []


def test_a_lease_is_extended_for_what_is_left_of_a_claim(db, emit):
    aggregate = uuid4()
    [emit(aggregate) for _ in range(3)]
    events = claim(db)
    ack(db, events[:1])
    end_leases(db)

    assert extend(db, events, "1 hour") == 2

    assert claim(db) == []
    left = (
        "select claimed_until - clock_timestamp() > interval '59 minutes' from outbox_events where published_at is null"
    )
    assert values(db, left) == [True, True]
    assert extend(db, events, "1 second") == 2
    assert values(db, left) == [True, True], "a lease never gets shorter"


def test_an_extension_keeps_nothing_that_another_took_over(db, emit):
    emit(uuid4())
    late = claim(db)
    end_leases(db)
    [taken] = claim(db)

    assert extend(db, late, "1 hour") == 0

    assert values(db, "select claimed_until from outbox_events") == [taken["claimed_until"]]


def test_a_mark_counts_after_the_lease_has_ended(db, emit):
    """Or a broker that is slower than the lease would be sent the same for ever."""
    emit(uuid4()), emit(uuid4())
    slow = claim(db)
    end_leases(db)

    assert ack(db, slow[:1]) == 1
    assert fail(db, slow[1])["attempt_count"] == 1

    assert claim(db) == []


def test_a_mark_counts_no_more_once_another_has_the_event(db, emit):
    emit(uuid4())
    slow = claim(db)
    end_leases(db)
    taken = claim(db)

    assert ack(db, slow) == 0
    assert release(db, slow) == 0
    with refused("OC005"):
        fail(db, slow[0])

    assert claim(db) == []
    assert ack(db, taken) == 1


def test_what_is_given_back_is_due_at_once_without_an_attempt(db, emit):
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(3)]
    claimed = claim(db)
    ack(db, claimed[:1])

    assert release(db, claimed) == 2

    again = claim(db)
    assert ids(again) == events[1:]
    assert {event["attempt_count"] for event in again} == {0}


def test_a_claim_that_is_too_small_for_a_run_takes_its_beginning(db, emit):
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(5)]

    first = claim(db, 2)
    assert ids(first) == events[:2]
    ack(db, first)
    assert ids(claim(db)) == events[2:]


def test_two_relays_share_the_work_and_claim_nothing_twice(connect, emit):
    aggregates = [uuid4() for _ in range(6)]
    older = [emit(aggregate) for aggregate in aggregates]
    first, second = connect(), connect()

    one = claim(first, 4)
    other = claim(second)

    assert ids(one) == older[:4]
    assert ids(other) == older[4:], "what another is claiming is passed over, and nobody waits"
    younger = [emit(aggregate) for aggregate in aggregates]
    assert claim(connect()) == []
    ack(first, one)
    first.commit()
    assert set(ids(claim(second))) == set(younger[:4]), "what is free now, and no younger event of what is leased"


def test_an_event_that_somebody_has_locked_is_left_for_the_next_claim(db, connect, emit):
    """Such as an erasure: in the middle of a run it would leave a gap, at its head the order would be lost."""
    aggregate, other = uuid4(), uuid4()
    events = [emit(aggregate) for _ in range(3)]
    free = emit(other)
    for locked in events:
        holder = connect()
        holder.execute("select from outbox_events where id = %s for update", (locked,))

        claimed = claim(db)
        assert ids(claimed) == [free], f"event {events.index(locked)} of a run"

        release(db, claimed)
        holder.rollback()
    assert ids(claim(db)) == [*events, free]


def test_a_claim_and_a_mark_of_the_same_run_never_take_it_both(db, connect, emit):
    """The lease has ended: who was slow marks, while another is taking it over."""
    aggregate = uuid4()
    [emit(aggregate) for _ in range(3)]
    slow = claim(db)
    end_leases(db)
    other, marking = connect(), connect()
    taken = claim(other)
    assert ids(taken) == ids(slow)

    with blocked(db, ack, marking, slow) as waiting:
        other.commit()

    assert waiting.result() == 0
    marking.rollback()
    assert ack(db, taken) == 3


def test_those_who_mark_the_same_events_queue_in_one_order(db, connect, emit):
    events = sorted(emit(uuid4()) for _ in range(3))
    claimed = claim(db)
    for mark in (ack, release, extend):
        holder, marking = connect(), connect()
        holder.execute("select from outbox_events where id = %s for update", (events[0],))

        with blocked(db, mark, marking, claimed) as waiting:
            free = values(db, "select id from outbox_events order by id for update skip locked")
            assert free == events[1:], mark.__name__
            holder.rollback()

        assert waiting.result() == 3
        marking.rollback()


def test_a_mark_waits_for_whoever_has_the_event_and_then_looks_again(db, connect, emit):
    """A refusal of an event that an operator discards just now."""
    event = emit(uuid4())
    [claimed] = claim(db)
    operator, relay = connect(), connect(autocommit=True)
    operator.execute("select outbox_discard(%s, 'sold twice')", (event,))

    with blocked(db, fail, relay, claimed) as waiting:
        operator.commit()

    with refused("OC005"):
        waiting.result()
    assert row(db, "select attempt_count, last_error from outbox_events") == {
        "attempt_count": 0,
        "last_error": "discarded: sold twice",
    }


def test_four_relays_at_once_send_each_event_once_and_each_aggregate_in_order(connect, emit):
    aggregates = [uuid4() for _ in range(10)]
    emitted = {aggregate: [emit(aggregate) for _ in range(8)] for aggregate in aggregates}
    sent = []

    def relay():
        conn = connect(autocommit=True)
        while values(conn, "select exists (select from outbox_events where published_at is null)") == [True]:
            events = claim(conn, 3)
            sent.extend((event["aggregate_id"], event["id"]) for event in events)
            assert ack(conn, events) == len(events)

    assert at_once(*[relay] * 4) == [None] * 4

    found = defaultdict(list)
    for aggregate, event in sent:
        found[aggregate].append(event)
    assert found == emitted


def test_leases_that_end_all_the_time_lose_nothing_and_first_deliveries_keep_their_order(connect, emit):
    """Relays that die in the middle of a run, again and again; one that is slow marks what it still may."""
    aggregates = [uuid4() for _ in range(5)]
    emitted = {aggregate: [emit(aggregate) for _ in range(12)] for aggregate in aggregates}
    sent = []

    def relay(dies_after):
        conn = connect(autocommit=True)
        while values(conn, "select exists (select from outbox_events where published_at is null)") == [True]:
            events = claim(conn, 4, "20 milliseconds")[:dies_after]
            sent.extend((event["aggregate_id"], event["id"]) for event in events)
            ack(conn, events[: dies_after - 1])

    assert at_once(*[lambda dies=dies: relay(dies) for dies in (2, 3, 4)]) == [None] * 3

    first = defaultdict(list)
    for aggregate, event in sent:
        if event not in first[aggregate]:
            first[aggregate].append(event)
    assert first == emitted


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


def test_an_older_event_that_commits_while_younger_ones_are_leased_waits_for_the_lease(db, connect, emit):
    aggregate = uuid4()
    slow = connect()
    early = [emit(aggregate, conn=slow) for _ in range(3)]
    younger = emit(aggregate)
    leased = claim(db)
    assert ids(leased) == [younger]
    slow.commit()

    assert claim(db, 1) == [], "an aggregate with a lease is nobody else's"

    ack(db, leased)
    assert ids(claim(db)) == early


def test_an_older_event_that_commits_while_its_aggregate_is_claimed_is_not_claimed_beside_it(db, connect, emit):
    aggregate = uuid4()
    slow, claiming = connect(), connect()
    early = emit(aggregate, conn=slow)
    younger = [emit(aggregate) for _ in range(2)]
    taken = claim(claiming)
    slow.commit()

    assert claim(db) == [], "its run is locked by the other claim"
    claiming.commit()
    assert claim(db) == []
    ack(db, taken)

    assert ids(taken) == younger
    assert ids(claim(db)) == [early]


def postpone(conn):
    conn.execute("update outbox_events set next_attempt_at = next_attempt_at + interval '1 hour'")


@pytest.mark.parametrize("meanwhile", [claim, postpone])
def test_a_head_is_looked_at_again_once_it_is_locked(db, connect, emit, meanwhile):
    """By what it was before, it would be parked: with the other's claim it was claimed as often as can be."""
    event = emit(uuid4())
    gate, late = connect(autocommit=True), connect(autocommit=True)
    db.execute("update outbox_events set claim_count = %s", (23 if meanwhile is claim else 24,))
    with paused_at(db, gate, late, "outbox_events", "as ready") as go_on, blocked(db, claim, late) as waiting:
        meanwhile(db)
        go_on()

    assert waiting.result() == []
    assert values(db, "select id from outbox_events where isfinite(next_attempt_at)") == [event], "it is not parked"


def test_an_event_that_is_marked_while_its_run_is_taken_over_is_not_sent_again(db, connect, emit):
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(3)]
    late = claim(db)
    end_leases(db)
    gate, other = connect(autocommit=True), connect(autocommit=True)
    with paused_at(db, gate, other, "outbox_events", "as locked") as go_on, blocked(db, claim, other) as waiting:
        assert ack(db, late[1:2]) == 1
        go_on()

    assert waiting.result() == []
    assert ids(claim(db)) == [events[0], events[2]]


def test_an_event_whose_lease_is_extended_while_it_is_taken_over_stays_with_its_relay(db, connect, emit):
    """An older event committed after the claim: its lock, at the head, is not one that the extension waits for."""
    aggregate = uuid4()
    slow = connect()
    older = emit(aggregate, conn=slow)
    emit(aggregate)
    late = claim(db)
    slow.commit()
    end_leases(db)
    gate, other = connect(autocommit=True), connect(autocommit=True)
    with paused_at(db, gate, other, "outbox_events", "as locked") as go_on, blocked(db, claim, other) as waiting:
        assert extend(db, late) == 1
        go_on()

    assert waiting.result() == []
    assert ack(db, late) == 1
    assert ids(claim(db)) == [older]


def test_a_checkout_that_is_rolled_back_sends_nothing(db, connect, add_cart, checkout_sql):
    conn = connect()
    checkout_sql(conn, add_cart())
    assert len(claim(conn)) == 2, "they are there, for this transaction"

    conn.rollback()

    assert claim(db) == []


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_at_a_stricter_level_a_claim_with_an_old_snapshot_is_refused_and_can_be_made_again(db, connect, emit, level):
    """It must not lease again what others have sent since its snapshot."""
    emit(uuid4())
    relay = connect()
    relay.execute(f"set default_transaction_isolation = '{level}'")
    relay.commit()
    relay.execute("select")  # the snapshot
    assert values(relay, "select count(*) from outbox_events") == [1]
    leased = claim(db)

    with pytest.raises(psycopg.errors.SerializationFailure):
        claim(relay)
    relay.rollback()

    assert claim(relay) == []
    relay.rollback()
    assert values(relay, "select count(*) from outbox_events") == [1]
    assert extend(db, leased) == 1
    with pytest.raises(psycopg.errors.SerializationFailure):
        ack(relay, leased)
    relay.rollback()
    assert ack(relay, leased) == 1


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
    assert values(db, "select outbox_ack(null, %s)", hosts) == [0]
    for event in hosts:
        with refused("OC005"):
            db.execute("select outbox_replay(%s)", (event,))
        with refused("OC005"):
            db.execute("select outbox_discard(%s, 'not ours')", (event,))
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


def test_younger_events_wait_behind_one_that_backs_off(db, emit):
    """While the rest of its run is given back, and when new ones come."""
    aggregate = uuid4()
    for _ in range(3):
        emit(aggregate)
    events = claim(db)
    fail(db, events[0])
    release(db, events[1:])
    emit(aggregate)

    assert claim(db) == []
    make_due(db)
    assert len(claim(db)) == 4


def test_a_run_ends_before_an_event_that_backs_off(db, emit):
    """An older event was replayed, or committed late: it goes, and what stands behind the other one does not."""
    aggregate = uuid4()
    older, failed, younger = [emit(aggregate) for _ in range(3)]
    ack(db, claim(db, 1))
    fail(db, claim(db, 1)[0])
    assert values(db, "select outbox_replay(%s)", older) == ["published"]

    assert ids(publish_all(db)) == [older]

    make_due(db)
    assert ids(publish_all(db)) == [failed, younger]


def test_a_poison_event_is_parked_while_the_others_flow_and_holds_its_own_aggregate(db, emit):
    """Pulsefy/Lumenpulse#1200: one that always fails was retried for ever."""
    poisoned, healthy = uuid4(), uuid4()
    poison, after = emit(poisoned), emit(poisoned)
    others = [emit(healthy) for _ in range(3)]

    sent, attempts = [], 0
    for _ in range(10):
        events = claim(db)
        if poison in ids(events):
            attempts += 1
            [refused_one] = [event for event in events if event["id"] == poison]
            fail(db, refused_one, "message too large", max_attempts=4)
            release(db, [event for event in events if event["id"] == after])
        else:
            assert after not in ids(events)
        taken = [event for event in events if event["aggregate_id"] == healthy]
        ack(db, taken)
        sent += ids(taken)
        make_due(db)

    assert attempts == 4
    assert sent == others
    [letter] = rows(db, "select * from outbox_dead_letters")
    assert (letter["event_id"], letter["attempt_count"], letter["error"]) == (poison, 4, "message too large")
    assert (letter["aggregate_id"], letter["event_type"]) == (poisoned, "vendor_order.canceled")
    assert row(db, "select attempt_count, last_error, published_at from outbox_events where id = %s", poison) == {
        "attempt_count": 4,
        "last_error": "message too large",
        "published_at": None,
    }
    assert claim(db) == []


def test_an_event_that_is_claimed_again_and_again_and_never_marked_is_parked(db, emit):
    """What ends each relay that sends it. The others of its run were not the first one, and are not to blame."""
    aggregate = uuid4()
    poison, *rest = [emit(aggregate) for _ in range(3)]
    for _ in range(24):
        assert ids(claim(db)) == [poison, *rest]
        end_leases(db)

    assert claim(db) == []

    [letter] = rows(db, "select * from outbox_dead_letters")
    assert (letter["event_id"], letter["error"]) == (poison, "claimed 24 times and never marked")
    assert values(db, "select outbox_discard(%s, 'it ends our relay')", poison) == ["parked"]
    again = claim(db)
    assert ids(again) == rest
    assert values(db, "select claim_count from outbox_events where published_at is null order by id") in (
        [1, None],
        [None, 1],
    )


@pytest.mark.parametrize("mark", ["release", "fail", "replay"])
def test_a_claim_that_was_marked_counts_no_more(db, emit, mark):
    event = emit(uuid4())
    for _ in range(23):
        claim(db)
        end_leases(db)
    events = claim(db)
    match mark:
        case "release":
            release(db, events)
        case "fail":
            fail(db, events[0])
            make_due(db)
        case "replay":
            end_leases(db)
            db.execute("select outbox_replay(%s)", (event,))

    for _ in range(24):
        assert ids(claim(db)) == [event]
        end_leases(db)
    assert claim(db) == []


def test_a_parked_event_is_replayed_under_its_id_before_the_younger_ones(db, emit):
    aggregate = uuid4()
    poison = emit(aggregate)
    fail(db, claim(db)[0], max_attempts=1)
    younger = emit(aggregate)
    assert claim(db) == []

    assert values(db, "select outbox_replay(event_id) from outbox_dead_letters") == ["parked"]

    again = claim(db)
    assert ids(again) == [poison, younger]
    assert again[0]["attempt_count"] == 0
    assert rows(db, "select * from outbox_dead_letters") == []


def test_a_published_event_is_replayed_and_a_waiting_one_is_due_at_once(db, emit):
    event = emit(uuid4())
    ack(db, claim(db))

    assert values(db, "select outbox_replay(%s)", event) == ["published"]
    fail(db, claim(db)[0])
    assert claim(db) == []
    assert values(db, "select outbox_replay(%s)", event) == ["waiting"]
    claimed = claim(db)
    assert ids(claimed) == [event]
    assert values(db, "select outbox_replay(%s)", event) == ["claimed"]
    assert ack(db, claimed) == 1, "a relay is sending it: nothing was changed"


def test_a_replay_waits_for_a_mark_under_way(db, connect, emit):
    """And says what became of it there: it was sent, and is sent again."""
    event = emit(uuid4())
    relay, operator = connect(), connect(autocommit=True)
    ack(relay, claim(db))

    with blocked(db, values, operator, "select outbox_replay(%s)", event) as waiting:
        relay.commit()

    assert waiting.result() == ["published"]
    assert ids(claim(db)) == [event]


def test_a_parked_event_is_given_up_and_those_behind_it_go_on(db, emit):
    aggregate = uuid4()
    poison, younger = emit(aggregate), emit(aggregate)
    events = claim(db)
    fail(db, events[0], max_attempts=1)
    release(db, events[1:])
    assert claim(db) == []

    assert values(db, "select outbox_discard(%s, 'sold twice')", poison) == ["parked"]

    assert rows(db, "select * from outbox_dead_letters") == []
    assert ids(claim(db)) == [younger]
    given_up = row(db, "select * from outbox_events where id = %s", poison)
    assert given_up["published_at"] >= given_up["created_at"]
    assert given_up["last_error"] == "discarded: sold twice"
    assert values(db, "select outbox_discard(%s, 'again')", poison) == ["published"]
    assert row(db, "select * from outbox_events where id = %s", poison) == given_up


def test_a_discard_waits_for_a_mark_under_way(db, connect, emit):
    event = emit(uuid4())
    relay, operator = connect(), connect(autocommit=True)
    ack(relay, claim(db))

    with blocked(db, values, operator, "select outbox_discard(%s, 'why')", event) as waiting:
        relay.commit()

    assert waiting.result() == ["published"]
    assert values(db, "select last_error from outbox_events") == [None]


def test_an_event_that_was_made_due_by_hand_can_be_parked_again(db, emit):
    emit(uuid4())
    fail(db, claim(db)[0], max_attempts=1)
    db.execute("update outbox_events set next_attempt_at = now()")

    fail(db, claim(db)[0], "again", max_attempts=1)

    assert values(db, "select error from outbox_dead_letters") == ["again"]


@pytest.mark.parametrize(
    ("call", "written"),
    [
        ("outbox_ack(%(claim_id)s, array[%(id)s]::uuid[])", "select published_at from outbox_events"),
        (
            "outbox_fail(%(claim_id)s, %(id)s, 'no route')",
            "select next_attempt_at - interval '2 seconds' from outbox_events",
        ),
        ("outbox_fail(%(claim_id)s, %(id)s, 'no route', 1)", "select parked_at from outbox_dead_letters"),
        ("outbox_extend(%(claim_id)s)", "select claimed_until - interval '30 seconds' from outbox_events"),
        ("count(*) from outbox_claim(1)", "select claimed_until - interval '30 seconds' from outbox_events"),
        ("outbox_replay(%(id)s)", "select next_attempt_at from outbox_events"),
        ("outbox_discard(%(id)s, 'why')", "select published_at from outbox_events"),
    ],
)
def test_the_time_is_that_of_the_call_not_of_its_transaction(connect, emit, call, written):
    emit(uuid4())
    conn = connect()
    [event] = claim(conn)
    end_leases(conn)
    [claimed_at] = values(conn, "select clock_timestamp()")

    conn.execute(f"select {call}", event)

    assert values(conn, written)[0] > claimed_at


def test_whether_an_event_is_claimed_is_judged_when_its_replay_comes_to_it(connect, emit):
    event = emit(uuid4())
    conn = connect()
    claim(conn, lease="1 millisecond")
    values(conn, "select pg_sleep(0.01)")

    assert values(conn, "select outbox_replay(%s)", event) == ["waiting"], "its lease began after the transaction"


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
    assert values(db, "select outbox_ack(%s, array[%s, null]::uuid[])", events[0]["claim_id"], UNKNOWN) == [0]

    assert rows(db, "select * from outbox_events") == before


def test_a_publisher_that_claims_nothing_marks_what_nobody_has_claimed(db, emit):
    """Debezium: what is in the WAL is through."""
    claimed, parked, free = emit(uuid4()), emit(uuid4()), emit(uuid4())
    events = claim(db, 2)
    fail(db, events[1], max_attempts=1)

    assert values(db, "select outbox_ack(null, %s)", [claimed, parked, free]) == [1]

    assert values(db, "select id from outbox_events where published_at is not null") == [free]


def test_a_long_error_or_reason_is_cut(db, emit):
    event = emit(uuid4())
    fail(db, claim(db)[0], "x" * 5_000_000)
    assert values(db, "select length(last_error) from outbox_events") == [1000]
    make_due(db)
    fail(db, claim(db)[0], "x" * 5_000_000, max_attempts=1)
    assert values(db, "select length(error) from outbox_dead_letters") == [1000]

    db.execute("select outbox_discard(%s, %s)", (event, "x" * 5_000_000))
    assert values(db, "select length(last_error) from outbox_events") == [len("discarded: ") + 1000]


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ("outbox_claim(null)", "batch"),
        ("outbox_claim(0)", "batch"),
        ("outbox_claim(-1)", "batch"),
        ("outbox_claim(1, null)", "lease"),
        ("outbox_claim(1, '0')", "lease"),
        ("outbox_claim(1, '-1 second')", "lease"),
        ("outbox_claim(1, '25 hours')", "lease"),
        (f"outbox_ack('{UNKNOWN}', null)", "ids"),
        ("outbox_ack(null, null)", "ids"),
        (f"outbox_release('{UNKNOWN}', null)", "ids"),
        ("outbox_release(null, '{}')", "claim_id"),
        ("outbox_extend(null)", "claim_id"),
        (f"outbox_extend('{UNKNOWN}', '0')", "lease"),
        (f"outbox_extend('{UNKNOWN}', null)", "lease"),
        (f"outbox_fail('{UNKNOWN}', '{UNKNOWN}', 'x')", "id"),
        (f"outbox_fail('{UNKNOWN}', null, 'x')", "id"),
        (f"outbox_fail(null, '{UNKNOWN}', 'x')", "id"),
        (f"outbox_fail('{UNKNOWN}', '{UNKNOWN}', null)", "error"),
        (f"outbox_fail('{UNKNOWN}', '{UNKNOWN}', '')", "error"),
        (f"outbox_fail('{UNKNOWN}', '{UNKNOWN}', 'x', 0)", "max_attempts"),
        (f"outbox_fail('{UNKNOWN}', '{UNKNOWN}', 'x', null)", "max_attempts"),
        (f"outbox_replay('{UNKNOWN}')", "id"),
        ("outbox_replay(null)", "id"),
        (f"outbox_discard('{UNKNOWN}', 'x')", "id"),
        ("outbox_discard(null, 'x')", "id"),
        (f"outbox_discard('{UNKNOWN}', null)", "reason"),
        (f"outbox_discard('{UNKNOWN}', ' ')", "reason"),
        ("outbox_purge(null)", "older_than"),
        ("outbox_purge('-1 day')", "older_than"),
        ("outbox_purge('1 day', 0)", "max_rows"),
        ("outbox_purge('1 day', null)", "max_rows"),
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


def fill(conn, count, aggregate_id=None):
    """Due events: of one aggregate, or of as many."""
    conn.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)"
        " select 'vendor_order.canceled', 'vendor_order', coalesce(%s, gen_random_uuid()), '{}', clock_timestamp(),"
        "        clock_timestamp()"
        "   from generate_series(1, %s)",
        (aggregate_id, count),
    )


def poll(conn, batch=100):
    """Pages that a claim touches."""
    return blocks_again(conn, f"select * from outbox_claim({batch})")


def pages(conn, relation):
    [count] = values(conn, "select pg_relation_size(%s) / current_setting('block_size')::int", relation)
    return int(count)


def test_the_poll_stays_flat_with_100000_sent_rows_and_a_purge_under_way(db, connect):
    relay, purge = connect(), connect()
    fill(db, 200)
    small = poll(relay)

    publish_all(db)
    vacuum(db, "outbox_events")  # in an idle hour: the statistics know of no backlog
    fill(db, 100_000)
    assert poll(relay) < 2 * small, "what a poll reads is what it claims, not the backlog"

    db.execute("select outbox_ack(null, array_agg(id)) from outbox_events where published_at is null")
    fill(db, 200)
    assert values(purge, "select outbox_purge('0', 1000000)") == [100_200]
    assert pages(db, "outbox_events") > 3000
    assert poll(relay) < 2 * small + pages(db, "idx_outbox_events_due"), "dead entries of the index, but no sent row"

    purge.commit()
    vacuum(db, "outbox_events", analyze=False)  # the statistics stay as they were
    assert poll(relay) < 2 * small
    assert len(claim(relay)) == 100


@pytest.fixture
def held_back(db):
    """held_back(count): three aggregates of so many events each, behind a leased, a failed and a parked head."""

    def held_back(count):
        aggregates = [uuid4() for _ in range(3)]
        for aggregate in aggregates:
            fill(db, count, aggregate)
        heads = claim(db, 1), claim(db, 1), claim(db, 1)
        [leased], [failed], [parked] = heads
        assert {event["aggregate_id"] for (event,) in heads} == {*aggregates}
        fail(db, failed)
        fail(db, parked, max_attempts=1)
        db.execute(
            "update outbox_events set claimed_until = 'infinity' where id = %s",
            (leased["id"],),
        )
        db.execute(
            "update outbox_events set next_attempt_at = next_attempt_at + interval '1 day' where id = %s",
            (failed["id"],),
        )
        vacuum(db, "outbox_events")
        return leased

    return held_back


def test_a_poll_costs_what_it_returns_behind_50000_events_of_heads_that_hold_them_back(db, connect, held_back):
    """Read from the oldest on, or looked through for a younger head, they would cost thousands of pages each time."""
    relay = connect()
    fill(db, 200)
    small, small_poll = poll(relay), poll(relay, 1)
    publish_all(db)
    held_back(50_000)

    assert claim(relay) == []
    assert poll(relay) < 100, "nothing is due: the walk is cut, and three heads are looked at"

    fill(db, 1000)
    assert len({event["aggregate_id"] for event in claim(relay)}) == 100
    relay.rollback()
    assert poll(relay, 1) < small_poll + 100
    assert poll(relay) < 2 * small


def test_a_run_behind_50000_events_costs_what_it_returns(db, connect):
    """Of one aggregate with many events, the oldest is found without a look at all of them."""
    relay = connect()
    fill(db, 50_000, uuid4())
    vacuum(db, "outbox_events")

    assert len(claim(relay)) == 100
    relay.rollback()

    assert poll(relay) < 100 * 30
    assert poll(relay, 1) < 100


def test_what_is_due_is_found_behind_any_number_of_aggregates_that_are_held_back(db, emit):
    """More of them than a walk looks at, each with younger events that are due."""
    aggregates = [uuid4() for _ in range(150)]
    for aggregate in aggregates * 2:
        emit(aggregate)
    events = claim(db, 1000)
    heads = {}
    for event in events:
        heads.setdefault(event["aggregate_id"], event)
    for head in heads.values():
        fail(db, head, max_attempts=1)
    release(db, events)
    assert claim(db, 1) == []

    due = [emit(uuid4()) for _ in range(3)]

    assert set(ids(claim(db, 10))) == {*due}
    end_leases(db)
    found = set()
    for _ in range(30):
        found |= set(ids(claim(db, 1)))
    assert found == {*due}, "all of them, whichever it begins with"


def test_a_lease_of_many_events_is_extended_and_ended_at_the_cost_of_its_own(db, connect, held_back):
    held_back(50_000)
    fill(db, 10)
    claim_id = claim(db)[0]["claim_id"]
    vacuum(db, "outbox_events")
    relay = connect()

    for call in (
        f"select outbox_extend('{claim_id}')",
        f"select outbox_ack('{claim_id}', array(select id from outbox_events where claim_id = '{claim_id}'"
        " and published_at is null and next_attempt_at < 'infinity'))",
    ):
        assert blocks_again(relay, call) < 400, call


def test_nobody_hears_of_the_end_of_an_order_before_its_beginning(db, add_cart, checkout_sql):
    """The broker refuses the first event once: the cancel, of the same aggregate, waits behind it."""
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    [first, *_] = rows(db, "select * from outbox_claim(1)")
    db.execute("select outbox_fail(%s, %s, 'no route')", (first["claim_id"], first["id"]))
    db.execute("select vendor_order_cancel(%s, 'The buyer called.')", (cart.groups[0].id,))

    assert rows(db, "select * from outbox_claim(9)") == []

    db.execute("update outbox_events set next_attempt_at = created_at where id = %s", (first["id"],))
    types = [event["event_type"] for event in rows(db, "select * from outbox_claim(9)")]
    assert types == ["checkout.vendor_orders_created", "checkout.converted", "vendor_order.canceled"]
