"""A market that moves to another server while it sells: in no order of what may happen do both sell."""

import asyncio
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from itertools import count as counting

import psycopg
import pytest
from command import PROGRAM, environment, run_command
from crash import CrashServer
from failover import SCHEMA, Pair, a_pair
from moving import SETTINGS, Died, Fleet, database_of_each, drop, dropped, forget, judged, selling, two_servers
from quoted import quoted

from checks import values
from pycheckout import Checkout, MarketMoved, MarketMoving, MigrationError, _doctor, migrate
from pycheckout._embedded import embedded_server
from pycheckout._move import STEPS, MoveDoubtful, MoveRefused, MoveUnfinished
from races import blocked, wait_until

_numbers = counting()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, str]]:
    with two_servers() as servers:
        yield servers


@pytest.fixture
def fleet(servers) -> Iterator[Fleet]:
    with database_of_each(servers, f"moved_{next(_numbers)}") as fleet:
        yield fleet


@contextmanager
def a_fleet_of_a_pair(servers: dict[str, str], *, synchronous: bool) -> Iterator[tuple[Fleet, Pair]]:
    """Its source is a primary with a standby, its target an empty database of server b."""
    name = f"moved_{next(_numbers)}"
    with a_pair(synchronous=synchronous, **SETTINGS) as pair:
        with psycopg.connect(servers["b"], autocommit=True) as admin:
            admin.execute(f"create database {name}")
        target = Fleet({"b": f"{servers['b'].rpartition('/')[0]}/{name}"})
        try:
            yield Fleet({"a": pair.both(pair.primary.port)} | target.databases), pair
        finally:
            dropped(target, name)


def sells(fleet: Fleet, at: str) -> bool:
    """Whether somebody who asks this server is sold something."""
    with fleet.connect(at) as conn:
        if not values(conn, "select 1 from pg_namespace where nspname = %s", SCHEMA):
            return False
        try:
            checkout = Checkout(conn, schema=SCHEMA)
            checkout.execute(**quoted(checkout).request())
        except (MarketMoving, MarketMoved):
            return False
        return True


def left_behind(fleet: Fleet, at: str) -> list[str]:
    """What of a move is left at a server."""
    with fleet.connect(at) as conn:
        return values(
            conn,
            """
            select 'slot ' || slot_name from pg_replication_slots where database = current_database()
             union all select 'publication ' || pubname from pg_publication
             union all select 'subscription ' || subname from pg_subscription
                        where subdbid = (select oid from pg_database where datname = current_database())
             union all select 'role ' || rolname from pg_roles where rolname like 'pycheckout_move_%%'
             union all select 'trigger of ' || tgrelid::regclass from pg_trigger where tgname = 'market_gate'
             union all select 'function ' || proname from pg_proc where prosrc like '%%while the market moves%%'
                                                                    and proname not like 'market_%%'
             union all select 'autovacuum of ' || relname from pg_class
                        where reloptions::text like '%%autovacuum_enabled=off%%'
            """,
        )


# Under load


def test_a_market_moves_and_moves_back_while_it_sells(fleet):
    """Nothing that was answered is lost or doubled, and no caller needs another map."""
    with selling(fleet, callers=4, rate=50) as sellers:
        there = fleet.move("b").run()
        assert sellers.markets.where("ok").server in ("a", "b")
        back = fleet.move("a").run()
        forget(fleet, "b")
        again = fleet.move("b").run()

    assert (there.epoch, there.proven, there.findings) == (1, True, 0)
    assert (back.epoch, back.proven, back.findings) == (2, True, 0)
    assert (again.epoch, again.proven, again.findings) == (3, True, 0)
    assert judged(fleet, "b", sellers) == []
    assert [type(each) for each in sellers.books.troubles if not isinstance(each, MarketMoving)] == []
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)
    fleet.move("b").finish()
    assert left_behind(fleet, "b") == []


@pytest.mark.parametrize("step", ["copy", "mark", "clear"])
def test_a_command_that_is_killed_under_load_goes_on(fleet, tmp_path, step):
    path = fleet.written_map(tmp_path / "markets.toml")
    command = ["market", "move", "ok", "--to", "b", "--markets", path, "--json"]
    with selling(fleet, callers=4, rate=50) as sellers:
        with subprocess.Popen([PROGRAM, *command], env=environment(), text=True, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line) == {"step": step}:
                    process.send_signal(signal.SIGKILL)
                    break
        done = run_command(*command)
        assert done.returncode == 0, done.stderr

    moved = json.loads(done.stdout.splitlines()[-1])
    assert (moved["market"], moved["epoch"], moved["server"], moved["findings"]) == ("ok", 1, "b", 0)
    assert judged(fleet, "b", sellers) == []
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)
    fleet.move("b").finish()
    assert left_behind(fleet, "b") == []


# Every order


@pytest.mark.parametrize("step", STEPS)
def test_a_move_that_dies_at_a_step_goes_on_from_there(fleet, step):
    with pytest.raises(Died):
        fleet.move("b", dies_at=step).run()
    frozen = step in ("standbys", "mark", "sequences", "open")
    opened = step in ("close", "clear", "prove", "follow")

    assert (sells(fleet, "a"), sells(fleet, "b")) == (not frozen and not opened, opened)
    moved = fleet.move("b").run()

    assert (moved.epoch, moved.server, moved.findings) == (1, "b", 0)
    assert moved.proven is (None if opened else True)
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)
    fleet.move("b").finish()
    assert left_behind(fleet, "b") == []


