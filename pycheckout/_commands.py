"""The commands of `pycheckout`; see `pycheckout.cli`."""

from __future__ import annotations

import asyncio
import csv
import inspect
import io
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from queue import SimpleQueue
from typing import Annotated, Any, Generic, TypeVar, cast

import psycopg
import typer
from psycopg import sql
from psycopg.rows import dict_row
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from . import _audit, _conninfo, _doctor, _move, _top
from ._checkout import (
    AdTokenPolicy,
    Checkout,
    CheckoutCalls,
    OrderCalls,
    OutboxCalls,
    PaymentCalls,
    PaymentKind,
    ReservationPolicy,
    StockCalls,
)
from ._errors import CheckoutError, NotInstalled, translated
from ._migrate import Migrated, Plan, _parameters, migrate, plan, plan_sql, rollback
from ._money import amount, money
from ._release import release
from ._types import ActiveCart, CheckoutResult, build
from .markets import Markets

FAILED, FOUND, AGAIN = 1, 3, 4
"""Exit codes beside 0, and 2, which is wrong usage."""

_PAUSE = 30.0  # seconds before a market that cannot be relayed is tried again
_TABLE_ROWS = 1000  # of an audit's findings; --json shows all


class _Command(TyperCommand):
    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"^\{(.*)\}", r"\1", piece) for piece in super().collect_usage_pieces(ctx)]


class _Group(TyperGroup):
    def get_params(self, ctx: Any) -> Any:
        return _plain(super().get_params(ctx))


def _plain(params: Any) -> Any:
    """Without the types that newer releases of Typer show of a flag, which takes no value, and beside an argument."""
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None
        elif getattr(param, "is_flag", False):
            param.metavar = ""
    return params


app = typer.Typer(
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="The checkout of a multi-vendor marketplace, inside PostgreSQL: install it, look at it, use it.",
    epilog="Exit codes: 0 done; 1 refused or failed, or the doctor found something; 2 wrong usage; "
    "3 the audit found something; 4 the server was busy or away, or a drain ended early: run it again.",
)

_errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)

_INSTALL, _CHECKOUT, _WATCH, _CLEAR = "Install", "Check out", "Watch", "Clear away"

Database = Annotated[
    str,
    typer.Option(
        envvar="PYCHECKOUT_DATABASE_URL",
        metavar="URL",
        help="A libpq URL or DSN; without it, libpq's own variables (PGHOST, PGDATABASE, ...) count.",
    ),
]
Schema = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The schema to work in; by default the one of the search_path that has it."),
]
NewSchema = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The schema to work in; by default the first of the search_path."),
]
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


# Where

MarketName = Annotated[
    str | None,
    typer.Option("--market", metavar="NAME", help="A market of the map, instead of --database and --schema."),
]
MarketsFile = Annotated[
    str | None,
    typer.Option(
        "--markets", envvar="PYCHECKOUT_MARKETS", metavar="FILE", help="The map: which market is where, in TOML."
    ),
]
AllMarkets = Annotated[bool, typer.Option("--all-markets", help="Every market of the map.")]


