"""A real Prometheus scrapes a relay: each alert is fired by its cause and ends with it; each panel has an answer."""

import json
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import pytest
import yaml
from brokers import Broker, running
from command import Begun, begun, run_command
from monitor import Prometheus, program, prometheus

from checks import values
from pycheckout._embedded import _free_port

ROOT = Path(__file__).parents[1]
ALERTS = ROOT / "deploy" / "alerts.yml"
RULES = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((ROOT / "deploy" / "grafana.json").read_text(encoding="utf-8"))
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]

# What no test can wait for, or write: a quarter of an hour, two days, a million transactions, 10 GB.
SHORTER = {"> 900": "> 1", "> 10e9": "> 1e6", "offset 2d": "offset 1s"}


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    program("prometheus")  # a skip before anything is started
    with running("redis") as broker:
        yield broker


@pytest.fixture
def relay(dsn: str, broker: Broker) -> Iterator[Callable[[], Begun]]:
    """relay(): the command, listening at relay.port; stopped at the end."""
    port = _free_port()
    options = ["--database", dsn, "--broker", broker.url, "--destination", uuid4().hex, "--poll", "50ms"]
    with ExitStack() as stack:

        def relay() -> Begun:
            process = stack.enter_context(begun("relay", *options, "--listen", str(port)))
            stack.callback(process.wait, 20)
            stack.callback(process.send_signal, signal.SIGTERM)
            return process

        relay.port = port  # type: ignore[attr-defined]
        yield relay


@pytest.fixture
def watch(relay, tmp_path) -> Iterator[Prometheus]:
    """A Prometheus that scrapes the relay. Its rules are the shipped ones, but that they wait for nothing."""
    text = re.sub(r"for: \w+", "for: 0s", ALERTS.read_text(encoding="utf-8"))
    for limit, shorter in SHORTER.items():
        assert limit in text
        text = text.replace(limit, shorter)
    rules = tmp_path / "alerts.yml"
    rules.write_text(text, encoding="utf-8")
    with prometheus([f"127.0.0.1:{relay.port}"], rules) as server:
        yield server


