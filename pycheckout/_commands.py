"""The commands of `pycheckout`; see `pycheckout.cli`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, cast

import psycopg
import typer
from psycopg.rows import dict_row
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from . import _audit, _doctor
from ._checkout import AdTokenPolicy, CheckoutCalls, ReservationPolicy
from ._errors import CheckoutError, translated
from ._migrate import _parameters, migrate, plan, plan_sql, rollback
from ._money import amount, money
from ._release import release
from ._types import ActiveCart, CheckoutResult, build

FAILED, FOUND, AGAIN = 1, 3, 4
"""Exit codes beside 0, and 2, which is wrong usage."""

_TABLE_ROWS = 1000  # of an audit's findings; --json shows all

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="The checkout of a multi-vendor marketplace, inside PostgreSQL: install it, look at it, use it.",
    epilog="Exit codes: 0 done; 1 refused or failed, or the doctor found something; 2 wrong usage; "
    "3 the audit found something; 4 execute or show met a busy or absent server, and may be run again.",
)
keys = typer.Typer(no_args_is_help=True, help="Keys that sign ad tokens.")

_errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_INSTALL, _CHECKOUT, _WATCH = "Install", "Check out", "Watch"

Database = Annotated[
    str,
    typer.Option(
        envvar="PYCHECKOUT_DATABASE_URL",
        help="A libpq URL or DSN; without it, libpq's own variables (PGHOST, PGDATABASE, ...) count.",
    ),
]
Schema = Annotated[str | None, typer.Option(help="The schema to work in; by default the first of the search_path.")]
Json = Annotated[bool, typer.Option("--json", help="JSON for programs, errors included.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(release())
        raise typer.Exit()


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the release and exit.")
    ] = False,
) -> None:
    pass


# Install


@app.command("migrate", rich_help_panel=_INSTALL)
def migrate_command(
    database: Database = "",
    schema: Schema = None,
    create_schema: Annotated[bool, typer.Option(help="Make the schema if it is missing.")] = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that would be run, to read it.")] = False,
    as_json: Json = False,
) -> None:
    """Apply what is pending and deploy the functions of this release."""
    if show_plan and show_sql:
        raise typer.BadParameter("give --plan or --sql, and not both")
    with _refusals(as_json):
        if show_plan or show_sql:
            planned = plan(database, schema=schema)
        else:
            done = migrate(database, schema=schema, create_schema=create_schema)
    if show_sql:
        for text in plan_sql(planned):
            typer.echo(text)
    elif as_json:
        typer.echo(json.dumps(asdict(planned if show_plan else done)))
    elif show_plan:
        for each in planned.pending:
            rows = f"{each.rows:,} rows, about {max(each.seconds, 1):.0f} s; " if each.rows else ""
            typer.echo(f"would apply {each.migration}: {rows}{each.lock}")
        there = f"has the functions of {planned.installed}" if planned.installed else "has no functions"
        change = f"would get those of {planned.version}" if planned.changes_functions else "would keep them"
        typer.echo(f"schema {planned.schema} {there}, and {change}")
        for problem in planned.problems:
            _errors.print(f"in the way: {problem['message']}", style="red")
            _errors.print(f"hint: {problem['hint']}")
    else:
        for name in done.migrations:
            typer.echo(f"applied {name}")
        typer.echo(f"schema {done.schema} has pycheckout {done.version}")
    if show_plan and planned.problems:
        raise typer.Exit(FAILED)


@app.command("rollback", rich_help_panel=_INSTALL)
def rollback_command(
    database: Database = "",
    schema: Schema = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take pycheckout out of a schema; refused where rows would be lost."""
    if not yes:
        typer.confirm("Roll back every migration of pycheckout?", abort=True, err=as_json)
    with _refusals(as_json):
        undone = rollback(database, schema=schema)
    if as_json:
        typer.echo(json.dumps(asdict(undone)))
    else:
        for name in undone.migrations:
            typer.echo(f"rolled back {name}")


