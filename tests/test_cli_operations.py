"""Commands that change orders, stock, events, rights and data: what each does is what its function does."""

import json
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
from command import PROGRAM, environment, plain, run_command, run_in_terminal
from outbox import claim
from psycopg.conninfo import make_conninfo
from roles import PASSWORD

import pycheckout
from checks import row, values
from factories import ADDRESS

pytest_plugins = ["shared"]


@pytest.fixture
def run(dsn):
    """run("order", "cancel", ...): the executable on this test's database."""
    return lambda *args, **kwargs: run_command(*map(str, args), "--database", dsn, **kwargs)


@pytest.fixture
def answer(run):
    """answer("order", "cancel", ...): the objects that it prints for programs."""

    def answer(*args):
        done = run(*args, "--json")
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return answer


# Orders


def test_an_order_is_cancelled_and_a_second_time_changes_nothing(run, answer, db, add_cart, checkout_sql):
    cart = add_cart(vendors=2, lines=1, unit_price_cents=800)
    one, other = (order["order_id"] for order in checkout_sql(db, cart)["vendor_orders"])

    [done] = answer("order", "cancel", one, "--reason", "out of season")
    [again] = answer("order", "cancel", one, "--reason", "out of season")
    shown = [line.split() for line in run("order", "cancel", other, "--reason", "too late").stdout.splitlines()]

    assert (done["status"], done["total_cents"], done["reason"]) == ("canceled", 0, "out of season")
    assert again["replayed"] is True
    assert values(db, "select status::text from vendor_orders") == ["canceled", "canceled"]
    assert ["order", "id", other] in shown
    assert ["total", "0.00"] in shown and ["reason", "too", "late"] in shown
    assert ["8.00", "rejected"] in [line[-2:] for line in shown]


def test_an_order_is_shown_to_whom_it_belongs_and_to_the_owner(run, answer, db, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=1, unit_price_cents=800)
    order = checkout_sql(db, cart)["vendor_orders"][0]
    [(written,)] = db.execute("select order_get(%s, %s)", (order["order_id"], cart.buyer_store_id)).fetchall()

    assert answer("order", "show", order["order_id"]) == [written]
    assert answer("order", "show", order["order_id"], "--buyer", cart.buyer_store_id) == [written]
    assert answer("order", "show", order["order_id"], "--vendor", order["vendor_store_id"]) == [written]
    foreign = run("order", "show", order["order_id"], "--vendor", uuid4(), "--json")
    unknown = run("order", "show", uuid4(), "--json")
    codes = [json.loads(refused.stderr)["error"]["code"] for refused in (foreign, unknown)]
    assert codes == ["order_not_found", "order_not_found"]
    shown = run("order", "show", order["order_id"]).stdout.splitlines()
    assert ["order", "id", order["order_id"]] in [line.split() for line in shown]
    assert shown[-1].split()[:5] == ["Product", "1.1", "1", "8.00", "pending"]


def test_amounts_of_an_order_are_money_and_what_is_left_of_its_lines_is_shown(run, answer, db, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=2, quantity=3, unit_price_cents=800)
    [order] = checkout_sql(db, cart)["vendor_orders"]
    whole = run("order", "show", order["order_id"]).stdout
    run("order", "release", order["items"][0]["line_item_id"], "--reason", "torn", "--qty", 1, "--key", "k1")
    run("order", "adjust", order["order_id"], "--cents", "-50", "--reason", "late", "--key", "k2")

    part = run("order", "show", order["order_id"]).stdout.splitlines()
    history = run("order", "history", order["order_id"]).stdout.splitlines()

    assert "left" not in whole
    assert [line.split()[:7] for line in part[-2:]] == [
        ["Product", "1.1", "3", "2", "24.00", "16.00", "pending"],
        ["Product", "1.2", "3", "3", "24.00", "24.00", "pending"],
    ]
    assert [line.split()[-3:] for line in history[1:]] == [["released", "torn", "k1"], ["-0.50", "late", "k2"]]
    assert [row["amount_cents"] for row in answer("order", "history", order["order_id"])] == [None, -50]