@pytest.mark.parametrize("step", ["subscribe", "copy", "open"])
def test_a_move_is_taken_back_until_the_target_is_opened(fleet, step):
    with pytest.raises(Died):
        fleet.move("b", dies_at=step).run()

    fleet.move("b").abort()

    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)
    assert [*left_behind(fleet, "a"), *left_behind(fleet, "b")] == []
    with fleet.connect("b") as conn:
        assert values(conn, "select 1 from pg_namespace where nspname = %s", SCHEMA) == []
    assert fleet.move("b").run().epoch == 2


def test_a_move_that_was_opened_is_not_taken_back(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="close").run()

    with pytest.raises(MoveRefused, match="since move 1, which is not taken back"):
        fleet.move("b").abort()

    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)


def test_a_move_is_not_taken_back_while_nobody_knows_what_the_target_does(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="open").run()
    away = Fleet(fleet.databases | {"b": fleet.databases["b"].rpartition("/")[0] + "/nowhere"})

    with pytest.raises(psycopg.OperationalError):
        away.move("b").abort()
    assert not sells(fleet, "a")
    drop(fleet, "b")
    with pytest.raises(MoveRefused, match="does not say what became of move 1: its schema is gone"):
        fleet.move("b").abort()
    with pytest.raises(MoveRefused, match="does not say what became of move 1"):
        fleet.move("b").run()
    assert not sells(fleet, "a")


def one_comes_first(fleet: Fleet, at: str, epoch: int, *, shut: str, anew: str) -> None:
    """The target of this move is opened while it is being shut, and the other way round.

    `shut`: the state that it is in then; `anew`: what makes it openable again.
    """
    opening, shutting = f"select market_open({epoch})", f"select market_shut({epoch})"
    with fleet.connect(at) as watch, fleet.connect(at, autocommit=False) as first, fleet.connect(at) as second:
        first.execute(shutting)
        with blocked(watch, psycopg.Connection.execute, second, opening) as late:
            first.commit()
        refused = f"the market is {shut} in move {epoch}"
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=refused):
            late.result(timeout=10)
        assert not sells(fleet, at)

        first.execute(f"update checkout_market set {anew}")
        first.commit()
        first.execute(opening)
        with blocked(watch, psycopg.Connection.execute, second, shutting) as late:
            first.commit()
        refused = f"the market is selling in move {epoch}"
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=refused):
            late.result(timeout=10)


def test_of_an_opening_and_a_taking_back_one_comes_first(fleet):
    """Whoever is late finds another state under the lock of the row."""
    with pytest.raises(Died):
        fleet.move("b", dies_at="open").run()

    one_comes_first(fleet, "b", 1, shut="closed", anew="state = 'arriving'")


def test_a_step_of_an_earlier_move_does_nothing(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()
    fleet.move("b").abort()
    with pytest.raises(Died):
        fleet.move("b", dies_at="open").run()

    for at, step in (
        ("a", "market_freeze(1)"),
        ("a", "market_stay(1)"),
        ("b", "market_open(1)"),
        ("b", "market_shut(1)"),
    ):
        with fleet.connect(at) as conn, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
            conn.execute(f"select {step}")
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, False)


def test_the_target_opens_only_behind_the_mark(fleet):
    """That the source is shut is known there by the last row that was written at the source."""
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()

    with (
        fleet.connect("b") as conn,
        pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has not arrived"),
    ):
        conn.execute("select market_open(1)")
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)


def test_a_mark_of_a_move_to_another_server_opens_nothing(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="open").run()
    with fleet.connect("b") as conn:
        conn.execute("set session_replication_role = replica")
        conn.execute("update checkout_moves set destination = 'c'")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="has not arrived"):
            conn.execute("select market_open(1)")
        conn.execute("update checkout_moves set destination = 'b'")
    assert fleet.move("b").run().proven


# The gate


def test_what_began_before_the_gate_ends_before_it_or_is_refused(fleet):
    """A call that waits for a table meanwhile, and a snapshot from before: neither writes behind the mark."""
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()
    with (
        fleet.connect("a") as watch,
        fleet.connect("a", autocommit=False) as gate,
        fleet.connect("a") as caller,
        fleet.connect("a", autocommit=False) as old,
    ):
        checkout = Checkout(caller, schema=SCHEMA)
        cart, ordered = quoted(checkout), quoted(checkout)
        answer = checkout.execute(**ordered.request())
        old.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        old.execute("select count(*) from checkout_market")

        gate.execute("select market_freeze(1)")
        with blocked(watch, lambda conn: Checkout(conn, schema=SCHEMA).execute(**cart.request()), caller) as waiting:
            gate.commit()
        with pytest.raises(MarketMoving):
            waiting.result(timeout=20)
        with pytest.raises(psycopg.errors.DatabaseError) as refused:
            old.execute("update inventory_items set available_qty = available_qty")
        assert refused.value.sqlstate == "OC014"

        # What only reads still says what is so.
        about = {"buyer_store_id": ordered.buyer_store_id, "cart_id": ordered.id}
        assert checkout.result(**about).vendor_orders == answer.vendor_orders
        assert checkout.orders.list(buyer_store_id=ordered.buyer_store_id).orders
        with pytest.raises(psycopg.errors.DatabaseError) as refused:
            caller.execute("select * from outbox_claim(1)")
        assert refused.value.sqlstate == "OC014"
        for table in values(caller, "select gated::text from market_tables() as gated"):
            with pytest.raises(psycopg.errors.DatabaseError) as refused:
                caller.execute(f"delete from {table} where false")
            assert refused.value.sqlstate == "OC014", table
            with pytest.raises(psycopg.errors.DatabaseError) as refused:
                caller.execute(f"truncate {table} cascade")
            assert refused.value.sqlstate in ("OC014", "OC009"), table


