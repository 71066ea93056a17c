"""The order of a move. Each step looks where the move is before it does anything.

So a command that died is run again, and goes on from there, and one that comes late finds another state and stops.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from .. import _audit
from .._errors import Unavailable, translated
from . import structure
from .gate import Gate
from .look import ANEW, MovePlan, leads_out, look
from .proof import prove
from .sides import HERE, MoveDoubtful, MoveRefused, MoveUnfinished, Options, Place, Side, Status
from .stream import Stream, unsubscribe_all, way_back

STEPS = (
    "look",
    "leave",
    "structure",
    "subscribe",
    "copy",
    "compare",
    "retain",
    "calm",
    "freeze",
    "standbys",
    "mark",
    "sequences",
    "open",
    "close",
    "clear",
    "prove",
    "follow",
)
"""In their order. The market is frozen from the end of `freeze` to the end of `open`, the point of no return."""

_PATIENCE = 30.0  # seconds that a server may be away in the middle of a move
_ALONE = "select pg_try_advisory_lock(hashtext('pycheckout move'), hashtext(%s)) as got"
_NEAR = 1_000_000  # bytes of WAL behind the source, at most, when it is frozen


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What a move did."""

    epoch: int
    server: str
    frozen_seconds: float | None
    """None: it was frozen by a command that died."""
    tries: int
    proven: bool | None
    """True: both servers had the same rows when the target was opened. None: nobody compared."""
    findings: int | None
    """Of the audit at the target. None: it was not run."""
    followed_until: datetime | None
    """Until when the source is to follow, which is the way back. None: it does not."""


