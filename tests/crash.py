"""A checkout that stops at a step of the test's choice, so that it can be killed there, and a server that can be.

Nothing of this is in the shipped functions. Triggers and one wrapper, installed into the test's own database, take an
advisory lock that is free, unless the test holds the one of that step.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from pycheckout._embedded import EmbeddedServer
from races import wait_for_waiter, wait_until

# The steps at which a checkout can be stopped, in its order, and the write that each comes after.
STOPS = {
    "cart locked": None,
    "key bound": ("insert", "checkout_requests"),
    "cart converted": ("update", "cart_records"),
    "order without lines": ("insert", "vendor_orders"),
    "lines without intents": ("insert", "order_line_items"),
    "intents written": ("insert", "payment_intents"),
    "events written": ("insert", "outbox_events"),
    "stock reserved": ("update", "inventory_items"),
    "before the commit": None,
}


def install_stops(conn: psycopg.Connection) -> None:
    """Make every checkout of this database stop where `stopped_at` says. `conn` must be in autocommit mode."""
    conn.execute(
        """
        create function crash_stop(step text) returns void language sql
        as $$ select pg_advisory_xact_lock_shared(hashtext('crash'), hashtext(step)) $$;

        create function crash_stop() returns trigger language plpgsql
        as $$ begin perform crash_stop(tg_argv[0]); return null; end $$;

        -- the first thing that happens under the cart's lock; its body names its arguments by its own name
        create schema crash;
        alter function checkout_check_key set schema crash;
        create function checkout_check_key(buyer uuid, cart uuid, key text, hash bytea) returns void language plpgsql
        as $$ begin perform crash_stop('cart locked'); perform crash.checkout_check_key(buyer, cart, key, hash); end $$;

        create constraint trigger crash_stop_commit after insert on outbox_events deferrable initially deferred
        for each row execute function crash_stop('before the commit');
        """
    )
    for step, write in STOPS.items():
        if write:
            event, table = write
            conn.execute(
                f"create trigger crash_stop_{table} after {event} on {table} "
                f"for each statement execute function crash_stop('{step}')"
            )


@contextmanager
def stopped_at(conn: psycopg.Connection, step: str) -> Iterator[None]:
    """Inside the block, or until `release`, every checkout of the database stops at this step."""
    conn.execute("select pg_advisory_lock(hashtext('crash'), hashtext(%s))", (step,))
    try:
        yield
    finally:
        # with the server, the lock is gone
        with contextlib.suppress(psycopg.OperationalError):
            release(conn)


def release(conn: psycopg.Connection) -> None:
    conn.execute("select pg_advisory_unlock_all()")


def wait_for_stop(conn: psycopg.Connection) -> int:
    """The process id of a backend that stands at the stop, once there is one."""
    return wait_for_waiter(conn, conn.info.backend_pid)


def programs_of(conn: psycopg.Connection) -> Path:
    """The folder of the programs that the server of this connection runs."""
    [[folder]] = conn.execute("select setting from pg_config where name = 'BINDIR'").fetchall()
    return Path(folder)


def postmaster_of(data: Path) -> int:
    """The process id of the postmaster whose data these are."""
    return int((data / "postmaster.pid").read_text().splitlines()[0])


def pg_ctl(programs: Path, data: Path, *command: str) -> bool:
    """Whether pg_ctl, run as the owner of these data, did that to their server; it waits until it is done."""
    owner = data.stat()
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        who = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
    done = subprocess.run(
        [programs / "pg_ctl", "-D", data, "-w", *command],
        cwd="/",
        env={"PATH": os.defpath, "TZ": "UTC"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
        **who,
    )
    return done.returncode == 0


@dataclass
class CrashServer:
    """An embedded server, durable as a real one, whose postmaster can be killed and started again."""

    embedded: EmbeddedServer
    programs: Path

    @classmethod
    def of(cls, embedded: EmbeddedServer) -> "CrashServer":
        with psycopg.connect(embedded.dsn()) as conn:
            return cls(embedded, programs_of(conn))

    def kill(self) -> None:
        """SIGKILL the postmaster: its backends lose their parent, the write-ahead log is all that is left."""
        os.kill(postmaster_of(self.embedded.data), signal.SIGKILL)

    def stop(self) -> None:
        """Shut down in order, throwing clients out."""
        pg_ctl(self.programs, self.embedded.data, "-m", "fast", "stop")

    def start(self) -> None:
        """Start it again on the same data. The backends of a killed one may still be on their way out."""
        wait_until(
            lambda: pg_ctl(self.programs, self.embedded.data, "start"), "the server did not start again", timeout=60
        )

    def start_again(self) -> None:
        """Start it, unless it runs."""
        if not pg_ctl(self.programs, self.embedded.data, "status"):
            self.start()

    def wait_until_ready(self) -> None:
        """After a crash of one backend the postmaster starts all of them anew, by itself."""

        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(self.embedded.dsn()).close()
                return True
            return False

        wait_until(answers, "the server did not recover", timeout=60)
