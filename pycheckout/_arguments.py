"""Values become text here. Only what cannot be sent at all is refused: whether one is right, the database decides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from decimal import Decimal
from functools import singledispatch
from typing import Any
from uuid import UUID

from ._errors import InvalidRequest
from ._types import ShippingLine

# What PostgreSQL takes for a uuid: any other text would never reach the function that says what is wrong.
_UUID = re.compile(r"[0-9a-f]{4}(-?[0-9a-f]{4}){7}|\{[0-9a-f]{4}(-?[0-9a-f]{4}){7}\}", re.IGNORECASE)


def uuid(name: str, value: object) -> str | None:
    if value is None:
        return None
    # Any class of UUID, not only the standard library's.
    try:
        text = value if isinstance(value, str) else str(value)
    except (ValueError, RecursionError) as exc:  # an int of 5,000 digits, a list of 1,000 levels
        raise invalid(name, "must be a UUID") from exc
    if not _UUID.fullmatch(text):
        raise invalid(name, "must be a UUID")
    return text


def text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise invalid(name, f"must be text, not {type(value).__name__}")
    try:
        sendable = b"\0" not in value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        sendable = False
    if not sendable:
        raise invalid(name, "holds a character that PostgreSQL cannot store")
    return str.__str__(value)  # a subclass may say anything


def integer(name: str, value: object) -> str | None:
    if value is None:
        return None
    # 2**63: what is beyond PostgreSQL's largest integer has too many digits to be repeated in an error.
    if isinstance(value, bool) or not isinstance(value, int) or not -(2**63) <= value < 2**63:
        raise invalid(name, "must be a whole number")
    return int.__repr__(value)


def boolean(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, bool):
        raise invalid(name, "must be true or false")
    return str(value).lower()


def instant(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, datetime) or value.utcoffset() is None:
        raise invalid(name, "must be a datetime with a time zone")
    return value.isoformat()


def duration(name: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, timedelta):
        raise invalid(name, f"must be a timedelta, not {type(value).__name__}")
    return f"{value.days} days {value.seconds} seconds {value.microseconds} microseconds"


_YEAR = 365 * 86400.0


def seconds(name: str, value: object) -> float | None:
    """How long something may take. What is more than a year has no end, and what is negative is over."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise invalid(name, "must be a number of seconds")
    return None if value > _YEAR else float(max(value, 0))


def uuids(name: str, values: object) -> str | None:
    """An array's literal."""
    return _array(name, values, uuid)


def texts(name: str, values: object) -> str | None:
    return _array(name, values, text)


def _array(name: str, values: object, one: Callable[[str, object], str | None]) -> str | None:
    if values is None:
        return None
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Iterable):
        raise invalid(name, f"must be a list, not {type(values).__name__}")
    found = [one(f"{name}[{place}]", value) for place, value in enumerate(values)]
    quoted = ["null" if value is None else '"' + re.sub(r'(["\\])', r"\\\1", value) + '"' for value in found]
    return "{" + ",".join(quoted) + "}"


def json_text(name: str, value: object) -> str | None:
    if value is None:
        return None
    try:
        return _encoder.encode(dict(value) if isinstance(value, Mapping) else value)
    except (TypeError, ValueError, AttributeError, ArithmeticError, RecursionError) as exc:
        raise invalid(name, f"cannot be written as JSON ({exc!s:.200})") from exc


def mapping(name: str, value: object) -> Mapping[Any, Any]:
    if not isinstance(value, Mapping):
        raise invalid(name, f"must be a mapping, not {type(value).__name__}")
    return value


@singledispatch
def json_value(value: object) -> object:
    """The JSON of what json itself does not know. A type of ours may register its own."""
    raise TypeError(f"{value!r:.80} has no JSON form")


json_value.register(UUID, str)
json_value.register(ShippingLine, asdict)


@json_value.register
def _(value: datetime) -> str:
    if value.utcoffset() is None:
        raise TypeError(f"{value!r:.80} has no time zone")
    return value.isoformat()


@json_value.register
def _(value: Decimal) -> int | float:
    # Not int() of whatever is whole: 1e1000000 would take half a minute.
    whole = abs(value) < 2**63 and value == value.to_integral_value()
    return int(value) if whole else float(value)


_encoder = json.JSONEncoder(allow_nan=False, default=json_value)


def invalid(field: str, problem: str) -> InvalidRequest:
    # As checkout_raise_invalid says it.
    return InvalidRequest(
        f"{field} {problem}",
        detail={"field": field, "problem": problem},
        hint="Correct the request and send it again.",
    )
