"""The command `pycheckout` as an operator runs it: the real executable, piped or in a terminal."""

import fcntl
import multiprocessing
import os
import pty
import re
import runpy
import select
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = str(Path(sys.executable).with_name("pycheckout"))
SECONDS = 120


def environment(env: Mapping[str, str] = {}) -> dict[str, str]:
    """That of the tests, without a database that its owner may have named; this checkout's package comes first."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYCHECKOUT_", "PG"))}
    return own | {"PYTHONPATH": str(ROOT)} | dict(env)


# Of a process that has imported the command, what `relay` needs, and Django: half a second or a whole one less each.
os.environ["COLUMNS"] = "120"  # rich looks once
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "pycheckout.cli",
        "pycheckout._commands",
        # what these import when they need it: a fifth of a second
        "typer.rich_utils",
        "typer._adapters",
        "pydantic.type_adapter",
        "pydantic.json_schema",
        "pydantic.plugin._loader",
        "rich._emoji_codes",
        "yoyo.scripts.main",
        "pycheckout.relay",
        "faststream.redis",
        "django.core.management",
        "django.db.backends.postgresql.base",
    ]
)
# What Python, or a library when it is imported, looks for.
_READ_AT_THE_START = ("PYTHON", "LC_", "LANG", "COLUMNS", "TERM", "_TYPER")


def run_command(*args: str, env: Mapping[str, str] = {}, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """run_command("migrate", "--database", dsn): what it printed, no terminal being there, and its exit code."""
    if any(name.startswith(_READ_AT_THE_START) for name in env):
        return subprocess.run(
            [PROGRAM, *args],
            env=environment(env),
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=SECONDS,
            check=False,
        )
    return _ended(_command, args, environment(env), stdin)


def run_manage(project: Path, *args: str, env: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    """The same of `python manage.py ...` in the folder of a Django project."""
    return _ended(_manage, (str(project), *args), os.environ | {"PYTHONPATH": str(ROOT)} | dict(env))


def _ended(
    program: Callable[..., None], args: Sequence[str], env: Mapping[str, str], stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    with _forked(program, args, env, stdin) as process:
        output, errors = process.communicate()
        assert process.returncode is not None
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


class Begun:
    """A command that runs, with what subprocess.Popen has."""

    def __init__(self, folder: Path, program: Callable[..., None], args: Sequence[str], env: Mapping[str, str]) -> None:
        self._folder, self.args = folder, [PROGRAM, *args]
        self._process = _forks.Process(target=_run, args=(folder, program, args, env))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = SECONDS) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def line(self, number: int) -> str:
        """Of what it prints, the line of that number from 0, once it is there."""
        deadline = time.monotonic() + SECONDS
        while len(printed := (self._folder / "1").read_text(encoding="utf-8").split("\n")) < number + 2:
            assert time.monotonic() < deadline, f"line {number} is not printed: {printed}"
            time.sleep(0.01)
        return printed[number]

    def communicate(self, timeout: float = SECONDS) -> tuple[str, str]:
        """What it printed, and to stderr, once it has ended."""
        self.wait(timeout)
        output, errors = ((self._folder / name).read_text(encoding="utf-8") for name in "12")
        return output, errors


def begun(*args: str, env: Mapping[str, str] = {}) -> AbstractContextManager[Begun]:
    """begun("relay", "--database", dsn): the command, no terminal being there; killed at the end of the block."""
    return _forked(_command, args, environment(env))


@contextmanager
def _forked(
    program: Callable[..., None], args: Sequence[str], env: Mapping[str, str], stdin: str = ""
) -> Iterator[Begun]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, text in (("0", stdin), ("1", "")):
            (folder / number).write_text(text, encoding="utf-8")
        process = Begun(folder, program, args, env)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _run(folder: Path, program: Callable[..., None], args: Sequence[str], env: Mapping[str, str]) -> None:
    for number, mode in enumerate(("rb", "wb", "wb")):
        with (folder / str(number)).open(mode) as file:
            os.dup2(file.fileno(), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - multiprocessing closed it
    os.environ.clear()
    os.environ.update(env)
    program(*args)


def _command(*args: str) -> None:
    sys.argv = [PROGRAM, *args]
    from pycheckout.cli import main

    main()


def _manage(project: str, *args: str) -> None:
    os.chdir(project)
    sys.path.insert(0, project)
    sys.argv = ["manage.py", *args]
    runpy.run_path("manage.py", run_name="__main__")


def run_in_terminal(*args: str, answer: str = "") -> tuple[int, str]:
    """Its exit code, and all that it shows in a terminal of 120 columns where somebody types `answer`."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen(
        [PROGRAM, *args],
        env=environment({"TERM": "xterm-256color"}),
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
