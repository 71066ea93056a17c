"""A plugin for pytest that writes down which functions of its database each test called.

    CALLED=calls.jsonl python -m pytest -p called

A line a test: {"test": id, "functions": [name, ...], "raised": [name, ...]}; of tests that share a database each is
said to have called what any of them did. Functions that the planner inlines are not counted by PostgreSQL, nor are
calls that raise: those are known from the error's context, where psycopg met it. tests/mutants.py asks for it: a mutant
meets those that can tell it from the original.
"""

import json
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import clones
import psycopg
import pytest
from psycopg.pq import DiagnosticField

from races import wait_until

_END_OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""

_tests: defaultdict[str, list[str]] = defaultdict(list)
"""Those of a file that have begun."""
_raised: set[str] = set()


def pytest_configure(config: pytest.Config) -> None:
    into = Path(os.environ["CALLED"])
    make, drop, error_from_result = clones.make, clones.drop, psycopg.errors.error_from_result

    def note_and_raise(result: Any, **options: Any) -> psycopg.Error:
        context = (result.error_field(DiagnosticField.CONTEXT) or b"").decode(errors="replace")
        _raised.update(re.findall(r"\bfunction (?:\w+\.)?(\w+)\(", context))
        return error_from_result(result, **options)

    def make_and_count(admin: psycopg.Connection, name: str, *template: str) -> None:
        admin.execute("alter system set track_functions = 'all'")
        admin.execute("select pg_reload_conf()")
        make(admin, name, *template)

    def write_and_drop(admin: psycopg.Connection, name: str) -> None:
        test, _, stage = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
        if stage == "(teardown)" and name.startswith(("pycheckout_test", "pycheckout_shared")):
            with psycopg.connect(admin.info.dsn, password=admin.info.password, dbname=name, autocommit=True) as conn:
                # a session hands in what it counted when it ends, and some test leaves that to its pool
                wait_until(lambda: not conn.execute(_END_OTHERS).fetchall(), "somebody stays connected")
                names = conn.execute("select distinct funcname from pg_stat_user_functions order by 1").fetchall()
            is_shared = name.startswith("pycheckout_shared")
            _write(into, _tests[_file(test)] if is_shared else [test], [called for (called,) in names], ())
        drop(admin, name)

    clones.make, clones.drop = make_and_count, write_and_drop
    psycopg.errors.error_from_result = note_and_raise


def pytest_runtest_setup(item: pytest.Item) -> None:
    _tests[_file(item.nodeid)].append(item.nodeid)


def pytest_runtest_logfinish(nodeid: str) -> None:
    if _raised:
        _write(Path(os.environ["CALLED"]), [nodeid], (), sorted(_raised))
        _raised.clear()


def _file(test: str) -> str:
    return test.partition("::")[0]


def _write(into: Path, tests: Sequence[str], functions: Sequence[str], raised: Sequence[str]) -> None:
    lines = [json.dumps({"test": test, "functions": functions, "raised": raised}) for test in tests]
    with into.open("ab", buffering=0) as file:  # at once: others write there too
        file.write("".join(f"{line}\n" for line in lines).encode())
