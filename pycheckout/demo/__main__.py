"""The demo: a PostgreSQL of its own, real baskets, eight buyers at once, and what becomes of one basket's orders."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg_pool import ConnectionPool
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import pycheckout
from pycheckout._embedded import embedded_server

from . import ads, owed, report
from .baskets import Basket, baskets, hottest_products, id_of, quote, shelf

BUYERS = 8
ADDRESS = {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "postal_code": "74103", "country": "US"}
SHIPPING = {"code": "route", "title": "Truck route 7", "price_cents": 900}


def main() -> None:
    """Run the demo and leave nothing behind."""
    console = Console()
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 100  # into a file or a pipe, where rich would take 80
    signal.signal(signal.SIGINT, _interrupted)
    run(console)


def _interrupted(*_: object) -> None:
    """End at once. An exception could be lost in a finalizer; the server and its data go when their owner does."""
    show_cursor = b"\x1b[?25h" if sys.stdout.isatty() else b""
    os.write(sys.stdout.fileno(), show_cursor + b"\nInterrupted; the server and its data go as well.\n")
    os._exit(130)


def run(console: Console) -> None:
    sample = baskets()
    lines = sum(len(basket["lines"]) for basket in sample)
    console.rule("pycheckout")
    with embedded_server(max_connections=50) as server:
        dsn = server.dsn()
        done = pycheckout.migrate(dsn)
        with psycopg.connect(dsn, autocommit=True) as conn:
            version = conn.info.server_version // 10000
            console.print(f"PostgreSQL {version} started; {len(done.migrations)} migrations of {done.version} applied.")
            load(console, conn, sample)
        console.print(f"{len(sample)} real baskets ({lines:,} lines) are quoted carts now.")
        report.odd_lines(console, sample)

        with ConnectionPool(dsn, min_size=BUYERS, max_size=BUYERS, open=True) as pool:
            results, refused, seconds = check_out(console, pool, sample)
            shown = report.most_telling(list(results.values()))
            console.rule("One checkout")
            report.one_result(console, shown)
            [basket] = [number for number, result in results.items() if result is shown]
            retries = (
                pay(pool, shown.cart_id, shown.buyer_store_id, key) for key in (f"basket-{basket}", "another-key")
            )
            report.replays(console, shown, *retries)
        with psycopg.connect(dsn, autocommit=True) as conn:
            report.events(console, conn, shown)
            owed.show(console, conn, sample)
            report.totals(console, conn, list(results.values()), refused, seconds)
            broken = report.audit(console, conn)
    console.print("The server is stopped, its data is deleted.")
    if broken:
        sys.exit(1)


def load(console: Console, conn: psycopg.Connection, sample: list[Basket]) -> None:
    """Stock, a signing key, and every basket as a quote."""
    for product, units in shelf(sample):
        conn.execute("select inventory_set(%s, %s)", (product, units))
    for product in hottest_products(sample, 3):
        conn.execute("select inventory_split(%s, %s)", (product, BUYERS // 2))
    conn.execute("select ad_signing_key_put(%s, %s)", (ads.KID, ads.SECRET))
    valid_until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    with progress(console, "Quoting") as bar:
        for position, basket in enumerate(bar.track(sample)):
            pycheckout.put_cart(conn, quote(basket, valid_until, ads.tokens(basket, position)))


def check_out(
    console: Console, pool: ConnectionPool, sample: list[Basket]
) -> tuple[dict[int, pycheckout.CheckoutResult], list[pycheckout.CheckoutError], float]:
    """Everybody pays at once, `BUYERS` at a time."""
    results: dict[int, pycheckout.CheckoutResult] = {}
    refused: list[pycheckout.CheckoutError] = []
    began = time.monotonic()
    with progress(console, "Checking out") as bar, ThreadPoolExecutor(BUYERS) as buyers:
        task = bar.add_task("Checking out", total=len(sample))
        calls = {
            buyers.submit(pay, pool, id_of("cart", b["basket"]), id_of("buyer", b["buyer"]), f"basket-{b['basket']}"): b
            for b in sample
        }
        for call in as_completed(calls):
            try:
                results[calls[call]["basket"]] = call.result()
            except pycheckout.CheckoutError as error:
                refused.append(error)
            bar.advance(task)
    return results, refused, time.monotonic() - began


def pay(pool: ConnectionPool, cart_id: object, buyer_store_id: object, key: str) -> pycheckout.CheckoutResult:
    return pycheckout.execute(
        pool,
        buyer_store_id=str(buyer_store_id),
        cart_id=str(cart_id),
        idempotency_key=key,
        shipping_address=ADDRESS,
        payment_method="ach",
        shipping_line=SHIPPING,
    )


def progress(console: Console, what: str) -> Progress:
    columns = (TextColumn(f"{what:12}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console)


if __name__ == "__main__":
    main()