@app.command(rich_help_panel=_INSTALL)
def doctor(
    database: Database = "",
    schema: Schema = None,
    backlog: Annotated[
        float, typer.Option(metavar="MINUTES", min=0, help="How long an event may wait to be published.")
    ] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a finding.")] = False,
) -> None:
    """Look at the installation: release, rights, time-outs, autovacuum, backlog. Exit code 1 if something is wrong."""
    with _connected(database, schema, as_json) as conn:
        found = _doctor.findings(conn, schema, timedelta(minutes=backlog))
    if as_json:
        for finding in found:
            typer.echo(json.dumps(asdict(finding)))
    else:
        console = Console(soft_wrap=True, highlight=False)
        for finding in found:
            console.print(f"[red]{finding.check}[/]: {escape(finding.subject)} {escape(finding.problem)}")
            console.print(f"  [bold]remedy:[/] {escape(finding.remedy)}")
        if not found:
            console.print("nothing is wrong", style="green")
    raise typer.Exit(FAILED if found else 0)


# Check out


Buyer = Annotated[str, typer.Option(metavar="UUID", help="The buyer's store.")]
Cart = Annotated[str, typer.Option(metavar="UUID", help="The cart.")]


@app.command(rich_help_panel=_CHECKOUT)
def execute(
    buyer: Buyer,
    cart: Cart,
    key: Annotated[str, typer.Option(help="The idempotency key: the same for each retry.")],
    address: Annotated[str, typer.Option(metavar="JSON|@FILE", help="The shipping address; @- reads standard input.")],
    payment_method: Annotated[str, typer.Option(help="cash, ach, or what the database has.")],
    database: Database = "",
    schema: Schema = None,
    shipping_line: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="code, title, price_cents.")] = None,
    ad_token_policy: Annotated[str, typer.Option(help="drop or error")] = "drop",
    reservation_policy: Annotated[str, typer.Option(help="partial, vendor or all")] = "partial",
    as_json: Json = False,
) -> None:
    """Check a cart out, or replay what it became."""
    with _connected(database, schema, as_json, busy=AGAIN) as conn:
        answer = CheckoutCalls.execute.answer(
            conn,
            buyer_store_id=buyer,
            cart_id=cart,
            idempotency_key=key,
            shipping_address=_json_argument("--address", address),
            payment_method=payment_method,
            shipping_line=None if shipping_line is None else _json_argument("--shipping-line", shipping_line),
            ad_token_policy=cast(AdTokenPolicy, ad_token_policy),
            reservation_policy=cast(ReservationPolicy, reservation_policy),
        )
        _show(answer, as_json)


