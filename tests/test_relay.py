"""The relay, between a real database and real brokers: RabbitMQ, NATS, Redis, and one that speaks Kafka's protocol."""

import asyncio
import logging
import re
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
import pytest
import redis.asyncio
from brokers import BROKERS, LARGEST, Broker, Line, line, running
from cloudevents.core.formats.json import JSONFormat
from command import Begun, begun
from events import validate
from faststream.security import SASLPlaintext
from outbox import claim, make_due
from pages import block
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from roles import PASSWORD

import pycheckout
from checks import row, rows, values
from pycheckout.relay import Relay
from races import wait_for_waiter, wait_until, wait_until_gone

# Stands in the data of some events; a log or an error must never show it.
SECRET = "12 Main Street"


@pytest.fixture(scope="module", params=BROKERS)
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Each broker in turn, started once for this file."""
    with running(request.param) as broker:
        yield broker


# Where it does not matter which: the quickest to start.
with_any_broker = pytest.mark.parametrize("broker", ["redis"], indirect=True)


class Inbox:
    """What a consumer of one destination gets."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.destination = f"d{uuid4().hex[:12]}"
        asyncio.run(broker.subscribe(self.destination))

    def events(self):
        """Every message so far, in order, as the CloudEvents SDK reads it."""
        messages = asyncio.run(self.broker.received(self.destination))
        assert {content_type for _, content_type in messages} <= {"application/cloudevents+json", None}
        return [JSONFormat().read(None, body) for body, _ in messages]

    def ids(self):
        return [event.get_id() for event in self.events()]

    def wait_for(self, *event_ids):
        """Return once all of these have come."""
        wanted = set(map(str, event_ids))
        wait_until(lambda: wanted <= set(self.ids()), "events are missing at the broker", timeout=60)


@pytest.fixture
def inbox(broker: Broker) -> Inbox:
    return Inbox(broker)


@pytest.fixture
def relay(dsn: str, inbox: Inbox) -> Callable[..., Relay]:
    """relay(): one from this test's database to its inbox."""
    return lambda **options: Relay(
        dsn, inbox.broker.url, **({"destination": inbox.destination, "poll_seconds": 0.05} | options)
    )


@pytest.fixture
def brief_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is tried again, not of how long a broker is waited for."""
    for module in (pycheckout._brokers, pycheckout.relay):
        monkeypatch.setattr(module, "TIMEOUT", 3.0)
    monkeypatch.setattr(pycheckout.relay, "_LONGEST_PAUSE", 1.0)


def drain(relay: Relay) -> int:
    return asyncio.run(relay.run(until_empty=True))


@contextmanager
def at_work(*relays: Relay) -> Iterator[None]:
    """The relays run in threads for the length of a `with` block."""
    loops: dict[Relay, asyncio.AbstractEventLoop] = {}

    async def run(relay: Relay) -> None:
        loops[relay] = asyncio.get_running_loop()
        await relay.run()

    threads = [threading.Thread(target=lambda relay=relay: asyncio.run(run(relay))) for relay in relays]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: len(loops) == len(relays))
        yield
    finally:
        for relay, loop in loops.items():
            loop.call_soon_threadsafe(relay.stop)
        for thread in threads:
            thread.join(timeout=60)
            assert not thread.is_alive(), "a relay did not stop"


@pytest.fixture
def process(dsn: str, inbox: Inbox) -> Iterator[Callable[..., Begun]]:
    """process(): the command `pycheckout relay`, running."""
    with ExitStack() as stack:

        def process(*args: str, database: str = dsn, url: str = inbox.broker.url) -> Begun:
            options = ["--database", database, "--broker", url, "--destination", inbox.destination, "--poll", "50ms"]
            return stack.enter_context(begun("relay", *options, *args))

        yield process


@contextmanager
def stopped_before_the_mark(db) -> Iterator[None]:
    """Inside the block, a relay stops after the broker has confirmed and before it marks anything as published."""
    db.execute("""
        create function stop_here() returns trigger language plpgsql
        as $$ begin perform pg_advisory_xact_lock_shared(1); return null; end $$;
        create trigger stop_here before update of published_at on outbox_events
          for each statement execute function stop_here()
    """)
    db.execute("select pg_advisory_lock(1)")
    yield
    db.execute("select pg_advisory_unlock_all()")


# What arrives


def test_every_event_arrives_as_a_cloud_event(db, add_cart, checkout_sql, relay, inbox):
    answer = checkout_sql(db, add_cart())
    order = answer["vendor_orders"][0]["order_id"]
    db.execute("select vendor_order_cancel(%s, 'out of season')", (order,))

    assert drain(relay(source="/shop/eu")) == 3

    events = inbox.events()
    assert [event.get_type() for event in events] == [
        "checkout.vendor_orders_created",
        "checkout.converted",
        "vendor_order.canceled",
    ]
    for event in events:
        payload = validate(row(db, "select payload from outbox_events where id = %s", event.get_id())["payload"])
        assert event.get_data() == payload["data"]
        assert event.get_source() == "/shop/eu"
        assert (event.get_specversion(), event.get_datacontenttype()) == ("1.0", "application/json")
        assert event.get_time() == datetime.fromisoformat(payload["occurred_at"])
        assert event.get_dataschema() == f"urn:pycheckout:event:{payload['type']}:v{payload['version']}"
        assert event.get_subject() == f"checkout_group/{answer['checkout_group_id']}"
        assert event.get_extension("partitionkey") == answer["checkout_group_id"]
    assert values(db, "select count(*) from outbox_events where published_at is null") == [0]
    assert drain(relay()) == 0


def enveloped(event_id, event_type="vendor_order.canceled", data='{"a": 1}', version="1", more=""):
    """The JSON text of an envelope, as pycheckout's events have it."""
    attributes = f'"event_id": "{event_id}", "type": "{event_type}", "version": {version}'
    return f'{{{attributes}, "occurred_at": "2026-01-01T00:00:00.000000Z", "data": {data}{more}}}'


