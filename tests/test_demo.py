"""`make demo` tells the truth and leaves nothing behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from pycheckout.demo.report import money
from races import wait_until


def environment(folder):
    return os.environ | {"TMPDIR": str(folder), "COLUMNS": "100"}


@pytest.fixture
def demo_folder():
    """A temp folder of the demo's own: with a short path, since the server puts a socket there."""
    with tempfile.TemporaryDirectory(prefix="demo-") as folder:
        path = Path(folder)
        path.chmod(0o711)  # the server's user passes through
        yield path


def processes_in(folder):
    """Pids of the processes that work in this folder, as a server and each of its backends does."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.readlink(process / "cwd").startswith(f"{folder}/"):
                found.append(int(process.name))
    return found


def leaves_nothing(folder, within=10):
    deadline = time.monotonic() + within
    while (left := [*folder.iterdir(), *processes_in(folder)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left == []


def where_orders_were_left(shown):
    """Each step after the checkout, and total, due and to be given back of its orders."""
    steps = []
    for line in shown[shown.index("What becomes of it") : shown.index("The run")].splitlines()[1:-1]:
        if line.startswith("  "):
            figures = re.search(r"total ([\d.]+), due ([\d.]+), to be given back ([\d.]+)$", line).groups()
            steps[-1][1].append(tuple(int(figure.replace(".", "")) for figure in figures))
        else:
            steps.append((line, []))
    return steps


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
    assert "a retry with the same key: replayed True, same ids and amounts True" in shown
    assert "a second try with another key: replayed True, same ids and amounts True" in shown
    assert "checkout.vendor_orders_created version 1" in shown
    assert "checkout.converted version 1" in shown
    assert re.search(r"  shipping Truck route 7 +4\.99", shown)
    assert re.search(r"  tax +\d+\.\d\d", shown)
    assert re.search(r"sends nothing below 2\.00 USD, and here is 0\.\d\d USD", shown)
    assert "rejected: below_minimum" in shown
    assert where_orders_were_left(shown) == [
        ("One charge of 30.51 USD pays 2 orders; told again, it pays 0:", [(1446, 0, 0), (1605, 0, 0)]),
        ("1 of 3 SOFT DRINKS 12/18&15PK CAN CAR is turned down, and 2 are left:", [(1334, 0, 271)]),
        ("The provider tells of the refund:", [(1334, 0, 0)]),
        (
            "The same basket, to be paid within a second, holds 6 units. It is not paid: 6 are there again:",
            [(0, 0, 0), (0, 0, 0)],
        ),
        ("Its money comes a moment too late, and is recorded:", [(0, 0, 1446), (0, 0, 1605)]),
    ]
    assert re.search(r"carts checked out +354 ", shown)
    assert re.search(r"carts refused +3 \(3 no_orderable_items\)", shown)
    assert re.search(r"OC004 no_orderable_items:\n  cart \S+ has no orderable items\n  HINT: ", shown)
    assert re.search(r"ad tokens dropped .*expired", shown)
    assert re.search(r"confirmed +[\d,]+\.\d\d USD", shown)
    assert "checkout_audit(): 0 broken invariants" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert leaves_nothing(demo_folder, within=0)


@pytest.mark.parametrize(
    ("how", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGKILL, -signal.SIGKILL)],
    ids=["ctrl-c", "terminated", "killed"],
)
def test_a_demo_that_is_cut_short_leaves_nothing_behind(demo_folder, how, status):
    """Ctrl-C when it has migrated and goes on; the signals that it does not catch as soon as its server listens."""
    demo = subprocess.Popen(
        [sys.executable, "-m", "pycheckout.demo"],
        env=environment(demo_folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    with demo:
        if how == signal.SIGINT:
            for line in demo.stdout:
                if "migrations" in line:
                    break
        else:
            wait_until(lambda: list(demo_folder.glob("*/.s.PGSQL.*[0-9]")), timeout=30)
        assert processes_in(demo_folder)
        demo.send_signal(how)

        assert demo.wait(timeout=30) == status
    assert leaves_nothing(demo_folder)


def test_ctrl_c_while_the_server_starts_leaves_nothing_behind(demo_folder):
    demo = subprocess.Popen([sys.executable, "-m", "pycheckout.demo"], env=environment(demo_folder))
    wait_until(lambda: list(demo_folder.iterdir()), timeout=30)
    demo.send_signal(signal.SIGINT)

    assert demo.wait(timeout=30) == 130
    assert leaves_nothing(demo_folder)


@pytest.mark.parametrize(
    ("cents", "currency", "shown"),
    [
        *((123456, "USD", "1,234.56 USD"), (-5, "EUR", "-0.05 EUR"), (1234, "JPY", "1,234 JPY")),
        *((1234, "KWD", "1.234 KWD"), (5, "BHD", "0.005 BHD"), (12345, "CLF", "1.2345 CLF"), (7, "XYZ", "0.07 XYZ")),
        (12345, "jpy", "12,345 jpy"),  # a host's own quote may be in small letters
    ],
)
def test_money_has_as_many_digits_as_its_currency(cents, currency, shown):
    assert money(cents, currency) == shown
