"""Two hundred callers on two cores: python -m benchmarks.overload [--seconds N] [--callers N] [--only LOAD ...]

Who waits where, and for how long at most: a connection for each caller, with and without the server's time-outs; a
small pool in front, with and without a time for each call; and the HTTP routes behind such a pool. Three loads: baskets
of products that nobody else wants; one hot product in every cart; and that product's row held by a forgotten session
all the while, so that nobody can be served at all. Every caller makes one call after the other; one that is refused
waits as its error says, and makes the same call again. Callers are threads of two processes, on the server's cores.

What counts is each call: from its beginning to its answer, whatever that is. Calls that have none when the time is over
are given half a minute more, and are then told as such. With `--write`, the table goes into docs/operations.md.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import logging
import os
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psycopg
import uvicorn
from fastapi import FastAPI, Header, Request
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import pycheckout
from benchmarks import ids, loads, report, server
from benchmarks.loads import ADDRESS
from benchmarks.plan import HOT, UNIFORM, Setup
from benchmarks.run import Database
from benchmarks.server import FORK
from pycheckout import Checkout
from pycheckout._embedded import EmbeddedServer, _free_port
from pycheckout.http import checkout_router

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"
PROCESSES = 2
WARM_UP = 3.0
GRACE = 30.0
MOST = 3000  # checkouts a second that carts are quoted for
BOUNDS = "-c lock_timeout=5s -c statement_timeout=10s"
RETRY_AFTER = {"busy": 1.0, "unavailable": 5.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How callers come to the server: `sessions` of it in all, one a caller if None."""

    title: str
    sessions: int | None = None
    options: str = BOUNDS
    pool_timeout: float = 5.0
    timeout: float | None = None
    http: bool = False


WAYS = [
    Way(title="a connection each, no time-outs", options="-c lock_timeout=0 -c statement_timeout=0"),
    Way(title="a connection each, `lock_timeout` 5 s"),
    Way(title="a pool of 8, `lock_timeout` 5 s", sessions=8),
    Way(title="a pool of 8, `lock_timeout` 1 s", sessions=8, options="-c lock_timeout=1s -c statement_timeout=10s"),
    Way(title="a pool of 8, and 2 s a call", sessions=8, timeout=2.0),
    Way(title="HTTP, a pool of 8, and 2 s a call", sessions=8, timeout=2.0, http=True),
]
SETUPS = {"uniform": Setup(shape=UNIFORM), "hot": Setup(shape=HOT), "held": Setup(shape=HOT)}
LOADS = {
    "uniform": "3 vendors x 2 lines",
    "hot": "one hot product in every cart",
    "held": "its row held by a forgotten session",
}

# When a call began, how long it took, and what came of it.
Call = tuple[float, float, str]


class Callers:
    """Some callers of one process, each in a thread, until the time is over."""

    def __init__(self, process: int, callers: int, first: int, carts: int, until: float) -> None:
        self._numbers = itertools.count(first + process, PROCESSES)
        self._end, self._until = first + carts, until
        self._done: list[Call] = []
        self._begun: dict[int, float] = {}
        self._count = callers

    def run(self, made: Callable[[], Callable[[int], str]]) -> list[Call]:
        """`made` makes a caller's own way to call, by the number of a cart; the call tells what came of it."""
        threads = [threading.Thread(target=self._loop, args=(n, made()), daemon=True) for n in range(self._count)]
        for thread in threads:
            thread.start()
        end = self._until + GRACE
        for thread in threads:
            thread.join(max(end - time.time(), 0))
        now = time.time()
        return [*self._done, *((began, now - began, "no answer") for began in self._begun.copy().values())]

    def _loop(self, caller: int, call: Callable[[int], str]) -> None:
        number = next(self._numbers)
        while time.time() < self._until and number < self._end:
            self._begun[caller] = began = time.time()
            came = call(number)
            took = time.time() - began
            del self._begun[caller]
            self._done.append((began, took, came))
            if came == "ordered":
                number = next(self._numbers)
            else:
                wait = RETRY_AFTER.get(came.split()[0], 1.0) * random.uniform(1, 1.5)
                time.sleep(max(min(wait, self._until - time.time()), 0))


