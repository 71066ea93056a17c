"""What the figures say: tables and targets in docs/performance.md and docs/operations.md, and the plots beside them.

python -m benchmarks.report writes them again from the results on file.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.drivers import TITLES
from benchmarks.plan import RIVALS

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "benchmarks" / "results.json"
Results = dict[str, Any]

# Checkouts of one hot product after which its rate under a held snapshot is judged.
FOLLOWED = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    what: str
    wanted: str
    found: float | None
    met: Callable[[float], bool]
    shown: str = "{:.3g}"

    @property
    def figure(self) -> str:
        return "not measured" if self.found is None else self.shown.format(self.found)

    @property
    def verdict(self) -> str:
        return "" if self.found is None else "met" if self.met(self.found) else "**not met**"


def targets(results: Results) -> list[Target]:
    """Every target, with the figure of this run. Ratios of rates are medians of the ratios of each round."""

    def ratio(load: str, of: Find, to: Find) -> float | None:
        return _ratio(results, load, of, to)

    def work(name: str, of: Find, to: Find) -> float | None:
        one, other = _found(results, "uniform", of), _found(results, "uniform", to)
        return one["work"][name] / other["work"][name] if one and other else None

    def at_least(what: str, wanted: float, found: float | None) -> Target:
        return Target(what=what, wanted=f"at least {wanted:g}", found=found, met=lambda value: value >= wanted)

    function = Find("function")
    hot1, hot16 = Find("function", hot=True, slots=1), Find("function", hot=True, slots=16)
    ten_million, empty = Find("function", orders=10_000_000), Find("function", orders=0)
    wal = work("wal_bytes", function, Find("floor"))
    return [
        at_least("rate beside the floor, 8 clients", 0.65, ratio("uniform", function, Find("floor"))),
        at_least("rate beside pgbench -N", 0.25, ratio("uniform", function, Find("simple-update"))),
        Target(
            what="WAL of a checkout beside the floor's", wanted="at most 1.3", found=wal, met=lambda value: value <= 1.3
        ),
        Target(
            what="latency of pycheckout.execute beside the call by pgbench, 1 client, 1 ms more a round trip, in ms",
            wanted="at most 0.4 more",
            found=_wrapper_ms(results),
            met=lambda value: value <= 0.4,
        ),
        Target(
            what="the client's CPU in a call of pycheckout.execute, in ms",
            wanted="at most 0.25",
            found=results["loads"].get("client", {}).get("cpu_ms"),
            met=lambda value: value <= 0.25,
        ),
        at_least("32 clients beside 8, uniform", 0.95, _beside_8(results, 32)),
        at_least("90 clients beside 8, uniform", 0.9, _beside_8(results, 90)),
        at_least("hot product, 16 slots, 32 clients, beside the uniform load", 0.8, ratio("hot-32", hot16, function)),
        *(
            at_least(
                f"hot product, 1 slot, {clients} clients, beside the floor on that row",
                0.9,
                ratio(f"hot-{clients}", hot1, Find("floor", hot=True)),
            )
            for clients in (8, 32)
        ),
        *(
            at_least(
                f"hot product, {slots} slots, beside itself, {done:,} checkouts after a snapshot began", 0.8, share
            )
            for slots, (done, share) in _held(results).items()
        ),
        at_least("10 million orders beside none", 0.9, ratio("orders", ten_million, empty)),
        Target(
            what="instructions of one more line: dearest step from 5 to 100 lines beside the cheapest",
            wanted="at most 1.25",
            found=_steepest(results),
            met=lambda value: value <= 1.25,
        ),
        Target(
            what="sequential scans in the run with 10 million orders",
            wanted="0",
            found=results["loads"].get("orders", {}).get("seq_scans"),
            met=lambda value: value == 0,
            shown="{:.0f}",
        ),
        Target(
            what="memory of a session, 10,000 checkouts beside 1,000",
            wanted="at most 1.05",
            found=_growth(results),
            met=lambda value: value <= 1.05,
        ),
    ]


class Find:
    """A contender by its driver and setup."""

    def __init__(self, driver: str, *, hot: bool = False, slots: int = 1, orders: int | None = None) -> None:
        self.driver, self.hot, self.slots, self.orders = driver, hot, slots, orders

    def __call__(self, contender: dict[str, Any]) -> bool:
        setup = contender["setup"]
        return (contender["driver"], setup["shape"]["hot"], setup["slots"]) == (self.driver, self.hot, self.slots) and (
            self.orders is None or self.orders == setup["orders"]
        )


def _found(results: Results, load: str, find: Find) -> dict[str, Any] | None:
    return next(filter(find, results["loads"].get(load, {}).get("contenders", [])), None)


def _ratio(results: Results, load: str, of: Find, to: Find) -> float | None:
    one, other = _found(results, load, of), _found(results, load, to)
    if one is None or other is None:
        return None
    return statistics.median(a / b for a, b in zip(one["rates"], other["rates"], strict=True))


def _steepest(results: Results) -> float | None:
    """By the instructions that one more line costs between two sizes."""
    sizes = results["loads"].get("line-instructions", {}).get("sizes", [])
    steps = [
        (large["thousands"] - small["thousands"]) / (large["lines"] - small["lines"])
        for small, large in pairwise(sizes)
    ]
    return max(steps) / min(steps) if steps else None


def _wrapper_ms(results: Results) -> float | None:
    """What Python adds to a round trip and the server's time, both of which are in the call by pgbench."""
    execute, function = (_found(results, "delay-1", Find(driver)) for driver in ("execute", "function"))
    return execute["p50_ms"]["median"] - function["p50_ms"]["median"] if execute and function else None


