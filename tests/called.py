"""A plugin for pytest that writes down which functions of its database each test called.

    CALLED=calls.jsonl python -m pytest -p called

A line a test that had a database of its own: {"test": id, "functions": [name, ...], "raised": [name, ...]}. Functions
that the planner inlines are not counted by PostgreSQL, nor are calls that raise: those are known from the error's
context, where psycopg met it. tests/mutants.py asks for it: a mutant meets those that can tell it from the original.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.pq import DiagnosticField

from races import wait_until

_END_OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""


def pytest_collection_finish(session: pytest.Session) -> None:
    into = Path(os.environ["CALLED"])
    [conftest] = (
        plugin
        for plugin in session.config.pluginmanager.get_plugins()
        if Path(getattr(plugin, "__file__", None) or "") == Path(__file__).with_name("conftest.py")
    )
    make, drop, error_from_result = conftest._make, conftest._drop, psycopg.errors.error_from_result
    raised: set[str] = set()

    def note_and_raise(result: Any, **options: Any) -> psycopg.Error:
        context = (result.error_field(DiagnosticField.CONTEXT) or b"").decode(errors="replace")
        raised.update(re.findall(r"\bfunction (?:\w+\.)?(\w+)\(", context))
        return error_from_result(result, **options)

    def make_and_count(admin: psycopg.Connection, name: str, *template: str) -> None:
        admin.execute("alter system set track_functions = 'all'")
        admin.execute("select pg_reload_conf()")
        make(admin, name, *template)

    def write_and_drop(admin: psycopg.Connection, name: str) -> None:
        test, _, stage = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
        if stage == "(teardown)" and name.startswith("pycheckout_test"):
            with psycopg.connect(admin.info.dsn, password=admin.info.password, dbname=name, autocommit=True) as conn:
                # a session hands in what it counted when it ends, and some test leaves that to its pool
                wait_until(lambda: not conn.execute(_END_OTHERS).fetchall(), "somebody stays connected")
                names = conn.execute("select distinct funcname from pg_stat_user_functions order by 1").fetchall()
            line = json.dumps({"test": test, "functions": [name for (name,) in names], "raised": sorted(raised)})
            raised.clear()
            with into.open("ab", buffering=0) as file:  # at once: others write there too
                file.write(f"{line}\n".encode())
        drop(admin, name)

    conftest._make, conftest._drop = make_and_count, write_and_drop
    psycopg.errors.error_from_result = note_and_raise
