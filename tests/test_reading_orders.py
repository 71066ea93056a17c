"""order_get and orders_list: a store sees its orders, as the checkout showed them, and nobody else's."""

import base64
import json
from typing import Any
from uuid import UUID

import psycopg
import pytest
from ads import KEY, ad_token

from checks import refused, row, rows, values
from factories import ADDRESS

BUYER, VENDOR, NOBODY = UUID(int=1), UUID(int=2), UUID(int=3)
OF_AN_ORDER = [
    "order_id", "checkout_group_id", "cart_id", "buyer_store_id", "vendor_store_id", "status", "currency",
    "payment_method", "shipping_address", "shipping_line", "billing_address", "purchase_order", "metadata",
    "order_number", "tax_included", "subtotal_cents", "discounts_cents", "tax_cents", "transport_fee_cents",
    "shipping_tax_cents", "adjustments_cents", "total_cents", "balance_due_cents", "refund_due_cents",
    "vendor_shipping_line", "expires_at", "payment_intent", "promo", "warnings", "attributed_token", "line_count",
    "created_at", "updated_at",
]  # fmt: skip


def get(conn: psycopg.Connection, order_id: Any, buyer: Any = None, vendor: Any = None) -> dict[str, Any]:
    [answer] = values(conn, "select order_get(%s, %s, %s)", order_id, buyer, vendor)
    return answer


def page(conn: psycopg.Connection, **arguments: Any) -> dict[str, Any]:
    given = ", ".join(f"{name} => %s" for name in arguments)
    [answer] = values(conn, f"select orders_list({given})", *arguments.values())
    return answer


def restricted(whole: Any, part: Any) -> Any:
    """What `whole` has under the keys of `part`: the result of a checkout leaves out what its orders do not say."""
    if isinstance(part, dict):
        return {name: restricted(whole[name], value) for name, value in part.items()} if whole is not None else None
    if isinstance(part, list):
        return [restricted(*pair) for pair in zip(whole, part, strict=True)]
    return whole


def ids(page: dict[str, Any]) -> list[str]:
    return [order["order_id"] for order in page["orders"]]


@pytest.fixture
def add_orders(db):
    """add_orders(40): orders of BUYER from VENDOR, a minute apart, the oldest first, with two lines each; their ids."""

    def add_orders(number, *, buyer=BUYER, vendor=VENDOR, status="created_pending", created_at="2024-05-01Z"):
        return values(
            db,
            """
            with orders as (
              insert into vendor_orders (id, checkout_group_id, buyer_store_id, vendor_store_id, status, subtotal_cents,
                                         discounts_cents, total_cents, created_at)
              select gen_random_uuid(), gen_random_uuid(), %s, %s, %s::vendor_order_status, 100, 0, 100,
                     %s::timestamptz + n * interval '1 minute'
                from generate_series(1, %s) as n
              returning id, created_at
            ), lines as (
              insert into order_line_items (order_id, name, category, unit, unit_price_cents, qty, total_cents)
              select id, 'Basil', '', 'bunch', 50, 1, 50 from orders cross join generate_series(1, 2)
            )
            select id::text from orders order by created_at, id
            """,
            *(buyer, vendor, status, created_at, number),
        )

    return add_orders


# One order


def test_an_order_is_shown_as_the_checkout_showed_it(db, add_cart, checkout_sql):
    """Key for key and cent for cent: what the result said, and what says where the order belongs."""
    db.execute("select ad_signing_key_put('k1', %s)", [KEY])
    cart = add_cart(
        amounts="gross",
        line_discount_cents=5,
        promo_cents=10,
        groups={0: {"warnings": [{"type": "t", "message": "m"}]}},
        items={(0, 0): {"warnings": [{"type": "t", "message": "m"}]}, (0, 1): {"quantity": 101}},
    )
    tokens = [
        ad_token(cart, 1, "store", cart.vendors[0], bid_cents=4),
        ad_token(cart, 2, "product", cart.items[0].product_id),
    ]
    db.execute("update cart_records set ad_tokens = %s where id = %s", [tokens, cart.id])
    shipping_line = {"code": "ground", "title": "Ground", "price_cents": 100}

    answer = checkout_sql(db, cart, shipping_line=shipping_line)

    assert answer["vendor_orders"][0]["attributed_token"]
    assert [item["status"] for item in answer["vendor_orders"][0]["items"]] == ["pending", "rejected"]
    for shown in answer["vendor_orders"]:
        order = get(db, shown["order_id"], cart.buyer_store_id)
        assert list(order) == [*OF_AN_ORDER, "items"]
        assert restricted(order, shown) == shown
        counted = {"reserved_qty", "fulfilled_qty", "released_qty", "returned_qty", "left_qty", "left_cents"}
        beside = {"tax_cents", "tax_lines"} | counted
        assert order["items"][0].keys() == shown["items"][0].keys() | beside
        for name in (
            "checkout_group_id",
            "cart_id",
            "buyer_store_id",
            "currency",
            "payment_method",
            "shipping_address",
        ):
            assert order[name] == answer[name], name
        assert (order["shipping_address"], order["shipping_line"]) == (ADDRESS, shipping_line)
        assert order["created_at"] == order["updated_at"] == answer["converted_at"]
        assert order["line_count"] == 2
        assert "bid" not in json.dumps(order)