@dataclass(frozen=True, slots=True)
class Place:
    """A database, a schema in it, and the market that this is, if it was named by one."""

    database: str
    schema: str | None
    market: str | None = None
    server: str | None = None

    def headed(self, text: str) -> str:
        return text if self.market is None else f"market {self.market}: {text}"

    def beside(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return dict(row) if self.market is None else {"market": self.market, **row}


def _of_a_market(
    database: str = "", schema: str | None = None, market: MarketName = None, markets: MarketsFile = None
) -> Place:
    """What is asked for by --database and --schema, or by --market."""
    [place] = _places(database, schema, market, markets, False)
    return place


def _places(
    database: str = "",
    schema: str | None = None,
    market: MarketName = None,
    markets: MarketsFile = None,
    all_markets: AllMarkets = False,
) -> list[Place]:
    if market is None and not all_markets:
        return [Place(database, schema)]
    if schema is not None or database not in ("", os.environ.get("PYCHECKOUT_DATABASE_URL")):
        raise typer.BadParameter("a market has its own database and schema: leave --database and --schema out")
    if market is not None and all_markets:
        raise typer.BadParameter("give --market or --all-markets, and not both")
    try:
        known = Markets.load(markets)
        names = [market] if market is not None else [*known]
        return [Place(it.database, it.schema, it.name, it.server) for it in map(known.where, names)]
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(str(exc), param_hint="--markets") from None
    except CheckoutError as exc:
        raise typer.BadParameter(str(exc), param_hint="--market") from None


def _in_market(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that works in one database and schema, with --market as another way to name them."""

    def command(**given: Any) -> Any:
        place = _taken(_of_a_market, given)
        return function(database=place.database, schema=place.schema, **given)

    return _with_parameters(command, function, _of_a_market)


def _in_markets(schema: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command that works in each of its `places`, in place of a database and a schema. `schema`: how that is asked
    for, if otherwise than usually."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        def command(**given: Any) -> Any:
            return function(places=_taken(_places, given), **given)

        return _with_parameters(command, function, _places, schema)

    return define


def _taken(choose: Callable[..., Any], given: dict[str, Any]) -> Any:
    return choose(**{name: given.pop(name) for name in inspect.signature(choose).parameters})


def _with_parameters(
    command: Callable[..., Any], function: Callable[..., Any], choose: Callable[..., Any], schema: Any = None
) -> Callable[..., Any]:
    """The command with the parameters of its function, those that say where last."""
    own = {**inspect.signature(function, eval_str=True).parameters}
    own.pop("places", None)
    where = {**inspect.signature(choose, eval_str=True).parameters}
    usual = inspect.signature(_usual, eval_str=True).parameters
    where |= {name: own.pop(name, usual[name]) for name in usual}
    if schema is not None:
        where["schema"] = where["schema"].replace(annotation=schema)
    as_json = [own.pop("as_json")] if "as_json" in own else []
    parameters = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own.values(), *where.values())]
    parameters += [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in as_json]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {each.name: each.annotation for each in parameters}
    command.__name__, command.__doc__ = function.__name__, function.__doc__
    return command


def _usual(database: Database = "", schema: Schema = None) -> None:
    """How a database and a schema are named."""


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What came of the work in one place; its exit code, where it failed and has said so."""

    place: Place
    value: T | None = None
    code: int = 0


def _each(places: Sequence[Place], work: Callable[[Place], T]) -> Iterator[_Outcome[T]]:
    """Work in every place, at once where they are on several servers: one that is away holds no other up.

    In the order in which they end. On one server it is one place after the other.
    """
    outcomes: SimpleQueue[_Outcome[T] | BaseException] = SimpleQueue()

    def at(server: str | None) -> None:
        for place in places:
            if place.server == server:
                try:
                    outcomes.put(_Outcome(place, work(place)))
                except typer.Exit as exc:
                    outcomes.put(_Outcome(place, code=exc.exit_code))
                except BaseException as exc:
                    outcomes.put(exc)
                    return

    if len(places) == 1:  # here, so that what it raises goes its way
        yield _Outcome(places[0], work(places[0]))
        return
    for server in dict.fromkeys(place.server for place in places):
        threading.Thread(target=at, args=(server,), daemon=True).start()
    for _ in places:
        outcome = outcomes.get()
        if isinstance(outcome, BaseException):
            raise outcome
        yield outcome


def _worst(codes: Iterable[int]) -> int:
    """The exit code of several: a refusal goes before a finding, and that before a server that was away."""
    return min((code for code in codes if code), default=0)


# Install


@app.command("migrate", cls=_Command, rich_help_panel=_INSTALL)
@_in_markets(schema=NewSchema)
def migrate_command(
    places: Sequence[Place],
    create_schema: Annotated[bool, typer.Option("--create-schema", help="Make the schema if it is missing.")] = False,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only show what would be done.")] = False,
    show_sql: Annotated[bool, typer.Option("--sql", help="Only print the SQL that would be run, to read it.")] = False,
    as_json: Json = False,
) -> None:
    """Apply what is pending and deploy the functions of this release."""
    if show_plan and show_sql:
        raise typer.BadParameter("give --plan or --sql, and not both")
    problems = False
    for done, place in enumerate(places):
        try:
            with _refusals(as_json, market=place.market):
                if show_plan or show_sql:
                    planned = plan(place.database, schema=place.schema)
                    problems = problems or bool(planned.problems)
                    _show_planned(place, planned, show_sql, as_json)
                else:
                    migrated = migrate(place.database, schema=place.schema, create_schema=create_schema)
                    _show_migrated(place, migrated, as_json)
        except typer.Exit:
            _say_what_is_where(places, done)
            raise
    if show_plan and problems:
        raise typer.Exit(FAILED)


def _say_what_is_where(places: Sequence[Place], done: int) -> None:
    """Of several markets: those before the one that failed are done, and those behind it were not begun."""
    if places[1:]:
        names = [str(place.market) for place in places]
        _errors.print(f"done before it: {', '.join(names[:done]) or 'none'}")
        _errors.print(f"not begun: {', '.join(names[done + 1 :]) or 'none'}")


def _show_planned(place: Place, planned: Plan, show_sql: bool, as_json: bool) -> None:
    with _told():
        if place.market is not None and not as_json:
            typer.echo(f"{'-- ' if show_sql else ''}market {place.market}")
        if show_sql:
            for text in plan_sql(planned):
                typer.echo(text)
        elif as_json:
            typer.echo(json.dumps(place.beside(asdict(planned))))
        else:
            _show_plan(planned)


def _show_migrated(place: Place, done: Migrated, as_json: bool) -> None:
    with _told():
        if as_json:
            typer.echo(json.dumps(place.beside(asdict(done))))
        else:
            for name in done.migrations:
                typer.echo(place.headed(f"applied {name}"))
            typer.echo(place.headed(f"schema {done.schema} has pycheckout {done.version}"))
        sys.stdout.flush()


def _show_plan(planned: Plan) -> None:
    for each in planned.pending:
        rows = f"{each.rows:,} rows, about {max(each.seconds, 1):.0f} s; " if each.rows else ""
        typer.echo(f"would apply {each.migration}: {rows}{each.lock}")
    there = f"has the functions of {planned.installed}" if planned.installed else "has no functions"
    change = f"would get those of {planned.version}" if planned.changes_functions else "would keep them"
    typer.echo(f"schema {planned.schema} {there}, and {change}")
    for problem in planned.problems:
        _errors.print(f"in the way: {problem['message']}", style="red")
        _errors.print(f"hint: {problem['hint']}")


@app.command("rollback", cls=_Command, rich_help_panel=_INSTALL)
@_in_market
def rollback_command(
    database: Database = "",
    schema: NewSchema = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Take pycheckout out of a schema; refused where rows would be lost."""
    if not yes:
        typer.confirm("Roll back every migration of pycheckout?", abort=True, err=as_json)
    with _refusals(as_json):
        undone = rollback(database, schema=schema)
    with _told():
        if as_json:
            typer.echo(json.dumps(asdict(undone)))
        else:
            for name in undone.migrations:
                typer.echo(f"rolled back {name}")


@app.command(cls=_Command, rich_help_panel=_INSTALL)
@_in_markets()
def doctor(
    places: Sequence[Place],
    backlog: Annotated[
        float, typer.Option(metavar="MINUTES", min=0, help="How long an event may wait to be published.")
    ] = 15,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a finding.")] = False,
) -> None:
    """Look at the installation: release, rights, time-outs, autovacuum, backlog. Exit code 1 if something is wrong."""

    def look(place: Place) -> list[_doctor.Finding]:
        with _connected(place.database, place.schema, as_json, market=place.market) as conn:
            return _doctor.findings(conn, place.schema, timedelta(minutes=backlog))

    codes = []
    for each in _each(places, look):
        found = each.value or []
        codes.append(FAILED if found else each.code)
        if as_json:
            for finding in found:
                typer.echo(json.dumps(each.place.beside(asdict(finding))))
            continue
        console = Console(soft_wrap=True, highlight=False)
        for finding in found:
            said = f"[red]{finding.check}[/]: {escape(finding.subject)} {escape(finding.problem)}"
            console.print(each.place.headed(said))
            console.print(f"  [bold]remedy:[/] {escape(finding.remedy)}")
        if not found and not each.code:
            console.print(each.place.headed("nothing is wrong"), style="green")
    raise typer.Exit(_worst(codes))


# Check out


Buyer = Annotated[str, typer.Option(metavar="UUID", help="The buyer's store.")]
Cart = Annotated[str, typer.Option(metavar="UUID", help="The cart.")]


@app.command(cls=_Command, rich_help_panel=_CHECKOUT)
@_in_market
def execute(
    buyer: Buyer,
    cart: Cart,
    key: Annotated[str, typer.Option(metavar="TEXT", help="The idempotency key: the same for each retry.")],
    address: Annotated[str, typer.Option(metavar="JSON|@FILE", help="The shipping address; @- reads standard input.")],
    payment_method: Annotated[str, typer.Option(metavar="NAME", help="cash, ach, or what the database has.")],
    database: Database = "",
    schema: Schema = None,
    shipping_line: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="An object of code, title and price_cents.")
    ] = None,
    ad_token_policy: Annotated[
        str, typer.Option(metavar="drop|error", help="Leave bad ad tokens out, or refuse the cart.")
    ] = "drop",
    reservation_policy: Annotated[
        str, typer.Option(metavar="partial|vendor|all", help="What a line that is short of stock rejects.")
    ] = "partial",
    billing_address: Annotated[
        str | None, typer.Option(metavar="JSON|@FILE", help="The address of the invoice, if it is another.")
    ] = None,
    purchase_order: Annotated[str | None, typer.Option(metavar="TEXT", help="The buyer's own number.")] = None,
    metadata: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="An object to note on the orders.")] = None,
    expires_in: Annotated[
        float | None, typer.Option(metavar="HOURS", min=0, max=8784, help="How long orders wait to be paid for.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check a cart out, or replay what it became."""
    with _connected(database, schema, as_json, grant="checkout_grant") as conn:
        answer = CheckoutCalls.execute.answer(
            _checkout(conn, schema),
            buyer_store_id=buyer,
            cart_id=cart,
            idempotency_key=key,
            shipping_address=_json_argument("--address", address),
            payment_method=payment_method,
            shipping_line=None if shipping_line is None else _json_argument("--shipping-line", shipping_line),
            ad_token_policy=cast(AdTokenPolicy, ad_token_policy),
            reservation_policy=cast(ReservationPolicy, reservation_policy),
            billing_address=None if billing_address is None else _json_argument("--billing-address", billing_address),
            purchase_order=purchase_order,
            metadata=None if metadata is None else _json_argument("--metadata", metadata),
            expires_in=None if expires_in is None else timedelta(hours=expires_in),
        )
    _show(answer, as_json)


@app.command(cls=_Command, rich_help_panel=_CHECKOUT)
@_in_market
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
    with _connected(database, schema, as_json, grant="checkout_grant") as conn:
        if buyer is None:
            owner = "select buyer_store_id::text as buyer from checkout_overview where cart_id = %s::text::uuid"
            with _conninfo.in_schema(conn, schema):
                buyer = (conn.execute(owner, (cart,)).fetchone() or {"buyer": None})["buyer"]
        answer = CheckoutCalls.result.answer(_checkout(conn, schema), cast(str, buyer), cart)
    _show(answer, as_json)


@app.command(cls=_Command, rich_help_panel=_CHECKOUT)
def demo() -> None:
    """Check real baskets out on a PostgreSQL that comes and goes with it. Needs the extra `demo`."""
    try:
        from .demo.__main__ import main
    except ModuleNotFoundError as exc:
        raise _lacking("the demo", exc, "demo") from exc
    main()


# Watch


@app.command(cls=_Command, rich_help_panel=_WATCH)
@_in_markets()
def audit(
    places: Sequence[Place],
    since: Annotated[
        datetime | None, typer.Option(metavar="TIME", help="Only orders and carts from then on (UTC).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a broken invariant.")] = False,
) -> None:
    """Look for broken invariants, slice by slice. Exit code 3 if there is one."""
    printing = threading.Lock()

    def look(place: Place) -> tuple[int, Table]:
        table = Table("invariant", "id", "expected", "found")
        count = 0
        with (
            _connected(place.database, place.schema, as_json, market=place.market) as conn,
            _progress("auditing orders", alone=not places[1:]) as bar,
        ):
            task = bar.add_task("", total=None)
            for row in _audit.audit(
                conn,
                since and since.replace(tzinfo=UTC),
                lambda done, total: bar.update(task, completed=done, total=total),
                schema=place.schema,
            ):
                count += 1
                if as_json:
                    with printing:
                        typer.echo(json.dumps(place.beside(row)))
                elif count <= _TABLE_ROWS:
                    table.add_row(*map(escape, row.values()))
        return count, table

    codes = []
    for each in _each(places, look):
        if each.value is None:
            codes.append(each.code)
            continue
        count, table = each.value
        codes.append(FOUND if count else 0)
        if as_json:
            continue
        if count:
            table.title = None if each.place.market is None else escape(f"market {each.place.market}")
            _console().print(table)
        if count > _TABLE_ROWS:
            typer.echo(each.place.headed(f"and {count - _TABLE_ROWS} more, which --json shows"))
        if not count:
            typer.echo(each.place.headed("no broken invariant"))
    raise typer.Exit(_worst(codes))


@app.command(cls=_Command, rich_help_panel=_WATCH)
@_in_markets()
def metrics(places: Sequence[Place], as_json: Json = False) -> None:
    """Print what a monitor watches, in the text format of Prometheus. Needs the extra `metrics`."""
    try:
        from . import _metrics
    except ModuleNotFoundError as exc:
        raise _lacking("the format of Prometheus", exc, "metrics") from exc

    def look(place: Place) -> list[dict[str, Any]]:
        grant = "checkout_grant_operators"
        with (
            _connected(place.database, place.schema, as_json, grant=grant, market=place.market) as conn,
            _conninfo.in_schema(conn, place.schema),
        ):
            return conn.execute(_metrics.query(None)).fetchall()

    outcomes = [*_each(places, look)]
    with _told():
        if as_json:
            for each in outcomes:
                for row in each.value or ():
                    typer.echo(json.dumps(each.place.beside(row)))
        else:
            rows = [_metrics.beside_market(row, each.place) for each in outcomes for row in each.value or ()]
            typer.echo(_metrics.text(rows).decode(), nl=False)
    if code := _worst(each.code for each in outcomes):
        raise typer.Exit(code)


@app.command(cls=_Command, rich_help_panel=_WATCH)
@_in_market
def top(
    database: Database = "",
    schema: Schema = None,
    every: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.2, max=3600, help="The time between two looks.")
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once; so it is where the output is no terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a look.")] = False,
) -> None:
    """Show on one screen what the database is doing: checkouts, who waits for whom, events, orders. Ctrl-C ends it."""
    console = Console(highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = 80
    with suppress(KeyboardInterrupt), _connected(database, schema, as_json, grant="checkout_grant_operators") as conn:

        def look() -> dict[str, Any]:
            with _conninfo.in_schema(conn, schema):
                return _top.look(conn)

        found = look()
        if as_json or once or not console.is_terminal:
            while True:
                typer.echo(json.dumps(found)) if as_json else console.print(_top.screen(found, 1000))
                sys.stdout.flush()
                if once or not as_json:
                    return
                time.sleep(every)
                found = look()
        with Live(_top.screen(found, console.height), console=console, screen=True, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(_top.screen(look(), console.height), refresh=True)


@app.command(cls=_Command, rich_help_panel=_WATCH)
@_in_markets()
def relay(
    places: Sequence[Place],
    broker: Annotated[
        str,
        typer.Option(
            envvar="PYCHECKOUT_BROKER_URL",
            metavar="URL",
            help="amqp://, amqps://, nats://, tls://, redis://, rediss:// or kafka://, with the broker's address.",
        ),
    ],
    destination: Annotated[
        str, typer.Option(metavar="NAME", help="The exchange, stream or topic to publish to.")
    ] = "pycheckout",
    source: Annotated[str, typer.Option(metavar="TEXT", help="The CloudEvents attribute `source`.")] = "pycheckout",
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Events to claim at once.")] = 100,
    lease: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=1, max=86400, help="How soon the events of a relay that died are free."),
    ] = 30.0,
    poll: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.01, help="The time between looks at an idle outbox.")
    ] = 1.0,
    max_attempts: Annotated[int, typer.Option(metavar="N", min=1, help="Attempts before an event is parked.")] = 12,
    drain: Annotated[bool, typer.Option("--drain", help="End once nothing is due.")] = False,
    timeout: Annotated[
        float, typer.Option(metavar="SECONDS", min=0, help="How long --drain goes on without publishing anything.")
    ] = 60.0,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Answer /metrics, /livez and /readyz at HOST:PORT, or PORT of 127.0.0.1. Needs the extra `metrics`.",
        ),
    ] = None,
) -> None:
    """Publish the outbox to a broker until SIGTERM or Ctrl-C. Needs the extra `relay`."""
    from .relay import Relay

    def made(place: Place) -> Relay:
        try:
            return Relay(
                place.database,
                broker,
                schema=place.schema,
                destination=destination,
                source=source if place.market is None else f"{source}/{place.market}",
                batch=batch,
                lease_seconds=lease,
                poll_seconds=poll,
                max_attempts=max_attempts,
            )
        except ValueError as exc:
            raise typer.BadParameter(str(exc), param_hint="--broker") from exc
        except ModuleNotFoundError as exc:
            raise _lacking("the relay", exc, "relay") from exc

    with _refusals():
        params = {place: _parameters(place.database) for place in places}
    relays = {place: made(place) for place in places}
    listener = None if listen is None else _listener(relays, listen)
    stopping = asyncio.Event()

    def stop() -> None:
        stopping.set()
        for each in relays.values():
            each.stop()

    async def at(place: Place) -> tuple[int, int]:
        """How many events it published, and its exit code."""
        published = 0
        while True:
            code = 0
            try:
                with _refusals(False, params[place], place.schema, "checkout_grant_relay", place.market):
                    published += await relays[place].run(until_empty=drain, timeout=timeout)
            except typer.Exit as exc:  # said by then
                if not places[1:]:
                    raise
                code = exc.exit_code
            if stopping.is_set() or drain:
                return published, code or (AGAIN if drain and not relays[place].drained else 0)
            # Beside others, what ended is begun anew: a relay runs once.
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _PAUSE)
            if stopping.is_set():
                return published, code
            relays[place] = made(place)

    async def run() -> list[tuple[int, int]]:
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        return await asyncio.gather(*map(at, places))

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pycheckout").setLevel(logging.INFO)
    with closing(listener) if listener is not None else nullcontext():
        ended = asyncio.run(run())
    with _told():
        typer.echo(f"{sum(published for published, _ in ended)} events published")
    for place, (_, code) in zip(places, ended, strict=True):
        if code == AGAIN and not relays[place].drained:
            _errors.print(f"pycheckout: {place.headed('stopped before the outbox was empty')}", style="red")
    if code := _worst(code for _, code in ended):
        raise typer.Exit(code)


