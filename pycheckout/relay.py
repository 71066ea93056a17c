"""Publish the outbox to a message broker, at least once and in order within an aggregate. Needs the extra `relay`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.rows import class_row, scalar_row

from . import _conninfo
from ._brokers import TIMEOUT, Blame, Event, Publish, blame, check_broker, connected
from ._connection import cut
from ._errors import Busy, InvalidRequest, Unavailable, translated

if TYPE_CHECKING:
    from faststream.security import BaseSecurity

__all__ = ["Relay"]

logger = logging.getLogger("pycheckout.relay")

T = TypeVar("T")

# An envelope has these five members and no other, and two of them are the row's own: a payload of a host that only
# looks like one loses nothing. (One CASE in another, since something can be subtracted from an object alone.)
_CLAIM = """
select event.id, event.event_type, event.aggregate_type, event.aggregate_id,
       case when envelope.version is null then event.payload else event.payload -> 'data' end::text as data,
       envelope.version, (to_json(event.created_at at time zone 'utc') #>> '{{}}') || 'Z' as created_at,
       event.attempt_count, event.claim_id
  from {schema}outbox_claim(%s, make_interval(secs => %s)) as event
 cross join lateral (
         select case when jsonb_typeof(event.payload) = 'object' then
                  case when event.payload ?& '{{version,event_id,occurred_at,type,data}}'
                            and event.payload - '{{version,event_id,occurred_at,type,data}}'::text[] = '{{}}'
                            and event.payload @> jsonb_build_object('event_id', event.id, 'type', event.event_type)
                            and jsonb_typeof(event.payload -> 'version') = 'number'
                       then event.payload ->> 'version' end end
       ) as envelope (version)
"""
_EXTEND = "select {schema}outbox_extend(%s, make_interval(secs => %s))"
_ACK = "select {schema}outbox_ack(%s, %s)"
_FAIL = "select {schema}outbox_fail(%s, %s, %s, %s)"
_RELEASE = "select {schema}outbox_release(%s, %s)"

_LONGEST_PAUSE = 30.0  # seconds between attempts to reach a broker or a database that is away
_STATEMENT = 15.0  # seconds for the database to answer
# How soon a relay that was told to stop lets go of what is still being sent, and then of everything.
_GRACE = 3.0
_LAST = 6.0
_ALIVE = 30.0  # seconds without a turn of the event loop, after which it counts as hanging

# What the URL says goes before.
_CONNECTION = _conninfo.KEEPALIVE | {"application_name": "pycheckout relay"}


class _BrokerGone(Exception):
    """The broker takes nothing, or no connection to it can be made; no event is to blame."""

    def __init__(self, reason: str, state: str = "cannot be reached") -> None:
        super().__init__(reason)
        self.state = state


@dataclass(slots=True)
class _Claim:
    """What was claimed at once, and what became of it. `ends` is by this machine's monotonic clock, and never late."""

    events: Sequence[Event]
    lease: float
    ends: float
    confirmed: list[Event] = field(default_factory=list)
    failed: list[tuple[Event, str]] = field(default_factory=list)
    doubtful: list[tuple[Event, float, Exception]] = field(default_factory=list)
    gone: _BrokerGone | None = None
    lost: bool = False
    marked: set[UUID] = field(default_factory=set)
    # When the sending began of whatever was confirmed last.
    latest: float = 0.0

    @property
    def id(self) -> UUID:
        return self.events[0].claim_id

    def runs(self) -> Iterator[list[Event]]:
        """The events of each aggregate, in order: claimed as neighbours."""
        for _, run in groupby(self.events, lambda event: event.aggregate_id):
            yield list(run)

    def may_send(self) -> bool:
        return not self.lost and self.gone is None and self.ends - time.monotonic() >= self.lease / 3


@dataclass(slots=True)
class Counts:
    """What a relay did since it began, and how it stands. Times are in seconds."""

    published: int = 0
    """Events that the broker took and that were marked."""
    failed: int = 0
    """Attempts that the broker refused."""
    interrupted: int = 0
    """How often the broker or the database was lost, or could not be reached."""
    batches: int = 0
    """Claims that had events."""
    batch_seconds: float = 0.0
    """What they took together, from the claim to the last mark."""
    lag_seconds: float = 0.0
    """From the writing of what was published last to its confirmation, by two clocks; 0 once nothing is due."""
    polled_at: float = 0.0
    """Unix time of the last look at the outbox that went well; 0: none yet."""
    ready: bool = False
    """Whether the last look at the outbox went well: database and broker are there."""


class Relay:
    """Publishes events of one database to one broker; run as many as you like, they share the work.

    `database` is a libpq URL or DSN, or SQLAlchemy's URL, of a role that `checkout_grant_relay` was called for.
    `broker` is a URL: `amqp://` or `amqps://` (RabbitMQ), `nats://` or `tls://` (NATS JetStream), `redis://` or
    `rediss://` (Redis Streams), `kafka://host:port,host:port`; `security`, from `faststream.security`, is what a URL
    cannot say: SASL and TLS of Kafka, certificates of your own. `destination` names the exchange, JetStream stream,
    Redis stream or topic; `source` is the CloudEvents attribute of that name. `batch` events are claimed at once, for
    `lease_seconds`, which are prolonged while they are sent; `poll_seconds` pass before the next look at an outbox that
    had nothing due. An event that the broker refused `max_attempts` times is parked.

    No transaction is open while the broker is asked, and an event is marked as published after the broker confirmed it.
    What a relay that dies had claimed is sent again once its lease has ended, under the same ids.

    Raises ValueError for a URL of no broker that is known and for a database that libpq cannot read, and
    ModuleNotFoundError where the broker's client is not installed.
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
        lease_seconds: float = 30.0,
        poll_seconds: float = 1.0,
        max_attempts: int = 12,
    ) -> None:
        check_broker(broker)
        try:
            self._database: dict[str, Any] = _CONNECTION | _conninfo.own(database)
        except psycopg.ProgrammingError:  # whose text repeats the password
            raise ValueError("the database is no libpq URL (postgresql://...) or DSN") from None
        self._name = _conninfo.named(self._database) + ("" if schema is None else f', schema "{schema}"')
        self._broker = broker
        self._security = security
        self._destination = destination
        self._source = source
        self._batch = batch
        self._lease = lease_seconds
        self._poll_seconds = poll_seconds
        self._max_attempts = max_attempts
        prefix = sql.SQL("{}.").format(sql.Identifier(schema)) if schema is not None else sql.SQL("")
        self._claim, self._extend, self._ack, self._fail, self._release = (
            sql.SQL(text).format(schema=prefix) for text in (_CLAIM, _EXTEND, _ACK, _FAIL, _RELEASE)
        )
        self.counts = Counts()
        """What it did so far; to be read from any thread."""
        self._beat = time.monotonic()
        self._drained = False
        self._was_connected = False
        self._progressed = 0.0
        self._trouble = ""
        self._stopping = asyncio.Event()
        self._publish: Publish
        self._link = AsyncExitStack()

    @property
    def drained(self) -> bool:
        """Whether `run(until_empty=True)` ended because nothing was due any more."""
        return self._drained

    @property
    def alive(self) -> bool:
        """Whether its event loop still turns, whatever the database and the broker do. To be read from any thread."""
        return time.monotonic() - self._beat < _ALIVE

    def stop(self) -> None:
        """Let `run` return within ten seconds. To be called in the thread of its event loop.

        What is being sent is ended and marked; what hangs is left, and comes back when its lease ends.
        """
        self._stopping.set()

    async def run(self, *, until_empty: bool = False, timeout: float = 60.0) -> int:
        """Publish until `stop()` is called, or until nothing is due; return how many events the broker took.

        Without `until_empty` it looks again every `poll_seconds`, and a broker or a database that is away is waited
        for, up to 30 seconds between attempts. With it, nothing is waited for longer than `timeout` seconds without
        an event that was published: then it raises Unavailable. So it does at once where the database will have no
        session with it (no such database, role or host, or a wrong password). Another `CheckoutError` is raised where
        waiting would not help either: the functions are missing, or the role may not call them; what else psycopg
        raises comes as it is. A relay that was stopped does not run again.
        """
        self._progressed = time.monotonic()
        work = asyncio.ensure_future(self._work(until_empty))
        others: list[asyncio.Task[Any]] = [asyncio.create_task(self._stopping.wait())]
        beating = asyncio.create_task(self._keep_beating())
        if until_empty:
            others.append(asyncio.create_task(self._without_progress(timeout)))
        try:
            await asyncio.wait([work, *others], return_when=asyncio.FIRST_COMPLETED)
            gave_up = not work.done() and not self._stopping.is_set()
            self._stopping.set()
            await asyncio.wait([work], timeout=_LAST)
        finally:
            self.counts.ready = False
            for each in [work, beating, *others]:
                each.cancel()
            await asyncio.wait([work], timeout=_GRACE)
        if work.done() and not work.cancelled():
            work.result()
        else:
            logger.warning(
                "stopped in the middle of something that hangs: what was claimed comes back when its lease ends"
            )
        if gave_up and not self._drained:
            raise Unavailable(f"nothing was published for {timeout:.0f} s: {self._trouble or 'no answer'}")
        return self.counts.published

    async def _keep_beating(self) -> None:
        while True:
            self._beat = time.monotonic()
            await asyncio.sleep(1.0)

    async def _without_progress(self, timeout: float) -> None:
        """Return once nothing was published for that long."""
        while (left := self._progressed + timeout - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _work(self, until_empty: bool) -> None:
        pause = 1.0
        while not self._stopping.is_set():
            try:
                async with self._connected() as conn:
                    while not self._stopping.is_set():
                        claimed = await self._round(conn)
                        self.counts.ready, self.counts.polled_at = True, time.time()
                        pause = 1.0
                        if not claimed and until_empty:
                            self._drained = True
                            return
                        if not claimed:
                            self.counts.lag_seconds = 0.0
                            await self._sleep(self._poll_seconds)
            except _BrokerGone as exc:
                self._trouble = f"the broker {exc.state}: {exc}"
            except psycopg.Error as exc:
                self._trouble = self._waits_for(exc)
            else:
                continue
            self.counts.ready = False
            self.counts.interrupted += 1
            logger.warning("%s; next try in %.0f s", self._trouble, pause)
            await self._sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    def _waits_for(self, exc: psycopg.Error) -> str:
        """What is wrong with the database, if waiting may mend it; raises what it is otherwise."""
        error = translated(exc)
        if error is None:
            raise exc
        if not isinstance(error, Busy | Unavailable):
            raise error from exc
        # Its message alone: a DETAIL may quote a row.
        state = "cannot be reached" if exc.sqlstate is None else "cannot go on"
        trouble = f"{self._name} {state}: {' '.join(error.message.split())}"
        # A host that it has once found is away: the server of names may be.
        if _conninfo.refused(exc) or (_conninfo.unknown_host(exc) and not self._was_connected):
            raise Unavailable(trouble) from exc
        return trouble

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """A session of the database, in which each statement is its own transaction, and a link to the broker."""
        conn = await psycopg.AsyncConnection.connect(
            # Behind a transaction pooler a prepared statement may be missing on the next backend.
            **self._database,
            autocommit=True,
            prepare_threshold=None,
        )
        self._was_connected = True
        try:
            async with self._link:
                await self._reconnect()
                yield conn
        finally:
            await conn.close()

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
        began = time.monotonic()
        async with conn.cursor(row_factory=class_row(Event)) as cur:
            await _answer(conn, cur.execute(self._claim, (self._batch, self._lease)))
            events = await cur.fetchall()
        if not events:
            return 0
        claim = _Claim(events, self._lease, began + self._lease)
        sending = asyncio.ensure_future(self._send(claim))
        try:
            while not sending.done():
                is_last = self._stopping.is_set()
                await asyncio.wait([sending], timeout=_GRACE if is_last else min(self._lease / 6, 1.0))
                if is_last:
                    break
                if not self._stopping.is_set():
                    await self._keep(conn, claim)
        finally:
            sending.cancel()
            await asyncio.wait([sending], timeout=1.0)
        if sending.done() and not sending.cancelled():
            sending.result()
        await self._mark(conn, claim)
        self.counts.batches += 1
        self.counts.batch_seconds += time.monotonic() - began
        if claim.gone is not None:
            raise claim.gone
        return len(events)

    async def _keep(self, conn: psycopg.AsyncConnection[Any], claim: _Claim) -> None:
        """Mark what was confirmed meanwhile, and prolong the lease of the rest before a third of it is gone."""
        await self._acknowledge(conn, claim)
        before = time.monotonic()
        left = len(claim.events) - len(claim.marked)
        if left and claim.ends - before < claim.lease * 2 / 3:
            kept = await self._call(conn, self._extend, (claim.id, claim.lease))
            if kept < left:  # which ones, it does not say
                logger.warning("others have %d of the claimed events, so nothing more is sent", left - kept)
                claim.lost = True
            else:
                claim.ends = before + claim.lease

    async def _acknowledge(self, conn: psycopg.AsyncConnection[Any], claim: _Claim) -> None:
        confirmed = [event.id for event in claim.confirmed if event.id not in claim.marked]
        if not confirmed:
            return
        acked = await self._call(conn, self._ack, (claim.id, confirmed))
        claim.marked |= set(confirmed)
        self.counts.published += len(confirmed)
        with suppress(ValueError):  # a host's event may be written at infinity
            written = datetime.fromisoformat(claim.confirmed[-1].created_at)
            self.counts.lag_seconds = max((datetime.now(UTC) - written).total_seconds(), 0.0)
        self._progressed, self._trouble = time.monotonic(), ""
        logger.info("%d events published", len(confirmed))
        if acked < len(confirmed):
            logger.warning("%d events had another claim when they were confirmed", len(confirmed) - acked)

    async def _mark(self, conn: psycopg.AsyncConnection[Any], claim: _Claim) -> None:
        """Mark what became of each event. What was neither confirmed nor refused goes back without an attempt."""
        await self._acknowledge(conn, claim)
        for event, error in claim.failed:
            attempt = event.attempt_count + 1
            logger.warning("event %s of type %s failed, attempt %d: %s", event.id, event.event_type, attempt, error)
            try:
                await self._call(conn, self._fail, (claim.id, event.id, error, self._max_attempts))
            except psycopg.Error as exc:
                if not isinstance(translated(exc), InvalidRequest):
                    raise
                logger.warning("event %s had another claim when it was refused", event.id)
            claim.marked.add(event.id)
            self.counts.failed += 1
        rest = [event.id for event in claim.events if event.id not in claim.marked]
        if rest:
            await self._call(conn, self._release, (claim.id, rest))

    async def _call(self, conn: psycopg.AsyncConnection[Any], query: sql.Composed, params: Sequence[Any]) -> Any:
        async with conn.cursor(row_factory=scalar_row) as cur:
            await _answer(conn, cur.execute(query, params))
            return await cur.fetchone()

    async def _send(self, claim: _Claim) -> None:
        """Send the runs of a claim at once, each one event after the other, and then look at what failed."""
        await asyncio.gather(*(self._send_run(claim, run) for run in claim.runs()))
        try:
            await self._settle(claim)
        except _BrokerGone as exc:
            claim.gone = exc

    async def _send_run(self, claim: _Claim, run: Sequence[Event]) -> None:
        for event in run:
            if self._stopping.is_set() or not claim.may_send():
                return
            began = time.monotonic()
            try:
                await self._publish_one(event)
            except Exception as exc:
                if blame(exc) is Blame.BROKER:
                    claim.gone = _BrokerGone(_described(exc), "takes nothing")
                else:
                    claim.doubtful.append((event, began, exc))
                return
            claim.confirmed.append(event)
            claim.latest = max(claim.latest, began)

    async def _settle(self, claim: _Claim) -> None:
        """Find out who is to blame for what failed: each event is sent once more, alone, over a new connection.

        A refused event may have closed the connection under the others, and a broker that is away refuses none.
        """
        unclear: list[tuple[Event, str]] = []
        fresh = False
        for event, began, first in claim.doubtful:
            if self._stopping.is_set() or not claim.may_send():
                return
            if not fresh:
                await self._reconnect()
            fresh = False
            try:
                await self._publish_one(event)
            except TimeoutError:
                # The broker is slow, or full; unless it took others meanwhile, twice.
                if not (isinstance(first, TimeoutError) and claim.latest > began):
                    raise _BrokerGone(f"no answer within {TIMEOUT:.0f} s", "does not confirm") from None
                claim.failed.append((event, f"no answer within {TIMEOUT:.0f} s, while others were confirmed"))
            except Exception as exc:
                match blame(exc):
                    case Blame.BROKER:
                        raise _BrokerGone(_described(exc), "takes nothing") from exc
                    case Blame.EVENT:
                        claim.failed.append((event, _described(exc)))
                    case Blame.UNKNOWN:
                        unclear.append((event, _described(exc)))
            else:
                claim.confirmed.append(event)
                claim.latest = max(claim.latest, time.monotonic())
                fresh = True
        if (unclear or claim.failed) and not fresh:
            await self._reconnect()  # which says whether the broker is there at all
        if len(unclear) > 1 and not claim.confirmed:
            raise _BrokerGone(unclear[0][1], "refuses everything")
        claim.failed += unclear

    async def _publish_one(self, event: Event) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self._publish(event, event.cloud_event(self._source))

    async def _sleep(self, seconds: float) -> None:
        """Sleep, unless the relay is to stop."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)


async def _answer(conn: psycopg.AsyncConnection[Any], call: Coroutine[Any, Any, T]) -> T:
    """What the database answers. One that is silent loses the connection: it would not answer a cancellation either."""
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait([task], timeout=_STATEMENT)
    finally:
        if not task.done():
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
            cut(conn)
    return await task


def _described(exc: BaseException) -> str:
    """What went wrong, in a line."""
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