def test_an_order_shows_where_it_is_now(db, add_cart, checkout_sql):
    cart = add_cart(vendors=1)
    answer = checkout_sql(db, cart)
    [shown] = answer["vendor_orders"]
    db.execute("select order_line_release(%s, 'sold twice')", [cart.items[0].id])

    order = get(db, shown["order_id"], cart.buyer_store_id)

    assert (order["total_cents"], order["payment_intent"]["amount_cents"]) == (1000, 1000)
    assert {item["line_item_id"]: item["status"] for item in order["items"]} == {
        str(cart.items[0].id): "rejected",
        str(cart.items[1].id): "pending",
    }
    assert order["updated_at"] > order["created_at"] == answer["converted_at"]


def test_buyer_and_vendor_see_their_order_and_nobody_else_does(db, add_cart, checkout_sql):
    cart = add_cart(vendors=2)
    mine, other = checkout_sql(db, cart)["vendor_orders"]
    buyer, vendor = cart.buyer_store_id, mine["vendor_store_id"]

    order = get(db, mine["order_id"], buyer)
    assert order == get(db, mine["order_id"], None, vendor) == get(db, mine["order_id"], buyer, vendor)

    for order_id, stores in (
        (mine["order_id"], (NOBODY, None)),
        (mine["order_id"], (None, NOBODY)),
        (mine["order_id"], (None, other["vendor_store_id"])),
        (mine["order_id"], (vendor, None)),
        (mine["order_id"], (None, buyer)),
        (mine["order_id"], (buyer, NOBODY)),
        (mine["order_id"], (NOBODY, vendor)),
        (NOBODY, (buyer, vendor)),
    ):
        with refused("OC011") as refusal:
            get(db, order_id, *stores)
        assert refusal.detail == {"order_id": str(order_id)}


@pytest.mark.parametrize(
    ("arguments", "field"), [((None, BUYER, VENDOR), "order_id"), ((NOBODY, None, None), "buyer_store_id")]
)
def test_who_asks_and_for_what_must_be_said(db, arguments, field):
    with refused("OC005") as refusal:
        get(db, *arguments)
    assert refusal.detail["field"] == field


def test_an_order_of_the_earlier_system_is_shown_whole_with_null_for_what_it_lacks(db, add_orders):
    [order_id] = add_orders(1)
    order = get(db, order_id, BUYER)
    assert list(order) == [*OF_AN_ORDER, "items"]
    lacking = ("cart_id", "currency", "payment_method", "shipping_address", "shipping_line", "payment_intent", "promo")
    assert [order[name] for name in lacking] == [None] * len(lacking)
    assert (order["warnings"], order["line_count"], len(order["items"])) == ([], 2, 2)


def test_lines_that_the_host_added_are_no_part_of_an_order_of_ours(db, add_cart, checkout_sql):
    cart = add_cart(vendors=1)
    [shown] = checkout_sql(db, cart)["vendor_orders"]
    db.execute(
        "insert into order_line_items (order_id, name, category, unit, unit_price_cents, qty, total_cents)"
        " values (%s, 'Gift wrap', '', 'each', 1, 1, 1)",
        [shown["order_id"]],
    )
    order = get(db, shown["order_id"], cart.buyer_store_id)
    assert (restricted(order["items"], shown["items"]), order["line_count"]) == (shown["items"], 2)
    assert page(db, buyer_store_id=cart.buyer_store_id)["orders"][0]["line_count"] == 2


