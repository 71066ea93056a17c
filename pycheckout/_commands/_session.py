"""A session with a database, and what is said where something is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import typer
from psycopg.rows import dict_row

from .. import _conninfo
from .._checkout import Checkout
from .._errors import CheckoutError, NotInstalled, translated
from .._migrate import _parameters
from ._app import AGAIN, FAILED
from ._printing import stderr

_OWNER = f"""
select there.owner, format('select %%I.%%I(%%L);', there.schema, %(grant)s::text, %(role)s::text) as call
  from ({_conninfo.INSTALLATIONS}) as there
 where there.schema = coalesce(%(schema)s, current_schema())
"""


@contextmanager
def connected(
    database: str, schema: str | None, as_json: bool = False, grant: str = "", market: str | None = None
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A session in which each statement is its own transaction. `grant`: what lets a role do this that may not."""
    with refusals(as_json, market=market):
        params = _conninfo.KEEPALIVE | _parameters(database) | {"application_name": "pycheckout"}
    with (
        refusals(as_json, params, schema, grant, market),
        # Behind a transaction pooler a prepared statement may be missing on the next backend.
        psycopg.connect(**params, autocommit=True, prepare_threshold=None, row_factory=dict_row) as conn,
    ):
        yield conn


def checkout(conn: psycopg.Connection[dict[str, Any]], schema: str | None) -> Checkout:
    """The calls in this schema; by default in the one of the search_path that has them."""
    return Checkout(conn, schema=_conninfo.found_schema(conn) if schema is None else schema)


@contextmanager
def refusals(
    as_json: bool = False,
    params: Mapping[str, Any] = {},
    schema: str | None = None,
    grant: str = "",
    market: str | None = None,
) -> Iterator[None]:
    """Say what was refused in a line, with its remedy, instead of showing a traceback."""
    try:
        yield
    except (CheckoutError, psycopg.Error) as exc:
        error = exc if isinstance(exc, CheckoutError) else translated(exc) or unnamed(exc)
        if error.sqlstate == "42501" and params:
            error.hint = _way_in(params, schema, grant) or error.hint
        elif isinstance(error, NotInstalled) and "schema=" in (error.hint or ""):  # as a caller in Python says it
            error.hint = "Run `pycheckout migrate`, or name the schema that has it with --schema."
        if as_json:
            fields = {name: getattr(error, name) for name in ("code", "sqlstate", "message", "detail", "hint")}
            if market is not None:
                fields["market"] = market
            typer.echo(json.dumps({"error": fields}), err=True)
        else:
            where = "" if market is None else f"market {market}: "
            stderr.print(f"pycheckout: {where}{error.message}", style="red")
            if error.hint:
                stderr.print(f"hint: {error.hint}")
        raise typer.Exit(AGAIN if error.retryable else FAILED) from exc


def unnamed(exc: psycopg.Error) -> CheckoutError:
    """An error that is none of ours. Without its DETAIL, which may quote a row, and so an address."""
    return CheckoutError(
        exc.diag.message_primary or str(exc),
        sqlstate=exc.sqlstate,
        hint=exc.diag.message_hint,
    )


def _way_in(params: Mapping[str, Any], schema: str | None, grant: str) -> str | None:
    """Who may do what this role may not."""
    with (
        suppress(psycopg.Error),
        psycopg.connect(**{**_conninfo.KEEPALIVE, **params}, autocommit=True, row_factory=dict_row) as conn,
        _conninfo.in_schema(conn, schema),
    ):
        role = conn.info.user
        found = conn.execute(_OWNER, {"schema": schema, "grant": grant, "role": role}).fetchone()
        owner = f'"{found["owner"]}", who owns pycheckout here' if found else "the owner of its tables"
        way = f'Role "{role}" may not do this: connect as {owner}'
        return f"{way}, or let the owner run: {found['call']}" if found and grant else f"{way}."
    return None