@pytest.mark.parametrize("in_an_envelope", [True, False])
def test_numbers_and_text_arrive_as_they_were_written(db, emit, relay, inbox, in_an_envelope):
    """A float would lose digits of an amount of 64 bits and of a numeric, and make a large one infinite."""
    text = (
        '{"a": 1.10, "b": 12345678901234567890.123456789, "c": "‮лавка \\" \\\\ \\u0001 𝄞",'
        ' "d": [null, true], "amount_cents": 9007199254740993, "e": 1e400}'
    )
    event = emit(uuid4())
    db.execute("update outbox_events set payload = %s", (enveloped(event, data=text) if in_an_envelope else text,))

    drain(relay())

    [(body, _)] = asyncio.run(inbox.broker.received(inbox.destination))
    [stored] = values(db, "select %s::jsonb::text", text)
    assert body.decode().endswith(f', "data": {stored}}}')
    read = JSONFormat().read(None, body)
    assert (read.get_dataschema() is not None) == in_an_envelope
    assert (read.get_data()["c"], read.get_data()["amount_cents"]) == ('‮лавка " \\ \x01 𝄞', 2**53 + 1)


@with_any_broker
@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "7",
        "null",
        '["event_id", "type", "version", "occurred_at", "data"]',
        '{"order": 7, "data": {"a": 1}}',
        enveloped(uuid4()),
        enveloped("{id}", event_type="shop.opened"),
        enveloped("{id}", version='"1"'),
        enveloped("{id}", more=', "trace": "t1"'),
        enveloped("{id}").replace("occurred_at", "at"),
    ],
)
def test_what_is_no_envelope_goes_whole_into_the_data(db, emit, relay, inbox, text):
    event = emit(uuid4())
    db.execute("update outbox_events set payload = %s", (text.replace("{id}", str(event)),))

    drain(relay())

    [(body, _)] = asyncio.run(inbox.broker.received(inbox.destination))
    [stored] = values(db, "select payload::text from outbox_events")
    assert body.decode().endswith(f', "data": {stored}}}')
    read = JSONFormat().read(None, body)
    assert (read.get_id(), read.get_type(), read.get_dataschema()) == (str(event), "vendor_order.canceled", None)


@with_any_broker
def test_an_event_of_the_host_in_the_same_envelope_is_sent_in_the_same_way(db, emit, relay, inbox):
    event = emit(uuid4(), event_type="shop opened/läden")
    db.execute("update outbox_events set payload = %s", (enveloped(event, "shop opened/läden", version="12"),))

    drain(relay())

    [found] = inbox.events()
    assert (found.get_type(), found.get_data()) == ("shop opened/läden", {"a": 1})
    assert found.get_dataschema() == "urn:pycheckout:event:shop%20opened%2Fl%C3%A4den:v12"


# The consumers of docs/relay.md


PAGE = (Path(__file__).parents[1] / "docs" / "relay.md").read_text(encoding="utf-8")
[CONSUMERS] = re.findall(r"^### A consumer\n(.*?)^### ", PAGE, re.DOTALL | re.MULTILINE)
# Before a consumer's own code: it dies between its COMMIT and its acknowledgement.
DIES = "import os, signal\ndef die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)\n"
DIES_AT = {
    "redis": "import redis\nredis.Redis.xack = die\n",
    "rabbitmq": "import aio_pika\naio_pika.IncomingMessage.ack = die\n",
}
# Seconds that a client waits for the next message: that of RabbitMQ is sent it, and waits for ever.
PATIENCE = {"redis": redis.Redis().get_connection_kwargs()["socket_timeout"], "rabbitmq": 0}


def with_urls(text: str, broker: Broker, dsn: str) -> str:
    """A block of the page, for this broker and this database."""
    text = re.sub(r'"postgresql://\S+"', lambda _: repr(dsn), text)
    return re.sub(r"(redis|amqp)://(?:[^\s\"`/]+/?)", lambda _: broker.url, text)


