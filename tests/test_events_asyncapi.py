"""docs/events/asyncapi.yaml is a valid document, and what the relay publishes is what it says."""

import json

import pytest
import yaml
from events import DOCS, FORMATS
from jsonschema import Draft202012Validator, ValidationError
from pydantic_asyncapi.v3 import AsyncAPI
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from checks import rows
from pycheckout._brokers import Event

DOCUMENT = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))
MESSAGES = {message["name"]: message for message in DOCUMENT["components"]["messages"].values()}


def load(uri):
    """The document, and the schemas beside it that it refers to."""
    name = uri.removeprefix("file:///")
    return Resource(
        DOCUMENT if name == "asyncapi.yaml" else json.loads((DOCS / name).read_text(encoding="utf-8")), DRAFT202012
    )


def validator(message):
    # AsyncAPI's own kind of schema is a superset of JSON Schema; what is used here means the same in each draft.
    [key] = [key for key, each in DOCUMENT["components"]["messages"].items() if each is message]
    schema = {"$ref": f"file:///asyncapi.yaml#/components/messages/{key}/payload"}
    return Draft202012Validator(schema, registry=Registry(retrieve=load), format_checker=FORMATS)


def test_the_document_is_asyncapi_3():
    """The model passes over what it does not know, so what comes back must be all that went in."""
    parsed = AsyncAPI.model_validate(DOCUMENT)

    assert parsed.model_dump(mode="json", by_alias=True, exclude_unset=True) == DOCUMENT


def test_every_event_has_its_message_and_every_message_its_schema():
    schemas = {file.name.removesuffix(".v1.schema.json") for file in DOCS.glob("*.schema.json")}

    assert set(MESSAGES) == schemas
    listed = [each["$ref"] for each in DOCUMENT["channels"]["events"]["messages"].values()]
    assert listed == [f"#/components/messages/{key}" for key in DOCUMENT["components"]["messages"]]


def test_what_the_relay_publishes_is_what_the_document_says(db, add_cart, checkout_sql):
    answer = checkout_sql(db, add_cart(vendors=2, lines=3))
    items = answer["vendor_orders"][0]["items"]
    db.execute("select order_line_fulfil(%s)", (items[0]["line_item_id"],))
    db.execute("select order_line_release(%s, 'broken')", (items[1]["line_item_id"],))
    db.execute("select vendor_order_cancel(%s, 'out of season')", (answer["vendor_orders"][1]["order_id"],))
    query = """
        select id, event_type, aggregate_type, aggregate_id, payload::text,
               (to_json(created_at at time zone 'utc') #>> '{}') || 'Z' as created_at, attempt_count,
               gen_random_uuid() as claim_id
          from outbox_events
    """
    events = [json.loads(Event(**row).cloud_event("/shop")) for row in rows(db, query)]

    assert {event["type"] for event in events} == set(MESSAGES)
    for event in events:
        validator(MESSAGES[event["type"]]).validate(event)
        for change in ({"specversion": "0.3"}, {"data": event["data"] | {"version": 2}}, {"extra": 1}):
            with pytest.raises(ValidationError):
                validator(MESSAGES[event["type"]]).validate(event | change)
