"""Run the benchmarks: python -m benchmarks.run [--full] [--only LOAD ...] [--rounds N] [--seconds N]

One server for all. A load's contenders take turns: in each round every one of them runs once, in the other order than
the round before, so that whatever else the machine does hits all alike; ratios are taken within a round. What happens
in a load, in this order, since full-page images after a checkpoint would hide everything else:

1. databases with stock and, where the load says so, old orders;
2. a checkpoint, the last one until the load ends;
3. a short run of each contender, which also says how many carts it will take;
4. all carts are quoted, hence on pages younger than the checkpoint; vacuum, analyze;
5. the rounds. Of each run the first seconds are not counted, in which new sessions plan their statements;
6. one client alone, counted: statements, buffers, WAL;
7. checkout_audit() on every database but those that plan.py leaves out.

Results go into a JSON file, load by load: those not run keep what they had.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

from benchmarks import loads, neworder, report, server, special
from benchmarks.delay import delayed
from benchmarks.drivers import CHECKOUTS, DRIVERS, FLOORS, OWN_TABLES, PGBENCH, Run, Task
from benchmarks.plan import LOADS, Contender, Load, Setup
from pycheckout._embedded import EmbeddedServer

PGBENCH_SCALE = 20
# Runs that count statements: a short one is taken off a longer one, and so is what a new session does once. The longer
# one has each basket of the sample once, so that everybody counts the same carts.
FEW, MANY = 20, 100
SPECIAL = {
    "lines": special.lines,
    "line-instructions": special.line_instructions,
    "client": special.client,
    "rush": special.rush,
    "memory": special.memory,
    "profile": special.profile,
}


class Database:
    """The database of a setup, and how many of its carts are taken."""

    def __init__(self, embedded: EmbeddedServer, name: str, setup: Setup) -> None:
        self.server, self.name, self.setup = embedded, name, setup
        self.taken = self.seeded = 0
        with server.admin(embedded) as conn:
            conn.execute(f"create database {name} template {server.TEMPLATE}")
        with server.admin(embedded, name) as conn:
            self.templates, self.lines = loads.prepare(conn, setup.shape, setup.slots)
            if setup.orders:
                self.taken = self.seeded = loads.preload(conn, setup.shape, setup.orders)
                conn.execute("vacuum analyze")

    def supply(self, carts: int) -> None:
        """Quote so many carts more than there are left."""
        missing = self.taken + carts - self.seeded
        if missing > 0:
            with server.admin(self.server, self.name) as conn:
                loads.seed(conn, self.setup.shape, self.seeded, missing)
            self.seeded += missing

    def take(self, carts: int) -> int:
        """The first of so many carts that nobody has yet."""
        self.supply(carts)
        self.taken += carts
        return self.taken - carts

    def seq_scans(self) -> int:
        with server.admin(self.server, self.name) as conn:
            query = "select sum(seq_scan)::bigint from pg_stat_user_tables where schemaname = 'public'"
            return int(conn.execute(query).fetchone()[0])

    def audit(self, drivers: Collection[str] = ()) -> None:
        """Nothing is broken but the floor's events, which have the payload of its first cart in all of them."""
        but = "event_%" if {*drivers} & {*FLOORS} else ""
        with server.admin(self.server, self.name) as conn:
            query = "select * from checkout_audit() where invariant not like %s limit 5"
            broken = conn.execute(query, (but,)).fetchall()
        if broken:
            sys.exit(f"{self.name} {self.setup}: the audit found {broken}")

    def drop(self) -> None:
        with server.admin(self.server) as conn:
            conn.execute(f"drop database {self.name} with (force)")


