"""The system check of `manage.py check --database`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import psycopg
from django.core import checks
from django.db import connections
from psycopg.rows import dict_row

from .. import _doctor
from ._database import belongs, conninfo, is_applied, schema


def look(app_configs: object, databases: Sequence[str] | None = None, **kwargs: Any) -> list[checks.CheckMessage]:
    """What `pycheckout doctor` finds, each a warning whose id is the finding's name, such as `pycheckout.schema_open`.

    Warnings, because Django looks before it migrates, and must not be kept from it. Of a database where the app's
    migration is not applied yet nothing is said.
    """
    return [warning for alias in databases or () for warning in _warnings(connections[alias])]


def _warnings(connection: Any) -> Iterator[checks.CheckMessage]:
    if not belongs(connection) or not is_applied(connection):
        return
    with closing(psycopg.connect(conninfo(connection), autocommit=True, row_factory=dict_row)) as conn:
        try:
            found = _doctor.findings(conn, schema())
        except psycopg.errors.InsufficientPrivilege as exc:
            message = (
                f'the role of database "{connection.alias}" may not look at pycheckout: {exc.diag.message_primary}'
            )
            yield checks.Warning(
                message, hint="Look as the owner, with `pycheckout doctor`.", id="pycheckout.unreadable"
            )
            return
    for finding in found:
        yield checks.Warning(
            f"{finding.subject} {finding.problem}",
            hint=finding.remedy.replace("pycheckout migrate", "manage.py migrate"),
            obj=connection.alias,
            id=f"pycheckout.{finding.check}",
        )