def test_nobody_is_answered_by_the_target_before_it_is_opened(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="open").run()
    with fleet.connect("b") as conn:
        checkout = Checkout(conn, schema=SCHEMA)
        for call in (
            lambda: checkout.orders.list(buyer_store_id="b0000000-0000-4000-8000-00000000abcd"),
            lambda: quoted(checkout),
        ):
            with pytest.raises(MarketMoving):
                call()


def test_a_gate_that_meets_somebody_gives_up_and_no_caller_does(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()
    with fleet.connect("a", autocommit=False) as holder:
        holder.execute("insert into checkout_audits (began_at, ended_at, findings) values (now(), now(), 0)")
        with pytest.raises(
            MoveUnfinished, match=rf"in 2 attempts; process {holder.info.backend_pid} .*checkout_audits"
        ):
            fleet.move("b", tries=2).run()
        assert sells(fleet, "a")
        holder.execute("insert into checkout_audits (began_at, ended_at, findings) values (now(), now(), 0)")
        holder.commit()

    assert fleet.move("b").run().proven
    with fleet.connect("b") as conn:
        assert values(conn, "select count(*) from checkout_audits where findings = 0 and since is null") >= [2]


# Failover


def test_a_standby_has_the_gate_before_the_target_opens_and_takes_the_sources_place(servers):
    """Else one that lacks it would be promoted, and sell beside the target."""
    with a_fleet_of_a_pair(servers, synchronous=False) as (fleet, pair):
        with psycopg.connect(pair.dsn()) as standby:
            [(way,)] = standby.execute("select setting from pg_settings where name = 'primary_conninfo'").fetchall()

        # It stops following while the gate is put up.
        late = fleet.move("b", frozen=0.5)
        late.told = lambda step: pair.cut() if step == "standbys" else None
        with pytest.raises(MoveRefused, match="did not get the gate, and the move is taken back: walreceiver"):
            late.run()
        assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)

        with psycopg.connect(pair.dsn(), autocommit=True) as standby, fleet.connect("a") as primary:
            standby.execute(f"alter system set primary_conninfo = {psycopg.sql.quote(way)}")
            standby.execute("select pg_reload_conf()")
            query = "select state from pg_stat_replication where state = 'streaming'"
            wait_until(lambda: values(primary, query), "the standby does not stream", 30)

        with pytest.raises(Died):
            fleet.move("b", dies_at="sequences").run()
        pair.kill_primary()
        pair.promote()

        assert (sells(fleet, "a"), sells(fleet, "b")) == (False, False)
        assert fleet.move("b").run().proven
        assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)


@pytest.mark.parametrize(
    ("step", "is_taken_back"),
    [pytest.param("calm", True, id="before the gate"), pytest.param("sequences", False, id="behind the mark")],
)
def test_a_failover_to_a_synchronous_standby_ends_with_one_server_that_sells(servers, step, is_taken_back):
    """A slot of logical replication does not come along: a copy that was not whole by then is worth nothing."""
    with a_fleet_of_a_pair(servers, synchronous=True) as (fleet, pair):
        with pytest.raises(Died):
            fleet.move("b", dies_at=step).run()
        pair.kill_primary()
        pair.promote()

        if is_taken_back:
            with pytest.raises(MoveRefused, match="lost the slot of the move, as it does by a failover"):
                fleet.move("b").run()
            assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)
        else:
            assert (sells(fleet, "a"), sells(fleet, "b")) == (False, False)
        assert fleet.move("b").run().proven
        assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)


def test_a_standby_that_was_given_up_and_is_promoted_all_the_same_is_shut_and_told(servers):
    """Both sold for a while, by the operator's word: the command says so, and ends it."""
    with a_fleet_of_a_pair(servers, synchronous=False) as (fleet, pair):
        move = fleet.move("b", given_up=("walreceiver@127.0.0.1",))

        def told(step: str) -> None:
            if step == "freeze":
                pair.cut()
            elif step == "close":
                raise Died

        move.told = told
        with pytest.raises(Died):
            move.run()
        pair.kill_primary()
        pair.promote()
        assert (sells(fleet, "a"), sells(fleet, "b")) == (True, True)

        with pytest.raises(MoveDoubtful, match="a has lost its gate, and sold beside b"):
            fleet.move("b").run()
        assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)


