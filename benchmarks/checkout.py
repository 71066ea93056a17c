"""Checkouts a second beside pgbench's own simple-update, on one embedded server, in turns; and a cart of 100 lines.

    python benchmarks/checkout.py [--rounds 5] [--seconds 8] [--clients 8] [--json FILE]

Both run under pgbench with prepared statements. Each round runs one after the other, and what counts is the ratio of
the round. Settings are PostgreSQL's defaults but for max_wal_size, which keeps checkpoints out of the run: one is made
before it, then both sides warm up unmeasured, so that full-page images are not in the figures of one side alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

sys.path.insert(0, str(Path(__file__).parent.parent))

import pycheckout
from pycheckout._embedded import EmbeddedServer, embedded_server

PRODUCTS = 2000

# Every cart of every vendor and line follows from numbers, so that pgbench can name it: cart n is md5('c' || n).
SEED = """
with carts as (select n from generate_series({first}, {last}) as n)
insert into cart_records (id, buyer_store_id, valid_until, subtotal_cents, total_cents)
select md5('c' || n)::uuid, md5('b' || n)::uuid, now() + interval '1 day',
       {vendors} * {lines} * 1000, {vendors} * {lines} * 1000
  from carts;
insert into cart_vendor_groups (id, cart_id, vendor_store_id, subtotal_cents, total_cents)
select md5(format('g%s.%s', n, v))::uuid, md5('c' || n)::uuid, md5('v' || v)::uuid, {lines} * 1000, {lines} * 1000
  from generate_series({first}, {last}) as n, generate_series(1, {vendors}) as v;
insert into cart_items (id, cart_id, product_id, vendor_store_id, title, unit, quantity,
                        unit_price_cents, line_subtotal_cents)
select md5(format('i%s.%s.%s', n, v, l))::uuid, md5('c' || n)::uuid,
       md5('p' || 1 + (n * 7 + v * 131 + l * 17) % {products})::uuid, md5('v' || v)::uuid, 'Product', 'each', 1,
       1000, 1000
  from generate_series({first}, {last}) as n, generate_series(1, {vendors}) as v, generate_series(1, {lines}) as l;
"""

STOCK = """
insert into inventory_items (product_id, available_qty)
select md5('p' || n)::uuid, 1000000000 from generate_series(1, {products}) as n
    on conflict do nothing
"""

# One statement: which cart is next is asked in it.
SCRIPT = """
select checkout_execute(md5('b' || n)::uuid, md5('c' || n)::uuid, 'k' || n,
  '{"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "country": "US"}', 'ach')
  from nextval('next_cart') as n;
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=int, default=8)
    options.add_argument("--clients", type=int, default=8)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = options.parse_args()

    with embedded_server(max_connections=100, max_wal_size="8GB", checkpoint_timeout="1h") as server:
        pycheckout.migrate(server.dsn())
        figures = {
            "machine": machine(server),
            "large_cart": large_cart(server),
            "throughput": throughput(server, args),
        }
    print(text(figures))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def machine(server: EmbeddedServer) -> dict[str, Any]:
    settings = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
    with psycopg.connect(server.dsn()) as conn:
        shown: dict[str, Any] = dict(
            conn.execute("select name, current_setting(name) from pg_settings where name = any(%s)", ([*settings],))
        )
    return {"cores": os.cpu_count(), "load_before": round(os.getloadavg()[0], 2), **shown}


def throughput(server: EmbeddedServer, args: argparse.Namespace) -> dict[str, Any]:
    seeded = 0

    def seed(carts: int) -> None:
        nonlocal seeded
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            for first in range(seeded + 1, seeded + carts + 1, 20_000):
                last = min(first + 19_999, seeded + carts)
                conn.execute(SEED.format(first=first, last=last, vendors=3, lines=2, products=PRODUCTS))
            conn.execute("vacuum analyze")
        seeded += carts

    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "checkout.sql"
        script.write_text(SCRIPT, encoding="utf-8")
        load = ("-n", "-M", "prepared", "-c", str(args.clients), "-j", "2")
        checkouts = (*load, "-f", str(script))
        updates = (*load, "-N")

        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute(STOCK.format(products=PRODUCTS))
            conn.execute("create sequence next_cart cache 1")
        seed(500 * args.clients)
        rate = tps(pgbench(server, *checkouts, "-t", "500"))  # how many carts the rounds will take
        seed(int(3 * rate * args.seconds * (args.rounds + 1)))
        pgbench(server, "-i", "-q", "-s", "20")
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("checkpoint")

        rounds: list[dict[str, float]] = []
        for number in range(args.rounds + 1):
            figures = {}
            # Whoever comes second finds the machine as the first left it: so they take turns.
            for side in (checkouts, updates) if number % 2 else (updates, checkouts):
                figures["checkouts" if side is checkouts else "simple_update"] = tps(
                    pgbench(server, *side, "-T", str(args.seconds))
                )
            if number:  # the first warms up
                rounds.append(figures | {"ratio": figures["checkouts"] / figures["simple_update"]})
    with psycopg.connect(server.dsn()) as conn:
        assert conn.execute("select count(*) from checkout_audit()").fetchone() == (0,)
    return {
        "clients": args.clients,
        "seconds": args.seconds,
        "cart": "3 vendors x 2 lines",
        "rounds": rounds,
        **{name: spread([figures[name] for figures in rounds]) for name in ("checkouts", "simple_update", "ratio")},
    }


