"""Who checks out: each driver runs some clients and tells of each checkout when it ended and how long it took.

pgbench has the drivers that are SQL alone. Those in Python have one process a client, since threads would share one
interpreter's lock, and are forked, so that nobody imports anything on the clock.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

import pycheckout
from benchmarks import ids, loads, neworder, orm_programs, psycopg_programs, scripts
from benchmarks.loads import ADDRESS, Shape
from benchmarks.rules import Request
from benchmarks.server import FORK

# Checkouts of a Python client before the clock starts: statements are prepared by then, and caches are filled.
WARM_UP = 15


@dataclass(slots=True)
class Run:
    """The transactions of one run: (when it ended, seconds it took), on one clock."""

    transactions: list[tuple[float, float]] = field(default_factory=list)
    turns: int = 0  # of the client that took most carts

    @property
    def began(self) -> float:
        return min(ended - took for ended, took in self.transactions)

    def between(self, began: float, ended: float) -> list[float]:
        """Latencies of what ended then."""
        return [took for each, took in self.transactions if began <= each < ended]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Carts `first` and following, `clients` at a time, for so many seconds or so many carts a client."""

    dsn: str
    bin: Path
    password: str
    shape: Shape
    clients: int
    first: int
    seconds: float | None = None
    count: int | None = None
    options: str = ""  # libpq's, for the sessions


Driver = Callable[[Task], Run]


def pgbench(script: Callable[[Task], str] | None, task: Task, *, options: str = "") -> Run:
    with tempfile.TemporaryDirectory() as folder:
        command: list[str | Path] = [task.bin / "pgbench", "-n", "-M", "prepared", "-c", str(task.clients)]
        command += ["-j", str(min(task.clients, os.cpu_count() or 1)), "-l", "--log-prefix", f"{folder}/log"]
        command += ["-T", str(int(task.seconds))] if task.seconds else ["-t", str(task.count)]
        if script:
            file = Path(folder, "script.sql")
            file.write_text(script(task), encoding="utf-8")
            command += ["-f", file, "-D", "i=-1", "-D", f"first={task.first}", "-D", f"clients={task.clients}"]
        else:
            command += ["-N"]
        env = os.environ | {"PGPASSWORD": task.password, "PGOPTIONS": f"{task.options} {options}"}
        done = subprocess.run([*command, task.dsn], env=env, capture_output=True, encoding="utf-8", check=False)
        if done.returncode or not re.search("number of failed transactions: 0 ", done.stdout):
            raise RuntimeError(done.stderr + done.stdout)
        run = Run()
        for log in Path(folder).glob("log.*"):
            for line in log.read_text(encoding="ascii").splitlines():
                _, turn, took, _, seconds, microseconds, *_ = line.split()
                run.turns = max(run.turns, int(turn))
                run.transactions.append((int(seconds) + int(microseconds) / 1e6, int(took) / 1e6))
        return run


def _payloads(task: Task) -> tuple[str, str]:
    """What the function writes to the outbox for such a cart; taken from one that is rolled back."""
    with psycopg.connect(task.dsn) as conn:
        [(result,)] = conn.execute(
            "select checkout_execute(%s, %s, 'specimen', %s, 'ach')",
            (ids.uuid(task.first, ids.BUYER), ids.uuid(task.first, ids.CART), Jsonb(ADDRESS)),
        )
        rows = conn.execute(
            "select payload::text from outbox_events where aggregate_id = %s order by id",
            (result["checkout_group_id"],),
        ).fetchall()
        conn.rollback()
        [(created,), (converted,)] = rows
        return created, converted


def _floor(task: Task, *, pipelined: bool) -> str:
    return scripts.floor(task.shape, *_payloads(task), pipelined=pipelined)