@pytest.mark.parametrize("victim", ["source", "target"])
def test_a_server_that_is_killed_at_a_step_leaves_one_that_sells(victim):
    """Its sessions are gone, and the subscription may stop: the move goes on, or is taken back and begins again."""
    with embedded_server(**SETTINGS) as a, embedded_server(**SETTINGS) as b:
        migrate(a.dsn(), schema=SCHEMA, create_schema=True)
        fleet = Fleet({"a": a.dsn(), "b": b.dsn()})
        machines = {"a": CrashServer.of(a), "b": CrashServer.of(b)}
        here, there = "a", "b"
        for step, comes_back in (("copy", False), ("mark", True), ("close", False)):
            machine = machines[here if victim == "source" else there]
            dying = {step}

            def told(now: str, machine: CrashServer = machine, dying: set[str] = dying) -> None:
                if now in dying:
                    dying.remove(now)
                    machine.kill()
                    machine.start()

            move = fleet.move(there, frozen=60.0)
            move.told = told
            try:
                move.run()
            except (MoveRefused, MoveUnfinished):
                assert not (sells(fleet, "a") and sells(fleet, "b")), step
                fleet.move(there).run()
            assert not dying
            assert (sells(fleet, here), sells(fleet, there)) == (False, True), step
            if comes_back:
                forget(fleet, here)
            here, there = there, here


# The way back


def came(fleet: Fleet, at: str) -> list[int]:
    """How many rows each table has there."""
    with fleet.connect(at) as conn:
        tables = values(conn, "select gated::text from market_tables() as gated")
        return [values(conn, f"select count(*) from {table}")[0] for table in tables]


def caught_up(fleet: Fleet, at: str, behind: str) -> bool:
    return came(fleet, at) == came(fleet, behind)


def test_a_server_that_was_left_follows_and_the_market_comes_back_without_a_copy(fleet):
    cart = []
    with fleet.connect("a") as conn:
        checkout = Checkout(conn, schema=SCHEMA)
        cart.append(quoted(checkout))
        answer = checkout.execute(**cart[0].request())
    moved = fleet.move("b").run()
    assert moved.followed_until is not None
    assert sells(fleet, "b")
    wait_until(lambda: caught_up(fleet, "b", "a"), "a does not follow b", 30)
    with fleet.connect("a") as conn, pytest.raises(MarketMoved):
        Checkout(conn, schema=SCHEMA).result(buyer_store_id=cart[0].buyer_store_id, cart_id=cart[0].id)
    with fleet.connect("a") as conn:
        born = values(conn, "select oid from pg_class where relname = 'vendor_orders'")

    assert fleet.move("a").plan().follows
    back = fleet.move("a").run()

    assert (back.epoch, back.proven, back.findings) == (2, True, 0)
    with fleet.connect("a") as conn:
        assert values(conn, "select oid from pg_class where relname = 'vendor_orders'") == born
        assert Checkout(conn, schema=SCHEMA).execute(**cart[0].request()).vendor_orders == answer.vendor_orders
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)
    wait_until(lambda: caught_up(fleet, "a", "b"), "b does not follow a", 30)


@pytest.mark.parametrize("step", ["leave", "retain", "freeze", "standbys", "mark", "open", "close", "clear", "follow"])
def test_a_return_that_dies_at_a_step_goes_on_from_there(fleet, step):
    fleet.move("b").run()
    with pytest.raises(Died):
        fleet.move("a", dies_at=step).run()
    frozen = step in ("standbys", "mark", "open")
    opened = step in ("close", "clear", "follow")

    assert (sells(fleet, "b"), sells(fleet, "a")) == (not frozen and not opened, opened)
    back = fleet.move("a").run()

    assert (back.epoch, back.server, back.findings) == (2, "a", 0)
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)
    forget(fleet, "b")
    assert left_behind(fleet, "a") == []


@pytest.mark.parametrize("step", ["retain", "open"])
def test_a_return_is_taken_back_and_the_server_goes_on_following(fleet, step):
    fleet.move("b").run()
    with pytest.raises(Died):
        fleet.move("a", dies_at=step).run()

    fleet.move("a").abort()

    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)
    wait_until(lambda: caught_up(fleet, "b", "a"), "a does not follow b", 30)
    with fleet.connect("a") as conn, pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        conn.execute("select market_open(2)")
    back = fleet.move("a").run()
    assert (back.epoch, back.proven, back.findings) == (3, True, 0)
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)


def test_a_return_whose_taking_back_died_between_the_servers_is_taken_back(fleet):
    fleet.move("b").run()
    with pytest.raises(Died):
        fleet.move("a", dies_at="open").run()
    with fleet.connect("a") as conn:
        conn.execute("select market_shut(2)")

    back = fleet.move("a").run()

    assert (back.epoch, back.proven, back.findings) == (3, True, 0)
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)


def test_of_a_return_and_its_taking_back_one_comes_first(fleet):
    fleet.move("b").run()
    with pytest.raises(Died):
        fleet.move("a", dies_at="open").run()

    one_comes_first(fleet, "a", 2, shut="moved", anew="epoch = 1")


def test_a_crash_before_the_follower_has_begun_sends_nothing_twice():
    """Where a slot was set to is on disk with the next checkpoint: what the target had copied would come again."""
    with embedded_server(**SETTINGS) as a, embedded_server(**SETTINGS) as b:
        migrate(a.dsn(), schema=SCHEMA, create_schema=True)
        fleet = Fleet({"a": a.dsn(), "b": b.dsn()})
        move = fleet.move("b")

        def told(step: str) -> None:
            if step == "freeze":
                assert sells(fleet, "a")  # comes to b behind the slot, and is none of what a is to be sent
            elif step == "follow":
                raise Died

        move.told = told
        with pytest.raises(Died):
            move.run()
        machine = CrashServer.of(b)
        machine.kill()
        machine.start()
        assert sells(fleet, "b")
        fleet.move("b").run()

        wait_until(lambda: caught_up(fleet, "b", "a"), "a does not follow b", 30)
        assert fleet.move("a").run().proven