def _listener(relays: Mapping[Place, Any], listen: str) -> Any:
    try:
        from . import _metrics
    except ModuleNotFoundError as exc:
        raise _lacking("--listen", exc, "metrics") from exc
    try:
        listener = _metrics.Listener(relays, _metrics.address(listen))
    except (OSError, OverflowError, ValueError) as exc:
        raise typer.BadParameter(f"cannot listen at {listen}: {exc}", param_hint="--listen") from exc
    _errors.print(f"pycheckout: listening at port {listener.port}")
    return listener


# Commands that are a statement each

Statement = tuple[str | sql.Composed, Sequence[Any]]


def _calls(
    group: typer.Typer,
    name: str,
    *,
    grant: str = "",
    said: str = "",
    columns: Sequence[str] = (),
    batches: bool = False,
    everywhere: bool = False,
    panel: str | None = None,
    field: str = "",
) -> Callable[[Callable[..., Statement]], Callable[..., Statement]]:
    """A command that runs the statement that a function makes of its arguments, and shows the JSON of each row.

    `grant` names the function that gives a role the right. For a person, `said` is the sentence with the row's fields,
    instead of a table, and `columns` are those that a table has, where not all. With `batches` the statement counts
    what it `deleted`, and is run until that is 0. `everywhere`: it has --all-markets. An answer that is no object is
    the `field` of one, beside what the command was told.
    """

    def define(function: Callable[..., Statement]) -> Callable[..., Statement]:
        def run(places: Sequence[Place], as_json: bool, **arguments: Any) -> None:
            with _refusals(as_json):
                query, params = function(**arguments)

            def work(place: Place) -> list[dict[str, Any]]:
                with _connected(place.database, place.schema, as_json, grant, place.market) as conn:
                    with _conninfo.in_schema(conn, place.schema):
                        answers = [next(iter(row.values())) for row in conn.execute(query, params).fetchall()]
                    # the calls of services answer with JSON as text
                    answers = [json.loads(answer) if isinstance(answer, str) else answer for answer in answers]
                    rows = [row for answer in answers for row in (answer if isinstance(answer, list) else [answer])]
                    if field:
                        rows = [arguments | {field: row} for row in rows]
                    while batches and (more := _deleted(conn, place.schema, query, params)):
                        rows[0]["deleted"] += more
                return rows

            codes = []
            for each in _each(places, work):
                codes.append(each.code)
                if each.value is not None:
                    with _told():
                        if places[1:] and not as_json:
                            typer.echo(f"market {each.place.market}")
                        rows = [each.place.beside(row) for row in each.value] if places[1:] else each.value
                        _print_rows(rows, said, columns, as_json)
            if code := _worst(codes):
                raise typer.Exit(code)

        def in_one(database: str, schema: str | None, as_json: bool, **arguments: Any) -> None:
            run([Place(database, schema)], as_json, **arguments)

        own = inspect.signature(function, eval_str=True).parameters.values()
        as_json = inspect.signature(_common, eval_str=True).parameters["as_json"]
        takes: Any = run if everywhere else in_one
        takes.__signature__ = inspect.Signature(
            [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*own, as_json)]
        )
        takes.__doc__ = function.__doc__
        command = _in_markets()(run) if everywhere else _in_market(in_one)
        group.command(name, cls=_Command, rich_help_panel=panel)(command)
        return function

    return define