@contextmanager
def consumer(code: str) -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.kill()
        _, said = process.communicate()
        assert said == b""


async def has_consumer(broker: Broker) -> bool:
    """Whether somebody reads the queue of RabbitMQ."""
    import aio_pika

    async with await aio_pika.connect(broker.url) as connection:
        try:
            queue = await (await connection.channel()).declare_queue("mails", passive=True)
        except aio_pika.exceptions.ChannelNotFoundEntity:
            return False
        return bool(queue.declaration_result.consumer_count)


@pytest.mark.parametrize("broker", DIES_AT, indirect=True)
def test_a_consumer_as_documented_does_each_thing_once(db, dsn, broker, add_cart, checkout_sql):
    """Each event comes twice from the relay, and those that it had not acknowledged when it died a third time."""
    db.execute(block(CONSUMERS, "sql"))
    code = with_urls(block(CONSUMERS, "python", f"{broker.scheme}://"), broker, dsn)
    if broker.name == "redis":
        [make_group] = re.findall(r"`(redis-cli .*?)`", CONSUMERS)
        subprocess.run(with_urls(make_group, broker, dsn).split(), check=True, stdout=subprocess.DEVNULL)
    vendors = checkout_sql(db, add_cart(vendors=2))["vendor_orders"]

    with consumer(DIES + DIES_AT[broker.name] + code) as first:
        if broker.name == "rabbitmq":
            wait_until(lambda: asyncio.run(has_consumer(broker)), "nobody reads the queue", timeout=30)
        assert drain(Relay(dsn, broker.url)) == 2
        assert first.wait(timeout=60) == -signal.SIGKILL
    assert values(db, "select count(*) from events_seen") == [1]

    db.execute("select outbox_replay(id) from outbox_events")
    assert drain(Relay(dsn, broker.url)) == 2
    vendors += checkout_sql(db, add_cart(vendors=2))["vendor_orders"]
    assert drain(Relay(dsn, broker.url)) == 2
    with consumer(code) as second:
        # What came last is done, so what came before is.
        wait_until(lambda: values(db, "select count(*) from events_seen") == [4], "events are missing", timeout=60)
        with pytest.raises(subprocess.TimeoutExpired):  # with nothing to do, longer than a client waits for an answer
            second.wait(timeout=PATIENCE[broker.name] + 1)

    assert sorted(values(db, "select vendor_store_id from mails")) == sorted(
        UUID(order["vendor_store_id"]) for order in vendors
    )


# At least once


def test_a_relay_killed_between_publishing_and_marking_sends_the_same_event_again(db, emit, process, inbox):
    """Particular/docs.particular.net#1816: at least once, and the consumer can tell."""
    event = str(emit(uuid4()))
    with stopped_before_the_mark(db):
        killed = process("--lease", "1s")
        inbox.wait_for(event)
        backend = wait_for_waiter(db, db.info.backend_pid)
        killed.send_signal(signal.SIGKILL)
        killed.wait(timeout=30)
        db.execute("select pg_terminate_backend(%s)", (backend,))  # as the server does once it notices
        wait_until_gone(db, backend)
    assert values(db, "select published_at from outbox_events") == [None]
    wait_until(lambda: values(db, "select claimed_until < clock_timestamp() from outbox_events") == [True])

    again = process("--drain")

    assert again.communicate(timeout=60)[0].strip().endswith("1 events published")
    sent = inbox.ids()
    if inbox.broker.name == "nats":
        assert sent == [event], "JetStream itself knows the id again"
    else:
        assert sent == [event, event]
    assert row(db, "select attempt_count, last_error from outbox_events") == {"attempt_count": 0, "last_error": None}


def test_a_relay_told_to_stop_ends_what_it_began(db, emit, process, inbox):
    """SIGTERM: the batch under way is marked, nothing is sent again, and the exit code is 0."""
    event = str(emit(uuid4()))
    with stopped_before_the_mark(db):
        relay = process()
        inbox.wait_for(event)
        wait_for_waiter(db, db.info.backend_pid)
        later = str(emit(uuid4()))
        relay.send_signal(signal.SIGTERM)
    output, errors = relay.communicate(timeout=60)

    assert relay.returncode == 0, errors
    assert output == "1 events published\n"
    assert inbox.ids() == [event]
    assert values(db, "select id::text from outbox_events where published_at is null") == [later]


def test_two_relays_share_the_work_in_order_and_send_nothing_twice(db, emit, relay, inbox):
    emitted = defaultdict(list)
    for aggregate in [uuid4() for _ in range(20)] * 5:
        emitted[str(aggregate)].append(str(emit(aggregate)))

    with at_work(relay(batch=3), relay(batch=3)):
        wait_until(
            lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0], timeout=60
        )

    arrived = defaultdict(list)
    for event in inbox.events():
        arrived[event.get_extension("partitionkey")].append(event.get_id())
    assert arrived == emitted


# When it fails