def test_a_move_that_is_long_over_is_not_ended_again(fleet):
    """Its target sells by a later move: what belongs to that one, its sequences among it, stays as it is."""
    fleet.move("b").run()
    fleet.move("a").run()
    fleet.move("b").run()
    with fleet.connect("a") as conn:
        conn.execute("update checkout_market set epoch = 1")
    with fleet.connect("b") as conn:
        numbered = values(conn, "select nextval('checkout_audits_id_seq')")

    with pytest.raises(MoveRefused, match="move 1 is over, and the market is selling at b, in move 3"):
        fleet.move("b").run()
    fleet.move("b").finish()

    with fleet.connect("b") as conn:
        assert values(conn, "select nextval('checkout_audits_id_seq')") == [numbered[0] + 1]
        assert values(conn, "select followed_until from checkout_market") == [None]  # that was a
    assert sells(fleet, "b")


@contextmanager
def a_third(fleet: Fleet) -> Iterator[Fleet]:
    """From b to c, which is another database beside a."""
    name = f"moved_{next(_numbers)}"
    with psycopg.connect(fleet.databases["a"].rpartition("/")[0] + "/template1", autocommit=True) as admin:
        admin.execute(f"create database {name}")
    third = Fleet({"b": fleet.databases["b"], "c": f"{fleet.databases['a'].rpartition('/')[0]}/{name}"})
    try:
        yield third
    finally:
        dropped(Fleet({"c": third.databases["c"]}), name)


def test_a_move_is_not_taken_back_by_the_name_of_another_server(fleet):
    """The one that the market came from would be shut a second time, and the source opened beside the target."""
    fleet.move("b").run()
    fleet.move("b").finish()
    with a_third(fleet) as third:
        with pytest.raises(Died):
            third.move("c", dies_at="close").run()
        with pytest.raises(MoveRefused, match="the market is moving, to server c"):
            fleet.move("a").abort()
        assert (sells(fleet, "b"), sells(third, "c")) == (False, True)
        third.move("c").run()


def test_a_source_that_was_never_told_is_told_when_the_market_has_moved_on(fleet):
    with pytest.raises(Died):
        fleet.move("b", way_back=None, dies_at="close").run()
    with a_third(fleet) as third:
        third.move("c", way_back=None).run()
        with pytest.raises(MoveRefused, match="move 1 is over: b is moved in move 2"):
            fleet.move("b").abort()
        assert not sells(fleet, "a")
        with pytest.raises(MoveRefused, match="move 1 is over, and the market is moved at b, in move 2"):
            fleet.move("b").run()
        assert fleet.status()["a"].state == "moved"
        assert (sells(fleet, "a"), sells(fleet, "b"), sells(third, "c")) == (False, False, True)


def test_a_target_whose_standby_lacks_the_opening_is_opened_again(fleet):
    """As it is after a failover of the target, a moment after the source was told."""
    with pytest.raises(Died):
        fleet.move("b", dies_at="clear").run()
    with fleet.connect("b") as conn:
        lost = "update checkout_market set state = 'arriving', followed_until = null, followed_from = null"
        conn.execute(f"set session_replication_role = replica; {lost}")
        [mark] = conn.execute("delete from checkout_moves returning *").fetchall()
        assert (sells(fleet, "a"), sells(fleet, "b")) == (False, False)
        with pytest.raises(MoveRefused, match="b does not say what became of move 1: its schema is arriving"):
            fleet.move("b").run()
        conn.execute("insert into checkout_moves values (%s, %s, %s, %s)", mark)

    assert fleet.move("b").run().epoch == 1
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)


def test_a_follower_whose_standby_took_its_place_may_lack_rows(servers):
    """What its primary had confirmed is not sent again."""
    with a_fleet_of_a_pair(servers, synchronous=False) as (fleet, pair):
        fleet.move("b").run()
        pair.wait_until_replayed()
        pair.kill_primary()
        pair.promote()
        [problem] = fleet.move("a").plan().problems
        assert (problem.problem, problem.message) == (
            "way_back",
            "there was a failover at a, which may lack rows",
        )


def test_what_is_made_in_the_schema_meanwhile_does_not_come_back_unnoticed(fleet):
    fleet.move("b").run()
    made = "create table of_the_host (id int primary key)"
    with fleet.connect("b") as conn:
        conn.execute(made)
    with pytest.raises(MoveRefused, match=r"only b has .*of_the_host.*: the move is taken back"):
        fleet.move("a").run()
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)
    with fleet.connect("a") as conn:
        conn.execute(made)
    with pytest.raises(MoveRefused, match="table of_the_host was made later, and does not come along"):
        fleet.move("a").run()
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)


def test_a_source_that_cannot_reach_the_target_is_told_when_it_is_to_follow(fleet):
    with pytest.raises(MoveUnfinished, match="a cannot reach b, which has the market now, to follow it"):
        fleet.move("b", target_address="port=1").run()
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)

    assert fleet.move("b", way_back=None).run().followed_until is None
    assert left_behind(fleet, "b") == []


def test_the_host_of_an_address_is_asked_and_not_the_hostaddr_of_the_map(fleet):
    mapped = Fleet(fleet.databases | {"b": f"{fleet.databases['b']}?hostaddr=127.0.0.1"})
    with pytest.raises(MoveUnfinished, match=r"a cannot reach b, which has the market now, to follow it: .*/nowhere"):
        mapped.move("b", target_address="host=/nowhere").run()
    assert mapped.move("b", target_address="hostaddr=127.0.0.1").run().followed_until is not None


