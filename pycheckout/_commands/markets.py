"""`pycheckout market ...`"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from .. import _move
from .._errors import CheckoutError
from ..markets import Markets
from ._app import FAILED, FOUND, INSTALL, Command, command_group
from ._options import Json, MarketsFile, time_option
from ._printing import progress, stderr, telling
from ._session import refusals

_WAY_BACK = timedelta(days=1)

market_group = command_group("market", INSTALL, "A market, and the server that it is on.")

TheMarket = Annotated[str, typer.Argument(metavar="MARKET", help="Its name in the map.")]
Leaves = Annotated[
    str | None,
    typer.Option("--from", metavar="SERVER", help="The server that it leaves, if the map has another by now."),
]
Comes = Annotated[
    str, typer.Option("--to", metavar="SERVER", help="The server that it comes to, by its name in the map.")
]
PgDump = Annotated[str | None, typer.Option("--pg-dump", metavar="FILE", help="The program, if not of the PATH.")]


@market_group.command("move", cls=Command)
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
    pg_dump: PgDump = None,
    source_address: Annotated[
        str,
        typer.Option(
            "--source-address",
            metavar="DSN",
            help="How the target reaches the source, if not as the map says: 'host=10.0.0.1 port=5433'.",
        ),
    ] = "",
    target_address: Annotated[
        str,
        typer.Option(
            "--target-address", metavar="DSN", help="How the source reaches the target afterwards, to follow it."
        ),
    ] = "",
    way_back: Annotated[
        timedelta | None,
        time_option(
            "How long the source is to follow the target afterwards, so that the market can come back; or `none`.",
            default=_WAY_BACK,
            least=timedelta(milliseconds=100),
            none=True,
        ),
    ] = _WAY_BACK,
    tries: Annotated[int, typer.Option("--tries", metavar="N", min=1, help="Attempts to freeze the market.")] = 20,
    max_wal: Annotated[
        float, typer.Option("--max-wal", metavar="GB", min=0.001, help="WAL that a server may keep for the move.")
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
    options = _move.Options(
        pg_dump=pg_dump,
        source_address=source_address,
        target_address=target_address,
        way_back=way_back,
        tries=tries,
        max_wal=int(max_wal * 1024**3),
        given_up=tuple(given_up or ()),
        prove=prove,
    )
    with refusals(as_json, market=name):
        move = _moving(name, to, leaves, markets, options)
        if show_plan:
            _show_move_plan(move.plan(), as_json)
            return
        if abort:
            move.abort()
            with telling():
                said = {"market": name, "server": move.source_place.name}
                typer.echo(json.dumps(said) if as_json else f"market {name} stays at {said['server']}")
            return
        with progress("moving", alone=not as_json) as bar:
            task = bar.add_task("", total=None)

            def told(step: str) -> None:
                with telling():
                    typer.echo(json.dumps({"step": step}) if as_json else f"{datetime.now(UTC):%H:%M:%S} {step}")

            move.told = told
            move.progress = lambda done, total: bar.update(task, completed=done, total=total)
            moved = move.run()
    with telling():
        if as_json:
            typer.echo(json.dumps({"market": name, **asdict(moved)}, default=_iso))
        else:
            frozen = "" if moved.frozen_seconds is None else f", frozen for {moved.frozen_seconds:.3f} s"
            proof = "every row is the same" if moved.proven else "not compared"
            typer.echo(f"market {name} is at {moved.server} (move {moved.epoch}{frozen}); {proof}")
            if moved.followed_until is not None:
                typer.echo(f"{move.source_place.name} follows, as a way back, until {_iso(moved.followed_until)}")
            elif options.way_back is not None:
                typer.echo(f"{move.source_place.name} does not follow: the market comes back by a copy")
            typer.echo(
                f'put server = "{moved.server}" into [market.{name}] of every map; then: pycheckout market finish'
            )
    if moved.findings:
        raise typer.Exit(FOUND)


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _show_move_plan(planned: _move.MovePlan, as_json: bool) -> None:
    with telling():
        if as_json:
            typer.echo(json.dumps(asdict(planned)))
        else:
            what = f"{planned.tables} tables, {planned.size_bytes:,} bytes with their indexes"
            nothing = f"would copy nothing: the server has followed, {what}"
            typer.echo(nothing if planned.follows else f"would copy {what}")
            for note in planned.notes:
                typer.echo(f"heed: {note}")
            for each in planned.problems:
                stderr.print(f"in the way: {each.message}", style="red")
                stderr.print(f"hint: {each.hint}")
    if planned.problems:
        raise typer.Exit(FAILED)


@market_group.command("status", cls=Command)
def market_status(
    name: TheMarket, to: Comes, leaves: Leaves = None, markets: MarketsFile = None, as_json: Json = False
) -> None:
    """Show what both servers say of a move."""
    with refusals(as_json, market=name):
        move = _moving(name, to, leaves, markets)
        sides = zip((move.source_place, move.target_place), move.status(), strict=True)
    with telling():
        for place, status in sides:
            said = {"market": name, "at": place.name, **asdict(status)}
            followed = "" if status.followed_until is None else f", followed until {_iso(status.followed_until)}"
            typer.echo(
                json.dumps(said, default=_iso)
                if as_json
                else f"{place.name}: {status.state or 'nothing'}, move {status.epoch}{followed}"
            )


@market_group.command("finish", cls=Command)
def market_finish(
    name: TheMarket,
    to: Comes,
    leaves: Leaves = None,
    drop_source: Annotated[
        bool, typer.Option("--drop-source", help="Drop the schema that the market left, after a dump.")
    ] = False,
    dump: Annotated[str | None, typer.Option(metavar="FILE", help="Where that dump goes, for pg_restore.")] = None,
    pg_dump: PgDump = None,
    markets: MarketsFile = None,
    as_json: Json = False,
) -> None:
    """End a move that came through, and its way back. What it left says where the market is, until it is dropped."""
    if drop_source and dump is None:
        raise typer.BadParameter("say where the dump goes: --dump FILE", param_hint="--drop-source")
    with refusals(as_json, market=name):
        move = _moving(name, to, leaves, markets, _move.Options(pg_dump=pg_dump))
        move.finish(drop_source=drop_source, dump=dump)
    with telling():
        said = {"market": name, "server": to, "dropped": drop_source, "dump": dump if drop_source else None}
        gone = f'; schema "{move.schema}" of {move.source_place.name} was dumped into {dump}, and dropped'
        typer.echo(json.dumps(said) if as_json else f"market {name} is at {to}{gone if drop_source else ''}")


def _moving(
    name: str, to: str, leaves: str | None, markets: str | None, options: _move.Options | None = None
) -> _move.Move:
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
    return _move.Move(market.schema, source, target, options or _move.Options())
