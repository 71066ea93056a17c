"""What is done to an order, and what is read of it, costs what it touches: not what is there beside it.

Judged by blocks and by the servers' counters of scans, never by time.
"""

import psycopg
import pytest
from many import VENDORS, add_orders, line_id, order_id

from benchmarks.orders import changes
from checks import blocks, rows, vacuum, values

ROUNDS = 7  # PL/pgSQL plans the first five calls of a session for their values, and may keep one plan from the sixth on
BUYER = "md5('buyer' || {cart} % 1000)::uuid"
VENDOR = "md5('vendor1')::uuid"

# Every order has a deadline that is an hour away, a payment that failed, and a change: all of that may be in the way.
DEFAULTS = {"expires_at": "now() + interval '1 hour'", "refund_due_cents": "0"}
HISTORY = """
    insert into order_changes (id, order_id, kind, lines, created_at)
    select checkout_uuid(), id, 'extended', '[]', created_at from vendor_orders;
    insert into payment_events (order_id, provider, provider_event_id, kind, amount_cents, currency, created_at)
    select id, 'psp', 'old', 'failed', 0, 'USD', created_at from vendor_orders;
    insert into outbox_purges (purged_before, deleted, purged_at) values ('2026-02-01', 1, now())
"""


TABLES = [
    "cart_records", "cart_vendor_groups", "cart_items", "checkout_requests", "vendor_orders", "order_line_items",
    "payment_intents", "order_changes", "payment_events", "inventory_items", "outbox_events", "outbox_purges",
]  # fmt: skip


def fill(db: psycopg.Connection, orders: int, due: list[int], *, analyzed: bool = True) -> None:
    """An empty database gets so many orders; those of the carts that are due were to be paid a minute ago."""
    for column, value in DEFAULTS.items():
        db.execute(f"alter table vendor_orders alter {column} set default {value}")
    add_orders(db, orders, analyzed=False)
    for column in DEFAULTS:
        db.execute(f"alter table vendor_orders alter {column} drop default")
    db.execute(HISTORY)
    for vendor in range(1, VENDORS + 1):
        ids = [order_id(cart, vendor) for cart in due]
        late = "now() - interval '1 minute' + n * interval '1 ms'"
        db.execute(
            f"update vendor_orders set expires_at = {late} from unnest(%s::uuid[]) with ordinality as due (own, n)"
            " where id = due.own",
            (ids,),
        )
    if analyzed:
        vacuum(db)
    db.execute("select pg_stat_force_next_flush()")


def reads(cart: int) -> dict[str, str]:
    buyer = BUYER.format(cart=cart)
    return {
        "order_get": f"order_get('{order_id(cart, 1)}', {buyer})",
        "order_changes_list": f"order_changes_list('{order_id(cart, 1)}', {buyer})",
        "orders_list of a buyer": f"orders_list(buyer_store_id => {buyer}, max_rows => 1)",
        "orders_list of a vendor": f"orders_list(vendor_store_id => {VENDOR}, max_rows => 10)",
        "orders_list by state": f"orders_list(null, {VENDOR}, '{{created_pending}}', max_rows => 10)",
    }


def scanned(db: psycopg.Connection, conn: psycopg.Connection) -> dict[str, int]:
    """How often each table was read whole so far."""
    for session in (conn, db):  # either may have read some whose count it did not tell yet
        session.execute("select pg_stat_force_next_flush()")
    db.execute("select pg_stat_clear_snapshot()")
    query = "select relname::text as name, seq_scan from pg_stat_user_tables where schemaname = 'public'"
    return {each["name"]: each["seq_scan"] for each in rows(db, query)}


