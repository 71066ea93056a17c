"""Outbox events and the schemas that they keep."""

import json
from datetime import datetime, timedelta
from pathlib import Path

from jsonschema import Draft202012Validator, FormatChecker

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
