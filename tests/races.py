"""Known interleavings: what a race test waits for instead of sleeping."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg


def wait_until(true: Callable[[], Any], otherwise: str = "it never became true", timeout: float = 10.0) -> Any:
    """What `true` answers once that is true; no test has to guess a sleep. Fails, saying `otherwise`, after seconds."""
    deadline = time.monotonic() + timeout
    while not (found := true()):
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.01)
    return found


def wait_until_blocked(conn: psycopg.Connection, pid: int, timeout: float = 5.0) -> None:
    """Return once backend `pid` waits for a lock."""
    query = "select cardinality(pg_blocking_pids(%s)) > 0 as blocked"
    with psycopg.Cursor(conn, row_factory=psycopg.rows.scalar_row) as cur:
        wait_until(lambda: cur.execute(query, (pid,)).fetchone(), f"backend {pid} never blocked", timeout)


def wait_for_waiter(conn: psycopg.Connection, holder: int, timeout: float = 20.0) -> int:
    """The backend that waits for a lock of backend `holder`, once there is one."""
    query = "select pid from pg_stat_activity where %s = any (pg_blocking_pids(pid)) limit 1"
    with psycopg.Cursor(conn, row_factory=psycopg.rows.scalar_row) as cur:
        nobody = f"nobody waits for backend {holder}"
        return int(wait_until(lambda: cur.execute(query, (holder,)).fetchone(), nobody, timeout))


def wait_until_gone(conn: psycopg.Connection, pid: int, timeout: float = 20.0) -> None:
    """Return once backend `pid` has ended."""
    query = "select from pg_stat_activity where pid = %s"
    wait_until(lambda: not conn.execute(query, (pid,)).fetchall(), f"backend {pid} never ended", timeout)


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


@contextmanager
def paused_at(
    db: psycopg.Connection, gate: psycopg.Connection, conn: psycopg.Connection, table: str, words: str = ""
) -> Iterator[Callable[[], Any]]:
    """The statement of `conn` that reads `table`, and has these words, stops after its snapshot was taken, before its
    first row is locked. It goes on when what is yielded is called.

    A view takes the table's place: it calls a function that waits for an advisory lock.
    """
    db.execute(
        f"""
        create function pause() returns boolean language plpgsql as $$
        declare
          v_statements text;
        begin
          get diagnostics v_statements = pg_context;
          if pg_backend_pid() = {conn.info.backend_pid} and position('{words}' in v_statements) > 0 then
            perform pg_advisory_lock_shared(1), pg_advisory_unlock_shared(1);
          end if;
          return true;
        end $$;
        alter table {table} rename to {table}_table;
        create view {table} as select * from {table}_table where pause();
        """
    )
    gate.execute("select pg_advisory_lock(1)")
    yield lambda: gate.execute("select pg_advisory_unlock(1)")
    gate.execute("select pg_advisory_unlock_all()")
    db.execute(f"drop view {table}; alter table {table}_table rename to {table}; drop function pause")


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What the calls return, or the exceptions they end in, all started at the same moment."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        futures = [threads.submit(run, call) for call in calls]
    return [future.exception() or future.result() for future in futures]