def test_promtool_has_nothing_to_say_about_the_rules():
    checked = subprocess.run([program("promtool"), "check", "rules", ALERTS], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"SUCCESS: {len(RULES)} rules found" in checked.stdout


def test_each_rule_says_what_happened_and_how_grave_it_is():
    assert len({rule["alert"] for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"].keys() == {"summary", "description"}


# Causes, each for the length of a `with` block

OLD_EVENT = """
insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
select checkout_uuid(), 'mail.sent', 'mail', checkout_uuid(), '{}', at, at
  from (select now() - interval '10 minutes') as past (at)
"""


@contextmanager
def a_relay_that_hangs_with_its_lease(db, **_):
    with db.transaction():
        db.execute(OLD_EVENT)
        [(claim, event)] = db.execute("select claim_id, id from outbox_claim(1, '1 hour')").fetchall()
    yield
    db.execute("select outbox_ack(%s, array[%s]::uuid[])", (claim, event))


@contextmanager
def a_parked_event(db, **_):
    with db.transaction():
        db.execute(OLD_EVENT)
        db.execute("select outbox_fail(claim_id, id, 'too large', 1) from outbox_claim(1)")
    yield
    db.execute("select outbox_discard(event_id, 'a test') from outbox_dead_letters")


@contextmanager
def orders_that_nobody_ends(db, add_cart, checkout_sql, **_):
    checkout_sql(db, add_cart(vendors=1, lines=1), key="late")
    db.execute("update vendor_orders set expires_at = now() - interval '10 minutes' where status = 'created_pending'")
    yield
    db.execute("select vendor_orders_expire()")


@contextmanager
def a_report_that_takes_long(connect, **_):
    conn = connect()
    conn.execute("set transaction isolation level repeatable read")
    conn.execute("select count(*) from vendor_orders")
    yield
    conn.rollback()


@contextmanager
def waiters(db, connect, add_cart, checkout_sql, slots, **_):
    cart = add_cart(vendors=1, lines=1)
    product = cart.items[0].product_id
    db.execute("select inventory_split(%s, %s)", (product, slots))
    rivals = [add_cart(vendors=1, lines=1, products=[product]) for _ in range(4)]
    holder = connect()
    for table in ("inventory_items", "inventory_slots"):
        holder.execute(f"select from {table} where product_id = %s for update", (product,))
    conns = [connect(autocommit=True, options="-c statement_timeout=0") for _ in rivals]
    with ThreadPoolExecutor(len(rivals)) as threads:
        calls = [threads.submit(checkout_sql, conn, cart) for conn, cart in zip(conns, rivals, strict=True)]
        try:
            yield
        finally:
            holder.rollback()
        assert all(call.result() for call in calls)


@contextmanager
def a_hot_product(**fixtures):
    with waiters(slots=1, **fixtures):
        yield


@contextmanager
def a_split_product_with_waiters(**fixtures):
    with waiters(slots=2, **fixtures):
        yield


@contextmanager
def a_table_that_is_left_out_by_autovacuum(db, **_):
    db.execute("alter table inventory_slots set (autovacuum_enabled = off)")
    db.execute("insert into inventory_slots select checkout_uuid(), n, 0 from generate_series(1, 1100) as n")
    db.execute("delete from inventory_slots where available_qty = 0 and reserved_qty = 0")
    db.execute("select pg_stat_force_next_flush()")
    yield
    db.execute("vacuum inventory_slots")


@contextmanager
def a_broken_invariant(db, dsn, add_cart, checkout_sql, **_):
    checkout_sql(db, add_cart(vendors=1, lines=1), key="broken")
    db.execute("update inventory_items set reserved_qty = reserved_qty + 1")
    assert run_command("audit", "--database", dsn).returncode == 3
    yield
    db.execute("update inventory_items set reserved_qty = reserved_qty - 1")
    assert run_command("audit", "--database", dsn).returncode == 0


@contextmanager
def an_audit_of_last_week(db, **_):
    db.execute("update checkout_audits set ended_at = ended_at - interval '7 days'")
    yield
    db.execute("update checkout_audits set ended_at = ended_at + interval '7 days'")


@contextmanager
def a_slot_that_nobody_reads(db, worker_id, **_):
    slot = f"pycheckout_{worker_id}_watching"
    if values(db, "select 1 from pg_replication_slots where slot_name = %s", slot):
        db.execute("select pg_drop_replication_slot(%s)", (slot,))
    db.execute("select pg_create_physical_replication_slot(%s, true)", (slot,))
    try:
        db.execute("select pg_logical_emit_message(false, 'test', repeat('x', 2000000))")
        db.execute("select pg_switch_wal()")
        yield
    finally:
        db.execute("select pg_drop_replication_slot(%s)", (slot,))


@contextmanager
def a_relay_that_is_gone(relay, process, **_):
    process[0].send_signal(signal.SIGTERM)
    process[0].wait(20)
    yield
    process[0] = relay()


@contextmanager
def a_database_that_lets_nobody_in(db, **_):
    """The function is gone: so a role without rights, or a server that is away, looks to a scrape."""
    db.execute("alter function checkout_metrics() rename to checkout_metrics_hidden")
    yield
    db.execute("alter function checkout_metrics_hidden() rename to checkout_metrics")


CAUSES = {
    "PycheckoutBacklog": a_relay_that_hangs_with_its_lease,
    "PycheckoutEventParked": a_parked_event,
    "PycheckoutOrdersOverdue": orders_that_nobody_ends,
    "PycheckoutOldSnapshot": a_report_that_takes_long,
    "PycheckoutHotProduct": a_hot_product,
    "PycheckoutSplitProductWaits": a_split_product_with_waiters,
    "PycheckoutAutovacuumBehind": a_table_that_is_left_out_by_autovacuum,
    "PycheckoutAuditFound": a_broken_invariant,
    "PycheckoutAuditOld": an_audit_of_last_week,
    "PycheckoutSlotRetainsWal": a_slot_that_nobody_reads,
    "PycheckoutRelaySilent": a_relay_that_is_gone,
    "PycheckoutDatabaseAway": a_database_that_lets_nobody_in,
}


@pytest.fixture
def fixtures(db, dsn, connect, add_cart, checkout_sql, relay, worker_id):
    """What causes are made with."""
    names = ("db", "dsn", "connect", "add_cart", "checkout_sql", "relay", "worker_id")
    return dict(zip(names, (db, dsn, connect, add_cart, checkout_sql, relay, worker_id), strict=True))


def test_each_alert_is_fired_by_its_cause_and_ends_with_it(watch, relay, fixtures):
    assert {rule["alert"] for rule in RULES} == CAUSES.keys()
    process = [relay()]
    watch.wait(lambda: watch.query("pycheckout_relay_ready == 1"))
    watch.wait(lambda: watch.firing() == {"PycheckoutAuditOld"})  # nobody has audited yet
    assert run_command("audit", "--database", fixtures["dsn"]).returncode == 0
    watch.wait(lambda: not watch.firing())
    for alert, cause in CAUSES.items():
        with cause(process=process, **fixtures):
            watch.wait(lambda alert=alert: alert in watch.firing())
            # somebody who waits for long is seen as one who holds a snapshot, and a test waits for a second
            assert watch.firing() - {"PycheckoutOldSnapshot"} <= {alert}
        watch.wait(lambda: not watch.firing())


def test_every_query_of_the_dashboard_has_an_answer_and_every_metric_there_is(watch, relay, fixtures):
    relay()
    with ExitStack() as stack:
        for cause in (a_hot_product, a_slot_that_nobody_reads, a_parked_event):
            stack.enter_context(cause(**fixtures))
        assert run_command("audit", "--database", fixtures["dsn"]).returncode == 0
        for query in QUERIES:
            watch.wait(lambda query=query: watch.query(query))
        known = watch.names()
    named = set(re.findall(r"\bpycheckout_\w+", " ".join([*QUERIES, *(rule["expr"] for rule in RULES)])))
    assert len(named) > 25
    assert named - known == set()
