"""The steps of a move in one database: what each waits for, when it refuses, and what callers are told meanwhile.

test_moves.py runs them between servers.
"""

import psycopg
import pytest
from psycopg import sql

from checks import refused, row, rows, values
from races import blocked

# What brings a market that never moved to the state that a step begins in. The server is b in the map, and a before.
BEGUN = ("market_leave('b', 'a')",)
FROZEN = (*BEGUN, "market_freeze(1)")
ARRIVED = ("market_arrive(1, 'b')",)

NOT_NOW = psycopg.errors.ObjectNotInPrerequisiteState


def call(conn, *steps):
    for step in steps:
        conn.execute(f"select {step}")


def state(conn):
    return row(conn, "select state, epoch, server from checkout_market")


@pytest.fixture
def arrived(db):
    """This database is where the market comes to, and the mark of its move is here."""
    call(db, *ARRIVED)
    mark(db)
    return db


def mark(conn, *, epoch=1, origin="a", destination="b"):
    """Writes the mark of a move, as a subscription does."""
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")
        conn.execute(
            "insert into checkout_moves (epoch, origin, destination) values (%s, %s, %s)", (epoch, origin, destination)
        )


DATED = {
    "market_leave('b', 'a')": (),
    "market_freeze(1)": BEGUN,
    "market_close(1)": FROZEN,
    "market_stay(1)": FROZEN,
    "market_shut(1)": ARRIVED,
}


@pytest.mark.parametrize("step", DATED)
def test_a_step_is_dated_by_the_clock(db, step):
    call(db, *DATED[step])
    with db.transaction():
        call(db, "pg_sleep(0.001)", step)
        assert values(db, "select changed_at > now() from checkout_market") == [True]


def test_opening_and_settling_are_dated_by_the_clock(arrived):
    for step in ("market_open(1, interval '1 hour')", "market_settle(1)"):
        with arrived.transaction():
            call(arrived, "pg_sleep(0.001)", step)
            assert values(arrived, "select changed_at > now() from checkout_market") == [True]


def test_a_server_that_the_market_was_to_come_back_to_says_where_it_is(db):
    call(db, *FROZEN, "market_close(1)")
    with db.transaction():
        call(db, "pg_sleep(0.001)", "market_shut(2)")
        assert values(db, "select changed_at > now() from checkout_market") == [True]
    assert state(db) == {"state": "moved", "epoch": 2, "server": "b"}


@pytest.mark.parametrize(
    ("before", "step"),
    [
        (BEGUN, "market_freeze(2)"),
        (BEGUN, "market_close(1)"),
        (FROZEN, "market_close(2)"),
        (FROZEN, "market_freeze(1)"),
        (FROZEN, "market_settle(1)"),
        (ARRIVED, "market_open(2)"),
        (ARRIVED, "market_stay(1)"),
        (ARRIVED, "market_shut(2)"),
        ((), "market_freeze(1)"),
    ],
)
def test_a_step_of_another_move_or_out_of_turn_is_refused(db, before, step):
    call(db, *before)
    here = rows(db, "select * from checkout_market")
    with pytest.raises(NOT_NOW, match=r"the market is \w+ in move \d, and this step is for move \d"):
        call(db, step)
    assert rows(db, "select * from checkout_market") == here


def test_a_move_goes_on_to_the_same_server_and_no_other(db):
    assert values(db, "select market_leave('b', 'a')") == [1]
    assert values(db, "select market_leave('b', 'a')") == [1]
    with pytest.raises(NOT_NOW, match=r"the market is leaving already, in move 1 \(server b\)"):
        call(db, "market_leave('c', 'a')")
    call(db, "market_stay(1)")
    assert values(db, "select market_leave('c', 'a')") == [2]


def test_a_move_begins_behind_a_deployment(db, connect):
    with connect() as deploys, connect(autocommit=True) as moves:
        deploys.execute("select pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()))")
        with blocked(db, call, moves, *BEGUN) as waiting:
            deploys.commit()
        waiting.result(timeout=10)
    assert state(db)["state"] == "leaving"


def test_a_move_begins_behind_the_end_of_another(db, connect):
    call(db, *BEGUN)
    with connect() as ends, connect(autocommit=True) as moves:
        call(ends, "market_stay(1)")
        with blocked(db, call, moves, "market_leave('c', 'a')") as waiting:
            ends.commit()
        waiting.result(timeout=10)
    assert state(db) == {"state": "leaving", "epoch": 2, "server": "c"}