def test_a_poison_event_is_parked_and_the_others_flow(db, emit, relay, inbox, caplog):
    """Pulsefy/Lumenpulse#1200: larger than this broker takes; the events beside it are none the worse for it."""
    poisoned = uuid4()
    poison = str(emit(poisoned, {"address": SECRET, "filler": "x" * (2 * LARGEST)}))
    after = str(emit(poisoned))
    others = [str(emit(uuid4(), {"address": SECRET})) for _ in range(20)]

    with caplog.at_level(logging.DEBUG, "pycheckout"):
        assert drain(relay(max_attempts=2)) == 20
        assert after not in inbox.ids(), "it waits while the older one backs off"
        make_due(db)
        assert drain(relay(max_attempts=2)) == 0
        assert after not in inbox.ids(), "and when it is parked, until somebody decides"

    assert sorted(inbox.ids()) == sorted(others)
    [letter] = rows(db, "select event_id::text as id, attempt_count, error from outbox_dead_letters")
    assert (letter["id"], letter["attempt_count"]) == (poison, 2)
    assert letter["error"]
    assert values(db, "select max(attempt_count) from outbox_events where published_at is not null") == [0]
    assert f"event {poison} of type vendor_order.canceled failed, attempt 2" in caplog.text
    assert (
        SECRET
        not in caplog.text
        + letter["error"]
        + row(db, "select last_error from outbox_events where id = %s", poison)["last_error"]
    )

    assert values(db, "select outbox_discard(%s, 'too large')", poison) == ["parked"]
    assert drain(relay()) == 1
    assert inbox.ids()[-1] == after


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_an_event_that_goes_to_no_queue_is_not_published(db, emit, relay, broker):
    """RabbitMQ confirms what it throws away, unless it is told not to."""
    destination = f"d{uuid4().hex[:12]}"
    asyncio.run(broker.subscribe(destination, "checkout.*"))
    event = emit(uuid4())

    assert drain(relay(destination=destination)) == 0

    failed = row(db, "select * from outbox_events where id = %s", event)
    assert (failed["published_at"], failed["attempt_count"]) == (None, 1)
    assert "NO_ROUTE" in failed["last_error"], failed["last_error"]


def test_a_broker_that_goes_down_and_comes_back_gets_everything_and_no_event_is_blamed(
    db, emit, relay, inbox, caplog, brief_waits
):
    before = [emit(uuid4()) for _ in range(5)]
    with caplog.at_level(logging.INFO, "pycheckout"), at_work(relay()):
        inbox.wait_for(*before)
        received = inbox.ids()
        wait_until(lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0])
        inbox.broker.stop()
        meanwhile = [emit(uuid4()) for _ in range(5)]
        wait_until(lambda: "the broker cannot be reached" in caplog.text, timeout=60)
        assert values(db, "select count(*) from outbox_events where published_at is null") == [5]

        inbox.broker.start()
        asyncio.run(inbox.broker.subscribe(inbox.destination))
        inbox.wait_for(*meanwhile)
        wait_until(lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0])

    assert set(received) == set(map(str, before))
    assert values(db, "select max(attempt_count) from outbox_events") == [0]
    assert rows(db, "select * from outbox_dead_letters") == []


def hinder(broker: Broker, destination: str, hindered: bool) -> None:
    """A broker that is there and takes nothing, and then does again."""

    async def redis_() -> None:
        async with redis.asyncio.Redis.from_url(broker.url) as client:
            await client.execute_command("REPLICAOF", *(["127.0.0.1", "1"] if hindered else ["NO", "ONE"]))

    async def nats_() -> None:
        import nats
        from nats.js.api import DiscardPolicy, StreamConfig

        client = await nats.connect(broker.url)
        stream = client.jetstream()
        options = {"discard": DiscardPolicy.NEW, "max_bytes": 1 if hindered else -1}
        config = StreamConfig(name=destination, subjects=[f"{destination}.>"], **options)
        await (stream.add_stream if hindered else stream.update_stream)(config)
        await client.close()

    async def rabbitmq() -> None:
        import aio_pika

        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(destination, aio_pika.ExchangeType.TOPIC, durable=True)
            if not hindered:
                await channel.queue_delete("full")
                return
            full = {"x-max-length": 0, "x-overflow": "reject-publish"}
            await (await channel.declare_queue("full", arguments=full)).bind(exchange, "#")

    asyncio.run({"redis": redis_, "nats": nats_, "rabbitmq": rabbitmq}[broker.name]())


