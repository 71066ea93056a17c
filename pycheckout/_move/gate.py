"""How a market stops at the server that it leaves: what could hold the gate up, the gate, and who must have it."""

from __future__ import annotations

import random
import time
from collections import Counter

import psycopg
from psycopg import sql

from .._errors import CheckoutError
from .sides import HERE, TIMELINE, MoveRefused, MoveUnfinished, Options, Side

_FREEZE_MS = 300


class Gate:
    """Of the side that a market leaves. It outlasts the sessions of a command, which may have to connect again."""

    source: Side

    def __init__(self, options: Options) -> None:
        self.options = options
        self.tries = 0
        self.since: float | None = None
        """When the attempt began by which it was shut, by time.monotonic(). None: this command did not shut it."""

    def calm(self) -> None:
        """No vacuum holds a table when the gate comes. Undone by vacuum_again."""
        for table in self.source.rows(_VACUUMED):
            name = table["name"]
            self.source.rows(
                "update checkout_market set vacuumed = vacuumed || %s::text where not %s = any (vacuumed)", name, name
            )
            self.source.briefly(sql.SQL("alter table {} set (autovacuum_enabled = off)").format(sql.SQL(name)))
        ends = time.monotonic() + 10
        while self.source.rows(_VACUUMING) and time.monotonic() < ends:
            self.source.rows(_STOP_VACUUMING)
            time.sleep(0.05)

    def vacuum_again(self) -> None:
        for row in self.source.rows("select unnest(vacuumed) as name from checkout_market"):
            if self.source.value("select to_regclass(%s) is not null", row["name"]):
                self.source.briefly(sql.SQL("alter table {} reset (autovacuum_enabled)").format(sql.SQL(row["name"])))
            self.source.rows("update checkout_market set vacuumed = array_remove(vacuumed, %s)", row["name"])

    def freeze(self, epoch: int) -> None:
        deadlock = self.source.value("select extract(epoch from current_setting('deadlock_timeout')::interval) * 1000")
        limit = int(min(_FREEZE_MS, float(deadlock) / 2))
        self._followed(MoveUnfinished, "do not follow")
        for attempt in range(self.options.tries):
            if attempt:
                time.sleep(random.uniform(*self.options.pause))
            self.tries += 1
            self.since = time.monotonic()
            try:
                with self.source.conn.transaction():
                    self.source.rows(sql.SQL("set local statement_timeout = {}").format(sql.Literal(limit)))
                    self.source.rows("set local synchronous_commit = on")
                    self.source.call("market_freeze", epoch)
                return
            except (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                self.since = None
        holders = [
            f"process {row['pid']} ({row['seconds']:.0f} s): {row['query']}" for row in self.source.rows(_HOLDERS)
        ]
        raise MoveUnfinished(
            f"the market could not be frozen in {self.options.tries} attempts"
            + "".join(f"; {each}" for each in holders),
            hint="Let that end, and run the same command again: the copy goes on following. Or --abort.",
        )

    def _position(self) -> str:
        return str(self.source.value("select pg_current_wal_insert_lsn()::text"))

    def note_standbys(self) -> None:
        """Remember who follows: one that is away when it matters is not forgotten.

        Behind a failover those count that follow the new primary, which was one of the others.
        """
        seen = Counter(row["name"] for row in self.source.rows(_STANDBYS, {"lsn": "0/0"}))
        [noted] = self.source.rows(f"select standbys, timeline = {TIMELINE} as same from checkout_market")
        wanted = Counter(noted["standbys"]) | seen if noted["same"] else seen
        self.source.rows(f"update checkout_market set standbys = %s, timeline = {TIMELINE}", sorted(wanted.elements()))

    def _behind(self, lsn: str) -> list[str]:
        """Standbys that have not flushed this."""
        self.note_standbys()
        wanted = Counter(self.source.value("select standbys from checkout_market"))
        for name in self.options.given_up:
            wanted.pop(name, None)
        rows = self.source.rows(_STANDBYS, {"lsn": lsn})
        return sorted((wanted - Counter(row["name"] for row in rows if row["has"])).elements())

    def reach_standbys(self) -> None:
        """A standby without the gate would sell, once it is promoted."""
        self._followed(MoveRefused, "did not get the gate, and the move is taken back")

    def _followed(self, error: type[CheckoutError], otherwise: str) -> None:
        """Every standby has flushed what was written until now, and soon."""
        lsn = self._position()
        ends = time.monotonic() + self.options.frozen
        while missing := self._behind(lsn):
            if time.monotonic() > ends:
                raise error(
                    f"standbys of the source {otherwise}: {', '.join(missing)}",
                    hint="Let them follow; or, if one will never be promoted, say so: --given-up NAME.",
                )
            time.sleep(0.005)


_VACUUMED = f"""
select class.oid::regclass::text as name
  from pg_class as class
 where class.relnamespace = {HERE} and class.relkind = 'r'
   and not coalesce(class.reloptions::text ~ 'autovacuum_enabled', false)
 order by 1
"""
_VACUUMING = f"""
select activity.pid
  from pg_stat_activity as activity
  join pg_locks as held on held.pid = activity.pid and held.locktype = 'relation'
  join pg_class as class on class.oid = held.relation
 where activity.backend_type = 'autovacuum worker' and activity.datname = current_database()
   and class.relnamespace = {HERE}
"""
_STOP_VACUUMING = f"select pg_cancel_backend(pid) from ({_VACUUMING}) as found"
_HOLDERS = f"""
select distinct activity.pid, extract(epoch from clock_timestamp() - activity.xact_start)::float8 as seconds,
       left(activity.query, 100) as query
  from pg_stat_activity as activity
  join pg_locks as held on held.pid = activity.pid and held.locktype = 'relation' and held.granted
  join pg_class as class on class.oid = held.relation
 where class.relnamespace = {HERE} and activity.pid <> pg_backend_pid() and held.mode <> 'AccessShareLock'
 order by seconds desc nulls last
 limit 3
"""
# By its slot, if it has one: that is there too while the standby is not.
_STANDBYS = """
with senders as (
  select sender.application_name || coalesce('@' || host(sender.client_addr), '') as name, sender.flush_lsn,
         slot.slot_name
    from pg_stat_replication as sender
    left join pg_replication_slots as slot on slot.active_pid = sender.pid
   where slot.slot_type is distinct from 'logical' and sender.state <> 'backup'
     and sender.application_name not like 'pycheckout_move_%%' and sender.application_name not like 'pg_%%_sync_%%')
select name, coalesce(flush_lsn >= %(lsn)s::pg_lsn, false) as has from senders where slot_name is null
 union all
select slot.slot_name::text, coalesce(coalesce(sender.flush_lsn, slot.restart_lsn) >= %(lsn)s::pg_lsn, false)
  from pg_replication_slots as slot
  left join senders as sender on sender.slot_name = slot.slot_name
 where slot.slot_type = 'physical' and not slot.temporary
"""