def test_orders_are_listed_a_page_at_a_time(run, answer, db, add_cart, checkout_sql):
    cart = add_cart(vendors=3, lines=1)
    orders = checkout_sql(db, cart)["vendor_orders"]
    db.execute("select vendor_order_cancel(%s, 'r')", (orders[0]["order_id"],))

    [first] = answer("order", "list", "--buyer", cart.buyer_store_id, "--max-rows", 2)
    [second] = answer("order", "list", "--buyer", cart.buyer_store_id, "--max-rows", 2, "--after", first["after"])
    [canceled] = answer("order", "list", "--buyer", cart.buyer_store_id, "--status", "canceled", "--status", "closed")
    [of_vendor] = answer("order", "list", "--vendor", orders[1]["vendor_store_id"])

    def ids(page):
        return {order["order_id"] for order in page["orders"]}

    assert (len(first["orders"]), len(second["orders"]), second["after"]) == (2, 1, None)
    assert ids(first) | ids(second) == {order["order_id"] for order in orders}
    assert (ids(canceled), ids(of_vendor)) == ({orders[0]["order_id"]}, {orders[1]["order_id"]})
    shown = run("order", "list", "--vendor", orders[1]["vendor_store_id"]).stdout.splitlines()
    number = str(orders[1]["order_number"])
    assert [orders[1]["order_id"], number, "created_pending"] in [line.split()[:3] for line in shown]
    assert run("order", "list").returncode == 1


def test_orders_are_found_by_number_and_by_purchase_order(run, answer, db, add_cart, checkout_sql):
    cart = add_cart(vendors=2, lines=1)
    orders = checkout_sql(db, cart, purchase_order="PO-4711")["vendor_orders"]
    both, [first, _] = {order["order_id"] for order in orders}, orders

    for arguments, expected in (
        (("--number", first["order_number"]), {first["order_id"]}),
        (("--purchase-order", "PO-4711"), both),
        (("--purchase-order", "PO-4711", "--number", first["order_number"]), {first["order_id"]}),
        (("--purchase-order", "PO-4711", "--status", "canceled"), set()),
        (("--purchase-order", "PO-4712"), set()),
    ):
        [found] = answer("order", "list", "--buyer", cart.buyer_store_id, *arguments)
        assert {order["order_id"] for order in found["orders"]} == expected
    [of_vendor] = answer("order", "list", "--vendor", first["vendor_store_id"], "--purchase-order", "PO-4711")
    assert [order["order_id"] for order in of_vendor["orders"]] == [first["order_id"]]
    for wrong in (("--number", 0), ("--purchase-order", "")):
        refused = run("order", "list", "--buyer", cart.buyer_store_id, *wrong, "--json")
        assert json.loads(refused.stderr)["error"]["code"] == "invalid_request"


def test_lines_are_released_and_fulfilled(answer, db, add_cart, checkout_sql):
    order = checkout_sql(db, add_cart(vendors=1, lines=2))["vendor_orders"][0]
    first, second = (item["line_item_id"] for item in order["items"])

    [released] = answer("order", "release", first, "--reason", "broken")
    [fulfilled] = answer("order", "fulfil", second)

    assert released["items"][0]["status"] == "rejected"
    assert fulfilled["items"][0]["status"] == "fulfilled"
    assert values(db, "select status::text from order_line_items order by id = %s desc", first) == [
        "rejected",
        "fulfilled",
    ]


