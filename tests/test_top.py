"""`pycheckout top`: what a person sees of a database on one screen, in 80 columns."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios

import pytest
from command import PROGRAM, environment, run_command
from psycopg.conninfo import make_conninfo
from roles import PASSWORD

import pycheckout
from races import blocked


def lines(dsn: str, *args: str) -> list[str]:
    done = run_command("top", "--once", "--database", dsn, *args, env={"COLUMNS": "80"})
    assert done.returncode == 0, done.stderr
    return [line.rstrip() for line in done.stdout.splitlines()]


def test_a_database_at_rest_fits_in_a_few_lines(dsn):
    shown = lines(dsn)
    assert f"pycheckout {pycheckout.__version__}" in shown[0] and "schema public, primary" in shown[0]
    assert [line.split()[0] for line in shown[1:]] == [
        "checkouts", "waits", "quotes", "orders", "events", "snapshot", "audit",
    ]  # fmt: skip
    assert max(map(len, shown)) <= 80


def test_who_waits_for_whom_and_for_what(db, dsn, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=1)
    product = str(cart.items[0].product_id)
    holder = connect()
    holder.execute("/* a forgotten session */ select from inventory_items where product_id = %s for update", (product,))
    waiting = connect()
    with blocked(db, checkout_sql, waiting, cart):
        shown = lines(dsn)
        [told] = run_command("top", "--once", "--json", "--database", dsn).stdout.splitlines()
        holder.rollback()

    assert max(map(len, shown)) <= 80
    assert any(re.match(rf"{product} +1 +1$", line) for line in shown)
    [wait] = [line for line in shown if line.startswith(str(waiting.info.backend_pid))]
    assert str(holder.info.backend_pid) in wait and "idle in transaction" in wait
    found = json.loads(told)
    assert found["products"] == [{"product_id": product, "slots": 1, "waiters": 1}]
    assert (found["sessions_waiting"], found["waits"][0]["blocker_pid"]) == (1, holder.info.backend_pid)
    assert "a forgotten session" in found["waits"][0]["blocker_query"]


@pytest.mark.breaks_invariants
def test_what_is_wrong_is_said(db, dsn, add_cart, checkout_sql):
    checkout_sql(db, add_cart(vendors=1, lines=2, items={(0, 1): {"quantity": 101}}))
    db.execute("update vendor_orders set expires_at = now() - interval '10 minutes'")
    db.execute("update outbox_events set next_attempt_at = now() - interval '3 hours'")
    db.execute("update inventory_items set reserved_qty = reserved_qty + 1")
    assert run_command("audit", "--database", dsn).returncode == 3
    text = "\n".join(lines(dsn))

    assert "1 of the newest 2 lines short of stock" in text
    assert "1 overdue by 10 min" in text
    assert "2 to be published, one is due for 3 h" in text
    assert re.search(r"audit +\d+ broken invariants?, \d+\.\d s ago", text)


def test_an_operator_may_look_and_another_role_is_told_who_may(db, dsn, new_role):
    role = new_role()
    own = make_conninfo(dsn, user=role, password=PASSWORD)
    refused = run_command("top", "--once", "--database", own)
    assert (refused.returncode, "checkout_grant_operators" in refused.stderr) == (1, True)
    db.execute("select checkout_grant_operators(%s)", (role,))
    assert len(lines(own)) == 8


def test_it_looks_again_until_it_is_interrupted(dsn):
    command = [PROGRAM, "top", "--json", "--every", "200ms", "--database", dsn]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    looks = [json.loads(process.stdout.readline()) for _ in range(2)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert looks[0]["at"] <= looks[1]["at"] and looks[0]["database"] == looks[1]["database"]


def test_in_a_terminal_of_80_columns_it_is_a_screen_of_its_own_until_ctrl_c(dsn):
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    env = environment({"TERM": "xterm-256color"})
    env.pop("COLUMNS")
    command = [PROGRAM, "top", "--database", dsn, "--every", "200ms"]
    process = subprocess.Popen(command, env=env, stdin=its, stdout=its, stderr=its)
    os.close(its)
    try:
        shown = b""
        while shown.count(b"checkouts") < 3:  # it was drawn again
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        os.close(ours)
    assert "\x1b[?1049h" in shown.decode()
