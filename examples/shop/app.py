"""The shop over HTTP: products, quotes, ads, payments and stock are its own; checkout, orders, health are pycheckout's.

    SHOP_DATABASE_URL=postgresql://... SHOP_AD_SECRET=<hex> SHOP_PAYMENT_SECRET=<hex> uvicorn examples.shop.app:app

`python -m examples.shop` starts it with a database, a relay, a consumer and the expiry beside it.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated
from uuid import UUID

from fastapi import Depends, FastAPI, Header, HTTPException, Request
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool
from pydantic import BaseModel, Field

from pycheckout import ActiveCart, AsyncCheckout, CheckoutResult, InvalidRequest, ShippingLine, StockLevel
from pycheckout.http import CheckoutRequest, checkout_router, health_router, install_error_handlers, order_router

from . import ads, payments, quotes
from .auth import Buyer, Vendor, buyer, party

PAY_WITHIN = timedelta(seconds=float(os.environ.get("SHOP_PAY_WITHIN", "1800")))


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Opened here: a pool that is opened where it is constructed has no event loop yet.
    async with AsyncConnectionPool(os.environ["SHOP_DATABASE_URL"], open=False, max_size=10, timeout=5) as pool:
        app.state.pool = pool
        yield


async def pool(request: Request) -> AsyncConnectionPool:
    connections: AsyncConnectionPool = request.app.state.pool
    return connections


Pool = Annotated[AsyncConnectionPool, Depends(pool)]


async def remember(conn: AsyncConnection, result: CheckoutResult) -> None:
    """A mail to be sent and a charge to be made, in the transaction of the checkout: no order without them, and neither
    without an order. Who sends and charges reads them after the COMMIT."""
    await conn.execute(
        "insert into confirmations (checkout_group_id, buyer_store_id, total_cents) values (%s, %s, %s)",
        (result.checkout_group_id, result.buyer_store_id, result.totals.confirmed.total_cents),
    )
    await payments.note_charge(conn, result)


async def shipping_line(buyer_store_id: UUID, request: CheckoutRequest) -> ShippingLine:
    """The line that is stored: the buyer confirms what was quoted. Its title and price are the quote's."""
    assert request.shipping_line is not None
    cart = await AsyncCheckout(app.state.pool).quotes.get(buyer_store_id=buyer_store_id, cart_id=request.cart_id)
    quoted = {group.shipping_line.code: group.shipping_line for group in cart.vendor_groups if group.shipping_line}
    if quoted.keys() != {request.shipping_line.code}:
        raise InvalidRequest(detail={"field": "shipping_line.code", "problem": "is not what was quoted"})
    [line] = quoted.values()
    price_cents = sum(group.shipping_cents for group in cart.vendor_groups)
    return ShippingLine(code=line.code, title=line.title, price_cents=price_cents)


app = FastAPI(title="Shop", lifespan=lifespan)
app.include_router(
    checkout_router(buyer=buyer, pool=pool, shipping_line=shipping_line, expires_in=PAY_WITHIN, on_checkout=remember)
)
app.include_router(order_router(party=party, pool=pool))
app.include_router(health_router(pool=pool))
install_error_handlers(app)  # for the routes below


@app.get("/products")
async def list_products(pool: Pool) -> list[quotes.Product]:
    async with pool.connection() as conn:
        return await quotes.products(conn)


class Wanted(BaseModel):
    product_id: UUID
    quantity: int = Field(ge=1, le=1000)


class Basket(BaseModel):
    lines: list[Wanted] = Field(min_length=1, max_length=200)
    shipping: str = "standard"
    ad_tokens: list[str] = []


@app.put("/carts/{cart_id}")
async def put_cart(cart_id: UUID, basket: Basket, buyer: Buyer, pool: Pool) -> ActiveCart:
    """Quote what the buyer wants, anew each time; the cart's id is the client's, so that a retry is the same cart."""
    quantities: dict[UUID, int] = {}
    for each in basket.lines:
        quantities[each.product_id] = quantities.get(each.product_id, 0) + each.quantity
    async with pool.connection() as conn:
        quote = await quotes.quote(
            conn,
            cart_id=cart_id,
            buyer_store_id=buyer,
            quantities=quantities,
            shipping=basket.shipping,
            ad_tokens=basket.ad_tokens,
        )
    return await AsyncCheckout(pool).quotes.put(quote)


@app.post("/ads/{product_id}/click")
async def click_ad(product_id: UUID, buyer: Buyer) -> dict[str, str]:
    return {"ad_token": ads.click(buyer, product_id)}


@app.post("/payments/events")
async def payment_event(
    request: Request, pool: Pool, signature: Annotated[str, Header(alias=payments.SIGNATURE)] = ""
) -> dict[str, str]:
    """The provider's webhook. What answers an error, the provider sends again; a success says that it is recorded."""
    event = payments.read(await payments.signed_body(request, signature))
    if event is None:
        return {"status": "ignored"}
    async with pool.connection() as conn:  # one transaction: all orders of the charge, or none
        recorded = await payments.record(conn, event)
    return {"status": "recorded" if recorded else "known"}


async def own_product(product_id: UUID, vendor: Vendor, pool: Pool) -> UUID:
    """Another vendor's product is not found."""
    async with pool.connection() as conn:
        found = await quotes.products(conn, [product_id])
    if [product.vendor_store_id for product in found] != [vendor]:
        raise HTTPException(404, "no such product")
    return product_id


OwnProduct = Annotated[UUID, Depends(own_product)]


class Counted(BaseModel):
    available: int


class Change(BaseModel):
    delta: int
    change_key: str
    """New for each change and the same for each retry of it."""


@app.get("/stock/{product_id}")
async def read_stock(product: OwnProduct, pool: Pool) -> StockLevel:
    found = await AsyncCheckout(pool).stock.level(product)
    if found is None:
        raise HTTPException(404, "never counted")
    return found


@app.put("/stock/{product_id}")
async def count_stock(product: OwnProduct, counted: Counted, pool: Pool) -> StockLevel:
    return await AsyncCheckout(pool).stock.set(product, counted.available)


@app.post("/stock/{product_id}/changes")
async def change_stock(product: OwnProduct, change: Change, pool: Pool) -> StockLevel:
    return await AsyncCheckout(pool).stock.adjust(product, change.delta, change_key=change.change_key)
