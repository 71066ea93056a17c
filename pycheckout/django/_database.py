"""Between an alias of Django's and a schema of ours."""

from __future__ import annotations

import re
import sys
from typing import Any

import psycopg
from django.conf import settings
from django.db import connections, router
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from psycopg.conninfo import make_conninfo

from .. import _migrate
from .._errors import MigrationError

LABEL = "pycheckout"
MIGRATION = "0001_pycheckout"


def schema() -> str | None:
    """Where pycheckout is installed; None is the first schema of the search_path."""
    name: str | None = getattr(settings, "PYCHECKOUT_SCHEMA", None)
    return name


def conninfo(connection: Any) -> str:
    """The server, database and role of an alias, as libpq names them."""
    known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    params = {name: value for name, value in connection.get_connection_params().items() if name in known}
    if role := connection.settings_dict["OPTIONS"].get("assume_role"):
        escaped = re.sub(r"([\\ ])", r"\\\1", role)
        params["options"] = f"{params.get('options', '')} -c role={escaped}".strip()
    return make_conninfo(**params)


def belongs(connection: Any) -> bool:
    """Whether pycheckout belongs into the database of an alias at all."""
    return connection.vendor == "postgresql" and bool(router.allow_migrate(connection.alias, LABEL))


def has_migrations() -> bool:
    """Whether the project uses the app's migration; MIGRATION_MODULES may say otherwise."""
    module, _ = MigrationLoader.migrations_module(LABEL)
    return module is not None


def is_applied(connection: Any) -> bool:
    """Whether the app's migration is applied there, or the project does without it."""
    return not has_migrations() or (LABEL, MIGRATION) in MigrationRecorder(connection).applied_migrations()


def install(connection: Any) -> _migrate.Migrated | None:
    """`pycheckout.migrate` on the database of an alias, over a connection of its own; None if it does not belong there.

    Raises MigrationError inside a transaction, whose locks it could wait for without an end.
    """
    if not belongs(connection):
        return None
    _refuse_transaction(connection)
    with connection.cursor() as cursor:
        # One that is there needs no right to create schemas.
        cursor.execute("select to_regnamespace(quote_ident(%s)) is null", [schema()])
        [missing] = cursor.fetchone()
    return _migrate.migrate(conninfo(connection), schema=schema(), create_schema=schema() is not None and missing)


def uninstall(connection: Any) -> None:
    """`pycheckout.rollback` likewise; raises MigrationError if rows would be lost."""
    if belongs(connection):
        _refuse_transaction(connection)
        _migrate.rollback(conninfo(connection), schema=schema())


def install_without_migrations(using: str, **signal: Any) -> None:
    """Before `manage.py migrate`, in a project without migrations: tables of its own may lead to ours."""
    if not has_migrations():
        install(connections[using])


def deploy(using: str, verbosity: int = 1, **signal: Any) -> None:
    """After `manage.py migrate`: what a later release of the package has, the database gets.

    After `flush`, which sends the same signal, there is nothing to do; nor if the migration itself was run just now.
    """
    plan = signal.get("plan")
    connection = connections[using]
    if plan is None or not belongs(connection) or not has_migrations() or not is_applied(connection):
        return
    if any((migration.app_label, migration.name) == (LABEL, MIGRATION) for migration, _ in plan):
        return
    done = install(connection)
    if verbosity >= 1 and done is not None and done.migrations:
        stdout = signal.get("stdout") or sys.stdout
        stdout.write(f"  Applied of pycheckout {done.version}: {', '.join(done.migrations)}\n")


def _refuse_transaction(connection: Any) -> None:
    if connection.in_atomic_block or not connection.get_autocommit():
        raise MigrationError(
            f'pycheckout cannot migrate "{connection.alias}" inside a transaction',
            hint="Run `manage.py migrate` outside of atomic(), and not in a TestCase.",
        )
