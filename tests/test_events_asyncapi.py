"""docs/events/asyncapi.yaml is a valid document, and what the relay publishes and the table holds is what it says."""

import asyncio
import json
import re

import pytest
from brokers import running
from events import ASYNCAPI, DOCS, messages, of_message
from jsonschema import ValidationError
from pydantic_asyncapi.v3 import AsyncAPI

from checks import rows, values
from pycheckout.relay import Relay

SCHEMAS = {
    file.name.removesuffix(".v1.schema.json"): json.loads(file.read_text(encoding="utf-8"))
    for file in DOCS.glob("*.schema.json")
}


def test_the_document_is_asyncapi_3():
    """The model passes over what it does not know, so what comes back must be all that went in."""
    parsed = AsyncAPI.model_validate(ASYNCAPI)

    assert parsed.model_dump(mode="json", by_alias=True, exclude_unset=True) == ASYNCAPI


def test_every_event_has_its_messages_and_every_message_its_schema():
    relayed, captured = messages("events"), messages("rows")

    assert relayed.pop(None) == "hostEvent"
    assert relayed.keys() == captured.keys() == SCHEMAS.keys()
    listed = [*relayed.values(), "hostEvent", *captured.values()]
    assert listed == [*ASYNCAPI["components"]["messages"]]


def test_the_schema_of_the_data_is_the_one_that_the_attribute_names():
    for name, schema in SCHEMAS.items():
        message = ASYNCAPI["components"]["messages"][messages("events")[name]]
        said = message["payload"]["allOf"][1]["properties"]
        version = schema["properties"]["version"]["const"]

        assert schema["$id"] == f"urn:pycheckout:envelope:{name}:v{version}"
        assert schema["properties"]["data"]["$id"] == said["dataschema"]["const"]
        assert said["dataschema"]["const"] == f"urn:pycheckout:event:{name}:v{version}"
        assert said["data"] == {"$ref": f"./{name}.v{version}.schema.json#/properties/data"}


@pytest.fixture
def published(dsn, db, add_cart, checkout_sql, emit):
    """One event of each type, and one of the host's, as a consumer gets them: from any broker, by test_relay."""
    answer = checkout_sql(db, add_cart(vendors=2, lines=3))
    items = answer["vendor_orders"][0]["items"]
    db.execute("select order_line_fulfil(%s)", (items[0]["line_item_id"],))
    db.execute("select order_line_return(%s, 'torn', 1, false, 'back-1')", (items[0]["line_item_id"],))
    db.execute("select order_line_release(%s, 'broken')", (items[1]["line_item_id"],))
    db.execute("select order_adjust(%s, -100, 'late', 'credit-1')", (answer["vendor_orders"][0]["order_id"],))
    db.execute("select vendor_order_decide(%s)", (answer["vendor_orders"][1]["order_id"],))
    db.execute("select vendor_order_cancel(%s, 'out of season')", (answer["vendor_orders"][1]["order_id"],))
    order = checkout_sql(db, add_cart(vendors=1), key="k2")["vendor_orders"][0]["order_id"]
    db.execute("update vendor_orders set expires_at = now() + interval '1 hour' where id = %s", (order,))
    db.execute("select vendor_order_extend(%s, now() + interval '2 hours')", (order,))
    db.execute("select payment_record(%s, 'acme', 'evt', 'failed', 0, 'USD')", (order,))
    db.execute("update vendor_orders set expires_at = now() where id = %s", (order,))
    db.execute("select vendor_orders_expire()")
    emit(answer["checkout_group_id"], {"note": "of the host"}, event_type="shop.noted")
    with running("redis") as broker:
        asyncio.run(Relay(dsn, broker.url, source="/shop").run(until_empty=True))
        return [json.loads(body) for body, _ in asyncio.run(broker.received("pycheckout"))]


def test_what_the_relay_publishes_is_what_the_document_says(published):
    expected = messages("events")

    assert {event["type"] for event in published} == SCHEMAS.keys() | {"shop.noted"}
    for event in published:
        validator = of_message(expected.get(event["type"], "hostEvent"))
        validator.validate(event)
        wrong = [{"specversion": "0.3"}, {"dataversion": "1"}, {"dataschema": 1}]
        if event["type"] in SCHEMAS:
            payload = {"version": 1, "event_id": event["id"], "type": event["type"], "data": event["data"]}
            wrong += [{"dataschema": f"urn:pycheckout:event:{event['type']}:v2"}, {"data": payload}]
        for change in wrong:
            with pytest.raises(ValidationError):
                validator.validate(event | change)
    [host] = [event for event in published if event["type"] == "shop.noted"]
    assert (host["data"], "dataschema" in host) == ({"note": "of the host"}, False)


def test_the_payloads_of_the_table_are_the_other_format(db, add_cart, checkout_sql):
    """Through pgoutput and the router's settings: test_outbox_wal."""
    checkout_sql(db, add_cart())

    for event in rows(db, "select event_type, payload from outbox_events"):
        of_message(messages("rows")[event["event_type"]]).validate(event["payload"])
        with pytest.raises(ValidationError):
            of_message(messages("rows")[event["event_type"]]).validate(event["payload"]["data"])
    assert values(db, "select count(*) from outbox_events") == [2]


FUNCTIONS = DOCS.parents[1] / "db" / "functions"
SOURCES = {file.stem: file.read_text(encoding="utf-8") for file in FUNCTIONS.rglob("*.sql")}
TYPE = r"'([a-z_]+\.[a-z_]+)'"


def emitted():
    """The types that functions write: in those that write events, each text that looks like one."""
    types = set()
    for text in SOURCES.values():
        code = re.sub(r"--[^\n]*|^comment on .*", "", text, flags=re.MULTILINE)
        if re.search(r"\b(order_change|\w+_emit_event)\(|insert into outbox_events", code):
            types |= set(re.findall(TYPE, code))
    # of order_line_end, whose callers say which
    assert "'order_line.' || v_kind" in SOURCES["order_line_end"]
    kinds = {kind for text in SOURCES.values() for kind in re.findall(r"order_line_end\(\s*[\w.]+, '(\w+)'", text)}
    return types | {f"order_line.{kind}" for kind in kinds}


def test_every_event_that_a_function_writes_has_its_schema():
    assert emitted() == SCHEMAS.keys()


def test_an_outbox_of_the_hosts_own_types_learns_every_event():
    migrations = (DOCS.parents[1] / "db" / "migrations").glob("pycheckout_*.sql")
    learnt = {name for file in migrations for name in re.findall(rf"'event_type', {TYPE}", file.read_text())}
    assert learnt == SCHEMAS.keys()


def test_the_audit_looks_at_every_event_of_a_checkout_or_an_order():
    audit = "".join(text for name, text in SOURCES.items() if name.startswith("checkout_audit"))
    assert set(re.findall(TYPE, audit)) >= SCHEMAS.keys() - {"payment.changed"}