def _common(as_json: Json = False) -> None:
    """What each of them takes."""


def _deleted(
    conn: psycopg.Connection[dict[str, Any]],
    schema: str | None,
    query: str | sql.Composed,
    params: Sequence[Any],
) -> int:
    with _conninfo.in_schema(conn, schema):
        [row] = conn.execute(query, params).fetchall()
    [answer] = row.values()
    return int(answer["deleted"])


def _group(name: str, panel: str, says: str) -> typer.Typer:
    group = typer.Typer(cls=_Group, no_args_is_help=True, help=says)
    app.add_typer(group, name=name, rich_help_panel=panel)
    return group


OlderThan = Annotated[str, typer.Option(metavar="INTERVAL", help="The age, as PostgreSQL writes it: '30 days'.")]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Rows to delete in one transaction.")]


# Orders and stock

orders = _group("order", _CHECKOUT, "Orders after the checkout.")
payments = _group("payment", _CHECKOUT, "What payment providers told.")
stock = _group("stock", _CHECKOUT, "Units of products.")

# What a person wants to see of an order in a list, and of a line; --json has all.
_ORDER = ("order_id", "order_number", "status", "total_cents", "currency", "created_at")
_LINE = ("name", "qty", "total_cents", "tax_cents", "status", "notes", "line_item_id")
_PART = (
    "line_item_id",
    "qty",
    "reserved_qty",
    "fulfilled_qty",
    "released_qty",
    "returned_qty",
    "total_cents",
    "status",
)
_STEP = ("created_at", "about", "kind", "amount_cents", "reason", "key")

Order = Annotated[str, typer.Argument(metavar="ORDER", help="The id of a vendor's order.")]
Line = Annotated[str, typer.Argument(metavar="LINE", help="The id of an order's line.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why, for the events and whoever reads them.")]
Product = Annotated[str, typer.Argument(metavar="PRODUCT", help="The id of a product.")]
ChangeKey = Annotated[
    str | None, typer.Option("--key", metavar="TEXT", help="The same for each repetition, so that it counts once.")
]
Quantity = Annotated[
    int | None, typer.Option("--qty", metavar="UNITS", help="How many units, all of them if left out; needs --key.")
]
Units = Annotated[int, typer.Argument(metavar="UNITS", help="How many units.")]


@_calls(orders, "show", grant="checkout_grant_orders", columns=_LINE)
def _order_show(
    order: Order,
    buyer: Annotated[
        str | None, typer.Option(metavar="UUID", help="The buyer's store, if it must be this one's.")
    ] = None,
    vendor: Annotated[
        str | None, typer.Option(metavar="UUID", help="The vendor's store, if it must be this one's.")
    ] = None,
) -> Statement:
    """Show an order and its lines, as it is now."""
    if buyer is None and vendor is None:
        whose = "coalesce((select vendor_store_id from vendor_orders where id = %s::uuid), gen_random_uuid())"
        return f"select order_get(%s::uuid, null, {whose})", (order, order)
    return OrderCalls.get.statement(order, buyer_store_id=buyer, vendor_store_id=vendor)


@_calls(orders, "list", grant="checkout_grant_orders", columns=_ORDER)
def _order_list(
    buyer: Annotated[str | None, typer.Option(metavar="UUID", help="The buyer's store: its orders.")] = None,
    vendor: Annotated[
        str | None, typer.Option(metavar="UUID", help="The vendor's store: the orders that it got.")
    ] = None,
    status: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only orders in this state; may be given several times.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Where to go on: what the page before calls `after`.")
    ] = None,
    most: Annotated[int, typer.Option(metavar="N", help="How many at most, up to 200.")] = 50,
    number: Annotated[int | None, typer.Option(metavar="N", help="Only the order that has this number.")] = None,
    purchase_order: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only orders that the buyer gave this number of its own.")
    ] = None,
) -> Statement:
    """Show the orders of a buyer or a vendor, newest first."""
    return OrderCalls.list.statement(
        buyer_store_id=buyer,
        vendor_store_id=vendor,
        statuses=status or None,
        after=after,
        most=most,
        order_number=number,
        purchase_order=purchase_order,
    )


@_calls(orders, "cancel", grant="checkout_grant_orders", columns=_PART)
def _order_cancel(order: Order, reason: Reason) -> Statement:
    """Cancel an order: its stock is available again, and nothing of it is to be paid."""
    return OrderCalls.cancel.statement(order, reason=reason)


