"""What a monitor is told, and that asking costs little, whatever stands in the tables."""

import asyncio
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import asynccontextmanager, closing
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pytest
import yaml
from command import ROOT, run_command
from many import add_orders, order_id
from outbox import claim, fail
from prometheus_client.parser import text_string_to_metric_families
from psycopg.rows import dict_row
from roles import PASSWORD
from test_orders_at_scale import pages, scanned

import pycheckout
from checks import rows, vacuum, values
from pycheckout import _audit, _metrics
from pycheckout._commands._places import Place
from pycheckout.relay import Relay
from races import blocked, wait_until

Read = Callable[..., Any]


@pytest.fixture
def read(db: psycopg.Connection) -> Read:
    """read("name", label="x"): the value of a metric; None where there is none."""

    def read(name: str, **labels: str) -> Any:
        found = [
            each["value"]
            for each in rows(db, "select * from checkout_metrics()")
            if each["name"] == f"pycheckout_{name}" and labels.items() <= each["labels"].items()
        ]
        assert len(found) < 2, found
        return found[0] if found else None

    return read


def test_each_row_is_a_metric_that_says_what_it_counts(db):
    found = rows(db, "select * from checkout_metrics()")

    assert len(found) > 30
    for each in found:
        assert each["name"].startswith("pycheckout_") and each["type"] == "gauge"
        assert all(isinstance(value, str) for value in each["labels"].values())
        assert each["help"].endswith(".") and each["value"] is not None
    keys = [(each["name"], json.dumps(each["labels"])) for each in found]
    assert len(set(keys)) == len(keys)
    assert len({(each["name"], each["help"]) for each in found}) == len({each["name"] for each in found})


def test_the_release_and_the_role_of_the_server(read):
    assert read("info", version=pycheckout.__version__) == 1
    assert read("in_recovery") == 0


def test_checkouts_and_what_was_short(db, read, add_cart, checkout_sql):
    assert (read("checkouts_per_second"), read("carts_open")) == (0, 0)
    carts = [add_cart(vendors=1, lines=2, items={(0, 1): {"quantity": 101}}) for _ in range(3)]
    assert read("carts_open") == 3
    for cart in carts[:2]:
        checkout_sql(db, cart)

    assert (read("checkouts_per_second"), read("carts_open")) == (0.2, 1)
    assert (read("recent_lines"), read("recent_short_lines")) == (4, 2)


def test_orders_that_wait_to_be_paid_for(db, read, add_cart, checkout_sql):
    for n in range(3):
        checkout_sql(db, add_cart(vendors=1, lines=1), key=f"k{n}")
    db.execute(
        "update vendor_orders set created_at = now() - interval '2 hours', expires_at = now() + interval '1 hour'"
    )
    assert (read("orders_pending"), read("orders_overdue"), read("orders_overdue_seconds")) == (3, 0, 0)
    assert 7200 <= read("orders_pending_seconds") < 7300
    db.execute(
        "update vendor_orders set expires_at = now() - interval '10 minutes'"
        " where id = (select id from vendor_orders limit 1)"
    )

    assert (read("orders_pending"), read("orders_overdue")) == (3, 1)
    assert 600 <= read("orders_overdue_seconds") < 700
    db.execute("select vendor_orders_expire()")
    assert (read("orders_pending"), read("orders_overdue"), read("orders_overdue_seconds")) == (2, 0, 0)


def test_events_that_wait(db, read, emit):
    anchor = "00000000-0000-0000-0000-000000000001"
    assert (read("outbox_events"), read("outbox_due_seconds")) == (0, 0)
    emit(anchor)
    db.execute("update outbox_events set next_attempt_at = now() - interval '90 seconds'")
    assert read("outbox_events") == 1
    assert 90 <= read("outbox_due_seconds") < 120

    [leased] = claim(db)  # by a relay that is slow: it is due all the same
    assert 90 <= read("outbox_due_seconds") < 120

    fail(db, leased, max_attempts=1)
    assert (read("outbox_events"), read("outbox_parked_events"), read("outbox_due_seconds")) == (1, 1, 0)