def test_a_refusal_has_its_code_and_changes_nothing(run, db, add_cart, checkout_sql, snapshot):
    order = checkout_sql(db, add_cart(vendors=1))["vendor_orders"][0]["order_id"]
    before = snapshot(db)

    unknown = run("order", "cancel", uuid4(), "--reason", "r", "--json")
    garbage = run("order", "fulfil", "what", "--json")
    unsaid = run("order", "cancel", order)

    assert (unknown.returncode, json.loads(unknown.stderr)["error"]["code"]) == (1, "order_not_found")
    assert (garbage.returncode, json.loads(garbage.stderr)["error"]["code"]) == (1, "invalid_request")
    assert unsaid.returncode == 2 and "--reason" in unsaid.stderr
    assert snapshot(db) == before


def test_a_busy_order_is_4(run, db, connect, add_cart, checkout_sql):
    order = checkout_sql(db, add_cart(vendors=1))["vendor_orders"][0]["order_id"]
    with connect() as holder:
        holder.execute("select from vendor_orders where id = %s for update", (order,))
        busy = run("order", "cancel", order, "--reason", "r", env={"PGOPTIONS": "-c lock_timeout=50ms"})
        holder.rollback()

    assert busy.returncode == 4


# Stock


def test_stock_is_set_changed_and_split(run, answer, db):
    product = uuid4()

    levels = [
        *answer("stock", "set", product, 10),
        *answer("stock", "restock", product, 5),
        *answer("stock", "adjust", product, "--by", -3),
        *answer("stock", "split", product, 4),
    ]
    too_many = run("stock", "adjust", product, "--by", -13, "--json")

    assert [(level["available_qty"], level["slots"]) for level in levels] == [(10, 1), (15, 1), (12, 1), (12, 4)]
    assert {level["product_id"] for level in levels} == {str(product)}
    assert json.loads(too_many.stderr)["error"]["code"] == "insufficient_inventory"
    assert values(db, "select available_qty from inventory_levels") == [12]
    shown = run("stock", "set", product, 7)
    assert ["available", "qty", "7"] in [line.split() for line in shown.stdout.splitlines()]


def test_a_change_of_stock_with_a_key_counts_once(run, answer):
    product = uuid4()
    answer("stock", "set", product, 10)

    for _ in range(2):
        answer("stock", "restock", product, 5, "--key", "delivery-7")
        answer("stock", "adjust", product, "--by", -1, "--key", "broken-8")
    reused = run("stock", "restock", product, 6, "--key", "delivery-7", "--json")

    [level] = answer("stock", "show", product, uuid4())
    assert level["available_qty"] == 14
    assert json.loads(reused.stderr)["error"]["code"] == "idempotency_key_reused"
    assert answer("purge", "changes", "--older-than", "0") == [{"deleted": 2}]


def test_stock_is_imported_from_a_file_of_any_spreadsheet(run, answer, tmp_path):
    products = [uuid4() for _ in range(5)]
    lines = [f'{number},"{product}",größe' for number, product in enumerate(products, 7)]
    written = "\r\n".join(["available,product_id,note", *lines]).encode("utf-8-sig")
    (tmp_path / "stock.csv").write_bytes(written)

    assert answer("stock", "import", tmp_path / "stock.csv", "--batch", 2) == [{"set": 5}]
    levels = {each["product_id"]: each["available_qty"] for each in answer("stock", "show", *products)}
    assert levels == {str(product): number for number, product in enumerate(products, 7)}
    text = f"product_id,available\n{products[0]},1\n"
    assert run("stock", "import", "-", stdin=text).stdout == "1 products set\n"


@pytest.mark.parametrize("wrong", ["many", "-1", "", "99999999999", pytest.param("9" * 5000, id="9999"), "1_000", "٣"])
def test_a_wrong_line_of_a_file_is_named_and_what_was_set_before_stays(shared_dsn, shared_db, wrong):
    products = [uuid4() for _ in range(5)]
    lines = [f"{product},{wrong if number == 3 else number}" for number, product in enumerate(products)]

    options = ("--batch", "2", "--database", shared_dsn)
    refused = run_command("stock", "import", "-", *options, stdin="\n".join(["product_id,available", *lines]))

    assert refused.returncode == 1
    assert refused.stderr.startswith("pycheckout: line 5: levels[1].available ")
    assert "hint: 2 products are set; correct the file and run it again." in refused.stderr
    set_there = "select product_id from inventory_items where product_id = any(%s) order by available_qty"
    assert values(shared_db, set_there, products) == products[:2]