def test_an_erased_order_is_shown_without_its_address(db, add_cart, checkout_sql):
    cart = add_cart(vendors=1)
    [shown] = checkout_sql(db, cart)["vendor_orders"]
    db.execute("select checkout_erase(%s)", [cart.id])
    assert get(db, shown["order_id"], cart.buyer_store_id)["shipping_address"] == {}


# Lists


def test_a_list_shows_what_order_get_shows_but_the_lines(db, add_cart, checkout_sql):
    cart = add_cart(vendors=3, lines=[1, 2, 3])
    shown = checkout_sql(db, cart)["vendor_orders"]

    listed = page(db, buyer_store_id=cart.buyer_store_id)

    assert listed["after"] is None
    assert sorted(ids(listed)) == sorted(order["order_id"] for order in shown)
    for order in listed["orders"]:
        whole = get(db, order["order_id"], cart.buyer_store_id)
        assert order == {name: value for name, value in whole.items() if name != "items"}
        assert order["line_count"] == len(whole["items"])
        assert page(db, vendor_store_id=order["vendor_store_id"]) == {"orders": [order], "after": None}


@pytest.mark.parametrize("max_rows", [1, 3, 6, 7, 13, 14])
@pytest.mark.parametrize("side", ["buyer_store_id", "vendor_store_id"])
def test_pages_follow_each_other_newest_first_without_a_gap(db, add_orders, side, max_rows):
    """Also where orders have the same time, as those of one checkout do; and nothing of another store's."""
    own = {"buyer_store_id": BUYER, "vendor_store_id": VENDOR}[side]
    expected = add_orders(6) + add_orders(7, created_at="2024-05-02Z")
    db.execute("update vendor_orders set created_at = '2024-05-02 00:03Z' where created_at >= '2024-05-02Z'")
    add_orders(5, **{"buyer": NOBODY} if side == "buyer_store_id" else {"vendor": NOBODY})

    found, after, pages = [], None, 0
    while pages == 0 or after:
        answer = page(db, **{side: own}, after=after, max_rows=max_rows)
        found, after, pages = found + ids(answer), answer["after"], pages + 1
        assert len(answer["orders"]) == max_rows or after is None

    assert found == [*sorted(expected[6:], reverse=True), *reversed(expected[:6])]
    assert pages == -(-13 // max_rows), "none of them empty"


def test_what_is_ordered_meanwhile_moves_no_page(db, add_orders):
    expected = add_orders(4)
    first = page(db, buyer_store_id=BUYER, max_rows=2)
    add_orders(3, created_at="2024-06-01Z")
    second = page(db, buyer_store_id=BUYER, max_rows=2, after=first["after"])
    assert ids(first) + ids(second) == expected[::-1]
    assert second["after"] is None


@pytest.mark.parametrize("created_at", ["infinity", "-infinity", "4713-01-01 BC", "20000-01-01Z"])
def test_a_page_ends_at_any_time_that_a_host_wrote(db, connect, add_orders, created_at):
    """In sessions with other settings, too."""
    expected = add_orders(3)
    db.execute("update vendor_orders set created_at = %s", [created_at])
    found, after = [], None
    for settings in ("-c DateStyle=sql,dmy -c TimeZone=Asia/Kathmandu", "-c DateStyle=german", "-c TimeZone=UTC"):
        answer = page(connect(options=settings), buyer_store_id=BUYER, max_rows=1, after=after)
        found, after = found + ids(answer), answer["after"]
    assert (found, after) == (sorted(expected, reverse=True), None)


def test_a_list_may_be_of_some_states_alone(db, add_orders):
    pending, held, canceled = (add_orders(2, status=status) for status in ("created_pending", "hold", "canceled"))
    for statuses, expected in (
        (["hold"], held),
        (["hold", "canceled"], held + canceled),
        (["hold", "hold"], held),
        (["delivered"], []),
        (None, pending + held + canceled),
    ):
        assert sorted(ids(page(db, vendor_store_id=VENDOR, statuses=statuses))) == sorted(expected)
    first = page(db, vendor_store_id=VENDOR, statuses=["hold"], max_rows=1)
    second = page(db, vendor_store_id=VENDOR, statuses=["hold"], max_rows=1, after=first["after"])
    assert (ids(first) + ids(second), second["after"]) == (held[::-1], None)


def test_a_state_that_the_host_added_is_a_state(db, add_orders):
    db.execute("alter type vendor_order_status add value 'packed'")
    add_orders(1), add_orders(1, status="packed")
    assert [order["status"] for order in page(db, buyer_store_id=BUYER, statuses=["packed"])["orders"]] == ["packed"]


def place(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


GOOD = "2024-05-01 12:00:00+00 60000000-0000-4000-8000-0000000000af"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "buyer_store_id"),
        ({"buyer_store_id": BUYER, "vendor_store_id": VENDOR}, "buyer_store_id"),
        ({"statuses": []}, "statuses"),
        ({"statuses": ["shipped"]}, "statuses"),
        ({"statuses": ["hold", "Hold"]}, "statuses"),
        ({"statuses": ["hold", None]}, "statuses"),
        ({"max_rows": 0}, "max_rows"),
        ({"max_rows": 201}, "max_rows"),
        ({"max_rows": None}, "max_rows"),
        ({"order_number": 0}, "order_number"),
        ({"order_number": -(2**63)}, "order_number"),
        ({"purchase_order": ""}, "purchase_order"),
        ({"purchase_order": "x" * 101}, "purchase_order"),
        ({"order_number": 1, "purchase_order": ""}, "purchase_order"),
        ({"after": ""}, "after"),
        ({"after": "2"}, "after"),
        ({"after": place("")}, "after"),
        ({"after": place(GOOD) + "="}, "after"),
        ({"after": place(GOOD[:-1])}, "after"),
        ({"after": place(GOOD.upper())}, "after"),
        ({"after": place(GOOD.replace("2024-05-01 12:00:00+00", "now"))}, "after"),
        ({"after": place(GOOD.replace("-05-01", "-02-30"))}, "after"),
        ({"after": place(GOOD.replace("+00", "+02"))}, "after"),
        ({"after": place(GOOD.replace(" 6", "  6"))}, "after"),
        ({"after": place("\0" + GOOD)}, "after"),
        ({"after": base64.urlsafe_b64encode(b"\xff" + GOOD.encode()).decode().rstrip("=")}, "after"),
    ],
)
def test_a_list_that_nobody_can_mean_is_refused(db, arguments, field):
    assert page(db, buyer_store_id=BUYER, after=place(GOOD)) == {"orders": [], "after": None}
    whose = {} if field == "buyer_store_id" else {"buyer_store_id": BUYER}
    with refused("OC005") as refusal:
        page(db, **whose, **arguments)
    assert refusal.detail["field"] == field