@pytest.mark.parametrize(("orders", "analyzed"), [(60, True), (4000, False), (4000, True)])
def test_no_call_on_orders_reads_a_table_whole(db, connect, orders, analyzed):
    """Also on tables so small that reading them whole were less: a session keeps its plan while they grow."""
    due = list(range(1, 6))
    fill(db, orders, due, analyzed=analyzed)
    conn = connect(autocommit=True)
    found = {}
    for turn in range(ROUNDS):
        cart = 6 + 3 * turn
        calls = (
            {"vendor_orders_expire": "vendor_orders_expire(1)"}
            | changes(order_id, line_id, [cart, cart + 1, cart + 2], f"k{turn}")
            | reads(cart)
        )
        for name, call in calls.items():
            before = scanned(db, conn)
            conn.execute(f"select {call}")
            after = scanned(db, conn)
            for table, times in after.items():
                if times > before[table]:
                    found[name, table] = found.get((name, table), 0) + times - before[table]
    assert found == {}
    assert values(db, "select count(*) from vendor_orders where status = 'expired'") == [ROUNDS]


def pages(conn: psycopg.Connection, call: str, *, kept: bool = False) -> int:
    """Blocks that a call touches. What it did is taken back, unless it is to be kept."""
    count = blocks(conn, f"select {call}")
    if kept:
        conn.commit()
    else:
        conn.rollback()
    return count


def touched(db: psycopg.Connection, conn: psycopg.Connection, expired: int, others: list[int]) -> dict[str, int]:
    """Blocks that each call touches once its plans are made; of an expiry, ten calls that end 1,000 orders."""
    pages(conn, "vendor_orders_expire(100)")
    calls = {"vendor_orders_expire": sum(pages(conn, "vendor_orders_expire(100)", kept=True) for _ in range(10))}
    assert values(db, "select count(*) from vendor_orders where status = 'expired'") == [1000]
    deep = f"select order_place(created_at, id) from vendor_orders where vendor_store_id = {VENDOR} order by created_at"
    [after] = values(conn, f"{deep} offset 100 limit 1")
    asked = {
        "orders_list far down": f"orders_list(null, {VENDOR}, after => '{after}', max_rows => 10)",
        **reads(expired),
        **{f"{name}, not expired": call for name, call in reads(others[0]).items()},
        **changes(order_id, line_id, others, "key"),
    }
    for name, call in asked.items():
        for _ in range(ROUNDS):
            calls[name] = pages(conn, call)
        if name == "order_line_fulfil":  # what comes back was shipped
            pages(conn, call, kept=True)
    # What has ended is passed over until a vacuum, on as many pages as splits left it. Last, because a write that looks
    # for free space touches more.
    db.execute("vacuum (index_cleanup on) vendor_orders")
    for _ in range(ROUNDS):
        calls["vendor_orders_expire of none"] = pages(conn, "vendor_orders_expire(100)")
    return calls


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.breaks_invariants  # it does not, but a million orders are too many for the fixture's time: judged here
def test_a_call_costs_the_same_beside_a_million_orders(db, connect):
    """1,000 due orders of as many products: nearly alone, or scattered over all others.

    An index of a thousand rows has two levels and one of a million three, so that what reads nothing but indexes costs
    half as much again. One of 100,000 has three as well: from there on nothing may grow.
    """
    found: dict[str, list[int]] = {}
    for orders, step in ((2400, 2), (100_000, 83), (1_000_000, 833)):
        db.execute("set session_replication_role = replica")  # converted carts stay
        db.execute(f"truncate {', '.join(TABLES)}")
        db.execute("reset session_replication_role")
        # no product twice; the others stand on pages that nothing else is done to, as full as those of many orders
        carts = [1 + step * number for number in range(600)]
        fill(db, orders, carts[:500])
        conn = connect(options="-c statement_timeout=0")
        for name, count in touched(db, conn, expired=carts[0], others=carts[540:543]).items():
            found.setdefault(name, []).append(count)
        conn.close()

    print(*(f"{name}: {blocks}" for name, blocks in found.items()), sep="\n")
    assert {name: blocks for name, blocks in found.items() if blocks[2] > 1.05 * blocks[1]} == {}
    assert {name: blocks for name, blocks in found.items() if blocks[2] > 1.5 * blocks[0]} == {}
    assert values(db, "select count(*) from checkout_audit()") == [0]
