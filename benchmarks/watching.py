"""What `checkout_metrics()` costs beside ten million orders: python -m benchmarks.watching [--orders N] [--due N]

Fills a server of its own with what is read by it (carts, keys, orders, lines, events), by SQL, and has auto_explain say
by which plan each of its statements ran, and how many pages it touched: while nothing is due; while a million orders,
events and quotes are; and after all of these were ended while somebody held a snapshot, so that every dead row is still
there. It fails if a large table was read whole. Ten million orders take 13 GB of disk and ten minutes.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg

import pycheckout
from benchmarks import ids, loads
from benchmarks.loads import Shape
from pycheckout._embedded import embedded_server

# Nothing here is timed while it is written, and no page is counted by how it came to the disk.
SETTINGS: dict[str, str | int | bool] = {
    "shared_buffers": "2GB",
    "max_wal_size": "4GB",
    "fsync": False,
    "wal_level": "minimal",
    "max_wal_senders": 0,
    "autovacuum": False,
    "maintenance_work_mem": "1GB",
}
SHAPE = Shape()
READ = ("cart_records", "checkout_requests", "vendor_orders", "order_line_items")
LARGE = (*READ, "outbox_events")
STEP = 100_000
CALL = "select count(*) from checkout_metrics()"

_EXPLAIN = {
    "log_min_duration": "0",
    "log_nested_statements": "on",
    "log_analyze": "on",
    "log_buffers": "on",
    "log_timing": "off",
    "log_format": "json",
    "log_level": "notice",
}


@dataclass(slots=True, kw_only=True)
class Statement:
    """One statement of the function, in the order in which it ran; those that ran again are added to it."""

    text: str
    pages: int
    nodes: list[str]
    whole: list[str]
    calls: int = 1


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


def fill(conn: psycopg.Connection[Any], orders: int) -> int:
    """Orders that ended long ago, of as many carts as there were; returns how many carts."""
    loads.prepare(conn, SHAPE)
    return loads.preload(conn, SHAPE, orders, into=READ)


def make_due(conn: psycopg.Connection[Any], carts: int, due: int) -> None:
    """So many orders past their deadline, of the newest carts, so many events to publish, so many open quotes."""
    _in_steps(
        conn,
        "update vendor_orders set status = 'created_pending', expires_at = now() - {n} * interval '1 hour'"
        f" where cart_id between {_cart('{first}')} and {_cart('{last}')}",
        carts - due // SHAPE.vendors,
        carts,
        number="random()",
    )
    _in_steps(
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
    _in_steps(
        conn,
        "update vendor_orders set status = 'expired'"
        f" where cart_id between {_cart('{first}')} and {_cart('{last}')} and status = 'created_pending'",
        carts - due // SHAPE.vendors,
        carts,
    )
    conn.execute("update outbox_events set published_at = now() where published_at is null")
    conn.execute("set session_replication_role = replica")
    conn.execute("update cart_records set valid_until = now() - interval '1 day' where status = 'active'")
    conn.execute("reset session_replication_role")


def _cart(number: str) -> str:
    return ids.sql(number, ids.CART)


def _in_steps(conn: psycopg.Connection[Any], statement: str, first: int, end: int, *, number: str = "") -> None:
    conn.execute("set session_replication_role = replica")
    for begin in range(first, end, STEP):
        last = min(begin + STEP, end) - 1
        conn.execute(statement.replace("{first}", str(begin)).replace("{last}", str(last)).replace("{n}", number))
    conn.execute("reset session_replication_role")


def look(dsn: str, title: str, times: int = 20) -> Cost:
    """The plans and pages of a call in a session that has made it before, and the median time of others."""
    cost, plans = Cost(title=title), []
    with psycopg.connect(dsn, autocommit=True) as conn:
        took = []
        for _ in range(times):
            began = time.perf_counter()
            [(cost.rows,)] = conn.execute(CALL).fetchall()
            took.append((time.perf_counter() - began) * 1000)
        cost.milliseconds = statistics.median(took)
        conn.execute("load 'auto_explain'")
        for name, value in _EXPLAIN.items():
            conn.execute(f"set auto_explain.{name} = {value}")
        conn.add_notice_handler(lambda notice: plans.append(notice.message_primary or ""))
        conn.execute("set client_min_messages = notice")
        conn.execute(CALL)
    for plan in plans:
        _, _, text = plan.partition("plan:\n")
        said = json.loads(text)
        if said["Query Text"] == CALL:
            continue
        each = _statement(said["Query Text"], said["Plan"])
        last = cost.statements[-1] if cost.statements else None
        if last and last.text == each.text:
            last.pages, last.calls = last.pages + each.pages, last.calls + 1
        else:
            cost.statements.append(each)
    return cost


def _statement(text: str, plan: dict[str, Any]) -> Statement:
    nodes = list(_nodes(plan))
    return Statement(
        text=" ".join(text.split()),
        pages=plan["Shared Hit Blocks"] + plan["Shared Read Blocks"],
        nodes=[
            f"{node['Node Type']} {node.get('Index Name') or node['Relation Name']}"
            for node in nodes
            if "Relation Name" in node or "Index Name" in node
        ],
        whole=[
            node["Relation Name"]
            for node in nodes
            if node["Node Type"] in ("Seq Scan", "Bitmap Heap Scan", "Sample Scan")
        ],
    )


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)


@contextmanager
def filled(orders: int) -> Iterator[tuple[str, int]]:
    """The URL of a database, and how many carts are in it."""
    with embedded_server(**SETTINGS) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create database watched")
        dsn = server.dsn("watched")
        pycheckout.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            carts = fill(conn, orders)
            conn.execute("vacuum analyze")
        yield dsn, carts


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
    with filled(args.orders) as (dsn, carts):

        def say(title: str) -> None:
            cost = look(dsn, title)
            print(text(cost) + "\n", flush=True)
            if cost.whole & {*LARGE}:
                sys.exit("a large table was read whole")

        with psycopg.connect(dsn, autocommit=True) as conn:
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