@app.command(rich_help_panel=_CHECKOUT)
def show(
    cart: Annotated[str, typer.Argument(metavar="CART", help="The id of a cart.")],
    database: Database = "",
    schema: Schema = None,
    buyer: Annotated[
        str | None, typer.Option(metavar="UUID", help="The buyer's store, if it must be this one's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what became of a cart."""
    with _connected(database, schema, as_json, busy=AGAIN) as conn:
        if buyer is None:
            owner = "select buyer_store_id::text as buyer from checkout_overview where cart_id = %s::text::uuid"
            buyer = (conn.execute(owner, (cart,)).fetchone() or {"buyer": None})["buyer"]
        _show(CheckoutCalls.result.answer(conn, cast(str, buyer), cart), as_json)


@app.command(rich_help_panel=_CHECKOUT)
def demo() -> None:
    """Check real baskets out on a PostgreSQL that comes and goes with it. Needs the extra `demo`."""
    try:
        from .demo.__main__ import main
    except ModuleNotFoundError as exc:
        raise _lacking("the demo", exc, "demo") from exc
    main()


# Watch


@app.command(rich_help_panel=_WATCH)
def audit(
    database: Database = "",
    schema: Schema = None,
    since: Annotated[datetime | None, typer.Option(help="Only orders and carts from then on (UTC).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a broken invariant.")] = False,
) -> None:
    """Look for broken invariants, slice by slice. Exit code 3 if there is one."""
    table = Table("invariant", "id", "expected", "found")
    count = 0
    with _connected(database, schema, as_json) as conn, _progress("auditing orders") as bar:
        task = bar.add_task("", total=None)
        for row in _audit.audit(
            conn,
            since and since.replace(tzinfo=UTC),
            lambda done, total: bar.update(task, completed=done, total=total),
        ):
            count += 1
            if as_json:
                typer.echo(json.dumps(row))
            elif count <= _TABLE_ROWS:
                table.add_row(*map(escape, row.values()))
    if not as_json:
        if count:
            _console().print(table)
        if count > _TABLE_ROWS:
            typer.echo(f"and {count - _TABLE_ROWS} more, which --json shows")
        if not count:
            typer.echo("no broken invariant")
    raise typer.Exit(FOUND if count else 0)


@app.command(rich_help_panel=_WATCH)
def relay(
    broker: Annotated[
        str,
        typer.Option(
            envvar="PYCHECKOUT_BROKER_URL",
            help="amqp://, amqps://, nats://, tls://, redis://, rediss:// or kafka://, with the broker's address.",
        ),
    ],
    database: Database = "",
    schema: Schema = None,
    destination: Annotated[str, typer.Option(help="The exchange, stream or topic to publish to.")] = "pycheckout",
    source: Annotated[str, typer.Option(help="The CloudEvents attribute `source`.")] = "pycheckout",
    batch: Annotated[int, typer.Option(min=1, help="Events to claim at once.")] = 100,
    lease: Annotated[
        float, typer.Option(min=1, max=86400, help="Seconds after which a dead relay's events are free.")
    ] = 30.0,
    poll: Annotated[float, typer.Option(min=0.01, help="Seconds between looks at an idle outbox.")] = 1.0,
    max_attempts: Annotated[int, typer.Option(min=1, help="Attempts before an event is parked.")] = 12,
    drain: Annotated[bool, typer.Option("--drain", help="End once nothing is due.")] = False,
) -> None:
    """Publish the outbox to a broker until SIGTERM or Ctrl-C. Needs the extra `relay`."""
    from .relay import Relay

    with _refusals():
        _parameters(database)
    try:
        relay = Relay(
            database,
            broker,
            schema=schema,
            destination=destination,
            source=source,
            batch=batch,
            lease_seconds=lease,
            poll_seconds=poll,
            max_attempts=max_attempts,
        )
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--broker") from exc
    except ModuleNotFoundError as exc:
        raise _lacking("the relay", exc, "relay") from exc

    async def run() -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, relay.stop)
        return await relay.run(until_empty=drain)

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pycheckout").setLevel(logging.INFO)
    with _refusals():
        published = asyncio.run(run())
    typer.echo(f"{published} events published")


# Keys


@keys.command("put")
def put_key(
    kid: str,
    database: Database = "",
    schema: Schema = None,
    secret_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, readable=True, help="A file that holds the secret, byte for byte."),
    ] = None,
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


app.add_typer(keys, name="signing-key", rich_help_panel=_INSTALL)


# What is shown


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(answer))
        return
    console = _console()
    if answer["status"] == "converted":
        _show_result(console, build(CheckoutResult, answer))
    else:
        cart = build(ActiveCart, answer)
        until = "for ever" if cart.valid_until is None else f"until {cart.valid_until:%Y-%m-%d %H:%M:%S %Z}"
        total = money(cart.totals.quoted.total_cents, cart.currency)
        console.print(f"cart {cart.cart_id} is {cart.status}, quoted {total}, valid {until}")