@_calls(orders, "release", grant="checkout_grant_orders", columns=_PART)
def _order_release(line: Line, reason: Reason, qty: Quantity = None, key: ChangeKey = None) -> Statement:
    """Turn down units of a line of an order: they are available again, and their amounts come off the order."""
    return OrderCalls.release.statement(line, reason=reason, qty=qty, change_key=key)


@_calls(orders, "fulfil", grant="checkout_grant_orders", columns=_PART)
def _order_fulfil(
    line: Line,
    qty: Quantity = None,
    key: ChangeKey = None,
    details: Annotated[
        str | None, typer.Option(metavar="JSON", help="For the event: carrier, tracking, as a JSON object.")
    ] = None,
) -> Statement:
    """Fulfil units of a line of an order: they have left the stock."""
    return OrderCalls.fulfil.statement(line, qty=qty, change_key=key, details=_json_of("details", details))


@_calls(orders, "return", grant="checkout_grant_orders", columns=_PART)
def _order_return(
    line: Line,
    reason: Reason,
    key: Annotated[str, typer.Option("--key", metavar="TEXT", help="The same for each repetition.")],
    restock: Annotated[bool, typer.Option("--restock/--no-restock", help="Whether they can be sold again.")],
    qty: Quantity = None,
) -> Statement:
    """Take shipped units of a line back: their amounts come off the order."""
    return OrderCalls.return_.statement(line, reason=reason, restock=restock, change_key=key, qty=qty)


@_calls(orders, "decide", grant="checkout_grant_orders", columns=_PART)
def _order_decide(
    order: Order,
    decisions: Annotated[
        str | None,
        typer.Option(
            metavar="JSON",
            help="What is not accepted whole: an array of objects with line_item_id, accept_qty and reason.",
        ),
    ] = None,
    key: ChangeKey = None,
) -> Statement:
    """Answer an order for its vendor: accept it, whole or in part, or refuse it."""
    return OrderCalls.decide.statement(order, _json_of("decisions", decisions), change_key=key)


@_calls(orders, "adjust", grant="checkout_grant_orders", columns=_PART)
def _order_adjust(
    order: Order,
    cents: Annotated[int, typer.Option(metavar="CENTS", help="Minor units that are added; below 0 a credit.")],
    reason: Reason,
    key: Annotated[str, typer.Option("--key", metavar="TEXT", help="The same for each repetition.")],
) -> Statement:
    """Add a surcharge to what an order comes to, or a credit."""
    return OrderCalls.adjust.statement(order, cents, reason=reason, change_key=key)


@_calls(orders, "history", grant="checkout_grant_orders", columns=_STEP)
def _order_history(order: Order) -> Statement:
    """Show what happened to an order since its checkout, payments too."""
    whose = "coalesce((select vendor_store_id from vendor_orders where id = %s::uuid), gen_random_uuid())"
    return f"select json_array_elements(order_changes_list(%s::uuid, null, {whose}))", (order, order)


def _json_of(name: str, text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as exc:
        raise typer.BadParameter(f"--{name} is no JSON: {exc}") from exc


@_calls(orders, "extend", grant="checkout_grant_orders")
def _order_extend(
    order: Order,
    until: Annotated[datetime, typer.Option(metavar="TIME", help="The new deadline (UTC).")],
) -> Statement:
    """Give an order more time to be paid."""
    return OrderCalls.extend.statement(order, until.replace(tzinfo=UTC))


@_calls(payments, "record", grant="checkout_grant_payments")
def _payment_record(
    order: Order,
    provider: Annotated[str, typer.Option(metavar="TEXT", help="Who tells it.")],
    event: Annotated[str, typer.Option(metavar="TEXT", help="The id of the event there: the same for each retry.")],
    kind: Annotated[
        str, typer.Option(metavar="KIND", help="authorized, captured, voided, refunded, failed, disputed or reversed.")
    ],
    amount: Annotated[int, typer.Option(metavar="CENTS", help="The order's share, in minor units.")],
    currency: Annotated[str, typer.Option(metavar="CODE", help="ISO 4217, that of the order.")],
    occurred_at: Annotated[datetime | None, typer.Option(metavar="TIME", help="When it happened (UTC).")] = None,
    details: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="An object to keep beside it.")] = None,
) -> Statement:
    """Record what a payment provider told of an order. Nothing is charged."""
    return PaymentCalls.record.statement(
        order,
        provider=provider,
        provider_event_id=event,
        kind=cast(PaymentKind, kind),
        amount_cents=amount,
        currency=currency,
        occurred_at=occurred_at and occurred_at.replace(tzinfo=UTC),
        details=None if details is None else _json_argument("--details", details),
    )


@_calls(stock, "show")
def _stock_show(
    product: Annotated[list[str], typer.Argument(metavar="PRODUCT", help="The ids of products.")],
) -> Statement:
    """Show the stock of products; one that was never counted is left out."""
    return "select json_array_elements(inventory_get(%s::uuid[]) -> 'levels')", (product,)


@_calls(stock, "set")
def _stock_set(product: Product, units: Units) -> Statement:
    """Set the available units of a product, whatever was there."""
    return StockCalls.set.statement(product, units)


@_calls(stock, "adjust")
def _stock_adjust(
    product: Product,
    by: Annotated[int, typer.Option(metavar="UNITS", help="How many more there are; fewer, if it is negative.")],
    key: ChangeKey = None,
) -> Statement:
    """Add units to what is available, or take some off."""
    return StockCalls.adjust.statement(product, by, change_key=key)


@_calls(stock, "restock")
def _stock_restock(product: Product, units: Units, key: ChangeKey = None) -> Statement:
    """Add units that have come in."""
    return StockCalls.restock.statement(product, units, change_key=key)


@_calls(stock, "split")
def _stock_split(
    product: Product, slots: Annotated[int, typer.Argument(metavar="SLOTS", help="From 1 to 256.")]
) -> Statement:
    """Spread a product that many buy at once over several rows, or merge it into one."""
    return StockCalls.split.statement(product, slots)


@stock.command("import", cls=_Command)
@_in_market
def import_stock(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV with columns product_id and available; - reads stdin.")
    ],
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Products to set in one transaction.")] = 1_000,
    database: Database = "",
    schema: Schema = None,
    as_json: Json = False,
) -> None:
    """Set the available units of many products. Can be run again after a failure."""
    levels, lines = _levels(file)
    done = 0
    with _connected(database, schema, as_json) as conn, _progress("setting stock") as bar:
        task = bar.add_task("", total=len(levels))
        for start in range(0, len(levels), batch):
            some = json.dumps(levels[start : start + batch])
            try:
                with _conninfo.in_schema(conn, schema):
                    conn.execute("select inventory_set_many(%s::jsonb)", (some,))
            except psycopg.Error as exc:
                error = translated(exc) or _unnamed(exc)
                # Which line of the file is at fault, if one is.
                if found := re.match(r"levels\[(\d+)\]", str(error.detail.get("field", ""))):
                    error.message = f"line {lines[start + int(found[1])]}: {error.message}"
                error.hint = f"{done} products are set; correct the file and run it again."
                raise error from exc
            done += len(levels[start : start + batch])
            bar.update(task, completed=done)
    with _told():
        typer.echo(json.dumps({"set": done}) if as_json else f"{done} products set")


def _levels(file: str) -> tuple[list[dict[str, Any]], list[int]]:
    """What a CSV file says of each product, and the line that says it. Numbers are judged by the database."""
    try:
        written = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        reader = csv.DictReader(io.StringIO(written.decode("utf-8-sig"), newline=""))
        if not {"product_id", "available"} <= {*(reader.fieldnames or ())}:
            raise typer.BadParameter("the first line must name the columns product_id and available")
        levels, lines = [], []
        for row in reader:
            available: Any = row["available"]
            with suppress(TypeError, ValueError):
                available = int(available)
            levels.append({"product_id": row["product_id"], "available": available})
            lines.append(reader.line_num)
        return levels, lines
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        raise typer.BadParameter(f"{file} cannot be read: {exc}") from None


