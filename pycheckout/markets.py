"""Several markets, each a schema of its own, on one server or many: a file says where each is.

A market is what `pycheckout migrate --schema` made. Nothing here is needed for one. docs/growth.md has the file.
"""

from __future__ import annotations

import os
import threading
import tomllib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg

from . import _arguments as to
from . import _conninfo
from ._checkout import AsyncCheckout, Checkout
from ._errors import MarketMoved, UnknownMarket
from ._extras import needing

if TYPE_CHECKING:
    from psycopg_pool import AsyncConnectionPool, ConnectionPool

__all__ = ["AsyncMarkets", "Market", "Markets", "Pools"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Market:
    """Where a market is."""

    name: str
    server: str
    """The server's name in the file."""
    database: str
    """The server's URL or DSN."""
    schema: str
    """The schema that holds the market and nothing else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pools:
    """What pools are like: the table `[pool]` of the file, of which every entry may be left out."""

    share_up_to: int = 8
    """The markets of a server share a pool if they are no more than this, and have one each otherwise: a session grows
    by 4 to 6 MB for each schema that it has checked out in."""
    max_size: int = 8
    """Connections of a pool, at most. It has none before the first call."""
    timeout: float = 5.0
    """Seconds that a call waits for a connection."""
    max_lifetime: float = 1800.0
    """Seconds after which a connection is made anew, so that what a session has grown by goes."""
    prepared_max: int = 100
    """Statements that a connection keeps prepared; a market that is sold in needs about ten. 0 prepares none, as
    a pooler in transaction mode may need it."""


class _Map:
    """What the file says, and where markets said that they had moved to since."""

    def __init__(self, markets: Mapping[str, Market], pools: Pools, servers: Mapping[str, str]) -> None:
        self.markets = dict(sorted(markets.items()))
        self.servers = {market.server: market.database for market in markets.values()} | dict(servers)
        self.pools = pools
        self._on = Counter(market.server for market in markets.values())
        self._epochs: dict[str, int] = {}
        self._lock = threading.Lock()

    def __getitem__(self, name: str) -> Market:
        market = self.markets.get(name) if isinstance(name, str) else None
        if market is None:
            known = ", ".join(self.markets)
            raise UnknownMarket(
                f"there is no market {str(name)[:100]!r}",
                hint=f"Those of the map are: {known}." if known else "The map has none.",
            )
        return market

    def follow(self, name: str, error: MarketMoved, asked: Market) -> bool:
        """Whether a market that has moved is at another server of the map, where it is from now on.

        `asked`: where it was asked. A market says so as long as its old schema is there. Moves are numbered, so what an
        older one says changes nothing.
        """
        server, epoch = error.detail.get("server"), error.detail.get("epoch")
        with self._lock:
            market = self.markets[name]
            if market != asked:
                return True  # somebody followed it meanwhile
            if server not in self.servers or not isinstance(epoch, int) or epoch <= self._epochs.get(name, -1):
                return False
            self._epochs[name] = epoch
            self.markets[name] = replace(market, server=str(server), database=self.servers[server])
            return True

    def pool_of(self, market: Market) -> str:
        """What stands for the pool of a market: its server, or the market itself."""
        shared = self._on[market.server] <= self.pools.share_up_to
        return f"server {market.server}" if shared else f"market {market.name} on {market.server}"

    def arguments(self, market: Market) -> dict[str, Any]:
        settings = self.pools
        return {
            "name": f"pycheckout {self.pool_of(market)}",
            "kwargs": {
                **_conninfo.KEEPALIVE,
                **_conninfo.parameters(market.database),
                **({} if settings.prepared_max else {"prepare_threshold": None}),
            },
            "min_size": 0,
            "max_size": settings.max_size,
            "timeout": settings.timeout,
            "max_lifetime": settings.max_lifetime,
            # Then the next call tries again, instead of waiting for an attempt that comes ever later.
            "reconnect_timeout": 2.0,
            "open": False,
        }


class _Way:
    """The way to a market: a pool for `Checkout`, of the server that the market is on, also after it has moved.

    Of `AsyncMarkets` it is one for `AsyncCheckout`: what the pool answers is awaited by whoever asked.
    """

    def __init__(self, of: Markets | AsyncMarkets, name: str) -> None:
        self._of = of
        self._name = name

    @property
    def pool(self) -> Any:
        return self._of._pool(self.where())

    def connection(self, timeout: float | None = None) -> Any:
        return self.pool.connection(timeout)

    def check(self) -> Any:
        return self.pool.check()

    def drain(self) -> Any:
        return self.pool.drain()

    def where(self) -> Market:
        return self._of._map[self._name]

    def follow(self, error: MarketMoved, asked: Market) -> bool:
        return self._of._map.follow(self._name, error, asked)


class Markets(Mapping[str, Checkout]):
    """The markets of a map: `markets["ok"]` is a `Checkout`, `markets.async_["ok"]` an `AsyncCheckout`.

    Every statement names the market's schema; no session's search_path counts. Pools are made when they are first
    used, so also after a fork, and closed by `close()` or at the end of a `with` block. All threads may share one.
    Needs the extra `pool`.

    A name that is not in the map is `UnknownMarket`, which is no KeyError.

    A market that has moved says to which server. If the map has that, the call is made there, with the same key, and so
    is every later one; `where` then tells it. Else it is `MarketMoved`.
    """

    def __init__(
        self, markets: Mapping[str, Market], *, pools: Pools = Pools(), servers: Mapping[str, str] = {}
    ) -> None:
        self._map = _Map(markets, pools, servers)
        self._lock = threading.Lock()
        self._pools: dict[str, ConnectionPool[psycopg.Connection[Any]]] = {}
        self._checkouts: dict[str, Checkout] = {}
        self.async_ = AsyncMarkets(self._map)
        """The same markets, for `await`."""

    @classmethod
    def load(cls, path: str | os.PathLike[str] | None = None) -> Markets:
        """The markets of a file, by default of the one that the variable `PYCHECKOUT_MARKETS` names.

        Raises OSError for a file that cannot be read, and ValueError, which says what is wrong, for one that is no
        map and where no file is named. Nothing is connected to.
        """
        if path is None:
            path = os.environ.get("PYCHECKOUT_MARKETS", "")
            if not path:
                raise ValueError("name the file of the markets, or set PYCHECKOUT_MARKETS")
        try:
            found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
            return cls(_markets(found), pools=_pools(found.get("pool", {})), servers=_servers(found))
        except ValueError as exc:  # of TOML and of UTF-8 too
            raise ValueError(f"{path}: {exc}") from None

    def __getitem__(self, name: str) -> Checkout:
        """The market's calls. Raises UnknownMarket."""
        checkout = self._checkouts.get(name)
        if checkout is None:
            market = self._map[name]
            checkout = self._checkouts[name] = Checkout(_Way(self, name), schema=market.schema)
        return checkout

    def __iter__(self) -> Iterator[str]:
        return iter(self._map.markets)

    def __len__(self) -> int:
        return len(self._map.markets)

    def __contains__(self, name: object) -> bool:
        return name in self._map.markets

    def where(self, name: str) -> Market:
        """Where a market is, as far as is known. Raises UnknownMarket."""
        return self._map[name]

    @property
    def servers(self) -> Mapping[str, str]:
        """The servers of the map, those without a market too: the URL or DSN of each."""
        return self._map.servers

    def close(self) -> None:
        """Close the pools; a call after that makes new ones. Those of `async_` are closed by its `close()`."""
        with self._lock:
            pools, self._pools, self._checkouts = self._pools, {}, {}
        for pool in pools.values():
            pool.close()

    def __enter__(self) -> Markets:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _pool(self, market: Market) -> ConnectionPool[psycopg.Connection[Any]]:
        with needing("pool"):
            from psycopg_pool import ConnectionPool

        key = self._map.pool_of(market)
        pool = self._pools.get(key)
        if pool is None:
            prepared = self._map.pools.prepared_max

            def configure(conn: psycopg.Connection[Any]) -> None:
                conn.prepared_max = prepared

            with self._lock:
                pool = self._pools.get(key)
                if pool is None:
                    pool = ConnectionPool(configure=configure, **self._map.arguments(market))
                    pool.open()
                    self._pools[key] = pool
        return pool


class AsyncMarkets(Mapping[str, AsyncCheckout]):
    """`Markets.async_`. For one event loop: the pools belong to the one that first calls."""

    def __init__(self, known: _Map) -> None:
        self._map = known
        self._pools: dict[str, AsyncConnectionPool[psycopg.AsyncConnection[Any]]] = {}
        self._checkouts: dict[str, AsyncCheckout] = {}

    def __getitem__(self, name: str) -> AsyncCheckout:
        """The market's calls. Raises UnknownMarket."""
        checkout = self._checkouts.get(name)
        if checkout is None:
            market = self._map[name]
            checkout = self._checkouts[name] = AsyncCheckout(_Way(self, name), schema=market.schema)
        return checkout

    def __iter__(self) -> Iterator[str]:
        return iter(self._map.markets)

    def __len__(self) -> int:
        return len(self._map.markets)

    def __contains__(self, name: object) -> bool:
        return name in self._map.markets

    async def close(self) -> None:
        """Close the pools; a call after that makes new ones."""
        pools, self._pools, self._checkouts = self._pools, {}, {}
        for pool in pools.values():
            await pool.close()

    async def __aenter__(self) -> AsyncMarkets:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _pool(self, market: Market) -> AsyncConnectionPool[psycopg.AsyncConnection[Any]]:
        key = self._map.pool_of(market)
        pool = self._pools.get(key)
        if pool is None:
            prepared = self._map.pools.prepared_max

            async def configure(conn: psycopg.AsyncConnection[Any]) -> None:
                conn.prepared_max = prepared

            pool = self._pools[key] = _opened_late()(configure=configure, **self._map.arguments(market))
        return pool


def _opened_late() -> type[AsyncConnectionPool[psycopg.AsyncConnection[Any]]]:
    """A pool that opens with its first connection: only then is there an event loop for sure."""
    with needing("pool"):
        from psycopg_pool import AsyncConnectionPool

    class Pool(AsyncConnectionPool[psycopg.AsyncConnection[Any]]):
        _was_opened = False

        @asynccontextmanager
        async def connection(self, timeout: float | None = None) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
            if not self._was_opened:
                await self.open()
                self._was_opened = True
            async with super().connection(timeout) as conn:
                yield conn

    return Pool


def _markets(found: Mapping[str, Any]) -> dict[str, Market]:
    _known("the file", found, {"pool", "server", "market"})
    servers = _servers(found)
    markets: dict[str, Market] = {}
    for name, given in _tables(found, "market"):
        table = f"[market.{name}]"
        _known(table, given, {"server", "schema"})
        server, schema = _text(table, given, "server"), _text(table, given, "schema")
        if server not in servers:
            raise ValueError(f"{table} server: there is no [server.{server}]")
        for other in markets.values():
            if (other.database, other.schema) == (servers[server], schema):
                raise ValueError(f"{table} is in the schema of [market.{other.name}]")
        markets[name] = Market(name=name, server=server, database=servers[server], schema=schema)
    if not markets:
        raise ValueError("there is no [market.NAME]")
    return markets


def _servers(found: Mapping[str, Any]) -> dict[str, str]:
    servers = {}
    for name, given in _tables(found, "server"):
        _known(f"[server.{name}]", given, {"database"})
        database = _text(f"[server.{name}]", given, "database")
        try:
            _conninfo.parameters(database)
        except psycopg.ProgrammingError:  # whose text repeats the password
            raise ValueError(f"[server.{name}] database: not a libpq URL (postgresql://...) or DSN") from None
        servers[name] = database
    return servers


def _pools(given: Any) -> Pools:
    if not isinstance(given, Mapping):
        raise ValueError("[pool] must be a table")
    least = {"share_up_to": 0, "max_size": 1, "timeout": 0, "max_lifetime": 1, "prepared_max": 0}
    _known("[pool]", given, set(least))
    for name, value in given.items():
        kinds: Any = int if isinstance(getattr(Pools(), name), int) else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not value >= least[name]:
            raise ValueError(f"[pool] {name}: must be a number of {least[name]} or more")
        if name in ("timeout", "max_lifetime") and to.seconds(name, value) is None:  # no thread can wait so long
            raise ValueError(f"[pool] {name}: must be a year of seconds or less")
    return Pools(**given)


def _tables(found: Mapping[str, Any], kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    tables = found.get(kind, {})
    if not isinstance(tables, Mapping):
        raise ValueError(f"{kind} must be a table")
    for name, given in tables.items():
        if not isinstance(given, Mapping):
            raise ValueError(f"[{kind}.{name}] must be a table")
        yield name, given


def _text(table: str, given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{table} {name}: must be a text")
    return value


def _known(where: str, given: Mapping[str, Any], names: set[str]) -> None:
    if unknown := sorted(given.keys() - names):
        raise ValueError(f"{where} has no {unknown[0]!r}: known are {', '.join(sorted(names))}")
