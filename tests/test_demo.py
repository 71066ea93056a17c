"""`make demo` tells the truth and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest


def environment(folder):
    return os.environ | {"TMPDIR": str(folder), "COLUMNS": "100"}


@pytest.fixture
def demo_folder():
    """A temp folder of the demo's own: with a short path, since the server puts a socket there."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        path = Path(folder)
        path.chmod(0o711)  # the server's user passes through
        yield path


def test_the_demo_shows_a_run_whose_audit_is_clean(demo_folder):
    done = subprocess.run(
        [sys.executable, "-m", "pycheckout.demo"],
        env=environment(demo_folder),
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    shown = done.stdout
    assert "357 real baskets (3,815 lines) are quoted carts now." in shown
    assert "insufficient_inventory" in shown
    assert "replayed: True; same orders: True" in shown
    assert "checkout.vendor_orders_created version 1" in shown
    assert "checkout.converted version 1" in shown
    assert re.search(r"carts checked out +354 ", shown)
    assert re.search(r"carts refused +3 \(3 no_orderable_items\)", shown)
    assert "checkout_audit(): 0 broken invariants" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert list(demo_folder.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing_behind(demo_folder):
    demo = subprocess.Popen(
        [sys.executable, "-m", "pycheckout.demo"],
        env=environment(demo_folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    for line in demo.stdout:
        if "migrations" in line:
            break
    demo.send_signal(signal.SIGINT)

    assert demo.wait(timeout=30) == 130
    deadline = time.monotonic() + 10
    while list(demo_folder.iterdir()):
        assert time.monotonic() < deadline, list(demo_folder.iterdir())
        time.sleep(0.05)
