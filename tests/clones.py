"""The databases of the tests: each is made of a template, and dropped."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql


def make(admin: psycopg.Connection, name: str, template: str = "template0") -> None:
    """In place of one that a run left behind that was killed."""
    # a small one: half of the time of wal_log
    strategy = sql.SQL("create database {} template {} strategy file_copy")
    made = strategy.format(sql.Identifier(name), sql.Identifier(template))
    try:
        admin.execute(made)
    except psycopg.errors.DuplicateDatabase:
        drop(admin, name)
        admin.execute(made)


def drop(admin: psycopg.Connection, name: str) -> None:
    # Sessions that were just closed end within milliseconds; DROP DATABASE sleeps 100 ms between two looks at them.
    sessions = "select from pg_stat_activity where datname = %s"
    deadline = time.monotonic() + 0.1
    while time.monotonic() < deadline and admin.execute(sessions, [name]).fetchone() is not None:
        time.sleep(0.002)
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@contextmanager
def cloned(admin: psycopg.Connection, name: str, template: str) -> Iterator[str]:
    """That database's name, as long as the block runs."""
    make(admin, name, template)
    yield name
    drop(admin, name)