def test_a_state_that_there_is_not_is_told_all_that_there_are(db):
    [labels] = values(db, "select enum_range(null::vendor_order_status)::text[]")
    with refused("OC005") as refusal:
        page(db, buyer_store_id=BUYER, statuses=["shipped"])
    assert refusal.detail["problem"] == f"must be null or some of {', '.join(labels)}"


# Found by number and by purchase order


def name_orders(db: psycopg.Connection, order_ids: list[str], purchase_order: str) -> list[int]:
    """The orders' numbers, in the order of the ids."""
    query = """
        update vendor_orders set order_number = nextval('checkout_order_number_seq'), purchase_order = %s where id = %s
        returning order_number"""
    return [values(db, query, purchase_order, order_id)[0] for order_id in order_ids]


def test_an_order_is_found_by_what_its_checkout_noted(db, add_cart, checkout):
    """The number and the purchase order that the result shows, for the buyer and for each vendor."""
    cart = add_cart(vendors=2)
    orders = checkout(db, cart, purchase_order="PO-4711").vendor_orders
    for order in orders:
        for store in ({"buyer_store_id": cart.buyer_store_id}, {"vendor_store_id": order.vendor_store_id}):
            found = page(db, **store, order_number=order.order_number)
            assert (ids(found), found["after"]) == ([str(order.order_id)], None)
        assert ids(page(db, vendor_store_id=order.vendor_store_id, purchase_order="PO-4711")) == [str(order.order_id)]
    of_buyer = ids(page(db, buyer_store_id=cart.buyer_store_id, purchase_order="PO-4711"))
    assert sorted(of_buyer) == sorted(str(order.order_id) for order in orders)


