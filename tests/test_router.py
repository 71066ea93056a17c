"""A primary, a standby, and a router before both that knows no functions: what a monitor and a checkout meet there."""

import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from itertools import cycle
from typing import Any

import psycopg
import pytest
from crash import programs_of
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

import pycheckout
from factories import request_of
from pycheckout._embedded import EmbeddedServer, _free_port, _is_root, _nobody, embedded_server
from races import wait_until


@pytest.fixture(scope="module")
def primary() -> Iterator[EmbeddedServer]:
    with embedded_server(in_memory=True, fsync=False, max_connections=40, wal_level="replica") as server:
        pycheckout.migrate(server.dsn())
        yield server


def answers(dsn: str) -> bool:
    with suppress(psycopg.OperationalError), psycopg.connect(dsn):
        return True
    return False


@pytest.fixture(scope="module")
def standby(primary: EmbeddedServer) -> Iterator[int]:
    """The port of a standby that is up."""
    data = primary.socket_dir / "standby"
    copy = ["-D", str(data), "-d", primary.dsn(), "-R", "-X", "stream", "-c", "fast"]
    subprocess.run([primary.bin / "pg_basebackup", *copy], check=True, capture_output=True, timeout=60)
    run: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    programs = primary.bin
    if _is_root():
        uid, gid = _nobody()
        for parent, folders, files in os.walk(data):
            for name in (".", *folders, *files):
                os.chown(os.path.join(parent, name), uid, gid)
        run |= {"user": uid, "group": gid, "extra_groups": []}
        with psycopg.connect(primary.dsn()) as conn:
            programs = programs_of(conn)
    port = _free_port()
    process = subprocess.Popen([programs / "postgres", "-D", data, "-c", f"port={port}"], cwd="/", **run)
    try:
        dsn = make_conninfo(primary.dsn(), port=port)
        wait_until(lambda: process.poll() is not None or answers(dsn), "the standby did not start", 60)
        assert process.poll() is None
        yield port
    finally:
        process.send_signal(signal.SIGINT)  # a fast stop
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Router:
    """Sends each new connection to the next of its servers, whatever is said on it."""

    def __init__(self, ports: list[int]) -> None:
        self._ports = cycle(ports)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", next(self._ports)))
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while said := source.recv(65536):
                target.sendall(said)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def router(primary, standby):
    """router(port, ...): a pool behind a router to these servers in turn."""
    with ExitStack() as stack:

        def router(*ports: int) -> ConnectionPool:
            made = Router([*ports])
            stack.callback(made.close)
            # Encryption is not there, and would be passed on like all else. Of two connections either may be the first.
            dsn = make_conninfo(primary.dsn(), port=made.port, sslmode="disable", gssencmode="disable")
            return stack.enter_context(ConnectionPool(dsn, min_size=1, max_size=1, timeout=10, open=True))

        yield router


@pytest.fixture
def cart(primary, standby, add_cart):
    with psycopg.connect(primary.dsn(), autocommit=True) as conn:
        cart = add_cart(conn=conn)
        [(place,)] = conn.execute("select pg_current_wal_lsn()").fetchall()
    with psycopg.connect(make_conninfo(primary.dsn(), port=standby), autocommit=True) as conn:
        wait_until(lambda: conn.execute("select pg_last_wal_replay_lsn() >= %s", (place,)).fetchone()[0])
    return cart


def test_a_router_that_sends_a_checkout_to_a_standby_is_told_in_the_error(primary, standby, router, cart):
    """Also the session that was opened anew, once the pool was drained: no waiting mends that."""
    with pytest.raises(pycheckout.ReadOnlyServer) as caught:
        pycheckout.execute(router(standby), **request_of(cart))

    assert (caught.value.sqlstate, caught.value.retryable, caught.value.outcome) == ("25006", False, "nothing_done")
    assert "router" in (caught.value.hint or "")

    # as after a switch of roles: the sessions of before are left, and the one that is opened anew takes writes
    assert pycheckout.result(router(standby), buyer_store_id=cart.buyer_store_id, cart_id=cart.id).status == "active"
    assert pycheckout.execute(router(standby, primary.port), **request_of(cart)).replayed is False


def test_a_monitor_may_ask_a_standby(primary, standby):
    with psycopg.connect(make_conninfo(primary.dsn(), port=standby), autocommit=True) as conn:
        found = dict(conn.execute("select name, value from checkout_metrics() where labels = '{}'").fetchall())
    assert found["pycheckout_in_recovery"] == 1
    assert len(found) >= 15