@app.command("expire", cls=_Command, rich_help_panel=_CLEAR)
@_in_markets()
def expire_command(
    places: Sequence[Place],
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="Look again after so long, as 30s, 5m or 1h, until SIGTERM.")
    ] = None,
    batch: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Orders to end in one transaction.")] = 100,
    as_json: Json = False,
) -> None:
    """End the orders that were not paid in time, and give their stock back."""
    seconds = None if every is None else _seconds(every)
    stop = threading.Event()
    if seconds is not None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())

    def again_and_again(place: Place) -> None:
        while not stop.is_set():
            try:
                _expire_all(place, batch, as_json, stop, quiet=seconds is not None)
            except typer.Exit as exc:
                # busy, away, or only orders left whose stock cannot be given back: said by then, and tried again;
                # beside other markets, whatever it is
                final = exc.exit_code != AGAIN and getattr(exc.__cause__, "sqlstate", None) != "OC012"
                if seconds is None or (final and not places[1:]):
                    raise
            if seconds is None:
                return
            stop.wait(seconds)

    if seconds is not None:  # a thread each, since none of them ends
        places = [replace(place, server=place.market) for place in places]
    if code := _worst([each.code for each in _each(places, again_and_again)]):
        raise typer.Exit(code)


def _expire_all(place: Place, batch: int, as_json: bool, stop: threading.Event, quiet: bool) -> None:
    done = {"expired": 0, "kept": 0}
    with _connected(
        place.database, place.schema, as_json, grant="checkout_grant_operators", market=place.market
    ) as conn:
        calls = _checkout(conn, place.schema).orders
        while not stop.is_set():
            answer = OrderCalls.expire.answer(calls, batch)
            for name in done:
                done[name] += answer[name]
            if not answer["expired"] + answer["kept"]:
                break
    if not quiet or any(done.values()):
        with _told():
            told = f"{done['expired']} orders expired, {done['kept']} lost their deadline"
            typer.echo(json.dumps(place.beside(done)) if as_json else place.headed(told))
            sys.stdout.flush()


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6}(?:\.\d+)?)(s|m|h)?", text)
    seconds = float(found[1]) * {None: 1, "s": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if seconds <= 0:
        raise typer.BadParameter("--every: a time above 0, such as 30s, 5m or 1h")
    return seconds


# A market and its server

market_group = _group("market", _INSTALL, "A market, and the server that it is on.")

TheMarket = Annotated[str, typer.Argument(metavar="MARKET", help="Its name in the map.")]
Leaves = Annotated[
    str | None,
    typer.Option("--from", metavar="SERVER", help="The server that it leaves, if the map has another by now."),
]
Comes = Annotated[
    str, typer.Option("--to", metavar="SERVER", help="The server that it comes to, by its name in the map.")
]


def _moving(name: str, to: str, leaves: str | None, markets: str | None, **options: Any) -> _move.Move:
    try:
        known = Markets.load(markets)
        market = known.where(name)
    except (OSError, ValueError) as exc:
        raise typer.BadParameter(str(exc), param_hint="--markets") from None
    except CheckoutError as exc:
        raise typer.BadParameter(str(exc), param_hint="MARKET") from None
    leaves = leaves or market.server
    for option, server in (("--to", to), ("--from", leaves)):
        if server not in known.servers:
            raise typer.BadParameter(f"there is no [server.{server}] in the map", param_hint=option)
    if leaves == to:
        hint = "the map has the market there: say --from, if it is on another server"
        raise typer.BadParameter(hint, param_hint="--to")
    source, target = (_move.Place(name=server, database=known.servers[server]) for server in (leaves, to))
    return _move.Move(name, market.schema, source, target, _move.Options(**options))


@market_group.command("move", cls=_Command)
def market_move(
    name: TheMarket,
    to: Comes,
    leaves: Leaves = None,
    show_plan: Annotated[bool, typer.Option("--plan", help="Only show what the move would meet.")] = False,
    abort: Annotated[bool, typer.Option("--abort", help="Take a move back that was not opened yet.")] = False,
    given_up: Annotated[
        list[str] | None,
        typer.Option("--given-up", metavar="STANDBY", help="A standby of the source that will never be promoted."),
    ] = None,
    pg_dump: Annotated[
        str | None, typer.Option("--pg-dump", metavar="FILE", help="The program, if not of the PATH.")
    ] = None,
    source_address: Annotated[
        str,
        typer.Option(
            "--source-address",
            metavar="DSN",
            help="How the target reaches the source, if not as the map says: 'host=10.0.0.1 port=5433'.",
        ),
    ] = "",
    tries: Annotated[int, typer.Option("--tries", metavar="N", min=1, help="Attempts to freeze the market.")] = 20,
    max_wal: Annotated[
        float, typer.Option("--max-wal", metavar="GB", min=0.001, help="WAL that the source may keep for the move.")
    ] = 10.0,
    prove: Annotated[
        bool, typer.Option("--prove/--no-proof", help="Compare all rows of both servers afterwards, and audit.")
    ] = True,
    markets: MarketsFile = None,
    as_json: Json = False,
) -> None:
    """Move a market to another server while it sells. Run again, it goes on where it stood."""
    if show_plan and abort:
        raise typer.BadParameter("give --plan or --abort, and not both")
    options = {"pg_dump": pg_dump, "source_address": source_address, "tries": tries, "prove": prove}
    with _refusals(as_json, market=name):
        move = _moving(
            name, to, leaves, markets, max_wal=int(max_wal * 1024**3), given_up=tuple(given_up or ()), **options
        )
        if show_plan:
            _show_move_plan(move.plan(), as_json)
            return
        if abort:
            move.abort()
            with _told():
                said = {"market": name, "server": move.source_place.name}
                typer.echo(json.dumps(said) if as_json else f"market {name} stays at {said['server']}")
            return
        with _progress("moving", alone=not as_json) as bar:
            task = bar.add_task("", total=None)

            def told(step: str) -> None:
                with _told():
                    typer.echo(json.dumps({"step": step}) if as_json else f"{datetime.now(UTC):%H:%M:%S} {step}")
                    sys.stdout.flush()

            move.told = told
            move.progress = lambda done, total: bar.update(task, completed=done, total=total)
            moved = move.run()
    with _told():
        if as_json:
            typer.echo(json.dumps({"market": name, **asdict(moved)}))
        else:
            frozen = "" if moved.frozen_seconds is None else f", frozen for {moved.frozen_seconds:.3f} s"
            proof = {None: "not compared", True: "every row is the same", False: "rows differ"}[moved.proven]
            typer.echo(f"market {name} is at {moved.server} (move {moved.epoch}{frozen}); {proof}")
            typer.echo(
                f'put server = "{moved.server}" into [market.{name}] of every map; then: pycheckout market finish'
            )
    if moved.findings:
        raise typer.Exit(FOUND)


def _show_move_plan(planned: _move.MovePlan, as_json: bool) -> None:
    with _told():
        if as_json:
            typer.echo(json.dumps(asdict(planned)))
        else:
            typer.echo(f"would copy {planned.tables} tables, {planned.size_bytes:,} bytes with their indexes")
            for note in planned.notes:
                typer.echo(f"heed: {note}")
            for each in planned.problems:
                _errors.print(f"in the way: {each.message}", style="red")
                _errors.print(f"hint: {each.hint}")
    if planned.problems:
        raise typer.Exit(FAILED)


@market_group.command("status", cls=_Command)
def market_status(
    name: TheMarket, to: Comes, leaves: Leaves = None, markets: MarketsFile = None, as_json: Json = False
) -> None:
    """Show what both servers say of a move."""
    with _refusals(as_json, market=name):
        move = _moving(name, to, leaves, markets)
        sides = zip((move.source_place, move.target_place), move.status(), strict=True)
    with _told():
        for place, status in sides:
            said = {"market": name, "at": place.name, **asdict(status)}
            typer.echo(
                json.dumps(said) if as_json else f"{place.name}: {status.state or 'nothing'}, move {status.epoch}"
            )


@market_group.command("finish", cls=_Command)
def market_finish(
    name: TheMarket,
    to: Comes,
    leaves: Leaves = None,
    drop_source: Annotated[
        bool, typer.Option("--drop-source", help="Drop the schema that the market left, after a dump.")
    ] = False,
    dump: Annotated[str | None, typer.Option(metavar="FILE", help="Where that dump goes, for pg_restore.")] = None,
    pg_dump: Annotated[
        str | None, typer.Option("--pg-dump", metavar="FILE", help="The program, if not of the PATH.")
    ] = None,
    markets: MarketsFile = None,
    as_json: Json = False,
) -> None:
    """End a move that came through. What it left at the source says where the market is, until it is dropped."""
    if drop_source and dump is None:
        raise typer.BadParameter("say where the dump goes: --dump FILE", param_hint="--drop-source")
    with _refusals(as_json, market=name):
        move = _moving(name, to, leaves, markets, pg_dump=pg_dump)
        move.finish(drop_source=drop_source, dump=dump)
    with _told():
        said = {"market": name, "server": to, "dropped": drop_source}
        typer.echo(json.dumps(said) if as_json else f"market {name} is at {to}")


# The outbox

outbox = _group("outbox", _WATCH, "Events that wait to be published, or could not be.")

EventId = Annotated[str, typer.Argument(metavar="EVENT", help="The id of an event.")]


@_calls(outbox, "backlog", grant="checkout_grant_operators", everywhere=True)
def _outbox_backlog() -> Statement:
    """Show what is not published yet, by type and number of attempts, what waits longest first."""
    return OutboxCalls.backlog.statement()


@_calls(outbox, "dead", everywhere=True)
def _outbox_dead(
    most: Annotated[int, typer.Option(metavar="N", min=1, help="How many at most, the oldest first.")] = 100,
) -> Statement:
    """Show the events that are parked, and the error of each. The younger ones of their aggregates wait."""
    return OutboxCalls.dead_letters.statement(most)


@_calls(outbox, "replay", grant="checkout_grant_relay", said="event {event_id} was {was}, and is due now", field="was")
def _outbox_replay(event_id: EventId) -> Statement:
    """Make an event due now, parked or not."""
    return OutboxCalls.replay.statement(event_id)


@_calls(
    outbox, "discard", grant="checkout_grant_relay", said="event {event_id} was {was}, and is given up", field="was"
)
def _outbox_discard(event_id: EventId, reason: Reason) -> Statement:
    """Give an event up for good, and let the younger ones of its aggregate go on."""
    return OutboxCalls.discard.statement(event_id, reason=reason)


@_calls(outbox, "purge", grant="checkout_grant_relay", said="{deleted} events deleted", batches=True, everywhere=True)
def _outbox_purge(older_than: OlderThan, batch: Batch = 10_000) -> Statement:
    """Delete events that were published long ago."""
    return "select json_build_object('deleted', outbox_purge(%s::interval, %s::integer))", (older_than, batch)


# Rights and data


class Kind(StrEnum):
    """What a role may do; each is a function `checkout_grant...`."""

    checkout = "checkout"
    quotes = "quotes"
    orders = "orders"
    payments = "payments"
    relay = "relay"
    operators = "operators"


class Old(StrEnum):
    """What grows; each is a function of its own."""

    carts = "carts"
    keys = "keys"
    changes = "changes"


Role = Annotated[str, typer.Argument(metavar="ROLE", help="A role of the server.")]


@_calls(app, "grant", everywhere=True, said="role {role} has the grant {grant}", panel=_INSTALL)
def _grant(
    role: Role,
    kind: Annotated[
        Kind, typer.Argument(metavar="KIND", help="checkout, quotes, orders, payments, relay or operators.")
    ],
) -> Statement:
    """Let a role check out, quote, change orders, record payments, relay or look on. Deployments keep it up to date."""
    function = "checkout_grant" if kind is Kind.checkout else f"checkout_grant_{kind.value}"
    query = "select json_build_object('role', %s::text, 'grant', %s::text) from {}(%s::text)"
    return sql.SQL(query).format(sql.Identifier(function)), (role, kind.value, role)


@_calls(app, "revoke", everywhere=True, said="role {role} has nothing of pycheckout any more", panel=_INSTALL)
def _revoke(role: Role) -> Statement:
    """Take away whatever a role was granted."""
    return "select json_build_object('role', %s::text) from checkout_revoke(%s::text)", (role, role)


@_calls(app, "purge", said="{deleted} deleted", batches=True, everywhere=True, panel=_CLEAR)
def _purge(
    what: Annotated[
        Old, typer.Argument(metavar="WHAT", help="carts (abandoned, or ended long ago), keys, or changes of stock.")
    ],
    older_than: OlderThan,
    batch: Batch = 10_000,
) -> Statement:
    """Delete carts, or keys of checkouts or of stock changes, that nobody needs any more. The orders stay."""
    function = {
        Old.carts: "cart_purge",
        Old.keys: "checkout_requests_purge",
        Old.changes: "inventory_changes_purge",
    }[what]
    query = sql.SQL("select json_build_object('deleted', {}(%s::interval, %s::integer))")
    return query.format(sql.Identifier(function)), (older_than, batch)


@_calls(app, "erase", said="{erased} rows of cart {cart_id} changed", panel=_CLEAR)
def _erase(
    cart: Annotated[str, typer.Argument(metavar="CART", help="The id of a cart, purged or not.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
) -> Statement:
    """Take a person out of a cart, its orders and events: addresses, notes, keys. Amounts and states stay."""
    if not yes:
        typer.confirm(f"Erase the person of cart {cart}, for good?", abort=True, err=True)
    return "select json_build_object('cart_id', %s::uuid, 'erased', checkout_erase(%s::uuid))", (cart, cart)


# Keys

keys = _group("signing-key", _INSTALL, "Keys that sign ad tokens.")

Kid = Annotated[str, typer.Argument(metavar="KID", help="The name of a key, as the header of a token has it.")]


@_calls(keys, "put", everywhere=True, said="key {kid} is active")
def _put_key(
    kid: Kid,
    secret_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            readable=True,
            help="A file that holds the secret, byte for byte.",
        ),
    ] = None,
    secret_env: Annotated[
        str | None, typer.Option(metavar="NAME", help="A variable of the environment that holds it.")
    ] = None,
    accepts_unnamed: Annotated[
        bool, typer.Option("--accepts-unnamed", help="Let it verify tokens whose header names no key.")
    ] = False,
) -> Statement:
    """Add a key, or make a retired one active again."""
    if (secret_file is None) == (secret_env is None):
        raise typer.BadParameter("give --secret-file or --secret-env, and not both")
    if secret_file is not None:
        secret = secret_file.read_bytes()
    elif secret_env is not None and secret_env in os.environ:
        secret = os.environb[secret_env.encode()]
    else:
        raise typer.BadParameter(f"the environment has no {secret_env}")
    query = "select json_build_object('kid', %s::text, 'active', true) from ad_signing_key_put(%s, %s, %s)"
    return query, (kid, kid, secret, accepts_unnamed)


@_calls(keys, "retire", everywhere=True, said="key {kid} is retired")
def _retire_key(kid: Kid) -> Statement:
    """Stop believing tokens that a key signed."""
    return "select json_build_object('kid', %s::text, 'active', false) from ad_signing_key_retire(%s)", (kid, kid)


@_calls(keys, "list", everywhere=True)
def _list_keys() -> Statement:
    """Show the names of the keys, and which are active. Never a secret."""
    fields = "'kid', kid, 'active', active, 'accepts_unnamed', accepts_unnamed, 'created_at', created_at"
    return f"select json_build_object({fields}, 'retired_at', retired_at) from ad_signing_keys order by kid", ()


# What is shown


def _print_rows(rows: Sequence[Mapping[str, Any]], said: str, columns: Sequence[str], as_json: bool) -> None:
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
    elif said:
        for row in rows:
            typer.echo(said.format_map(row))
    elif len(rows) == 1:
        _print_record(rows[0], columns)
    elif rows:
        _print_table(rows, columns, rows[0].get("currency"))
    else:
        typer.echo("nothing")


def _print_record(record: Mapping[str, Any], columns: Sequence[str]) -> None:
    """An object, a line a field; a list in it is a table below."""
    currency = record.get("currency")
    fields = Table.grid(padding=(0, 2))
    for name, value in record.items():
        if not isinstance(value, list):
            fields.add_row(f"[bold]{_titled(name)}[/]", escape(_cell(name, value, currency)))
    _console().print(fields)
    for value in record.values():
        if isinstance(value, list) and value:
            _print_table(value, columns, currency)


def _print_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], currency: str | None) -> None:
    names = [name for name in columns if name in rows[0]] or [*rows[0]]
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(_titled(name), no_wrap=name.endswith("_id"))  # an id that is cut is of no use
    for row in rows:
        table.add_row(*(escape(_cell(name, row[name], row.get("currency", currency))) for name in names))
    _console().print(table)


