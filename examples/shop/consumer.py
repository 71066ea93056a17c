"""What becomes of the events: units sold, counted from the Redis stream that `pycheckout relay` publishes to.

    SHOP_DATABASE_URL=postgresql://... SHOP_REDIS_URL=redis://... python -m examples.shop.consumer

An event comes at least once. Its id goes into `seen_events` in the transaction of what it does, and a second copy does
nothing. An entry is acknowledged once that is committed: whatever ends the consumer, the next one, of the same name,
takes up what was not. Events of two orders come in any order, so what they do must add up in any order.
"""

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
from redis import Redis, ResponseError

STREAM, GROUP, NAME = "pycheckout", "shop", "consumer-1"


def consume(conn: psycopg.Connection, redis: Redis, *, until_idle: bool = False) -> None:
    """Take event after event, each in a transaction of its own; what fails is raised, and comes again."""
    with suppress(ResponseError):  # the group is there already
        redis.xgroup_create(STREAM, GROUP, id="0", mkstream=True)
    after = "0"  # what an earlier run took and did not acknowledge; then what is new
    while True:
        taken = entries(redis, after)
        for entry, body in taken:
            with conn.transaction():
                handle(conn, json.loads(body))
            redis.xack(STREAM, GROUP, entry)
        if not taken and after == ">" and until_idle:
            return
        if not taken:
            after = ">"


def entries(redis: Redis, after: str) -> list[tuple[bytes, bytes]]:
    answer: Any = redis.xreadgroup(GROUP, NAME, {STREAM: after}, count=100, block=1000)
    return [(entry, fields[b"__data__"]) for _, found in answer for entry, fields in found]


def handle(conn: psycopg.Connection, event: dict[str, Any]) -> None:
    """Do what a CloudEvent is for, in the caller's transaction, unless that was done."""
    seen = "insert into seen_events (id) values (%s) on conflict do nothing"
    if conn.execute(seen, (event["id"],)).rowcount:
        changes = sorted(sold(event["type"], event["data"]))  # rows are locked in one order
        conn.cursor().executemany(
            "update products set units_sold = units_sold + %s where id = %s",
            [(units, product) for product, units in changes],
        )


def sold(event_type: str, data: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """Product and units of each line that was ordered, or given back."""
    match event_type:
        case "checkout.converted":
            lines = [line for order in data["vendor_orders"] for line in order["items"] if line["status"] == "pending"]
            yield from ((line["product_id"], line["qty"]) for line in lines)
        case _:  # what became of an order: released, returned, decided, canceled, expired; part of a line, perhaps
            products = {line["line_item_id"]: line["product_id"] for line in data.get("items", ())}
            for change in data.get("changes", ()):
                if back := change.get("released_qty") or change.get("returned_qty"):
                    yield products[change["line_item_id"]], -back


if __name__ == "__main__":
    with (
        psycopg.connect(os.environ["SHOP_DATABASE_URL"]) as conn,
        Redis.from_url(os.environ["SHOP_REDIS_URL"]) as redis,
    ):
        consume(conn, redis)