# Stock rows are locked in the order of the index, as everybody else does: another plan would let two floors deadlock.
_BY_INDEX = "-c enable_seqscan=off -c enable_bitmapscan=off"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A way to check out from Python: what to connect with, and what to call."""

    connect: Callable[[str], Any]
    checkout: Callable[[Any, Request], Any]

    def __call__(self, task: Task) -> Run:
        start, workers, ends = FORK.Barrier(task.clients), [], []
        for client in range(task.clients):
            end, other = FORK.Pipe(duplex=False)
            workers.append(FORK.Process(target=self._client, args=(task, client, start, other)))
            workers[-1].start()
            other.close()
            ends.append(end)
        answers = [_received(end) for end in ends]
        for worker in workers:
            worker.join()
        if wrong := [answer for answer in answers if isinstance(answer, str)]:
            raise RuntimeError("\n".join(wrong))
        turns = max(map(len, answers)) + (WARM_UP if task.seconds else 0)
        return Run([each for answer in answers for each in answer], turns)

    def _client(self, task: Task, client: int, start: Any, answer: Any) -> None:
        os.environ["PGOPTIONS"] = task.options
        try:
            answer.send(self._loop(task, client, start))
        except BaseException as error:  # whatever it is, the parent is to say it
            start.abort()
            answer.send(f"client {client}: {type(error).__name__}: {error}")

    def _loop(self, task: Task, client: int, start: Any) -> list[tuple[float, float]]:
        connection = self.connect(task.dsn)
        transactions: list[tuple[float, float]] = []
        turn = 0
        while turn < WARM_UP and task.seconds:
            self._one(task, connection, turn, client)
            turn += 1
        start.wait(timeout=120)
        deadline = time.time() + task.seconds if task.seconds else float("inf")
        while time.time() < deadline and turn != task.count:
            began = time.perf_counter()
            self._one(task, connection, turn, client)
            transactions.append((time.time(), time.perf_counter() - began))
            turn += 1
        return transactions

    def _one(self, task: Task, connection: Any, turn: int, client: int) -> None:
        number = task.first + turn * task.clients + client
        self.checkout(connection, Request(**loads.request(number)))


def _received(end: Any) -> Any:
    try:
        return end.recv()
    except EOFError:
        return "a client process ended without an answer"


def _pool(dsn: str) -> Any:
    return ConnectionPool(dsn, min_size=1, max_size=1, open=True)


def _execute(pool: Any, request: Request) -> Any:
    return pycheckout.execute(
        pool,
        buyer_store_id=request.buyer_store_id,
        cart_id=request.cart_id,
        idempotency_key=request.idempotency_key,
        shipping_address=request.shipping_address,
        payment_method=request.payment_method,
    )


DRIVERS: dict[str, Driver] = {
    "function": partial(pgbench, lambda task: scripts.function()),
    "floor": partial(pgbench, partial(_floor, pipelined=False), options=_BY_INDEX),
    "floor-pipelined": partial(pgbench, partial(_floor, pipelined=True), options=_BY_INDEX),
    "simple-update": partial(pgbench, None),
    "bare-update": partial(pgbench, lambda task: scripts.bare_update()),
    "new-order": partial(pgbench, lambda task: neworder.script()),
    "execute": Program(connect=_pool, checkout=_execute),
    "psycopg": Program(connect=psycopg_programs.connect, checkout=psycopg_programs.checkout),
    "psycopg-pipelined": Program(connect=psycopg_programs.connect, checkout=psycopg_programs.checkout_pipelined),
    "psycopg-naive": Program(connect=psycopg_programs.connect, checkout=psycopg_programs.checkout_naive),
    "orm": Program(connect=orm_programs.connect, checkout=orm_programs.checkout),
    "orm-naive": Program(connect=orm_programs.connect, checkout=orm_programs.checkout_naive),
}
TITLES = {
    "function": "checkout_execute, from pgbench",
    "execute": "checkout_execute, by pycheckout.execute",
    "floor": "floor: the same rows, nothing checked",
    "floor-pipelined": "floor, in one pipeline",
    "simple-update": "pgbench -N",
    "bare-update": "one UPDATE of the hot row",
    "new-order": "New-Order of TPC-C, 10 lines",
    "psycopg": "psycopg, well written",
    "psycopg-pipelined": "psycopg, pipelined",
    "psycopg-naive": "psycopg, a row at a time",
    "orm": "SQLAlchemy ORM, well written",
    "orm-naive": "SQLAlchemy ORM, a row at a time",
}
# Those that take carts, and leave the rows of a checkout.
CHECKOUTS = [name for name in TITLES if name not in ("simple-update", "bare-update", "new-order")]
# Those that pgbench runs.
PGBENCH = ["function", "floor", "floor-pipelined", "simple-update", "bare-update", "new-order"]
# Those whose tables are their own.
OWN_TABLES = ["simple-update", "new-order"]
# Those that can do no more than the made-up shapes.
FLOORS = ["floor", "floor-pipelined"]