def _by_calls(dsn: str, way: Way, callers: int, ready: Any) -> Iterator[Callable[[], Callable[[int], str]]]:
    size = callers if way.sessions is None else way.sessions // PROCESSES
    pool = ConnectionPool(
        dsn, min_size=size, max_size=size, timeout=way.pool_timeout, kwargs={"options": way.options}, open=True
    )
    pool.wait(60)
    ready.wait(120)
    checkout = Checkout(pool)

    def call(number: int) -> str:
        try:
            checkout.execute(**loads.request(number), timeout=way.timeout)
        except pycheckout.CheckoutError as error:
            return f"{error.code} {error.sqlstate or 'pool'}"
        return "ordered"

    yield lambda: call


def _by_http(port: int, ready: Any) -> Iterator[Callable[[], Callable[[int], str]]]:
    ready.wait(120)

    def made() -> Callable[[int], str]:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

        def call(number: int) -> str:
            body = {"cart_id": str(ids.uuid(number, ids.CART)), "shipping_address": ADDRESS, "payment_method": "ach"}
            named = {"Content-Type": "application/json", "Idempotency-Key": f"k{number}"}
            named["X-Buyer"] = str(ids.uuid(number, ids.BUYER))
            try:
                line.request("POST", "/checkout", json.dumps(body), named)
                answer = line.getresponse()
                said = json.loads(answer.read())
            except (OSError, http.client.HTTPException) as error:
                line.close()
                return f"cut {type(error).__name__}"
            if answer.status in (200, 201):
                return "ordered"
            return f"{said['code']} {answer.status}, Retry-After {answer.headers['Retry-After']}"

        return call

    yield made


def _process(process: int, dsn: str, port: int, way: Way, callers: Callers, count: int, ready: Any, end: Any) -> None:
    ways = _by_http(port, ready) if way.http else _by_calls(dsn, way, count, ready)
    end.send(callers.run(next(ways)))
    end.close()
    os._exit(0)  # whatever still waits