@pytest.mark.parametrize("broker", ["redis", "nats", "rabbitmq"], indirect=True)
def test_a_broker_that_takes_nothing_costs_no_event_an_attempt(db, emit, relay, inbox, caplog, brief_waits):
    """Read-only, over a quota, a full queue: with few attempts everything would be parked, and nothing sent later."""
    hinder(inbox.broker, inbox.destination, True)
    try:
        events = [emit(aggregate) for aggregate in [uuid4() for _ in range(5)] * 2]
        with caplog.at_level(logging.INFO, "pycheckout"), at_work(relay(max_attempts=1)):
            wait_until(lambda: caplog.text.count("the broker takes nothing") == 2, timeout=60)
            # RabbitMQ refuses for one queue what it has given to the others.
            assert inbox.ids() == [] or inbox.broker.name == "rabbitmq"
            assert values(db, "select count(*) from outbox_events where claim_id is not null") == [0]
            hinder(inbox.broker, inbox.destination, False)
            inbox.wait_for(*events)
            wait_until(lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0])
    finally:
        hinder(inbox.broker, inbox.destination, False)

    assert set(inbox.ids()) == set(map(str, events))
    assert values(db, "select max(attempt_count) from outbox_events") == [0]
    assert rows(db, "select * from outbox_dead_letters") == []
    said = {"redis": "ReadOnlyError", "nats": "maximum bytes exceeded", "rabbitmq": "DeliveryError"}[inbox.broker.name]
    assert said in caplog.text


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_a_broker_that_refuses_everybody_costs_no_event_an_attempt(db, emit, relay, broker, caplog):
    """Nobody has bound a queue yet: each event fails as one that has no route would."""
    destination = f"d{uuid4().hex[:12]}"
    events = [emit(uuid4()) for _ in range(3)]
    with at_work(relay(destination=destination, max_attempts=1)):
        wait_until(lambda: "the broker refuses everything" in caplog.text, timeout=60)
        asyncio.run(broker.subscribe(destination))
        wait_until(
            lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0], timeout=60
        )

    assert len(asyncio.run(broker.received(destination))) == len(events)
    assert values(db, "select max(attempt_count) from outbox_events") == [0]


# While the broker takes its time


@pytest.fixture
def slow(inbox) -> Iterator[Line]:
    """A line to Redis on which an event takes as long as the test likes."""
    with line(inbox.broker.port) as slow:
        slow.slow, slow.delay = b"XADD", 60.0
        yield slow


def states(db):
    """What the relays' sessions do."""
    return values(db, "select state from pg_stat_activity where application_name = 'pycheckout relay'")


@with_any_broker
def test_no_transaction_is_open_while_a_broker_is_asked(db, dsn, emit, inbox, slow):
    """taskcluster#2577: a time-out of idle transactions ended it, and the same events were sent for ever."""
    event = str(emit(uuid4()))
    impatient = make_conninfo(dsn, options="-c idle_in_transaction_session_timeout=500ms")
    slow.delay = 1.0
    seen = set()
    with at_work(Relay(impatient, f"redis://127.0.0.1:{slow.port}", destination=inbox.destination, poll_seconds=0.05)):
        wait_until(lambda: values(db, "select claim_id is not null from outbox_events") == [True])
        while values(db, "select published_at is null from outbox_events") == [True]:
            seen |= {*states(db)}

    assert seen and seen <= {"idle", "active"}
    assert inbox.ids() == [event]
    assert row(db, "select attempt_count, last_error from outbox_events") == {"attempt_count": 0, "last_error": None}


@with_any_broker
def test_a_broker_that_is_slower_than_the_lease_is_sent_everything_once(db, dsn, emit, inbox, slow):
    """By the relay that has it: it prolongs the lease, and the other one leaves it alone."""
    aggregate = uuid4()
    events = [str(emit(aggregate)) for _ in range(2)]
    url = f"redis://127.0.0.1:{slow.port}"
    slow.at_once, slow.delay = 1, 3.0
    relays = [Relay(dsn, url, destination=inbox.destination, poll_seconds=0.05, lease_seconds=2) for _ in range(2)]
    with at_work(*relays):
        wait_until(
            lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0], timeout=60
        )

    assert inbox.ids() == events
    assert values(db, "select count(*) from outbox_events where attempt_count > 0") == [0]


@with_any_broker
def test_what_was_confirmed_is_marked_before_the_rest_of_its_run(db, dsn, emit, inbox, slow):
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(3)]
    slow.at_once = 1
    with at_work(Relay(dsn, f"redis://127.0.0.1:{slow.port}", destination=inbox.destination)):
        published = "select id from outbox_events where published_at is not null"
        wait_until(lambda: values(db, published) == events[:1], timeout=30)
        slow.free.set()


@with_any_broker
def test_an_erasure_does_not_wait_for_a_relay(db, connect, add_cart, checkout_sql, dsn, inbox, slow):
    cart = add_cart()
    checkout_sql(db, cart)
    with at_work(Relay(dsn, f"redis://127.0.0.1:{slow.port}", destination=inbox.destination)):
        wait_until(lambda: values(db, "select count(*) from outbox_events where claim_id is not null") == [2])
        eraser = connect(autocommit=True)
        eraser.execute("set lock_timeout = '1ms'")
        eraser.execute("select checkout_erase(%s)", (cart.id,))
        assert inbox.ids() == [], "the relay is still publishing"
        slow.free.set()


