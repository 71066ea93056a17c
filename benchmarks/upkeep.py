"""What upkeep costs beside ten million orders: python -m benchmarks.upkeep [--orders N] [--beside N]

Fills a server of its own twice, with --beside orders and then with --orders, by SQL: their carts, keys, history and two
events each that were published. A part is old enough to be purged, some events wait, and a slice of the audit has as
many orders beside both. auto_explain says how many pages each call touched, and by which indexes. It fails as orders.py
does: if a call read a large table whole, or touched more pages than a deeper index explains. Ten million orders take
26 GB of disk, the WAL aside, and ten minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import psycopg

from benchmarks import ids, loads, millions
from benchmarks.orders import Cost, add_history, compare, explained, medians, timed

SHAPE = loads.Shape()
INTO = (
    *("cart_records", "cart_vendor_groups", "cart_items", "checkout_requests"),
    *("vendor_orders", "order_line_items", "payment_intents", "outbox_purges"),
)
LARGE = {*INTO, "outbox_events", "order_changes", "payment_events"} - {"outbox_purges"}
TIMED, EXPLAINED = 10, 3
ROWS = 100  # of each call
OLD = "now() - interval '400 days' + n * interval '1 second'"
KEPT = "interval '300 days'"

_EVENT = """
insert into outbox_events (
  id, event_type, aggregate_type, aggregate_id, payload, created_at, published_at, next_attempt_at
)
select {id}, '{event_type}', 'checkout_group', {aggregate},
       jsonb_build_object('version', 1, 'padding', repeat(md5(n::text), 10)), {at}, {published}, {at}
  from generate_series({{first}}::bigint, {{last}}) as n
"""
_PUBLISHED = {ids.CREATED: "checkout.vendor_orders_created", ids.CONVERTED: "checkout.converted"}
_WAITING = f"8e{3:014x}"


def _event(low: str, event_type: str, at: str, published: str = "null") -> str:
    """An event of each cart, `at` a time, as SQL; `low` tells apart those of one cart."""
    aggregate = ids.sql("n", ids.ANCHOR)
    return _EVENT.format(id=ids.sql("n", low), event_type=event_type, aggregate=aggregate, at=at, published=published)


def fill(conn: psycopg.Connection[Any], carts: int) -> None:
    """A history, what is old enough, of the oldest carts, and what waits; vacuums and analyzes."""
    add_history(conn, carts)
    old = (1 + TIMED + EXPLAINED) * ROWS
    for first, end, at in ((0, old, OLD), (old, carts, "now()")):
        for low, event_type in _PUBLISHED.items():
            millions.in_steps(conn, _event(low, event_type, at, at), first, end)
    due = "now() - interval '1 hour' + n * interval '1 millisecond'"
    millions.in_steps(conn, _event(_WAITING, "payment.changed", due), 0, old)
    of = f"between {millions.cart('{first}')} and {millions.cart('{last}')}"
    for statement in (
        f"update vendor_orders set status = 'closed' where cart_id {of}",
        f"update cart_records set converted_at = now() - interval '400 days' where id {of}",
        f"update checkout_requests set created_at = now() - interval '400 days' where cart_id {of}",
    ):
        millions.in_steps(conn, statement, 0, old)
    # few dead rows beside many make a vacuum leave their index entries, which each look then passes over
    conn.execute("vacuum (analyze, index_cleanup on)")


def _calls(turn: int) -> dict[str, str]:
    # a slice has the orders that no other call touches
    first = (turn + 1 + TIMED + EXPLAINED + 1) * ROWS
    bounds = (f"'{ids.uuid(number, ids.ANCHOR)}'" for number in (first, first + ROWS))
    return {
        f"`cart_purge` of {ROWS}": f"select cart_purge({KEPT}, {ROWS})",
        f"`checkout_requests_purge` of {ROWS}": f"select checkout_requests_purge({KEPT}, {ROWS})",
        f"`outbox_purge` of {ROWS}": f"select outbox_purge({KEPT}, {ROWS})",
        f"`outbox_claim` of {ROWS}": f"select count(*) from outbox_claim({ROWS}, '1 day')",
        f"`checkout_audit_slice` of {ROWS * SHAPE.vendors} orders": (
            f"select {ROWS} from (select count(*) from checkout_audit_slice(null, {', '.join(bounds)})) as found"
        ),
    }


def measure(dsn: str) -> dict[str, Cost]:
    """Each call on other rows each time, committed, in one session that has made it before."""
    took: dict[str, list[float]] = {}
    costs: dict[str, list[Cost]] = {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        for turn in range(1 + TIMED + EXPLAINED):
            for name, call in _calls(turn).items():
                if turn > TIMED:
                    costs.setdefault(name, []).append(explained(conn, call))
                elif turn:
                    took.setdefault(name, []).append(timed(conn, call))
                elif (found := conn.execute(call).fetchone()) != (ROWS,):
                    raise LookupError(f"{call} answers {found}")
    return {
        name: replace(cost, whole=[table for table in cost.whole if table in LARGE])
        for name, cost in medians(costs, took).items()
    }


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--orders", type=int, default=10_000_000)
    options.add_argument("--beside", type=int, default=100_000)
    args = options.parse_args()

    def measured(dsn: str, carts: int) -> dict[str, Cost]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            fill(conn, carts)
        return measure(dsn)

    compare(args.beside, args.orders, measured, shape=SHAPE, into=INTO)


if __name__ == "__main__":
    main()
