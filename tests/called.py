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
from pytest_postgresql.janitor import DatabaseJanitor

from races import wait_until

_END_OTHERS = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
"""


def pytest_configure(config: pytest.Config) -> None:
    into = Path(os.environ["CALLED"])
    init, drop, error_from_result = DatabaseJanitor.init, DatabaseJanitor.drop, psycopg.errors.error_from_result
    raised: set[str] = set()

    def note_and_raise(result: Any, **options: Any) -> psycopg.Error:
        context = (result.error_field(DiagnosticField.CONTEXT) or b"").decode(errors="replace")
        raised.update(re.findall(r"\bfunction (?:\w+\.)?(\w+)\(", context))
        return error_from_result(result, **options)

    def init_and_count(self: DatabaseJanitor) -> None:
        if self.is_template():
            with self.cursor() as cur:
                cur.execute("alter system set track_functions = 'all'")
                cur.execute("select pg_reload_conf()")
        init(self)

    def write_and_drop(self: DatabaseJanitor) -> None:
        test, _, stage = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")
        if stage == "(teardown)" and not self.is_template():
            with self.cursor(self.dbname) as cur:
                # a session hands in what it counted when it ends, and some test leaves that to its pool
                wait_until(lambda: not cur.execute(_END_OTHERS).fetchall(), "somebody stays connected")
                names = cur.execute("select distinct funcname from pg_stat_user_functions order by 1").fetchall()
            line = json.dumps({"test": test, "functions": [name for (name,) in names], "raised": sorted(raised)})
            raised.clear()
            with into.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        drop(self)

    DatabaseJanitor.init, DatabaseJanitor.drop = init_and_count, write_and_drop  # type: ignore[method-assign]
    psycopg.errors.error_from_result = note_and_raise
