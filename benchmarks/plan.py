"""The loads: who runs against whom, on which carts, with how many clients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.drivers import FLOORS
from benchmarks.loads import Shape

UNIFORM = Shape()
HOT = Shape(hot=True)
HOT_LINE = Shape(vendors=1, lines=1, hot=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """A database of its own: its carts, the slots of the hot product, orders already there, a snapshot held open."""

    shape: Shape = UNIFORM
    slots: int = 1
    orders: int = 0
    snapshot: bool = False
    # Not where nothing is checked out, or more is there than the audit can read in a minute.
    audited: bool = True


DEFAULT = Setup()


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    driver: str
    clients: int
    setup: Setup = DEFAULT
    delayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    name: str
    title: str
    contenders: list[Contender]
    quick: bool = True  # whether it is part of a run of minutes
    waits: bool = False  # whether it is watched what sessions wait for
    # Where a rate is followed over time: how many rounds, and how long each; else as long as the run says.
    rounds: int | None = None
    seconds: int | None = None


def _all(drivers: Iterable[str], clients: int, setup: Setup = DEFAULT, *, delayed: bool = False) -> list[Contender]:
    return [Contender(driver=driver, clients=clients, setup=setup, delayed=delayed) for driver in drivers]


OURS = ["function", "execute"]
BASELINES = [*FLOORS, "simple-update"]
RIVALS = ["psycopg", "psycopg-pipelined", "psycopg-naive", "orm", "orm-naive"]


def _hot(clients: int) -> Load:
    one_slot = Setup(shape=HOT)
    return Load(
        name=f"hot-{clients}",
        title=f"One hot product in every cart, {clients} client{'s' * (clients > 1)}",
        contenders=[
            *_all(["function", *FLOORS], clients),
            *(Contender(driver="function", clients=clients, setup=Setup(shape=HOT, slots=n)) for n in (1, 4, 16, 64)),
            *_all(FLOORS, clients, one_slot),
            Contender(driver="bare-update", clients=clients, setup=Setup(shape=HOT, audited=False)),
        ],
        quick=clients == 32,
    )


LOADS = [
    Load(name="uniform", title="3 vendors x 2 lines, 8 clients", contenders=_all([*OURS, *BASELINES, *RIVALS], 8)),
    Load(
        name="uniform-1",
        title="3 vendors x 2 lines, 1 client",
        contenders=_all([*OURS, *BASELINES, *RIVALS], 1),
        quick=False,
    ),
    Load(
        name="uniform-32",
        title="3 vendors x 2 lines, 32 clients",
        contenders=_all([*OURS, *BASELINES, *RIVALS], 32),
        quick=False,
    ),
    Load(
        name="one-line",
        title="One line, 8 clients",
        contenders=_all([*OURS, *BASELINES, "psycopg", "orm"], 8, Setup(shape=Shape(vendors=1, lines=1))),
        quick=False,
    ),
    Load(
        name="new-order",
        title="Ten lines of one vendor, and a New-Order of TPC-C, 8 clients",
        contenders=[
            Contender(driver="function", clients=8, setup=Setup(shape=Shape(vendors=1, lines=10))),
            *_all(["new-order", "simple-update"], 8),
        ],
    ),
    Load(
        name="hundred-lines",
        title="10 vendors x 10 lines, 8 clients",
        contenders=_all([*OURS, *FLOORS, "psycopg", "orm"], 8, Setup(shape=Shape(vendors=10, lines=10))),
        quick=False,
    ),
    Load(
        name="baskets",
        title="Real baskets of the sample, 8 clients",
        contenders=_all([*OURS, "psycopg", "orm"], 8, Setup(shape=Shape(baskets="sample"))),
    ),
    Load(
        name="baskets-full",
        title="Real baskets of the full data set by arrival, 8 clients",
        contenders=_all([*OURS, "psycopg", "orm"], 8, Setup(shape=Shape(baskets="full"))),
        quick=False,
    ),
    *(_hot(clients) for clients in (1, 8, 32)),
    Load(
        name="clients",
        title="3 vendors x 2 lines, more and more clients",
        contenders=[
            Contender(driver="function", clients=clients, setup=setup)
            for setup in (DEFAULT, Setup(shape=HOT, slots=16))
            for clients in (8, 32, 90)
        ],
        quick=False,
        waits=True,
    ),
    *(
        Load(
            name=name,
            title=f"3 vendors x 2 lines, {clients} client{'s' * (clients > 1)}, 1 ms more a round trip",
            contenders=_all([*OURS, *FLOORS, *RIVALS], clients, delayed=True),
            quick=clients == 1,
        )
        for name, clients in (("delay", 8), ("delay-1", 1))
    ),
    Load(
        name="snapshot",
        title="A snapshot held open meanwhile, 8 clients",
        contenders=[
            Contender(driver="function", clients=8, setup=Setup(shape=shape, slots=slots, snapshot=held))
            for shape, slots in ((UNIFORM, 1), (HOT, 16))
            for held in (False, True)
        ],
        quick=False,
    ),
    Load(
        name="snapshot-hot",
        title="One hot product, one line a cart, a snapshot held open meanwhile, 8 clients",
        contenders=[
            Contender(driver="function", clients=8, setup=Setup(shape=HOT_LINE, slots=slots, snapshot=held))
            for slots in (1, 4, 16, 64)
            for held in (False, True)
        ],
        quick=False,
        rounds=12,
        seconds=10,
    ),
    Load(
        name="orders",
        title="Orders already in the tables, 8 clients",
        contenders=[
            Contender(driver="function", clients=8, setup=Setup(orders=orders, audited=orders <= 1_000_000))
            for orders in (0, 1_000_000, 10_000_000)
        ],
        quick=False,
    ),
]