def test_a_finish_that_is_refused_leaves_no_file_in_its_own_way(fleet, tmp_path):
    fleet.move("b").run()
    dump = tmp_path / "a.dump"
    with fleet.connect("a") as conn:
        conn.execute("create view public.leads_in as select id from cart_records")
        with pytest.raises(MoveRefused, match="leads_in depends on"):
            fleet.move("b").finish(drop_source=True, dump=str(dump))
        conn.execute("drop view public.leads_in")
    with pytest.raises(MoveRefused, match="there is no pg_dump"):
        fleet.move("b", pg_dump="/bin/false").finish(drop_source=True, dump=str(dump))
    assert not dump.exists()
    dump.write_text("of somebody else")
    with pytest.raises(MoveRefused, match="cannot be made"):
        fleet.move("b").finish(drop_source=True, dump=str(dump))
    assert dump.read_text() == "of somebody else"
    dump.unlink()

    fleet.move("b").finish(drop_source=True, dump=str(dump))

    assert dump.read_bytes()[:5] == b"PGDMP"


def test_nothing_is_deployed_while_a_server_follows(fleet):
    fleet.move("b").run()
    with pytest.raises(MigrationError, match="has a server that follows"):
        migrate(fleet.databases["b"], schema=SCHEMA)
    with fleet.connect("b") as conn:
        refused = "has a server that follows, and nothing in its schema may change"
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=refused):
            conn.execute("select checkout_migration_open()")
    other = Fleet({"b": fleet.databases["b"], "c": fleet.databases["a"]})
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="follows still, and c is another"):
        other.move("c").run()

    fleet.move("b").finish()

    migrate(fleet.databases["b"], schema=SCHEMA)
    assert [*left_behind(fleet, "b")] == []
    assert [each.problem for each in fleet.move("a").plan().problems] == ["taken"]


def test_a_way_back_that_is_not_wanted_is_not_kept(fleet):
    moved = fleet.move("b", way_back=None).run()
    assert moved.followed_until is None
    assert left_behind(fleet, "b") == []
    migrate(fleet.databases["b"], schema=SCHEMA)


def lose_the_slot(fleet: Fleet) -> None:
    with fleet.connect("b") as conn:
        slots = "select slot_name from pg_replication_slots where database = current_database()"
        ended = (
            f"select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = any (array({slots}))"
        )

        def dropped() -> bool:
            values(conn, ended)
            try:
                values(conn, f"select pg_drop_replication_slot(slot_name) from ({slots}) as ours")
            except psycopg.errors.ObjectInUse:
                return False
            return values(conn, slots) == []

        wait_until(dropped, "the slot stays in use", 30)


def write_into_the_follower(fleet: Fleet) -> None:
    """Whoever passes the gate there: the next order from the other server does not fit."""
    wait_until(lambda: caught_up(fleet, "b", "a"), "a does not follow b", 30)
    with fleet.connect("a") as follower, fleet.connect("b") as market:
        follower.execute("set session_replication_role = replica")
        stocked = "insert into inventory_items (product_id, available_qty) values (gen_random_uuid(), 1)"
        [product] = values(follower, f"{stocked} returning product_id")
        market.execute("select inventory_set(%s, 5)", (product,))
        stopped = "select 1 from pg_subscription where subname like 'pycheckout_move_%%' and not subenabled"
        wait_until(lambda: values(follower, stopped), "the subscription goes on", 30)


@pytest.mark.parametrize(
    ("harm", "why"),
    [(lose_the_slot, "b has lost the slot"), (write_into_the_follower, "the subscription met an error and stopped")],
)
def test_a_way_back_that_is_broken_is_told_and_the_market_is_copied_anew(fleet, tmp_path, harm, why):
    fleet.move("b").run()
    harm(fleet)

    [problem] = fleet.move("a").plan().problems
    assert (problem.problem, problem.message.startswith(why)) == ("way_back", True)
    with pytest.raises(MoveRefused, match=why):
        fleet.move("a").run()
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)

    fleet.move("b").finish(drop_source=True, dump=str(tmp_path / "a.dump"))
    assert fleet.move("a").run().proven
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)


def test_a_way_back_that_outlives_its_time_is_named(fleet):
    fleet.move("b").run()
    with fleet.connect("b") as conn:
        conn.row_factory = psycopg.rows.dict_row
        assert _doctor.findings(conn, SCHEMA, timedelta(hours=1)) == []
        with fleet.connect("a") as follower:
            [name] = values(follower, "select subname from pg_subscription where subname like 'pycheckout_move_%%'")
            follower.execute(f"alter subscription {name} disable")
        silent = "select 1 where not exists (select from pg_replication_slots where active)"
        wait_until(lambda: conn.execute(silent).fetchall(), "it follows", 30)
        [found] = [each for each in _doctor.findings(conn, SCHEMA, timedelta(hours=1)) if each.check == "market_away"]
        assert found.problem.startswith("is not followed")
        with fleet.connect("a") as follower:
            follower.execute(f"alter subscription {name} enable")
        wait_until(lambda: not conn.execute(silent).fetchall(), "it does not follow", 30)
        conn.execute("update checkout_market set followed_until = now() - interval '1 minute'")
        [found] = [each for each in _doctor.findings(conn, SCHEMA, timedelta(hours=1)) if each.check == "market_away"]
    assert (found.subject, found.remedy) == ("way back", "pycheckout market finish")


