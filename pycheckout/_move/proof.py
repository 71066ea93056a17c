"""Whether two servers have the same rows, by queries that share nothing with the audit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from .sides import MoveDoubtful, Side


def prove(
    source: Side, target: Side, snapshot: psycopg.Connection[dict[str, Any]], progress: Callable[[int, int], None]
) -> None:
    """All rows of the source, which is frozen, against those of a snapshot of the target from before it opened."""
    tables = source.tables()
    sums: list[dict[str, Any]] = []
    for conn in (source.conn, snapshot):
        conn.execute(_ALIKE)
        found: dict[str, Any] = {}
        for number, table in enumerate(tables):
            progress(number, len(tables))
            found[table] = conn.execute(sql.SQL(_SUM).format(sql.SQL(table))).fetchall()
        sums.append(found)
    here, there = sums
    if other := [table for table in tables if here[table] != there[table]]:
        raise MoveDoubtful(
            f"{target.place.name} had other rows than {source.place.name} when it was opened: " + ", ".join(other),
            hint="Both schemas are as they were: compare them before anything is dropped.",
        )


_ALIKE = """
select set_config('timezone', 'UTC', false), set_config('datestyle', 'ISO', false),
       set_config('intervalstyle', 'postgres', false), set_config('extra_float_digits', '1', false),
       set_config('bytea_output', 'hex', false)
"""
_SUM: LiteralString = """
select count(*) as rows, coalesce(sum(('x' || substr(md5(whole.*::text), 1, 16))::bit(64)::bigint::numeric), 0) as sum
  from {} as whole
"""