@with_any_broker
def test_a_relay_killed_in_the_middle_of_a_run_is_followed_by_another_in_order(db, emit, process, inbox, slow):
    """Once its lease has ended: nothing is lost, and whatever comes for the first time comes in order."""
    aggregate = uuid4()
    events = [str(emit(aggregate)) for _ in range(6)]
    slow.at_once = 2
    killed = process("--lease", "1s", url=f"redis://127.0.0.1:{slow.port}")
    inbox.wait_for(events[1])
    killed.send_signal(signal.SIGKILL)
    killed.wait(timeout=30)
    process("--lease", "1s")

    inbox.wait_for(*events)
    assert list(dict.fromkeys(inbox.ids())) == events
    wait_until(lambda: values(db, "select count(*) from outbox_events where published_at is null") == [0])
    assert values(db, "select max(attempt_count) from outbox_events") == [0]


@with_any_broker
def test_a_relay_whose_claim_another_took_over_sends_nothing_more(db, dsn, emit, inbox, slow, caplog):
    """It was stopped for longer than its lease, say."""
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(3)]
    with at_work(Relay(dsn, f"redis://127.0.0.1:{slow.port}", destination=inbox.destination, lease_seconds=2)):
        wait_until(lambda: slow.at_once < 0, "nothing is sent")
        db.execute("update outbox_events set claimed_until = '2020-01-01'")
        taken = claim(db, lease="1 hour")
        assert [event["id"] for event in taken] == events
        wait_until(lambda: "nothing more is sent" in caplog.text)
        slow.free.set()
        inbox.wait_for(events[0])
        wait_until(lambda: "had another claim" in caplog.text)

    assert inbox.ids() == [str(events[0])]
    assert values(db, "select distinct claim_id from outbox_events") == [taken[0]["claim_id"]]


@with_any_broker
def test_a_relay_stops_within_ten_seconds_whatever_hangs(database, server, emit, process, inbox):
    """Broker, database, both, or either while it is connected to: each relay has a database of its own."""

    @dataclass
    class Hanging:
        what: str
        db: psycopg.Connection
        broker: Line
        database: Line
        relay: Begun

        def hangs(self) -> bool:
            if self.what.startswith("new"):
                return bool((self.broker if self.what == "new broker" else self.database).open)
            if self.what == "database":
                return values(self.db, "select published_at is not null from outbox_events") == [True]
            return values(self.db, "select claim_id is not null from outbox_events") == [True]

    with ExitStack() as stack:
        relays: list[Hanging] = []
        for what in ("broker", "new broker", "database", "new database", "both"):
            own = database(migrated=True)
            db = stack.enter_context(psycopg.connect(own, autocommit=True))
            emit(uuid4(), conn=db)
            to_broker = stack.enter_context(line(inbox.broker.port))
            to_database = stack.enter_context(line(server.port, server.host))
            if what in ("broker", "both"):
                to_broker.slow, to_broker.delay = b"XADD", 3600.0
            to_broker.silent = what == "new broker"
            to_database.silent = what == "new database"
            url = f"redis://127.0.0.1:{to_broker.port}"
            relay = process(database=make_conninfo(own, host="127.0.0.1", port=to_database.port), url=url)
            relays.append(Hanging(what, db, to_broker, to_database, relay))
        for each in relays:
            wait_until(each.hangs, each.what, timeout=30)
            each.database.silent = "broker" not in each.what

        began = time.monotonic()
        for each in relays:
            each.relay.send_signal(signal.SIGTERM)
        ends = {each.what: each.relay.communicate(timeout=30) for each in relays}

    assert time.monotonic() - began < 10
    for each in relays:
        _, errors = ends[each.what]
        assert each.relay.returncode == 0, (each.what, errors)
        assert "Traceback" not in errors, each.what


@with_any_broker
def test_what_was_confirmed_is_marked_when_the_word_to_stop_comes_during_a_mark(db, dsn, emit, inbox):
    confirmed, hanging = emit(uuid4()), emit(uuid4())

    class Halted(Relay):
        async def _keep(self, conn, claim):
            await super()._keep(conn, claim)
            self.stop()

        async def _publish_one(self, event):
            await (asyncio.sleep(3600) if event.id == hanging else self._stopping.wait())

    asyncio.run(Halted(dsn, inbox.broker.url, destination=inbox.destination).run())

    assert values(db, "select id from outbox_events where published_at is not null") == [confirmed]


@with_any_broker
def test_a_database_that_falls_silent_is_noticed_within_a_minute(db, dsn, server, emit, inbox, caplog, monkeypatch):
    """procrastinate#1513: a firewall forgot the connection, and the worker waited for ever."""
    assert pycheckout.relay._STATEMENT <= 30, "two answers that do not come are less than a minute"
    monkeypatch.setattr(pycheckout.relay, "_STATEMENT", 1.5)
    with line(server.port, server.host) as to_database:
        database = make_conninfo(dsn, host="127.0.0.1", port=to_database.port)
        with at_work(Relay(database, inbox.broker.url, destination=inbox.destination, poll_seconds=0.05)):
            inbox.wait_for(emit(uuid4()))
            to_database.silent = True
            wait_until(lambda: to_database.silenced)
            to_database.silent = False
            event = emit(uuid4())
            inbox.wait_for(event)

    [waited, *_] = [each for each in caplog.messages if "cannot be reached" in each]
    assert waited.startswith(f'database "{db.info.dbname}" at 127.0.0.1:{to_database.port} cannot be reached: ')


