"""PF-173, PF-174: a quote is written whole, or refused with both figures when it is written, not at the checkout."""

import copy
import json
import re
import time
from uuid import UUID, uuid4

import psycopg
import pytest
from many import add_orders
from psycopg.types.json import Jsonb

from checks import refused, row, rows, values
from races import blocked

pytest_plugins = ["shared"]


@pytest.fixture
def db(undone_if_alone):
    return undone_if_alone


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


def place(path):
    """The same path as an error names it: cart.vendor_groups[0].items[1].quantity."""
    return "cart." + re.sub(r"\.(\d+)", r"[\1]", path)


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
        "below_minimum": [],
        "vendor_groups": values(db, "select cart_get(%s, %s) -> 'vendor_groups'", BUYER, CART)[0],
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
    named = path.replace("line_discounts_cents", "line_total_cents")  # which of the two is wrong nobody knows
    assert refusal.detail["field"] == place(named)
    assert f"({problem} at {place(named)}: expected {expected}, found {found})" in refusal.message
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
    with refused("OC007") as refusal:
        put(db, quote_with(path, value))
    assert refusal.detail["field"] == place(path)
    assert place(path) in refusal.message
    assert snapshot(db) == before


def test_two_groups_of_one_vendor_are_refused(db, snapshot):
    """PF-175: one group a vendor and cart."""
    body = quote()
    body["vendor_groups"] *= 2
    before = snapshot(db)
    with refused("OC007") as refusal:
        put(db, body)
    assert refusal.detail == {
        "cart_id": str(CART),
        "problem": "vendor_twice",
        "vendor_store_id": str(VENDOR),
        "field": "cart.vendor_groups[1].vendor_store_id",
    }
    assert "vendor_twice at cart.vendor_groups[1].vendor_store_id" in refusal.message
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
    assert refusal.detail["field"] == place(path)
    assert refusal.message == f"{place(path)} {refusal.detail['problem']}"
    assert snapshot(db) == before


@pytest.mark.parametrize(("levels", "taken"), [(32, True), (33, False)])
def test_a_quote_is_nested_32_levels_deep_at_most(db, nothing_written, levels, taken):
    deep = "x"
    for _ in range(levels - 4):  # those above it: the cart, its groups, one of them, the promotion
        deep = [deep]
    body = quote_with("vendor_groups.0.promo", {"code": "SPRING", "amount_cents": 100, "more": deep})
    if taken:
        put(db, body)
        return
    with nothing_written(), refused("OC005") as refusal:
        put(db, body)
    assert (refusal.detail["field"], refusal.detail["problem"]) == ("cart", "must not be nested deeper than 32 levels")


def test_a_quote_that_adds_up_to_more_than_an_amount_can_hold_is_refused(db, nothing_written):
    """Each of its figures is one; their sum is not."""
    most = 2**63 - 1
    item = {"product_id": str(BASIL), "quantity": 1, "unit_price_cents": most, "line_subtotal_cents": most}
    group = {"subtotal_cents": most, "total_cents": most, "items": [item]}
    groups = [group | {"vendor_store_id": str(vendor)} for vendor in (VENDOR, OTHER)]
    with nothing_written(), refused("OC005") as refusal:
        put(db, quote(vendor_groups=groups))
    assert refusal.detail["field"] == "cart.vendor_groups"
    assert refusal.detail["problem"] == "adds up to more than an amount can hold"


def test_lines_that_add_up_to_more_than_an_amount_can_hold_are_not_their_groups_subtotal(db, nothing_written):
    most = 2**63 - 1
    items = [
        {"product_id": str(product), "quantity": 1, "unit_price_cents": most, "line_subtotal_cents": most}
        for product in (BASIL, MINT)
    ]
    group = {"vendor_store_id": str(VENDOR), "subtotal_cents": 0, "total_cents": 0, "items": items}
    with nothing_written(), refused("OC007") as refusal:
        put(db, quote(vendor_groups=[group]))
    assert (refusal.detail["problem"], refusal.detail["expected"]) == ("vendor_subtotal", 2 * most)


