"""A TCP proxy that makes each round trip 1 ms longer: `python -m benchmarks.delay HOST PORT` prints its own port.

What the client sends goes on at once, what the server answers is held back. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

DELAY = 0.001


@contextmanager
def delayed(host: str, port: int) -> Iterator[int]:
    """Run the proxy; yields its port."""
    command = [sys.executable, "-m", __name__, host, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as proxy:
        assert proxy.stdout is not None
        assert proxy.stdin is not None
        try:
            yield int(proxy.stdout.readline())
        finally:
            proxy.stdin.close()


class _Side(asyncio.Protocol):
    """One end of a connection: what it reads is written to the other end, `delay` seconds later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.other: Any = None
        self.waiting: list[bytes] = []

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def joined(self, other: Any) -> None:
        self.other = other
        for data in self.waiting:
            other.write(data)

    def data_received(self, data: bytes) -> None:
        if self.other is None:
            self.waiting.append(data)
        elif self.delay:
            asyncio.get_running_loop().call_later(self.delay, self.other.write, data)
        else:
            self.other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            asyncio.get_running_loop().call_later(self.delay, self.other.close)


async def _serve(host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    links: set[asyncio.Task[None]] = set()

    def accepted() -> _Side:
        client = _Side(0)

        async def link() -> None:
            transport, server = await loop.create_connection(lambda: _Side(DELAY), host, port)
            server.joined(client.transport)
            client.joined(transport)

        task = loop.create_task(link())
        links.add(task)
        task.add_done_callback(links.discard)
        return client

    server = await loop.create_server(accepted, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    # select() waits microseconds where epoll, as Python has it, waits whole milliseconds
    with (
        suppress(KeyboardInterrupt),
        asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner,
    ):
        runner.run(_serve(sys.argv[1], int(sys.argv[2])))
