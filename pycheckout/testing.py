"""A pytest plugin for services that call pycheckout.

Needs pytest, the extra `demo` where there is no server, and the extra `pool` for the pools.

Load it with `pytest_plugins = ["pycheckout.testing"]` in the service's root conftest,
or `-p pycheckout.testing`. A template database is migrated once a test process; each
test that asks for `pycheckout_dsn` gets a clone of it, and `checkout_audit()` has to
find nothing in that clone when the test is over.

The server is the one that PYCHECKOUT_TEST_DATABASE_URL names, by the URL or DSN of a
role that may create databases, or else an embedded PostgreSQL that ends with the tests
(its data are in /dev/shm where that has 4 GB to spare).
Databases whose names begin with `pycheckout_service_` are made and dropped there, under
names of the process's own, so that runs, and the workers of pytest-xdist, may share a
server; what a killed run left behind, the next one drops.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row

from . import _conninfo
from ._checkout import put_cart
from ._extras import needing
from ._migrate import migrate
from ._quotes import Line, Quote, VendorGroup

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

__all__ = [
    "ADDRESS",
    "QuotedCart",
    "pycheckout_async_pool",
    "pycheckout_cart",
    "pycheckout_dsn",
    "pycheckout_pool",
    "pycheckout_prepare",
    "pycheckout_server",
    "pycheckout_template",
]

_PREFIX = "pycheckout_service_"

# The names of a run's databases begin with its own.
_LEFT_BEHIND = """
select made.datname
  from pg_database as made
 where starts_with(made.datname, 'pycheckout_service_')
   and pg_has_role(made.datdba, 'usage')
   and not exists (select
                     from pg_stat_activity as session
                    where session.datid = made.oid
                       or (starts_with(session.application_name, 'pycheckout_service_')
                           and starts_with(made.datname, session.application_name)))
"""

Id: TypeAlias = UUID | str
Prepare: TypeAlias = Callable[[str], object]

# A database that somebody is connected to cannot be cloned.
_LEFT_OPEN = """
select pg_terminate_backend(pid, 5000)
  from pg_stat_activity
 where datname = current_database() and usename = current_user and pid <> pg_backend_pid()
"""

ADDRESS = {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "postal_code": "74103", "country": "US"}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotedCart:
    """A cart as `pycheckout_cart` wrote it; `total_cents` in minor units of its currency."""

    id: UUID
    buyer_store_id: UUID
    vendor_store_ids: tuple[UUID, ...]
    product_ids: tuple[UUID, ...]
    total_cents: int

    def request(self, idempotency_key: str = "k1", **overrides: Any) -> dict[str, Any]:
        """The arguments of a checkout that should succeed: `pycheckout.execute(conn, **cart.request())`."""
        return {
            "buyer_store_id": self.buyer_store_id,
            "cart_id": self.id,
            "idempotency_key": idempotency_key,
            "shipping_address": ADDRESS,
            "payment_method": "ach",
        } | overrides


@pytest.fixture(scope="session")
def pycheckout_server() -> Iterator[str]:
    """The URL of the server to make databases on. Override it to bring your own."""
    if url := os.environ.get("PYCHECKOUT_TEST_DATABASE_URL"):
        yield url
        return
    from ._embedded import embedded_server

    with embedded_server(in_memory=True, fsync=False, full_page_writes=False) as server:
        yield server.dsn()


@pytest.fixture(scope="session")
def pycheckout_prepare() -> Prepare:
    """Called once with the URL of the migrated template, to make the service's own tables there.

    Override it in a conftest.py or a test file: each function that is answered has a template of its own. Connections
    that it leaves open, as the pool of an engine does, are ended.
    """
    return _nothing


def _nothing(dsn: str) -> None:
    """What a service without tables of its own needs."""


@pytest.fixture(scope="session")
def _pycheckout_templates(pycheckout_server: str, pytestconfig: pytest.Config) -> Iterator[Callable[[Prepare], str]]:
    """The template of a function that prepares it, made when it is first asked for."""
    project = re.sub(r"\W+", "_", pytestconfig.rootpath.name.lower(), flags=re.ASCII)[:25]
    run = f"{_PREFIX}{project}_{uuid4().hex[:12]}"
    made: dict[Prepare, str] = {}

    with _alive(pycheckout_server, run), ExitStack() as databases:

        def template(prepare: Prepare) -> str:
            if prepare not in made:
                name = f"{run}_{len(made)}"
                dsn = databases.enter_context(_database(pycheckout_server, name))
                migrate(dsn)
                prepare(dsn)
                with psycopg.connect(dsn, autocommit=True) as conn:
                    conn.execute(_LEFT_OPEN)
                made[prepare] = name
            return made[prepare]

        yield template


@pytest.fixture(scope="module")
def pycheckout_template(_pycheckout_templates: Callable[[Prepare], str], pycheckout_prepare: Prepare) -> str:
    """The name of the migrated database that each test's is cloned from."""
    return _pycheckout_templates(pycheckout_prepare)


@pytest.fixture
def pycheckout_dsn(pycheckout_server: str, pycheckout_template: str) -> Iterator[str]:
    """The URL of this test's own database. Afterwards, `checkout_audit()` must find nothing in it."""
    with _database(pycheckout_server, f"{pycheckout_template}_t", template=pycheckout_template) as dsn:
        yield dsn
        with psycopg.connect(dsn, row_factory=dict_row) as conn:
            broken = conn.execute("select * from checkout_audit()").fetchall()
        assert broken == [], "checkout_audit() found broken invariants"