def test_a_group_of_the_buyers_own_of_which_nothing_can_be_ordered_is_in_nobodys_way(db):
    """With something to order it is refused, by a name."""
    [group] = quote()["vendor_groups"]
    item = {"product_id": str(BASIL), "quantity": 1, "unit_price_cents": 5, "line_subtotal_cents": 5}
    own = {"vendor_store_id": str(BUYER), "subtotal_cents": 0, "total_cents": 0}
    put(db, quote(vendor_groups=[group, own | {"items": [item | {"status": "not_available"}]}]))

    own |= {"subtotal_cents": 5, "total_cents": 5, "items": [item]}
    with refused("OC007") as refusal:
        put(db, quote(id=str(uuid4()), vendor_groups=[group, own]))
    assert refusal.detail["problem"] == "buyer_is_vendor"


@pytest.mark.parametrize("status", ["ok", "invalid"])
def test_a_total_too_far_from_its_subtotal_for_an_amount_is_refused(db, nothing_written, status):
    far = {"status": status, "subtotal_cents": 2**63 - 1, "total_cents": -1}
    with nothing_written(), refused("OC005") as refusal:
        put(db, quote(vendor_groups=[quote()["vendor_groups"][0] | far]))
    assert refusal.detail["field"] == "cart.vendor_groups"
    assert refusal.detail["problem"] == "has a total too far from its subtotal for an amount"


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("vendor_groups", {}, "must be an array"),
        ("vendor_groups.0", "text", "must be a JSON object"),
        ("vendor_groups.0.items", "none", "must be an array"),
        ("vendor_groups.0.items.0", 7, "must be a JSON object"),
    ],
)
def test_what_a_part_of_a_quote_has_to_be_is_told(db, nothing_written, path, value, problem):
    with nothing_written(), refused("OC005") as refusal:
        put(db, quote_with(path, value))
    assert (refusal.detail["field"], refusal.detail["problem"]) == (place(path), problem)


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
    assert (refusal.detail["field"], refusal.detail["problem"]) == (f"cart.{field}", "is required")


# Where it is, and what


def large_quote():
    """12 vendors with 5 lines each."""
    groups = []
    for _ in range(12):
        items = [
            {
                "product_id": str(uuid4()),
                "title": "Rice",
                "quantity": 1,
                "unit_price_cents": 100,
                "line_subtotal_cents": 100,
            }
            for _ in range(5)
        ]
        groups.append(
            {"vendor_store_id": str(uuid4()), "subtotal_cents": 500, "total_cents": 500, "promo": None, "items": items}
        )
    return quote(vendor_groups=groups)


@pytest.mark.parametrize(
    ("member", "value", "problem"),
    [
        ("quantity", "two", "must be a whole number"),
        ("quantity", "2", "must be a whole number"),
        ("quantity", 1.5, "must be a whole number"),
        ("quantity", True, "must be a whole number"),
        ("quantity", None, "is required"),
        ("quantity", 2**31, "is out of range"),
        ("line_subtotal_cents", -(2**63) - 1, "is out of range"),
        ("product_id", "no uuid", "must be a UUID"),
        ("product_id", 7, "must be a UUID"),
        ("title", 7, "must be a text"),
        ("status", "perfect", "must be one of ok, not_available, invalid"),
        ("warnings", "careful", "must be an array"),
        ("applied_volume_discount", [], "must be an object"),
        ("quantitty", 1, "is not a field of a quote"),
    ],
)
def test_a_bad_value_among_sixty_lines_is_named_by_its_path(db, nothing_written, member, value, problem):
    """PF-173: whoever quotes sixty lines must not look for the one that is wrong."""
    body = large_quote()
    body["vendor_groups"][3]["items"][4][member] = value

    with nothing_written(), refused("OC005") as refusal:
        put(db, body)

    path = f"cart.vendor_groups[3].items[4].{member}"
    assert refusal.detail == {"field": path, "problem": problem}
    assert refusal.message == f"{path} {problem}"


def test_a_state_that_there_is_not_is_told_all_that_there_are(db, nothing_written):
    """The type may be the host's, with states of its own."""
    labels = [f"waits_for_somebody_number_{number}" for number in range(9)]
    for label in labels:
        db.execute(f"alter type cart_item_status add value '{label}'")
    body = large_quote()
    body["vendor_groups"][3]["items"][4]["status"] = "perfect"

    with nothing_written(), refused("OC005") as refusal:
        put(db, body)
    assert refusal.detail["problem"] == f"must be one of {', '.join(['ok', 'not_available', 'invalid', *labels])}"


def test_a_value_that_is_missing_among_sixty_lines_is_named(db, nothing_written):
    """PF-173"""
    body = large_quote()
    del body["vendor_groups"][7]["items"][2]["unit_price_cents"]
    with nothing_written(), refused("OC005") as refusal:
        put(db, body)
    assert refusal.message == "cart.vendor_groups[7].items[2].unit_price_cents is required"