def _beside_8(results: Results, clients: int) -> float | None:
    found = results["loads"].get("clients", {}).get("contenders", [])
    rates = {each["clients"]: each["rates"] for each in found if not each["setup"]["shape"]["hot"]}
    if not rates:
        return None
    return statistics.median(a / b for a, b in zip(rates[clients], rates[8], strict=True))


def _held(results: Results) -> dict[int, tuple[int, float | None]]:
    """By slots: checkouts made while a snapshot was held, and the share of the rate without it that was left.

    Of the rounds that ended after FOLLOWED checkouts; of the last three where they came to less.
    """
    found: dict[int, dict[bool, dict[str, Any]]] = {}
    for each in results["loads"].get("snapshot-hot", {}).get("contenders", []):
        found.setdefault(each["setup"]["slots"], {})[each["setup"]["snapshot"]] = each
    shares: dict[int, tuple[int, float | None]] = {}
    for slots, by in found.items():
        if slots > 1:
            made = by[True]["done"]
            late = [n for n, done in enumerate(made) if done >= FOLLOWED] or [*range(len(made))][-3:]
            share = statistics.median(by[True]["rates"][n] / by[False]["rates"][n] for n in late)
            shares[slots] = (made[-1], share)
    return shares or {16: (FOLLOWED, None)}


def _growth(results: Results) -> float | None:
    after = {each["checkouts"]: each["private_mb"] for each in results["loads"].get("memory", {}).get("after", [])}
    return after[10_000] / after[1000] if after else None


# Tables


def table(header: list[str], rows: list[list[str]], *, words: int = 1) -> str:
    """Markdown; the first `words` columns are text, the others figures."""
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def targets_text(results: Results) -> str:
    rows = [[each.what, each.wanted, each.figure, each.verdict] for each in targets(results)]
    return table(["target", "wanted", "found", ""], rows)


def gains(results: Results) -> str:
    """What a reader gets, a sentence a line; empty unless `uniform` and `delay-1` were run."""
    execute = Find("execute")
    near, far = _found(results, "uniform", execute), _found(results, "delay-1", execute)
    times = {rival: _ratio(results, "uniform", execute, Find(rival)) for rival in RIVALS}
    waits = {rival: _found(results, "delay-1", Find(rival)) for rival in RIVALS}
    if near is None or far is None or None in times.values() or None in waits.values():
        return ""

    def beside(rival: str) -> str:
        return f"{times[rival]:.1f} times"

    most = max(rival["work"]["statements"] for rival in waits.values() if rival)

    def waited(rival: str) -> str:
        return f"{waits[rival]['p50_ms']['median']:.0f}"  # type: ignore[index]

    more = [each for each in (_snapshot_gain(results), _yardstick(results)) if each]
    return "\n".join([_main_gains(results, near, far, beside, waited, most), *more])


