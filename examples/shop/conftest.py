"""What the shop's tests run on: the plugin's databases, with the shop's tables in them and its products in stock."""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Thread

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from examples.shop import database
from examples.shop.app import app

SECRET, PAYMENT_SECRET = secrets.token_bytes(32), secrets.token_bytes(32)


@pytest.fixture(scope="session")
def pycheckout_prepare() -> Callable[[str], None]:
    def prepare(dsn: str) -> None:
        database.upgrade(dsn)
        database.fill(dsn, SECRET)

    return prepare


@contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """The application under uvicorn, in a thread; its URL."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "it never served"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def shop(
    start: Callable[..., str], pycheckout_dsn: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[httpx.Client]:
    """The service under uvicorn. Its parameter, the seconds that orders wait to be paid, is read when it is imported:
    then it has a process of its own."""
    env = {
        "SHOP_DATABASE_URL": pycheckout_dsn,
        "SHOP_AD_SECRET": SECRET.hex(),
        "SHOP_PAYMENT_SECRET": PAYMENT_SECRET.hex(),
    }
    with ExitStack() as stack:
        if pay_within := getattr(request, "param", None):
            env["SHOP_PAY_WITHIN"] = pay_within
            url = start("-m", "uvicorn", "examples.shop.app:app", "--port", "{port}", **env)
        else:
            for name, setting in env.items():
                monkeypatch.setenv(name, setting)
            url = stack.enter_context(serving(app))
        yield stack.enter_context(httpx.Client(base_url=url))