def test_the_first_of_several_faults_is_told(db):
    """PF-173: in the order of the quote, not of the text of the paths."""
    body = large_quote()
    body["vendor_groups"][10]["status"] = 1
    body["vendor_groups"][9]["items"][1]["quantity"] = []
    with refused("OC005") as refusal:
        put(db, body)
    assert refusal.detail["field"] == "cart.vendor_groups[9].items[1].quantity"


@pytest.mark.parametrize(
    ("member", "value", "problem", "expected"),
    [
        ("quantity", 0, "quantity", "at least 1"),
        ("unit_price_cents", -5, "line_amounts", "at least 0"),
        ("line_subtotal_cents", -5, "line_amounts", "at least 0"),
        ("line_total_cents", 99, "line_amounts", 100),
    ],
)
def test_a_wrong_figure_among_sixty_lines_is_named_by_its_path(db, nothing_written, member, value, problem, expected):
    """PF-173: with both figures, in the message as well as in DETAIL."""
    body = large_quote()
    body["vendor_groups"][11]["items"][3][member] = value

    with nothing_written(), refused("OC007") as refusal:
        put(db, body)

    path = f"cart.vendor_groups[11].items[3].{member}"
    told = {name: refusal.detail[name] for name in ("problem", "field", "expected", "found")}
    assert told == {"problem": problem, "field": path, "expected": expected, "found": value}
    assert f"({problem} at {path}: expected {expected}, found {value})" in refusal.message


@pytest.mark.parametrize(
    ("member", "problem"), [("subtotal_cents", "vendor_subtotal"), ("total_cents", "vendor_total")]
)
def test_a_wrong_figure_of_one_vendor_of_twelve_is_named_by_its_path(db, nothing_written, member, problem):
    """PF-173: also where the rule is the checkout's own."""
    body = large_quote()
    body["vendor_groups"][6][member] = 501
    body |= {"subtotal_cents": None}
    with nothing_written(), refused("OC007") as refusal:
        put(db, body)
    path = f"cart.vendor_groups[6].{member}"
    assert refusal.detail["field"] == path
    assert f"({problem} at {path}: expected 500, found 501)" in refusal.message


def test_an_id_that_is_there_twice_is_named(db, nothing_written):
    """PF-175: orders and lines take these ids."""
    body, twin = large_quote(), str(uuid4())
    body["vendor_groups"][2]["items"][1]["id"] = twin
    body["vendor_groups"][8]["items"][3]["id"] = twin.upper()
    with nothing_written(), refused("OC007") as refusal:
        put(db, body)
    assert refusal.detail | {"cart_id": None} == {
        "cart_id": None,
        "problem": "id_twice",
        "id": twin,
        "field": "cart.vendor_groups[8].items[3].id",
    }

    body = large_quote()
    body["vendor_groups"][2]["id"] = body["vendor_groups"][3]["id"] = twin
    with nothing_written(), refused("OC007") as refusal:
        put(db, body)
    assert refusal.detail["field"] == "cart.vendor_groups[3].id"


@pytest.mark.parametrize("items", [[], None, "not_available"])
def test_a_group_without_an_item_that_is_ok_has_no_total(db, nothing_written, items):
    """PF-173: its total would be quoted and never ordered."""
    body = large_quote()
    group = body["vendor_groups"][4]
    if items == "not_available":
        for item in group["items"]:
            item["status"] = items
    else:
        group["items"] = items
    with nothing_written(), refused("OC007") as refusal:
        put(db, body)
    assert refusal.detail["vendor_store_id"] == group["vendor_store_id"]
    assert "vendor_without_items at cart.vendor_groups[4].items: expected 0, found 500" in refusal.message

    group |= {"subtotal_cents": 0, "total_cents": 0}
    assert put(db, body)["totals"]["quoted"]["total_cents"] == 5500


@pytest.mark.parametrize(
    "currency", ["dollars", "usd", "Usd", "", " ", "€", "US", "USDT", "US1", "\uff35\uff33\uff24", "USD\n", 840]
)
def test_a_currency_is_three_capital_letters(db, nothing_written, currency):
    """PF-173: what is quoted is ordered and shown in it; jpy would be shown with two digits too many."""
    with nothing_written(), refused("OC005") as refusal:
        put(db, quote(currency=currency))
    assert refusal.detail == {"field": "cart.currency", "problem": "must be three capital letters (ISO 4217)"}


