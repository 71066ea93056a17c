"""Known interleavings: what a race test waits for instead of sleeping."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg


def wait_until_blocked(conn: psycopg.Connection, pid: int, timeout: float = 5.0) -> None:
    """Return once backend `pid` waits for a lock; no test has to guess a sleep."""
    deadline = time.monotonic() + timeout
    query = "select cardinality(pg_blocking_pids(%s)) > 0 as blocked"
    with psycopg.Cursor(conn, row_factory=psycopg.rows.scalar_row) as cur:
        while not cur.execute(query, (pid,)).fetchone():
            assert time.monotonic() < deadline, f"backend {pid} never blocked"
            time.sleep(0.01)


@contextmanager
def blocked(
    watch: psycopg.Connection, function: Callable[..., Any], conn: psycopg.Connection, *args: Any, **kwargs: Any
) -> Iterator[Future[Any]]:
    """Run function(conn, ...) in a thread. The block begins once `conn` waits for a lock, and must free it."""
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(function, conn, *args, **kwargs)
        wait_until_blocked(watch, conn.info.backend_pid)
        assert not waiting.done()
        yield waiting


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return, or the exceptions they end in, all started at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(run, call) for call in calls]
    return [future.exception() or future.result() for future in futures]
