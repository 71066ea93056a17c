"""Rows that follow from one server to the other, by PostgreSQL's logical replication."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from zlib import crc32

import psycopg
from psycopg import sql

from .._conninfo import parameters
from .sides import TIMELINE, MoveUnfinished, Side, Status, listed

_LOGGED = {"log_statement": "none", "log_min_duration_statement": "-1", "log_min_error_statement": "panic"}


@contextmanager
def _unlogged(side: Side) -> Iterator[None]:
    """For statements that hold a password: neither they nor their failure come into the server's log."""
    for setting, value in _LOGGED.items():
        side.rows(sql.SQL("set {} = {}").format(sql.Identifier(setting), sql.Literal(value)))
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # the session is gone, and its settings with it
            for setting in _LOGGED:
                side.rows(sql.SQL("reset {}").format(sql.Identifier(setting)))


class Stream:
    """A publication, a slot and a role at the one side, a subscription at the other, and one name for all of them.

    `epoch`: the move that it serves. None: the way back, which outlasts the move that made it. Schemas of several
    databases share the names of a server.
    """

    def __init__(self, publisher: Side, subscriber: Side, epoch: int | None) -> None:
        where = f"{publisher.conn.info.dbname}.{publisher.schema}"
        self.name = f"pycheckout_move_{'back' if epoch is None else epoch}_{crc32(where.encode()):08x}"
        self.publisher = publisher
        self.subscriber = subscriber

    @property
    def _named(self) -> sql.Identifier:
        return sql.Identifier(self.name)

    # At the publisher

    def publish(self) -> None:
        """By a list: a table that somebody makes meanwhile, and that has no key, could not be written at all."""
        known = {row["name"] for row in self.publisher.rows(_PUBLISHED, self.name)}
        tables = self.publisher.tables()
        if known != set(tables):
            with self.publisher.conn.transaction():
                self.publisher.rows(sql.SQL("drop publication if exists {}").format(self._named))
                self.publisher.rows(sql.SQL("create publication {} for table {}").format(self._named, listed(tables)))

    def retain(self) -> None:
        """Keep what is written from now on, for who subscribes later. Waits for transactions that are open there."""
        self.publish()
        if not self.publisher.rows(_SLOT, self.name):
            self.publisher.rows("select pg_create_logical_replication_slot(%s, 'pgoutput')", self.name)

    @property
    def retained(self) -> bool:
        return any(not slot["lost"] for slot in self.publisher.rows(_SLOT, self.name))

    def retains(self, since: str) -> bool:
        """Whether all that was written from this position on is there for who has not subscribed yet."""
        return self.retained and (self.subscribed or not self.publisher.value(_CONSUMED, since, self.name))

    def began(self, seconds: float) -> bool:
        """Whether somebody reads, within this time: a server has only so many workers."""
        ends = time.monotonic() + seconds
        while not any(slot["pid"] for slot in self.publisher.rows(_SLOT, self.name)):
            if time.monotonic() > ends:
                return False
            time.sleep(0.05)
        return True

    def behind(self) -> int:
        """Bytes of WAL that the subscriber has not confirmed."""
        return int(self.publisher.value(_BEHIND, self.name))

    def unpublish(self) -> None:
        self._drop_slot()
        self.publisher.rows(sql.SQL("drop publication if exists {}").format(self._named))
        if self.publisher.rows("select 1 from pg_roles where rolname = %s", self.name):
            self.publisher.briefly(sql.SQL("drop owned by {}").format(self._named))
            self.publisher.rows(sql.SQL("drop role if exists {}").format(self._named))

    def _drop_slot(self) -> None:
        ends = time.monotonic() + 20
        while slot := self.publisher.rows(_SLOT, self.name):
            if slot[0]["pid"] is not None:
                self.publisher.rows("select pg_terminate_backend(%s)", slot[0]["pid"])
            with suppress(psycopg.errors.ObjectInUse, psycopg.errors.UndefinedObject):
                self.publisher.rows("select pg_drop_replication_slot(%s)", self.name)
            if time.monotonic() > ends:
                raise MoveUnfinished(f"slot {self.name} is in use at {self.publisher.place.name}")
            time.sleep(0.02)

    # At the subscriber

    @property
    def subscribed(self) -> bool:
        return bool(self.subscriber.rows(_SUBSCRIPTION, self.name))

    def subscribe(self, address: str, retained_from: str | None = None) -> None:
        """Follow: the rows that are there, then what is written. Or what was retained from a position on, no rows.

        `address`: of the publisher, laid over that of the map.
        """
        if self.subscribed:
            return
        options = "disable_on_error = true, streaming = off"
        if retained_from is None:
            self._drop_slot()  # of an attempt that died between the two servers
        else:
            self.publisher.rows(_ADVANCE, retained_from, self.name)
            options += ", copy_data = false, create_slot = false"
            # The position comes to the disk with the next checkpoint, and a crash before that sends it back: then what
            # came from the subscriber must not go to it.
            if min(self.publisher.major, self.subscriber.major) >= 16:
                options += ", origin = none"
            else:
                self.publisher.rows("checkpoint")
        self.subscriber.rows(f"update checkout_market set timeline = {TIMELINE}")
        query = sql.SQL("create subscription {} connection {} publication {} with (" + options + ")")
        way_in = sql.Literal(self._way_in(address))
        with _unlogged(self.subscriber):
            self.subscriber.rows(query.format(self._named, way_in, self._named))

    def _way_in(self, address: str) -> str:
        """How the subscriber comes in, as a role that can do nothing else, with a password that nobody knows."""
        publisher = self.publisher
        password = secrets.token_hex(24)
        with _unlogged(publisher), publisher.conn.transaction():
            verb = "alter" if publisher.rows("select 1 from pg_roles where rolname = %s", self.name) else "create"
            query = sql.SQL(verb + " role {} login replication password {}")
            publisher.rows(query.format(self._named, sql.Literal(password)))
            schema = sql.Identifier(publisher.schema)
            publisher.rows(sql.SQL("grant usage on schema {} to {}").format(schema, self._named))
            publisher.rows(sql.SQL("grant select on all tables in schema {} to {}").format(schema, self._named))
        way, other = parameters(publisher.place.database), parameters(address)
        if "host" in other:
            way.pop("hostaddr", None)  # libpq would go there
        way |= other | {
            "dbname": publisher.conn.info.dbname,
            "user": self.name,
            "password": password,
            "connect_timeout": "10",
        }
        for given in ("passfile", "service", "options", "application_name"):
            way.pop(given, None)
        way.setdefault("host", publisher.conn.info.host)
        way.setdefault("port", str(publisher.conn.info.port))
        return psycopg.conninfo.make_conninfo(**way)

    def copying(self) -> int:
        """Tables whose rows are not there yet."""
        return int(self.subscriber.value(_NOT_READY, self.name))

    def unsubscribe(self) -> None:
        if self.subscribed:
            _unsubscribe(self.subscriber, self.name)

    def end(self) -> None:
        """Nothing of it is left at either side."""
        self.unsubscribe()
        self.unpublish()

    # Between them

    def missing(self) -> str | None:
        """A table that does not come along, as one that was made after the publication does not."""
        tables = set(self.publisher.tables())
        published = {row["name"] for row in self.publisher.rows(_PUBLISHED, self.name)}
        copied = {row["name"] for row in self.subscriber.rows(_SUBSCRIBED, self.name)}
        if lacking := sorted(tables - published | tables - copied):
            return f"table {lacking[0]} was made later, and does not come along"
        return None

    def trouble(self, max_wal: int) -> str | None:
        """Why rows come no more. Past `max_wal` bytes, or without its slot, what follows is worth nothing."""
        subscribed = self.subscriber.rows(_SUBSCRIPTION, self.name)
        slot = self.publisher.rows(_SLOT, self.name)
        here, there = self.publisher.place.name, self.subscriber.place.name
        if not subscribed:
            return f"{there} has no subscription any more"
        # A standby in the subscriber's place has less than was confirmed, and is not sent it again.
        if not self.subscriber.value(f"select coalesce(bool_and(timeline = {TIMELINE}), false) from checkout_market"):
            return f"there was a failover at {there}, which may lack rows"
        if not slot or slot[0]["lost"]:  # which stops the subscription too
            return f"{here} has lost the slot of the move, as it does by a failover"
        if not subscribed[0]["enabled"]:
            return f"the subscription met an error and stopped, which the log of {there} tells"
        if slot[0]["kept"] > max_wal:
            return f"{here} keeps {slot[0]['kept']:,} bytes of WAL for the move"
        return None


