"""What `checkout_metrics()` costs beside ten million orders: python -m benchmarks.watching [--orders N] [--due N]

Fills a server of its own with what is read by it (carts, keys, orders, lines, events), by SQL, and has auto_explain say
by which plan each of its statements ran, and how many pages it touched: while nothing is due; while a million orders,
events and quotes are; and after all of these were ended while somebody held a snapshot, so that every dead row is still
there. It fails if a large table was read whole. Ten million orders take 13 GB of disk and ten minutes.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg

from benchmarks import ids, loads, millions
from benchmarks.loads import Shape
from benchmarks.millions import Statement, cart

SHAPE = Shape()
READ = ("cart_records", "checkout_requests", "vendor_orders", "order_line_items")
LARGE = (*READ, "outbox_events")
CALL = "select count(*) from checkout_metrics()"


@dataclass(slots=True, kw_only=True)
class Cost:
    """What a call came to."""

    title: str
    statements: list[Statement] = field(default_factory=list)
    milliseconds: float = 0
    rows: int = 0

    @property
    def pages(self) -> int:
        return sum(each.pages for each in self.statements)

    @property
    def whole(self) -> set[str]:
        """Tables that were read from the first to the last page."""
        return {table for each in self.statements for table in each.whole}


def make_due(conn: psycopg.Connection[Any], carts: int, due: int) -> None:
    """So many orders past their deadline, of the newest carts, so many events to publish, so many open quotes."""
    millions.in_steps(
        conn,
        "update vendor_orders set status = 'created_pending', expires_at = now() - random() * interval '1 hour'"
        f" where cart_id between {cart('{first}')} and {cart('{last}')}",
        carts - due // SHAPE.vendors,
        carts,
    )
    millions.in_steps(
        conn,
        "insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)"
        f" select checkout_uuid(), 'checkout.converted', 'checkout_group', {ids.sql('n', ids.ANCHOR)}, payload, at, at"
        " from (select n, now() - random() * interval '1 hour' as at,"
        "              jsonb_build_object('version', 1, 'padding', repeat(md5(n::text), 10)) as payload"
        "         from generate_series({first}::bigint, {last}) as n) as due",
        0,
        due,
    )
    loads.seed(conn, SHAPE, carts, due, into=READ)


def end_them(conn: psycopg.Connection[Any], carts: int, due: int) -> None:
    """As a relay, an expiry and the buyers would have, but at once."""
    millions.in_steps(
        conn,
        "update vendor_orders set status = 'expired'"
        f" where cart_id between {cart('{first}')} and {cart('{last}')} and status = 'created_pending'",
        carts - due // SHAPE.vendors,
        carts,
    )
    conn.execute("update outbox_events set published_at = now() where published_at is null")
    conn.execute("set session_replication_role = replica")
    conn.execute("update cart_records set valid_until = now() - interval '1 day' where status = 'active'")
    conn.execute("reset session_replication_role")


def look(dsn: str, title: str, times: int = 20) -> Cost:
    """The plans and pages of a call in a session that has made it before, and the median time of others."""
    cost = Cost(title=title)
    with psycopg.connect(dsn, autocommit=True) as conn:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            [(cost.rows,)] = conn.execute(CALL).fetchall()
            took.append((time.perf_counter() - began) * 1000)
        cost.milliseconds = statistics.median(took)
        _, statements = millions.explained(conn, CALL)
    for each in statements:
        last = cost.statements[-1] if cost.statements else None
        if last and last.text == each.text:
            last.pages, last.calls = last.pages + each.pages, last.calls + 1
        else:
            cost.statements.append(each)
    return cost


def text(cost: Cost) -> str:
    """For a person."""
    whole = ", ".join(sorted(cost.whole & {*LARGE})) or "none"
    told = f"{cost.pages:,} pages, {cost.milliseconds:.1f} ms, {cost.rows} rows; large tables read whole: {whole}"
    lines = [f"{cost.title}: {told}"]
    for each in sorted(cost.statements, key=lambda each: -each.pages):
        if each.pages:
            again = f" x {each.calls}" if each.calls > 1 else ""
            lines.append(f"  {each.pages:>8,}  {_named(each.text)}{again}")
            lines.extend(f"            {node}" for node in each.nodes if not re.search(r"\bpg_", node))
    return "\n".join(lines)


def _named(text: str) -> str:
    return text if len(text) < 100 else text[:97] + "..."


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--orders", type=int, default=10_000_000)
    options.add_argument("--due", type=int, default=1_000_000)
    args = options.parse_args()
    began = time.monotonic()
    with millions.filled(args.orders, SHAPE, into=READ) as (dsn, carts):

        def say(title: str) -> None:
            cost = look(dsn, title)
            print(text(cost) + "\n", flush=True)
            if cost.whole & {*LARGE}:
                sys.exit("a large table was read whole")

        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("vacuum analyze")
            say(f"{args.orders:,} orders, nothing due")
            make_due(conn, carts, args.due)
            say(f"{args.due:,} due, not vacuumed")
            conn.execute("vacuum analyze")
            say(f"{args.due:,} due, vacuumed")
            with psycopg.connect(dsn) as holder:
                holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                holder.execute("select from vendor_orders limit 1")
                end_them(conn, carts, args.due)
                say(f"{args.due:,} ended while a snapshot is held")
                holder.rollback()
            say("the snapshot is gone")
            conn.execute("vacuum analyze")
            say("vacuumed")
            [(size,)] = conn.execute("select pg_size_pretty(pg_database_size(current_database()))").fetchall()
            print(f"{size}, {time.monotonic() - began:.0f} seconds")


if __name__ == "__main__":
    main()
