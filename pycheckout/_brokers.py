"""Brokers that the relay publishes to, each through FastStream, each with its own kind of confirmation.

An event goes out as a CloudEvents 1.0 message in structured mode: one JSON object that holds attributes and data, the
same on every broker, since RabbitMQ's AMQP 0-9-1 and Redis Streams have no CloudEvents binding that names headers.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

from ._extras import needing

CONTENT_TYPE = "application/cloudevents+json"  # CloudEvents JSON event format, section 3
_SCHEMA = "urn:pycheckout:event:{}:v{}"  # `$id` of `data` in docs/events/*.schema.json
TIMEOUT = 10.0  # seconds for a connection to be made, and for a broker to confirm an event
_CLOSING = 2.0  # seconds for a connection to be closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A claimed event. `data` is JSON text as PostgreSQL writes it, so that no number changes on the way."""

    id: UUID
    event_type: str
    aggregate_type: str
    aggregate_id: UUID
    data: str
    """What the payload's envelope holds, or the whole payload of an event that has none."""
    version: str | None
    """Of the data, as the envelope has it; None without an envelope."""
    created_at: str
    attempt_count: int
    claim_id: UUID

    def cloud_event(self, source: str) -> bytes:
        """The event in CloudEvents 1.0 JSON format; `partitionkey` is the extension that Kafka's binding reads."""
        attributes = {
            "specversion": "1.0",
            "id": str(self.id),
            "source": source,
            "type": self.event_type,
            "subject": f"{self.aggregate_type}/{self.aggregate_id}",
            "time": self.created_at,
            "datacontenttype": "application/json",
            "partitionkey": str(self.aggregate_id),
        }
        if self.version is not None:
            attributes["dataschema"] = _SCHEMA.format(quote(self.event_type, safe=""), self.version)
        return (json.dumps(attributes)[:-1] + f', "data": {self.data}}}').encode()


Publish = Callable[[Event, bytes], Awaitable[object]]
"""Publishes an event and returns once the broker has confirmed it; raises what the client raises otherwise."""


@asynccontextmanager
async def connected(url: str, destination: str, security: Any = None) -> AsyncIterator[Publish]:
    """A connection to the broker that the URL names, for the length of a `with` block; `security` is FastStream's."""
    connect, _ = _BROKERS[urlsplit(url).scheme]
    block = connect(url, destination, security)
    async with asyncio.timeout(TIMEOUT):
        publish = await block.__aenter__()
    try:
        yield publish
    finally:
        # A client that lost its broker may wait long for what it still has to send: that is claimed again anyway.
        closing = asyncio.ensure_future(block.__aexit__(None, None, None))
        closing.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait([closing], timeout=_CLOSING)


class Blame(Enum):
    """Whose fault it is that an event was not confirmed, as far as the client's exception tells."""

    EVENT = "the broker takes others"
    BROKER = "it takes none, or will once it has room or rights"
    UNKNOWN = "it does not say"


# By the first part of an exception's module and its name; of its bases, the nearest that is here.
_BLAMED = {
    "aiormq.ChannelPreconditionFailed": Blame.EVENT,  # too large
    "aiormq.PublishError": Blame.UNKNOWN,  # no route for it: for no event, or for this type
    "aiormq.DeliveryError": Blame.BROKER,  # a queue that is full
    "aiormq.ChannelAccessRefused": Blame.BROKER,
    "aiormq.ChannelNotFoundEntity": Blame.BROKER,
    "aiormq.ConnectionNotAllowed": Blame.BROKER,
    "nats.MaxPayloadError": Blame.EVENT,
    "nats.APIError": Blame.BROKER,  # quotas, no stream, no leader
    "nats.NoStreamResponseError": Blame.BROKER,
    "nats.NoRespondersError": Blame.BROKER,
    "redis.ReadOnlyError": Blame.BROKER,
    "redis.OutOfMemoryError": Blame.BROKER,
    "redis.BusyLoadingError": Blame.BROKER,
    "redis.ClusterError": Blame.BROKER,
    "redis.ClusterDownError": Blame.BROKER,
    "redis.MasterDownError": Blame.BROKER,
    "redis.TryAgainError": Blame.BROKER,
    "redis.NoPermissionError": Blame.BROKER,
    "redis.AuthenticationError": Blame.BROKER,
    "redis.AuthorizationError": Blame.BROKER,
    "redis.TimeoutError": Blame.BROKER,
    "aiokafka.MessageSizeTooLargeError": Blame.EVENT,
    "aiokafka.RecordListTooLargeError": Blame.EVENT,
    "aiokafka.KafkaError": Blame.BROKER,
}
_NATS_MESSAGE_TOO_LARGE = 10054


def blame(exc: BaseException) -> Blame:
    """Whose fault an event's failure is that was sent alone, over a new connection."""
    if getattr(exc, "err_code", None) == _NATS_MESSAGE_TOO_LARGE:
        return Blame.EVENT
    names = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(exc).__mro__]
    found = next((_BLAMED[name] for name in names if name in _BLAMED), Blame.UNKNOWN)
    if found is Blame.UNKNOWN and "redis.ResponseError" in names:
        # Redis begins an error with its code. (The client takes away that of ERR, which is any other error.)
        code = str(exc).partition(" ")[0]
        return Blame.BROKER if code.isupper() and code != "ERR" else Blame.UNKNOWN
    return found


