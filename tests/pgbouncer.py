"""A pgbouncer in transaction mode, in front of the server under test.

PGBOUNCER names the program; without it, that of the PATH is taken. TEST_PGBOUNCER=off or on puts it between the tests
and the server: `dsn`, `connect`, `pool` and all that follows from them go through it, with psycopg preparing nothing on
the server (off) or every statement that comes again (on), which takes pgbouncer 1.21.

As a program (`make test-pgbouncer`), this file runs the tests of SUITE so, in each mode that the pgbouncer can do.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.rows import dict_row

from pycheckout._embedded import _free_port, _is_root, _nobody

# Server connections for one database: fewer than clients, so that clients share them.
POOL_SIZE = 6

# What talks to the database through `dsn`, `connect` and `pool` alone.
SUITE = [
    "test_wrapper.py",
    "test_wrapper_async.py",
    "test_wrapper_transactions.py",
    "test_connection_cut.py",
    "test_replay_races.py",
    "test_concurrent_checkouts.py",
    "test_idempotency.py",
    "test_isolation_levels.py",
    "test_errors.py",
    "test_overselling.py",
]

# A transaction pooler gives a client no session of its own. What a test needs one for:
OPTIONS = "sets a time-out with `options` at the start of a session, which the pooler ignores"
IDLE_PID = "asks for the backend of an idle connection, which behind the pooler has none"
NEEDS_A_SESSION = {
    "test_wrapper.py::test_any_prepare_threshold": "counts the prepared statements of one backend",
    "test_wrapper.py::test_role_without_rights": "the role of a SET ROLE stays with one backend",
    "test_wrapper.py::test_any_client_encoding[sql_ascii]": "psycopg knows SQL_ASCII by the server's spelling of it",
    "test_wrapper_async.py::test_busy_is_tried_again": OPTIONS,
    "test_wrapper_async.py::test_connection_killed_in_mid_checkout": IDLE_PID,
    "test_wrapper_async.py::test_cancelled_task_gives_the_pool_a_sound_connection_back": IDLE_PID,
    "test_wrapper_transactions.py::test_one_round_trip": "counts the messages of a statement that is not prepared",
    "test_wrapper_transactions.py::test_lock_time_out_is_tried_again": OPTIONS,
    "test_wrapper_transactions.py::test_retries_are_bounded": OPTIONS,
    "test_wrapper_transactions.py::test_statement_time_out_is_unavailable": OPTIONS,
    "test_wrapper_transactions.py::test_read_only_server_is_unavailable": OPTIONS,
    "test_wrapper_transactions.py::test_dead_connections_of_a_pool_are_replaced": "the pooler itself replaces them",
    "test_wrapper_transactions.py::test_connection_killed_in_mid_checkout": IDLE_PID,
    "test_wrapper_transactions.py::test_lost_connection_of_the_caller_is_unavailable": IDLE_PID,
    "test_concurrent_checkouts.py::test_nobody_reads_an_order_without_its_lines": "holds an advisory lock of a session",
    "test_overselling.py::test_a_busy_day": IDLE_PID,
}


def skip_what_needs_a_session(items: list[pytest.Item]) -> None:
    for item in items:
        name = f"{item.path.name}::{item.name}"
        if reason := NEEDS_A_SESSION.get(name) or NEEDS_A_SESSION.get(name.partition("[")[0]):
            item.add_marker(pytest.mark.skip(reason=f"behind a transaction pooler: {reason}"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooler:
    host: str
    port: int
    user: str
    password: str | None
    log: Path

    def dsn(self, dbname: str) -> str:
        return make_conninfo(host=self.host, port=self.port, user=self.user, password=self.password, dbname=dbname)

    def show(self, what: str) -> list[dict[str, Any]]:
        """The rows of a SHOW command of its console."""
        with psycopg.connect(
            self.dsn("pgbouncer"), autocommit=True, prepare_threshold=None, row_factory=dict_row
        ) as console:
            return console.execute(f"show {what}").fetchall()

    def fill(self, dbname: str, size: int = POOL_SIZE) -> None:
        """Open all server connections, so that even the transactions of a single client go from one to the next."""
        with ExitStack() as stack:
            conns = [stack.enter_context(psycopg.connect(self.dsn(dbname))) for _ in range(size)]
            for conn in conns:
                conn.execute("select")
            for conn in conns:
                conn.rollback()

    def backend_pid(self, conn: psycopg.pq.abc.PGconn, timeout: float = 5.0) -> int:
        """The backend that works for this client, as soon as one does."""
        with socket.socket(fileno=os.dup(conn.socket)) as sock:
            port = sock.getsockname()[1]
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for client in self.show("clients"):
                if client["port"] == port and client["link"]:
                    for server in self.show("servers"):
                        if server["ptr"] == client["link"]:
                            return int(server["remote_pid"])
            time.sleep(0.01)
        raise AssertionError("outside a transaction, no backend belongs to a client of the pooler")


def program() -> str | None:
    # Debian has it where only root looks.
    return os.environ.get("PGBOUNCER") or shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def version_of(path: str) -> tuple[int, int]:
    output = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    match = re.match(r"PgBouncer (\d+)\.(\d+)", output)
    assert match, output
    return int(match[1]), int(match[2])


def can_prepare(path: str) -> bool:
    """Whether it knows the prepared statements of its clients, and prepares them where they are needed."""
    return version_of(path) >= (1, 21)


class _Server(Protocol):
    """conftest's, which cannot be imported here."""

    host: str
    port: int
    user: str
    password: str | None


