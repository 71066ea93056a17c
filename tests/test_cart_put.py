"""PF-173, PF-174: a quote is written whole, or refused with both figures when it is written, not at the checkout."""

import copy
from uuid import UUID

import psycopg
import pytest
from psycopg.types.json import Jsonb

from checks import refused, row, rows, values
from races import blocked

BUYER, CART, VENDOR, OTHER = (UUID(int=number, version=4) for number in (1, 2, 3, 4))
BASIL, MINT = (UUID(int=number, version=4) for number in (5, 6))


def quote(**changes):
    """A quote of one vendor: a gross line (2000 - 250), a net line (500), and a promotion of 100."""
    return {
        "id": str(CART),
        "buyer_store_id": str(BUYER),
        "currency": "USD",
        "valid_until": "2126-01-01T00:00:00Z",
        "vendor_groups": [
            {
                "vendor_store_id": str(VENDOR),
                "subtotal_cents": 2500,
                "total_cents": 2150,
                "promo": {"code": "SPRING", "amount_cents": 100},
                "items": [
                    {
                        "product_id": str(BASIL),
                        "title": "Basil",
                        "unit": "bunch",
                        "quantity": 5,
                        "unit_price_cents": 400,
                        "line_subtotal_cents": 2000,
                        "line_discounts_cents": 250,
                        "line_total_cents": 1750,
                        "applied_volume_discount": {"label": "5 for less", "amount_cents": 250},
                    },
                    {"product_id": str(MINT), "quantity": 1, "unit_price_cents": 500, "line_subtotal_cents": 500},
                ],
            }
        ],
    } | changes


def quote_with(path, value):
    """The quote with one member changed: path "vendor_groups.0.items.1.quantity"."""
    changed = copy.deepcopy(quote())
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    place = changed
    for step in way:
        place = place[step]
    place[last] = value
    return changed


def put(conn, body):
    [answer] = values(conn, "select cart_put(%s)", Jsonb(body))
    return answer


def checkout(conn):
    address = {"line1": "12 Main Street", "city": "Tulsa", "country": "US"}
    [answer] = values(conn, "select checkout_execute(%s, %s, 'k1', %s, 'ach')", BUYER, CART, Jsonb(address))
    return answer


@pytest.fixture
def stocked(db):
    db.execute("insert into inventory_items (product_id, available_qty) values (%s, 50), (%s, 50)", (BASIL, MINT))


def test_a_quote_becomes_a_cart_that_checks_out_to_the_cent(db, stocked):
    """PF-174: totals of the cart are those of its groups; the answer is what checkout_result says."""
    answer = put(db, quote())
    assert answer == {
        "status": "active",
        "cart_id": str(CART),
        "buyer_store_id": str(BUYER),
        "currency": "USD",
        "valid_until": "2126-01-01T00:00:00.000000Z",
        "totals": {"quoted": {"subtotal_cents": 2500, "discounts_cents": 350, "total_cents": 2150}},
    }
    assert values(db, "select checkout_result(%s, %s)", BUYER, CART) == [answer]
    result = checkout(db)
    assert result["totals"]["confirmed"] == answer["totals"]["quoted"]
    [order] = result["vendor_orders"]
    lines = [tuple(item[name] for name in ("name", "unit", "discount_cents", "total_cents")) for item in order["items"]]
    assert sorted(lines) == [(str(MINT), "", 0, 500), ("Basil", "bunch", 250, 1750)]


def test_ids_may_be_given_and_become_those_of_order_and_line(db, stocked):
    """PF-175: orders, lines and intents take their ids from the snapshot."""
    group, item = UUID(int=70, version=4), UUID(int=71, version=4)
    body = quote_with("vendor_groups.0.id", str(group))
    body["vendor_groups"][0]["items"][0]["id"] = str(item)
    put(db, body)
    [order] = checkout(db)["vendor_orders"]
    assert order["order_id"] == str(group)
    assert str(item) in [line["line_item_id"] for line in order["items"]]


