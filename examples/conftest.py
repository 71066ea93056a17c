"""The services of these examples are tested as yours would be, with `pycheckout.testing`; each test names it itself."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

# This repository's own suite runs on the same server.
if url := os.environ.get("TEST_DATABASE_URL"):
    os.environ.setdefault("PYCHECKOUT_TEST_DATABASE_URL", url)

ROOT = Path(__file__).parents[1]
SHOP = Path(__file__).with_name("shop.sql").read_bytes()


@pytest.fixture(scope="session")
def pycheckout_prepare() -> Callable[[str], object]:
    """The services' own table goes into the template as well."""

    def prepare(dsn: str) -> None:
        with psycopg.connect(dsn) as conn:
            conn.execute(SHOP)

    return prepare


@pytest.fixture
def rows(pycheckout_dsn: str) -> Callable[[], tuple[int, int]]:
    """rows(): how many orders are committed, and how many notes of the service."""

    def rows() -> tuple[int, int]:
        with psycopg.connect(pycheckout_dsn) as conn:
            query = "select (select count(*) from vendor_orders), (select count(*) from delivery_notes)"
            [counts] = conn.execute(query).fetchall()
            return counts

    return rows


@pytest.fixture
def start() -> Iterator[Callable[..., str]]:
    """start("-m", "uvicorn", ..., "{port}", VARIABLE="value"): the URL of a Python program, once it serves."""
    with ExitStack() as stack:

        def start(*arguments: str, **env: str) -> str:
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = str(listener.getsockname()[1])
            server = subprocess.Popen(
                [sys.executable, *(argument.format(port=port) for argument in arguments)],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            stack.callback(server.communicate, timeout=10)
            stack.callback(server.terminate)
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", int(port))).close()
                    return f"http://127.0.0.1:{port}"
                except ConnectionRefusedError:
                    assert server.poll() is None, server.communicate()[1]
                    assert time.monotonic() < deadline, "it never listened"
                    time.sleep(0.05)

        yield start
