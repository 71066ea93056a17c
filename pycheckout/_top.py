"""One screen of what a database is doing, from SQL alone; `pycheckout top`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_METRICS = "select name, labels, value from checkout_metrics()"
# Of the ten that have waited longest, since who blocks whom is not asked for nothing. What a role may not see is null.
_WAITS = """
select waiting.pid, waiting.usename::text as "user", waiting.seconds,
       blocker.pid as blocker_pid, blocker.usename::text as blocker_user, blocker.state as blocker_state,
       extract(epoch from clock_timestamp() - blocker.xact_start)::float8 as blocker_seconds,
       left(regexp_replace(nullif(blocker.query, '<insufficient privilege>'), '[[:space:]]+', ' ', 'g'), 200)
         as blocker_query
  from (select session.pid, session.usename,
               extract(epoch from clock_timestamp() - min(wait.waitstart))::float8 as seconds
          from pg_locks as wait
          join pg_stat_activity as session on session.pid = wait.pid
         where not wait.granted and session.datname = current_database()
         group by session.pid, session.usename
         order by 3 desc nulls last
         limit 10) as waiting
 cross join lateral (select distinct by.pid from unnest(pg_blocking_pids(waiting.pid)) as by (pid)) as by
  join pg_stat_activity as blocker on blocker.pid = by.pid
 order by waiting.seconds desc nulls last, waiting.pid, blocker.pid
"""
_WHERE = """
select current_database()::text as database, current_schema()::text as schema,
       to_char(clock_timestamp() at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as at
"""


def look(conn: psycopg.Connection[dict[str, Any]]) -> dict[str, Any]:
    """What the screen shows, as JSON has it: plain metrics by their name without `pycheckout_`, products and waits."""
    [found] = conn.execute(_WHERE).fetchall()
    found["products"], found["snapshots"] = [], {}
    for row in conn.execute(_METRICS).fetchall():
        name, labels, value = row["name"].removeprefix("pycheckout_"), row["labels"], row["value"]
        if name == "info":
            found["version"] = labels["version"]
        elif name == "stock_waiters":
            found["products"].append(
                {"product_id": labels["product_id"], "slots": int(labels["slots"]), "waiters": int(value)}
            )
        elif name == "oldest_snapshot_transactions":
            found["snapshots"][labels["holder"]] = int(value)
        elif name == "oldest_snapshot_seconds" or not labels:
            found[name] = int(value) if value == int(value) else value
    found["waits"] = conn.execute(_WAITS).fetchall()
    return found


def screen(found: dict[str, Any], height: int) -> RenderableType:
    """What `look` found, in `height` lines of 80 columns."""
    server = "standby" if found["in_recovery"] else "primary"
    title = f"pycheckout {found['version']}  {found['database']}, schema {found['schema']}, {server}  {found['at']}"
    rows = Table.grid(padding=(0, 2))
    for heading, told, wrong in _summary(found):
        style = "bold red" if wrong else ""
        rows.add_row(heading, Text(told, style=style, no_wrap=True, overflow="ellipsis"))
    parts: list[RenderableType] = [Text(title, style="bold", no_wrap=True, overflow="ellipsis"), rows]
    left = height - 2 - rows.row_count
    if found["products"] and left > 3:
        shown = found["products"][: max(min(5, left - 3), 1)]
        table = _table("hot product", "slots", "waiters")
        for product in shown:
            table.add_row(product["product_id"], str(product["slots"]), str(product["waiters"]))
        parts += ["", table]
        left -= 2 + len(shown)
    if found["waits"] and left > 3:
        parts += ["", _wait("waits", "user", "for", "behind", "user", "which is", style="bold")]
        for wait in found["waits"][: left - 2]:
            state = wait["blocker_state"] or "hidden from this role"
            query = f": {wait['blocker_query']}" if wait["blocker_query"] else ""
            behind = (wait["blocker_pid"], wait["blocker_user"] or "", state + query)
            parts.append(_wait(wait["pid"], wait["user"] or "", _seconds(wait["seconds"]), *behind))
    return Group(*parts)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1), header_style="bold")
    for name in columns:
        table.add_column(name, no_wrap=True, overflow="ellipsis")
    return table


def _wait(pid: object, user: str, seconds: str, by: object, by_user: str, state: str, style: str = "") -> Text:
    told = f"{pid:<8}{user[:12]:<13}{seconds:<8}{by:<8}{by_user[:12]:<13}{state}"
    return Text(told, style=style, no_wrap=True, overflow="ellipsis")


def _summary(found: dict[str, Any]) -> Iterator[tuple[str, str, bool]]:
    """A line a topic: its heading, what there is, and whether somebody should do something about it."""
    lines, short = found["recent_lines"], found["recent_short_lines"]
    share = f", {short} of the newest {lines} lines short of stock" if short else ""
    yield "checkouts", f"{found['checkouts_per_second']:.1f} a second{share}", False
    waiting = found["sessions_waiting"]
    longest = f", the longest for {_seconds(found['session_wait_seconds'])}" if waiting else ""
    yield "waits", f"{waiting} sessions for a lock{longest}", found["session_wait_seconds"] > 5
    yield "quotes", f"{_count(found.get('carts_open'))} open", False
    pending = f", the oldest {_seconds(found['orders_pending_seconds'])}" if found.get("orders_pending") else ""
    overdue = ""
    if found["orders_overdue_seconds"]:
        overdue = f"; {_count(found.get('orders_overdue'))} overdue by {_seconds(found['orders_overdue_seconds'])}"
    late = found["orders_overdue_seconds"] > 300
    yield "orders", f"{_count(found.get('orders_pending'))} to be paid in time{pending}{overdue}", late
    due = f", one is due for {_seconds(found['outbox_due_seconds'])}" if found["outbox_due_seconds"] else ""
    parked = f"; {_count(found['outbox_parked_events'])} parked" if found["outbox_parked_events"] else ""
    behind = found["outbox_due_seconds"] > 300 or found["outbox_parked_events"] > 0
    yield "events", f"{_count(found.get('outbox_events'))} to be published{due}{parked}", behind
    holder, age = max(found["snapshots"].items(), key=lambda item: item[1])
    seconds = found.get("oldest_snapshot_seconds", 0)
    since = f", for {_seconds(seconds)}" if holder == "session" and seconds else ""
    yield "snapshot", f"{age:,} transactions old ({holder}{since})", age > 1_000_000 or seconds > 900
    findings = found.get("audit_findings")
    if findings is None:
        yield "audit", "never ran (pycheckout audit)", False
    else:
        ago = _seconds(found["audit_age_seconds"])
        told = f"{findings:,} broken invariants" if findings else "no broken invariant"
        yield "audit", f"{told}, {ago} ago", findings > 0
    if found["sessions_hidden"]:
        yield "hidden", f"times of {found['sessions_hidden']} sessions (grant pg_read_all_stats to the owner)", False


def _count(number: int | None) -> str:
    if number is None:
        return "uncounted"  # while a snapshot is held
    return "more than 10,000" if number > 10_000 else f"{number:,}"


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
