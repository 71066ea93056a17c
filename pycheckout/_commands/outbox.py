"""`pycheckout outbox ...`"""

from __future__ import annotations

from typing import Annotated

import typer

from .._checkout import OutboxCalls
from ._app import WATCH, command_group
from ._options import Batch, OlderThan, Reason
from ._statements import Statement, calls

outbox = command_group("outbox", WATCH, "Events that wait to be published, or could not be.")

EventId = Annotated[str, typer.Argument(metavar="EVENT", help="The id of an event.")]


@calls(outbox, "backlog", grant="checkout_grant_operators", everywhere=True)
def _outbox_backlog() -> Statement:
    """Show what is not published yet, by type and number of attempts, what waits longest first."""
    return OutboxCalls.backlog.statement()


@calls(outbox, "dead", everywhere=True)
def _outbox_dead(
    max_rows: Annotated[int, typer.Option(metavar="N", min=1, help="How many at most, the oldest first.")] = 100,
) -> Statement:
    """Show the events that are parked, and the error of each. The younger ones of their aggregates wait."""
    return OutboxCalls.dead_letters.statement(max_rows)


@calls(outbox, "replay", grant="checkout_grant_relay", said="event {event_id} was {was}, and is due now", field="was")
def _outbox_replay(event_id: EventId) -> Statement:
    """Make an event due now, parked or not."""
    return OutboxCalls.replay.statement(event_id)


@calls(outbox, "discard", grant="checkout_grant_relay", said="event {event_id} was {was}, and is given up", field="was")
def _outbox_discard(event_id: EventId, reason: Reason) -> Statement:
    """Give an event up for good, and let the younger ones of its aggregate go on."""
    return OutboxCalls.discard.statement(event_id, reason=reason)


@calls(outbox, "purge", grant="checkout_grant_relay", said="{deleted} events deleted", batches=True, everywhere=True)
def _outbox_purge(older_than: OlderThan, batch: Batch = 10_000) -> Statement:
    """Delete events that were published long ago."""
    return "select json_build_object('deleted', outbox_purge(%s::interval, %s::integer))", (older_than, batch)