def test_ages_go_by_the_clock_however_long_the_transaction_has_run(db, read, emit):
    with db.transaction():
        values(db, "select now()")
        emit("00000000-0000-0000-0000-000000000001")
        wait_until(lambda: read("outbox_due_seconds") > 0)


@pytest.mark.parametrize("slots", [1, 2])
def test_who_waits_for_stock_is_told_by_product(db, connect, read, add_cart, checkout_sql, slots):
    cart = add_cart(vendors=1, lines=1)
    product = str(cart.items[0].product_id)
    db.execute("select inventory_split(%s, %s)", (product, slots))
    holder = connect()
    holder.execute("select from inventory_items where product_id = %s for update", (product,))
    holder.execute("select from inventory_slots where product_id = %s for update", (product,))
    assert read("stock_waiters", product_id=product) is None
    with blocked(db, checkout_sql, connect(), cart):
        assert read("stock_waiters", product_id=product, slots=str(slots)) == 1
        assert read("sessions_waiting") == 1
        wait_until(lambda: read("session_wait_seconds") > 0)
        holder.rollback()
    assert (read("stock_waiters", product_id=product), read("sessions_waiting")) == (None, 0)


def test_dead_rows_and_when_autovacuum_comes(db, read):
    db.execute("alter table inventory_items set (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 7)")
    assert read("table_vacuum_due_rows", table="inventory_items") == 7
    assert read("table_vacuum_due_rows", table="cart_records") == 50
    assert read("table_dead_rows", table="inventory_items") is not None
    assert read("table_bytes", table="vendor_orders") > 0
    assert read("table_rows", table="outbox_events") == 0


def test_who_holds_an_old_snapshot(db, connect, read):
    holder = connect()
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from vendor_orders")
    for _ in range(5):
        db.execute("select pg_current_xact_id()")
    assert read("oldest_snapshot_transactions", holder="session") >= 5
    assert read("oldest_snapshot_seconds", holder="session") > 0
    assert read("sessions_hidden") == 0


def test_what_an_owner_without_rights_sees_are_transactions_and_no_times(db, connect, read, new_role):
    """The time-out of others is hidden from it; the age of what they hold is not."""
    owner = new_role()
    db.execute(f"alter function checkout_metrics() owner to {owner}")
    db.execute(f"grant select on all tables in schema public to {owner}")
    holder = connect()
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from vendor_orders")
    for _ in range(5):
        db.execute("select pg_current_xact_id()")
    assert read("oldest_snapshot_transactions", holder="session") >= 5
    assert read("oldest_snapshot_seconds", holder="session") == 0
    assert read("sessions_hidden") > 0


@pytest.mark.breaks_invariants
def test_the_audit_has_the_last_word(db, dsn, read, add_cart, checkout_sql):
    assert (read("audit_findings"), read("audit_age_seconds")) == (None, None)
    checkout_sql(db, add_cart())
    assert run_command("audit", "--database", dsn).returncode == 0
    assert read("audit_findings") == 0
    assert 0 <= read("audit_age_seconds") < 60

    db.execute("update inventory_items set reserved_qty = reserved_qty + 1")
    broken = run_command("audit", "--database", dsn, "--since", "2020-01-01", "--json")
    assert broken.returncode == 3
    assert read("audit_findings") == len(broken.stdout.splitlines()) > 0
    [since] = values(db, "select since from checkout_audits order by id desc limit 1")
    assert since == datetime.fromisoformat("2020-01-01T00:00:00+00:00")


def test_an_audit_by_a_role_that_may_note_nothing_ends_all_the_same(db, new_role, login):
    role = new_role()
    db.execute(f"grant execute on function checkout_audit_slice(timestamptz, uuid, uuid) to {role}")
    db.execute(f"grant execute on function checkout_audit_rest(timestamptz) to {role}")
    db.execute(f"grant select on vendor_orders to {role}")
    with login(role) as conn:
        conn.row_factory = dict_row
        assert list(_audit.audit(conn, None, lambda done, total: None)) == []
    assert values(db, "select count(*) from checkout_audits") == [0]


