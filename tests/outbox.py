"""Events of the outbox: written as a host writes one for the relay, claimed and acknowledged as the relay does it."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg.types.json import Jsonb

from checks import rows, values


@pytest.fixture
def emit(db: psycopg.Connection) -> Callable[..., UUID]:
    """emit(aggregate_id): the id of one more event of that aggregate, due at once."""

    def emit(
        aggregate_id: UUID,
        payload: Mapping[str, Any] = {},
        *,
        event_type: str = "vendor_order.canceled",
        conn: psycopg.Connection = db,
    ) -> UUID:
        event_id = uuid4()
        conn.execute(
            """
            insert into outbox_events
                   (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
            select %s, %s, 'vendor_order', %s, %s, clock, clock from clock_timestamp() as clock
            """,
            (event_id, event_type, aggregate_id, Jsonb(dict(payload))),
        )
        return event_id

    return emit


def claim(conn: psycopg.Connection, batch: int = 100, lease: str = "30 seconds") -> list[dict[str, Any]]:
    return rows(conn, "select * from outbox_claim(%s, %s)", batch, lease)


def ids(events: list[dict[str, Any]]) -> list[UUID]:
    return [event["id"] for event in events]


def ack(conn: psycopg.Connection, events: list[dict[str, Any]]) -> int:
    return _of_their_claim(conn, "outbox_ack", events)


def release(conn: psycopg.Connection, events: list[dict[str, Any]]) -> int:
    return _of_their_claim(conn, "outbox_release", events)


def _of_their_claim(conn: psycopg.Connection, function: str, events: list[dict[str, Any]]) -> int:
    if not events:
        return 0
    [claim_id] = {event["claim_id"] for event in events}
    [count] = values(conn, f"select {function}(%s, %s::uuid[])", claim_id, ids(events))
    return int(count)


def extend(conn: psycopg.Connection, events: list[dict[str, Any]], lease: str = "30 seconds") -> int:
    [kept] = values(conn, "select outbox_extend(%s, %s)", events[0]["claim_id"], lease)
    return int(kept)


def fail(conn: psycopg.Connection, event: dict[str, Any], error: str = "no route", *, max_attempts: int = 12) -> Any:
    """The broker refuses this event of a claim."""
    query = "select outbox_fail(%s, %s, %s, %s)"
    [answer] = values(conn, query, event["claim_id"], event["id"], error, max_attempts)
    return answer


def publish_all(conn: psycopg.Connection) -> list[dict[str, Any]]:
    """Every event that is due, as it was claimed, in order; all are acknowledged."""
    sent = []
    while events := claim(conn):
        ack(conn, events)
        sent += events
    return sent


def make_due(conn: psycopg.Connection) -> None:
    """End every back-off."""
    conn.execute("update outbox_events set next_attempt_at = created_at where next_attempt_at < 'infinity'")


def end_leases(conn: psycopg.Connection) -> None:
    """Every lease has ended a while ago."""
    conn.execute("update outbox_events set claimed_until = '2020-01-01' where claimed_until is not null")