def spread(figures: list[float]) -> dict[str, float]:
    return {"median": statistics.median(figures), "min": min(figures), "max": max(figures)}


def text(figures: dict[str, Any]) -> str:
    """The figures as people read them."""
    large, throughput = figures["large_cart"], figures["throughput"]

    def line(name: str, digits: int) -> str:
        median, low, high = (f"{throughput[name][which]:,.{digits}f}" for which in ("median", "min", "max"))
        return f"  {name:16}{median:>10}   ({low} to {high})"

    first, worst, after = large["first_ms"], large["max_ms"], large["private_mb_after_31"]
    return "\n".join(
        [
            ", ".join(f"{name} {value}" for name, value in figures["machine"].items()),
            f"{throughput['clients']} clients, {throughput['cart']}; a second, median of {len(throughput['rounds'])}:",
            line("checkouts", 0),
            line("simple_update", 0),
            line("ratio", 3),
            f"One cart of {large['lines']} lines:",
            f"  milliseconds    {large['median_ms']:>10}   (a session's first {first}, worst {worst})",
            f"  backend MB      {large['private_mb_of_the_first']:>10}   (after 31 of them {after})",
        ]
    )


def large_cart(server: EmbeddedServer) -> dict[str, Any]:
    """Milliseconds and backend memory of 100 lines of 10 vendors: the first cart of a session, and the median of 30."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        conn.execute(STOCK.format(products=PRODUCTS))
        conn.execute(SEED.format(first=-31, last=-1, vendors=10, lines=10, products=PRODUCTS))
        [(pid,)] = conn.execute("select pg_backend_pid()").fetchall()
        before = resident_kb(pid)
        times = []
        for n in range(-31, 0):
            began = time.perf_counter()
            conn.execute(
                "select checkout_execute(md5('b' || %s)::uuid, md5('c' || %s)::uuid, 'k' || %s,"
                """ '{"line1": "12 Main Street", "city": "Tulsa", "country": "US"}', 'ach')""",
                (str(n),) * 3,
            )
            times.append((time.perf_counter() - began) * 1000)
            if n == -31:
                first = resident_kb(pid)
        [(contexts,)] = conn.execute("select sum(total_bytes)::bigint from pg_backend_memory_contexts").fetchall()
        return {
            "lines": 100,
            "first_ms": round(times[0], 1),
            "median_ms": round(statistics.median(times[1:]), 1),
            "max_ms": round(max(times[1:]), 1),
            "private_mb_of_the_first": round((first - before) / 1024, 1),
            "private_mb_after_31": round((resident_kb(pid) - before) / 1024, 1),
            "memory_contexts_mb": round(contexts / 2**20, 1),
        }


def resident_kb(pid: int) -> int:
    """Private memory of a process: what it shares with others, shared buffers included, is not its own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
    return sum(int(kb) for kb in re.findall(r"^Private_\w+: +(\d+) kB", text, re.MULTILINE))


def pgbench(server: EmbeddedServer, *args: str) -> str:
    done = subprocess.run(
        [server.bin / "pgbench", *args, server.dsn()],
        env=os.environ | {"PGPASSWORD": server.password},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def tps(output: str) -> float:
    [failed] = re.findall(r"number of failed transactions: (\d+)", output)
    assert failed == "0", output
    [figure] = re.findall(r"^tps = ([\d.]+)", output, re.MULTILINE)
    return float(figure)


if __name__ == "__main__":
    main()
