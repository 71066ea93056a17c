"""Orders over HTTP: who may see them, who may change them, and what a second call answers."""

from contextlib import asynccontextmanager
from functools import cache, partial
from typing import Annotated
from uuid import UUID, uuid4

import httpx
import jsonschema
import pytest
from fastapi import FastAPI, Header, Request
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from checks import values
from pycheckout.http import Party, order_router
from races import at_once
from web import NO_TLS, serving


def party(
    buyer: Annotated[UUID | None, Header()] = None, vendor: Annotated[UUID | None, Header()] = None
) -> Party | None:
    return Party(buyer_store_id=buyer, vendor_store_id=vendor) if buyer or vendor else None


async def the_pool(request: Request):
    return request.state.pool


@cache  # half of a second for pydantic
def host(**options):
    host = FastAPI()
    host.include_router(order_router(party=party, pool=the_pool, **options))
    return host


def routes(kind, dsn, **options):
    """A host with the routes; its pool closes when it ends."""
    opened = {"sync": ConnectionPool, "async": AsyncConnectionPool}[kind](dsn, min_size=1, max_size=5, open=False)

    @asynccontextmanager
    async def lifespan(host):
        if isinstance(opened, ConnectionPool):
            with opened:
                yield {"pool": opened}
        else:
            async with opened:
                yield {"pool": opened}

    host(**options).router.lifespan_context = lifespan
    return host(**options)


def client_of(url):
    return httpx.Client(base_url=url, timeout=30, verify=NO_TLS)


@pytest.fixture(params=["async", "sync"])
def kind(request):
    return request.param


@pytest.fixture
def client(kind, dsn):
    with serving(routes(kind, dsn)) as url, client_of(url) as client:
        yield client


@pytest.fixture
def order(db, add_cart, checkout):
    return checkout(db, add_cart(vendors=1, lines=2)).vendor_orders[0]


@pytest.fixture
def buyer(db, order):
    return {"buyer": str(values(db, "select buyer_store_id from vendor_orders")[0])}


@pytest.fixture
def vendor(order):
    return {"vendor": str(order.vendor_store_id)}


def refused(response, status, code):
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["Content-Type"] == "application/problem+json"
    return response.json()


def test_buyer_and_vendor_see_their_orders_and_nobody_else(client, order, buyer, vendor):
    for asks in (buyer, vendor):
        [listed] = client.get("/orders", headers=asks).json()["orders"]
        read = client.get(f"/orders/{order.order_id}", headers=asks).json()
        assert listed["order_id"] == read["order_id"] == str(order.order_id)
        assert len(read["items"]) == 2 == listed["line_count"]
    for asks in ({"buyer": str(uuid4())}, {"vendor": str(uuid4())}):
        assert client.get("/orders", headers=asks).json()["orders"] == []
        refused(client.get(f"/orders/{order.order_id}", headers=asks), 404, "order_not_found")
        cancel = client.post(f"/orders/{order.order_id}/cancel", headers=asks, json={"reason": "mine"})
        refused(cancel, 404, "order_not_found")
    refused(client.get("/orders"), 401, "unauthorized")
    refused(client.get("/orders", headers=buyer | vendor), 401, "unauthorized")


def test_lists_go_on_where_the_page_before_ended(client, db, add_cart, checkout, order, buyer):
    buyer_id = UUID(buyer["buyer"])
    for key in ("k2", "k3"):
        checkout(db, add_cart(vendors=1, lines=1, buyer_store_id=buyer_id), key=key)
    seen, after = [], None
    while True:
        page = client.get("/orders", headers=buyer, params={"max_rows": 1} | ({"after": after} if after else {})).json()
        seen += [each["order_id"] for each in page["orders"]]
        after = page["after"]
        if after is None:
            break
    assert len(seen) == len(set(seen)) == 3
    assert client.get("/orders", headers=buyer, params={"statuses": "canceled"}).json()["orders"] == []
    refused(client.get("/orders", headers=buyer, params={"max_rows": 1000}), 422, "invalid_request")
    refused(client.get("/orders", headers=buyer, params={"after": "x"}), 422, "invalid_request")
    told = refused(client.get("/orders", headers=buyer, params={"statuses": "eaten"}), 422, "invalid_request")
    assert [error["field"] for error in told["errors"]] == ["statuses"]