@pytest.mark.breaks_invariants
def test_counts_end_and_cost_little_beside_many_orders(db, connect):
    """Counted by blocks: once the counts have come to their end, more rows cost no more, and no table is read whole."""
    cost = {}
    for before, orders in ((0, 16_000), (16_000, 24_000)):
        add_orders(db, orders, after=before, analyzed=False)
        # everything at once is due: the most that there is to count
        db.execute("update vendor_orders set expires_at = now() - interval '1 minute'")
        db.execute("update outbox_events set published_at = null, next_attempt_at = created_at")
        vacuum(db)
        conn = connect(autocommit=True)
        conn.execute("select count(*) from checkout_metrics()")
        before = scanned(db, conn)
        conn.execute("select count(*) from checkout_metrics()")
        after = scanned(db, conn)
        large = {"cart_records", "vendor_orders", "order_line_items", "outbox_events", "checkout_requests"}
        assert {table for table in large if after[table] > before[table]} == set()
        conn.autocommit = False
        cost[orders] = pages(conn, "count(*) from checkout_metrics()")
        conn.close()

    found = {each["name"]: each["value"] for each in rows(db, "select * from checkout_metrics()")}
    assert {found[f"pycheckout_{name}"] for name in ("orders_pending", "orders_overdue", "outbox_events")} == {10001}
    assert cost[24_000] < 1.05 * cost[16_000] < 25_000, cost


COUNTED = {
    "pycheckout_carts_open", "pycheckout_orders_pending", "pycheckout_orders_pending_seconds",
    "pycheckout_orders_overdue", "pycheckout_outbox_events",
}  # fmt: skip


@pytest.mark.breaks_invariants
def test_what_a_held_snapshot_keeps_is_not_walked_over(db, dsn, connect):
    """24,000 orders and events were late within the last hour and are not any more, and nobody may take them away."""
    add_orders(db, 24_000, analyzed=False)
    hour = "now() - random() * interval '1 hour'"
    db.execute("set session_replication_role = replica")
    db.execute(f"update vendor_orders set expires_at = {hour}")
    db.execute(f"update outbox_events set published_at = null, next_attempt_at = {hour}")
    db.execute("update cart_records set status = 'active', converted_at = null, valid_until = now() + interval '1 day'")
    vacuum(db)
    every = {each["name"] for each in rows(db, "select * from checkout_metrics()")}
    assert every >= COUNTED
    holder = connect(options="-c statement_timeout=0")
    holder.execute("set transaction isolation level repeatable read")
    holder.execute("select count(*) from vendor_orders")
    db.execute("update vendor_orders set status = 'expired'")
    db.execute("update outbox_events set published_at = now()")
    db.execute("update cart_records set valid_until = now() - interval '1 day'")
    db.execute("update cart_records set valid_until = now() - interval '2 days'")
    # each block with a handler is a transaction of its own to the server
    db.execute("create temp table burnt (n integer)")
    db.execute("""
        do $$ begin
          for v_step in 1 .. 10001 loop
            begin
              insert into burnt values (v_step);
            exception when division_by_zero then null;
            end;
          end loop;
        end $$
    """)
    db.execute("select pg_stat_force_next_flush()")
    db.execute(
        "update vendor_orders set status = 'created_pending', expires_at = now() - interval '2 seconds' where id = %s",
        (order_id(7, 1),),
    )

    db.execute("""
        update outbox_events set published_at = null, next_attempt_at = now() - interval '2 seconds'
         where id = (select id from outbox_events order by id limit 1)
    """)

    conn = connect()
    conn.execute("select pg_sleep(0.02)")  # longer than it looks for what is late: that goes by the clock
    found = {each["name"]: each["value"] for each in rows(conn, "select * from checkout_metrics()")}
    assert every - found.keys() == COUNTED
    assert 2 <= found["pycheckout_orders_overdue_seconds"] < 10
    assert 2 <= found["pycheckout_outbox_due_seconds"] < 10
    assert pages(conn, "count(*) from checkout_metrics()") < 25_000  # not 75,000
    conn.rollback()
    shown = run_command("top", "--once", "--database", dsn, env={"COLUMNS": "80"})
    assert shown.stdout.count("uncounted") == 4, shown.stdout + shown.stderr

    holder.rollback()
    vacuum(db, analyze=False)
    found = {each["name"]: each["value"] for each in rows(db, "select * from checkout_metrics()")}
    assert {found[name] for name in COUNTED} >= {0, 1}