def _main_gains(results: Results, near: Any, far: Any, beside: Any, waited: Any, most: float) -> str:
    return (
        f"- **{near['rate']['median']:,.0f} checkouts a second** of {near['lines']:.0f} lines for 3 vendors, on"
        f" {_cores(results, 'uniform')} cores that ran the clients too: {beside('psycopg-pipelined')} the rate of the"
        f" same checkout in pipelined psycopg, {beside('psycopg')} of plain psycopg, {beside('orm')} of a well-written"
        f" SQLAlchemy program, {beside('orm-naive')} of one that works row by row.\n"
        f"- **{far['p50_ms']['median']:.0f} ms for a buyer** where a round trip takes 1 ms more, as between two"
        f" machines, instead of {waited('psycopg-pipelined')}, {waited('psycopg')}, {waited('orm')} and"
        f" {waited('orm-naive')}: the checkout is one round trip, not up to {most:.0f}."
    )


def _snapshot_gain(results: Results) -> str:
    done, share = _held(results).get(16, (0, None))
    if share is None:
        return ""
    return (
        f"- **{share:.0%} of its rate** is what a hot product in 16 slots keeps after {done:,} checkouts with a"
        " snapshot held open since the first of them, by a report or a `pg_dump`."
    )


def _yardstick(results: Results) -> str:
    """A checkout in New-Orders, by rate and by CPU."""
    function, other = (_found(results, "new-order", Find(driver)) for driver in ("function", "new-order"))
    times = _ratio(results, "new-order", Find("new-order"), Find("function"))
    if function is None or other is None or times is None:
        return ""
    cpu = function["cpu_ms"]["median"] / other["cpu_ms"]["median"]
    return (
        f"- **A checkout of 10 lines costs {times:.1f} New-Orders** of TPC-C with 10 lines, by rate, and {cpu:.1f} by"
        " the server's CPU: both one call, on the same server in the same minutes."
    )


def plan(results: Results) -> str:
    """How many checkouts a second to plan with, before any table."""
    cores = _cores(results, "baskets")
    baskets, hot = _found(results, "baskets", Find("function")), _found(results, "hot-32", Find("function", hot=True))
    split = _found(results, "hot-32", Find("function", hot=True, slots=16))
    if baskets is None or hot is None or split is None:
        return ""

    def fifties(rate: float) -> str:
        return f"{rate // 50 * 50:,.0f}"

    def half(of: dict[str, Any]) -> float:
        """Of what its CPU allows."""
        return float(cores * 1000 / of["cpu_ms"]["median"] / 2)

    each, work = baskets["cpu_ms"]["median"], baskets["work"]["wal_bytes"]
    return (
        f"**{cores} cores: plan with {fifties(half(baskets))} checkouts a second.** A real basket takes {each:.2f} ms"
        f" of the server's CPU, and half of that CPU is left for all else. More cores: {fifties(half(baskets) / cores)}"
        f" for each; more than {cores} were not measured.\n\n"
        f"- One product in **every** cart, in one row: {fifties(hot['rate']['median'] / 2)}, half of what one row gave,"
        f" however many cores there are. Split into 16 slots: {fifties(half(split))}.\n"
        f"- WAL: {work / 1000:.0f} kB a checkout, and whole pages after each checkpoint on top."
    )