@pytest.mark.parametrize("text", ["", "product,available\n", "product_id;available\n"])
def test_a_file_without_its_columns_is_wrong_usage(shared_dsn, text):
    assert run_command("stock", "import", "-", "--database", shared_dsn, stdin=text).returncode == 2


# The outbox


def test_events_are_watched_replayed_given_up_and_purged(run, answer, db, emit):
    parked, other = (emit(uuid4()) for _ in range(2))
    [claimed] = [event for event in claim(db, 10) if event["id"] == parked]
    db.execute("select outbox_fail(%s, %s, 'too large', 1)", (claimed["claim_id"], parked))
    db.execute("select outbox_ack(%s, %s)", (claimed["claim_id"], [other]))

    [letter] = answer("outbox", "dead")
    [waiting] = answer("outbox", "backlog")
    assert (letter["event_id"], letter["error"]) == (str(parked), "too large")
    assert (waiting["events"], waiting["parked"], waiting["attempt_count"]) == (1, 1, 1)

    assert answer("outbox", "replay", parked) == [{"event_id": str(parked), "was": "parked"}]
    assert answer("outbox", "dead") == []
    told = {"event_id": str(other), "reason": "sold out", "was": "published"}
    assert answer("outbox", "discard", other, "--reason", "sold out") == [told]
    given_up = run("outbox", "discard", parked, "--reason", "sold twice")
    assert given_up.stdout == f"event {parked} was waiting, and is given up\n"
    assert run("outbox", "dead").stdout == "nothing\n"

    assert answer("outbox", "purge", "--older-than", "1 day") == [{"deleted": 0}]
    assert run("outbox", "purge", "--older-than", "0", "--batch", 1).stdout == "2 events deleted\n"
    assert values(db, "select count(*) from outbox_events") == [0]


def test_what_waits_longest_and_was_parked_first_is_shown_first(answer, db, dsn, emit):
    events = [emit(uuid4(), event_type=name) for name in ("z.first", "m.second", "a.third")]
    for event in claim(db):
        db.execute("select outbox_fail(%s, %s, 'too large', 1)", (event["claim_id"], event["id"]))

    with psycopg.connect(dsn) as conn:
        entries = pycheckout.Checkout(conn).outbox.backlog()
    assert [entry.event_type for entry in entries] == ["z.first", "m.second", "a.third"]
    assert [entry["event_type"] for entry in answer("outbox", "backlog")] == ["z.first", "m.second", "a.third"]
    assert [letter["event_id"] for letter in answer("outbox", "dead", "--max-rows", 2)] == [
        str(each) for each in events[:2]
    ]
    assert len(answer("outbox", "dead")) == 3


# Rights


@pytest.mark.parametrize("kind", ["checkout", "quotes", "orders", "payments", "stock", "relay", "operators"])
def test_a_role_is_granted_and_revoked(answer, db, new_role, kind):
    role = new_role(" it's")

    assert answer("grant", role, kind) == [{"role": role, "grant": kind}]
    assert values(db, "select scope from checkout_roles where role_name = %s", role) == [kind]
    assert answer("revoke", role) == [{"role": role}]
    assert values(db, "select scope from checkout_roles where role_name = %s", role) == []


def test_an_unknown_kind_of_grant_is_wrong_usage(run):
    refused = run("grant", "somebody", "everything")

    assert refused.returncode == 2
    assert "relay" in refused.stderr


def test_an_operator_reads_the_backlog(run, dsn, new_role, emit):
    role = new_role()
    run("grant", role, "operators")
    emit(uuid4())

    own = run_command("outbox", "backlog", "--database", make_conninfo(dsn, user=role, password=PASSWORD), "--json")

    assert json.loads(own.stdout)["events"] == 1


