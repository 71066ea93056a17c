"""Outbox events and the schemas that they keep."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from checks import values

DOCS = Path(__file__).parents[1] / "docs" / "events"
# jsonschema checks formats that it has a checker for, and passes the others over.
FORMATS = FormatChecker(formats=["uuid"])


@FORMATS.checks("date-time", raises=ValueError)
def is_utc_instant(value):
    return not isinstance(value, str) or datetime.fromisoformat(value).utcoffset() == timedelta(0)


def validate(payload):
    """The payload, valid by the schema of its type and version."""
    schema = json.loads((DOCS / f"{payload['type']}.v{payload['version']}.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator(schema, format_checker=FORMATS).validate(payload)
    return payload


def changes(conn):
    """Type and data of the events that are not of a conversion, valid by their schemas, oldest first."""
    query = "select payload from outbox_events where event_type::text not like 'checkout.%%' order by created_at, id"
    return [(validate(payload)["type"], payload["data"]) for payload in values(conn, query)]


ASYNCAPI = yaml.safe_load((DOCS / "asyncapi.yaml").read_text(encoding="utf-8"))


def _load(uri):
    """The document, and the schemas beside it that it refers to."""
    name = uri.removeprefix("file:///")
    return Resource(
        ASYNCAPI if name == "asyncapi.yaml" else json.loads((DOCS / name).read_text(encoding="utf-8")), DRAFT202012
    )


def of_message(key, part="payload"):
    """What judges the payload, or the headers, of a message of docs/events/asyncapi.yaml."""
    # AsyncAPI's own kind of schema is a superset of JSON Schema; what is used here means the same in each draft.
    schema = {"$ref": f"file:///asyncapi.yaml#/components/messages/{key}/{part}"}
    return Draft202012Validator(schema, registry=Registry(retrieve=_load), format_checker=FORMATS)


def messages(channel):
    """The messages of a channel of that document: the key of each, by the name that it has, or None."""
    refs = [each["$ref"] for each in ASYNCAPI["channels"][channel]["messages"].values()]
    keys = [ref.removeprefix("#/components/messages/") for ref in refs]
    return {ASYNCAPI["components"]["messages"][key].get("name"): key for key in keys}