@pytest.fixture
def pycheckout_pool(pycheckout_dsn: str) -> Iterator[ConnectionPool]:
    """An open psycopg pool of this test's database, closed after the test."""
    with needing("pool"):
        from psycopg_pool import ConnectionPool

    with ConnectionPool(pycheckout_dsn, min_size=1, timeout=10, open=True) as pool:
        yield pool


@pytest.fixture
def pycheckout_async_pool(pycheckout_dsn: str) -> Iterator[AsyncConnectionPool]:
    """An async psycopg pool of this test's database, to be opened once: `async with pycheckout_async_pool as pool:`.

    So it lives in the test's own event loop, whatever runs that, and ends with the block; a test that leaves the pool
    open fails.
    """
    with needing("pool"):
        from psycopg_pool import AsyncConnectionPool

    pool = AsyncConnectionPool(pycheckout_dsn, min_size=1, timeout=10, open=False)
    yield pool
    assert pool.closed, "pycheckout_async_pool was left open: async with pycheckout_async_pool as pool"


@pytest.fixture
def pycheckout_cart(pycheckout_dsn: str) -> Callable[..., QuotedCart]:
    """pycheckout_cart(vendors=2, lines=2, ...): a quoted cart, committed, its products in stock.

    `vendors`: how many, with new ids (2), or their ids. `lines`: how many of each vendor (2), with new products.
    `products` are your own products instead of `lines`, a line each: their ids, dealt out to the vendors in turn, or
    the vendor of each id (`{product_id: vendor_store_id}`), which says the vendors as well. `buyer`: the id of the
    buyer's store, a new one by default.

    Each line is `quantity` units at `unit_price_cents`, in minor units of `currency`. `stock`: the units that each
    product has from now on (None: stock stays as it is). The cart is valid for `valid_for`. What else is named is a
    field of docs/quotes.md, such as `ad_tokens`.
    """

    def pycheckout_cart(
        *,
        vendors: int | Sequence[Id] | None = None,
        lines: int | None = None,
        products: Sequence[Id] | Mapping[Id, Id] | None = None,
        buyer: Id | None = None,
        quantity: int = 1,
        unit_price_cents: int = 1000,
        stock: int | None = 100,
        currency: str = "USD",
        valid_for: timedelta = timedelta(hours=1),
        **cart: Any,
    ) -> QuotedCart:
        def line(product: UUID, title: str) -> Line:
            return Line(product_id=product, title=title, quantity=quantity, unit_price_cents=unit_price_cents)

        sold = _sold(vendors, lines, products)
        groups = [
            VendorGroup(
                vendor_store_id=vendor,
                items=[line(each, f"Product {v}.{n}") for n, each in enumerate(products_of_vendor, 1)],
            )
            for v, (vendor, products_of_vendor) in enumerate(sold.items(), 1)
        ]
        fields: dict[str, Any] = {
            "id": uuid4(),
            "buyer_store_id": buyer or uuid4(),
            "currency": currency,
            "valid_until": datetime.now(UTC) + valid_for,
            "vendor_groups": groups,
        }
        quote = Quote(**(fields | cart))
        ids = [product for products_of_vendor in sold.values() for product in products_of_vendor]
        with psycopg.connect(pycheckout_dsn) as conn:
            put_cart(conn, quote)
            if stock is not None:
                conn.execute("select inventory_set(id, %s) from unnest(%s::uuid[]) as id", (stock, ids))
        return QuotedCart(
            id=UUID(str(quote.id)),
            buyer_store_id=UUID(str(quote.buyer_store_id)),
            vendor_store_ids=tuple(sold),
            product_ids=tuple(ids),
            total_cents=quote.total_cents,
        )

    return pycheckout_cart


def _sold(
    vendors: int | Sequence[Id] | None, lines: int | None, products: Sequence[Id] | Mapping[Id, Id] | None
) -> dict[UUID, list[UUID]]:
    """The products of each vendor."""
    if products is not None and lines is not None:
        raise TypeError("`products` are the lines: leave `lines` out")
    sold: dict[UUID, list[UUID]] = {}
    if isinstance(products, Mapping):
        if vendors is not None:
            raise TypeError("`products` names the vendors: leave `vendors` out")
        for product, vendor in products.items():
            sold.setdefault(UUID(str(vendor)), []).append(UUID(str(product)))
        return sold
    if vendors is None or isinstance(vendors, int):
        sold = {uuid4(): [] for _ in range(2 if vendors is None else vendors)}
    else:
        sold = {UUID(str(vendor)): [] for vendor in vendors}
    if products is None:
        return {vendor: [uuid4() for _ in range(2 if lines is None else lines)] for vendor in sold}
    for product, vendor in zip(products, itertools.cycle(sold), strict=False):
        sold[vendor].append(UUID(str(product)))
    return sold


@contextmanager
def _alive(server: str, name: str) -> Iterator[None]:
    """A session that says, for the length of the block, that this run is alive; it drops what dead runs left."""
    params = _conninfo.own(server) | {"application_name": name}
    with psycopg.connect(**params, autocommit=True) as session:
        for (left,) in session.execute(_LEFT_BEHIND).fetchall():
            # Another run may just be dropping it, too.
            with suppress(psycopg.Error):
                session.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(left)))
        yield


@contextmanager
def _database(server: str, name: str, template: str = "template0") -> Iterator[str]:
    """A database of this name for the length of the block, instead of one that may be there; its URL."""
    drop = sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name))
    create = sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template))
    params = _conninfo.parameters(server)
    with psycopg.connect(**params, autocommit=True) as admin:
        admin.execute(drop)
        admin.execute(create)
        try:
            yield _conninfo.url(params | {"dbname": name})
        finally:
            admin.execute(drop)
