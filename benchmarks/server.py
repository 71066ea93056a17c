"""The server that everything runs on, and what it counts.

PostgreSQL's defaults, fsync and synchronous commit included, but for: 1 GB of shared buffers, no checkpoint during the
run, and pg_stat_statements, which counts nothing unless a session asks for it.
"""

from __future__ import annotations

import multiprocessing
import os
import platform
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

import pycheckout
from benchmarks import loads
from benchmarks.loads import Shape
from pycheckout._embedded import EmbeddedServer, embedded_server

SETTINGS = {
    "max_connections": 100,
    "shared_buffers": "1GB",
    "max_wal_size": "64GB",
    "checkpoint_timeout": "1d",
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
}
COUNTED = "-c pg_stat_statements.track=top"
TEMPLATE = "bench_template"
FORK = multiprocessing.get_context("fork")
_OURS = "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the server did, in total."""

    statements: int = 0
    buffers: int = 0
    wal_bytes: int = 0
    wal_pages: int = 0  # full-page images


@contextmanager
def started(**other: str | int | bool) -> Iterator[EmbeddedServer]:
    with embedded_server(**(SETTINGS | other)) as server:
        with admin(server) as conn:
            conn.execute("create extension pg_stat_statements")
            conn.execute(f"create database {TEMPLATE}")
        pycheckout.migrate(server.dsn(TEMPLATE))
        yield server


def admin(server: EmbeddedServer, dbname: str = "postgres") -> psycopg.Connection[Any]:
    return psycopg.connect(server.dsn(dbname), autocommit=True, application_name=_OURS)


def quoted(server: EmbeddedServer, name: str, shape: Shape, carts: int) -> None:
    """A database with so many quoted carts, and nothing checked out."""
    with admin(server) as conn:
        conn.execute(f"create database {name} template {TEMPLATE}")
    with admin(server, name) as conn:
        loads.prepare(conn, shape)
        loads.seed(conn, shape, 0, carts)
        conn.execute("vacuum analyze")


def machine(server: EmbeddedServer) -> dict[str, Any]:
    shown = ("server_version", "fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
    with admin(server) as conn:
        settings = {name: conn.execute("select current_setting(%s)", (name,)).fetchone()[0] for name in shown}
    return {
        "cores": os.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **settings,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def settle(server: EmbeddedServer, seconds: float = 20) -> None:
    """Wait until no client's backend is left but our own: a session shows what it counted when it ends."""
    query = (
        f"select count(*) from pg_stat_activity where backend_type = 'client backend' and application_name <> '{_OURS}'"
    )
    with admin(server) as conn:
        deadline = time.monotonic() + seconds
        while left := conn.execute(query).fetchone()[0]:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{left} sessions are still there after {seconds:g} s: what they did is not counted")
            time.sleep(0.02)


def work(server: EmbeddedServer) -> Work:
    with admin(server) as conn:
        row = conn.execute(
            """
            select coalesce(sum(calls), 0)::bigint,
                   coalesce(sum(shared_blks_hit + shared_blks_read), 0)::bigint,
                   pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint,
                   (select wal_fpi from pg_stat_wal)::bigint
              from pg_stat_statements
            """
        ).fetchone()
        return Work(statements=row[0], buffers=row[1], wal_bytes=row[2], wal_pages=row[3])


@contextmanager
def undisturbed(server: EmbeddedServer) -> Iterator[None]:
    """Without autovacuum, whose WAL would be counted."""
    _alter(server, "set autovacuum = off")
    try:
        yield
    finally:
        _alter(server, "reset autovacuum")


def _alter(server: EmbeddedServer, change: str) -> None:
    with admin(server) as conn:
        conn.execute(f"alter system {change}")
        conn.execute("select pg_reload_conf()")


class Cpu:
    """CPU time of the server, watched from a process of its own: `between` says what it took meanwhile."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._end, other = FORK.Pipe()
        self._process = FORK.Process(target=self._watch, args=(server, other))
        self._process.start()
        other.close()

    def _watch(self, server: EmbeddedServer, end: Any) -> None:
        samples = []
        while not end.poll(0.05):
            samples.append((time.time(), cpu_seconds(server)))
        end.send(samples)

    def stop(self) -> None:
        self._end.send("stop")
        self._samples: list[tuple[float, float]] = self._end.recv()
        self._process.join()

    def between(self, began: float, ended: float) -> float:
        """Seconds of CPU, the samples next to the two instants taken for them."""
        first, last = (min(self._samples, key=lambda sample: abs(sample[0] - at)) for at in (began, ended))
        return (last[1] - first[1]) / (last[0] - first[0]) * (ended - began)


class Waits:
    """What pgbench's sessions wait for, sampled: `stop` says the share of each event, and of those that ran."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._done, self._seen = threading.Event(), Counter[str]()
        self._thread = threading.Thread(target=self._watch, args=(server,))
        self._thread.start()

    def _watch(self, server: EmbeddedServer) -> None:
        query = (
            "select coalesce(wait_event_type || ': ' || wait_event, 'none: it runs'), count(*) from pg_stat_activity"
            " where application_name = 'pgbench' and state = 'active' group by 1"
        )
        with admin(server) as conn:
            while not self._done.wait(0.05):
                self._seen.update(dict(conn.execute(query).fetchall()))

    def stop(self) -> Counter[str]:
        self._done.set()
        self._thread.join()
        return self._seen


def cpu_seconds(server: EmbeddedServer) -> float:
    """CPU time of all the server's processes, those that have ended included."""
    pid = int((server.data / "postmaster.pid").read_text().split()[0])
    ended = sum(_times(pid)[2:])
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return (ended + sum(sum(_times(int(child))[:2]) for child in children)) / os.sysconf("SC_CLK_TCK")


def _times(pid: int) -> tuple[int, int, int, int]:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0, 0, 0
    user, system, children_user, children_system = map(int, fields[11:15])
    return user, system, children_user, children_system


def private_kb(pid: int) -> int:
    """Private memory of a process, without the shared buffers: pages of them that no other process has used yet are
    private in the kernel's eyes."""
    total, private = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(encoding="ascii").splitlines():
        name, *values = line.split()
        if not name.endswith(":"):
            private = values[0].endswith("p")
        elif private and name.startswith("Private_"):
            total += int(values[0])
    return total


def cpu_ns(pid: int) -> int:
    """CPU time of a process (a backend) in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
