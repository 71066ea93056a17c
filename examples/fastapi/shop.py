"""A FastAPI service that sells.

SHOP_DATABASE_URL=postgresql://... SHOP_TOKENS='{"a token": "a buyer store id"}' uvicorn examples.fastapi.shop:app
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from psycopg_pool import AsyncConnectionPool

import pycheckout
from pycheckout.http import CheckoutRequest, checkout_router

SHIPPING = {"standard": ("Standard", 0), "express": ("Express", 990)}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    tokens = {token: UUID(store) for token, store in json.loads(os.environ["SHOP_TOKENS"]).items()}
    # Opened here: a pool that is opened where it is constructed has no event loop yet.
    async with AsyncConnectionPool(os.environ["SHOP_DATABASE_URL"], open=False, max_size=10, timeout=5) as pool:
        yield {"pool": pool, "tokens": tokens}


async def pool(request: Request) -> AsyncConnectionPool:
    return request.state.pool


async def buyer(request: Request, bearer: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]) -> UUID:
    """The store of whoever holds the token. This is where your own authentication goes."""
    store = request.state.tokens.get(bearer.credentials)
    if store is None:
        raise HTTPException(401, "unknown token", {"WWW-Authenticate": "Bearer"})
    return store


def shipping_line(buyer_store_id: UUID, request: CheckoutRequest) -> pycheckout.ShippingLine:
    """The line that is stored, its price from our own table."""
    assert request.shipping_line is not None
    code = request.shipping_line.code
    if code not in SHIPPING:
        raise pycheckout.InvalidRequest(detail={"field": "shipping_line.code", "problem": "is not offered"})
    title, price_cents = SHIPPING[code]
    return pycheckout.ShippingLine(code=code, title=title, price_cents=price_cents)


app = FastAPI(title="Shop", lifespan=lifespan)
app.include_router(checkout_router(buyer=buyer, pool=pool, shipping_line=shipping_line))