class Measured:
    """A contender, its database, and what its runs came to."""

    def __init__(self, contender: Contender, database: Database | None, dsn: str) -> None:
        self.contender, self.database, self.dsn = contender, database, dsn
        self.rate = 0.0
        self.done = 0  # checkouts, those before the rounds included
        self.rounds: list[dict[str, float]] = []
        self.work: dict[str, float] = {}
        self.waits: Counter[str] | None = None

    def run(self, embedded: EmbeddedServer, *, clients: int, carts: int, **how: Any) -> Run:
        first = self.database.take(carts) if self.database and self.contender.driver in CHECKOUTS else 0
        task = Task(
            dsn=self.dsn,
            bin=embedded.bin,
            password=embedded.password,
            shape=self.contender.setup.shape,
            clients=clients,
            first=first,
            **how,
        )
        run = DRIVERS[self.contender.driver](task)
        # What is checked out twice is a replay, and no figure.
        assert self.contender.driver not in CHECKOUTS or run.turns * clients <= carts, "more carts than expected"
        server.settle(embedded)
        self.done += len(run.transactions)
        return run

    def try_out(self, embedded: EmbeddedServer) -> None:
        """How fast it is, from the later half of a short run."""
        clients = self.contender.clients
        count = 100 if self.contender.driver in PGBENCH else 16
        done = sorted(self.run(embedded, clients=clients, carts=clients * count, count=count).transactions)
        later = done[len(done) // 2 :]
        self.rate = max(len(later) / max(later[-1][0] - done[len(done) // 2 - 1][0], 1e-3), self.rate)

    def carts(self, seconds: float) -> int:
        """More than it can take in that time."""
        return self.contender.clients * (math.ceil(self.rate * seconds * 3 / self.contender.clients) + 50)

    def measure(self, embedded: EmbeddedServer, warm_up: int, seconds: int) -> None:
        cpu = server.Cpu(embedded)
        waits = server.Waits(embedded) if self.waits is not None else None
        how = {"clients": self.contender.clients, "seconds": warm_up + seconds}
        try:
            run = self.run(embedded, carts=self.carts(warm_up + seconds), **how)
        finally:
            cpu.stop()
            if waits:
                self.waits = waits.stop() + (self.waits or Counter())
        began = run.began + warm_up
        latencies = sorted(run.between(began, began + seconds))
        self.rate = max(self.rate, len(latencies) / seconds)
        percentiles = statistics.quantiles(latencies, n=100)
        self.rounds.append(
            {
                "rate": len(latencies) / seconds,
                "done": self.done,
                "p50_ms": percentiles[49] * 1000,
                "p95_ms": percentiles[94] * 1000,
                "p99_ms": percentiles[98] * 1000,
                "cpu_ms": cpu.between(began, began + seconds) / len(latencies) * 1000,
            }
        )

    def count(self, embedded: EmbeddedServer) -> None:
        if self.database:  # past the delay, which changes no count
            self.dsn = embedded.dsn(self.database.name)
        sums: list[dict[str, int]] = []
        sample = self.database if self.contender.setup.shape.baskets == "sample" else None
        many = sample.templates if sample else MANY
        if self.database:  # quotes are no part of what is counted
            self.database.supply(FEW + FEW + many)
        for count in (FEW, FEW + many):
            before = server.work(embedded)
            self.run(embedded, clients=1, carts=count, count=count, options=server.COUNTED)
            after = server.work(embedded)
            sums.append({name: value - asdict(before)[name] for name, value in asdict(after).items()})
        self.work = {name: max((sums[1][name] - sums[0][name]) / many, 0) for name in sums[0]}

    def figures(self) -> dict[str, Any]:
        setup = asdict(self.contender.setup)
        spread = {
            name: {
                "median": _rounded(statistics.median(each[name] for each in self.rounds)),
                "min": _rounded(min(each[name] for each in self.rounds)),
                "max": _rounded(max(each[name] for each in self.rounds)),
            }
            for name in self.rounds[0]
            if name != "done"
        }
        return {
            "driver": self.contender.driver,
            "clients": self.contender.clients,
            "delayed": self.contender.delayed,
            "setup": {name: value for name, value in setup.items() if name != "audited"},
            "lines": self.database.lines if self.database else None,
            "rates": [_rounded(each["rate"]) for each in self.rounds],
            "done": [each["done"] for each in self.rounds],
            **spread,
            "waits": {event: round(seen / self.waits.total(), 3) for event, seen in self.waits.most_common()}
            if self.waits
            else {},
            "work": {name: _rounded(value) for name, value in self.work.items()},
        }


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def measure(embedded: EmbeddedServer, load: Load, rounds: int, seconds: int) -> dict[str, Any]:
    with ExitStack() as stack:
        databases: dict[Setup, Database] = {}
        for contender in load.contenders:
            if contender.driver not in OWN_TABLES and contender.setup not in databases:
                databases[contender.setup] = Database(embedded, f"bench_{len(databases)}", contender.setup)
        with server.admin(embedded) as conn:
            conn.execute("checkpoint")
        port = embedded.port
        if any(contender.delayed for contender in load.contenders):
            port = stack.enter_context(delayed(embedded.host, embedded.port))
        for database in databases.values():
            if database.setup.snapshot:
                conn = stack.enter_context(server.admin(embedded, database.name))
                conn.autocommit = False
                conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                conn.execute("select from inventory_items limit 1")

        measured = []
        for contender in load.contenders:
            if contender.driver in OWN_TABLES:
                made = _pgbench_database if contender.driver == "simple-update" else _new_order_database
                measured.append(Measured(contender, None, made(embedded)))
                continue
            database = databases[contender.setup]
            dsn = embedded.dsn(database.name)
            if contender.delayed:
                dsn = dsn.replace(f":{embedded.port}/", f":{port}/")
            measured.append(Measured(contender, database, dsn))

        for each in measured:
            each.try_out(embedded)
            each.waits = Counter() if load.waits else None
        warm_up = 1 if max(each.contender.clients for each in measured) <= 8 else 2
        for database in databases.values():
            own = [each for each in measured if each.database is database and each.contender.driver in CHECKOUTS]
            # where a rate is followed for long, each round has its carts quoted before it begins
            first = 1 if load.rounds else rounds
            database.supply(sum(each.carts(warm_up + seconds) * first + 2 * FEW + 500 for each in own))
            with server.admin(embedded, database.name) as conn:
                if not database.setup.orders:
                    conn.execute("vacuum analyze")

        scans = {setup: database.seq_scans() for setup, database in databases.items()}
        for number in range(rounds):
            for each in measured if number % 2 else reversed(measured):
                each.measure(embedded, warm_up, seconds)
        round_trip = _round_trip_ms(measured[0].dsn)
        with server.undisturbed(embedded):
            for each in measured:
                each.count(embedded)
        only_ours = all(each.contender.driver in ("function", "execute") for each in measured)
        seq_scans = sum(database.seq_scans() - scans[setup] for setup, database in databases.items())
        stack.close()

        for database in databases.values():
            if database.setup.audited:
                database.audit({each.contender.driver for each in measured if each.database is database})
            database.drop()
        return {
            "title": load.title,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rounds": rounds,
            "seconds": seconds,
            "warm_up_seconds": warm_up,
            "round_trip_ms": round_trip,
            "seq_scans": seq_scans if only_ours else None,
            "contenders": [each.figures() for each in measured],
        }


def _pgbench_database(embedded: EmbeddedServer) -> str:
    """pgbench's own tables, new, hence on pages younger than the checkpoint."""
    with server.admin(embedded) as conn:
        conn.execute("drop database if exists bench_pgbench with (force)")
        conn.execute("create database bench_pgbench")
    dsn = embedded.dsn("bench_pgbench")
    command = [embedded.bin / "pgbench", "-i", "-q", "-s", str(PGBENCH_SCALE), dsn]
    env = os.environ | {"PGPASSWORD": embedded.password}
    subprocess.run(command, env=env, check=True, capture_output=True)
    return dsn


def _new_order_database(embedded: EmbeddedServer) -> str:
    with server.admin(embedded) as conn:
        conn.execute("drop database if exists bench_new_order with (force)")
        conn.execute("create database bench_new_order")
    with server.admin(embedded, "bench_new_order") as conn:
        neworder.create(conn)
    return embedded.dsn("bench_new_order")


def _round_trip_ms(dsn: str) -> float:
    with psycopg.connect(dsn, autocommit=True) as conn:
        times = []
        for _ in range(300):
            began = time.perf_counter()
            conn.execute("select 1")
            times.append(time.perf_counter() - began)
        return round(statistics.median(times) * 1000, 3)


def main() -> None:
    names = [load.name for load in LOADS] + [*SPECIAL]
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=f"Loads: {', '.join(names)}")
    options.add_argument(
        "--full", action="store_true", help="every load, and longer: an hour or two and up to 110 GB of disk"
    )
    options.add_argument("--only", nargs="+", choices=names, metavar="LOAD", help="these loads alone")
    options.add_argument("--rounds", type=int, help="default 3, with --full 5")
    options.add_argument("--seconds", type=int, help="counted of each run: default 2, with --full 8")
    options.add_argument("--results", type=Path, default=report.RESULTS, metavar="FILE", help="where the figures go")
    args = options.parse_args()
    rounds, seconds = args.rounds or (5 if args.full else 3), args.seconds or (8 if args.full else 2)
    wanted = args.only or [load.name for load in LOADS if load.quick or args.full] + [*SPECIAL]

    results = json.loads(args.results.read_text()) if args.results.exists() else {"loads": {}}
    with server.started() as embedded:
        for name in [name for name in names if name in wanted]:
            began = time.monotonic()
            load_before = round(os.getloadavg()[0], 2)
            if name in SPECIAL:
                found = SPECIAL[name](embedded, full=args.full)
            else:
                [load] = [load for load in LOADS if load.name == name]
                found = measure(
                    embedded, load, args.rounds or load.rounds or rounds, args.seconds or load.seconds or seconds
                )
            found |= {
                "took_seconds": round(time.monotonic() - began),
                "load_average_before": load_before,
                "machine": server.machine(embedded),
            }
            results["loads"] = {
                key: ({**results["loads"], name: found})[key] for key in names if key in {*results["loads"], name}
            }
            args.results.parent.mkdir(parents=True, exist_ok=True)
            args.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
            print(report.text(name, found) + "\n", flush=True)
    print(report.targets_text(results))
    if args.results == report.RESULTS:
        report.write(results)


if __name__ == "__main__":
    main()
