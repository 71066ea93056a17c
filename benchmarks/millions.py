"""A server that holds millions of orders, and by which plans a statement ran in it: for watching.py and orders.py."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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
STEP = 100_000

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
    """One statement that ran, and what it read by which node of its plan."""

    text: str
    pages: int
    nodes: list[str]
    whole: list[str]
    calls: int = 1


@contextmanager
def filled(
    orders: int, shape: Shape, *, into: Collection[str], also: Mapping[str, str] | None = None
) -> Iterator[tuple[str, int]]:
    """The URL of a database with so many orders, not vacuumed yet, and how many carts are in it."""
    with embedded_server(**SETTINGS) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create database millions")
        dsn = server.dsn("millions")
        pycheckout.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            carts = fill(conn, orders, shape, into=into, also=also)
        yield dsn, carts


def fill(
    conn: psycopg.Connection[Any],
    orders: int,
    shape: Shape,
    *,
    into: Collection[str],
    also: Mapping[str, str] | None = None,
) -> int:
    """Orders that ended long ago, of as many carts as there were; returns how many carts."""
    loads.prepare(conn, shape)
    return loads.preload(conn, shape, orders, into=into, also=also)


def in_steps(conn: psycopg.Connection[Any], statement: str, first: int, end: int) -> None:
    """Run it over `{first}` to `{last}`, piece by piece up to `end`, without triggers and foreign keys."""
    conn.execute("set session_replication_role = replica")
    for begin in range(first, end, STEP):
        last = min(begin + STEP, end) - 1
        conn.execute(statement.replace("{first}", str(begin)).replace("{last}", str(last)))
    conn.execute("reset session_replication_role")


def cart(number: str) -> str:
    """The id of a cart as SQL over its number."""
    return ids.sql(number, ids.CART)


def explained(conn: psycopg.Connection[Any], call: str) -> tuple[Statement, list[Statement]]:
    """Run a call; what it touched in all, and what each statement in it did, in the order in which they ended."""
    plans: list[str] = []

    def keep(notice: psycopg.errors.Diagnostic) -> None:
        plans.append(notice.message_primary or "")

    conn.execute("load 'auto_explain'")
    for name, value in _EXPLAIN.items():
        conn.execute(f"set auto_explain.{name} = {value}")
    conn.execute("set client_min_messages = notice")
    conn.add_notice_handler(keep)
    conn.execute(call)
    conn.remove_notice_handler(keep)
    conn.execute("set auto_explain.log_min_duration = -1")
    said = [json.loads(plan.partition("plan:\n")[2]) for plan in plans]
    *parts, whole = [_statement(each["Query Text"], each["Plan"]) for each in said]
    assert whole.text == " ".join(call.split())
    return whole, parts


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