@contextmanager
def pgbouncer_for(server: _Server, **settings: str | int) -> Iterator[Pooler]:
    """Run a pgbouncer for all databases of a server; `settings` go to its [pgbouncer] section."""
    path = program()
    if path is None:
        pytest.skip("no pgbouncer on the PATH, and PGBOUNCER names none")
    user, password = server.user, server.password
    listen = _free_port()
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    settings = {
        "listen_addr": "127.0.0.1",
        "listen_port": listen,
        "unix_socket_dir": "",
        "auth_type": "md5" if password else "trust",
        "auth_file": str(folder / "users"),
        "admin_users": user,
        "logfile": str(folder / "log"),
        "pool_mode": "transaction",
        "default_pool_size": POOL_SIZE,
        # Not the last one first: each transaction gets another connection than the one before.
        "server_round_robin": 1,
        "max_client_conn": 200,
        # A test that waits for a server connection in vain fails instead of hanging.
        "query_wait_timeout": 20,
        "server_login_retry": 1,
        "ignore_startup_parameters": "extra_float_digits,options",
        **({"max_prepared_statements": 100} if can_prepare(path) else {}),
        **settings,
    }
    # `options` of a client do not get through, so the pooler sets what the suite's own connections set with them.
    timeout = "connect_query='set statement_timeout = ''30s'''"
    (folder / "ini").write_text(
        f"[databases]\n* = host={server.host} port={server.port} {timeout}\n[pgbouncer]\n"
        + "".join(f"{name} = {value}\n" for name, value in settings.items())
    )
    quoted = (password or "").replace('"', '""')
    (folder / "users").write_text(f'"{user}" "{quoted}"\n')

    run: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    if _is_root():  # which pgbouncer does not want to be
        uid, gid = _nobody()
        for name in (folder, *folder.iterdir()):
            os.chown(name, uid, gid)
        run |= {"user": uid, "group": gid, "extra_groups": []}
    process = subprocess.Popen([path, str(folder / "ini")], cwd="/", **run)
    pooler = Pooler(host="127.0.0.1", port=listen, user=user, password=password, log=folder / "log")
    try:
        _wait_until_ready(process, pooler)
        yield pooler
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=10)
        shutil.rmtree(folder)


def _wait_until_ready(process: subprocess.Popen[bytes], pooler: Pooler, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            pooler.show("version")
            return
        except psycopg.OperationalError as exc:
            if process.poll() is not None or time.monotonic() > deadline:
                log = pooler.log.read_text() if pooler.log.exists() else "no log"
                raise RuntimeError(f"pgbouncer did not start:\n{log}") from exc
            time.sleep(0.01)


@contextmanager
def as_the_way_in(pooler: Pooler, *, prepare: bool) -> Iterator[None]:
    """While the pooler stands between psycopg and the server, for tests that know nothing of it."""

    direct = psycopg.ConnectionInfo.backend_pid

    def backend_pid(info: psycopg.ConnectionInfo) -> int:
        """The pid that a pooler tells its client is an invention."""
        return pooler.backend_pid(info.pgconn) if info.port == pooler.port else direct.__get__(info)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.ConnectionInfo, "backend_pid", property(backend_pid))
        for connection in (psycopg.Connection, psycopg.AsyncConnection):
            # Never; or at the second time, not the sixth: few tests get as far. (A script of several commands, which
            # cannot be prepared, is run once.)
            patch.setitem(connection.connect.__func__.__kwdefaults__, "prepare_threshold", 1 if prepare else None)
        yield


def main(args: list[str]) -> int:
    path = program()
    if path is None:
        print("No pgbouncer on the PATH, and PGBOUNCER names none: nothing to test (apt-get install pgbouncer).")
        return 0
    tests = Path(__file__).parent
    failed = 0
    for prepare in ["off", "on"] if can_prepare(path) else ["off"]:
        print(f"\npgbouncer {'.'.join(map(str, version_of(path)))}, prepared statements {prepare}:", flush=True)
        command = [sys.executable, "-m", "pytest", *[str(tests / name) for name in SUITE], *args]
        run = subprocess.run(command, env=os.environ | {"TEST_PGBOUNCER": prepare}, check=False)
        failed = failed or run.returncode
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