def text(name: str, found: dict[str, Any]) -> str:
    """One load, in Markdown."""
    title = f"### {found['title']} (`{name}`)"
    if name == "lines":
        rows = [
            [f"{each['lines']}", f"{each['ms']:.2f}", f"{each['cpu_ms']:.2f}", f"{each['cpu_ms'] / each['lines']:.3f}"]
            for each in found["sizes"]
        ]
        return f"{title}\n\n{table(['lines', 'ms', 'CPU ms', 'CPU ms a line'], rows, words=0)}"
    if name == "line-instructions":
        rows = [[f"{each['lines']}", f"{each['thousands']:,.0f}"] for each in found["sizes"]]
        return f"{title}\n\n{table(['lines', 'thousand instructions'], rows, words=0)}"
    if name == "rush":
        rows = [[f"{each[key]:,}" for key in ("slots", "orders", "rejected", "written")] for each in found["sold_out"]]
        return f"{title}\n\n{table(['slots', 'orders', 'sold out', 'orders written'], rows, words=0)}"
    if name == "client":
        rows = [
            [who, f"{found[each]:.3f}", f"{found['medians'][each]:.3f}"]
            for each, who in (
                ("cpu_ms", "pycheckout.execute, on a pool"),
                ("psycopg_ms", "psycopg alone: its statement, the answer as text"),
                ("least_ms", "psycopg on a pool, the answer by json.loads"),
            )
        ]
        return f"{title}\n\n{table(['who', 'CPU ms of the client a call', 'median'], rows)}"
    if name == "memory":
        rows = [["0", f"{found['fresh_mb']:.1f}"]]
        rows += [[f"{each['checkouts']:,}", f"{each['private_mb']:.1f}"] for each in found["after"]]
        return f"{title}\n\n{table(['checkouts', 'private MB'], rows, words=0)}"
    if name == "profile":
        inside = sum(each["self_us"] for each in found["steps"])
        rows = [
            [f"`{each['function']}`", f"{each['calls']}", f"{each['self_us']:.0f}", f"{each['self_us'] / inside:.0%}"]
            for each in found["steps"]
        ]
        rows.append(["commit, protocol, client", "", f"{found['us'] - inside:.0f}", ""])
        return f"{title}\n\n{table(['function', 'calls', 'µs', 'of the function'], rows)}"
    header = "who,a second,spread,lines a second,p50 ms,p95 ms,p99 ms,statements,buffers,WAL bytes,full pages,CPU ms"
    rows = [_row(each, found) for each in found["contenders"]]
    return (
        f"{title}\n\n{table(header.split(','), rows)}\n\n{_followed(found)}{_waits(found)}"
        f"{found['rounds']} rounds of {found['seconds']} s, {found['at'][:10]}; round trip {found['round_trip_ms']} ms,"
        f" load average before {found['load_average_before']}."
    )


def _row(each: dict[str, Any], found: dict[str, Any]) -> list[str]:
    rate, work = each["rate"], each["work"]
    lines = f"{rate['median'] * each['lines']:,.0f}" if each["lines"] and each["driver"] != "bare-update" else ""
    return [
        ", ".join([*_how_many(each, found), _who(each)]),
        f"{rate['median']:,.0f}",
        f"{rate['min']:,.0f} to {rate['max']:,.0f}",
        lines,
        *(f"{each[name]['median']:.1f}" for name in ("p50_ms", "p95_ms", "p99_ms")),
        f"{work['statements']:.0f}",
        f"{work['buffers']:,.0f}",
        f"{work['wal_bytes']:,.0f}",
        f"{work['wal_pages']:.2f}",
        f"{each['cpu_ms']['median']:.2f}",
    ]


def _followed(found: dict[str, Any]) -> str:
    """The rates of a snapshot's rounds, one after the other."""
    held = [each for each in found["contenders"] if each["setup"]["snapshot"] and each["setup"]["shape"]["lines"] == 1]
    if not held:
        return ""
    rows = [[_who(each), *(f"{rate:,.0f}" for rate in each["rates"])] for each in held]
    return table(["round", *(str(n) for n in range(1, len(held[0]["rates"]) + 1))], rows) + "\n\n"


def _waits(found: dict[str, Any]) -> str:
    """What its sessions waited for, where they were watched."""
    rows = [
        [f"{each['clients']} clients, {_who(each)}", event, f"{share:.0%}"]
        for each in found["contenders"]
        for event, share in each.get("waits", {}).items()
        if share >= 0.01
    ]
    return table(["who", "waits for", "share of the samples"], rows, words=2) + "\n\n" if rows else ""


