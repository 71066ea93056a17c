"""The whole shop, by one command: `make shop`, or `python -m examples.shop --port 8000`.

A PostgreSQL that comes and goes with it, pycheckout's migrations and the shop's, something to sell, uvicorn, and
`pycheckout expire`; where there is a redis-server also that, the relay and the consumer. Then it says how to buy
something with curl. `--once` does it itself, waits until the events have arrived, and ends.
"""

import argparse
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import psycopg

import pycheckout
from pycheckout._embedded import embedded_server  # your own server in its place

from . import database

PURCHASE = Path(__file__).with_name("purchase.sh")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m examples.shop", description="Starts the shop.")
    arguments.add_argument("--port", type=int, default=8000, help="where the shop listens")
    arguments.add_argument("--once", action="store_true", help="buy something, and end")
    given = arguments.parse_args()
    if given.once and shutil.which("curl") is None:
        sys.exit("--once buys by curl, and there is none: install it, or start the shop without --once.")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # which ends what was started, as Ctrl-C does
    with ExitStack() as stack:
        try:
            run(stack, given.port, given.once)
        except KeyboardInterrupt:
            print("\nThe shop is closed, its data is deleted.")


def run(stack: ExitStack, port: int, once: bool) -> None:
    url = f"http://127.0.0.1:{port}"
    dsn, secret = stack.enter_context(embedded_server()).dsn(), secrets.token_bytes(32)
    database.upgrade(dsn)
    database.fill(dsn, secret)
    as_service, as_relay, as_expiry = database.roles(dsn)
    provider = secrets.token_hex(32)  # what the payment provider signs with
    env = {"SHOP_DATABASE_URL": as_service, "SHOP_AD_SECRET": secret.hex(), "SHOP_PAYMENT_SECRET": provider}
    env["SHOP_PAY_WITHIN"] = "15" if once else "60"
    pycheckout_command = ("-c", "from pycheckout.cli import main; main()")
    shop = stack.enter_context(
        program("-m", "uvicorn", "examples.shop.app:app", "--port", str(port), "--log-level", "warning", **env)
    )
    until(lambda: json.load(urlopen(f"{url}/readyz", timeout=5)), shop)
    print(f"The shop is at {url}, its database at {dsn}", flush=True)
    expire = (*pycheckout_command, "expire", "--every", "1s")
    stack.enter_context(program(*expire, PYCHECKOUT_DATABASE_URL=as_expiry))

    has_redis = shutil.which("redis-server") is not None
    if has_redis:
        redis = stack.enter_context(redis_server())
        relay = (*pycheckout_command, "relay")
        stack.enter_context(program(*relay, PYCHECKOUT_DATABASE_URL=as_relay, PYCHECKOUT_BROKER_URL=redis))
        stack.enter_context(program("-m", "examples.shop.consumer", SHOP_REDIS_URL=redis, **env))
    else:
        print("There is no redis-server: events stay in the outbox, and units_sold at 0.", flush=True)

    if not once:
        print(f"Buy something: shop={url} secret={provider} sh {PURCHASE}")
        print(f"or read that file and call one by one, from curl {url}/products on. Ctrl-C ends all.", flush=True)
        sys.exit(shop.wait())
    if subprocess.run(["sh", str(PURCHASE)], env=os.environ | {"shop": url, "secret": provider}).returncode:
        sys.exit("the purchase failed")
    if has_redis:
        until(lambda: sold(url) == {"Bowl": 0, "Bread": 0, "Cup": 2}, shop)
        print("The events have arrived: two cups are sold, no bread, and no bowl, since nobody paid for that in time.")
    with psycopg.connect(dsn) as conn:
        if found := pycheckout.Checkout(conn).audit():
            sys.exit(f"the audit found {found}")
    print("checkout_audit() finds nothing.")


def sold(url: str) -> dict[str, int]:
    return {product["title"]: product["units_sold"] for product in json.load(urlopen(f"{url}/products", timeout=5))}


def until(check: Callable[[], object], process: subprocess.Popen[bytes]) -> None:
    """Return once the check holds; what has no connection yet does not."""
    deadline = time.monotonic() + 30
    while True:
        if process.poll() is not None:
            sys.exit(f"{process.args!r} has ended")
        with suppress(OSError):
            if check():
                return
        if time.monotonic() > deadline:
            sys.exit("it took more than 30 seconds")
        time.sleep(0.05)


@contextmanager
def program(*arguments: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Python, for the length of the block; in a session of its own, so that Ctrl-C is ours alone."""
    command = [sys.executable, *arguments]
    started = subprocess.Popen(command, env=os.environ | env, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        yield started
    finally:
        started.terminate()
        started.wait()


@contextmanager
def redis_server() -> Iterator[str]:
    """A Redis that keeps nothing, for the length of the block; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with TemporaryDirectory() as folder:
        options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        server = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, start_new_session=True)
        try:
            until(lambda: ping(port), server)
            yield f"redis://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def ping(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as conn:
        conn.sendall(b"PING\r\n")
        return conn.recv(16)


if __name__ == "__main__":
    main()
