"""IDEMPOTENCY & EMISSION: the two events of a conversion, how many there are and what they say."""

import json
import re
from uuid import UUID

import psycopg
import pytest
from ads import KEY, ad_token
from events import DOCS, FORMATS, validate
from jsonschema import Draft202012Validator, ValidationError

from checks import refused, row, rows, values
from factories import ADDRESS


def events(db):
    """Payload data by type, the payloads being valid."""
    return {payload["type"]: validate(payload)["data"] for payload in values(db, "select payload from outbox_events")}


@pytest.fixture
def attributed(db, add_cart, checkout_sql):
    """A cart with ads for a store and a product, one that lost, one for a store elsewhere, and three bad ones."""
    db.execute("select ad_signing_key_put('k1', %s)", (KEY,))
    cart = add_cart(vendors=2, stock=5, items={(1, 0): {"quantity": 6}})
    tokens = [
        ad_token(cart, 1, "store", cart.vendors[0]),
        ad_token(cart, 2, "product", cart.items[3].product_id),
        ad_token(cart, 3, "store", cart.vendors[0], event_type="impression"),
        ad_token(cart, 4, "store", UUID(int=9)),
        ad_token(cart, 5, "store", cart.vendors[1], buyer_store_id=str(UUID(int=8))),
        "not a token",
        "nor.this.one",
    ]
    db.execute("update cart_records set ad_tokens = %s", (tokens,))
    return cart, checkout_sql(db, cart)


def test_the_analytics_event_tells_orders_lines_and_their_ads(db, attributed):
    """IDEMPOTENCY & EMISSION: cart totals, attribution references and token_ids, and counts of what was dropped."""
    _, result = attributed
    data = events(db)["checkout.converted"]

    wanted = ["order_id", "vendor_store_id", "status", "subtotal_cents", "discounts_cents", "total_cents"]
    of_line = ["line_item_id", "product_id", "qty", "total_cents", "status"]

    def told(thing, names):
        token = thing["attributed_token"] or {}
        return {name: thing[name] for name in names} | {"attributed_token_id": token.get("token_id")}

    assert data["vendor_orders"] == [
        told(order, wanted) | {"items": [told(item, of_line) for item in order["items"]]}
        for order in result["vendor_orders"]
    ]
    found = [order["attributed_token_id"] for order in data["vendor_orders"]]
    found += [item["attributed_token_id"] for order in data["vendor_orders"] for item in order["items"]]
    assert [token and int(token[-4:]) for token in found] == [1, None, None, None, None, 2]
    # every token that counted, the losers included; the bad ones by reason
    assert [int(token[-4:]) for token in data["attribution"]["token_ids"]] == [1, 2, 3, 4]
    assert sum(data["attribution"]["dropped"].values()) == 3
    for name in ("outcome", "currency", "payment_method", "totals", "cart_id", "buyer_store_id", "checkout_group_id"):
        assert data[name] == result[name], name


def test_events_tell_nothing_that_is_nobodys_business(db, attributed):
    """IDEMPOTENCY & EMISSION: no address, no bid, no token, no key of the buyer in what consumers keep for years."""
    [sent] = values(db, "select string_agg(payload::text, ' ') from outbox_events")
    private = [text for text in ADDRESS.values() if isinstance(text, str) and len(text) > 3]
    assert [text for text in [*private, "bid", "eyJ", "k1", "not a token"] if text in sent] == []


def test_both_events_are_of_one_instant_and_have_ids_of_their_own(db, attributed):
    """IDEMPOTENCY & EMISSION: the envelope's event_id and occurred_at are the row's; ids are UUIDv7."""
    _, result = attributed
    found = rows(db, "select *, checkout_timestamp(created_at) as created from outbox_events order by event_type desc")
    assert len({event["id"] for event in found}) == 2
    for event in found:
        envelope = {name: value for name, value in event["payload"].items() if name != "data"}
        assert envelope == {
            "version": 1,
            "event_id": str(event["id"]),
            "occurred_at": event["created"],
            "type": event["event_type"],
        }
        assert event["id"].version == 7
        assert (event["published_at"], event["attempt_count"], event["last_error"]) == (None, 0, None)
        assert event["created"] == result["converted_at"]