def _serve(dsn: str, port: int, way: Way) -> None:
    """The routes, as docs/services.md mounts them, in a process of one worker."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> Any:
        size = (way.sessions or 0) // PROCESSES
        async with AsyncConnectionPool(
            dsn,
            min_size=size,
            max_size=size,
            timeout=way.pool_timeout,
            kwargs={"options": way.options},
            open=False,
        ) as pool:
            await pool.wait(60)
            yield {"pool": pool}

    def pool(request: Request) -> Any:
        return request.state.pool

    app = FastAPI(lifespan=lifespan)

    def asks(store: Annotated[str, Header(alias="X-Buyer")]) -> str:
        return store

    app.include_router(checkout_router(buyer=asks, pool=pool, timeout=way.timeout))
    # kept alive for longer than a refused caller waits
    uvicorn.run(app, host="127.0.0.1", port=port, log_config=None, backlog=512, timeout_keep_alive=60)


@contextmanager
def _services(dsn: str, way: Way) -> Iterator[list[int]]:
    """The ports of as many servers of the routes as there are processes of callers."""
    if not way.http:
        yield [0] * PROCESSES
        return
    ports = [_free_port() for _ in range(PROCESSES)]
    processes = [FORK.Process(target=_serve, args=(dsn, port, way)) for port in ports]
    for process in processes:
        process.start()
    try:
        for port in ports:
            _until_it_listens(port)
        yield ports
    finally:
        for process in processes:
            process.kill()
            process.join()


def _until_it_listens(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            line = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
            line.request("GET", "/openapi.json")
            line.getresponse().read()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def measure(database: Database, way: Way, *, held: bool, callers: int, seconds: float) -> dict[str, Any]:
    carts = round(MOST * (seconds + WARM_UP)) if not held else callers * 10
    first = database.take(carts)
    dsn = database.server.dsn(database.name)
    ready = FORK.Barrier(PROCESSES)
    with ExitStack() as stack:
        if held:
            holder = stack.enter_context(psycopg.connect(dsn))
            holder.execute(
                "select from inventory_items where product_id = %s for update", (ids.uuid(loads.HOT, ids.PRODUCT),)
            )
        ports = stack.enter_context(_services(dsn, way))
        until = time.time() + WARM_UP + seconds + (5 if way.sessions is None else 1)
        ends, processes = [], []
        for process, port in enumerate(ports):
            end, other = FORK.Pipe(duplex=False)
            own = Callers(process, callers // PROCESSES, first, carts, until)
            args = (process, dsn, port, way, own, callers // PROCESSES, ready, other)
            processes.append(FORK.Process(target=_process, args=args))
            processes[-1].start()
            other.close()
            ends.append(end)
        calls: list[Call] = [call for end in ends for call in end.recv()]
        for each in processes:
            each.join()
    _end_sessions(database)
    since = 0 if held else until - seconds
    counted = [call for call in calls if since <= call[0] + call[1] and call[0] < until]
    took = sorted(call[1] for call in counted)
    percentiles = statistics.quantiles(took, n=100)
    return {
        "way": way.title,
        "rate": sum(came == "ordered" and began + each < until for began, each, came in counted) / seconds,
        "p50": percentiles[49],
        "p99": percentiles[98],
        "longest": took[-1],
        "came": Counter(call[2] for call in counted if call[2] != "ordered"),
    }


def _end_sessions(database: Database) -> None:
    """Of callers that are gone and had no answer."""
    with server.admin(database.server, database.name) as conn:
        conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )
    server.settle(database.server)


def table(name: str, found: list[dict[str, Any]]) -> str:
    lines = [
        f"| {LOADS[name]} | orders/s | p50 | p99 | longest | not ordered |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for each in found:
        came = "; ".join(f"{count:,} {what}" for what, count in each["came"].most_common()) or "none"
        times = " | ".join(_seconds(each[key]) for key in ("p50", "p99", "longest"))
        lines.append(f"| {each['way']} | {each['rate']:,.0f} | {times} | {came} |")
    return "\n".join(lines)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def write(text: str) -> None:
    page = report.between(PAGE.read_text(encoding="utf-8"), "overload", text, program="overload")
    PAGE.write_text(page, encoding="utf-8")


def run(embedded: EmbeddedServer, names: list[str], callers: int, seconds: float) -> str:
    tables, busy = [], os.getloadavg()[0]
    for name in names:
        found = []
        for number, way in enumerate(WAYS):
            database = Database(embedded, f"bench_overload_{name}_{number}", SETUPS[name])
            found.append(measure(database, way, held=name == "held", callers=callers, seconds=seconds))
            database.audit()
            database.drop()
            print(table(name, found[-1:]).splitlines()[-1], flush=True)
        tables.append(table(name, found))
    figures = server.machine(embedded)
    told = (
        f"{callers} callers, {figures['cores']} cores ({figures['cpu']}), PostgreSQL {figures['server_version']}, "
        f"{seconds:.0f} seconds each; the load average was {busy:.1f} before it began."
    )
    return "\n\n".join([told, *tables])


def main() -> None:
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # of connections that a run ended
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seconds", type=float, default=20, help="counted of each run")
    options.add_argument("--callers", type=int, default=200)
    options.add_argument("--only", nargs="+", choices=list(LOADS), metavar="LOAD", default=list(LOADS))
    options.add_argument("--write", action="store_true", help="put the table into docs/operations.md")
    args = options.parse_args()
    with server.started(max_connections=args.callers + 50) as embedded:
        text = run(embedded, args.only, args.callers, args.seconds)
    print("\n" + text)
    if args.write:
        write(text)


if __name__ == "__main__":
    main()
