"""Where a command works: in a database and schema, in a market of the map, or in all of them."""

from __future__ import annotations

import inspect
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import typer

from .._errors import CheckoutError
from ..markets import Markets
from ._options import AllMarkets, Database, MarketName, MarketsFile, Schema

T = TypeVar("T")


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


def in_market(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command that works in one database and schema, with --market as another way to name them."""

    def command(**given: Any) -> Any:
        place = _taken(_of_a_market, given)
        return function(database=place.database, schema=place.schema, **given)

    return _with_parameters(command, function, _of_a_market)


def in_markets(schema: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A command that works in each of its `places`, in place of a database and a schema. `schema`: how that is asked
    for, if otherwise than usually."""

    def define(function: Callable[..., Any]) -> Callable[..., Any]:
        def command(**given: Any) -> Any:
            return function(places=_taken(_places, given), **given)

        return _with_parameters(command, function, _places, schema)

    return define


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


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What came of the work in one place; its exit code, where it failed and has said so."""

    place: Place
    value: T | None = None
    code: int = 0


def at_each(places: Sequence[Place], work: Callable[[Place], T]) -> Iterator[_Outcome[T]]:
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


def worst(codes: Iterable[int]) -> int:
    """The exit code of several: a refusal goes before a finding, and that before a server that was away."""
    return min((code for code in codes if code), default=0)