def test_while_a_server_follows_the_market_goes_back_there_alone(arrived):
    call(arrived, "market_open(1, interval '1 hour')")
    with pytest.raises(NOT_NOW, match="the server that the market came from follows still, and c is another"):
        call(arrived, "market_leave('c', 'b')")
    assert values(arrived, "select market_leave('a', 'b')") == [2]


@pytest.mark.parametrize(
    ("first", "late", "left"),
    [("market_open(1)", "market_shut(1)", "selling"), ("market_shut(1)", "market_open(1)", "closed")],
)
def test_of_an_opening_and_a_taking_back_the_late_one_is_refused(arrived, connect, first, late, left):
    with connect() as one, connect(autocommit=True) as other:
        call(one, first)
        with blocked(arrived, call, other, late) as waiting:
            one.commit()
        with pytest.raises(NOT_NOW):
            waiting.result(timeout=10)
    assert state(arrived)["state"] == left


@pytest.mark.parametrize(
    ("before", "step"),
    [((*BEGUN, "market_stay(1)"), "market_leave('c', 'a')"), ((*FROZEN, "market_close(1)"), "market_open(2)")],
    ids=["leaving", "coming back"],
)
def test_between_the_look_and_the_change_nobody_else_changes_the_state(db, connect, before, step):
    call(db, *before)
    mark(db, epoch=2, origin="b", destination="a")
    db.execute("""
        create function wait_before_the_change() returns trigger language plpgsql as $$
        begin
          perform pg_advisory_xact_lock_shared(1);
          return null;
        end $$;
        create trigger wait_before_the_change before update on checkout_market
        for each statement execute function wait_before_the_change();   -- that of a row has locked it already
    """)
    with connect() as gate, connect(autocommit=True) as moves:
        gate.execute("select pg_advisory_xact_lock(1)")
        with blocked(db, call, moves, step) as waiting:
            with pytest.raises(psycopg.errors.LockNotAvailable):
                db.execute("select from checkout_market for update nowait")
            gate.commit()
        waiting.result(timeout=10)
    assert state(db)["epoch"] == 2


def test_the_target_opens_behind_the_mark_of_this_move_alone(db):
    call(db, *ARRIVED)
    with pytest.raises(NOT_NOW, match="move 1 has not arrived"):
        call(db, "market_open(1)")
    mark(db)
    call(db, "market_open(1)")
    opened = row(db, "select * from checkout_market")
    call(db, "market_open(1, interval '1 hour')")

    assert row(db, "select * from checkout_market") == opened, "a second time it changes nothing"


# What callers are told


@pytest.mark.parametrize("path", ["pg_catalog", "nowhere, pg_temp"])
def test_whoever_writes_meets_the_gate_whatever_rights_and_path_it_has(db, new_role, login, path):
    quotes = new_role()
    db.execute("select checkout_grant_quotes(%s)", (quotes,))
    call(db, *FROZEN)
    conn = login(quotes)
    conn.execute(f"set search_path = {path}")
    [schema] = values(db, "select current_schema()")
    write = sql.SQL("insert into {}.cart_records (buyer_store_id) values (gen_random_uuid())")

    with refused("OC014") as refusal:
        conn.execute(write.format(sql.Identifier(schema)))
    assert refusal.detail == {"problem": "market_moving"}


def test_a_gate_is_taken_away_where_the_market_is_sold_alone(db):
    call(db, *FROZEN)
    with pytest.raises(NOT_NOW, match="its gate stays"):
        call(db, "market_drop_gate('cart_records')")
    call(db, "market_stay(1)", "market_drop_gate('cart_records')")

    gates = "select tgrelid::regclass::text from pg_trigger where tgname = 'market_gate'"
    gated = values(db, gates)
    assert "cart_records" not in gated and "cart_items" in gated


def test_calls_are_refused_where_the_market_has_not_arrived_or_has_gone(db, add_cart):
    cart = add_cart()
    look = "select cart_get(%s, %s)"
    call(db, "market_guard()", *FROZEN)
    assert values(db, look, cart.buyer_store_id, cart.id) != [None], "what only reads goes on"

    call(db, "market_close(1)")
    with refused("OC015") as refusal:
        db.execute(look, (cart.buyer_store_id, cart.id))
    assert refusal.detail == {"server": "b", "epoch": 1}

    for away in ("arriving", "closed"):
        db.execute("update checkout_market set state = %s", (away,))
        with refused("OC014"):
            db.execute(look, (cart.buyer_store_id, cart.id))
    db.execute("update checkout_market set state = 'selling'")
