"""Two servers, a market on one of them, and moves of it.

    python tests/moving.py [--times 34] [--callers 4] [--rate 50]
    python tests/moving.py --kill source|target|primary [--step STEP ...]

Moves a market back and forth under callers who hold one map all the time: each second time it comes back to a server
that has followed, without a copy. The command dies once at each of its steps.
The callers keep books, and at the end the server that has the market is counted against them. Prints how long the
market was frozen, and the longest time in which no caller was answered. Exit status 1 if something is lost or doubled.

With --kill, a move for each step, and at that step a server is killed and started again; or the source's primary is
killed, and its synchronous standby promoted. The command goes on, or is run once more where it took the move back.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from crash import CrashServer
from failover import CALLERS, SCHEMA, Books, a_pair, count, sell
from psycopg import sql

from pycheckout import migrate
from pycheckout._embedded import embedded_server
from pycheckout._move import STEPS, Move, Moved, MoveRefused, MoveUnfinished, Options, Place, Status
from pycheckout.markets import Market, Markets, Pools
from races import wait_until

SETTINGS: dict[str, Any] = {
    "in_memory": True,
    "wal_level": "logical",
    "max_slot_wal_keep_size": "4GB",
    "max_connections": 80,
    "shared_buffers": "32MB",
    "max_worker_processes": 20,
    "wal_retrieve_retry_interval": "5ms",
    "max_logical_replication_workers": 12,
    "max_sync_workers_per_subscription": 4,
}


class Died(BaseException):
    """The command is gone at once, as if it had been killed: no undo runs. Its sessions end with it."""


@dataclass
class Fleet:
    """A database on each of two servers."""

    databases: dict[str, str]

    def move(self, to: str, *, dies_at: str | None = None, **options: Any) -> Move:
        """A move from the other server, to be run."""
        leaves = next(name for name in self.databases if name != to)
        source, target = (Place(name=name, database=self.databases[name]) for name in (leaves, to))
        options = {"pause": (0.01, 0.05), "frozen": 10.0} | options
        move = Move(SCHEMA, source, target, Options(**options))
        if dies_at is not None:

            def told(step: str) -> None:
                if step == dies_at:
                    raise Died

            move.told = told
        return move

    def markets(self, at: str = "a", *, servers: tuple[str, ...] = ("a", "b"), **pools: Any) -> Markets:
        """As a service has it, whose map names one server."""
        return Markets(
            {"ok": Market(name="ok", server=at, database=self.databases[at], schema=SCHEMA)},
            pools=Pools(**{"max_size": CALLERS} | pools),
            servers={name: self.databases[name] for name in servers},
        )

    def written_map(self, path: Path, at: str = "a") -> str:
        """The path of a map that is written there, for the command line; the market is at that server by it."""
        servers = "".join(f'[server.{name}]\ndatabase = "{url}"\n' for name, url in self.databases.items())
        path.write_text(f'{servers}[market.ok]\nserver = "{at}"\nschema = "{SCHEMA}"\n')
        return str(path)

    def connect(self, at: str, **options: Any) -> psycopg.Connection[Any]:
        options = {"options": f"-c search_path={SCHEMA} -c statement_timeout=20s", "autocommit": True} | options
        return psycopg.connect(self.databases[at], **options)

    def status(self) -> dict[str, Status]:
        a, b = self.move("b").status()
        return {"a": a, "b": b}


@contextmanager
def two_servers() -> Iterator[dict[str, str]]:
    """The URLs of two servers; the first has a market in its database `postgres`."""
    with embedded_server(**SETTINGS) as a, embedded_server(**SETTINGS) as b:
        migrate(a.dsn(), schema=SCHEMA, create_schema=True)
        yield {"a": a.dsn(), "b": b.dsn()}


@contextmanager
def database_of_each(servers: dict[str, str], name: str) -> Iterator[Fleet]:
    """A copy of the first server's database, and an empty one at the second."""
    databases = {}
    for server, url in servers.items():
        with psycopg.connect(url.rpartition("/")[0] + "/template1", autocommit=True) as admin:
            template = "postgres" if server == "a" else "template0"
            query = "create database {} template {}"
            admin.execute(sql.SQL(query).format(sql.Identifier(name), sql.Identifier(template)))
        databases[server] = f"{url.rpartition('/')[0]}/{name}"
    fleet = Fleet(databases)
    try:
        yield fleet
    finally:
        dropped(fleet, name)