def test_a_vendor_whose_every_line_fell_short_is_in_both_lists(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the notification names each order, rejected ones too, and says who was rejected."""
    cart = add_cart(vendors=3, lines=1, stock=5, items={(1, 0): {"quantity": 6}}, groups={2: {"status": "invalid"}})
    checkout_sql(db, cart)
    data = events(db)["checkout.vendor_orders_created"]
    assert data["vendor_order_ids"] == [str(group.id) for group in cart.groups[:2]]
    assert data["vendor_store_ids"] == [str(vendor) for vendor in cart.vendors[:2]]
    assert data["rejected_vendors"] == [
        {"vendor_store_id": str(cart.vendors[1]), "reason": "insufficient_inventory"},
        {"vendor_store_id": str(cart.vendors[2]), "reason": "vendor_invalid"},
    ]


def test_events_come_and_go_with_the_conversion(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: emitted from the conversion's transaction: never without it, never missing."""
    cart = add_cart()
    with connect() as conn:
        checkout_sql(conn, cart)
        assert values(conn, "select count(*) from outbox_events") == [2]
        assert values(db, "select count(*) from outbox_events") == [0]
        conn.rollback()
    assert values(db, "select count(*) from outbox_events") == [0]


def test_a_refused_checkout_emits_nothing(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: a refusal is no event."""
    cart = add_cart(stock=0)
    with refused("OC010"):
        checkout_sql(db, cart, reservation_policy="all")
    assert values(db, "select count(*) from outbox_events") == [0]


def test_the_hosts_enums_take_the_events(db, connect, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: an existing database has enums for the types, and more than one event of its own."""
    db.execute("drop view checkout_overview, outbox_backlog; drop index idx_outbox_events_conversion")
    db.execute("create type event_type as enum ('order_created')")
    for name in ("checkout.vendor_orders_created", "checkout.converted"):
        db.execute(f"alter type event_type add value '{name}'")
    db.execute("create type aggregate_type as enum ('store', 'checkout_group')")
    for column in ("event_type", "aggregate_type"):
        db.execute(f"alter table outbox_events alter {column} type {column} using {column}::{column}")
    db.execute(
        """
        create unique index idx_outbox_events_conversion on outbox_events (aggregate_id, event_type)
         where event_type in ('checkout.vendor_orders_created', 'checkout.converted')
        """
    )
    checkout_sql(connect(autocommit=True), add_cart())
    for _ in range(2):
        db.execute(
            "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
            " select 'order_created', 'checkout_group', aggregate_id, '{}' from outbox_events limit 1"
        )
    assert values(db, "select count(*) from outbox_events") == [4]
    assert row(db, "select count(distinct aggregate_id) as anchors from outbox_events") == {"anchors": 1}


def test_the_schemas_refuse_what_the_producer_never_sends(db, attributed):
    """IDEMPOTENCY & EMISSION: versions: a payload that changes its shape needs a new one."""
    for payload in values(db, "select payload from outbox_events"):
        for change in (
            {"version": 2},
            {"extra": 1},
            {"event_id": "no uuid"},
            {"occurred_at": "yesterday"},
            {"occurred_at": "2026-01-01T00:00:00+02:00"},
            {"data": payload["data"] | {"extra": 1}},
            {"data": payload["data"] | {"cart_id": "no uuid"}},
            {"data": {name: value for name, value in payload["data"].items() if name != "checkout_group_id"}},
        ):
            changed = payload | change
            schema = json.loads((DOCS / f"{payload['type']}.v1.schema.json").read_text(encoding="utf-8"))
            with pytest.raises(ValidationError):
                Draft202012Validator(schema, format_checker=FORMATS).validate(changed)


def test_every_object_of_a_schema_is_closed_and_requires_its_members():
    """IDEMPOTENCY & EMISSION: so a member that the producer adds or loses does not go unnoticed."""

    def objects(schema):
        if isinstance(schema, dict):
            if "properties" in schema:
                yield schema
            for inner in schema.values():
                yield from objects(inner)

    for file in DOCS.glob("*.schema.json"):
        assert re.fullmatch(r"(checkout|vendor_order|order_line|payment)\.\w+\.v\d+\.schema\.json", file.name)
        schema = json.loads(file.read_text(encoding="utf-8"))
        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        found = list(objects(schema))
        assert len(found) > 1
        for each in found:
            assert each["additionalProperties"] is False
            assert each["required"] == [member for member in each["properties"] if member not in optional(each)]


def optional(schema):
    """Members of an object that an order has only where it says more than lines and discounts: all of them or none."""
    together = {member: {member, *others} for member, others in schema.get("dependentRequired", {}).items()}
    assert all(members == set(together) for members in together.values())
    return set(together)


def outbox(conn):
    """Every row, oldest first."""
    query = "select id, event_type, aggregate_type, aggregate_id, payload from outbox_events order by id"
    return conn.execute(query).fetchall()


@pytest.mark.parametrize(
    "shape",
    [
        {"vendors": 1, "lines": 1},
        {"vendors": 3, "lines": 2, "amounts": "gross", "line_discount_cents": 70, "promo_cents": 100},
        {"vendors": 2, "items": {(0, 0): {"quantity": 500}}},
        {"vendors": 2, "groups": {1: {"status": "invalid"}}},
        {"vendors": 2, "stock": 0},
        {"vendors": 1, "unit_price_cents": 0},
        {"vendors": 20, "lines": 1},
        {"ad_tokens": ["no token", "a.b.c"]},
    ],
)
def test_exactly_two_events_a_conversion_and_both_follow_their_schema(db, add_cart, checkout_sql, shape):
    """IDEMPOTENCY & EMISSION, TESTS: exactly two events; on zero totals, one vendor, twenty, and rejections too."""
    cart = add_cart(**shape)

    answer = checkout_sql(db, cart)

    found = outbox(db)
    assert [event_type for _, event_type, *_ in found] == ["checkout.vendor_orders_created", "checkout.converted"]
    for event_id, event_type, aggregate_type, aggregate_id, payload in found:
        assert validate(payload)["type"] == event_type
        assert (aggregate_type, str(aggregate_id)) == ("checkout_group", answer["checkout_group_id"])
        assert payload["event_id"] == str(event_id)
        assert payload["occurred_at"] == answer["converted_at"]


def test_the_notification_names_carts_orders_and_vendors(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the notification event has checkout_group_id, cart_id, buyer, vendors and orders."""
    cart = add_cart(vendors=3, groups={2: {"status": "invalid"}})

    answer = checkout_sql(db, cart)

    data = outbox(db)[0][4]["data"]
    assert data["cart_id"] == str(cart.id)
    assert data["buyer_store_id"] == str(cart.buyer_store_id)
    assert data["vendor_order_ids"] == [order["order_id"] for order in answer["vendor_orders"]]
    assert data["vendor_store_ids"] == [str(vendor) for vendor in cart.vendors[:2]]
    assert data["rejected_vendors"] == [{"vendor_store_id": str(cart.vendors[2]), "reason": "vendor_invalid"}]


def test_the_analytics_event_has_the_totals_of_the_answer(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the analytics event has quoted and confirmed totals."""
    cart = add_cart(vendors=2, items={(0, 0): {"quantity": 500}})

    answer = checkout_sql(db, cart)

    data = outbox(db)[1][4]["data"]
    assert data["totals"] == answer["totals"]
    assert data["outcome"] == "partial"
    assert data["totals"]["confirmed"]["total_cents"] < data["totals"]["quoted"]["total_cents"]


def test_a_replay_emits_nothing(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: no duplicate outbox rows on retries."""
    cart = add_cart()
    checkout_sql(db, cart)
    before = outbox(db)

    checkout_sql(db, cart)
    checkout_sql(db, cart, key="another")

    assert outbox(db) == before


def test_a_second_event_of_one_kind_for_an_anchor_cannot_be_written(db, add_cart, checkout_sql):
    """IDEMPOTENCY & EMISSION: the partial unique index holds against everyone."""
    checkout_sql(db, add_cart())

    with pytest.raises(psycopg.errors.UniqueViolation) as refused:
        db.execute(
            "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)"
            " select event_type, aggregate_type, aggregate_id, payload from outbox_events limit 1"
        )

    assert refused.value.diag.constraint_name == "idx_outbox_events_conversion"
