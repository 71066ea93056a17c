"""The services of these examples are tested as yours would be, with `pycheckout.testing`; each test names it itself."""

import os
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

# This repository's own suite runs on the same server.
if url := os.environ.get("TEST_DATABASE_URL"):
    os.environ.setdefault("PYCHECKOUT_TEST_DATABASE_URL", url)

SHOP = Path(__file__).with_name("shop.sql").read_text(encoding="utf-8")


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