INSTANTS = {
    "2030-06-01T12:00:00Z": "2030-06-01T12:00:00.000000Z",
    "2030-06-01t12:00:00.25z": "2030-06-01T12:00:00.250000Z",
    "2030-06-01T12:00:00+05:30": "2030-06-01T06:30:00.000000Z",
    "2030-06-01T12:00:00.123456789-08:00": "2030-06-01T20:00:00.123457Z",
    "2030-06-30T23:59:60Z": "2030-07-01T00:00:00.000000Z",
    "9999-12-31T23:59:59Z": "9999-12-31T23:59:59.000000Z",
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00.000000Z",
}


@pytest.mark.parametrize("zone", ["UTC", "Asia/Kathmandu"])
@pytest.mark.parametrize("style", ["ISO, MDY", "SQL, DMY", "German, YMD"])
def test_an_end_means_the_same_in_every_session(db, zone, style):
    """PF-173: a date with its offset is one instant, whatever TimeZone and DateStyle say."""
    db.execute(f"set timezone = '{zone}'; set datestyle = '{style}'")
    for given, shown in INSTANTS.items():
        assert put(db, quote(valid_until=given))["valid_until"] == shown


@pytest.mark.parametrize(
    "value",
    [
        *("2030-06-01T12:00:00", "2030-06-01 12:00:00Z", "2030-06-01T12:00Z", "2030-06-01", "03/04/2030", "01.06.2030"),
        *(
            "now",
            "tomorrow",
            "infinity",
            "-infinity",
            "epoch",
            "",
            "2030-06-01T12:00:00 UTC",
            "2030-06-01T12:00:00+0530",
        ),
        *("2030-02-30T12:00:00Z", "2030-06-01T25:00:00Z", "2030-06-01T12:61:00Z", "2030-06-01T12:00:00+99:00"),
        *("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+01:00"),
        *(1893456000, True, {}, "\uff12030-06-01T12:00:00Z"),
    ],
)
def test_an_end_without_its_offset_or_of_another_form_is_refused(db, nothing_written, value):
    """PF-173: else the session's TimeZone and DateStyle would say when a quote ends."""
    with nothing_written(), refused("OC005") as refusal:
        put(db, quote(valid_until=value))
    assert refusal.detail["field"] == "cart.valid_until"


@pytest.mark.parametrize("id", ["no uuid", "", 7, {}, f"urn:uuid:{CART}", f" {CART}", str(CART)[:-1], f"{{{CART}"])
def test_an_id_that_is_no_uuid_is_refused(db, nothing_written, id):
    """PF-173: as an argument of any kind is, not with a code of PostgreSQL's own."""
    for field in ("id", "buyer_store_id"):
        with nothing_written(), refused("OC005") as refusal:
            put(db, quote(**{field: id}))
        assert refusal.detail == {"field": f"cart.{field}", "problem": "must be a UUID"}


def test_an_id_may_be_written_as_postgresql_reads_it(db):
    """PF-173"""
    for written in (str(CART).upper(), CART.hex, f"{{{CART}}}"):
        assert put(db, quote(id=written))["cart_id"] == str(CART)


def test_an_address_and_tokens_are_named_by_their_path_too(db, nothing_written):
    """PF-173: what they hold is the checkout's to judge, but they must fit."""
    for change, field in (
        ({"shipping_address": {"line1": 12}}, "cart.shipping_address.line1"),
        ({"shipping_address": {"lime1": "12 Main Street"}}, "cart.shipping_address.lime1"),
        ({"shipping_address": {"lat": "north"}}, "cart.shipping_address.lat"),
        ({"shipping_address": {"lng": 1e300}}, "cart.shipping_address.lng"),
        ({"ad_tokens": ["good", None]}, "cart.ad_tokens[1]"),
        ({"ad_tokens": [["good"]]}, "cart.ad_tokens[0]"),
    ):
        with nothing_written(), refused("OC005") as refusal:
            put(db, quote(**change))
        assert refusal.detail["field"] == field


def test_null_is_as_good_as_left_out(db):
    """PF-173: wherever a quote may leave a field out."""
    optional = {
        "": ["shipping_address", "ad_tokens", "subtotal_cents", "discounts_cents", "total_cents"],
        "vendor_groups.0.": [
            "id",
            "status",
            "discounts_cents",
            "line_discounts_cents",
            "promo_discount_cents",
            "promo",
        ],
        "vendor_groups.0.items.1.": [
            *("id", "title", "category", "unit", "moq", "max_qty", "line_discounts_cents", "line_total_cents"),
            *("applied_volume_discount", "warnings", "status"),
        ],
    }
    for prefix, fields in optional.items():
        for field in fields:
            assert put(db, quote_with(prefix + field, None))["totals"]["quoted"]["total_cents"] == 2150