def test_no_table_is_read_whole_while_it_is_empty(db, connect):
    conn = connect(autocommit=True)
    conn.execute("select count(*) from checkout_metrics()")
    before = scanned(db, conn)
    conn.execute("select count(*) from checkout_metrics()")
    assert scanned(db, conn) == before


def test_an_operator_reads_it_and_no_table(db, new_role, login):
    role = new_role()
    db.execute("select checkout_grant_operators(%s)", (role,))
    conn = login(role)
    assert len(rows(conn, "select * from checkout_metrics()")) > 30
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select from vendor_orders")


# In the text format of Prometheus


def test_the_command_prints_what_prometheus_reads(db, dsn):
    printed = run_command("metrics", "--database", dsn)
    assert printed.returncode == 0, printed.stderr
    families = {family.name: family for family in text_string_to_metric_families(printed.stdout)}
    assert families.keys() == set(values(db, "select name from checkout_metrics()"))
    [info] = families["pycheckout_info"].samples
    assert (info.labels, info.value) == ({"version": pycheckout.__version__}, 1)
    assert families["pycheckout_carts_open"].documentation.endswith("10001 means more.")
    assert {sample.labels["table"] for sample in families["pycheckout_table_dead_rows"].samples} >= {"inventory_items"}

    one = json.loads(run_command("metrics", "--database", dsn, "--json").stdout.splitlines()[0])
    assert one.keys() == {"name", "labels", "value", "type", "help"}


def test_the_command_says_who_may(dsn, new_role):
    refused = run_command(
        "metrics", "--database", psycopg.conninfo.make_conninfo(dsn, user=new_role(), password=PASSWORD)
    )
    assert (refused.returncode, "checkout_grant_operators" in refused.stderr) == (1, True)


