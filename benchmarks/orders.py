"""What a call on an order costs beside ten million: python -m benchmarks.orders [--orders N] [--beside N] [--due N]

Fills a server of its own twice, with --beside orders and then with --orders, by SQL, and has auto_explain say how many
pages each call touched, and by which indexes. Every order has a number, a purchase order, an intent, a change and a
payment that failed. It fails if a call read a table whole, or touched more than half as many pages again as beside the
fewer orders, and one more for each index that it read, which may be a level deeper. Ten million orders take 16 GB of
disk, the WAL aside, and a quarter of an hour.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any
from uuid import UUID

import psycopg

from benchmarks import ids, loads, millions
from benchmarks.loads import Shape

BUYERS = 1000
SHAPE = Shape(buyers=BUYERS)
INTO = ("vendor_orders", "order_line_items", "payment_intents")
AT = "timestamptz '2026-01-01' + n * interval '1 second'"
ALSO = {"created_at": AT, "order_number": f"n * {SHAPE.vendors} + part.v", "purchase_order": "'PO-' || n"}
TIMED, EXPLAINED = 20, 3  # of each call: PL/pgSQL may keep one plan from the sixth on
EXPIRIES = 1 + 10 + 10  # of a tenth of those that are due: one before the clock starts, ten timed, ten explained
NEWEST = 100  # carts, of which no vendor has answered an order yet
PAGE = 20

_HISTORY = (
    "insert into order_changes (id, order_id, kind, lines, created_at) select own, own, 'extended', '[]', at from MADE",
    "insert into payment_events (order_id, provider, provider_event_id, kind, amount_cents, currency, created_at)"
    " select own, 'psp', 'old', 'failed', 0, 'USD', at from MADE",
)
_MADE = (
    f"(select ({ids.sql_high('n')} || part.low)::uuid as own, {AT} as at"
    " from generate_series({first}::bigint, {last}) as n cross join bench.groups as part order by n, part.v) as made"
)
_NOTHING = ([], {"orders": [], "after": None})


@dataclass(slots=True, kw_only=True)
class Cost:
    """What a call came to."""

    pages: int
    indexes: list[str]
    whole: list[str]
    milliseconds: float = 0


@dataclass(slots=True, kw_only=True)
class Carts:
    """Which cart is there for what, by number."""

    count: int
    due: list[int]
    open: list[int]
    old: list[int]


def fill(conn: psycopg.Connection[Any], carts: int, due: int) -> Carts:
    """A history for the orders that are there, and some of them open, scattered over all; vacuums and analyzes."""
    add_history(conn, carts)
    rounds = TIMED + EXPLAINED
    expire = EXPIRIES * (due // 10)
    picked = _spread(carts - NEWEST, expire + 3 * rounds)
    old = [each + 1 for each in picked[:: len(picked) // rounds]]
    used = Carts(count=carts, due=picked[:expire], open=picked[expire:], old=old)
    _open(conn, [_order(each, 1) for each in used.due], "created_at + interval '1 day'")
    _open(
        conn,
        [
            _order(each, vendor)
            for each in (*used.open, *range(carts - NEWEST, carts))
            for vendor in range(1, SHAPE.vendors + 1)
        ],
        "now() + interval '1 day'",
    )
    # few dead rows beside many make a vacuum leave their index entries, which each look then passes over
    conn.execute("vacuum (analyze, index_cleanup on)")
    return used


def add_history(conn: psycopg.Connection[Any], carts: int) -> None:
    """A change and a payment that failed for each order."""
    for statement in _HISTORY:
        millions.in_steps(conn, statement.replace("MADE", _MADE), 0, carts)


def _spread(carts: int, count: int) -> list[int]:
    """So many of them, as far apart as can be, and no two in a row with lines of the same products."""
    step = next(step for step in range(carts // count, 0, -1) if gcd(step, loads.PRODUCTS) == 1)
    return [step * number for number in range(count)]


def _open(conn: psycopg.Connection[Any], orders: list[UUID], deadline: str) -> None:
    conn.execute("set session_replication_role = replica")
    conn.execute(
        "update vendor_orders set status = 'created_pending', balance_due_cents = total_cents,"
        f" expires_at = {deadline} where id = any (%s)",
        (orders,),
    )
    conn.execute("update payment_intents set status = 'unpaid' where order_id = any (%s)", (orders,))
    conn.execute(
        "with held as ("
        "  update order_line_items set status = 'pending', reserved_qty = qty where order_id = any (%s)"
        "  returning product_id, qty"
        ") update inventory_items as stock set reserved_qty = stock.reserved_qty + sums.qty"
        "   from (select product_id, sum(qty) as qty from held group by product_id) as sums"
        "  where stock.product_id = sums.product_id",
        (orders,),
    )
    conn.execute("reset session_replication_role")


def _order(cart: int, vendor: int) -> UUID:
    return ids.uuid(cart, ids.group(vendor))


def _line(cart: int, vendor: int) -> UUID:
    return ids.uuid(cart, ids.item(vendor, 1))


def changes(
    order: Callable[[int, int], UUID], line: Callable[[int, int], UUID], carts: Sequence[int], key: str
) -> dict[str, str]:
    """What may be done to the orders of three carts, a call each; `order` and `line` tell ids by cart and vendor."""
    first, second, third = carts
    refusing = f'[{{"line_item_id": "{line(third, 2)}", "accept_qty": 0, "reason": "None left."}}]'
    return {
        "payment_record": f"payment_record('{order(first, 1)}', 'psp', '{key}', 'captured', 10, 'USD')",
        "order_adjust": f"order_adjust('{order(first, 1)}', -10, 'Late.', '{key}-credit')",
        "vendor_order_extend": f"vendor_order_extend('{order(first, 2)}', now() + interval '2 days')",
        "order_line_fulfil": f"order_line_fulfil('{line(first, 1)}', 1, '{key}')",
        "order_line_return": f"order_line_return('{line(first, 1)}', 'Broken.', 1, true, '{key}-back')",
        "order_line_release": f"order_line_release('{line(second, 1)}', 'None left.')",
        "vendor_order_cancel": f"vendor_order_cancel('{order(second, 2)}', 'The buyer called.')",
        "vendor_order_decide": f"vendor_order_decide('{order(third, 1)}', '[]', '{key}')",
        "vendor_order_decide, refusing": f"vendor_order_decide('{order(third, 2)}', '{refusing}', '{key}')",
    }


def _reads(conn: psycopg.Connection[Any], cart: int, carts: int) -> dict[str, str]:
    """What may be asked about an old order, its buyer and its vendor."""
    order, buyer, vendor = _order(cart, 1), ids.uuid(cart % BUYERS, ids.BUYER), ids.vendor(1)
    half = carts // BUYERS // 2 * BUYERS + cart % BUYERS  # of the same buyer

    def page(store: str, rest: str = "") -> str:
        return f"select orders_list({store}, max_rows => {PAGE}{rest})"

    query = "select order_place(created_at, id) from vendor_orders where id = any (%s) order by id"
    (vendors_half,), (buyers_half,) = conn.execute(query, ([_order(half, 1), _order(half, SHAPE.vendors)],)).fetchall()
    of_buyer, of_vendor = f"buyer_store_id => '{buyer}'", f"vendor_store_id => '{vendor}'"
    return {
        "order_get": f"select order_get('{order}', '{buyer}')",
        "order_changes_list": f"select order_changes_list('{order}', '{buyer}')",
        "order_history of an order": f"select to_json(order_history) from order_history where order_id = '{order}'",
        "order_money of an order": f"select to_json(order_money) from order_money where order_id = '{order}'",
        "orders_list of a buyer": page(of_buyer),
        "orders_list of a buyer, half way down": page(of_buyer, f", after => '{buyers_half}'"),
        "orders_list of a vendor": page(of_vendor),
        "orders_list of a vendor, half way down": page(of_vendor, f", after => '{vendors_half}'"),
        "orders_list of a vendor, those to answer": page(of_vendor, ", statuses => '{created_pending}'"),
        f"orders_list of a vendor, past {NEWEST} to answer": page(of_vendor, ", statuses => '{fulfilled}'"),
        "orders_list by number": page(of_buyer, f", order_number => {cart * SHAPE.vendors + 1}"),
        "orders_list by purchase order": page(of_buyer, f", purchase_order => 'PO-{cart}'"),
        "vendor_orders_expire, nothing due": "select vendor_orders_expire()",
    }


def measure(dsn: str, carts: Carts) -> dict[str, Cost]:
    """Each call on other orders each time, committed, in one session that has made it before."""
    took: dict[str, list[float]] = {}
    costs: dict[str, list[Cost]] = {}
    with psycopg.connect(dsn, autocommit=True) as conn:
        some = len(carts.due) // EXPIRIES
        call = f"select vendor_orders_expire({some})"
        timed(conn, call)
        expiring = sum(timed(conn, call) for _ in range(10))
        expiries = [explained(conn, call) for _ in range(10)]
        [(ended,)] = conn.execute("select count(*) from vendor_orders where status = 'expired'").fetchall()
        if ended != len(carts.due):
            raise LookupError(f"{ended} orders ended, not {len(carts.due)}")
        for turn in range(TIMED + EXPLAINED):
            done = changes(_order, _line, carts.open[3 * turn : 3 * turn + 3], f"k{turn}")
            calls = _reads(conn, carts.old[turn], carts.count) | {name: f"select {call}" for name, call in done.items()}
            for name, call in calls.items():
                if turn < TIMED:
                    took.setdefault(name, []).append(timed(conn, call))
                else:
                    costs.setdefault(name, []).append(explained(conn, call))
    found = medians(costs, took)
    found[f"vendor_orders_expire of {some:,}, ten times"] = _together(
        expiries, sum(each.pages for each in expiries), expiring
    )
    return found


def medians(costs: dict[str, list[Cost]], took: dict[str, list[float]]) -> dict[str, Cost]:
    """What each call came to, of those that were explained and those that were timed."""
    return {
        name: _together(each, statistics.median(cost.pages for cost in each), statistics.median(took[name]))
        for name, each in costs.items()
    }


def _together(costs: list[Cost], pages: float, milliseconds: float) -> Cost:
    return Cost(
        pages=round(pages),
        indexes=sorted({index for each in costs for index in each.indexes}),
        whole=sorted({table for each in costs for table in each.whole}),
        milliseconds=milliseconds,
    )


def timed(conn: psycopg.Connection[Any], call: str) -> float:
    began = time.perf_counter()
    rows = conn.execute(call).fetchall()
    taken = (time.perf_counter() - began) * 1000
    if not rows or rows[0][0] in _NOTHING:
        raise LookupError(f"{call} finds nothing")
    return taken


def explained(conn: psycopg.Connection[Any], call: str) -> Cost:
    own, parts = millions.explained(conn, call)
    nodes = [node.split() for each in (own, *parts) for node in each.nodes]
    return Cost(
        pages=own.pages,
        indexes=sorted({node[-1] for node in nodes if node[0] == "Index"}),
        whole=sorted({table for each in (own, *parts) for table in each.whole}),
    )


def faults(few: dict[str, Cost], many: dict[str, Cost]) -> list[str]:
    """Which call did not stay flat, in words."""
    found = []
    for name, cost in many.items():
        found.extend(f"{name} read {table} whole" for table in cost.whole)
        most = 1.5 * few[name].pages + len(cost.indexes)
        if cost.pages > most:
            found.append(f"{name} touched {cost.pages:,} pages, more than {most:,.0f}")
    return found


def table(found: dict[int, dict[str, Cost]]) -> str:
    """For docs/performance.md."""
    sizes = " | ".join(f"{orders:,}" for orders in found)
    lines = [f"| beside so many orders | {sizes} | {sizes} |", "|---|" + "---:|" * 2 * len(found)]
    for name in next(iter(found.values())):
        each = [costs[name] for costs in found.values()]
        cells = [*(f"{cost.pages:,}" for cost in each), *(f"{cost.milliseconds:,.1f} ms" for cost in each)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def compare(few: int, many: int, measured: Callable[[str, int], dict[str, Cost]], **filled: Any) -> None:
    """Fill a server with so many orders, twice, and tell what calls came to; `measured` is given its URL and carts."""
    found: dict[int, dict[str, Cost]] = {}
    for orders in (few, many):
        began = time.monotonic()
        with millions.filled(orders, **filled) as (dsn, carts):
            costs = found[orders] = measured(dsn, carts)
            with psycopg.connect(dsn) as conn:
                [(size,)] = conn.execute("select pg_size_pretty(pg_database_size(current_database()))").fetchall()
        print(f"{orders:,} orders: {size}, {time.monotonic() - began:.0f} seconds", flush=True)
        for name, cost in costs.items():
            told = f"{cost.pages:>8,} pages  {cost.milliseconds:>8.1f} ms  {name}"
            print(f"{told}: {', '.join(cost.indexes)}", flush=True)
    print("\n" + table(found))
    if wrong := faults(found[few], found[many]):
        sys.exit("\n".join(wrong))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--orders", type=int, default=10_000_000)
    options.add_argument("--beside", type=int, default=100_000)
    options.add_argument("--due", type=int, default=1000)
    args = options.parse_args()

    def measured(dsn: str, carts: int) -> dict[str, Cost]:
        with psycopg.connect(dsn, autocommit=True) as conn:
            used = fill(conn, carts, args.due)
        return measure(dsn, used)

    compare(args.beside, args.orders, measured, shape=SHAPE, into=INTO, also=ALSO)


if __name__ == "__main__":
    main()