@pytest.mark.parametrize("command", ["show", "history"])
@pytest.mark.parametrize("store", ["buyer", "vendor"])
def test_a_role_that_may_read_no_table_names_a_store_of_the_order(
    run, db, dsn, new_role, add_cart, checkout_sql, command, store
):
    role = new_role()
    run("grant", role, "orders")
    cart = add_cart(vendors=1, lines=1)
    checkout_sql(db, cart)
    db.execute("select vendor_order_cancel(%s, 'late')", (cart.groups[0].id,))
    its = {"buyer": cart.buyer_store_id, "vendor": cart.groups[0].vendor_store_id}
    called = ("order", command, str(cart.groups[0].id), "--database", make_conninfo(dsn, user=role, password=PASSWORD))

    shown = run_command(*called, f"--{store}", str(its[store]))
    assert shown.returncode == 0 and "cancel" in shown.stdout, shown.stderr
    strange = run_command(*called, f"--{store}", str(uuid4()))
    assert strange.returncode == 1 and "no order" in strange.stderr


# Data


def test_old_carts_and_keys_are_purged_in_batches_until_none_is_left(answer, run, db, add_cart, checkout_sql):
    for number in range(3):
        checkout_sql(db, add_cart(), key=f"k{number}")
        add_cart(valid_for=-10)

    assert answer("purge", "keys", "--older-than", "1 day") == [{"deleted": 0}]
    assert answer("purge", "keys", "--older-than", "0", "--batch", 1) == [{"deleted": 3}]
    assert run("purge", "carts", "--older-than", "0", "--batch", 2).stdout == "3 deleted\n"
    assert values(db, "select count(*) from cart_records") == [3], "the orders of the others have not ended"
    assert run("purge", "orders", "--older-than", "0").returncode == 2
    assert run("purge", "keys", "--older-than", "long").returncode == 1


def test_a_person_is_erased_after_a_question(run, answer, db, dsn, add_cart, checkout_sql):
    cart = add_cart()
    checkout_sql(db, cart)
    address = "select (shipping_address).line1 from vendor_orders"
    code, shown = run_in_terminal("erase", str(cart.id), "--database", dsn, answer="n\n")
    assert code == 1
    assert f"Erase the person of cart {cart.id}, for good? [y/N]" in plain(shown)
    assert ADDRESS["line1"] in values(db, address)

    [done] = answer("erase", cart.id, "--yes")
    assert done["cart_id"] == str(cart.id) and done["erased"] > 0
    assert ADDRESS["line1"] not in values(db, address)
    assert run("erase", cart.id, "--yes").stdout == f"0 rows of cart {cart.id} changed\n"
    assert row(db, "select count(*) as keys from checkout_requests") == {"keys": 0}


# Payments and deadlines


def test_a_payment_is_recorded_once(run, answer, db, add_cart, checkout_sql):
    [order] = checkout_sql(db, add_cart(vendors=1, lines=1))["vendor_orders"]
    told = ["--provider", "acme", "--event", "evt", "--kind", "captured", "--cents", 400, "--currency", "USD"]
    more = ["--occurred-at", "2026-01-02T03:04:05", "--details", '{"charge": "ch"}']

    [done] = answer("payment", "record", order["order_id"], *told, *more)
    [again] = answer("payment", "record", order["order_id"], *told)

    assert (done["balance_due_cents"], done["replayed"], again["replayed"]) == (600, False, True)
    assert done["payment"]["occurred_at"] == "2026-01-02T03:04:05.000000Z"
    assert values(db, "select details from payment_events") == [{"charge": "ch"}]
    refused = run("payment", "record", order["order_id"], *["EUR" if it == "USD" else it for it in told])
    assert (refused.returncode, "currency must be USD" in refused.stderr) == (1, True)


