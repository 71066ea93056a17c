"""What a second server brings, on one machine: python -m benchmarks.pinned [--rounds N] [--seconds N] [--callers N]

Two servers, each pinned to cores with all its processes, and as many callers in every form: two markets on one server
with one core, the same on both cores, one market on both cores, and two markets on two servers with a core each. The
forms take turns, in the other order each round, and ratios are taken within a round. Callers are pgbench's sessions,
on the cores of the server that they call: they take their share of a core in every form alike.

It is one machine: one memory, one disk, loopback for a network. With `--write`, the table goes into docs/growth.md.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

import pycheckout
from benchmarks import loads, report, scripts, server
from benchmarks.drivers import Run, Task, pgbench
from pycheckout._embedded import EmbeddedServer, embedded_server

PAGE = Path(__file__).parents[1] / "docs" / "growth.md"
SHAPE = loads.Shape()
MARKETS = {"ok": "market_ok", "tx": "market_tx"}
WARM_UP = 2.0
AFTER = 1.0  # callers go on for so long, so that all of them call to the end of what is counted
MOST = 800  # checkouts a second and core that carts are quoted for
MEMORY = "3GB"  # of each server: all that is written fits


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """On which cores each server runs, by number, and where each market is."""

    title: str
    name: str
    cores: Mapping[str, tuple[int, ...]]
    markets: Mapping[str, str]

    def carts(self, seconds: float) -> int:
        """More than callers of one market take in that time."""
        cores = sum(map(len, self.cores.values()))
        return round(MOST * cores * seconds / len(self.markets))


ONE_CORE, TWO_CORES = (0,), (0, 1)
FORMS = (
    Form(
        title="two markets, one server, one core",
        name="one_core",
        cores={"a": ONE_CORE},
        markets={"ok": "a", "tx": "a"},
    ),
    Form(
        title="two markets, one server, two cores",
        name="two_cores",
        cores={"a": TWO_CORES},
        markets={"ok": "a", "tx": "a"},
    ),
    Form(
        title="one market, one server, two cores",
        name="one_market",
        cores={"a": TWO_CORES},
        markets={"ok": "a"},
    ),
    Form(
        title="two markets, two servers, a core each",
        name="two_servers",
        cores={"a": ONE_CORE, "b": (1,)},
        markets={"ok": "a", "tx": "b"},
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What a form did in one of its turns."""

    rate: float
    cpu_ms: float
    """The servers' CPU of a checkout."""
    busy: float
    """How many of its cores were busy, whoever kept them so."""


@dataclass(slots=True)
class Measured:
    form: Form
    rounds: list[Round] = field(default_factory=list)
    taken: int = 0
    """Carts of each market."""


def cores() -> list[int]:
    """The two that this process may use; a form's 0 and 1."""
    own = sorted(os.sched_getaffinity(0))
    if len(own) < 2:
        sys.exit("This needs two cores.")
    return own[:2]


def processes(embedded: EmbeddedServer) -> list[int]:
    """The postmaster and its children."""
    postmaster = int((embedded.data / "postmaster.pid").read_text().split()[0])
    return [postmaster, *map(int, Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split())]


def pin(embedded: EmbeddedServer, to: set[int]) -> None:
    """All that the server runs, and will run: a child has the cores of its parent, so that comes first."""
    os.sched_setaffinity(processes(embedded)[0], to)
    for pid in processes(embedded):
        with suppress(ProcessLookupError):
            os.sched_setaffinity(pid, to)


def is_pinned(embedded: EmbeddedServer, to: set[int]) -> bool:
    found = []
    for pid in processes(embedded):
        with suppress(ProcessLookupError):
            found.append(os.sched_getaffinity(pid))
    return all(each == to for each in found)


def prepare(servers: Mapping[str, EmbeddedServer], forms: Sequence[Form], seconds: float) -> None:
    """A database of each form on each of its servers, with carts for so many seconds and no others."""
    for name, embedded in servers.items():
        with server.admin(embedded) as conn:
            conn.execute(f"create database {server.TEMPLATE}")
        for market, schema in MARKETS.items():
            if any(form.markets.get(market) == name for form in forms):
                pycheckout.migrate(embedded.dsn(server.TEMPLATE), schema=schema, create_schema=True)
        # the last one: what is written from here on is on pages that are younger, so none is logged whole
        with server.admin(embedded) as conn:
            conn.execute("checkpoint")
    for form in forms:
        for name in form.cores:
            with server.admin(servers[name]) as conn:
                conn.execute(f"create database {form.name} template {server.TEMPLATE}")
        for market, name in form.markets.items():
            path = f"-c search_path={MARKETS[market]}"
            with psycopg.connect(servers[name].dsn(form.name), options=path, autocommit=True) as conn:
                loads.prepare(conn, SHAPE)
                loads.seed(conn, SHAPE, 0, form.carts(seconds))
                conn.execute("drop schema bench cascade")  # each market has its own types
        for name in form.cores:
            with server.admin(servers[name], form.name) as conn:
                conn.execute("vacuum analyze")


