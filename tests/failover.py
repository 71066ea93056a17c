"""A primary with a standby, callers that sell, and the end of the primary: by SIGKILL, or by silence.

    python tests/failover.py [--times 20] [--orders 400] [--only synchronous] [--set NAME=VALUE ...]

The callers keep books of what they were answered. Afterwards the promoted server is counted against them, by queries
that share nothing with checkout_audit(); the audit is run as well. Exit status 1 if anything is wrong there, or if an
order that was answered is not, of a synchronous standby. Of an asynchronous one, what is lost is counted and told.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
from crash import pg_ctl, postmaster_of, programs_of
from psycopg.conninfo import make_conninfo
from quoted import Quoted, quoted

from pycheckout import Busy, CartNotFound, Checkout, CheckoutResult, Unavailable, migrate
from pycheckout._embedded import EmbeddedServer, _free_port, embedded_server
from pycheckout.markets import Market, Markets, Pools
from races import wait_until

CALLERS = 8
SCHEMA = "market_ok"


class Silencer:
    """Passes everything on, until it is told to pass nothing more and to close nothing: a cable that was pulled."""

    def __init__(self, port: int) -> None:
        self.silent = threading.Event()
        self._upstream = port
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._sockets.append(client)
                if not self.silent.is_set():
                    try:
                        server = socket.create_connection(("127.0.0.1", self._upstream))
                    except ConnectionRefusedError:
                        client.close()
                        continue
                    self._sockets.append(server)
                    for one, other in ((client, server), (server, client)):
                        threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                if self.silent.is_set():
                    return
                other.sendall(data)
        if not self.silent.is_set():
            with suppress(OSError):
                other.shutdown(socket.SHUT_RDWR)


@dataclass
class Pair:
    """A primary and its standby."""

    primary: EmbeddedServer
    standby_data: Path
    standby_port: int
    programs: Path

    def dsn(self) -> str:
        """A database of the standby."""
        return make_conninfo(self.primary.dsn(), port=self.standby_port)

    def both(self, port: int) -> str:
        """The URL that a service has: the way to the primary, and the standby."""
        return make_conninfo(
            self.primary.dsn(),
            host="127.0.0.1,127.0.0.1",
            port=f"{port},{self.standby_port}",
            target_session_attrs="read-write",
            connect_timeout=2,
            sslmode="disable",
            gssencmode="disable",
        )

    def kill_primary(self) -> None:
        """All of it at once, as if the machine had lost its power: after that, it is fenced."""
        postmaster = postmaster_of(self.primary.data)
        os.kill(postmaster, signal.SIGSTOP)  # it makes no child any more
        for process in [postmaster, *_children(postmaster)]:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def promote(self) -> None:
        assert pg_ctl(self.programs, self.standby_data, "promote"), "the standby was not promoted"

    def cut(self) -> None:
        """From now on the standby receives nothing. Its primary goes on."""
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            conn.execute("alter system set primary_conninfo = ''")
            conn.execute("select pg_reload_conf()")
        with psycopg.connect(self.primary.dsn(), autocommit=True) as conn:
            query = "select count(*) from pg_stat_replication where application_name = 'walreceiver'"
            wait_until(lambda: conn.execute(query).fetchone() == (0,), "the standby still receives", 30)

    def wait_until_replayed(self) -> None:
        with psycopg.connect(self.primary.dsn()) as conn:
            [[here]] = conn.execute("select pg_current_wal_lsn()").fetchall()
        with psycopg.connect(self.dsn(), autocommit=True) as conn:
            query = "select pg_last_wal_replay_lsn() >= %s::pg_lsn"
            wait_until(lambda: conn.execute(query, (here,)).fetchone() == (True,), "the standby does not follow", 30)


def _children(parent: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


@dataclass
class Seed:
    """What a primary and its standby begin with: pycheckout in a schema of its own, on a server that was stopped."""

    server: EmbeddedServer
    programs: Path

    @contextmanager
    def copied(self, name: str, port: int, *settings: str) -> Iterator[Path]:
        """The data of a copy, beside its own; stopped at the end, if it still runs."""
        data = self.server.data.with_name(f"{name}-{port}")
        subprocess.run(["cp", "-a", self.server.data, data], check=True)
        with (data / "postgresql.auto.conf").open("a") as conf:
            conf.write("\n".join((f"port = {port}", *settings, "")))
        try:
            yield data
        finally:
            with suppress(FileNotFoundError, ProcessLookupError):
                os.kill(postmaster_of(data), signal.SIGQUIT)
            shutil.rmtree(data, ignore_errors=True)


@contextmanager
def a_seed(**settings: Any) -> Iterator[Seed]:
    with embedded_server(**{"max_connections": 60, "shared_buffers": "32MB"} | settings) as server:
        migrate(server.dsn(), schema=SCHEMA, create_schema=True)
        with psycopg.connect(server.dsn()) as conn:
            programs = programs_of(conn)
        assert pg_ctl(programs, server.data, "-m", "fast", "stop"), "the first server was not stopped"
        yield Seed(server, programs)


@contextmanager
def a_pair(*, synchronous: bool, seed: Seed | None = None, **settings: Any) -> Iterator[Pair]:
    """A primary, and a standby that streams from it; of a seed, or of one with these settings."""
    if seed is None:
        with a_seed(**settings) as seed, a_pair(synchronous=synchronous, seed=seed) as pair:
            yield pair
        return
    primary = replace(seed.server, port=_free_port())
    port = _free_port()
    follows = f"primary_conninfo = '{make_conninfo(primary.dsn())}'"
    with (
        seed.copied("primary", primary.port) as data,
        seed.copied("standby", port, follows) as standby_data,
    ):
        (standby_data / "standby.signal").touch()
        primary = replace(primary, data=data)
        for each in (data, standby_data):
            assert pg_ctl(seed.programs, each, "-l", str(each / "log"), "start"), f"{each.name} did not start"
        with psycopg.connect(primary.dsn(), autocommit=True) as conn:
            if synchronous:
                conn.execute("alter system set synchronous_standby_names = '*'")
                conn.execute("select pg_reload_conf()")
            wanted = "sync" if synchronous else "async"
            query = "select sync_state from pg_stat_replication"
            wait_until(lambda: conn.execute(query).fetchone() == (wanted,), "the standby does not stream", 30)
            yield Pair(primary, standby_data, port, seed.programs)


def at(dsn: str, **pools: Any) -> Markets:
    """The market of the pair, as a service has it."""
    return Markets({"ok": Market(name="ok", server="a", database=dsn, schema=SCHEMA)}, pools=Pools(**pools))


def ask(call: Any, troubles: list[Exception] | None = None) -> Any:
    """The answer of a call that is made again, as it is, until there is one: what a service does."""
    while True:
        try:
            return call()
        except (Busy, Unavailable) as error:
            assert error.retryable or type(error) is not Unavailable, error
            if troubles is not None:
                troubles.append(error)
            time.sleep(0.02)


@dataclass
class Books:
    """What the callers were answered, and when."""

    answers: dict[UUID, tuple[Quoted, CheckoutResult]] = field(default_factory=dict)
    times: list[float] = field(default_factory=list)
    troubles: list[Exception] = field(default_factory=list)
    lost_quotes: int = 0
    """Carts that were written, and were not there when they were checked out."""

    @property
    def gap(self) -> float:
        """The longest time in which nobody was answered."""
        times = sorted(self.times)
        return max(later - earlier for earlier, later in itertools.pairwise(times))


def sell(
    checkout: Checkout, products: list[UUID], books: Books, orders: int, timeout: float | None, synchronous: bool
) -> None:
    """Quote and check out, under one key until it is answered, until the callers together have so many.

    What an asynchronous standby lacks may be the quote: then a service quotes anew.
    """
    while len(books.times) < orders:
        cart = ask(lambda: quoted(checkout, random.sample(products, 4), timeout=timeout), books.troubles)
        try:
            answer = ask(lambda cart=cart: checkout.execute(**cart.request(), timeout=timeout), books.troubles)
        except CartNotFound:
            if synchronous:
                raise
            books.lost_quotes += 1
            continue
        books.answers[cart.id] = (cart, answer)
        books.times.append(time.monotonic())


@dataclass(frozen=True)
class Counted:
    """What the promoted server has, beside what was answered. `lost`: answered, and not there."""

    answered: int
    lost: int
    wrong: list[str]


def count(dsn: str, books: Books, products: list[UUID], shelf: int) -> Counted:
    """By plain queries over tables; the audit last."""
    wrong = []
    with psycopg.connect(dsn, options=f"-c search_path={SCHEMA}", autocommit=True) as conn:

        def rows(query: str, *params: Any) -> list[Any]:
            return conn.execute(query, params).fetchall()  # type: ignore[arg-type]

        converted = {cart for (cart,) in rows("select id from cart_records where status = 'converted'")}
        keys = dict(rows("select cart_id, count(*) from checkout_requests group by 1"))
        orders: dict[UUID, set[UUID]] = {}
        for cart, order in rows("select cart_id, id from vendor_orders"):
            orders.setdefault(cart, set()).add(order)
        lost = 0
        for cart, answer in books.answers.values():
            told = {order.order_id for order in answer.vendor_orders}
            if cart.id not in converted:
                lost += 1
                if orders.get(cart.id):
                    wrong.append(f"cart {cart.id} is not converted and has orders")
            elif orders.get(cart.id) != told or keys.get(cart.id) != 1:
                wrong.append(f"cart {cart.id} was answered with other orders than it has")
        for cart, of_cart in orders.items():
            if len(of_cart) != 2:
                wrong.append(f"cart {cart} has {len(of_cart)} orders")
        events = rows("select aggregate_id, count(*) from outbox_events group by 1 having count(*) <> 2")
        wrong += [f"anchor {anchor} has {n} events" for anchor, n in events]
        sold = dict(rows("select product_id, sum(qty) from order_line_items where status <> 'rejected' group by 1"))
        for product, available, reserved in rows("select product_id, available_qty, reserved_qty from inventory_items"):
            if product in products and (shelf - available, reserved) != (sold.get(product, 0),) * 2:
                wrong.append(f"product {product}: {available} left, {reserved} reserved, {sold.get(product, 0)} sold")
        wrong += [str(found) for found in rows("select * from checkout_audit()")]
    return Counted(len(books.answers), lost, wrong)


def drill(seed: Seed, *, synchronous: bool, silence: bool, orders: int) -> tuple[Books, Counted]:
    """Sell half, lose the primary, promote, sell the other half; and count."""
    with a_pair(seed=seed, synchronous=synchronous) as pair, closing(Silencer(pair.primary.port)) as way:
        shelf, products = 100_000, [uuid4() for _ in range(12)]
        with at(pair.both(way.port), max_size=CALLERS, timeout=3) as markets:
            checkout = markets["ok"]
            checkout.stock.set_many(dict.fromkeys(products, shelf))
            books = Books()
            # By silence nothing ends but by a time limit; a reset is noticed without.
            timeout = 2.0 if silence else None
            with ThreadPoolExecutor(CALLERS) as threads:
                callers = [
                    threads.submit(sell, checkout, products, books, orders, timeout, synchronous)
                    for _ in range(CALLERS)
                ]
                wait_until(
                    lambda: len(books.times) >= orders // 2 or any(it.done() for it in callers), "nobody sells", 60
                )
                if silence:
                    way.silent.set()
                pair.kill_primary()
                pair.promote()
                for caller in callers:
                    caller.result(timeout=100)
        return books, count(pair.dsn(), books, products, shelf)


def drills(times: int, *, orders: int = 400, kinds: Sequence[bool] = (True, False), **settings: Any) -> int:
    """Each kind of standby (`kinds`: synchronous?) and of end so many times, a line for each; how much went wrong."""
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # attempts at the old primary, in the thousands
    bad = 0
    for synchronous, silence in itertools.product(kinds, (False, True)):
        gaps, lost, wrong, quotes = [], [], [], 0
        for _ in range(times):
            with a_seed(**settings) as seed:
                books, counted = drill(seed, synchronous=synchronous, silence=silence, orders=orders)
            gaps.append(books.gap)
            lost.append(counted.lost)
            wrong += counted.wrong
            quotes += books.lost_quotes
        kind = f"{'synchronous' if synchronous else 'asynchronous'} standby, {'silence' if silence else 'SIGKILL'}"
        print(
            f"{kind}: {times} times, {times * orders} orders answered, {sum(lost)} of them lost"
            f" ({max(lost)} at most), {quotes} quotes lost, {len(wrong)} wrong; nobody was answered for"
            f" {statistics.median(gaps):.2f} s (median), {max(gaps):.2f} s at most",
        )
        print(f"  each time, in s: {' '.join(f'{gap:.2f}' for gap in sorted(gaps))}", flush=True)
        for each in wrong[:20]:
            print(f"  {each}")
        bad += len(wrong) + (sum(lost) if synchronous else 0)
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--orders", type=int, default=400, help="of each time")
    parser.add_argument("--only", choices=["synchronous", "asynchronous"])
    parser.add_argument("--set", nargs="+", metavar="NAME=VALUE", default=[], help="settings of both servers")
    asked = parser.parse_args()
    kinds = [True, False] if asked.only is None else [asked.only == "synchronous"]
    settings = dict(each.split("=", 1) for each in asked.set)
    return 1 if drills(asked.times, orders=asked.orders, kinds=kinds, **settings) else 0


if __name__ == "__main__":
    sys.exit(main())