@pytest.mark.parametrize("side", ["buyer_store_id", "vendor_store_id"])
def test_nothing_is_found_but_what_is_asked_for_and_the_stores_own(db, add_orders, side):
    own = {side: BUYER if side == "buyer_store_id" else VENDOR}
    mine, later = add_orders(2)
    [held] = add_orders(1, status="hold", created_at="2024-06-01Z")
    [other] = add_orders(1, **{"buyer": NOBODY} if side == "buyer_store_id" else {"vendor": NOBODY})
    add_orders(1)  # an order of the earlier system: no number
    first, second, third, foreign = name_orders(db, [mine, later, held, other], "PO-1")
    db.execute("update vendor_orders set purchase_order = 'po-1' where id = %s", [later])

    for arguments, expected in (
        ({"order_number": first}, [mine]),
        ({"order_number": second}, [later]),
        ({"order_number": foreign}, []),
        ({"order_number": foreign + 1}, []),
        ({"order_number": 2**63 - 1}, []),
        ({"purchase_order": "PO-1"}, [held, mine]),
        ({"purchase_order": "po-1"}, [later]),
        ({"purchase_order": "PO-"}, []),
        ({"purchase_order": "%"}, []),
        ({"purchase_order": "x" * 100}, []),
        ({"order_number": first, "purchase_order": "PO-1"}, [mine]),
        ({"order_number": second, "purchase_order": "PO-1"}, []),
        ({"order_number": foreign, "purchase_order": "PO-1"}, []),
        ({"order_number": third, "statuses": ["hold"]}, [held]),
        ({"order_number": first, "statuses": ["hold"]}, []),
        ({"purchase_order": "PO-1", "statuses": ["hold", "canceled"]}, [held]),
        ({"purchase_order": "PO-1", "statuses": ["canceled"]}, []),
        ({"order_number": first, "after": place("2024-05-01 00:01:00+00 00000000-0000-0000-0000-000000000000")}, []),
        ({"order_number": first, "after": place(GOOD)}, [mine]),
    ):
        found = page(db, **own, **arguments)
        assert (ids(found), found["after"]) == (expected, None), arguments
    swapped = {"vendor_store_id" if side == "buyer_store_id" else "buyer_store_id": own[side]}
    assert ids(page(db, **swapped, order_number=first)) == ids(page(db, **swapped, purchase_order="PO-1")) == []