# How large


def lines(vendors, each):
    groups = []
    for _ in range(vendors):
        items = [{"product_id": str(uuid4()), "quantity": 1, "unit_price_cents": 1, "line_subtotal_cents": 1}] * each
        groups.append({"vendor_store_id": str(uuid4()), "subtotal_cents": each, "total_cents": each, "items": items})
    return quote(vendor_groups=groups)


def test_a_quote_takes_time_in_proportion_to_its_lines(db):
    """PF-173: in one group as in many; the least of several runs, since the machine has other things to do as well."""

    def seconds(body):
        taken = []
        for _ in range(3):
            began = time.monotonic()
            put(db, body)
            taken.append(time.monotonic() - began)
        return min(taken)

    for few, many in ((lines(1, 200), lines(1, 2000)), (lines(200, 1), lines(2000, 1))):
        assert seconds(many) < 30 * seconds(few), "ten times as many lines; quadratic would be a hundred times"


def test_a_quote_has_5000_items_at_most(db, nothing_written):
    """PF-173: a clear no beyond it, at once."""
    put(db, lines(5, 1000))
    assert values(db, "select count(*) from cart_items") == [5000]
    with nothing_written():
        for body in (lines(5, 1001), lines(1, 5001), quote(vendor_groups=[{}] * 5001)):
            with refused("OC005") as refusal:
                put(db, body)
            assert refusal.detail["field"] == "cart.vendor_groups"
            assert refusal.detail["problem"].startswith("must hold at most 5000 items, not 500")


# What is there already


def test_a_unique_index_of_the_host_is_named(db, snapshot):
    """PF-174: one active cart a buyer: it is a cart too many, not a cart that is not there."""
    db.execute("create unique index one_active_cart on cart_records (buyer_store_id) where status = 'active'")
    put(db, quote())
    before = snapshot(db)
    with refused("OC007") as refusal:
        put(db, quote(id=str(OTHER)))
    assert refusal.detail == {"cart_id": str(OTHER), "problem": "constraint", "constraint": "one_active_cart"}
    assert "(constraint one_active_cart)" in refusal.message
    assert snapshot(db) == before


@pytest.mark.usefixtures("dsn")  # changes a row type, which a session of many tests would go on with
def test_a_column_of_the_host_that_must_be_set_is_named(db, snapshot):
    """PF-174: cart_put cannot fill it."""
    db.execute("alter table cart_items add shelf text not null")
    before = snapshot(db)
    with refused("OC005") as refusal:
        put(db, quote())
    assert refusal.detail["problem"] == "has no value for the column shelf of cart_items"
    assert snapshot(db) == before


def test_a_cart_that_goes_away_while_its_quote_waits_is_made_anew(db, connect):
    """PF-174: the quote is written whole all the same."""
    put(db, quote())
    with connect() as host, connect(autocommit=True) as quoting:
        host.execute("delete from cart_records")
        with blocked(db, put, quoting, quote()) as waiting:
            host.commit()
        assert waiting.result(timeout=10)["status"] == "active"
    assert values(db, "select count(*) from cart_items") == [2]


# An id that orders carry


def purged(db):
    """Check the cart out, cancel its order, and purge it."""
    put(db, quote())
    [order] = checkout(db)["vendor_orders"]
    db.execute("select vendor_order_cancel(%s, 'changed my mind')", (order["order_id"],))
    assert values(db, "select cart_purge('0')") == [1]


def test_the_id_of_a_purged_cart_is_never_quoted_again(db, stocked, snapshot):
    """PF-174: a retry under the old key would convert the new cart, and two carts' orders would carry one id."""
    purged(db)
    before = snapshot(db)
    for buyer in (BUYER, OTHER):
        with refused("OC009") as refusal:
            put(db, quote(buyer_store_id=str(buyer)))
        assert refusal.detail == {"cart_id": str(CART), "table": "cart_records", "operation": "insert"}
    for conflict in ("", "on conflict do nothing", "on conflict (id) do update set currency = 'EUR'"):
        with refused("OC009"):
            db.execute(
                "insert into cart_records (id, buyer_store_id, currency, valid_until)"
                f" values (%s, %s, 'USD', now() + interval '1 hour') {conflict}",
                (CART, BUYER),
            )
    assert snapshot(db) == before
    put(db, quote(id=str(OTHER)))