def _how_many(each: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Clients, of a load whose title cannot say how many."""
    return [f"{each['clients']} clients"] if len({one["clients"] for one in found["contenders"]}) > 1 else []


def _who(each: dict[str, Any]) -> str:
    return ", ".join([TITLES[each["driver"]], *_notes(each)])


def _notes(each: dict[str, Any]) -> list[str]:
    setup, notes = each["setup"], []
    if setup["shape"]["hot"] and each["driver"] != "bare-update":
        notes.append(f"hot product, {setup['slots']} slot{'s' * (setup['slots'] > 1)}")
    if setup["orders"]:
        notes.append(f"{setup['orders']:,} orders there")
    if setup["snapshot"]:
        notes.append("snapshot open")
    return notes


def sizing(results: Results) -> str:
    """What the machine of the run does, and what disk a checkout takes."""
    rows = [
        [
            found["title"],
            ", ".join([*_how_many(each, found), *_notes(each)]),
            f"{each['rate']['median']:,.0f}",
            f"{each['p95_ms']['median']:.1f}",
            f"{each['cpu_ms']['median']:.2f}",
            f"{each['rate']['median'] * each['work']['wal_bytes'] / 1e6:.1f}",
        ]
        for found in results["loads"].values()
        for each in found.get("contenders", [])
        if each["driver"] == "function"
    ]
    shown = table(["load", "", "checkouts/s", "p95 ms", "server CPU ms each", "WAL MB/s"], rows, words=2)
    disk = results["loads"].get("memory", {}).get("disk_bytes")
    if disk:
        rows = [[f"`{name}`", f"{size:,}"] for name, size in disk.items()]
        rows.append(["together", f"{sum(disk.values()):,}"])
        shown += "\n\nBytes on disk that a checkout of 3 vendors x 2 lines adds, indexes included:\n\n"
        shown += table(["table", "bytes"], rows)
    return shown


def _cores(results: Results, load: str) -> int:
    return int(results["loads"][load]["machine"]["cores"])


def machines(results: Results) -> str:
    """On what the loads ran; which ones on which, where they did not all run on one."""
    loads: dict[str, list[str]] = {}
    for name, found in results["loads"].items():
        loads.setdefault(_machine(found["machine"]), []).append(f"`{name}`")
    if len(loads) == 1:
        return next(iter(loads))
    most, *others = sorted(loads, key=lambda shown: -len(loads[shown]))
    return "\n\n".join([most, *(f"{', '.join(loads[shown])}: {shown}" for shown in others)])


def _machine(machine: dict[str, Any]) -> str:
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gb']} GB, {machine['system']},"
        f" PostgreSQL {machine['server_version'].split()[0]}, Python {machine['python']};"
        f" fsync {machine['fsync']}, synchronous_commit {machine['synchronous_commit']},"
        f" full_page_writes {machine['full_page_writes']}, shared_buffers {machine['shared_buffers']}."
    )


def pages(results: Results) -> dict[Path, str]:
    """The pages of the docs with these results in them."""
    about = machines(results)
    tables = "\n\n".join(text(name, found) for name, found in results["loads"].items())
    performance, operations = DOCS / "performance.md", DOCS / "operations.md"
    page = between(performance.read_text(encoding="utf-8"), "gains", gains(results))
    page = between(page, "targets", f"{about}\n\n{targets_text(results)}")
    other = between(operations.read_text(encoding="utf-8"), "plan", plan(results))
    return {
        performance: between(page, "results", tables),
        operations: between(other, "sizing", f"{about}\n\n{sizing(results)}"),
    }


def write(results: Results) -> None:
    for path, page in pages(results).items():
        path.write_text(page, encoding="utf-8")
    plots(results)


def between(page: str, name: str, content: str, program: str = "report") -> str:
    """Replace what stands between two markers of a page, which name a program of benchmarks/."""
    begin, end = f"<!-- {name}: written by benchmarks/{program}.py -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    new, count = pattern.subn(lambda _: f"{begin}\n\n{content.strip()}\n\n{end}", page)
    assert count == 1, f"no place for {name}"
    return new


# Plots


def plots(results: Results) -> None:
    import matplotlib

    matplotlib.use("svg")
    # The same figures make the same file.
    matplotlib.rcParams |= {"svg.hashsalt": "pycheckout", "font.size": 9, "axes.spines.top": False}
    matplotlib.rcParams |= {"axes.spines.right": False, "figure.constrained_layout.use": True}
    from matplotlib import pyplot

    for name, draw in (
        ("rivals", _rivals),
        ("rates", _rates),
        ("hot", _hot),
        ("snapshot-hot", _snapshot),
        ("lines", _lines),
    ):
        figure = draw(pyplot, results)
        if figure is not None:
            figure.savefig(DOCS / "benchmarks" / f"{name}.svg", metadata={"Date": None})
            pyplot.close(figure)


# A plot is as wide as a phone shows it without shrinking its letters, in inches.
WIDTH = 5.2


def _bars(
    axes: Any, contenders: list[dict[str, Any]], title: str, *, figure: str = "rate", unit: str = "checkouts a second"
) -> None:
    names = [re.sub("(,|, by|:) ", r"\1\n", TITLES[each["driver"]]) for each in contenders]
    rates = [each[figure]["median"] for each in contenders]
    errors = [[each[figure][side] for each in contenders] for side in ("min", "max")]
    spread = [
        [rate - low for rate, low in zip(rates, errors[0], strict=True)],
        [high - rate for rate, high in zip(rates, errors[1], strict=True)],
    ]
    colours = ["#c0504d" if each["driver"] in ("function", "execute") else "#7f8fa6" for each in contenders]
    bars = axes.barh(names, rates, xerr=spread, color=colours, ecolor="#333333")
    axes.bar_label(bars, [f"{rate:,.0f}" for rate in rates], padding=6)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_title(title, loc="left")
    axes.set_xlabel(unit)


def _rivals(pyplot: Any, results: Results) -> Any:
    """This and the client-side programs, without the floors, beside which they could not be told apart."""
    if not {"uniform", "delay-1"} <= set(results["loads"]):
        return None
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(WIDTH, 6.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12)
    shown = {
        name: [each for each in results["loads"][name]["contenders"] if each["driver"] in ("execute", *RIVALS)]
        for name in ("uniform", "delay-1")
    }
    _bars(above, shown["uniform"], "8 clients: more is better")
    _bars(
        below,
        shown["delay-1"],
        "1 client, 1 ms more a round trip: less is better",
        figure="p50_ms",
        unit="ms a checkout, median",
    )
    return figure


def _rates(pyplot: Any, results: Results) -> Any:
    shown = [name for name in ("uniform", "delay-1") if name in results["loads"]]
    if not shown:
        return None
    figure, all_axes = pyplot.subplots(len(shown), 1, figsize=(WIDTH, 4.6 * len(shown)), squeeze=False)
    for axes, name in zip(all_axes[:, 0], shown, strict=True):
        found = results["loads"][name]
        contenders = [each for each in found["contenders"] if each["driver"] != "simple-update"]
        _bars(axes, contenders, found["title"])
    return figure


def _hot(pyplot: Any, results: Results) -> Any:
    shown = [name for name in ("hot-1", "hot-8", "hot-32") if name in results["loads"]]
    if not shown:
        return None
    figure, axes = pyplot.subplots(figsize=(WIDTH, 3.2))
    for name in shown:
        uniform = _found(results, name, Find("function"))
        slots = [each for each in results["loads"][name]["contenders"] if each["driver"] == "function"]
        slots = [each for each in slots if each["setup"]["shape"]["hot"]]
        assert uniform is not None
        axes.plot(
            [str(each["setup"]["slots"]) for each in slots],
            [
                100
                * (
                    _ratio(results, name, Find("function", hot=True, slots=each["setup"]["slots"]), Find("function"))
                    or 0
                )
                for each in slots
            ],
            marker="o",
            label=f"{uniform['clients']} client{'s' * (uniform['clients'] > 1)}",
        )
    axes.axhline(80, color="#999999", linewidth=0.8, linestyle=":")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("slots of the hot product")
    axes.set_ylabel("% of the uniform load's rate")
    axes.legend()
    return figure


def _snapshot(pyplot: Any, results: Results) -> Any:
    """Rates of the rounds over the checkouts that were made by then."""
    found = results["loads"].get("snapshot-hot")
    if found is None:
        return None
    figure, axes = pyplot.subplots(figsize=(WIDTH, 3.6))
    colours = dict(zip((1, 4, 16, 64), ("#7f8fa6", "#e0a458", "#c0504d", "#4f81bd"), strict=True))
    for each in found["contenders"]:
        slots, held = each["setup"]["slots"], each["setup"]["snapshot"]
        axes.plot(
            [done / 1000 for done in each["done"]],
            each["rates"],
            color=colours[slots],
            linestyle="-" if held else ":",
            label=f"{slots} slot{'s' * (slots > 1)}{', snapshot held' * held}",
        )
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("thousand checkouts of the product until then")
    axes.set_ylabel("checkouts a second")
    axes.legend(fontsize=7, ncols=2)
    return figure


def _lines(pyplot: Any, results: Results) -> Any:
    if "lines" not in results["loads"]:
        return None
    sizes = results["loads"]["lines"]["sizes"]
    figure, axes = pyplot.subplots(figsize=(WIDTH, 3.2))
    for name, label in (("ms", "time"), ("cpu_ms", "CPU of the backend")):
        axes.plot([each["lines"] for each in sizes], [each[name] for each in sizes], marker="o", label=label)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("lines in the cart")
    axes.set_ylabel("ms a checkout")
    axes.legend()
    return figure


if __name__ == "__main__":
    write(json.loads(RESULTS.read_text(encoding="utf-8")))