# What else


def test_sequences_go_on_where_they_were(fleet):
    with fleet.connect("a") as conn:
        conn.execute("create sequence of_the_host start 100")
        conn.execute("create sequence never_called start 7")
        conn.execute("select nextval('of_the_host')")
        [audits] = values(conn, "select nextval('checkout_audits_id_seq')")
    fleet.move("b").run()
    with fleet.connect("b") as conn:
        named = ("checkout_audits_id_seq", "of_the_host", "never_called")
        assert [values(conn, f"select nextval('{name}')") for name in named] == [[audits + 2], [101], [7]]


def test_each_event_is_published_by_the_relay_of_one_server_or_the_other(fleet):
    """What the source's had confirmed before the gate is marked at the target, and the rest is sent there."""
    assert sells(fleet, "a")
    assert sells(fleet, "a")
    with fleet.connect("a") as conn:
        every = set(values(conn, "select id from outbox_events"))
        [claim] = values(conn, "select distinct claim_id from outbox_claim(1, '1 ms')")
        [confirmed] = values(conn, "select id from outbox_events where claim_id = %s", claim)
        values(conn, "select outbox_ack(%s, array[%s::uuid])", claim, confirmed)
        [late] = values(conn, "select distinct claim_id from outbox_claim(1, '1 ms')")
        [sent] = values(conn, "select id from outbox_events where claim_id = %s", late)

    fleet.move("b").run()

    with fleet.connect("a") as conn, pytest.raises(psycopg.DatabaseError, match="has moved to server b"):
        values(conn, "select outbox_ack(%s, array[%s::uuid])", late, sent)
    published = set()
    with fleet.connect("b") as conn:
        while claimed := conn.execute("select id, claim_id from outbox_claim(100)").fetchall():
            for event, claim in claimed:
                published.add(event)
                values(conn, "select outbox_ack(%s, array[%s::uuid])", claim, event)
    assert published == every - {confirmed}


def test_roles_are_the_targets_own_afterwards(fleet):
    name = f"clerk_{next(_numbers)}"
    for at in ("b", "a"):
        with psycopg.connect(fleet.databases[at], autocommit=True) as conn:
            if at == "b":
                conn.execute("create role unlike")  # so that oids differ
            conn.execute(f"create role {name} login password 'x'")
    with fleet.connect("a") as conn:
        conn.execute(f"select checkout_grant('{name}')")
    fleet.move("b").run()
    with fleet.connect("b") as conn:
        [agree] = values(
            conn, "select role_oid = (select oid from pg_roles where rolname = role_name) from checkout_roles"
        )
        assert agree
        conn.execute(f"set role {name}")
        checkout = Checkout(conn, schema=SCHEMA)
        assert checkout.orders.list(buyer_store_id="b0000000-0000-4000-8000-00000000abcd").orders == ()


def test_what_a_move_copies_is_not_changed_meanwhile(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()
    with pytest.raises(MigrationError, match="the market moves"):
        migrate(fleet.databases["a"], schema=SCHEMA)
    with fleet.connect("a") as conn:
        conn.execute("alter table cart_records add column of_the_host text")
    with pytest.raises(MoveUnfinished, match="only a has column cart_records"):
        fleet.move("b").run()
    assert (sells(fleet, "a"), sells(fleet, "b")) == (True, False)
    fleet.move("b").abort()
    assert fleet.move("b").run().proven


def test_rows_that_pass_the_gate_are_found(fleet):
    move = fleet.move("b")

    def told(step: str) -> None:
        if step == "prove":
            with fleet.connect("a") as conn:
                conn.execute("set session_replication_role = replica")
                conn.execute("insert into checkout_audits (began_at, ended_at, findings) values (now(), now(), 0)")

    move.told = told
    with pytest.raises(MoveDoubtful, match="other rows than a when it was opened: checkout_audits"):
        move.run()


def taken_back(fleet):
    return (sells(fleet, "a"), sells(fleet, "b"), left_behind(fleet, "a")) == (True, False, [])


def test_a_move_for_which_the_source_keeps_too_much_is_taken_back(fleet):
    with pytest.raises(MoveRefused, match=r"a keeps [\d,]+ bytes of WAL for the move: the move is taken back"):
        fleet.move("b", max_wal=-1).run()
    assert taken_back(fleet)


def test_a_move_whose_subscription_meets_an_error_is_taken_back(fleet):
    """Somebody who passes the gate wrote into the target, and a row of the source does not fit there."""
    stocked = (
        "insert into inventory_items (product_id, available_qty) values (gen_random_uuid(), 1) returning product_id"
    )

    def told(step):
        if step == "calm":
            with fleet.connect("b") as target, fleet.connect("a") as source:
                target.execute("set session_replication_role = replica")
                [product] = values(target, stocked)
                source.execute("select inventory_set(%s, 5)", (product,))

    move = fleet.move("b")
    move.told = told
    with pytest.raises(MoveRefused, match="the subscription met an error and stopped"):
        move.run()
    assert taken_back(fleet)


def test_a_second_move_of_the_market_is_refused(fleet):
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()
    other = Fleet({"a": fleet.databases["a"], "c": fleet.databases["b"]})
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="leaving already, in move 1"):
        other.move("c").run()
    with ThreadPoolExecutor(1) as threads:
        move = fleet.move("b")

        def told(step: str) -> None:
            if step == "open":
                second = threads.submit(fleet.move("b").abort)
                with pytest.raises(MoveRefused, match="another command moves this market"):
                    second.result(timeout=20)

        move.told = told
        assert move.run().proven