def _titled(name: str) -> str:
    return name.removesuffix("_cents").replace("_", " ")


def _cell(name: str, value: Any, currency: str | None) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(_cell(inner, each, currency) for inner, each in value.items() if each is not None)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if name.endswith("_cents") and currency is not None and isinstance(value, int):
        return amount(value, currency)
    return str(value)


def _show(answer: Mapping[str, Any], as_json: bool) -> None:
    with _told():
        _print(answer, as_json)


def _print(answer: Mapping[str, Any], as_json: bool) -> None:
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
        for vendor in cart.below_minimum:
            least = money(vendor.minimum_cents, cart.currency)
            found = amount(vendor.merchandise_cents, cart.currency)
            console.print(f"vendor {vendor.vendor_store_id} is below its minimum: {found} of {least}", style="red")


def _show_result(console: Console, result: CheckoutResult) -> None:
    replayed = ", replayed" if result.replayed else ""
    console.print(f"cart {result.cart_id}: [bold]{escape(result.outcome)}[/]{replayed}")
    console.print(f"checkout group {result.checkout_group_id}")
    unit = escape(result.currency)
    table = Table(
        "orders and lines", "qty", f"quoted ({unit})", f"total ({unit})", "status", "reason", box=None, pad_edge=False
    )
    for column in table.columns[1:4]:
        column.justify = "right"
    for order in result.vendor_orders:
        total = amount(order.total_cents, result.currency)
        number = "" if order.order_number is None else f", number {order.order_number}"
        named = f"[bold]order {order.order_id}{number}[/]"
        table.add_row(named, "", "", f"[bold]{total}[/]", escape(order.status), "")
        for item in order.items:
            rejected = item.status == "rejected"
            table.add_row(
                f"  {escape(item.name)}",
                f"{item.qty}",
                amount(item.total_cents, result.currency),
                amount(0 if rejected else item.total_cents, result.currency),
                escape(item.status),
                escape(item.notes or ""),
                style="red" if rejected else "dim",
            )
        if order.transport_fee_cents:
            fee = amount(order.transport_fee_cents, result.currency)
            table.add_row("  shipping", "", "", fee, "", "", style="dim")
        if order.tax_cents:
            tax = amount(order.tax_cents, result.currency)
            table.add_row("  tax, included" if order.tax_included else "  tax", "", "", tax, "", "", style="dim")
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


