"""Ids that follow from a cart's number, so that SQL, a pgbench script and Python name the same rows.

Each is a UUIDv7 (RFC 9562 5.7) as a service that makes carts in this order would have it: the number in place of the
time, then what the row is. So indexes grow at their right end, as docs/quotes.md advises. Two texts in hexadecimal make
one: it is the cheapest way that plain SQL has.
"""

from __future__ import annotations

from uuid import UUID

_MILLISECONDS = 0x0197_0000_0000
HIGH = (_MILLISECONDS << 16) + 0x7000

CART, BUYER, ANCHOR, PRODUCT = (f"8{kind}{0:014x}" for kind in "cbad")
CREATED, CONVERTED = (f"8e{number:014x}" for number in (1, 2))


def group(vendor: int) -> str:
    return f"86{vendor:07x}{0:07x}"


def item(vendor: int, line: int) -> str:
    return f"81{vendor:07x}{line:07x}"


def uuid(number: int, low: str) -> UUID:
    return UUID(f"0{HIGH + (number // 4096 << 16) + number % 4096:x}{low}")


def vendor(number: int) -> UUID:
    return uuid(number, f"8f{0:014x}")


def sql_high(number: str) -> str:
    """The first half of the ids of a row, as SQL text over a bigint."""
    return f"('0' || to_hex({HIGH} + ({number}) / 4096 * 65536 + ({number}) % 4096))"


def sql(number: str, low: str) -> str:
    return f"({sql_high(number)} || '{low}')::uuid"