def test_what_would_break_a_move_is_said_before_it_begins(fleet):
    with fleet.connect("a") as conn:
        conn.execute("create table of_the_host (word text); create unlogged table quick (id int primary key)")
        conn.execute("create view public.leads_in as select id from cart_records")
        conn.execute("create role stranger; grant select on cart_items to stranger")
    with fleet.connect("b") as conn:
        conn.execute(f"create schema {SCHEMA}")

    found = [each.problem for each in fleet.move("b").plan().problems]

    assert found == ["taken", "roles", "table", "table", "leads_out"]
    with pytest.raises(MoveRefused, match="stranger"):
        fleet.move("b").run()
    assert fleet.status()["a"].state == "selling"
    with fleet.connect("b") as conn:
        conn.execute("alter system set max_sync_workers_per_subscription = 10")  # as many as the source has senders
        try:
            values(conn, "select pg_reload_conf()")
            wait_until(lambda: values(conn, "show max_sync_workers_per_subscription") == ["10"], "it stays")
            assert "slots" in [each.problem for each in fleet.move("b").plan().problems]
        finally:
            conn.execute("alter system reset max_sync_workers_per_subscription")
            values(conn, "select pg_reload_conf()")
    same = Fleet(fleet.databases | {"b": fleet.databases["a"]})
    with pytest.raises(MoveRefused, match="a and b are one server"):
        same.move("b").plan()


# Those who ask


def test_callers_follow_a_market_and_one_without_the_way_is_told(fleet):
    with fleet.markets() as plain, fleet.markets() as looped, fleet.markets(servers=()) as short:
        cart = quoted(plain["ok"])
        answer = plain["ok"].execute(**cart.request())
        fleet.move("b").run()
        with pytest.raises(MarketMoved) as told:
            short["ok"].execute(**cart.request())
        assert (told.value.detail, told.value.retryable) == ({"server": "b", "epoch": 1}, False)

        assert plain["ok"].execute(**cart.request()).vendor_orders == answer.vendor_orders
        assert plain.where("ok").server == "b"

        async def read():
            async with looped.async_ as markets:
                both = [markets["ok"].orders.list(buyer_store_id=cart.buyer_store_id, timeout=20) for _ in range(3)]
                return [len(page.orders) for page in await asyncio.gather(*both)]

        assert asyncio.run(read()) == [2, 2, 2]
        with psycopg.connect(fleet.databases["a"], autocommit=True) as conn, pytest.raises(MarketMoved):
            Checkout(conn, schema=SCHEMA).result(buyer_store_id=cart.buyer_store_id, cart_id=cart.id)


def test_an_operator_plans_moves_and_finishes(fleet, tmp_path):
    path, dump = fleet.written_map(tmp_path / "markets.toml"), tmp_path / "source.dump"

    def market(*command: str) -> subprocess.CompletedProcess[str]:
        return run_command("market", *command, "--markets", path)

    planned = market("move", "ok", "--to", "b", "--plan")
    assert (planned.returncode, planned.stderr) == (0, "")
    assert planned.stdout.startswith("would copy ")
    early = market("finish", "ok", "--to", "b")
    assert (early.returncode, early.stderr.splitlines()[0]) == (
        1,
        "pycheckout: market ok: the market is selling at a, and not at b",
    )
    moved = market("move", "ok", "--to", "b")
    assert moved.returncode == 0, moved.stderr
    assert [line.split()[1] for line in moved.stdout.splitlines()[:-3]] == list(STEPS)
    assert "every row is the same" in moved.stdout
    assert re.search(r"^a follows, as a way back, until 20\d\d-", moved.stdout, re.MULTILINE)
    gone, sold = market("status", "ok", "--to", "b").stdout.splitlines()
    assert (gone, sold.partition(", followed until ")[0]) == ("a: moved, move 1", "b: selling, move 1")
    back = market("move", "ok", "--to", "a", "--from", "b", "--plan")
    assert (back.returncode, back.stdout.partition(",")[0]) == (0, "would copy nothing: the server has followed")
    stale = run_command("doctor", "--market", "ok", "--markets", path, "--json")
    assert [
        each["remedy"] for each in map(json.loads, stale.stdout.splitlines()) if each["check"] == "market_away"
    ] == ['server = "b" in the map']
    done = market("finish", "ok", "--to", "b", "--drop-source", "--dump", str(dump))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f'market ok is at b; schema "{SCHEMA}" of a was dumped into {dump}, and dropped\n'
    again = market("finish", "ok", "--to", "b", "--drop-source", "--dump", str(dump))
    assert (again.returncode, again.stderr.splitlines()[0]) == (
        1,
        f'pycheckout: market ok: a has no schema "{SCHEMA}", and the market is sold in at b: nothing is left to finish',
    )
    assert dump.read_bytes()[:5] == b"PGDMP"
    assert left_behind(fleet, "a") == left_behind(fleet, "b") == []
    assert (sells(fleet, "a"), sells(fleet, "b")) == (False, True)