def test_a_new_quote_replaces_the_old_one_whole(db):
    """PF-174: groups and items of the old quote are gone, the cart row is the same and was updated."""
    put(db, quote(ad_tokens=["t1"], shipping_address={"line1": "1 Old Road"}))
    before = row(db, "select * from cart_records")
    body = quote_with("vendor_groups.0.vendor_store_id", str(OTHER))
    body["vendor_groups"][0]["items"].pop()
    body["vendor_groups"][0] |= {"subtotal_cents": 2000, "total_cents": 1750, "promo": None}
    put(db, body)

    after = row(db, "select * from cart_records")
    assert after["created_at"] == before["created_at"] and after["updated_at"] > before["updated_at"]
    assert (after["ad_tokens"], after["shipping_address"], after["total_cents"]) == (None, None, 1750)
    assert values(db, "select vendor_store_id from cart_vendor_groups") == [OTHER]
    assert rows(db, "select vendor_store_id, title from cart_items") == [{"vendor_store_id": OTHER, "title": "Basil"}]


def test_an_empty_quote_empties_the_cart(db):
    """PF-174: a cart may have nothing in it; checking it out is another matter."""
    put(db, quote())
    put(db, quote(vendor_groups=[]))
    assert values(db, "select count(*) from cart_items") == [0]
    with refused("OC004"):
        checkout(db)


@pytest.mark.parametrize(
    ("path", "value", "problem", "expected", "found"),
    [
        ("vendor_groups.0.subtotal_cents", 2501, "vendor_subtotal", 2500, 2501),
        ("vendor_groups.0.total_cents", 2251, "vendor_total", 2250, 2251),
        ("vendor_groups.0.items.0.line_total_cents", 1751, "line_amounts", 1750, 1751),
        ("vendor_groups.0.items.0.line_discounts_cents", 249, "line_amounts", 1751, 1750),
        ("subtotal_cents", 2499, "cart_subtotal", 2500, 2499),
        ("total_cents", 2151, "cart_total", 2150, 2151),
        ("discounts_cents", 349, "cart_discounts", 350, 349),
    ],
)
def test_figures_that_contradict_each_other_are_refused_with_both(db, snapshot, path, value, problem, expected, found):
    """PF-173: OC007 at quote time instead of at the checkout; the quote that was there stays."""
    put(db, quote())
    before = snapshot(db)
    with refused("OC007") as refusal:
        put(db, quote_with(path, value))
    assert refusal.detail == refusal.detail | {"problem": problem, "expected": expected, "found": found}
    assert refusal.detail["cart_id"] == str(CART)
    assert snapshot(db) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("vendor_groups.0.vendor_store_id", str(BUYER)),
        ("vendor_groups.0.items.1.quantity", 0),
        ("vendor_groups.0.items.1.unit_price_cents", -1),
        ("vendor_groups.0.total_cents", -1),
    ],
)
def test_what_the_checkout_would_refuse_is_refused(db, snapshot, path, value):
    """PF-173: the checkout and the quote share one set of rules."""
    before = snapshot(db)
    with refused("OC007"):
        put(db, quote_with(path, value))
    assert snapshot(db) == before


