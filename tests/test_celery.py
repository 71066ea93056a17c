"""The recipe for Celery in docs/services.md, as it stands there: a real worker on Redis dies after the COMMIT."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from brokers import running
from celery import Celery
from pages import block, section

from checks import values
from factories import request_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")

# What a worker runs: the recipe, and an execute that the first time is the last thing its process does.
WORKER = """
import os, signal
from pathlib import Path
import pycheckout

done, broker, dsn = Path({done!r}), {broker!r}, {dsn!r}
really = pycheckout.execute

def execute(*args, **kwargs):
    result = really(*args, **kwargs)
    with done.open("a") as file:
        file.write(f"{{kwargs['idempotency_key']}} {{result.replayed}}\\n")
    if not result.replayed:
        for process in {who_dies}:
            os.kill(process, signal.SIGKILL)
    return result

pycheckout.execute = execute
{recipe}
app.conf.broker_transport_options = {{"visibility_timeout": 0.1}}  # over before the next worker asks
app.conf.worker_redirect_stdouts = False
"""


def recipe():
    return block(section(PAGE, "Celery"), "python")


@contextmanager
def worker(folder):
    """A worker with one process, for the length of the block; it may be dead by then."""
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker", "-c", "1", "-l", "INFO"]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*command, "--without-gossip", "--without-mingle", "--without-heartbeat"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "C_FORCE_ROOT": "1"},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_for(condition, folder):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
        time.sleep(0.05)


@pytest.mark.parametrize("dies", ["the process", "the worker"])
def test_a_task_that_is_delivered_again_orders_once(tmp_path, dsn, db, add_cart, dies):
    cart = add_cart()
    request = {name: value for name, value in request_of(cart).items() if name != "idempotency_key"}
    done = tmp_path / "done"
    who = "[os.getpid()]" if dies == "the process" else "[os.getppid(), os.getpid()]"
    with running("redis") as redis:
        text = WORKER.format(done=str(done), broker=redis.url, dsn=dsn, who_dies=who, recipe=recipe())
        (tmp_path / "worker.py").write_text(text)
        with Celery(broker=redis.url) as sender:
            asked = json.loads(json.dumps(request, default=str))
            sender.send_task("worker.check_out", [asked], task_id="k1")
        with worker(tmp_path) as first:
            if dies == "the worker":
                first.wait(timeout=60)
                assert done.read_text() == "k1 False\n"
            else:
                wait_for(lambda: done.exists() and done.read_text().count("\n") == 2, tmp_path)
        if dies == "the worker":
            with worker(tmp_path):
                wait_for(lambda: done.read_text().count("\n") == 2, tmp_path)

    assert done.read_text() == "k1 False\nk1 True\n"
    assert values(db, "select count(*) from vendor_orders") == [2]
    assert values(db, "select idempotency_key from checkout_requests") == ["k1"]
