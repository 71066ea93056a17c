"""A run of the suite that is killed leaves databases behind on a server that lives on; the next run is green."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from pycheckout._embedded import embedded_server
from races import wait_until

HERE = Path(__file__).parent
SOME_TESTS = "test_payment_intents.py"
# Those that the suite needs; others, which pytest would find, take seconds to import.
PLUGINS = ["-p", "xdist", "-p", "pytest_timeout", "-p", "pytest_postgresql.plugin", "-p", "no:cacheprovider"]


def start_suite(dsn):
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-n", "1", "-q", *PLUGINS, str(HERE / SOME_TESTS)],
        cwd=HERE.parent,
        env=os.environ | {"TEST_DATABASE_URL": dsn, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # xdist's worker is killed with it
    )


def test_the_suite_runs_after_it_was_killed_half_way():
    with embedded_server(max_connections=50, fsync=False, in_memory=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            killed = start_suite(server.dsn())
            # a test is running: its clone of the template is there
            query = "select count(*) from pg_database where datname ~ '^pycheckout_test.*gw0$'"

            def started():
                assert killed.poll() is None, killed.stdout.read()
                return conn.execute(query).fetchone() != (0,)

            wait_until(started, timeout=60)
            os.killpg(killed.pid, signal.SIGKILL)
            killed.communicate()
            assert conn.execute("select count(*) from pg_database where datname ~ '^pycheckout'").fetchone()[0] > 0

        again = start_suite(server.dsn())
        output, _ = again.communicate(timeout=120)
        assert again.returncode == 0, output