def test_two_groups_of_one_vendor_are_refused(db, snapshot):
    """PF-175: one group a vendor and cart."""
    body = quote()
    body["vendor_groups"] *= 2
    before = snapshot(db)
    with refused("OC007") as refusal:
        put(db, body)
    assert refusal.detail["problem"] == "constraint"
    assert snapshot(db) == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", None),
        ("buyer_store_id", None),
        ("currency", None),
        ("valid_until", None),
        ("id", "no uuid"),
        ("valid_until", "soon"),
        ("subtotal_cents", "many"),
        ("ad_tokens", "not a list"),
        ("surprise", 1),
        ("status", "converted"),
        ("checkout_group_id", str(OTHER)),
        ("vendor_groups", {}),
        ("vendor_groups", None),
        ("vendor_groups.0", "text"),
        ("vendor_groups.0.vendor_store_id", None),
        ("vendor_groups.0.cart_id", str(OTHER)),
        ("vendor_groups.0.total_cents", None),
        ("vendor_groups.0.total_cents", 1.5),
        ("vendor_groups.0.total_cents", 2**63),
        ("vendor_groups.0.status", "perfect"),
        ("vendor_groups.0.items", "none"),
        ("vendor_groups.0.items", {}),
        ("vendor_groups.0.items.0", 7),
        ("vendor_groups.0.items.0.product_id", None),
        ("vendor_groups.0.items.0.vendor_store_id", str(OTHER)),
        ("vendor_groups.0.items.0.quantity", 2**31),
        ("vendor_groups.0.items.0.quantity", None),
        ("vendor_groups.0.items.0.line_totals_cents", 1),
        ("vendor_groups.0.items.0.status", ""),
        ("vendor_groups.0.warnings", "careful"),
        ("vendor_groups.0.items.0.warnings", {"type": "moq"}),
        ("vendor_groups.0.promo", [1]),
        ("vendor_groups.0.items.0.applied_volume_discount", 250),
        ("shipping_address", "12 Main Street"),
    ],
)
def test_a_malformed_quote_is_refused(db, snapshot, path, value):
    """PF-173: a field of the wrong type, a missing one, or one that is none of a quote, is OC005."""
    before = snapshot(db)
    with refused("OC005") as refusal:
        put(db, quote_with(path, value))
    assert refusal.detail["field"].startswith("cart")
    assert snapshot(db) == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vendor_groups", {}),
        ("vendor_groups", None),
        # PostgreSQL's own ways to write an array, a record and a date
        ("ad_tokens", '{"a token"}'),
        ("shipping_address", '("1 Main Street",,Tulsa,,,US,,)'),
        ("valid_until", "4000-01-01 BC"),
        ("valid_until", "10000-01-01"),
    ],
)
def test_a_field_of_another_kind_is_named(db, snapshot, field, value):
    """PF-173: also where a cast would have made something of it."""
    before = snapshot(db)
    with refused("OC005") as refusal:
        put(db, quote(**{field: value}))
    assert refusal.detail["field"] == f"cart.{field}"
    assert snapshot(db) == before


@pytest.mark.parametrize("field", ["id", "buyer_store_id", "currency", "valid_until"])
def test_what_every_quote_must_have_is_named(db, field):
    """PF-173: whatever of it is missing."""
    with refused("OC005") as refusal:
        put(db, quote(**{field: None}))
    assert refusal.detail["problem"] == "must have id, buyer_store_id, currency and valid_until"


def test_a_foreign_key_of_the_host_is_named(db, snapshot):
    """PF-174: an existing database has its own tables of products and vendors."""
    db.execute("create table products (id uuid primary key)")
    db.execute("alter table cart_items add constraint items_product_fk foreign key (product_id) references products")
    before = snapshot(db)
    with refused("OC007") as refusal:
        put(db, quote())
    assert refusal.detail == {"cart_id": str(CART), "problem": "constraint", "constraint": "items_product_fk"}
    assert snapshot(db) == before


def test_a_quote_is_dated_when_it_is_written(connect):
    """PF-174: not when its transaction began, which may have waited for long."""
    with connect() as conn:
        for _ in range(2):
            conn.execute("select now()")
            put(conn, quote())
            [dates] = rows(
                conn, "select created_at > now() as created, updated_at > now() as updated from cart_records"
            )
            assert dates == {"created": True, "updated": True}


@pytest.mark.parametrize("body", [None, [], "text", 7])
def test_what_is_no_object_is_refused(db, body):
    """PF-173: OC005, not an error of the JSON functions."""
    for argument in (Jsonb(body), None):
        with refused("OC005") as refusal:
            db.execute("select cart_put(%s)", (argument,))
        assert refusal.detail["field"] == "cart"


def test_lines_that_cannot_be_ordered_are_kept_beside_those_that_can(db, stocked):
    """PF-176: what is not ok counts in no total; null warnings are none."""
    body = quote_with("vendor_groups.0.items.1.status", "not_available")
    body["vendor_groups"][0] |= {"subtotal_cents": 2000, "total_cents": 1650, "warnings": None}
    body["vendor_groups"][0]["items"][1] |= {"quantity": 0, "warnings": None}
    invalid = {"vendor_store_id": str(OTHER), "status": "invalid", "subtotal_cents": 9, "total_cents": 9}
    body["vendor_groups"].append(invalid)
    answer = put(db, body)
    assert answer["totals"]["quoted"]["total_cents"] == 1650
    assert values(db, "select distinct warnings from cart_items") == [[]]
    result = checkout(db)
    assert result["totals"]["confirmed"]["total_cents"] == 1650
    assert [vendor["reason"] for vendor in result["rejected_vendors"]] == ["vendor_invalid"]