@with_any_broker
def test_a_session_that_is_terminated_is_opened_again(db, emit, relay, inbox):
    with at_work(relay()):
        first = emit(uuid4())
        inbox.wait_for(first)
        [backend] = values(db, "select pid from pg_stat_activity where application_name = 'pycheckout relay'")
        db.execute("select pg_terminate_backend(%s)", (backend,))
        wait_until_gone(db, backend)
        inbox.wait_for(emit(uuid4()))


@with_any_broker
def test_an_event_of_a_transaction_that_commits_late_is_sent(connect, emit, relay, inbox):
    """kamu-data/kamu-cli#1398"""
    slow = connect()
    early = emit(uuid4(), conn=slow)
    late = emit(uuid4())
    with at_work(relay()):
        inbox.wait_for(late)
        assert str(early) not in inbox.ids()
        slow.commit()
        inbox.wait_for(early)


@with_any_broker
def test_a_checkout_that_is_rolled_back_sends_nothing(connect, add_cart, checkout_sql, relay, inbox):
    conn = connect()
    checkout_sql(conn, add_cart())
    assert drain(relay()) == 0
    conn.rollback()
    assert drain(relay()) == 0

    assert inbox.ids() == []


@pytest.mark.parametrize("broker", ["rabbitmq"], indirect=True)
def test_security_of_the_broker_may_come_beside_the_url(dsn, emit, inbox):
    event = emit(uuid4())
    url = inbox.broker.url.replace("guest:guest", "nobody:nothing")
    relay = Relay(dsn, url, destination=inbox.destination, security=SASLPlaintext("guest", "guest"))

    assert asyncio.run(asyncio.wait_for(relay.run(until_empty=True), 60)) == 1
    assert inbox.ids() == [str(event)]


# The command


@with_any_broker
def test_a_relay_role_is_enough_and_another_is_refused_with_the_way_out(db, dsn, emit, process, inbox, new_role):
    name = new_role()
    own = make_conninfo(dsn, user=name, password=PASSWORD)
    event = emit(uuid4())
    refused = process("--drain", database=own)
    _, errors = refused.communicate(timeout=60)
    assert refused.returncode == 1
    assert "permission denied" in errors and "Traceback" not in errors

    db.execute("select checkout_grant_relay(%s)", (name,))
    granted = process("--drain", database=own)
    output, errors = granted.communicate(timeout=60)
    assert (granted.returncode, output) == (0, "1 events published\n"), errors
    assert inbox.ids() == [str(event)]


@with_any_broker
def test_a_relay_of_another_schema(empty_database, inbox):
    url = empty_database()
    pycheckout.migrate(url, schema="market_eu", create_schema=True)

    assert drain(Relay(url, inbox.broker.url, schema="market_eu", destination=inbox.destination)) == 0
    with pytest.raises(pycheckout.NotInstalled):
        drain(Relay(url, inbox.broker.url, destination=inbox.destination))


@pytest.fixture
def elsewhere(dsn):
    """elsewhere(dbname="nope"): the URL of this test's database, but for that."""
    return lambda **other: make_conninfo(dsn, **other)


WRONG = {
    "database": ({"dbname": "nope"}, 'database "nope" does not exist'),
    "role": ({"user": "nobody-here"}, '"nobody-here"'),
    "password": ({"password": "of-nobody"}, "authentication failed"),
    "host": ({"host": "no-such-host.invalid"}, "no-such-host.invalid"),
}


@pytest.mark.parametrize("more", [[], ["--drain"]])
@pytest.mark.parametrize("wrong", WRONG)
@with_any_broker
def test_a_database_that_will_have_no_session_ends_the_relay_at_once(process, elsewhere, wrong, more):
    """With the server's own reason, the host and the database. Else it would be waited for, and nobody learn why."""
    other, reason = WRONG[wrong]
    database = elsewhere(**other)
    refused = process(*more, database=database)
    output, errors = refused.communicate(timeout=20)

    parts = conninfo_to_dict(database)
    assert (refused.returncode, output) == (4, "")
    assert f'database "{parts["dbname"]}" at {parts["host"]}:{parts["port"]} cannot be reached: ' in errors
    assert reason in errors
    assert "Traceback" not in errors and "of-nobody" not in errors


