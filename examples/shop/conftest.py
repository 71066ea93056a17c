"""What the shop's tests run on: the plugin's databases, with the shop's tables in them and its products in stock."""

import secrets
from collections.abc import Callable, Iterator

import httpx
import pytest

from examples.shop import database

SECRET, PAYMENT_SECRET = secrets.token_bytes(32), secrets.token_bytes(32)


@pytest.fixture(scope="session")
def pycheckout_prepare() -> Callable[[str], None]:
    def prepare(dsn: str) -> None:
        database.upgrade(dsn)
        database.fill(dsn, SECRET)

    return prepare


@pytest.fixture
def shop(start: Callable[..., str], pycheckout_dsn: str, request: pytest.FixtureRequest) -> Iterator[httpx.Client]:
    """The service under uvicorn, in a process of its own; its parameter, the seconds that orders wait to be paid."""
    env = {
        "SHOP_DATABASE_URL": pycheckout_dsn,
        "SHOP_AD_SECRET": SECRET.hex(),
        "SHOP_PAYMENT_SECRET": PAYMENT_SECRET.hex(),
    }
    env["SHOP_PAY_WITHIN"] = getattr(request, "param", "1800")
    url = start("-m", "uvicorn", "examples.shop.app:app", "--port", "{port}", **env)
    with httpx.Client(base_url=url) as client:
        yield client
