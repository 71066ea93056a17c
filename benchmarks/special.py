"""Loads without contenders: lines, memory and disk, where the time of a checkout goes, a client's CPU, a rush."""

from __future__ import annotations

import json
import shutil
import statistics
import time
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

import pycheckout
from benchmarks import ids, instructions, loads, server
from benchmarks.drivers import DRIVERS, Task
from benchmarks.loads import ADDRESS, Shape
from pycheckout._checkout import CheckoutCalls
from pycheckout._embedded import EmbeddedServer

LINES = (5, 10, 25, 50, 100)
KEPT = (100, 1000, 2500, 5000, 7500, 10_000)
_CALL = "select checkout_execute(%s, %s, %s, %s, 'ach')"


def lines(embedded: EmbeddedServer, *, full: bool) -> dict[str, Any]:
    """Carts of 5 lines a vendor, sizes in turn, by one client; time and the backend's CPU, medians."""
    carts = 200 if full else 60
    sessions = {}
    for size in LINES:
        shape = Shape(vendors=size // 5, lines=5)
        sessions[size] = _session(embedded, f"bench_lines_{size}", shape, carts + 20)
    times: dict[int, list[tuple[float, float]]] = {size: [] for size in LINES}
    for number in range(carts + 20):
        for size, conn in sessions.items():
            cpu, began = server.cpu_ns(conn.info.backend_pid), time.perf_counter()
            _checkout(conn, number)
            took = time.perf_counter() - began
            if number >= 20:
                times[size].append((took * 1000, (server.cpu_ns(conn.info.backend_pid) - cpu) / 1e6))
    for size, conn in sessions.items():
        conn.close()
        _drop(embedded, f"bench_lines_{size}")
    sizes = [
        {
            "lines": size,
            "ms": round(statistics.median(each[0] for each in found), 3),
            "cpu_ms": round(statistics.median(each[1] for each in found), 3),
        }
        for size, found in times.items()
    ]
    return {"title": "5 to 100 lines a cart, 1 client", "at": _now(), "carts": carts, "sizes": sizes}


def memory(embedded: EmbeddedServer, *, full: bool) -> dict[str, Any]:
    """Private memory of one backend after so many checkouts of 3 vendors x 2 lines, and how much the tables grew."""
    name = "bench_memory"
    conn = _session(embedded, name, Shape(), KEPT[-1])
    pid = conn.info.backend_pid
    fresh, found = server.private_kb(pid), []
    before = _sizes(embedded, name)
    for number in range(KEPT[-1]):
        _checkout(conn, number)
        if number + 1 in KEPT:
            found.append({"checkouts": number + 1, "private_mb": round(server.private_kb(pid) / 1024, 2)})
    conn.close()
    grown = {table: (size - before[table]) / KEPT[-1] for table, size in _sizes(embedded, name).items()}
    _drop(embedded, name)
    return {
        "title": "Memory of a session",
        "at": _now(),
        "fresh_mb": round(fresh / 1024, 2),
        "after": found,
        "disk_bytes": {table: round(size) for table, size in grown.items() if size},
    }


def profile(embedded: EmbeddedServer, *, full: bool) -> dict[str, Any]:
    """Time in each function, its statements included and the functions that it calls not, of 3 vendors x 2 lines."""
    name, warm, carts = "bench_profile", 100, 5000 if full else 1000
    conn = _session(embedded, name, Shape(), warm + carts)
    for number in range(warm):
        _checkout(conn, number)
    conn.execute("set track_functions = 'all'")
    began = time.perf_counter()
    for number in range(warm, warm + carts):
        _checkout(conn, number)
    took = time.perf_counter() - began
    conn.execute("select pg_stat_force_next_flush()")
    found = conn.execute(
        "select funcname, calls / %(carts)s as calls, self_time * 1000 / %(carts)s as self_us"
        " from pg_stat_user_functions where self_time > 0 and calls >= %(carts)s order by self_time desc, funcname",
        {"carts": carts},
    ).fetchall()
    conn.close()
    _drop(embedded, name)
    steps = [{"function": function, "calls": calls, "self_us": round(us, 1)} for function, calls, us in found]
    return {"title": "Where the time of a checkout goes", "at": _now(), "us": round(took / carts * 1e6), "steps": steps}


def line_instructions(embedded: EmbeddedServer, *, full: bool) -> dict[str, Any]:
    """What instructions.py counts, for the sizes of `lines`; none without valgrind."""
    sizes = []
    if shutil.which("valgrind"):
        for size in LINES:
            [counted] = instructions.count(Shape(vendors=size // 5, lines=5))
            sizes.append({"lines": size, "thousands": round(counted, 1)})
    return {"title": "Instructions of 5 to 100 lines a cart", "at": _now(), "sizes": sizes}


def client(embedded: EmbeddedServer, *, full: bool) -> dict[str, Any]:
    """CPU of this process, 3 vendors x 2 lines: in pycheckout.execute, in turns with its statement by psycopg alone and
    with the least that a program does which takes a connection of a pool and reads the answer.
    """
    name, warm, calls = "bench_client", 100, 3000 if full else 1000
    server.quoted(embedded, name, Shape(), 3 * (warm + calls))
    with (
        ConnectionPool(embedded.dsn(name), min_size=1, max_size=1, open=True) as pool,
        ConnectionPool(embedded.dsn(name), min_size=1, max_size=1, open=True, kwargs={"autocommit": True}) as other,
        psycopg.connect(embedded.dsn(name), autocommit=True) as conn,
    ):

        def alone(request: dict[str, Any]) -> None:
            conn.execute(*CheckoutCalls.execute.statement(**request)).fetchone()

        def least(request: dict[str, Any]) -> None:
            with other.connection() as connection:
                [answer] = connection.execute(*CheckoutCalls.execute.statement(**request)).fetchone() or [""]
            json.loads(answer)

        def execute(request: dict[str, Any]) -> None:
            pycheckout.execute(pool, **request)

        contenders = {"cpu_ms": execute, "psycopg_ms": alone, "least_ms": least}
        seconds: dict[str, list[float]] = {each: [] for each in contenders}
        for turn in range(warm + calls):
            for place, (each, call) in enumerate(contenders.items()):
                request = loads.request(3 * turn + place)
                began = time.process_time()
                call(request)
                seconds[each].append(time.process_time() - began)
    _drop(embedded, name)
    means = {each: round(statistics.mean(own[warm:]) * 1000, 4) for each, own in seconds.items()}
    medians = {each: round(statistics.median(own[warm:]) * 1000, 4) for each, own in seconds.items()}
    return {"title": "A client's own CPU", "at": _now(), "calls": calls, **means, "medians": medians}


def rush(embedded: EmbeddedServer, *, full: bool) -> dict[str, Any]:
    """32 clients want twice the units that a product has: how many orders are written, and how many of them stay."""
    clients, turns, shape = 32, 30, Shape(vendors=1, lines=1, hot=True)
    found = []
    for slots in (1, 16):
        name = f"bench_rush_{slots}"
        server.quoted(embedded, name, shape, clients * turns)
        with server.admin(embedded, name) as conn:
            conn.execute("select inventory_set(%s, %s)", (ids.uuid(loads.HOT, ids.PRODUCT), clients * turns // 2))
            conn.execute("select inventory_split(%s, %s)", (ids.uuid(loads.HOT, ids.PRODUCT), slots))
        DRIVERS["function"](
            Task(
                dsn=embedded.dsn(name),
                bin=embedded.bin,
                password=embedded.password,
                shape=shape,
                clients=clients,
                first=0,
                count=turns,
            )
        )
        server.settle(embedded)
        with server.admin(embedded, name) as conn:
            counts = conn.execute(
                "select (select n_tup_ins from pg_stat_user_tables where relid = 'vendor_orders'::regclass)::integer,"
                " count(*)::integer, count(*) filter (where status = 'rejected')::integer from vendor_orders"
            ).fetchone()
        _drop(embedded, name)
        found.append({"slots": slots, **dict(zip(("written", "orders", "rejected"), counts or (), strict=True))})
    return {"title": "A rush for the last units, 32 clients", "at": _now(), "sold_out": found}


def _session(embedded: EmbeddedServer, name: str, shape: Shape, carts: int) -> psycopg.Connection[Any]:
    server.quoted(embedded, name, shape, carts)
    return psycopg.connect(embedded.dsn(name), autocommit=True, prepare_threshold=0)


def _sizes(embedded: EmbeddedServer, name: str) -> dict[str, int]:
    """Bytes of each table with its indexes."""
    with server.admin(embedded, name) as conn:
        return dict(
            conn.execute(
                "select relname, pg_total_relation_size(oid) from pg_class"
                " where relkind = 'r' and relnamespace = 'public'::regnamespace order by relname"
            ).fetchall()
        )


def _checkout(conn: psycopg.Connection[Any], number: int) -> None:
    conn.execute(
        _CALL, (ids.uuid(number, ids.BUYER), ids.uuid(number, ids.CART), f"k{number}", Jsonb(ADDRESS))
    ).fetchone()


def _drop(embedded: EmbeddedServer, name: str) -> None:
    with server.admin(embedded, name) as conn:
        assert conn.execute("select count(*) from checkout_audit()").fetchone() == (0,)
    with server.admin(embedded) as conn:
        conn.execute(f"drop database {name} with (force)")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