@dataclass
class Move:
    """The schema of a market, and the two servers."""

    schema: str
    source_place: Place
    target_place: Place
    options: Options = field(default_factory=Options)
    told: Callable[[str], None] = lambda step: None
    """Called with the name of each step when it begins."""
    progress: Callable[[int, int], None] = lambda done, total: None
    """Called with what is done of a step, and of how much: tables copied, tables compared, orders audited."""

    _stack: ExitStack = field(default_factory=ExitStack, init=False)
    _frozen_seconds: float | None = field(default=None, init=False)
    _snapshot: psycopg.Connection[dict[str, Any]] | None = field(default=None, init=False)

    source: Side = field(init=False)
    target: Side = field(init=False)

    def __post_init__(self) -> None:
        self._gate = Gate(self.options)

    # What is called

    def plan(self) -> MovePlan:
        """What a move would meet. Reads only."""
        with self._both():
            return look(self.source, self.target, self.options)

    def status(self) -> tuple[Status, Status]:
        """What the two sides say."""
        with self._both(locks=False):
            return self.source.status(), self.target.status()

    def run(self) -> Moved:
        """Move, or go on with a move that stands still.

        Raises MoveRefused before anything is done, or when it was taken back; MoveUnfinished where it stands still.
        """
        lost_at: float | None = None
        while True:
            began: float | None = None
            try:
                with self._both():
                    began = time.monotonic()
                    return self._go()
            except (psycopg.OperationalError, Unavailable) as exc:
                known = translated(exc) if isinstance(exc, psycopg.Error) else exc
                if not isinstance(known, Unavailable):
                    raise
                now = time.monotonic()
                if lost_at is None or (began is not None and now > began + _PATIENCE):  # it went on in between
                    lost_at = now
                if now > lost_at + _PATIENCE:
                    raise MoveUnfinished(
                        f"a server is away: {str(exc).splitlines()[0][:200]}",
                        hint="When it is back, run the same command again; or take the move back with --abort.",
                    ) from exc
                time.sleep(0.2)

    def abort(self) -> None:
        """Take the move back: the source has the market as if nothing had been.

        The target is shut first, so it has to be reached. Raises MoveRefused if it was opened.
        """
        with self._both():
            self._take_back()

    def finish(self, *, drop_source: bool = False, dump: str | None = None) -> None:
        """End a move that came through, and its way back: nothing is left but the source's word, or not even that.

        `drop_source`: after a dump into the file `dump`, which must not be there yet. Raises MoveRefused while the
        target does not sell.
        """
        if drop_source and dump is None:
            raise MoveRefused("name the file that the source is dumped into before it is dropped")
        with self._both():
            here, there = self.source.status(), self.target.status()
            if here.state != "moved" or there.state != "selling" or there.epoch < here.epoch:
                a, b = self.source_place.name, self.target_place.name
                if here.state is None and there.state == "selling":
                    raise MoveRefused(
                        f'{a} has no schema "{self.schema}", and the market is sold in at {b}:'
                        " nothing is left to finish"
                    )
                raise MoveRefused(
                    f"the market is {here.state or 'not'} at {a}, and {there.state or 'not'} at {b}",
                    hint="`pycheckout market move` ends the move first.",
                )
            if dump is None or not drop_source:
                self._part(here, there)
                return
            with structure.new_dump(dump):
                self._part(here, there)
                if tied := leads_out(self.source):
                    raise MoveRefused(tied, hint="Nothing outside may need the schema.")
                structure.dump(self.source, dump, self.options.pg_dump)
            unsubscribe_all(self.source)
            structure.drop(self.source)

    def _part(self, here: Status, there: Status) -> None:
        """Nothing of the move is left between the two."""
        self._clear(here.epoch)
        if there.epoch == here.epoch or self._back.subscribed:
            self._leave_behind(there.epoch)

    # The order

    def _go(self) -> Moved:
        here, there = self.source.status(), self.target.status()
        if here.state not in ("leaving", "moving", "moved"):
            self.told("look")
            if problems := look(self.source, self.target, self.options).problems:
                rest = "".join(f"; {each.message}" for each in problems[1:])
                raise MoveRefused(problems[0].message + rest, hint=problems[0].hint)
        if here.state == "moved":
            if here.server != self.target_place.name:
                raise MoveRefused(
                    f"the market is on server {here.server}", hint="Correct the map, or name that server with --from."
                )
            epoch = here.epoch
        else:
            self.told("leave")
            epoch = self._leave()
        here, there = self.source.status(), self.target.status()
        shut = there.state == "closed" or (there.state, there.epoch) == ("moved", epoch)
        if shut and here.state in ("leaving", "moving"):
            self._take_back()  # a command that did so died
            return self._go()
        opened = (there.state, there.epoch) == ("selling", epoch)
        is_over = self._is_over(there, epoch)
        if is_over and here.state in ("moving", "moved"):
            self.source.call("market_close", epoch)
            raise MoveRefused(
                f"move {epoch} is over, and the market is {there.state} at {self.target_place.name},"
                f" in move {there.epoch}",
                hint="Correct the map, or name the server that has the market with --from.",
            )
        if here.state != "leaving" and not opened and not self._may_open(there, epoch):
            raise self._unknown(here, there)
        if here.state == "moved" and not opened and not self._marked(epoch):
            raise self._unknown(here, there)  # a standby took the target's place, and lacks the opening and more

        if here.state == "leaving" and (opened or is_over):
            self._gate.freeze(epoch)
            self.source.call("market_close", epoch)
            raise MoveDoubtful(
                f"{self.source_place.name} has lost its gate, and sold beside {self.target_place.name} since",
                hint="It was promoted from a standby that lacked the gate. It is shut now: compare the orders of both.",
            )
        if here.state == "leaving":
            self._prepare(epoch, there)
            self.told("freeze")
            self._gate.freeze(epoch)
            here = self.source.status()
        if not opened:
            if here.state == "moving":
                try:
                    self._arrive(epoch)
                except MoveRefused:
                    self._take_back()
                    raise
            self._open(epoch)
        self.told("close")
        self.source.call("market_close", epoch)
        self.told("clear")
        self._clear(epoch)
        proven, findings = None, None
        if self.options.prove:
            self.told("prove")
            proven, findings = self._prove(epoch)
        self.told("follow")
        return Moved(
            epoch=epoch,
            server=self.target_place.name,
            frozen_seconds=self._frozen_seconds,
            tries=self._gate.tries,
            proven=proven,
            findings=findings,
            followed_until=self._follow(epoch),
        )

    @staticmethod
    def _may_open(there: Status, epoch: int) -> bool:
        """Whether the target is shut, and this move can open it: a new one, or one that the market comes back to."""
        return (there.state, there.epoch) == ("arriving", epoch) or (there.state == "moved" and there.epoch < epoch)

    def _is_over(self, there: Status, epoch: int) -> bool:
        """Whether the target had the market by this move, and has gone through another since."""
        had_it = there.state in ("selling", "leaving", "moving", "moved")
        return had_it and there.epoch > epoch and self._marked(epoch)

    @property
    def _back(self) -> Stream:
        """What brings the rows to the source, once the target is opened."""
        return Stream(self.target, self.source, None)

    def _leave(self) -> int:
        """The source notes that the market moves. Undone by market_stay."""
        epoch = int(self.source.call("market_leave", self.target_place.name, self.source_place.name))
        self._gate.note_standbys()
        return epoch

    def _prepare(self, epoch: int, there: Status) -> None:
        """Everything that takes its time, while the market sells. Undone by dropping it, unless it follows."""
        kept = way_back(self.source, self.target, there)
        stream, follows = kept or Stream(self.source, self.target, epoch), kept is not None
        if not follows and there.state is not None and (there.state, there.epoch) != ("arriving", epoch):
            if there.state not in ("arriving", "closed"):
                self._take_back()
                raise MoveRefused(
                    f'server {self.target_place.name} has a schema "{self.schema}" already',
                    hint="Look what it is; a move makes its own.",
                )
            self._drop_target()  # of a move that was taken back
            there = Status(state=None)
        self.told("structure")
        self.source.call("market_guard")
        if not follows:
            Stream(self.source, self.target, None).unsubscribe()  # of a schema that was dropped by hand
            stream.publish()
        if there.state is None:
            structure.make(self.source, self.target, epoch, self.options.pg_dump)
        self.told("subscribe")
        if not follows:
            stream.subscribe(self.options.source_address)
        self.told("copy")
        self._copy(stream)
        self.told("compare")
        self._compare(stream, follows=follows)
        self.told("retain")
        if self.options.way_back is not None:
            self._back.retain()
        self.told("calm")
        self._gate.calm()
        self._catch_up(stream)
        self._compare(stream, follows=follows)

    def _compare(self, stream: Stream, *, follows: bool) -> None:
        """Both sides consist of the same, and each table comes along."""
        why = structure.difference(self.source, self.target) or stream.missing()
        if why is not None and follows:
            self._take_back()
            raise MoveRefused(f"{why}: the move is taken back", hint=ANEW)
        if why is not None:
            raise MoveUnfinished(
                why,
                hint="The schema was changed since it was copied: take the move back with --abort, and begin it again.",
            )

    def _arrive(self, epoch: int) -> None:
        """All that was written is at the target, and whoever could take the source's place has the gate."""
        self.told("standbys")
        self._gate.reach_standbys()
        self.told("mark")
        self._mark(epoch)

    def _open(self, epoch: int) -> None:
        """The point of no return."""
        self.told("sequences")
        self._sequences()
        kept = self._back.retained
        if self.options.prove:
            self._snapshot = self._stack.enter_context(self.target.connect())
            self._snapshot.execute("begin isolation level repeatable read read only")
            self._snapshot.execute("select pg_current_snapshot()")  # no table: its lock would outlast the opening
        self.told("open")
        with self.target.conn.transaction():
            self.target.rows("set local synchronous_commit = on")
            self.target.call("market_open", epoch, self.options.way_back if kept else None)
        if self._gate.since is not None:
            self._frozen_seconds = round(time.monotonic() - self._gate.since, 3)

    # Before the gate

    def _copy(self, stream: Stream) -> None:
        total = len(self.source.tables())
        while True:
            self._healthy(stream)
            left = stream.copying()
            self.progress(total - left, total)
            if not left:
                break
            time.sleep(0.1)
        for table in self.target.tables():
            self.target.rows(sql.SQL("analyze {}").format(sql.SQL(table)))
        self.target.rows(
            "select checkout_bound_lock_waits(role_name) from (select distinct role_name from checkout_roles) as known"
            " where role_name in (select rolname from pg_roles)"
        )

    def _healthy(self, stream: Stream, *, frozen: bool = False) -> None:
        """Raises unless rows still come."""
        if why := stream.trouble(self.options.max_wal):
            if not frozen:
                self._take_back()
            raise MoveRefused(f"{why}: the move is taken back", hint="Begin it again when that is mended.")

    def _catch_up(self, stream: Stream) -> None:
        while True:
            self._healthy(stream)
            if stream.behind() < _NEAR:
                return
            time.sleep(0.05)

    # The gate

    def _mark(self, epoch: int) -> None:
        kept = way_back(self.source, self.target, self.target.status())
        stream = kept or Stream(self.source, self.target, epoch)
        ends = time.monotonic() + self.options.frozen
        looked = 0.0
        while not self._marked(epoch):
            if time.monotonic() > looked + 0.2:
                looked = time.monotonic()
                self._healthy(stream, frozen=True)
            if looked > ends:
                raise MoveRefused(
                    f"the mark of the move did not come within {self.options.frozen:g} s; the move is taken back",
                    hint="See what holds the target up, and begin it again.",
                )
            time.sleep(0.002)

    def _marked(self, epoch: int) -> bool:
        return bool(self.target.value("select exists (select from checkout_moves where epoch = %s)", epoch))

    def _sequences(self) -> None:
        names = [row["name"] for row in self.source.rows(_SEQUENCES)]
        if not names:
            return
        ask = sql.SQL(" union all ").join(
            sql.SQL("select {} as name, last_value, is_called from {}").format(sql.Literal(name), sql.SQL(name))
            for name in names
        )
        values = self.source.rows(ask)
        self.target.rows(
            "select setval(name::regclass, last_value, is_called) from jsonb_to_recordset(%s::jsonb)"
            " as sequence (name text, last_value bigint, is_called boolean)",
            json.dumps(values),
        )

    # Behind it

    def _clear(self, epoch: int) -> None:
        """What only the move needed. The source keeps its gate and its word; the target has the calls as deployed."""
        streams = (Stream(self.source, self.target, epoch), Stream(self.source, self.target, None))
        for stream in streams:
            stream.unsubscribe()
        self._as_deployed(self.target)
        for stream in streams:
            stream.unpublish()
        self._gate.vacuum_again()

    def _prove(self, epoch: int) -> tuple[bool | None, int]:
        """The rows of both, if nobody could have written since; and the audit of the target."""
        proven = None
        if self._snapshot is not None:
            try:
                prove(self.source, self.target, self._snapshot, self.progress)
            except MoveDoubtful:
                self._leave_behind(epoch)  # the source stays as it is, and nothing is kept for it
                raise
            proven = True
            self._snapshot.rollback()
        broken = list(_audit.audit(self.target.conn, None, self.progress, schema=self.schema))
        return proven, len(broken)

    def _follow(self, epoch: int) -> datetime | None:
        """The source follows the target, unless nobody wants it to, or the target has lost what it kept for that."""
        [kept] = self.target.rows("select followed_until, followed_from::text from checkout_market")
        until: datetime | None = kept["followed_until"]
        if until is not None and self.options.way_back is not None and self._back.retains(kept["followed_from"]):
            try:
                self._back.subscribe(self.options.target_address, kept["followed_from"])
            except psycopg.OperationalError as exc:
                if exc.sqlstate is None or self.source.conn.broken or self.target.conn.broken:
                    raise
                raise MoveUnfinished(
                    f"{self.source_place.name} cannot reach {self.target_place.name}, which has the market now, to"
                    f" follow it: {str(exc).splitlines()[0][:200]}",
                    hint="The same command again, with --target-address; or with --way-back none.",
                ) from exc
            if self._back.began(self.options.frozen):
                return until
        self._leave_behind(epoch)
        return None

    def _leave_behind(self, epoch: int) -> None:
        """The source follows no more."""
        self._back.end()
        self.target.call("market_settle", epoch)

    def _as_deployed(self, side: Side) -> None:
        """No table has a gate there, and no call a guard."""
        for table in side.tables():
            if side.rows(_GATED, table):
                side.briefly("select market_drop_gate(%s::text::regclass)", table)
        side.call("market_unguard")

    def _drop_target(self) -> None:
        """A schema of a move that was taken back: it says so itself."""
        there = self.target.status()
        if there.state not in ("arriving", "closed"):
            raise MoveRefused(f'schema "{self.schema}" of {self.target_place.name} is {there.state}')
        self.target.call("market_shut", there.epoch)
        self._back.unpublish()
        unsubscribe_all(self.target)
        structure.drop(self.target)

    def _take_back(self) -> None:
        here, there = self.source.status(), self.target.status()
        if here.state == "moved" or (
            there.state == "selling" and there.epoch == here.epoch and here.state != "selling"
        ):
            raise MoveRefused(
                f"the market is sold in at {self.target_place.name} since move {here.epoch}, which is not taken back",
                hint="`pycheckout market move` ends this one, and another brings it back.",
            )
        if here.state in (None, "foreign"):
            raise MoveRefused(f'{self.source_place.name} has no market in schema "{self.schema}"', hint="See --from.")
        if here.state in ("leaving", "moving") and here.server != self.target_place.name:
            raise MoveRefused(
                f"the market is {here.state}, to server {here.server}", hint=f"Take that back: --to {here.server}."
            )
        comes_back = there.state == "moved" and there.epoch <= here.epoch
        is_new = there.state in ("arriving", "closed")
        if here.state == "moving" and not comes_back and not (is_new and there.epoch == here.epoch):
            raise self._unknown(here, there)
        if comes_back or is_new:
            self.target.call("market_shut", here.epoch if comes_back else there.epoch)
        if here.state in ("leaving", "moving"):
            self.source.call("market_stay", here.epoch)
        if is_new:
            self._drop_target()
        if comes_back:
            self._back.unpublish()
        Stream(self.source, self.target, here.epoch).unpublish()
        self._as_deployed(self.source)
        self._gate.vacuum_again()

    def _unknown(self, here: Status, there: Status) -> MoveRefused:
        gone = there.state or "gone"
        if self._is_over(there, here.epoch):
            return MoveRefused(
                f"move {here.epoch} is over: {self.target_place.name} is {there.state} in move {there.epoch}",
                hint="`pycheckout market move` says so at the source too.",
            )
        return MoveRefused(
            f"{self.target_place.name} does not say what became of move {here.epoch}: its schema is {gone}",
            hint="If it never sold, open the source yourself: docs/runbook.md says how.",
        )

    # Both servers

    @contextmanager
    def _both(self, *, locks: bool = True) -> Iterator[None]:
        """Sessions at both, and nobody else who moves this market."""
        with ExitStack() as stack:
            self._stack = stack
            self._snapshot = None
            sides = []
            for place in (self.source_place, self.target_place):
                side = Side(place, self.schema)
                stack.callback(side.conn.close)
                sides.append(side)
            self.source, self.target = sides
            self._gate.source = self.source
            if self.source.value(_SYSTEM) == self.target.value(_SYSTEM):
                raise MoveRefused(
                    f"{self.source_place.name} and {self.target_place.name} are one server",
                    hint="A move is between two servers; within one, rename the schema.",
                )
            if locks:
                ends = time.monotonic() + 5  # the session of a command that was killed takes a moment to end
                for side in sides:
                    while not side.value(_ALONE, self.schema):
                        if time.monotonic() > ends:
                            raise MoveRefused(
                                f"another command moves this market, in a session at {side.place.name}",
                                hint="Let it end; its application_name is `pycheckout move`.",
                            )
                        time.sleep(0.1)
            yield


_SYSTEM = "select system_identifier::text from pg_control_system()"
_SEQUENCES = (
    f"select oid::regclass::text as name from pg_class where relnamespace = {HERE} and relkind = 'S' order by 1"
)
_GATED = "select 1 from pg_trigger where tgrelid = %s::text::regclass and tgname = 'market_gate'"