@pytest.mark.parametrize("max_rows", [1, 3, 7, 8])
@pytest.mark.parametrize("side", ["buyer_store_id", "vendor_store_id"])
def test_the_orders_of_a_purchase_order_are_paged_as_a_list_is(db, add_orders, side, max_rows):
    """Among others of the store, and of others under the same purchase order."""
    own = {side: BUYER if side == "buyer_store_id" else VENDOR}
    expected = add_orders(3) + sorted(add_orders(4, created_at="2024-05-02Z"))
    db.execute("update vendor_orders set created_at = '2024-05-02 00:03Z' where created_at >= '2024-05-02Z'")
    foreign = add_orders(5, **{"buyer": NOBODY} if side == "buyer_store_id" else {"vendor": NOBODY})
    name_orders(db, expected + foreign, "PO-1")
    name_orders(db, add_orders(5), "PO-2")

    found, after, pages = [], None, 0
    while pages == 0 or after:
        answer = page(db, **own, purchase_order="PO-1", after=after, max_rows=max_rows)
        found, after, pages = found + ids(answer), answer["after"], pages + 1
    assert (found, pages) == (expected[::-1], -(-7 // max_rows))


def test_numbers_of_the_hosts_own_may_repeat(db, add_orders):
    db.execute("drop index idx_vendor_orders_order_number")
    db.execute("alter table vendor_orders alter order_number type integer")
    expected = add_orders(3)
    db.execute("update vendor_orders set order_number = 7")
    first = page(db, vendor_store_id=VENDOR, order_number=7, max_rows=2)
    second = page(db, vendor_store_id=VENDOR, order_number=7, max_rows=2, after=first["after"])
    assert (ids(first) + ids(second), second["after"]) == (expected[::-1], None)
    assert ids(page(db, vendor_store_id=VENDOR, order_number=2**40)) == []


def test_a_text_of_any_collation_finds_its_purchase_order(db, add_orders):
    [mine] = add_orders(1)
    name_orders(db, [mine], "PO-1")
    [found] = values(db, """select orders_list(%s, purchase_order => 'PO-1' collate "POSIX")""", BUYER)
    assert ids(found) == [mine]


# What it costs


@pytest.mark.parametrize("side", ["buyer_store_id", "vendor_store_id"])
@pytest.mark.parametrize("analyzed", [True, False])
def test_a_page_reads_what_it_shows_and_one_order_more(db, connect, add_orders, side, analyzed):
    """Out of thousands, the first page and the last, by the index of the side that asks."""
    add_orders(3000)
    other = {"vendor": NOBODY} if side == "buyer_store_id" else {"buyer": NOBODY}
    add_orders(3000, **other)
    if analyzed:
        db.execute("analyze vendor_orders, order_line_items")
    own = {side: BUYER if side == "buyer_store_id" else VENDOR}
    oldest = f"select order_place(created_at, id) from vendor_orders where {side} = %s order by created_at offset 30"
    deep = values(db, oldest, *own.values())[0]
    for after in (None, deep):
        before = read(db)
        conn = connect(autocommit=True)
        answer = page(conn, **own, after=after, max_rows=20)
        conn.execute("select pg_stat_force_next_flush()")
        counted = {name: number - before[name] for name, number in read(db).items()}
        assert len(answer["orders"]) == 20
        assert counted["sequential"] == 0
        assert counted[f"idx_vendor_orders_{side}_created_at_id"] == 21
        assert counted["vendor_orders"] == 21
        assert counted["order_line_items"] == 40


@pytest.mark.parametrize("side", ["buyer_store_id", "vendor_store_id"])
@pytest.mark.parametrize("analyzed", [True, False])
def test_what_is_found_is_all_that_is_read(db, connect, add_orders, side, analyzed):
    """Out of thousands of the store, by the index of the number and by that of the purchase order."""
    own = {side: BUYER if side == "buyer_store_id" else VENDOR}
    add_orders(3000)
    wanted = add_orders(30, created_at="2024-04-01Z")
    numbers = name_orders(db, wanted, "PO-1")
    db.execute(
        """
        update vendor_orders set order_number = nextval('checkout_order_number_seq'), purchase_order = 'PO-' || random()
         where order_number is null
        """
    )
    if analyzed:
        db.execute("analyze vendor_orders, order_line_items")
    by_number, by_text = "idx_vendor_orders_order_number", "idx_vendor_orders_purchase_order_created_at_id"
    [deep] = values(db, "select order_place(created_at, id) from vendor_orders where id = %s", wanted[25])
    for arguments, expected, index, entries in (
        ({"order_number": numbers[3]}, [wanted[3]], by_number, 1),
        ({"order_number": numbers[3], "purchase_order": "PO-1"}, [wanted[3]], by_number, 1),
        ({"order_number": 2**62}, [], by_number, 0),
        ({"purchase_order": "PO-1", "max_rows": 20}, wanted[:9:-1], by_text, 21),
        ({"purchase_order": "PO-1", "max_rows": 20, "after": deep}, wanted[24:4:-1], by_text, 21),
        ({"purchase_order": "PO"}, [], by_text, 0),
    ):
        before = read(db)
        conn = connect(autocommit=True)
        answer = page(conn, **own, **arguments)
        conn.execute("select pg_stat_force_next_flush()")
        counted = {name: number - before[name] for name, number in read(db).items()}
        assert ids(answer) == expected
        lines = 2 * len(expected)
        read_here = {index: entries, "vendor_orders": entries, "order_line_items": lines}
        assert {name: number for name, number in counted.items() if number} == {
            name: number for name, number in read_here.items() if number
        }, arguments


def read(db: psycopg.Connection) -> dict[str, int]:
    """How many rows of tables, and entries of indexes, were read so far."""
    db.execute("select pg_stat_force_next_flush()")
    return {
        each["name"]: each["number"]
        for each in rows(
            db,
            """
            select indexrelname::text as name, idx_tup_read as number from pg_stat_user_indexes
             where relname = 'vendor_orders'
             union all
            select relname::text, idx_tup_fetch + seq_tup_read from pg_stat_user_tables
             where relname in ('vendor_orders', 'order_line_items')
             union all
            select 'sequential', sum(seq_scan)::bigint from pg_stat_user_tables
             where relname in ('vendor_orders', 'order_line_items', 'payment_intents')
            """,
        )
    }


def test_reading_writes_nothing_and_waits_for_nobody(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=1)
    [shown] = checkout_sql(db, cart)["vendor_orders"]
    host = connect()
    host.execute("select from vendor_orders for update")
    host.execute("lock table order_line_items in exclusive mode")
    reader = connect(options="-c default_transaction_read_only=on -c lock_timeout=100ms")
    assert get(reader, shown["order_id"], cart.buyer_store_id)["order_id"] == shown["order_id"]
    assert ids(page(reader, buyer_store_id=cart.buyer_store_id)) == [shown["order_id"]]
    assert row(host, "select count(*) from vendor_orders")["count"] == 1