@pytest.mark.parametrize(
    ("listen", "address"),
    [("9187", ("127.0.0.1", 9187)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:0", ("::1", 0)), (":9", ("127.0.0.1", 9))],
)
def test_a_relay_listens_at_loopback_unless_told_otherwise(listen, address):
    assert _metrics.address(listen) == address


@pytest.mark.parametrize("listen", ["", "somewhere", "host:99999", "host:-1"])
def test_an_address_that_is_none_is_refused(listen):
    with pytest.raises(ValueError):
        _metrics.address(listen)


def get(port: int, path: str) -> tuple[int, str]:
    answer = httpx.get(f"http://127.0.0.1:{port}{path}", trust_env=False)
    return answer.status_code, answer.text


def told(port: int) -> dict[str, float]:
    status, text = get(port, "/metrics")
    assert status == 200
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.labels
    }


def test_a_relay_tells_what_it_counts_and_how_it_is(dsn, emit, brief_pauses):
    """The broker is away first, and comes then."""
    emit("00000000-0000-0000-0000-000000000001")
    free = socket.create_server(("127.0.0.1", 0))
    relay = Relay(dsn, f"redis://127.0.0.1:{free.getsockname()[1]}", poll_seconds=0.05)
    free.close()
    took = []

    @asynccontextmanager
    async def broker(*args):
        async def publish(event, body):
            took.append(event)

        yield publish

    loops = []

    async def run():
        loops.append(asyncio.get_running_loop())
        await relay.run()

    listener = _metrics.Listener({Place(dsn, None): relay}, ("127.0.0.1", 0))
    running = threading.Thread(target=lambda: asyncio.run(run()))
    with closing(listener):
        assert get(listener.port, "/readyz")[0] == 503
        running.start()
        wait_until(lambda: told(listener.port)["pycheckout_relay_interrupted_total"] > 0)
        assert (get(listener.port, "/livez")[0], get(listener.port, "/readyz")[0]) == (200, 503)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("pycheckout.relay.connected", broker)
            wait_until(lambda: get(listener.port, "/readyz")[0] == 200)
            wait_until(lambda: told(listener.port)["pycheckout_relay_published_total"] == 1)
            now = told(listener.port)
            assert now["pycheckout_relay_batch_seconds_count"] == 1
            assert now["pycheckout_relay_batch_seconds_sum"] > 0
            assert now["pycheckout_relay_failed_total"] == 0
            assert now["pycheckout_database_up"] == 1
            assert now["pycheckout_outbox_events"] == 0
            assert abs(now["pycheckout_relay_poll_timestamp_seconds"] - time.time()) < 60
        loops[0].call_soon_threadsafe(relay.stop)
        running.join(20)
        assert (get(listener.port, "/readyz")[0], get(listener.port, "/else")[0]) == (503, 404)


def test_a_scrape_without_a_database_tells_what_the_relay_counts(dsn):
    gone = psycopg.conninfo.make_conninfo(dsn, dbname="not_there")
    relay = Relay(gone, "nats://127.0.0.1:9")
    with closing(_metrics.Listener({Place(gone, None): relay}, ("127.0.0.1", 0))) as listener:
        found = told(listener.port)
    assert (found["pycheckout_database_up"], found["pycheckout_relay_published_total"]) == (0, 0)
    assert "pycheckout_outbox_events" not in found


def test_the_role_of_a_relay_may_be_scraped(db, dsn, new_role):
    role = new_role()
    db.execute("select checkout_grant_relay(%s)", (role,))
    own = psycopg.conninfo.make_conninfo(dsn, user=role, password=PASSWORD)
    relays = {Place(own, None): Relay(own, "nats://127.0.0.1:9")}
    with closing(_metrics.Listener(relays, ("127.0.0.1", 0))) as listener:
        assert told(listener.port)["pycheckout_database_up"] == 1


def test_a_port_that_is_taken_is_said_in_a_line(dsn):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = run_command("relay", "--database", dsn, "--broker", "nats://127.0.0.1:9", "--listen", str(port))
    assert (refused.returncode, "cannot listen" in refused.stderr) == (2, True)


def test_the_page_names_each_metric_and_each_alert(db):
    page = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    metrics, alerts = page.partition("## The alerts")[::2]
    named = {name for line in re.findall(r"^\| (`.*?) \|", metrics, re.M) for name in re.findall(r"`(\w+)`", line)}
    relay = Relay("dbname=x", "redis://127.0.0.1:1")
    own = {
        family.name + ("_total" if family.type == "counter" else "") for family in _metrics._of_relays([({}, relay)])
    }
    known = {*values(db, "select name from checkout_metrics()"), *own, "pycheckout_database_up"}
    # of what is there only sometimes
    known |= {"pycheckout_stock_waiters", "pycheckout_slot_retained_bytes"}
    known |= {"pycheckout_audit_findings", "pycheckout_audit_age_seconds"}
    assert {f"pycheckout_{name}" for name in named} == known
    told = [line.strip("| ").split(" | ") for line in re.findall(r"^\| `.*$", metrics, re.M)]
    assert [row for row in told if len(row) != 3] == [], "what to do"

    rules = yaml.safe_load((ROOT / "deploy" / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    assert re.findall(r"^\| `(\w+)` \|", alerts, re.M) == [rule["alert"] for rule in rules]
