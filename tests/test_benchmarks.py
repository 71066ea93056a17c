"""The programs that the benchmarks compare leave the rows that checkout_execute leaves."""

import json
import os
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from psycopg.rows import dict_row, scalar_row

from benchmarks import (
    delay,
    ids,
    instructions,
    loads,
    millions,
    neworder,
    orders,
    pinned,
    report,
    server,
    upkeep,
    watching,
)
from benchmarks.drivers import CHECKOUTS, DRIVERS, FLOORS, Task
from benchmarks.plan import RIVALS
from benchmarks.rules import Refused, Request
from checks import vacuum, values
from pycheckout._embedded import embedded_server

CARTS = 4


@pytest.fixture
def run(dsn, program, db):
    """run(driver, shape, first): check CARTS carts out by two clients."""

    def run(driver, shape, first):
        task = Task(
            dsn=dsn,
            bin=Path(program("pgbench")).parent,
            password=db.info.password,
            shape=shape,
            clients=2,
            first=first,
            count=CARTS // 2,
        )
        assert len(DRIVERS[driver](task).transactions) == CARTS

    return run


# What names the cart, or is another one in each run.
_OTHERWISE = {"created_at", "updated_at", "request_hash", "valid_until"}


def rows_of(db, number):
    """The rows that a checkout left, ids by what they are instead of the cart's number."""
    cart, buyer = ids.uuid(number, ids.CART), ids.uuid(number, ids.BUYER)
    with db.cursor(row_factory=scalar_row) as cur:
        [anchor] = cur.execute("select checkout_group_id from cart_records where id = %s", (cart,))
    queries = {
        "cart": ("select * from cart_records where id = %s", cart),
        "key": ("select * from checkout_requests where buyer_store_id = %s", buyer),
        "orders": ("select * from vendor_orders where cart_id = %s order by id", cart),
        "lines": (
            "select line.* from order_line_items as line join vendor_orders as o on o.id = line.order_id"
            " where o.cart_id = %s order by line.id",
            cart,
        ),
        "intents": (
            "select intent.* from payment_intents as intent join vendor_orders as o on o.id = intent.order_id"
            " where o.cart_id = %s order by intent.id",
            cart,
        ),
        "events": ("select * from outbox_events where aggregate_id = %s order by event_type", anchor),
    }
    found = {}
    for name, (query, key) in queries.items():
        with db.cursor(row_factory=dict_row) as cur:
            rows = cur.execute(query, (key,)).fetchall()
        found[name] = [_comparable(row, number, anchor) for row in rows]
    return found


def _comparable(row, number, anchor):
    high = str(ids.uuid(number, ids.CART))[:18]
    event_id = str(row["id"]) if "event_type" in row else None

    def plain(value):
        if isinstance(value, dict):
            return {key: plain(each) for key, each in value.items() if key != "occurred_at"}
        if isinstance(value, list):
            return [plain(each) for each in value]
        text = str(value)
        if text == str(anchor):
            return "the anchor"
        if text == event_id:
            return "the event"
        if re.match(high, text):
            return "of this cart: " + text.removeprefix(high)
        return "set" if hasattr(value, "tzinfo") else value

    return (
        {name: plain(value) for name, value in row.items() if name not in _OTHERWISE}
        | ({"idempotency_key": "its key"} if row.get("idempotency_key") == f"k{number}" else {})
        | ({"order_number": "a number"} if row.get("order_number") is not None else {})
    )


SHAPES = {
    "3x2": loads.Shape(),
    "1x1": loads.Shape(vendors=1, lines=1),
    "hot": loads.Shape(hot=True),
    "baskets": loads.Shape(baskets="sample"),
}


def _driver(name):
    """Every cart's events by the floor have the payload of its first one, and the audit reads them."""
    return pytest.param(name, marks=pytest.mark.breaks_invariants) if name in FLOORS else name