def test_a_cart_of_another_buyer_is_not_found(db, snapshot):
    """PF-173: a known id opens nobody else's cart, and takes nothing over."""
    put(db, quote())
    before = snapshot(db)
    with refused("OC001"):
        put(db, quote(buyer_store_id=str(OTHER)))
    assert snapshot(db) == before


def test_a_converted_cart_cannot_be_quoted_again(db, stocked, snapshot):
    """PF-174: OC009; a cart that is neither active nor converted is OC002."""
    put(db, quote())
    checkout(db)
    before = snapshot(db)
    with refused("OC009") as refusal:
        put(db, quote())
    assert refusal.detail == {"cart_id": str(CART)}, "said before anything was tried"
    assert snapshot(db) == before

    db.execute("alter type cart_status add value 'abandoned'")
    put(db, quote(id=str(OTHER)))
    db.execute("update cart_records set status = 'abandoned' where id = %s", (OTHER,))
    with refused("OC002"):
        put(db, quote(id=str(OTHER)))


def test_the_unit_may_be_left_out_where_it_is_an_enum(db, connect, stocked):
    """PF-176: an existing database's unit is an enum; its first value stands for none."""
    db.execute("create type unit as enum ('piece', 'bunch')")
    for table in ("cart_items", "order_line_items"):
        db.execute(f"alter table {table} alter unit drop default")
        db.execute(f"alter table {table} alter unit type unit using 'piece'")
    put(db, quote())
    assert values(db, "select unit::text from cart_items order by title") == ["piece", "bunch"]
    with refused("OC005"):
        put(db, quote_with("vendor_groups.0.items.0.unit", "furlong"))
    [order] = checkout(connect(autocommit=True))["vendor_orders"]
    assert {item["unit"] for item in order["items"]} == {"piece", "bunch"}


def test_two_first_quotes_of_one_cart_queue(db, connect):
    """PF-174: the cart row is made and locked before anything hangs on it; the later quote stands."""
    with connect() as first, connect(autocommit=True) as second:
        put(first, quote())
        with blocked(db, put, second, quote(vendor_groups=[])) as waiting:
            first.commit()
        assert waiting.result(timeout=10)["totals"]["quoted"]["total_cents"] == 0
    assert values(db, "select count(*) from cart_items") == [0]


def test_a_quote_waits_for_a_checkout_and_is_refused(db, connect, stocked):
    """PF-174: the quote is written under the cart's lock."""
    put(db, quote())
    with connect() as buyer, connect(autocommit=True) as quoting:
        checkout(buyer)

        def late(conn):
            with refused("OC009"):
                put(conn, quote())

        with blocked(db, late, quoting) as waiting:
            buyer.commit()
        waiting.result(timeout=10)


def test_a_checkout_waits_for_a_quote_and_orders_the_new_one(db, connect, stocked):
    """PF-173: the cart is read under its lock: never half of one quote and half of another."""
    put(db, quote())
    body = quote_with("vendor_groups.0.items.1.quantity", 2)
    body["vendor_groups"][0]["items"][1]["line_subtotal_cents"] = 1000
    body["vendor_groups"][0] |= {"subtotal_cents": 3000, "total_cents": 2650}
    with connect() as quoting, connect(autocommit=True) as buyer:
        put(quoting, body)
        with blocked(db, checkout, buyer) as waiting:
            quoting.commit()
        assert waiting.result(timeout=10)["totals"]["confirmed"]["total_cents"] == 2650


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_checkout_with_a_snapshot_from_before_the_quote_is_to_be_repeated(db, connect, stocked, level):
    """PF-173: under REPEATABLE READ a caller never orders the quote that was replaced."""
    put(db, quote())
    with connect() as buyer:
        buyer.execute(f"set transaction isolation level {level}")
        buyer.execute("select from cart_items")  # takes the snapshot
        put(db, quote())
        with pytest.raises(psycopg.errors.SerializationFailure):
            checkout(buyer)