@pytest.mark.parametrize("away", ["broker", "database"])
@with_any_broker
def test_a_drain_gives_up_when_broker_or_database_stay_away(process, elsewhere, emit, away):
    emit(uuid4())
    options = {"url": "redis://127.0.0.1:1"} if away == "broker" else {"database": elsewhere(port=1)}
    began = time.monotonic()
    gave_up = process("--drain", "--timeout", "1s", **options)
    output, errors = gave_up.communicate(timeout=60)

    assert (gave_up.returncode, output) == (4, "")
    assert 1 <= time.monotonic() - began < 15
    assert re.search(r"^pycheckout: nothing was published for 1 s: .*cannot be reached", errors, re.MULTILINE), errors


@with_any_broker
def test_a_drain_that_gets_on_is_not_given_up(dsn, emit, inbox, slow):
    """The time counts from the last event, not from the first."""
    aggregate = uuid4()
    events = [emit(aggregate) for _ in range(5)]
    slow.delay = 0.7
    relay = Relay(dsn, f"redis://127.0.0.1:{slow.port}", destination=inbox.destination)

    assert asyncio.run(relay.run(until_empty=True, timeout=3)) == len(events)
    assert relay.drained


@with_any_broker
def test_a_drain_that_hangs_is_given_up(dsn, server, emit, inbox):
    emit(uuid4())
    with line(server.port, server.host) as to_database:
        to_database.silent = True
        relay = Relay(make_conninfo(dsn, host="127.0.0.1", port=to_database.port), inbox.broker.url)
        began = time.monotonic()
        with pytest.raises(pycheckout.Unavailable, match="nothing was published for 1 s: no answer"):
            asyncio.run(relay.run(until_empty=True, timeout=1))
    assert time.monotonic() - began < 12
    assert not relay.drained


@with_any_broker
def test_a_drain_that_is_stopped_before_the_outbox_is_empty_is_not_0(emit, process, inbox, slow):
    events = [emit(uuid4()) for _ in range(4)]
    slow.delay = 1.0
    stopped = process("--drain", "--batch", "1", url=f"redis://127.0.0.1:{slow.port}")
    wait_until(lambda: slow.at_once < 0, "nothing is sent", timeout=30)
    stopped.send_signal(signal.SIGTERM)
    output, errors = stopped.communicate(timeout=60)

    assert stopped.returncode == 4, errors
    assert output == "1 events published\n"
    assert "stopped before the outbox was empty" in errors
    assert len(inbox.ids()) == 1 < len(events)


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "53400", "58030"])
@with_any_broker
def test_a_server_without_disk_or_memory_is_waited_for(db, emit, relay, inbox, caplog, sqlstate):
    """Also while it marks what it has sent."""
    db.execute(f"""
        create function fail_here() returns trigger language plpgsql
        as $$ begin raise exception 'could not extend file' using errcode = '{sqlstate}', detail = '{SECRET}'; end $$;
        create trigger fail_here before update of published_at on outbox_events
          for each statement execute function fail_here()
    """)
    event = emit(uuid4())
    with at_work(relay(lease_seconds=1)):
        wait_until(lambda: "could not extend file" in caplog.text, timeout=30)
        db.execute("drop trigger fail_here on outbox_events")
        wait_until(lambda: values(db, "select published_at is null from outbox_events") == [False], timeout=30)

    assert set(inbox.ids()) == {str(event)}
    assert values(db, "select max(attempt_count) from outbox_events") == [0]
    assert SECRET not in caplog.text


@with_any_broker
def test_an_unknown_kind_of_broker_is_wrong_usage(process):
    relay = process(url="mqtt://127.0.0.1")
    _, errors = relay.communicate(timeout=60)

    assert relay.returncode == 2
    assert "amqp://" in errors and "Traceback" not in errors
    with pytest.raises(ValueError, match="kafka://"):
        Relay("", "mqtt://127.0.0.1")


@pytest.mark.parametrize(
    "url",
    [
        "amqp://shop:se#cret@rabbit",
        "redis://:se/cret@redis",
        "kafka://shop:secret@kafka:9092",
        "nats://",
        "amqp:///shop",
        "redis://:se\u2100cret@redis",  # urlsplit takes it for a slash
        "kafka://shop:secret\u2100@kafka:9092",
    ],
)
def test_a_url_that_cannot_be_read_is_wrong_usage_and_shows_no_password(url):
    with pytest.raises(ValueError, match="cannot be read") as refused:
        Relay("", url)

    assert "cret" not in str(refused.value)


def test_an_error_that_no_waiting_mends_is_raised_as_it_is():
    with pytest.raises(ValueError, match="the database is no libpq URL") as caught:
        drain(Relay("postgresql://shop:s3cret@[::1/shop", "redis://127.0.0.1:1"))

    assert "s3cret" not in str(caught.value) and caught.value.__suppress_context__


@pytest.mark.parametrize("missing", ["faststream", "redis"])
@with_any_broker
def test_a_missing_client_is_named_at_once(dsn, inbox, missing):
    hide = f"import sys; sys.modules[{missing!r}] = None; from pycheckout.cli import main; main()"
    command = [sys.executable, "-c", hide, "relay", "--database", dsn, "--broker", inbox.broker.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert f"the relay needs {missing}: pip install 'pycheckout[relay]'" in done.stderr