@pytest.mark.parametrize("driver", [_driver(name) for name in CHECKOUTS if name != "function"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_driver_leaves_the_rows_of_the_function(driver, shape, run, db):
    """Every column of every row, payloads included but for the floor's; then the audit looks at stock and the rest."""
    if driver in FLOORS and shape == "baskets":
        pytest.skip("the floor knows made-up carts alone")
    templates, _ = loads.prepare(db, SHAPES[shape])
    # Numbers of the same templates and products, and not those of any product.
    first, second = templates * loads.PRODUCTS * 2, templates * loads.PRODUCTS * 4
    for number in (first, second):
        loads.seed(db, SHAPES[shape], number, CARTS)
    if shape == "baskets":
        db.execute(
            "update inventory_items set available_qty = 0 where product_id = any (select product_id from cart_items"
            " where status = 'ok' order by id limit 3)"
        )

    run(driver, SHAPES[shape], first)
    run("function", SHAPES[shape], second)

    for number in range(CARTS):
        found, expected = rows_of(db, first + number), rows_of(db, second + number)
        if driver in FLOORS:
            for event in [*found["events"], *expected["events"]]:
                del event["payload"]
        assert found == expected
        assert [len(expected[name]) for name in ("cart", "key", "events")] == [1, 1, 2]
        assert expected["orders"] and expected["lines"]
    if driver in FLOORS:
        told = values(db, "select distinct invariant from checkout_audit()")
        assert told and all(name.startswith("event_") for name in told), told
    if shape == "baskets":
        assert db.execute("select from order_line_items where notes = 'insufficient_inventory'").fetchall()


@pytest.mark.parametrize("name", RIVALS)
def test_a_program_replays_and_refuses(name, dsn, db):
    """What makes it slower than a program without checks is really there."""
    program = DRIVERS[name]
    conn = program.connect(dsn)
    loads.prepare(db, loads.Shape())
    loads.seed(db, loads.Shape(), 0, 6)

    def request(number, **other):
        return Request(**loads.request(number) | other)

    def refusal(request):
        with pytest.raises(Refused) as refused:
            program.checkout(conn, request)
        return str(refused.value)

    assert program.checkout(conn, request(0)) == program.checkout(conn, request(0))
    assert refusal(request(0, payment_method="cash")) == "OC006"
    assert refusal(request(1, buyer_store_id=ids.uuid(0, ids.BUYER))) == "OC001"
    db.execute("update cart_records set valid_until = now() where id = %s", (ids.uuid(1, ids.CART),))
    assert refusal(request(1)) == "OC003"
    db.execute(
        "update cart_vendor_groups set total_cents = total_cents + 1 where cart_id = %s", (ids.uuid(2, ids.CART),)
    )
    db.execute("update cart_records set total_cents = total_cents + 1 where id = %s", (ids.uuid(3, ids.CART),))
    db.execute(
        "update cart_items set status = 'invalid' where cart_id = %s and vendor_store_id = %s",
        (ids.uuid(4, ids.CART), ids.vendor(1)),
    )
    db.execute(
        "with host as (insert into vendor_orders (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents,"
        " total_cents) values (gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 0, 0) returning *)"
        " update cart_records set checkout_group_id = host.checkout_group_id from host where cart_records.id = %s",
        (ids.uuid(5, ids.CART),),
    )
    assert [refusal(request(number)) for number in (2, 3, 4, 5)] == ["OC007"] * 4
    assert db.execute("select count(*) from checkout_requests").fetchone() == (1,)
    (conn.dispose if name.startswith("orm") else conn.close)()


def test_preloaded_orders_pass_the_audit(db):
    loads.prepare(db, loads.Shape())
    assert loads.preload(db, loads.Shape(), 30) == 10
    assert db.execute("select count(*) from vendor_orders").fetchone() == (30,)
    assert db.execute("select * from checkout_audit()").fetchall() == []


@pytest.mark.breaks_invariants  # it fills what a monitor reads, and no more
def test_what_a_monitor_asks_is_told_statement_by_statement(db, dsn):
    carts = millions.fill(db, 300, watching.SHAPE, into=watching.READ)
    watching.make_due(db, carts, 30)
    vacuum(db)

    cost = watching.look(dsn, "due", times=1)

    nodes = {node for each in cost.statements for node in each.nodes}
    assert {
        "Index Scan idx_vendor_orders_expires_at_id",
        "Index Scan idx_cart_records_converted_at_valid_until",
        "Index Only Scan idx_outbox_events_waiting",
        "Index Only Scan idx_outbox_events_due",
    } <= nodes
    assert not cost.whole & {*watching.LARGE}
    assert f"{cost.pages:,} pages" in watching.text(cost)
    found = dict(db.execute("select name, value from checkout_metrics() where labels = '{}'").fetchall())
    names = ("orders_overdue", "outbox_events", "carts_open")
    assert [found[f"pycheckout_{name}"] for name in names] == [30, 30, 30]


@pytest.mark.breaks_invariants  # it fills what calls on orders read, and no more
def test_what_a_call_on_an_order_costs_is_told_by_pages_and_indexes(db, dsn):
    carts = millions.fill(db, 3000, orders.SHAPE, into=orders.INTO, also=orders.ALSO)
    costs = orders.measure(dsn, orders.fill(db, carts, due=20))

    read = {
        "order_get": "vendor_orders_pkey",
        "order_changes_list": "idx_order_changes_order_id_created_at_id",
        "order_history of an order": "payment_events_pkey",
        "order_money of an order": "vendor_orders_pkey",
        "orders_list of a buyer": "idx_vendor_orders_buyer_store_id_created_at_id",
        "orders_list of a vendor": "idx_vendor_orders_vendor_store_id_created_at_id",
        "orders_list by number": "idx_vendor_orders_order_number",
        "orders_list by purchase order": "idx_vendor_orders_purchase_order_created_at_id",
        "vendor_orders_expire of 2, ten times": "idx_vendor_orders_expires_at_id",
        "vendor_order_cancel": "idx_order_line_items_order_id",
    }
    assert {name: costs[name].indexes for name, index in read.items() if index not in costs[name].indexes} == {}
    assert all(cost.pages and cost.milliseconds for cost in costs.values())
    assert orders.faults(costs, costs) == []
    pages = costs["order_get"].pages
    assert f"| order_get | {pages} | {pages} | " in orders.table({1: costs, 2: costs})


@pytest.mark.breaks_invariants  # the events that it fills in say nothing
def test_what_upkeep_costs_is_told_by_pages_and_indexes(db, dsn, monkeypatch):
    monkeypatch.setattr(upkeep, "ROWS", 10)
    upkeep.fill(db, millions.fill(db, 1200, upkeep.SHAPE, into=upkeep.INTO))

    costs = upkeep.measure(dsn)

    read = {
        "`cart_purge` of 10": "idx_cart_items_cart_id",
        "`checkout_requests_purge` of 10": "idx_checkout_requests_created_at",
        "`outbox_purge` of 10": "idx_outbox_events_published",
        "`outbox_claim` of 10": "idx_outbox_events_waiting",
        "`checkout_audit_slice` of 30 orders": "idx_cart_records_checkout_group_id",
    }
    assert costs.keys() == read.keys()
    assert {name: costs[name].indexes for name, index in read.items() if index not in costs[name].indexes} == {}
    assert all(cost.pages and cost.milliseconds for cost in costs.values())


def test_a_call_on_an_order_that_does_not_stay_flat_is_named():
    flat = orders.Cost(pages=10, indexes=["an_index", "another_index"], whole=[])
    assert orders.faults({"call": flat}, {"call": replace(flat, pages=17)}) == []
    assert orders.faults({"call": flat}, {"call": replace(flat, pages=18)}) == ["call touched 18 pages, more than 17"]
    assert orders.faults({"call": flat}, {"call": replace(flat, whole=["a_table"])}) == ["call read a_table whole"]


def test_a_new_order_writes_what_the_specification_says(db):
    neworder.create(db, warehouses=2, items=20, customers=3)
    call = "call new_order(1, 2, 3, %s, %s, %s)"
    # items 1 (11 units), 2 twice (12 units, of another warehouse) and 3 (13 units)
    [total] = values(db, call, [1, 2, 2, 3], [1, 2, 2, 1], [5, 1, 2, 1])

    assert round(total, 4) == round(
        (5 * 2 + 3 * 3 + 4) * (1 - values(db, "select 0.1")[0]) * values(db, "select 1.13")[0], 4
    )
    stock = (
        "select s_quantity, s_ytd, s_order_cnt, s_remote_cnt from stock where s_order_cnt > 0 order by s_w_id, s_i_id"
    )
    assert db.execute(stock).fetchall() == [(97, 5, 1, 0), (12, 1, 1, 0), (100, 3, 2, 2)]
    assert values(db, "select d_next_o_id from district where (d_w_id, d_id) = (1, 2)") == [2]
    assert values(
        db,
        "select count(*) from order_line join orders on (o_w_id, o_d_id, o_id) = (ol_w_id, ol_d_id, ol_o_id)"
        " where o_ol_cnt = 4 and not o_all_local",
    ) == [4]
    assert values(db, "select count(*) from new_order") == [1]
    with pytest.raises(psycopg.errors.RaiseException):
        db.execute(call, ([1, 21], [1, 1], [1, 1]))
    assert values(db, "select count(*) from orders") == [1]


def test_the_delay_is_a_millisecond_a_round_trip(server, dsn):
    def in_a_pipeline(far):
        with far.pipeline():
            for _ in range(20):
                far.execute("select 1")
            far.execute("select 1").fetchone()

    def one_by_one(far):
        for _ in range(20):
            assert far.execute("select 1").fetchone() == (1,)

    def shortest(asked):
        """Of ten, for what else runs on the machine makes it longer."""
        took = []
        for _ in range(10):
            began = time.perf_counter()
            asked(far)
            took.append(time.perf_counter() - began)
        return min(took)

    with delay.delayed(server.host, server.port) as port:
        slow = dsn.replace(f":{server.port}/", f":{port}/")
        with psycopg.connect(slow, autocommit=True) as far:
            one, twenty = shortest(in_a_pipeline), shortest(one_by_one)
    assert delay.DELAY <= one < twenty
    assert 20 * delay.DELAY <= twenty < 200 * delay.DELAY, "not held back by acknowledgements as well"


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind counts them")
def test_instructions_are_counted(monkeypatch):
    monkeypatch.setattr(instructions, "WARM_UP", 10)
    monkeypatch.setattr(instructions, "COUNTED", 10)

    one, five = instructions.count(loads.Shape(vendors=1, lines=1), loads.Shape(vendors=1, lines=5))

    assert 1_000 < one < 20_000
    assert 100 < (five - one) / 4 < 1_000, "a line's"


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a core for each server")
def test_two_servers_are_pinned_to_a_core_each_and_sell(monkeypatch):
    monkeypatch.setattr(pinned, "WARM_UP", 0.5)
    monkeypatch.setattr(pinned, "AFTER", 0.5)
    monkeypatch.setattr(pinned, "MOST", 2000)  # nothing waits for a disk
    forms = [form for form in pinned.FORMS if len(form.cores) == 2]
    with embedded_server(fsync=False, in_memory=True) as a, embedded_server(fsync=False, in_memory=True) as b:
        [found] = pinned.run({"a": a, "b": b}, forms, callers=2, rounds=2, seconds=1)
        assert [pinned.is_pinned(own, {core}) for own, core in zip((a, b), pinned.cores(), strict=True)] == [True] * 2
        assert not pinned.is_pinned(a, {pinned.cores()[1]})

    assert len(found.rounds) == 2
    for each in found.rounds:
        assert 0 < each.rate * each.cpu_ms / 1000 < each.busy + 0.5, "the servers' CPU is part of what the cores did"
    assert pinned.table([found]).splitlines()[-1].startswith("| two markets, two servers, a core each | ")


def test_no_two_rows_of_the_sizing_are_called_the_same():
    text = report.sizing(json.loads(report.RESULTS.read_text(encoding="utf-8"))).partition("\n\n")[0]
    named = [tuple(row.split(" | ")[:2]) for row in text.splitlines()]

    assert len(set(named)) == len(named) > 20


def test_a_session_that_stays_is_not_passed_over():
    with (
        embedded_server(fsync=False, in_memory=True) as one,
        psycopg.connect(one.dsn(), autocommit=True),
        pytest.raises(RuntimeError, match="1 sessions are still there"),
    ):
        server.settle(one, seconds=0.1)


def test_who_watches_the_waits_is_no_session_that_stays():
    with embedded_server(fsync=False, in_memory=True) as one, server.admin(one) as conn:
        waits = server.Waits(one)
        try:
            query = "select from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"
            while conn.execute(query).fetchone() is None:
                assert waits._thread.is_alive()
            conn.close()
            server.settle(one, seconds=5)
        finally:
            waits.stop()


def test_each_machine_is_named_and_what_ran_on_another_one():
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    found = {name: {"machine": results["loads"]["uniform"]["machine"] | {"cpu": "A"}} for name in ("uniform", "delay")}
    [alone] = report.machines({"loads": found}).splitlines()
    assert alone.startswith("2 cores (A), ")
    found["rush"] = {"machine": found["delay"]["machine"] | {"cpu": "B"}}
    first, _, second = report.machines({"loads": found}).splitlines()
    assert (first, second) == (alone, f"`rush`: {alone.replace('(A)', '(B)')}")


def test_the_docs_show_the_results_on_file():
    results = json.loads(report.RESULTS.read_text(encoding="utf-8"))
    for path, page in report.pages(results).items():
        assert page == path.read_text(encoding="utf-8"), f"{path.name}: python -m benchmarks.report"
