"""`pycheckout relay`."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext, suppress
from datetime import timedelta
from typing import Annotated, Any

import typer

from .._migrate import _parameters
from ._app import AGAIN, WATCH, Command, app
from ._options import time_option
from ._places import Place, in_markets, worst
from ._printing import lacking, stderr, telling
from ._session import refusals

_LEASE, _POLL, _PATIENCE = timedelta(seconds=30), timedelta(seconds=1), timedelta(minutes=1)
_PAUSE = 30.0  # seconds before a market that cannot be relayed is tried again


@app.command(cls=Command, rich_help_panel=WATCH)
@in_markets()
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
        timedelta,
        time_option(
            "How soon the events of a relay that died are free.",
            default=_LEASE,
            least=timedelta(seconds=1),
            most=timedelta(days=1),
        ),
    ] = _LEASE,
    poll: Annotated[
        timedelta,
        time_option("The time between looks at an idle outbox.", default=_POLL, least=timedelta(milliseconds=10)),
    ] = _POLL,
    max_attempts: Annotated[int, typer.Option(metavar="N", min=1, help="Attempts before an event is parked.")] = 12,
    drain: Annotated[bool, typer.Option("--drain", help="End once nothing is due.")] = False,
    timeout: Annotated[
        timedelta, time_option("How long --drain goes on without publishing anything.", default=_PATIENCE)
    ] = _PATIENCE,
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Answer /metrics, /livez and /readyz at HOST:PORT, or PORT of 127.0.0.1. Needs the extra `metrics`.",
        ),
    ] = None,
) -> None:
    """Publish the outbox to a broker until SIGTERM or Ctrl-C. Needs the extra `relay`."""
    from ..relay import Relay

    def made(place: Place) -> Relay:
        try:
            return Relay(
                place.database,
                broker,
                schema=place.schema,
                destination=destination,
                source=source if place.market is None else f"{source}/{place.market}",
                batch=batch,
                lease_seconds=lease.total_seconds(),
                poll_seconds=poll.total_seconds(),
                max_attempts=max_attempts,
            )
        except ValueError as exc:
            raise typer.BadParameter(str(exc), param_hint="--broker") from exc
        except ModuleNotFoundError as exc:
            raise lacking("the relay", exc, "relay") from exc

    with refusals():
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
                with refusals(False, params[place], place.schema, "checkout_grant_relay", place.market):
                    published += await relays[place].run(until_empty=drain, timeout=timeout.total_seconds())
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
    with telling():
        typer.echo(f"{sum(published for published, _ in ended)} events published")
    for place, (_, code) in zip(places, ended, strict=True):
        if code == AGAIN and not relays[place].drained:
            stderr.print(f"pycheckout: {place.headed('stopped before the outbox was empty')}", style="red")
    if code := worst(code for _, code in ended):
        raise typer.Exit(code)


def _listener(relays: Mapping[Place, Any], listen: str) -> Any:
    try:
        from .. import _metrics
    except ModuleNotFoundError as exc:
        raise lacking("--listen", exc, "metrics") from exc
    try:
        listener = _metrics.Listener(relays, _metrics.address(listen))
    except (OSError, OverflowError, ValueError) as exc:
        raise typer.BadParameter(f"cannot listen at {listen}: {exc}", param_hint="--listen") from exc
    stderr.print(f"pycheckout: listening at port {listener.port}")
    return listener
