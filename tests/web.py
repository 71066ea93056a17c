"""A real HTTP server, and an application with the checkout's routes as a host would mount them."""

import asyncio
import functools
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import httpx
import uvicorn
from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from factories import ADDRESS, Cart
from pycheckout.http import Party, checkout_router, health_router, order_router
from races import wait_until

_bearer = HTTPBearer()


def buyer(token: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> UUID:
    """The bearer token is the buyer's store id; "closed" is a store that may not buy."""
    if token.credentials == "closed":
        raise HTTPException(403, "this store is closed")
    try:
        return UUID(token.credentials)
    except ValueError:
        raise HTTPException(401, "unknown token", {"WWW-Authenticate": "Bearer"}) from None


def party(token: Annotated[HTTPAuthorizationCredentials, Depends(_bearer)]) -> Party:
    """The bearer token is the store id of a buyer, or of a vendor behind "vendor-"."""
    store = token.credentials.removeprefix("vendor-")
    asks = buyer(HTTPAuthorizationCredentials(scheme="Bearer", credentials=store))
    return Party(buyer_store_id=asks) if store == token.credentials else Party(vendor_store_id=asks)


async def _pool(request: Request) -> Any:
    return request.state.pool


def _host(*, orders: bool = False, schema: str | None = None, **router: Any) -> FastAPI:
    host = FastAPI()
    host.include_router(checkout_router(**({"buyer": buyer, "pool": _pool, "schema": schema} | router)), prefix="/shop")
    if orders:
        host.include_router(order_router(party=party, pool=_pool, schema=schema), prefix="/shop")
    host.include_router(health_router(pool=_pool, schema=schema))

    @host.get("/own/{number}", include_in_schema=False)
    def own(number: int) -> int:
        if number == 0:
            raise HTTPException(404, "no such number")
        return number

    return host


# A hundred tests have the same: pydantic takes half of a second of each.
_one_host = functools.cache(_host)


def app(
    dsn: str,
    *,
    kind: str = "async",
    settings: str = "",
    pool: dict[str, Any] | None = None,
    orders: bool = False,
    is_shared: bool = True,
    **router: Any,
) -> Any:
    """A host with a route of its own, a pool of this kind that lives as long as it, and the checkout under /shop, with
    the orders if they are asked for. What adds anything to it wants one that is not shared."""
    pools = {"async": AsyncConnectionPool, "sync": ConnectionPool}
    options: dict[str, Any] = {"min_size": 1, "max_size": 16, "timeout": 10, "open": False}
    options |= {"kwargs": {"options": f"-c statement_timeout=30s {settings}"}} | (pool or {})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        opened: Any = pools[kind](dsn, **options)
        if kind == "async":
            async with opened:
                yield {"pool": opened}
        else:
            with opened:
                yield {"pool": opened}

    host = _one_host(orders=orders) if is_shared and not router else _host(orders=orders, **router)
    host.router.lifespan_context = lifespan
    return host


class _Server(uvicorn.Server):
    """Looks ten times as often whether it is to end."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):
            await asyncio.sleep(0.01)


# For httpx, which reads all certificate authorities anew for each client (60 ms), and no test has a use for them.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@contextmanager
def serving(app: Any, **options: Any) -> Iterator[str]:
    """Serve `app` by uvicorn on a free port; its base URL. The lifespan ends with the block."""
    # Its own socket: of one that it is given, asyncio may leave Nagle's algorithm on, and each answer waits 40 ms for
    # the client to say that it has the headers.
    server = _Server(uvicorn.Config(app, port=0, log_config=None, **options))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), "the server never started")
        assert server.started, "the application did not start"
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive(), "the server never ended"


def schemathesis(url: str, token: Any, *options: str) -> "subprocess.CompletedProcess[str]":
    """A run of schemathesis over the routes that the document at `url` describes, by whoever has this token."""
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--no-color"]
    command += ["--header", f"Authorization: Bearer {token}", "--continue-on-failure"]
    # Hypothesis does the same of its own accord.
    command += ["--seed", "1"] if "CI" in os.environ else []
    # what replaces it is in schemathesis_hooks.py
    command += ["--exclude-checks", "positive_data_acceptance", *options]
    env = os.environ | {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=900, check=False)


def headers(buyer_store_id: Any, key: str | None = None, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {buyer_store_id}"} | ({"Idempotency-Key": key} if key else {}) | more


def body(cart: Cart, **overrides: Any) -> dict[str, Any]:
    return {"cart_id": str(cart.id), "shipping_address": ADDRESS, "payment_method": "ach"} | overrides


get = functools.partial(httpx.get, verify=NO_TLS, trust_env=False)


class Api:
    """A client with sockets of its own, for the routes under /shop."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.http = httpx.Client(base_url=f"{url}/shop", timeout=30, verify=NO_TLS)

    @property
    def address(self) -> tuple[str, int]:
        url = httpx.URL(self.url)
        return url.host, url.port or 80

    def post(
        self, cart: Cart, key: str | None = "k1", *, json: Any = None, more: Any = None, **overrides: Any
    ) -> httpx.Response:
        """The cart's checkout; `more` headers, another body as `json`, or other fields in it."""
        request = body(cart, **overrides) if json is None else json
        return self.http.post("/checkout", json=request, headers=headers(cart.buyer_store_id, key) | (more or {}))

    def post_raw(self, cart: Cart, content: Any, media_type: str | None = "application/json") -> httpx.Response:
        named = {} if media_type is None else {"Content-Type": media_type}
        return self.http.post("/checkout", content=content, headers=headers(cart.buyer_store_id, "k1", **named))

    def get(self, cart: Cart, *, buyer_store_id: UUID | None = None) -> httpx.Response:
        return self.http.get(f"/checkout/{cart.id}", headers=headers(buyer_store_id or cart.buyer_store_id))
