"""What tests of the SQL functions ask again and again."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import psycopg
import pytest
from psycopg.rows import dict_row, scalar_row, tuple_row

from races import wait_until


def rows(conn: psycopg.Connection, query: str, *params: Any) -> list[dict[str, Any]]:
    return conn.cursor(row_factory=dict_row).execute(query, params).fetchall()


def row(conn: psycopg.Connection, query: str, *params: Any) -> dict[str, Any]:
    [only] = rows(conn, query, *params)
    return only


def values(conn: psycopg.Connection, query: str, *params: Any) -> list[Any]:
    """The values of a query's only column."""
    return conn.cursor(row_factory=scalar_row).execute(query, params).fetchall()


def level(conn: psycopg.Connection, product_id: Any) -> tuple[int, int] | None:
    """What is available of a product and what is reserved; None: it has no stock."""
    query = "select available_qty::int, reserved_qty::int from inventory_levels where product_id = %s"
    found: tuple[int, int] | None = conn.cursor(row_factory=tuple_row).execute(query, (product_id,)).fetchone()
    return found


def vacuum(conn: psycopg.Connection, *tables: str, analyze: bool = True) -> None:
    """Vacuum them, or all, once nobody sees what was there before the last change.

    No test holds such a snapshot here, but an autovacuum worker does while it analyzes: what it sees would stay, and
    more pages would be counted than the rows take.
    """
    seen = """
        select pid from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and num_nonnulls(backend_xmin, backend_xid) > 0
    """
    wait_until(lambda: not values(conn, seen), "somebody keeps a snapshot", timeout=60)
    conn.execute(f"vacuum {'analyze' if analyze else ''} {', '.join(tables)}")


def blocks(conn: psycopg.Connection, query: str) -> int:
    """Those that a query touches, in the cache or out of it."""
    [(plan,)] = conn.execute(f"explain (analyze, buffers, format json) {query}").fetchall()
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def blocks_again(conn: psycopg.Connection, query: str) -> int:
    """Those that a query touches, each time rolled back, once a first look has marked what is dead.

    The least of several looks: who changes the catalogs meanwhile has a session read them anew.
    """
    touched = []
    for _ in range(3):
        touched.append(blocks(conn, query))
        conn.rollback()
    return min(touched)


def outcome(call: Callable[..., Any], function: str, *args: Any, conn: psycopg.Connection) -> str:
    """Whether a change was done or answered as a replay, or the SQLSTATE of its refusal."""
    try:
        return "replayed" if call(function, *args, conn=conn)["replayed"] else "done"
    except psycopg.DatabaseError as error:
        return str(error.sqlstate)


class Refusal:
    """A refused call; filled in when the block of `refused` has ended."""

    message: str
    detail: dict[str, Any]
    hint: str


@contextmanager
def refused(sqlstate: str) -> Iterator[Refusal]:
    """The block is refused with this code, in words for a person, with JSON for a program and with a remedy."""
    refusal = Refusal()
    with pytest.raises(psycopg.DatabaseError) as caught:
        yield refusal
    diag = caught.value.diag
    assert diag.sqlstate == sqlstate, caught.value
    assert diag.message_primary and diag.message_detail and diag.message_hint
    refusal.message, refusal.hint = diag.message_primary, diag.message_hint
    refusal.detail = json.loads(diag.message_detail)
    assert isinstance(refusal.detail, dict)


class _Cursor(psycopg.Cursor[Any]):
    """Each statement stands alone, as on a connection with autocommit, also in a transaction."""

    def execute(self, *args: Any, **kwargs: Any) -> Self:
        with self.connection.transaction():
            return super().execute(*args, **kwargs)


@contextmanager
def taken_back(conn: psycopg.Connection) -> Iterator[None]:
    """A transaction that is rolled back. A statement that fails undoes itself alone."""
    conn.cursor_factory = _Cursor
    with conn.transaction(force_rollback=True):
        yield
    conn.cursor_factory = psycopg.Cursor