@pytest.mark.parametrize("part", ["group", "item"])
def test_an_id_that_an_order_or_a_line_carries_is_never_quoted_again(db, stocked, nothing_written, part):
    """PF-175: the checkout could not give it to another; the cart that had it is purged."""
    purged(db)
    table = "vendor_orders" if part == "group" else "order_line_items"
    [taken, *_] = values(db, f"select id::text from {table} order by id")
    body = large_quote() | {"id": str(OTHER)}
    group = body["vendor_groups"][7]
    (group if part == "group" else group["items"][3])["id"] = taken
    with nothing_written(), refused("OC007") as refusal:
        put(db, body)
    path = "cart.vendor_groups[7].id" if part == "group" else "cart.vendor_groups[7].items[3].id"
    assert refusal.detail == {"cart_id": body["id"], "problem": "id_taken", "id": taken, "field": path}
    assert f"(id_taken at {path})" in refusal.message


@pytest.mark.usefixtures("dsn")  # vacuums
def test_the_look_at_ids_that_orders_carry_is_by_their_index(db, stocked):
    """PF-175: whatever a quote holds, each id is looked for once."""
    add_orders(db, 4000)
    db.execute("analyze")
    scans = (
        "select sum(seq_scan)::int from pg_stat_xact_user_tables where relname in ('vendor_orders', 'order_line_items')"
    )
    with db.transaction():
        put(db, large_quote())
        assert values(db, scans) == [0]


def test_a_host_that_upserts_carts_goes_on_doing_so(db, stocked):
    """PF-174: a cart that is there is left to the constraints and triggers that it had."""
    upsert = (
        "insert into cart_records (id, buyer_store_id, currency, valid_until)"
        " values (%s, %s, 'USD', now() + interval '1 hour') on conflict (id)"
    )
    put(db, quote())
    db.execute(f"{upsert} do update set valid_until = excluded.valid_until", (CART, BUYER))
    checkout(db)
    db.execute(f"{upsert} do nothing", (CART, BUYER))
    with refused("OC009") as refusal:
        db.execute(f"{upsert} do update set valid_until = excluded.valid_until", (CART, BUYER))
    assert "is converted" in refusal.message


def test_a_quote_under_way_waits_for_a_purge_of_its_id(db, connect, stocked):
    """PF-174: a cart that is being purged is gone in a moment."""
    put(db, quote())
    checkout(db)
    db.execute("update vendor_orders set status = 'closed'")
    insert = "insert into cart_records (id, buyer_store_id, currency, valid_until) values (%s, %s, 'USD', now())"

    def late(conn):
        with refused("OC009"):
            conn.execute(f"{insert} on conflict (id) do nothing", (CART, BUYER))

    with connect() as owner, connect(autocommit=True) as host:
        assert values(owner, "select cart_purge('0')") == [1]
        with blocked(db, late, host) as waiting:
            owner.commit()
        waiting.result(timeout=10)
    assert values(db, "select count(*) from cart_records") == [0]


def test_the_look_at_orders_is_by_an_index(db):
    """PF-174: it comes with each new cart."""
    db.execute("set enable_seqscan = off")
    plan = values(db, "explain select from vendor_orders where cart_id = %s", CART)
    assert "idx_vendor_orders_cart_id" in json.dumps(plan)


@pytest.mark.usefixtures("dsn")  # changes a row type, which a session of many tests would go on with
@pytest.mark.parametrize(
    "constraint",
    [
        "foreign key (product_id) references products",
        "unique (cart_id)",
        "check (quantity < 5)",
        "exclude using btree (cart_id with =)",
    ],
)
def test_a_constraint_of_the_host_is_named(db, snapshot, constraint):
    """PF-174: an existing database has its own tables of products and vendors, and rules of its own."""
    db.execute("create table products (id uuid primary key)")
    db.execute(f"alter table cart_items add constraint rule_of_the_host {constraint}")
    before = snapshot(db)
    with refused("OC007") as refusal:
        put(db, quote())
    assert refusal.detail == {"cart_id": str(CART), "problem": "constraint", "constraint": "rule_of_the_host"}
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


@pytest.mark.usefixtures("dsn")  # uses the values that it adds to an enum
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


@pytest.mark.usefixtures("dsn")  # changes a row type, which a session of many tests would go on with
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
