"""Quoted carts and stock, written as a host writes them: plain SQL into the tables."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import scalar_row, tuple_row
from psycopg.types.json import Jsonb

import pycheckout
from checks import values

ADDRESS = {
    "line1": "12 Main Street",
    "line2": "Dock 4",
    "city": "Tulsa",
    "state": "OK",
    "postal_code": "74103",
    "country": "US",
    "lat": 36.1539,
    "lng": -95.9927,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CartItem:
    id: UUID
    vendor_store_id: UUID
    product_id: UUID
    quantity: int
    unit_price_cents: int
    line_subtotal_cents: int
    line_discounts_cents: int
    line_total_cents: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorGroup:
    id: UUID
    vendor_store_id: UUID
    subtotal_cents: int
    discounts_cents: int
    total_cents: int
    promo_cents: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cart:
    id: UUID
    buyer_store_id: UUID
    groups: list[VendorGroup]
    items: list[CartItem]

    @property
    def vendors(self) -> list[UUID]:
        """Store ids of the vendors, in the order of the groups."""
        return [group.vendor_store_id for group in self.groups]


class _Ids:
    """Ids that say what they are: the 7th line item of a test is 17e30000-0000-4000-8000-000000000007."""

    prefixes: Mapping[str, str] = {
        "buyer": "b0000000",
        "vendor": "50000000",
        "product": "d0000000",
        "cart": "ca000000",
        "group": "60000000",
        "item": "17e30000",
    }

    def __init__(self) -> None:
        self.counters = {kind: itertools.count(1) for kind in self.prefixes}

    def __call__(self, kind: str) -> UUID:
        return UUID(f"{self.prefixes[kind]}-0000-4000-8000-{next(self.counters[kind]):012}")


@pytest.fixture
def add_stock(db: psycopg.Connection) -> Callable[..., None]:
    """add_stock(product_id, qty): put units of an unsplit product on the shelf."""

    def add_stock(product_id: UUID, qty: int) -> None:
        db.execute(
            """
            insert into inventory_items (product_id, available_qty, reserved_qty, updated_at)
            values (%s, %s, 0, now())
            on conflict (product_id) do update
               set available_qty = inventory_items.available_qty + excluded.available_qty, updated_at = now()
            """,
            (product_id, qty),
        )

    return add_stock


@pytest.fixture
def add_cart(db: psycopg.Connection) -> Callable[..., Cart]:
    """A quoted cart, committed, its products in stock; see the parameters of `carts_of`."""
    return carts_of(db)


def carts_of(db: psycopg.Connection) -> Callable[..., Cart]:
    """add_cart() for another database than that of the test."""
    ids = _Ids()

    def add_cart(
        *,
        cart_id: UUID | None = None,
        buyer_store_id: UUID | None = None,
        # How many vendors, or their store ids.
        vendors: int | Sequence[UUID] = 2,
        # How many lines each vendor has, or one number a vendor.
        lines: int | Sequence[int] = 2,
        # Products of the lines in order, where a test shares them between carts; new ones otherwise.
        products: Iterable[UUID] = (),
        quantity: int = 1,
        unit_price_cents: int = 1000,
        # Units of each product that has no inventory row yet; None leaves it without one.
        stock: int | None = 100,
        # "net": the volume discount is in the price; "gross": it stands beside it, in line_discounts_cents.
        amounts: str = "net",
        line_discount_cents: int = 0,
        # Promotion of every vendor, or one a vendor.
        promo_cents: int | Sequence[int] = 0,
        valid_for: float = 3600,
        ad_tokens: Sequence[str] | None = None,
        currency: str = "USD",
        # Columns that differ: of the cart; of groups, by position; of items, by (vendor, line). Amounts that are not
        # named follow from the others: items={(0, 1): {"quantity": 3, "status": "invalid"}}.
        cart: Mapping[str, Any] = {},
        groups: Mapping[int, Mapping[str, Any]] = {},
        items: Mapping[tuple[int, int], Mapping[str, Any]] = {},
        conn: psycopg.Connection = db,
    ) -> Cart:
        assert amounts in ("net", "gross")
        assert amounts == "gross" or not line_discount_cents, "a net line has its discount in the price"
        stores = [ids("vendor") for _ in range(vendors)] if isinstance(vendors, int) else list(vendors)
        counts = [lines] * len(stores) if isinstance(lines, int) else list(lines)
        promos = [promo_cents] * len(stores) if isinstance(promo_cents, int) else list(promo_cents)
        product = iter(products)
        cart_id = cart_id or ids("cart")
        buyer_store_id = buyer_store_id or ids("buyer")

        item_rows, group_rows = [], []
        for v, (store, count, promo) in enumerate(zip(stores, counts, promos, strict=True)):
            own = [
                _item_row(
                    {
                        "id": ids("item"),
                        "cart_id": cart_id,
                        "vendor_store_id": store,
                        "product_id": next(product, None) or ids("product"),
                        "title": f"Product {v + 1}.{line + 1}",
                        "category": "grocery",
                        "unit": "each",
                        "quantity": quantity,
                        "moq": 1,
                        "max_qty": None,
                        "unit_price_cents": unit_price_cents,
                        "warnings": [],
                        "status": "ok",
                    }
                    | items.get((v, line), {}),
                    amounts,
                    line_discount_cents,
                )
                for line in range(count)
            ]
            item_rows += own
            group_rows.append(
                {"id": ids("group"), "cart_id": cart_id, "vendor_store_id": store, "status": "ok", "warnings": []}
                | _group_amounts(own, promo, amounts)
                | groups.get(v, {})
            )

        counted = [group for group in group_rows if group["status"] == "ok"]
        subtotal, total = (sum(group[column] for group in counted) for column in ("subtotal_cents", "total_cents"))
        cart_row = {
            "id": cart_id,
            "buyer_store_id": buyer_store_id,
            "status": "active",
            "currency": currency,
            "subtotal_cents": subtotal,
            "discounts_cents": subtotal - total,
            "total_cents": total,
            "ad_tokens": None if ad_tokens is None else list(ad_tokens),
        } | cart

        with conn.transaction(), conn.cursor(row_factory=scalar_row) as cur:
            if "valid_until" not in cart_row:
                cur.execute("select clock_timestamp() + make_interval(secs => %s)", (valid_for,))
                cart_row["valid_until"] = cur.fetchone()
            _insert(cur, "cart_records", [cart_row])
            _insert(cur, "cart_vendor_groups", group_rows)
            _insert(cur, "cart_items", item_rows)
            if stock is not None:
                cur.executemany(
                    """
                    insert into inventory_items (product_id, available_qty, reserved_qty, updated_at)
                    values (%s, %s, 0, now()) on conflict (product_id) do nothing
                    """,
                    [(product_id, stock) for product_id in sorted({row["product_id"] for row in item_rows})],
                )

        return Cart(
            id=cart_id,
            buyer_store_id=buyer_store_id,
            groups=[
                VendorGroup(
                    id=row["id"],
                    vendor_store_id=row["vendor_store_id"],
                    subtotal_cents=row["subtotal_cents"],
                    discounts_cents=row["subtotal_cents"] - row["total_cents"],
                    total_cents=row["total_cents"],
                    promo_cents=(row["promo"] or {}).get("amount_cents", 0),
                    status=row["status"],
                )
                for row in group_rows
            ],
            items=[
                CartItem(
                    id=row["id"],
                    vendor_store_id=row["vendor_store_id"],
                    product_id=row["product_id"],
                    quantity=row["quantity"],
                    unit_price_cents=row["unit_price_cents"],
                    line_subtotal_cents=row["line_subtotal_cents"],
                    line_discounts_cents=row["line_discounts_cents"] or 0,
                    line_total_cents=_line_total(row),
                    status=row["status"],
                )
                for row in item_rows
            ],
        )

    return add_cart


def _item_row(row: dict[str, Any], amounts: str, line_discount_cents: int) -> dict[str, Any]:
    row.setdefault("line_subtotal_cents", row["quantity"] * row["unit_price_cents"])
    gross = amounts == "gross"
    row.setdefault("line_discounts_cents", line_discount_cents if gross else None)
    row.setdefault("line_total_cents", row["line_subtotal_cents"] - row["line_discounts_cents"] if gross else None)
    label = {"label": "Volume discount", "amount_cents": row["line_discounts_cents"]}
    row.setdefault("applied_volume_discount", label if row["line_discounts_cents"] else None)
    return row


def _line_total(row: Mapping[str, Any]) -> int:
    total = row["line_total_cents"]
    return row["line_subtotal_cents"] if total is None else total


def _group_amounts(item_rows: list[dict[str, Any]], promo_cents: int, amounts: str) -> dict[str, Any]:
    ordered = [row for row in item_rows if row["status"] == "ok"]
    subtotal = sum(row["line_subtotal_cents"] for row in ordered)
    total = sum(_line_total(row) for row in ordered)
    gross = amounts == "gross"
    return {
        "subtotal_cents": subtotal,
        "line_discounts_cents": subtotal - total if gross else None,
        "promo_discount_cents": promo_cents if gross else None,
        "discounts_cents": subtotal - total + promo_cents,
        "total_cents": total - promo_cents,
        "promo": {"code": "PROMO", "amount_cents": promo_cents} if promo_cents else None,
    }


def _insert(cur: psycopg.Cursor[Any], table: str, rows: list[dict[str, Any]]) -> None:
    for row in rows:
        # The address is a composite that a host may have widened: built by name, from JSON.
        values = [
            sql.SQL("jsonb_populate_record(null::address_t, %s)") if column == "shipping_address" else sql.SQL("%s")
            for column in row
        ]
        cur.execute(
            sql.SQL("insert into {} ({}) values ({})").format(
                sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(values)
            ),
            [_parameter(column, value) for column, value in row.items()],
        )


def _parameter(column: str, value: Any) -> Any:
    return Jsonb(value) if isinstance(value, dict | list) and column != "ad_tokens" else value


@pytest.fixture
def checkout() -> Callable[..., "pycheckout.CheckoutResult"]:
    """checkout(conn, cart, key="k1", **overrides): the call through Python, with a good address and `ach`."""

    def checkout(conn: Any, cart: Cart, *, key: str = "k1", **overrides: Any) -> "pycheckout.CheckoutResult":
        return pycheckout.execute(conn, **(request_of(cart, key) | overrides))

    return checkout


@pytest.fixture
def checkout_sql() -> Callable[..., dict[str, Any]]:
    """checkout_sql(conn, cart, key="k1", **overrides): the same call as bare SQL; the jsonb as a dict."""
    return execute_sql


def execute_sql(conn: psycopg.Connection, cart: Cart, *, key: str = "k1", **overrides: Any) -> dict[str, Any]:
    """What `checkout_sql` is to a test."""
    arguments = request_of(cart, key) | overrides
    query = sql.SQL("select checkout_execute({})").format(
        sql.SQL(", ").join(sql.SQL("{} => %s").format(sql.Identifier(name)) for name in arguments)
    )
    with conn.cursor(row_factory=tuple_row) as cur:
        cur.execute(query, [_parameter(name, value) for name, value in arguments.items()])
        [(answer,)] = cur
        return answer


@pytest.fixture
def call(db: psycopg.Connection) -> Callable[..., Any]:
    """call("order_line_release", id, "why", qty=1): the answer, on the autocommit connection or on another."""

    def call(function: str, *args: Any, conn: psycopg.Connection = db, **named: Any) -> Any:
        places = ", ".join(["%s"] * len(args) + [f"{name} => %s" for name in named])
        given = [Jsonb(value) if isinstance(value, dict | list) else value for value in [*args, *named.values()]]
        return values(conn, f"select {function}({places})", *given)[0]

    return call


def request_of(cart: Any, key: str = "k1") -> dict[str, Any]:
    """The arguments of a checkout that should succeed; `cart` is a Cart, or what has its ids."""
    return {
        "buyer_store_id": cart.buyer_store_id,
        "cart_id": cart.id,
        "idempotency_key": key,
        "shipping_address": ADDRESS,
        "payment_method": "ach",
    }


@pytest.fixture
def snapshot() -> Callable[..., dict[str, list[Any]]]:
    """snapshot(conn): every row of every table of the schema, sorted, to compare before and after."""

    def snapshot(conn: psycopg.Connection) -> dict[str, list[Any]]:
        with conn.cursor(row_factory=scalar_row) as cur:
            cur.execute("select tablename::text from pg_tables where schemaname = current_schema() order by 1")
            return {table: _rows(cur, table) for table in cur.fetchall()}

    return snapshot


@pytest.fixture
def nothing_written(
    db: psycopg.Connection, snapshot: Callable[..., dict[str, list[Any]]]
) -> Callable[[], AbstractContextManager[None]]:
    """A block after which every table is as it was."""

    @contextmanager
    def nothing_written() -> Iterator[None]:
        before = snapshot(db)
        yield
        assert snapshot(db) == before

    return nothing_written


def _rows(cur: psycopg.Cursor[Any], table: str) -> list[Any]:
    cur.execute(
        sql.SQL('select to_jsonb(t) from {} as t order by to_jsonb(t)::text collate "C"').format(sql.Identifier(table))
    )
    return cur.fetchall()
