"""The command `pycheckout` as an operator runs it: the real executable, piped or in a terminal."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).with_name("pycheckout"))
SECONDS = 120


def environment(env: Mapping[str, str] = {}) -> dict[str, str]:
    """That of the tests, without a database that its owner may have named; this checkout's package comes first."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYCHECKOUT_", "PG"))}
    return own | {"PYTHONPATH": str(ROOT), "COLUMNS": "120"} | dict(env)


def run_command(*args: str, env: Mapping[str, str] = {}, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """run_command("migrate", "--database", dsn): what it printed into pipes, and its exit code."""
    return subprocess.run(
        [PROGRAM, *args],
        env=environment(env),
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


def run_in_terminal(*args: str, env: Mapping[str, str] = {}, answer: str = "") -> tuple[int, str]:
    """Its exit code, and all that it shows in a terminal of 120 columns where somebody types `answer`."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, *args],
        env=environment({"TERM": "xterm-256color", **env}),
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    os.write(ours, answer.encode())
    shown = b""
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 1)[0]:
                try:
                    shown += os.read(ours, 65536)
                except OSError:  # nobody is at the other end any more
                    break
        return process.wait(timeout=10), shown.decode()
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def plain(shown: str) -> str:
    """What a terminal shows, without its colours and movements."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "", shown)
