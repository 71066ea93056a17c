"""A Flask service that sells.

    SHOP_DATABASE_URL=postgresql://... flask --app examples.flask.shop:create_app run

The database has the table of examples/shop.sql.
"""

import os
from typing import Any

from flask import Flask, request
from psycopg_pool import ConnectionPool

import pycheckout


def create_app(dsn: str | None = None) -> Flask:
    app = Flask(__name__)
    pool = ConnectionPool(dsn or os.environ["SHOP_DATABASE_URL"], open=True, max_size=10, timeout=5)
    app.extensions["pool"] = pool

    @app.post("/checkout")
    def checkout() -> tuple[dict[str, Any], int]:
        body = request.get_json()
        with pool.connection() as conn:  # one transaction: committed at the end, rolled back by an exception
            result = pycheckout.execute(
                conn,
                # a gateway in front authenticates, and says who the buyer is
                buyer_store_id=request.headers["X-Buyer-Store"],
                cart_id=body["cart_id"],
                idempotency_key=request.headers.get("Idempotency-Key", ""),
                shipping_address=body["shipping_address"],
                payment_method=body["payment_method"],
            )
            if not result.replayed:
                conn.execute(
                    "insert into delivery_notes (cart_id, note) values (%s, %s)", (result.cart_id, body.get("note", ""))
                )
        orders = [str(order.order_id) for order in result.vendor_orders]
        return {"outcome": result.outcome, "orders": orders}, 200 if result.replayed else 201

    @app.errorhandler(pycheckout.CheckoutError)
    def refused(error: pycheckout.CheckoutError) -> tuple[dict[str, Any], int, dict[str, str]]:
        return {"code": error.code}, error.http_status, {"Retry-After": "1"} if error.retryable else {}

    return app