def test_orders_expire_once_and_get_more_time(run, answer, db, add_cart, checkout_sql):
    cart = add_cart(vendors=3, lines=1)
    orders = [order["order_id"] for order in checkout_sql(db, cart)["vendor_orders"]]
    db.execute("update vendor_orders set expires_at = now() - interval '1 minute'")
    db.execute("update payment_intents set status = 'paid' where order_id = %s", (orders[0],))

    [change] = answer("order", "extend", orders[1], "--until", f"{datetime.now(UTC) + timedelta(hours=1):%Y-%m-%dT%X}")
    assert change["status"] == "created_pending"
    assert answer("expire", "--batch", 1) == [{"expired": 1, "kept": 1}]
    assert run("expire").stdout == "0 orders expired, 0 lost their deadline\n"
    assert values(db, "select id::text from vendor_orders where status = 'expired'") == [orders[2]]


def wrong_usage(refused):
    """What is said of it, without the frame that is drawn around it."""
    assert (refused.returncode, refused.stdout) == (2, "")
    return " ".join(refused.stderr.replace("│", " ").split())


@pytest.mark.parametrize("time", ["soon", "0s", "-1s", "5w", "30", "1 s", "1e3s", "999999999d", "none"])
def test_a_time_that_is_none_is_wrong_usage(time):
    assert "500ms, 30s, 5m, 1h or 2d, from 100ms to 366d" in wrong_usage(run_command("expire", f"--every={time}"))


@pytest.mark.parametrize(
    "options",
    [
        ("order", "adjust", "an order", "--reason=late", "--key=k", "--cents"),
        ("payment", "record", "an order", "--provider=p", "--event=e", "--kind=captured", "--currency=USD", "--cents"),
    ],
    ids=lambda options: options[1],
)
@pytest.mark.parametrize("amount", ["9.49", "9,49", "USD", "", "1" * 5000])
def test_an_amount_is_in_minor_units(options, amount):
    assert "a whole number of minor units (cents), such as 949 for 9.49" in wrong_usage(run_command(*options, amount))


@pytest.mark.parametrize(
    "options",
    [
        ("order", "extend", "an order", "--until"),
        ("audit", "--since"),
        (
            "payment",
            "record",
            "an order",
            *["--provider=p", "--event=e", "--kind=failed", "--cents=1", "--currency=USD"],
            "--occurred-at",
        ),
    ],
    ids=lambda options: options[-1],
)
@pytest.mark.parametrize("moment", ["tomorrow", "12:00", "2026-02-30", ""])
def test_a_moment_is_asked_for_by_an_example(options, moment):
    assert "a date, or a date and time, in UTC, such as 2026-12-31 or 2026-12-31T18:00:00" in wrong_usage(
        run_command(*options, moment)
    )


@pytest.mark.parametrize(
    "options",
    [
        ("doctor", "--backlog"),
        ("execute", "--buyer=b", "--cart=c", "--key=k", "--address={}", "--payment-method=ach", "--expires-in"),
        ("market", "move", "eu", "--to=b", "--way-back"),
        *(("relay", "--broker=redis://h", option) for option in ("--lease", "--poll", "--timeout")),
        ("top", "--every"),
    ],
    ids=lambda options: options[-1],
)
def test_every_time_has_a_unit(options):
    assert "a time with its unit" in wrong_usage(run_command(*options, "30"))


def test_looks_go_on_until_sigterm(dsn, db, add_cart, checkout_sql):
    command = [PROGRAM, "expire", "--every", "0.1s", "--database", dsn]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, encoding="utf-8") as looking:
        for number in range(2):
            checkout_sql(db, add_cart(vendors=1, lines=1), key=f"k{number}")
            db.execute("update vendor_orders set expires_at = now() where status = 'created_pending'")
            assert looking.stdout.readline() == "1 orders expired, 0 lost their deadline\n"
        looking.send_signal(signal.SIGTERM)
        assert looking.wait(10) == 0
