"""A soak: real baskets, 16 clients, and a server that is killed, restarted and terminated under them.

    python tests/soak.py [--checkouts 100000] [--json FILE]

Each client keeps books of its own: what it was told of each cart, and what it then canceled, decided, released,
fulfilled or took back, in parts, what was paid and what was left to expire. At the end the database is counted against
these books, cart by cart and product by product, by queries that share nothing with checkout_audit(); the audit is run
as well. Exit status 1 if one unit, order, event or cent is missing or too many.

Every call is repeated under its key until it is answered, as a service would. Faults come by progress, not by time, so
that a faster machine meets as many. Afterwards come the failovers of failover.py: 20 of each kind where there were
100,000 checkouts.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import os
import random
import signal
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from crash import CrashServer
from failover import drills
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool, PoolTimeout

import pycheckout
from pycheckout._embedded import embedded_server
from pycheckout.demo.baskets import baskets, hottest_products, id_of, quote
from races import wait_until

PROCESSES, THREADS = 4, 4
VALID_UNTIL = "2999-01-01T00:00:00Z"
ADDRESS = {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "country": "US"}
SHELF = 12  # units of each product at the beginning
HOT = 6  # products that are split and merged all the time

# How many of each fault a run of 100,000 checkouts meets; a shorter one meets its share, and at least one of each.
FAULTS = {
    "session terminated": 300,
    "product split anew": 300,
    "backend killed with SIGKILL": 12,
    "server killed with SIGKILL": 12,
    "server stopped and started": 6,
}
FAILOVERS = 20  # of each kind
CHANGES = (
    *("vendor_order.canceled", "vendor_order.decided", "vendor_order.expired"),
    *("order_line.released", "order_line.fulfilled", "order_line.returned", "payment.changed"),
)
SNAPSHOT = (0.5, 0.7)  # the part of the run in which a snapshot is held open; no server dies in it
LOST = (pycheckout.Busy, pycheckout.Unavailable, psycopg.OperationalError, PoolTimeout)


def share_of(total: int, each: int) -> int:
    """Of what a run of 100,000 checkouts meets so often."""
    return max(1, round(each * total / 100_000))


@dataclass
class Books:
    """What one client was told."""

    carts: dict[str, dict[str, Any]] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    latencies: list[tuple[float, float]] = field(default_factory=list)  # when it ended, seconds it took


class Client:
    """Quotes, pays, repeats, changes its mind, and writes down every answer."""

    def __init__(self, number: int, pool: ConnectionPool, progress: Any, total: int) -> None:
        self.random = random.Random(number)
        self.number, self.pool, self.progress, self.total = number, pool, progress, total
        self.books = Books()
        self.sample = baskets()

    def run(self) -> Books:
        while True:
            with self.progress.get_lock():
                if self.progress.value >= self.total:
                    return self.books
                self.progress.value += 1
                turn = self.progress.value
            self.buy(turn)

    def until_answered(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except LOST as error:
                self.books.done[f"{type(error).__name__}, repeated"] += 1
                time.sleep(0.05)

    def sql(self, query: str, *params: Any) -> Any:
        def call() -> Any:
            with self.pool.connection() as conn:
                return conn.execute(query, params).fetchone()[0]

        return self.until_answered(call)

    def buy(self, turn: int) -> None:
        basket = self.random.choice(self.sample)
        cart = quote({**basket, "basket": f"{basket['basket']}.{turn}"}, VALID_UNTIL, [])
        for group in cart["vendor_groups"]:
            group["items"] = [item for item in group["items"] if item["quantity"] > 0]
        self.until_answered(lambda: pycheckout.put_cart(self.pool, cart))
        request = {
            "buyer_store_id": cart["buyer_store_id"],
            "cart_id": cart["id"],
            "shipping_address": ADDRESS,
            "payment_method": "ach",
            "reservation_policy": self.random.choice(["partial", "partial", "partial", "vendor", "all"]),
        }
        key = f"turn-{turn}"
        if self.random.random() < 0.05:
            self.until_answered(lambda: self.roll_back(request, key))
        try:
            result = self.until_answered(lambda: self.pay(request, key))
        except (pycheckout.InsufficientInventory, pycheckout.NoOrderableItems) as error:
            self.books.refused[error.code] += 1
            return
        self.books.done[f"checkouts, {result.outcome}"] += 1
        self.enter(result)
        if self.random.random() < 0.1:
            key = self.random.choice([key, f"other-{turn}"])
            again = self.until_answered(lambda: self.pay(request, key))
            assert again.replayed
            assert again.checkout_group_id == result.checkout_group_id
            self.books.done["replays"] += 1
        self.change_something(result)
        if self.random.random() < 0.25:
            self.restock(result)

    def pay(self, request: dict[str, Any], key: str) -> pycheckout.CheckoutResult:
        began = time.monotonic()
        result = pycheckout.execute(self.pool, idempotency_key=key, **request)
        self.books.latencies.append((time.time(), time.monotonic() - began))
        return result

    def roll_back(self, request: dict[str, Any], key: str) -> None:
        """A service whose own transaction fails after the checkout."""
        with self.pool.connection() as conn, conn.transaction(force_rollback=True):
            try:
                pycheckout.execute(conn, idempotency_key=key, **request)
            except (pycheckout.InsufficientInventory, pycheckout.NoOrderableItems):
                return
            self.books.done["rolled back"] += 1

    def enter(self, result: pycheckout.CheckoutResult) -> None:
        items = [item for order in result.vendor_orders for item in order.items]
        self.books.carts[str(result.cart_id)] = {
            "group": str(result.checkout_group_id),
            "orders": len(result.vendor_orders),
            "lines": len(items),
            "held": sum(item.qty for item in items if item.status == "pending"),
            "fulfilled": 0,
            "returned": 0,
            "cents": sum(order.total_cents for order in result.vendor_orders),
            "paid": 0,
        }

    def change_something(self, result: pycheckout.CheckoutResult) -> None:
        """What becomes of one order, step after step; most are left as they are."""
        orders = [order for order in result.vendor_orders if order.status == "created_pending"]
        what = self.random.random()
        if what > 0.3 or not orders:
            return
        order = self.random.choice(orders)
        entry = self.books.carts[str(result.cart_id)]
        lines = {str(item.line_item_id): [item.qty, 0] for item in order.items if item.status == "pending"}
        self.cents = order.total_cents
        if what < 0.05:
            entry["held"] -= sum(held for held, _ in lines.values())
            self.change(entry, "vendor_order.canceled", "vendor_order_cancel(%s, 'The buyer called.')", order.order_id)
        elif what < 0.1:
            self.let_expire(entry, order.order_id, lines)
        else:
            if what < 0.15:
                self.decide(entry, order.order_id, lines)
            if what < 0.2 and self.cents > 0:
                self.record_payment(entry, order.order_id, self.cents)
            for _ in range(self.random.randint(1, 4)):
                self.change_a_part(entry, lines)

    def change(self, entry: dict[str, Any], event: str, call: str, *params: Any) -> None:
        """Made once, however often it is called: an order that ends and a key both see to that."""
        answer = self.sql(f"select {call}", *params)
        entry["cents"] += answer["total_cents"] - self.cents
        self.cents = answer["total_cents"]
        self.books.done[event] += 1

    def decide(self, entry: dict[str, Any], order_id: Any, lines: dict[str, list[int]]) -> None:
        decisions = []
        for line_id, line in lines.items():
            accepted = self.random.randint(1, line[0])
            decisions.append({"line_item_id": line_id, "accept_qty": accepted, "reason": "Too few."})
            entry["held"] -= line[0] - accepted
            line[0] = accepted
        self.change(
            entry, "vendor_order.decided", "vendor_order_decide(%s, %s, %s)", order_id, Jsonb(decisions), str(uuid4())
        )

    def change_a_part(self, entry: dict[str, Any], lines: dict[str, list[int]]) -> None:
        line_id, line = self.random.choice(list(lines.items()))
        held, out = line
        key = str(uuid4())
        if out and self.random.random() < 0.3:
            qty = self.random.randint(1, out)
            line[1] -= qty
            entry["returned"] += qty
            self.change(entry, "order_line.returned", "order_line_return(%s, 'Torn.', %s, true, %s)", line_id, qty, key)
        elif held:
            qty = self.random.randint(1, held)
            line[0] -= qty
            entry["held"] -= qty
            if self.random.random() < 0.5:
                line[1] += qty
                entry["fulfilled"] += qty
                self.change(entry, "order_line.fulfilled", "order_line_fulfil(%s, %s, %s)", line_id, qty, key)
            else:
                self.change(
                    entry, "order_line.released", "order_line_release(%s, 'Broken.', %s, %s)", line_id, qty, key
                )

    def record_payment(self, entry: dict[str, Any], order_id: Any, cents: int) -> None:
        """Told twice, as a provider does."""
        event = str(uuid4())
        for _ in range(2):
            self.sql("select payment_record(%s, 'acme', %s, 'captured', %s, 'USD')", order_id, event, cents)
        entry["paid"] += cents
        self.books.done["payment.changed"] += 1

    def let_expire(self, entry: dict[str, Any], order_id: Any, lines: dict[str, list[int]]) -> None:
        """Its end comes by whichever client calls first, or at the end of the run."""
        self.sql("update vendor_orders set expires_at = now() where id = %s returning true", order_id)
        entry["held"] -= sum(held for held, _ in lines.values())
        entry["cents"] -= self.cents
        self.sql("select vendor_orders_expire(10)")
        self.books.done["vendor_order.expired"] += 1

    def restock(self, result: pycheckout.CheckoutResult) -> None:
        """Together with a line in a journal: so a lost answer is no lost count."""
        items = [item for order in result.vendor_orders for item in order.items]
        parcels = [(str(uuid4()), str(item.product_id), item.qty * 3) for item in items]
        self.sql("select soak_restock(%s)", Jsonb(sorted(parcels, key=lambda parcel: parcel[1])))
        self.books.done["restocks"] += 1


SOAK_SCHEMA = """
create table soak_parcels (id uuid primary key, product_id uuid not null, qty integer not null);
create function soak_restock(parcels jsonb) returns void language plpgsql as $$
declare
  v_parcel record;