def _progress(what: str, alone: bool = True) -> Progress:
    """A bar on a terminal, and nothing elsewhere or beside others."""
    columns = (TextColumn(what), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, disable=not (alone and console.is_terminal), transient=True)


def _json_argument(option: str, value: str) -> Any:
    """JSON of the command line, or of a file where the command line would show it to all users of the machine."""
    try:
        if value == "@-":
            written = sys.stdin.buffer.read()
        elif value.startswith("@"):
            written = Path(value[1:]).read_bytes()
        else:
            written = os.fsencode(value)
        # UTF-8, as JSON is, and not what the locale says.
        return json.loads(written.decode("utf-8-sig"))
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
def _told() -> Iterator[None]:
    """For what is printed of something done: that nobody can read it makes no failure of it."""
    try:
        yield
        sys.stdout.flush()
    except OSError as exc:
        # The interpreter tries again to print the rest when it ends, and makes an exit code of its own of that.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        with suppress(OSError):
            _errors.print(f"pycheckout: it is done, but could not be printed: {exc.strerror}", style="red")


@contextmanager
def _connected(
    database: str, schema: str | None, as_json: bool = False, grant: str = "", market: str | None = None
) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A session in which each statement is its own transaction. `grant`: what lets a role do this that may not."""
    with _refusals(as_json, market=market):
        params = _conninfo.KEEPALIVE | _parameters(database) | {"application_name": "pycheckout"}
    with (
        _refusals(as_json, params, schema, grant, market),
        # Behind a transaction pooler a prepared statement may be missing on the next backend.
        psycopg.connect(**params, autocommit=True, prepare_threshold=None, row_factory=dict_row) as conn,
    ):
        yield conn


def _checkout(conn: psycopg.Connection[dict[str, Any]], schema: str | None) -> Checkout:
    """The calls in this schema; by default in the one of the search_path that has them."""
    return Checkout(conn, schema=_conninfo.found_schema(conn) if schema is None else schema)


@contextmanager
def _refusals(
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
        error = exc if isinstance(exc, CheckoutError) else translated(exc) or _unnamed(exc)
        if error.sqlstate == "42501" and params:
            error.hint = _way_in(params, schema, grant) or error.hint
        elif isinstance(error, NotInstalled):
            error.hint = "Run `pycheckout migrate`, or name the schema that has it with --schema."
        if as_json:
            fields = {name: getattr(error, name) for name in ("code", "sqlstate", "message", "detail", "hint")}
            if market is not None:
                fields["market"] = market
            typer.echo(json.dumps({"error": fields}), err=True)
        else:
            where = "" if market is None else f"market {market}: "
            _errors.print(f"pycheckout: {where}{error.message}", style="red")
            if error.hint:
                _errors.print(f"hint: {error.hint}")
        raise typer.Exit(AGAIN if error.retryable else FAILED) from exc


def _way_in(params: Mapping[str, Any], schema: str | None, grant: str) -> str | None:
    """Who may do what this role may not."""
    with (
        suppress(psycopg.Error),
        psycopg.connect(**{**_conninfo.KEEPALIVE, **params}, autocommit=True, row_factory=dict_row) as conn,
        _conninfo.in_schema(conn, schema),
    ):
        owned = (
            "select pg_get_userbyid(relowner)::text as owner from pg_class where oid = to_regclass('checkout_roles')"
        )
        owner = (conn.execute(owned).fetchone() or {"owner": "the owner of its tables"})["owner"]
        role = conn.info.user
        way = f'Role "{role}" may not do this: connect as "{owner}", who owns pycheckout here'
        call = sql.SQL("select {}({})").format(sql.Identifier(grant), role).as_string(conn) if grant else ""
        return f"{way}, or let the owner call {call}." if grant else f"{way}."
    return None
