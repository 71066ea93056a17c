"""Publish the outbox to a message broker, at least once and in order within an aggregate. Needs the extra `relay`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import class_row

from ._brokers import TIMEOUT, Event, Publish, check_broker, connected
from ._errors import Busy, Unavailable, error_from

if TYPE_CHECKING:
    from faststream.security import BaseSecurity

__all__ = ["Relay"]

logger = logging.getLogger("pycheckout.relay")

_CLAIM = """
select id, event_type, aggregate_type, aggregate_id, payload::text as payload,
       (to_json(created_at at time zone 'utc') #>> '{{}}') || 'Z' as created_at, attempt_count
  from {schema}outbox_claim(%s)
"""
_ACK = "select {schema}outbox_ack(%s)"
_FAIL = "select {schema}outbox_fail(%s, %s, %s)"

_LONGEST_PAUSE = 30.0  # seconds between attempts to reach a broker or a database that is away


class _BrokerGone(Exception):
    """No connection to the broker can be made, or it does not confirm; no event is to blame."""


@dataclass(slots=True)
class _Outcome:
    """What became of a batch. Events that are in neither list stay due."""

    confirmed: list[UUID] = field(default_factory=list)
    failed: list[tuple[Event, str]] = field(default_factory=list)
    gone: _BrokerGone | None = None


class Relay:
    """Publishes events of one database to one broker; run as many as you like, they share the work.

    `database` is a libpq URL or DSN, of a role that `checkout_grant_relay` was called for. `broker` is a URL:
    `amqp://` or `amqps://` (RabbitMQ), `nats://` or `tls://` (NATS JetStream), `redis://` or `rediss://` (Redis
    Streams), `kafka://host:port,host:port`; `security`, from `faststream.security`, is what a URL cannot say: SASL and
    TLS of Kafka, certificates of your own. `destination` names the exchange, JetStream stream, Redis stream or topic;
    `source` is the CloudEvents attribute of that name. `batch` events are claimed at once; `poll_seconds` pass before
    the next look at an outbox that had nothing due. An event that failed `max_attempts` times is parked.

    An event is marked as published in the transaction that claimed it, after the broker confirmed it. A relay that dies
    in between leaves it to be sent again, under the same id.

    Raises ValueError for a URL of no broker that is known, and ModuleNotFoundError where its client is not installed.
    """

    def __init__(
        self,
        database: str,
        broker: str,
        *,
        security: BaseSecurity | None = None,
        schema: str | None = None,
        destination: str = "pycheckout",
        source: str = "pycheckout",
        batch: int = 100,
        poll_seconds: float = 1.0,
        max_attempts: int = 12,
    ) -> None:
        check_broker(broker)
        self._database = database
        self._broker = broker
        self._security = security
        self._destination = destination
        self._source = source
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._max_attempts = max_attempts
        prefix = sql.SQL("{}.").format(sql.Identifier(schema)) if schema is not None else sql.SQL("")
        self._claim, self._ack, self._fail = (sql.SQL(text).format(schema=prefix) for text in (_CLAIM, _ACK, _FAIL))
        self._published = 0
        self._stopping = asyncio.Event()
        self._publish: Publish
        self._link = AsyncExitStack()

    def stop(self) -> None:
        """Let `run` return once the batch under way is done. To be called in the thread of its event loop."""
        self._stopping.set()

    async def run(self, *, until_empty: bool = False) -> int:
        """Publish until `stop()` is called, or until nothing is due; return how many events the broker took.

        Without `until_empty` it looks again every `poll_seconds`. A broker or a database that is away is waited for,
        up to 30 seconds between attempts. Raises a `CheckoutError` where waiting would not help: the functions are
        missing, or the role may not call them; what else psycopg raises comes as it is. A relay that was stopped does
        not run again.
        """
        pause = 1.0
        while not self._stopping.is_set():
            try:
                async with self._connected() as conn:
                    while not self._stopping.is_set():
                        claimed = await self._round(conn)
                        pause = 1.0
                        if not claimed and until_empty:
                            return self._published
                        if not claimed:
                            await self._sleep(self._poll_seconds)
            except _BrokerGone as exc:
                logger.warning("the broker cannot be reached, next try in %.0f s: %s", pause, exc)
            except psycopg.Error as exc:
                error = error_from(exc)
                if error is None:
                    raise
                if not isinstance(error, Busy | Unavailable):
                    raise error from exc
                logger.warning("the database cannot be reached, next try in %.0f s: %s", pause, type(error).__name__)
            else:
                continue
            await self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return self._published

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        async with (
            # Behind a transaction pooler a prepared statement may be missing on the next backend.
            await psycopg.AsyncConnection.connect(
                self._database, prepare_threshold=None, application_name="pycheckout relay"
            ) as conn,
            self._link,
        ):
            await conn.set_isolation_level(psycopg.IsolationLevel.READ_COMMITTED)
            await self._reconnect()
            yield conn

    async def _reconnect(self) -> None:
        await self._link.aclose()
        try:
            self._publish = await self._link.enter_async_context(
                connected(self._broker, self._destination, self._security)
            )
        except Exception as exc:
            raise _BrokerGone(_described(exc)) from exc

    async def _round(self, conn: psycopg.AsyncConnection[Any]) -> int:
        """Claim a batch, publish it, and mark what became of it; how many were claimed."""
        async with conn.transaction(), conn.cursor(row_factory=class_row(Event)) as cur:
            await cur.execute(self._claim, (self._batch,))
            events = await cur.fetchall()
            outcome = await self._publish_all(events)
            if outcome.confirmed:
                await cur.execute(self._ack, (outcome.confirmed,))
            for event, error in outcome.failed:
                await cur.execute(self._fail, (event.id, error, self._max_attempts))

        self._published += len(outcome.confirmed)
        if outcome.confirmed:
            logger.info("%d events published", len(outcome.confirmed))
        for event, error in outcome.failed:
            attempt = event.attempt_count + 1
            logger.warning("event %s of type %s failed, attempt %d: %s", event.id, event.event_type, attempt, error)
        if outcome.gone is not None:
            raise outcome.gone
        return len(events)

    async def _publish_all(self, events: Sequence[Event]) -> _Outcome:
        """Publish events, all at once, since each is of another aggregate.

        What fails is tried again alone, over a new connection: a refused event may have closed the connection under the
        others, and a broker that is away refuses none. So an event fails only by itself.
        """
        outcome = _Outcome()
        answers = await asyncio.gather(*map(self._publish_one, events), return_exceptions=True)
        doubtful = []
        for event, answer in zip(events, answers, strict=True):
            if answer is None:
                outcome.confirmed.append(event.id)
            elif isinstance(answer, Exception):
                doubtful.append(event)
            else:
                raise answer
        try:
            for event in doubtful:
                if self._stopping.is_set():
                    break
                await self._reconnect()
                try:
                    await self._publish_one(event)
                except TimeoutError:
                    raise _BrokerGone("it does not confirm") from None
                except Exception as exc:
                    outcome.failed.append((event, _described(exc)))
                else:
                    outcome.confirmed.append(event.id)
            if outcome.failed:
                await self._reconnect()
        except _BrokerGone as exc:
            outcome.gone = exc
        return outcome

    async def _publish_one(self, event: Event) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self._publish(event, event.cloud_event(self._source))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the relay is to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


def _described(exc: BaseException) -> str:
    """What went wrong, in a line."""
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