def way_back(source: Side, target: Side, there: Status) -> Stream | None:
    """What brings the rows already, where the market comes back to a target that has followed since it left."""
    kept = Stream(source, target, None)
    return kept if there.state == "moved" and kept.subscribed else None


def unsubscribe_all(side: Side) -> None:
    """Nothing of ours comes into the schema any more."""
    for row in side.rows(_SUBSCRIPTIONS_OF, side.schema):
        _unsubscribe(side, row["name"])


def _unsubscribe(side: Side, name: str) -> None:
    """The slot stays at the publisher, which may be away."""
    subscription = sql.Identifier(name)
    side.rows(sql.SQL("alter subscription {} disable").format(subscription))
    side.rows(sql.SQL("alter subscription {} set (slot_name = none)").format(subscription))
    side.rows(sql.SQL("drop subscription {}").format(subscription))


_PUBLISHED = """
select format('%%I', class.relname) as name
  from pg_publication
  join pg_publication_rel on prpubid = pg_publication.oid
  join pg_class as class on class.oid = prrelid
 where pubname = %s
"""
_SUBSCRIPTION = """
select subenabled as enabled from pg_subscription
 where subname = %s and subdbid = (select oid from pg_database where datname = current_database())
"""
_SUBSCRIPTIONS_OF = """
select distinct subname::text as name
  from pg_subscription
  join pg_subscription_rel on srsubid = pg_subscription.oid
  join pg_class on pg_class.oid = srrelid
 where subname like 'pycheckout_move_%%' and relnamespace = (select oid from pg_namespace where nspname = %s)
"""
_NOT_READY = """
select count(*) from pg_subscription_rel join pg_subscription on pg_subscription.oid = srsubid
 where subname = %s and srsubstate <> 'r'
"""
_SLOT = """
select coalesce(wal_status, '') = 'lost' as lost, active_pid as pid,
       coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint as kept
  from pg_replication_slots where slot_name = %s
"""
_SUBSCRIBED = """
select format('%%I', class.relname) as name
  from pg_subscription
  join pg_subscription_rel on srsubid = pg_subscription.oid
  join pg_class as class on class.oid = srrelid
 where subname = %s and subdbid = (select oid from pg_database where datname = current_database()) and srsubstate = 'r'
"""
_CONSUMED = """
select coalesce(bool_or(confirmed_flush_lsn > %s::pg_lsn), false) from pg_replication_slots where slot_name = %s
"""
_ADVANCE = """
select pg_replication_slot_advance(slot_name, greatest(%s::pg_lsn, confirmed_flush_lsn))
  from pg_replication_slots where slot_name = %s
"""
_BEHIND = """
select coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), confirmed_flush_lsn)), 0)::bigint
  from pg_replication_slots where slot_name = %s
"""