def _show_result(console: Console, result: CheckoutResult) -> None:
    replayed = ", replayed" if result.replayed else ""
    console.print(f"cart {result.cart_id}: [bold]{escape(result.outcome)}[/]{replayed}")
    console.print(f"checkout group {result.checkout_group_id}")
    table = Table("orders and lines", "qty", f"total ({escape(result.currency)})", "status", box=None, pad_edge=False)
    for column in table.columns[1:3]:
        column.justify = "right"
    for order in result.vendor_orders:
        table.add_row(
            f"[bold]order {order.order_id}[/]",
            "",
            f"[bold]{amount(order.total_cents, result.currency)}[/]",
            escape(order.status),
        )
        for item in order.items:
            rejected = item.status == "rejected"
            table.add_row(
                f"  {escape(item.name)}",
                f"{item.qty}",
                amount(item.total_cents, result.currency),
                escape((item.notes if rejected else None) or item.status),
                style="red" if rejected else "dim",
            )
    console.print(table)
    for vendor in result.rejected_vendors:
        console.print(f"vendor {vendor.vendor_store_id} rejected: {escape(vendor.reason)}", style="red")
    quoted, confirmed = result.totals.quoted.total_cents, result.totals.confirmed.total_cents
    console.print(f"quoted {money(quoted, result.currency)}, confirmed {money(confirmed, result.currency)}")


def _console() -> Console:
    """As wide as the terminal, or wide enough for ids."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 160
    return console


def _progress(what: str) -> Progress:
    """A bar on a terminal, and nothing elsewhere."""
    columns = (TextColumn(what), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not console.is_terminal, transient=True)


def _json_argument(option: str, value: str) -> Any:
    """JSON of the command line, or of a file where the command line would show it to all users of the machine."""
    try:
        if value == "@-":
            value = sys.stdin.read()
        elif value.startswith("@"):
            value = Path(value[1:]).read_text(encoding="utf-8")
        return json.loads(value)
    except (OSError, ValueError) as exc:
        # the text itself may be an address, which belongs in no log
        raise typer.BadParameter(f"{option}: no JSON ({type(exc).__name__})") from None


def _unnamed(exc: psycopg.Error) -> CheckoutError:
    """An error that is none of ours. Without its DETAIL, which may quote a row, and so an address."""
    return CheckoutError(
        exc.diag.message_primary or str(exc),
        sqlstate=exc.sqlstate,
        hint=exc.diag.message_hint,
    )


def _lacking(what: str, exc: ModuleNotFoundError, extra: str) -> typer.Exit:
    """Say which package is missing, and the extra that brings it."""
    _errors.print(f"pycheckout: {what} needs {exc.name}: pip install 'pycheckout[{extra}]'", style="red")
    return typer.Exit(FAILED)


@contextmanager
def _connected(
    database: str, schema: str | None, as_json: bool = False, busy: int = FAILED
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    with _refusals(as_json, busy):
        params = _parameters(database) | {"application_name": "pycheckout"}
        with psycopg.connect(**params, autocommit=True, row_factory=dict_row) as conn:
            if schema is not None:
                conn.execute("select set_config('search_path', quote_ident(%s), false)", (schema,))
            yield conn


@contextmanager
def _refusals(as_json: bool = False, busy: int = FAILED) -> Iterator[None]:
    """Say what was refused in a line, with its remedy, instead of showing a traceback."""
    try:
        yield
    except (CheckoutError, psycopg.Error) as exc:
        error = exc if isinstance(exc, CheckoutError) else translated(exc) or _unnamed(exc)
        if as_json:
            fields = {name: getattr(error, name) for name in ("code", "sqlstate", "message", "detail", "hint")}
            typer.echo(json.dumps({"error": fields}), err=True)
        else:
            _errors.print(f"pycheckout: {error.message}", style="red")
            if error.hint:
                _errors.print(f"hint: {error.hint}")
        raise typer.Exit(busy if error.retryable else FAILED) from exc