def measure(servers: Mapping[str, EmbeddedServer], measured: Measured, callers: int, seconds: int) -> None:
    form = measured.form
    known = cores()
    places = {name: {known[core] for core in numbers} for name, numbers in form.cores.items()}
    for name, place in places.items():
        pin(servers[name], place)
    lasts = WARM_UP + seconds + AFTER
    carts = form.carts(lasts)
    clients = callers // len(form.markets)

    def sell(market: str) -> Run:
        name = form.markets[market]
        os.sched_setaffinity(0, places[name])  # of this thread, and so of the program that it starts
        task = Task(
            dsn=servers[name].dsn(form.name),
            bin=servers[name].bin,
            password=servers[name].password,
            shape=SHAPE,
            clients=clients,
            first=measured.taken,
            seconds=lasts,
        )
        return pgbench(lambda _: scripts.function(MARKETS[market]), task)

    used = [core for place in places.values() for core in place]
    own = [servers[name] for name in places]
    with ThreadPoolExecutor(len(form.markets)) as threads:
        calling = [threads.submit(sell, market) for market in form.markets]
        time.sleep(WARM_UP)
        before = _spent(own, used)
        assert all(is_pinned(servers[name], place) for name, place in places.items()), "a process on other cores"
        time.sleep(seconds)
        after = _spent(own, used)
        runs = [each.result() for each in calling]
    began, ended = before[0], after[0]
    for run in runs:
        # What is checked out twice is a replay, and no figure.
        assert run.turns * clients <= carts, "more carts than expected"
        assert max(end for end, _ in run.transactions) >= ended, "the callers ended too early"
    for embedded in own:
        server.settle(embedded)
    measured.taken += carts
    done = sum(len(run.between(began, ended)) for run in runs)
    measured.rounds.append(
        Round(
            rate=done / (ended - began),
            cpu_ms=(after[1] - before[1]) / done * 1000,
            busy=(after[2] - before[2]) / (ended - began),
        )
    )


def _spent(servers: Sequence[EmbeddedServer], cores: Sequence[int]) -> tuple[float, float, float]:
    """The time, and the seconds of CPU of these servers, and of these cores whoever had them, until now."""
    busy = 0
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *ticks = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _idle, _iowait, irq, softirq, *_ = map(int, ticks)
            busy += user + nice + system + irq + softirq
    return time.time(), sum(map(server.cpu_seconds, servers)), busy / os.sysconf("SC_CLK_TCK")


def audit(servers: Mapping[str, EmbeddedServer], form: Form) -> None:
    for market, name in form.markets.items():
        with server.admin(servers[name], form.name) as conn:
            call = sql.SQL("select * from {}.checkout_audit() limit 5").format(sql.Identifier(MARKETS[market]))
            if broken := conn.execute(call).fetchall():
                sys.exit(f"{form.title}: the audit of market {market} found {broken}")


def run(
    servers: Mapping[str, EmbeddedServer], forms: Sequence[Form], callers: int, rounds: int, seconds: int
) -> list[Measured]:
    prepare(servers, forms, rounds * (WARM_UP + seconds + AFTER))
    found = [Measured(form) for form in forms]
    with ExitStack() as stack:
        for embedded in servers.values():
            stack.enter_context(server.undisturbed(embedded))
        for number in range(rounds):
            for each in found if number % 2 == 0 else reversed(found):
                measure(servers, each, callers, seconds)
                print(f"round {number + 1}, {each.form.title}: {each.rounds[-1].rate:,.0f} a second", flush=True)
    for form in forms:
        audit(servers, form)
    return found


def table(found: Sequence[Measured]) -> str:
    lines = [
        "| | checkouts/s | beside the first row | server CPU of a checkout | cores busy |",
        "|---|---:|---:|---:|---:|",
    ]
    for each in found:
        ratios = [own.rate / first.rate for own, first in zip(each.rounds, found[0].rounds, strict=True)]
        beside = "1" if each is found[0] else _spread(ratios, "{:.2f}")
        count = sum(map(len, each.form.cores.values()))
        rate = _spread([own.rate for own in each.rounds], "{:,.0f}")
        cpu = _spread([own.cpu_ms for own in each.rounds], "{:.2f}")
        busy = statistics.median(own.busy for own in each.rounds)
        lines.append(f"| {each.form.title} | {rate} | {beside} | {cpu} ms | {busy:.2f} of {count} |")
    return "\n".join(lines)


def _spread(figures: Sequence[float], shown: str) -> str:
    median, least, most = (shown.format(of(figures)) for of in (statistics.median, min, max))
    return f"{median} ({least} to {most})"


def about(embedded: EmbeddedServer, callers: int, rounds: int, seconds: int, load: float) -> str:
    figures = server.machine(embedded)
    siblings = Path(f"/sys/devices/system/cpu/cpu{cores()[0]}/topology/thread_siblings_list")
    shared = siblings.exists() and len(re.findall(r"\d+", siblings.read_text(encoding="ascii"))) > 1
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, 2 {'threads of one core' if shared else 'cores'} of {figures['cpu']}, "
        f"PostgreSQL {figures['server_version'].split()[0]}, fsync {figures['fsync']}, {figures['shared_buffers']} of "
        f"shared buffers each, no autovacuum in a run. Median of {rounds} rounds of {seconds} s (least to most); "
        f"{callers} callers in all; {SHAPE.vendors} vendors x {SHAPE.lines} lines. The load average was {load:.1f} "
        "before it began."
    )


def write(text: str) -> None:
    page = report.between(PAGE.read_text(encoding="utf-8"), "pinned", text, program="pinned")
    PAGE.write_text(page, encoding="utf-8")


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--seconds", type=int, default=10, help="counted of each run")
    options.add_argument("--callers", type=int, default=8, help="in all: a market of two has half of them")
    options.add_argument("--write", action="store_true", help="put the table into docs/growth.md")
    args = options.parse_args()
    load = os.getloadavg()[0]
    cores()
    settings = server.SETTINGS | {"shared_buffers": MEMORY}
    with embedded_server(**settings) as a, embedded_server(**settings) as b:
        found = run({"a": a, "b": b}, FORMS, args.callers, args.rounds, args.seconds)
        told = about(a, args.callers, args.rounds, args.seconds, load)
    text = f"{told}\n\n{table(found)}"
    print("\n" + text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
