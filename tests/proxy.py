"""A TCP proxy in front of PostgreSQL that cuts a connection at a known point of a statement.

It knows the framing of the messages and no more: a client's message has a type and a length, a request ends with Sync
or is a Query, its answer ends with ReadyForQuery. That is enough to say what the server has seen when the line breaks.
"""

import select
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from psycopg.conninfo import make_conninfo


class Point(Enum):
    BEFORE = "before the statement reaches the server"
    RUNNING = "while the server works on the statement"
    ANSWERED = "after the server's last word on it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """One broken connection: the one that sends `statement` next."""

    point: Point
    statement: bytes = b"checkout_execute"
    # Of the answer, this much still gets through: a share, or a number of bytes short of all (-1: all but the last).
    passed: float | int = 0.0
    # A reset (RST), or an end that looks like an orderly one (FIN).
    reset: bool = True
    # Called right before the cut, in a thread of the proxy: it waits until the server is where the test wants it.
    when: Callable[[], Any] = lambda: None


class Proxy:
    """Passes everything on, but for the cuts it is told to make."""

    def __init__(self, upstream: tuple[str, int]) -> None:
        self.made = 0
        # New connections end at once, as behind a balancer that has no server left.
        self.refusing = False
        self._upstream = upstream
        self._cuts: deque[Cut | None] = deque()
        self._errors: list[BaseException] = []
        self._threads: list[threading.Thread] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._start(self._accept)

    def dsn(self, dsn: str) -> str:
        """The same database, through the proxy."""
        host, port = self._listener.getsockname()
        # Encryption would hide the messages.
        return make_conninfo(dsn, host=host, port=port, sslmode="disable", gssencmode="disable")

    def cut(self, *cuts: Cut | None) -> None:
        """The next statements that match are cut like this, one after the other; None lets one pass."""
        with self._lock:
            assert not self._cuts, "cuts of before were never made"
            self._cuts.extend(cuts)
            self.made = 0

    @property
    def pending(self) -> int:
        """Cuts that no statement has come for yet."""
        return len(self._cuts)

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            for sock in (self._listener, *self._sockets):
                _shut(sock)
        for thread in self._threads:
            thread.join(timeout=10)
        self._listener.close()
        if self._errors:
            raise self._errors[0]

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with closing(client):
            if self.refusing:
                return
            try:
                with closing(socket.create_connection(self._upstream)) as server:
                    with self._lock:
                        self._sockets |= {client, server}
                    try:
                        self._relay(client, server)
                    finally:
                        with self._lock:
                            self._sockets -= {client, server}
            except (ConnectionError, EOFError):
                pass  # either side went away: the other one is closed as well
            except BaseException as exc:
                if not self._closed.is_set():
                    self._errors.append(exc)

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        prepared: dict[bytes, bytes] = {}
        server.sendall(_startup(client))
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if server in ready:
                # An answer needs no framing as long as it is passed on whole.
                client.sendall(_some(server))
            elif client in ready:
                message = _message(client)
                if (cut := self._cut_for(_statement(message, prepared))) is not None:
                    self._make(cut, message, client, server)
                    return
                server.sendall(message)

    def _cut_for(self, statement: bytes) -> Cut | None:
        with self._lock:
            if not self._cuts:
                return None
            [awaited] = {cut.statement for cut in self._cuts if cut is not None} or {b""}
            return self._cuts.popleft() if statement and awaited in statement else None

    def _make(self, cut: Cut, message: bytes, client: socket.socket, server: socket.socket) -> None:
        request = message
        while message[:1] not in b"QS":
            message = _message(client)
            request += message
        if cut.point is not Point.BEFORE:
            server.sendall(request)
        if cut.point is Point.ANSWERED:
            answer = _answer(server)
            share = round(cut.passed * len(answer)) if cut.passed >= 0 else int(cut.passed)
            client.sendall(answer[:share])
        cut.when()
        self.made += 1
        if cut.reset:
            for sock in (client, server):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@contextmanager
def proxy_to(host: str, port: int) -> Iterator[Proxy]:
    with closing(Proxy((host, port))) as proxy:
        yield proxy


def _startup(sock: socket.socket) -> bytes:
    """The first message, alone without a type."""
    length = _exactly(sock, 4)
    return length + _exactly(sock, int.from_bytes(length) - 4)


def _message(sock: socket.socket) -> bytes:
    head = _exactly(sock, 5)
    return head + _exactly(sock, int.from_bytes(head[1:]) - 4)


def _statement(message: bytes, prepared: dict[bytes, bytes]) -> bytes:
    """The text of the statement that this message begins to run, or nothing."""
    kind, body = message[:1], message[5:]
    if kind == b"Q":
        return body
    if kind == b"P":
        name, text = body.split(b"\0", 2)[:2]
        if not name:
            return text
        prepared[name] = text
    elif kind == b"B":
        _, name = body.split(b"\0", 2)[:2]
        return prepared.get(name, b"")
    return b""


def _answer(server: socket.socket) -> bytes:
    answer = message = _message(server)
    while message[:1] != b"Z":
        message = _message(server)
        answer += message
    return answer


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += _some(sock, size - len(data))
    return data


def _some(sock: socket.socket, size: int = 65536) -> bytes:
    data = sock.recv(size)
    if not data:
        raise EOFError
    return data


def _shut(sock: socket.socket) -> None:
    with suppress(OSError):  # not connected any more
        sock.shutdown(socket.SHUT_RDWR)