def test_orders_are_found_by_number_and_by_purchase_order(client, db, add_cart, checkout, order, buyer, vendor):
    cart = add_cart(vendors=1, lines=1, buyer_store_id=UUID(buyer["buyer"]))
    [other] = checkout(db, cart, key="k2", purchase_order="PO 4711/ä").vendor_orders

    def found(asks, **params):
        return [each["order_id"] for each in client.get("/orders", headers=asks, params=params).json()["orders"]]

    for asks in (buyer, vendor):
        assert found(asks, order_number=order.order_number) == [str(order.order_id)]
    assert found(buyer, purchase_order="PO 4711/ä") == [str(other.order_id)]
    assert found(buyer, purchase_order="PO 4711/ä", statuses="created_pending") == [str(other.order_id)]
    assert found(buyer, purchase_order="PO 4711/ä", order_number=order.order_number) == []
    assert found({"buyer": str(uuid4())}, order_number=order.order_number) == []
    assert found({"buyer": str(uuid4())}, purchase_order="PO 4711/ä") == []
    for name, value in (
        *(("order_number", number) for number in (0, -1, 2**63, "1e3", "", "x")),
        *(("purchase_order", text) for text in ("", "x" * 101, "a\0b")),
    ):
        refusal = refused(client.get("/orders", headers=buyer, params={name: value}), 422, "invalid_request")
        assert name in str(refusal)


def test_cancel_is_told_once_and_answered_again(client, db, order, buyer):
    path = f"/orders/{order.order_id}/cancel"
    first = client.post(path, headers=buyer, json={"reason": "ordered twice"}).json()
    again = client.post(path, headers=buyer, json={"reason": "ordered twice"}).json()

    assert (first["status"], first["total_cents"], first["replayed"]) == ("canceled", 0, False)
    assert again["replayed"] is True
    assert values(db, "select count(*) from outbox_events where event_type = 'vendor_order.canceled'") == [1]
    refused(client.post(path, headers=buyer, json={}), 422, "invalid_request")
    refused(client.post(path, headers=buyer, json={"reason": " "}), 422, "invalid_request")
    refused(client.post(path, headers=buyer, content="{"), 415, "unsupported_media_type")


def test_a_call_takes_no_longer_than_its_timeout(kind, dsn, connect, order, buyer, vendor):
    """Somebody holds the order: without the bound, these would wait until the client gives up."""
    holder = connect()
    holder.execute("select from vendor_orders for update")
    path, line = f"/orders/{order.order_id}", order.items[0].line_item_id
    with serving(routes(kind, dsn, timeout=0.5)) as url, client_of(url) as client:
        calls = (
            (buyer, f"{path}/cancel", {"reason": "ordered twice"}),
            (vendor, f"{path}/decide", None),
            (vendor, f"{path}/lines/{line}/fulfil", None),
            (vendor, f"{path}/lines/{line}/release", {"reason": "broken"}),
            (vendor, f"{path}/lines/{line}/return", {"reason": "broken", "qty": 1, "restock": True, "change_key": "k"}),
        )
        for answer in at_once(*(partial(client.post, call, headers=asks, json=body) for asks, call, body in calls)):
            refused(answer, 503, "unavailable")
            assert answer.headers["Retry-After"] == "5"

        holder.rollback()
        assert (
            client.post(f"{path}/cancel", headers=buyer, json={"reason": "ordered twice"}).json()["status"]
            == "canceled"
        )


def test_lines_are_their_vendors(client, order, buyer, vendor):
    line, other = (item.line_item_id for item in order.items)
    base = f"/orders/{order.order_id}/lines"

    refused(client.post(f"{base}/{line}/fulfil", headers=buyer), 403, "forbidden")
    refused(client.post(f"{base}/{line}/release", headers=buyer, json={"reason": "x"}), 403, "forbidden")
    refused(client.post(f"{base}/{uuid4()}/fulfil", headers=vendor), 404, "order_not_found")
    assert client.post(f"{base}/{line}/fulfil", headers=vendor).json()["status"] == "partially_fulfilled"
    assert client.post(f"{base}/{line}/fulfil", headers=vendor).json()["replayed"] is True
    released = client.post(f"{base}/{other}/release", headers=vendor, json={"reason": "broken"}).json()
    assert (released["status"], released["reason"]) == ("fulfilled", "broken")
    told = refused(
        client.post(f"/orders/{order.order_id}/cancel", headers=vendor, json={"reason": "late"}),
        409,
        "order_state_conflict",
    )
    assert told["context"]["status"] == "fulfilled" and "accepted" in told["context"]["allowed"]