begin
  for v_parcel in
    select (each.parcel ->> 0)::uuid as id, (each.parcel ->> 1)::uuid as product_id, (each.parcel ->> 2)::integer as qty
      from jsonb_array_elements(parcels) with ordinality as each (parcel, position) order by position
  loop
    insert into soak_parcels values (v_parcel.id, v_parcel.product_id, v_parcel.qty) on conflict do nothing;
    if found then
      perform inventory_restock(v_parcel.product_id, v_parcel.qty);
    end if;
  end loop;
end $$;
"""


def clients(process: int, dsn: str, total: int) -> list[Books]:
    """One process of the load: its clients share a pool, as the threads of a service do."""
    for name in ("psycopg", "psycopg.pool", "pycheckout"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # lost connections are the point, and are counted
    with (
        ConnectionPool(dsn, min_size=THREADS, max_size=THREADS, timeout=5, open=True) as pool,
        ThreadPoolExecutor(THREADS) as threads,
    ):
        runs = [threads.submit(Client(process * THREADS + n, pool, progress, total).run) for n in range(THREADS)]
        return [run.result() for run in runs]


class Faults(threading.Thread):
    """Whatever can happen to a server, spread evenly over the run."""

    def __init__(self, server: CrashServer, progress: Any, total: int, hot: list[Any]) -> None:
        super().__init__(daemon=True)
        self.server, self.progress, self.total, self.hot = server, progress, total, hot
        self.met: Counter[str] = Counter()
        self.snapshot: Any = None
        self.error: BaseException | None = None
        self.random = random.Random(7)
        spread = [
            (self.when(name, (n + self.random.random()) / count), name)
            for name, each in FAULTS.items()
            for count in [share_of(total, each)]
            for n in range(count)
        ]
        self.plan = sorted([*spread, (SNAPSHOT[0], "snapshot held open"), (SNAPSHOT[1], "snapshot given up")])

    def when(self, name: str, share: float) -> float:
        """A share of the run; what stops the server stays out of the part with the snapshot."""
        first, last = SNAPSHOT
        if "server" in name or "SIGKILL" in name:
            share *= 1 - (last - first)
            share = share if share < first else share + last - first
        return share

    def run(self) -> None:
        try:
            for share, name in self.plan:
                # the clients that are still busy when the last cart is taken meet what comes last
                while self.progress.value < min(share, 0.99) * self.total:
                    time.sleep(0.01)
                self.strike(name)
                self.met[name] += 1
        except BaseException as error:
            self.error = error
            raise

    def strike(self, name: str) -> None:
        if name == "snapshot held open":
            self.snapshot = psycopg.connect(self.server.embedded.dsn())
            self.snapshot.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self.snapshot.execute("select count(*) from inventory_items")
        elif name == "snapshot given up":
            # it must have been open all the while
            self.snapshot.execute("select count(*) from inventory_items")
            self.snapshot.close()
        elif name == "server killed with SIGKILL":
            self.server.kill()
            self.server.start()
        elif name == "server stopped and started":
            self.server.stop()
            self.server.start()
        else:
            with psycopg.connect(self.server.embedded.dsn(), autocommit=True) as conn:
                if name == "product split anew":
                    product, slots = self.random.choice(self.hot), self.random.choice([1, 2, 4, 8])
                    conn.execute("select inventory_split(%s, %s)", (product, slots))
                else:
                    # for choice somebody in the middle of a statement; after a restart nobody is back for a moment
                    busiest = """
                        select pid from pg_stat_activity where application_name = 'soak'
                         order by state = 'active' desc, random() limit 1
                        """
                    [pid] = wait_until(lambda: conn.execute(busiest).fetchone(), "no session came back", 60)
                    os.kill(pid, signal.SIGTERM if name == "session terminated" else signal.SIGKILL)
                    # once it is gone, the postmaster knows of it, and a crash has begun
                    wait_until(lambda: not Path(f"/proc/{pid}").exists(), f"backend {pid} never ended", 60)
            self.server.wait_until_ready()


# The count at the end. Plain sums over plain tables, put together in Python.


def proof(conn: psycopg.Connection, books: list[Books]) -> dict[str, Any]:
    """What the database holds against what the clients were told; "wrong" must be empty."""
    wrong: list[str] = []

    def same(what: str, found: Any, expected: Any) -> None:
        if found != expected:
            wrong.append(f"{what}: {found} found, {expected} expected")

    def table(query: str) -> dict[Any, Any]:
        return {row[0]: row[1:] if len(row) > 2 else row[1] for row in conn.execute(query)}

    told = {cart_id: entry for book in books for cart_id, entry in book.carts.items()}
    done = sum((book.done for book in books), Counter())

    # every cart that was answered is there, as it was answered, and no other was converted
    anchors = table("select id::text, checkout_group_id::text from cart_records where status = 'converted'")
    orders = table("select cart_id::text, count(*), sum(total_cents)::bigint from vendor_orders group by 1")
    paid = table(
        """
        select cart_id::text, sum(amount_cents)::bigint
          from payment_events join vendor_orders as vendor_order on vendor_order.id = order_id group by 1
        """
    )
    lines = table(
        """
        select cart_id::text, count(*), coalesce(sum(reserved_qty), 0)::bigint, coalesce(sum(fulfilled_qty), 0)::bigint,
               coalesce(sum(returned_qty), 0)::bigint
          from order_line_items as line join vendor_orders as vendor_order on vendor_order.id = order_id group by 1
        """
    )
    same("carts converted", set(anchors) ^ set(told), set())
    for cart_id, entry in told.items():
        same(f"anchor of {cart_id}", anchors.get(cart_id), entry["group"])
        same(f"orders and cents of {cart_id}", orders.get(cart_id), (entry["orders"], entry["cents"]))
        same(f"paid for {cart_id}", paid.get(cart_id, 0), entry["paid"])
        units = tuple(entry[name] for name in ("lines", "held", "fulfilled", "returned"))
        same(f"lines of {cart_id}", lines.get(cart_id), units)

    # nothing twice
    [(vendors,)] = conn.execute(
        "select count(*) from (select distinct cart_id, vendor_store_id from vendor_orders) as o"
    )
    same("vendor orders", sum(count for count, _ in orders.values()), vendors)
    [(intents,)] = conn.execute("select count(*) from payment_intents join vendor_orders as o on o.id = order_id")
    same("payment intents", intents, vendors)
    events = table("select event_type::text, count(*) from outbox_events group by 1")
    expected = {"checkout.converted": len(told), "checkout.vendor_orders_created": len(told)}
    same("events", events, expected | {name: done[name] for name in CHANGES if done[name]})
    made = table("select kind, count(*) from order_changes group by 1")
    kinds = {name.partition(".")[2]: done[name] for name in CHANGES if done[name] and name != "payment.changed"}
    same("changes", made, kinds)
    [(distinct,)] = conn.execute(
        "select count(distinct (aggregate_id, event_type)) from outbox_events where event_type ~ 'checkout'"
    )
    same("events of a conversion", distinct, 2 * len(told))

    # conservation: what was on the shelf and what came is available, held by an open line, or gone with a fulfilled one
    came = table("select product_id, sum(qty)::bigint from soak_parcels group by 1")
    begun = table("select product_id, qty from soak_shelf")
    row0 = table("select product_id, available_qty, reserved_qty from inventory_items")
    slots = table(
        "select product_id, sum(available_qty)::bigint, sum(reserved_qty)::bigint from inventory_slots group by 1"
    )
    units = "select product_id, sum({})::bigint from order_line_items group by 1 having sum({}) > 0"
    held = table(units.format(*["reserved_qty"] * 2))
    gone = table(units.format(*["coalesce(fulfilled_qty, 0) - coalesce(returned_qty, 0)"] * 2))
    for product, (available, reserved) in row0.items():
        more_available, more_reserved = slots.get(product, (0, 0))
        same(f"reserved of {product}", reserved + more_reserved, held.get(product, 0))
        same(
            f"units of {product}",
            available + more_available + held.get(product, 0) + gone.get(product, 0),
            begun.get(product, 0) + came.get(product, 0),
        )
    same("products with stock", set(row0), set(begun) | set(came))

    audited = [str(row) for row in conn.execute("select * from checkout_audit()")]
    return {
        "conversions": len(told),
        "vendor orders": vendors,
        "order lines": sum(count for count, *_ in lines.values()),
        "units held by open lines": sum(held.values()),
        "units gone": sum(gone.values()),
        "units returned": sum(returned for *_, returned in lines.values()),
        "cents paid": sum(paid.values()),
        "units restocked": sum(came.values()),
        "refused": dict(sum((book.refused for book in books), Counter())),
        "done": dict(sorted(done.items())),
        "audit rows": audited,
        "wrong": wrong,
    }


def latencies(books: list[Books]) -> dict[str, float]:
    """The 95th percentile in milliseconds over the run, in its first and last tenth, and their ratio."""
    seconds = [seconds for _, seconds in sorted(each for book in books for each in book.latencies)]
    tenth = max(len(seconds) // 10, 2)

    def p95(part: list[float]) -> float:
        return round(1000 * statistics.quantiles(part, n=20)[-1], 1)

    first, last = p95(seconds[:tenth]), p95(seconds[-tenth:])
    begin, end = (int(len(seconds) * share) for share in SNAPSHOT)
    return {
        "p95 ms": p95(seconds),
        "p95 ms, first tenth": first,
        "p95 ms, last tenth": last,
        "last to first": round(last / first, 2),
        "p95 ms before the snapshot": p95(seconds[begin - (end - begin) : begin]),
        "p95 ms with the snapshot held": p95(seconds[begin:end]),
    }


def soak(total: int) -> dict[str, Any]:
    """Run it and return the figures."""
    sample = baskets()
    with embedded_server(max_connections=60, max_wal_size="4GB") as embedded:
        pycheckout.migrate(embedded.dsn())
        server = CrashServer.of(embedded)
        with psycopg.connect(embedded.dsn(), autocommit=True) as conn:
            conn.execute(SOAK_SCHEMA)
            products = {id_of("product", line["product"]) for basket in sample for line in basket["lines"]}
            for product in sorted(products):
                conn.execute("select inventory_set(%s, %s)", (product, SHELF))
            conn.execute("create table soak_shelf as select product_id, available_qty as qty from inventory_items")

        context = multiprocessing.get_context("spawn")
        progress = context.Value("q", 0)
        faults = Faults(server, progress, total, hottest_products(sample, HOT))
        faults.start()
        began = time.monotonic()
        dsn = f"{embedded.dsn()}?application_name=soak"
        with context.Pool(PROCESSES, _inherit, (progress,)) as processes:
            runs = [processes.apply_async(clients, (n, dsn, total)) for n in range(PROCESSES)]
            books = [book for run in runs for book in run.get()]
        seconds = time.monotonic() - began
        faults.join()
        if faults.error:
            raise faults.error

        with psycopg.connect(embedded.dsn()) as conn:
            while conn.execute("select vendor_orders_expire(1000)").fetchone()[0]["order_ids"]:
                conn.commit()
            figures = proof(conn, books)
            query = (
                "select sum(n_dead_tup)::bigint from pg_stat_user_tables where relname ~ '^inventory_(items|slots)$'"
            )
            figures["dead stock rows at the end"] = conn.execute(query).fetchone()[0]
    return {
        "carts": total,
        "seconds": round(seconds),
        **figures,
        "faults": dict(faults.met),
        "latency": latencies(books),
    }


def _inherit(value: Any) -> None:
    global progress
    progress = value


progress: Any = None


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--checkouts", type=int, default=100_000)
    options.add_argument("--json", type=Path, metavar="FILE", help="write the figures there as well")
    args = options.parse_args()
    figures = soak(args.checkouts)
    text = json.dumps(figures, indent=2)
    print(text)
    if args.json:
        args.json.write_text(text + "\n")
    bad = drills(share_of(args.checkouts, FAILOVERS))
    return 1 if bad or figures["wrong"] or figures["audit rows"] else 0


if __name__ == "__main__":
    sys.exit(main())