def check_broker(url: str) -> None:
    """Raise ValueError for a URL of no broker that the relay knows, ModuleNotFoundError without the broker's client."""
    # What is said of a URL that cannot be read, here or by a client, may show the password that is in it.
    unreadable = ValueError("the URL of the broker cannot be read; special characters of a password must be escaped")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise unreadable from None
    try:
        _, client = _BROKERS[parts.scheme]
    except KeyError:
        known = ", ".join(f"{scheme}://" for scheme in _BROKERS)
        raise ValueError(f"the URL of the broker must begin with one of {known}") from None
    if parts.scheme == "kafka":
        readable = "@" not in parts.netloc
    else:
        readable = re.search(r":\d+$|^[^:]*$|@[^:]*$", parts.netloc) is not None
    if not readable or not parts.netloc:
        raise unreadable
    with needing("relay"):
        importlib.import_module("faststream")
        importlib.import_module(client)


@asynccontextmanager
async def _rabbit(url: str, destination: str, security: Any) -> AsyncIterator[Publish]:
    """A durable topic exchange. Confirmed: every queue that the event is routed to has it; none at all is an error."""
    from faststream.rabbit import Channel, ExchangeType, RabbitBroker, RabbitExchange

    exchange = RabbitExchange(destination, type=ExchangeType.TOPIC, durable=True)
    async with RabbitBroker(
        url, security=security, default_channel=Channel(on_return_raises=True), logger=None
    ) as broker:
        await broker.declare_exchange(exchange)
        yield lambda event, body: broker.publish(
            body,
            exchange=exchange,
            routing_key=event.event_type,
            persist=True,
            content_type=CONTENT_TYPE,
            message_id=str(event.id),
            correlation_id=str(event.id),
            timeout=TIMEOUT,
        )


@asynccontextmanager
async def _nats(url: str, destination: str, security: Any) -> AsyncIterator[Publish]:
    """A JetStream stream, made if it is missing. Confirmed: the stream has stored the event, or had it already."""
    from faststream.nats import NatsBroker
    from nats.js.errors import NotFoundError

    async with NatsBroker(url, security=security, allow_reconnect=False, logger=None) as broker:
        jetstream = broker.connection.jetstream(timeout=TIMEOUT)
        try:
            await jetstream.stream_info(destination)
        except NotFoundError:
            await jetstream.add_stream(name=destination, subjects=[f"{destination}.>"])
        yield lambda event, body: broker.publish(
            body,
            f"{destination}.{event.event_type}",
            stream=destination,
            headers={"content-type": CONTENT_TYPE, "Nats-Msg-Id": str(event.id)},
            correlation_id=str(event.id),
            timeout=TIMEOUT,
        )


@asynccontextmanager
async def _redis(url: str, destination: str, security: Any) -> AsyncIterator[Publish]:
    """A stream. Confirmed: XADD has answered with the entry's id."""
    from faststream.redis import RedisBroker
    from faststream.redis.parser import MessageFormat

    class Plain(MessageFormat):
        """The JSON itself, which any client can read, and not FastStream's binary envelope."""

        @classmethod
        async def encode(cls, *, message: Any, **_: Any) -> bytes:
            return bytes(message)

        @classmethod
        def parse(cls, data: bytes) -> tuple[bytes, dict[str, Any]]:
            return data, {}

    quiet: Any = None  # allowed, though its annotation does not say so
    async with RedisBroker(
        url, security=security, message_format=Plain, logger=quiet, socket_timeout=TIMEOUT
    ) as broker:
        await (await broker.connect()).ping()
        yield lambda event, body: broker.publish(body, stream=destination, correlation_id=str(event.id))


@asynccontextmanager
async def _kafka(url: str, destination: str, security: Any) -> AsyncIterator[Publish]:
    """A topic, its key the aggregate. Confirmed: all in-sync replicas have the event."""
    from faststream.kafka import KafkaBroker

    servers = urlsplit(url).netloc.split(",")
    async with KafkaBroker(
        servers, security=security, acks="all", request_timeout_ms=int(TIMEOUT * 1000), logger=None
    ) as broker:
        yield lambda event, body: broker.publish(
            body,
            topic=destination,
            key=str(event.aggregate_id).encode(),
            headers={"content-type": CONTENT_TYPE},
            correlation_id=str(event.id),
        )


# By the scheme of the URL: how to connect, and the client that FastStream needs for it.
_BROKERS = {
    "amqp": (_rabbit, "aio_pika"),
    "amqps": (_rabbit, "aio_pika"),
    "nats": (_nats, "nats"),
    "tls": (_nats, "nats"),
    "redis": (_redis, "redis"),
    "rediss": (_redis, "redis"),
    "kafka": (_kafka, "aiokafka"),
}