def test_answers_are_what_the_document_says(client, order, buyer, vendor):
    document = client.get("/openapi.json").json()
    line = order.items[0].line_item_id
    made = [
        client.get("/orders", headers=buyer),
        client.get(f"/orders/{order.order_id}", headers=buyer),
        client.post(f"/orders/{order.order_id}/lines/{line}/release", headers=vendor, json={"reason": "broken"}),
        client.post(f"/orders/{order.order_id}/lines/{line}/fulfil", headers=vendor),
        client.post(f"/orders/{order.order_id}/cancel", headers=buyer, json={"reason": "late"}),
    ]
    paths = {path: operation for path, methods in document["paths"].items() for operation in methods.values()}
    for response in made:
        route = "/" + "/".join(
            ("{order_id}" if part == str(order.order_id) else "{line_id}" if part == str(line) else part)
            for part in response.request.url.path.strip("/").split("/")
        )
        told = paths[route]["responses"][str(response.status_code)]["content"]
        [content] = told.values()
        jsonschema.validate(response.json(), content["schema"] | {"components": document["components"]})


def test_units_are_whole_numbers_of_json(client, order, vendor, nothing_written):
    path, line = f"/orders/{order.order_id}", str(order.items[0].line_item_id)
    with nothing_written():
        for units in (True, "1", 1.0):
            more = {"qty": units, "change_key": "k"}
            for where, body, field in (
                (f"{path}/lines/{line}/fulfil", more, "qty"),
                (f"{path}/lines/{line}/release", more | {"reason": "broken"}, "qty"),
                (f"{path}/lines/{line}/return", more | {"reason": "wet", "restock": True}, "qty"),
                (
                    f"{path}/decide",
                    {"change_key": "k", "decisions": [{"line_item_id": line, "accept_qty": units, "reason": "gone"}]},
                    "decisions.0.accept_qty",
                ),
            ):
                told = refused(client.post(where, json=body, headers=vendor), 422, "invalid_request")
                assert [error["field"] for error in told["errors"]] == [field]


def test_more_units_than_there_are_are_told_beside_those(client, order, vendor):
    line = order.items[0]
    asked = {"qty": line.qty + 1, "change_key": "k"}
    fulfil = client.post(f"/orders/{order.order_id}/lines/{line.line_item_id}/fulfil", json=asked, headers=vendor)
    told = refused(fulfil, 409, "order_state_conflict")
    there = {"what": "order line", "id": str(line.line_item_id), "status": "pending"}
    assert told["context"] == there | {"asked": line.qty + 1, "units": line.qty}
    assert "has not as much" in told["detail"]


def test_parts_of_a_line_over_http(client, order, buyer, vendor):
    """Decided, shipped, turned down and taken back by quantity; the same request under its key is answered again."""
    path, line = f"/orders/{order.order_id}", order.items[0].line_item_id
    decided = {
        "decisions": [{"line_item_id": str(order.items[1].line_item_id), "accept_qty": 0, "reason": "gone"}],
        "change_key": "answer-1",
    }
    steps = [
        (f"{path}/decide", decided, "partially_accepted"),
        (f"{path}/lines/{line}/fulfil", {"qty": 1, "change_key": "k1", "details": {"carrier": "DHL"}}, "fulfilled"),
        (f"{path}/lines/{line}/return", {"reason": "wet", "restock": True, "change_key": "k2", "qty": 1}, "fulfilled"),
    ]
    for where, body, status in steps:
        refused(client.post(where, json=body, headers=buyer), 403, "forbidden")
        first = client.post(where, json=body, headers=vendor)
        assert (first.status_code, first.json()["status"], first.json()["replayed"]) == (200, status, False), first.text
        assert client.post(where, json=body, headers=vendor).json() == first.json() | {"replayed": True}
    assert first.json()["changes"][0]["restocked_qty"] == 1
    refused(client.post(steps[2][0], json=steps[2][1] | {"qty": 2}, headers=vendor), 422, "idempotency_key_reused")
    more = {"qty": 5, "change_key": "k3"}
    refused(client.post(f"{path}/lines/{line}/fulfil", json=more, headers=vendor), 409, "order_state_conflict")
    refused(client.post(f"{path}/lines/{line}/fulfil", json={"qty": 1}, headers=vendor), 422, "invalid_request")
    refused(client.post(steps[0][0], json=decided, headers={"vendor": str(uuid4())}), 404, "order_not_found")