def dropped(fleet: Fleet, name: str) -> None:
    """Without the subscriptions and slots of moves that stand still: a server has few workers for them."""
    for url in fleet.databases.values():
        with psycopg.connect(url, autocommit=True) as conn:
            here = "select oid from pg_database where datname = current_database()"
            for (each,) in conn.execute(f"select subname from pg_subscription where subdbid = ({here})").fetchall():
                subscription = sql.Identifier(each)
                conn.execute(sql.SQL("alter subscription {} disable").format(subscription))
                conn.execute(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
                conn.execute(sql.SQL("drop subscription {}").format(subscription))
    for url in fleet.databases.values():
        with psycopg.connect(url.rpartition("/")[0] + "/template1", autocommit=True) as admin:
            wait_until(lambda admin=admin: _freed(admin, name), "a slot stays in use", 30)
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            roles = "select rolname from pg_roles where rolname like 'pycheckout_move_%'"
            for (role,) in admin.execute(roles).fetchall():
                with suppress(psycopg.errors.DependentObjectsStillExist):  # of another database, which drops it later
                    admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def _freed(admin: psycopg.Connection[Any], database: str) -> bool:
    slots = "select slot_name, active_pid from pg_replication_slots where database = %s"
    found = admin.execute(slots, (database,)).fetchall()
    for slot, pid in found:
        admin.execute("select pg_terminate_backend(%s)", (pid,))
        with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
            admin.execute("select pg_drop_replication_slot(%s)", (slot,))
    return not found


@dataclass
class Sellers:
    """Callers at work, and their books."""

    markets: Markets
    products: list[UUID] = field(default_factory=lambda: [uuid4() for _ in range(12)])
    books: Books = field(default_factory=Books)
    shelf: int = 1_000_000


@contextmanager
def selling(fleet: Fleet, *, callers: int = CALLERS, rate: float | None = None) -> Iterator[Sellers]:
    """Callers who sell as long as the block runs, with a map that says where the market was at its beginning: at "a".

    `rate`: orders a second at most, of all of them.
    """
    ended = threading.Event()
    with fleet.markets(max_size=callers) as markets, ThreadPoolExecutor(callers) as threads:
        sellers = Sellers(markets)
        markets["ok"].stock.set_many(dict.fromkeys(sellers.products, sellers.shelf))

        def work() -> None:
            while not ended.is_set():
                so_far, began = len(sellers.books.times), time.monotonic()
                sell(markets["ok"], sellers.products, sellers.books, so_far + 1, None, True)
                if rate is not None:
                    ended.wait(callers / rate - (time.monotonic() - began))

        working = [threads.submit(work) for _ in range(callers)]
        try:
            wait_until(lambda: len(sellers.books.times) >= 20 or any(it.done() for it in working), "nobody sells", 60)
            yield sellers
            more = len(sellers.books.times) + 20
            wait_until(lambda: len(sellers.books.times) >= more or any(it.done() for it in working), "nobody sells", 60)
        finally:
            ended.set()
        for each in working:
            each.result(timeout=60)


def judged(fleet: Fleet, at: str, sellers: Sellers) -> list[str]:
    """What is wrong with the books at the server that has the market."""
    counted = count(fleet.databases[at], sellers.books, sellers.products, sellers.shelf)
    assert counted.answered > 0
    return [f"{counted.lost} answered orders are lost"] * bool(counted.lost) + counted.wrong


def forget(fleet: Fleet, at: str) -> None:
    """What a market that moved away left behind, its way back among it."""
    fleet.move(next(name for name in fleet.databases if name != at)).finish()
    drop(fleet, at)


def drop(fleet: Fleet, at: str) -> None:
    with psycopg.connect(fleet.databases[at], autocommit=True) as conn:
        conn.execute(f"drop schema {SCHEMA} cascade")


def until_done(fleet: Fleet, to: str, dies_at: str | None, say: Callable[[str], None]) -> Moved:
    """The command is run until it ends, and dies once."""
    try:
        return fleet.move(to, dies_at=dies_at).run()
    except Died:
        say(f"died at {dies_at}")
    return fleet.move(to).run()


@contextmanager
def fleet_that_dies(victim: str) -> Iterator[tuple[Fleet, Callable[[], None]]]:
    """Two servers with a market on the first, and what kills the victim: after that, another is in its place."""
    if victim == "primary":
        with a_pair(synchronous=True, **SETTINGS) as pair, embedded_server(**SETTINGS) as b:

            def fail_over() -> None:
                pair.kill_primary()
                pair.promote()

            yield Fleet({"a": pair.both(pair.primary.port), "b": b.dsn()}), fail_over
        return
    with embedded_server(**SETTINGS) as a, embedded_server(**SETTINGS) as b:
        migrate(a.dsn(), schema=SCHEMA, create_schema=True)
        machine = CrashServer.of({"source": a, "target": b}[victim])

        def crash() -> None:
            machine.kill()
            machine.start()

        yield Fleet({"a": a.dsn(), "b": b.dsn()}), crash


def drill(victim: str, step: str, callers: int, rate: float) -> tuple[str, list[str]]:
    """A move under load that loses a server at a step: how it went, and what is wrong afterwards."""
    dying = {step}
    with fleet_that_dies(victim) as (fleet, die):
        with selling(fleet, callers=callers, rate=rate) as sellers:
            move = fleet.move("b", frozen=60.0)

            def told(now: str) -> None:
                if now in dying:
                    dying.remove(now)
                    die()

            move.told = told
            how = "went on"
            try:
                moved = move.run()
            except (MoveRefused, MoveUnfinished) as error:
                how = f"run again, since {error.message}"
                moved = fleet.move("b").run()
        wrong = judged(fleet, "b", sellers)
    wrong += [f"{moved.findings} findings"] * bool(moved.findings) + ["it did not die"] * bool(dying)
    return how, wrong


def kill_at(victim: str, steps: Sequence[str], callers: int, rate: float) -> int:
    failed = False
    for step in steps:
        how, wrong = drill(victim, step, callers, rate)
        failed |= bool(wrong)
        print(f"{victim} killed at {step}: {how}; wrong: {wrong or 'nothing'}", flush=True)
    return 1 if failed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2 * len(STEPS))
    parser.add_argument("--callers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=50, help="orders a second")
    parser.add_argument("--kill", choices=["source", "target", "primary"], help="kill a server at each step instead")
    parser.add_argument("--step", choices=STEPS, nargs="*", default=STEPS, help="at these steps")
    asked = parser.parse_args()
    logging.getLogger("psycopg").setLevel(logging.CRITICAL)  # of servers that are away
    if asked.kill:
        return kill_at(asked.kill, asked.step, asked.callers, asked.rate)
    frozen, gaps = [], []
    with two_servers() as servers, database_of_each(servers, "moving") as fleet:
        with selling(fleet, callers=asked.callers, rate=asked.rate) as sellers:
            at = "a"
            for number in range(asked.times):
                to = "b" if at == "a" else "a"
                comes_back, dies = number % 2 == 1, number % 4 in (1, 2)
                dies_at = STEPS[number // 2 % len(STEPS)] if dies else None
                began, sold = time.monotonic(), len(sellers.books.times)
                moved = until_done(fleet, to, dies_at, print)
                if dies_at is None and moved.frozen_seconds is not None:
                    frozen.append(moved.frozen_seconds)
                    wait_until(lambda sold=sold: len(sellers.books.times) > sold + 10, "nobody sells", 60)
                    times = [began, *(each for each in sorted(sellers.books.times) if each > began)]
                    gaps.append(max(later - earlier for earlier, later in itertools.pairwise(times)))
                took = time.monotonic() - began
                way = "back to" if comes_back else "to"
                print(
                    f"move {moved.epoch} {way} {to}: {took:.1f} s,"
                    f" frozen {moved.frozen_seconds} s, {moved.tries} tries, proven {moved.proven},"
                    f" {len(sellers.books.times)} orders",
                    flush=True,
                )
                if comes_back:
                    forget(fleet, at)
                at = to
        wrong = judged(fleet, at, sellers)
    for name, found in (("frozen", frozen), ("longest gap", gaps)):
        if len(found) > 1:
            steps = statistics.quantiles(found, n=20, method="inclusive")
            print(f"{name}: median {steps[9]:.3f} s, 95 % {steps[18]:.3f} s, most {max(found):.3f} s of {len(found)}")
    print(f"{len(sellers.books.answers)} orders answered; wrong: {wrong or 'nothing'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
