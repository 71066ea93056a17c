"""checkout_audit(), slice by slice: the same findings, in little memory, with a sign of life."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from ._conninfo import in_schema

_SLICE = 20_000  # orders

# The last anchor of each slice, and how many orders that makes so far.
_BOUNDS = """
select checkout_group_id, number
  from (select checkout_group_id,
               row_number() over by_anchor as number,
               lead(checkout_group_id) over by_anchor is null as is_last
          from vendor_orders
         where %(since)s::timestamptz is null or created_at >= %(since)s
        window by_anchor as (order by checkout_group_id)) as numbered
 where number %% %(size)s = 0 or is_last
 order by number
"""
_ONE_SLICE = "select * from checkout_audit_slice(%s::timestamptz, %s::uuid, %s::uuid)"
_REST = "select * from checkout_audit_rest(%s::timestamptz)"
_NOTE = "insert into checkout_audits (since, began_at, ended_at, findings) values (%s, %s, clock_timestamp(), %s)"


def audit(
    conn: psycopg.Connection[dict[str, Any]],
    since: datetime | None,
    progress: Callable[[int, int], None],
    size: int = _SLICE,
    schema: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Every broken invariant. `progress(done, total)`: orders, called before the first slice and after each.

    Each slice reads a snapshot of its own, so that none is held open for long: what is
    judged together is in one slice, or in the rest. How many it found is noted in `checkout_audits`, where this role
    may write that and the server takes writes.
    """
    [began] = conn.execute("select clock_timestamp() as at").fetchall()
    no_orders = {"checkout_group_id": None, "number": 0}
    with in_schema(conn, schema):
        bounds = conn.execute(_BOUNDS, {"since": since, "size": size}).fetchall() or [no_orders]
    total = bounds[-1]["number"]
    progress(0, total)
    after: UUID | None = None
    found = 0
    for number, bound in enumerate(bounds, 1):
        # The last one is open: anchors without orders may come after it.
        upto = None if number == len(bounds) else bound["checkout_group_id"]
        with in_schema(conn, schema):
            for row in conn.cursor().stream(_ONE_SLICE, (since, after, upto)):
                found += 1
                yield row
        after = upto
        progress(bound["number"], total)
    with in_schema(conn, schema):
        for row in conn.cursor().stream(_REST, (since,)):
            found += 1
            yield row
    with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction), in_schema(conn, schema):
        conn.execute(_NOTE, (since, began["at"], found))
