"""The wrapper behind pgbouncer in transaction mode, where each transaction may run on another server connection.

Reported elsewhere as: prepared statements that clash, or vanish, behind a transaction pooler.
"""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from command import run_command
from pages import blocks, section
from pgbouncer import NEEDS_A_SESSION, SUITE, can_prepare, pgbouncer_for, program
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import ConnectionPool
from quoted import quoted

import pycheckout
from checks import values
from factories import request_of
from pycheckout import Busy, Checkout, CheckoutError, PoolerConflict
from races import at_once, wait_until

CLIENTS = 4
CALLS = 20

FROM_WAITING = "from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
WAITING = f"select count(*) {FROM_WAITING}"

# What docs/operations.md says for each pgbouncer.
OLD, NEW = {"prepare_threshold": None}, {}


def prepares():
    return program() is not None and can_prepare(program())


needs_prepares = pytest.mark.skipif(not prepares(), reason="no pgbouncer of 1.21 or newer")


@pytest.fixture(scope="module")
def running(server):
    """A pgbouncer with fewer server connections than clients."""
    with pgbouncer_for(server, default_pool_size=CLIENTS - 1) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def unaware(server):
    """A pgbouncer that knows nothing of prepared statements, as all before 1.21."""
    settings = {"max_prepared_statements": 0} if prepares() else {}
    with pgbouncer_for(server, default_pool_size=2, **settings) as pooler:
        yield pooler


@pytest.fixture
def pooled(running, postgresql):
    running.fill(postgresql.info.dbname, CLIENTS - 1)
    return running.dsn(postgresql.info.dbname)


@contextmanager
def pool_of(dsn, size=1, **kwargs):
    with ConnectionPool(dsn, min_size=size, max_size=size, kwargs=kwargs, timeout=10, open=True) as pool:
        pool.wait()
        yield pool


def test_transactions_of_one_client_run_on_several_backends(pooled):
    """Or the other tests of this file would show nothing."""
    with psycopg.connect(pooled, autocommit=True, **OLD) as conn:
        pids = [values(conn, "select pg_backend_pid()")[0] for _ in range(CALLS)]

    assert len(set(pids)) == CLIENTS - 1
    assert all(one != next for one, next in itertools.pairwise(pids))


@pytest.mark.parametrize(
    "setting",
    [
        pytest.param(OLD, id="nothing is prepared"),
        pytest.param(NEW, id="prepared as is usual", marks=needs_prepares),
        pytest.param({"prepare_threshold": 0}, id="prepared at once", marks=needs_prepares),
    ],
)
@pytest.mark.parametrize("kind", ["connection", "pool", "transaction"])
def test_four_clients_make_twenty_calls_each(pooled, db, add_cart, checkout, setting, kind):
    carts = [[add_cart(vendors=1) for _ in range(CALLS // 2)] for _ in range(CLIENTS)]

    def client(carts):
        """A checkout and its replay for each cart."""
        if kind == "pool":
            with pool_of(pooled, **setting) as pool:
                return [checkout(pool, cart) for cart in carts for _ in range(2)]
        with psycopg.connect(pooled, autocommit=kind == "connection", **setting) as conn:
            results = []
            for cart in carts:
                for _ in range(2):
                    results.append(checkout(conn, cart))
                    conn.commit()
            return results

    results = at_once(*[partial(client, own) for own in carts])

    for own, answers in zip(carts, results, strict=True):
        assert not isinstance(answers, Exception), answers
        assert [answer.replayed for answer in answers] == [False, True] * len(own)
        # What the pooler gave is what the server itself says.
        assert answers[1::2] == [checkout(db, cart) for cart in own]
        assert [replace(answer, replayed=True) for answer in answers[::2]] == answers[1::2]
    assert values(db, "select count(*) from vendor_orders") == [CLIENTS * CALLS // 2]


def test_all_clients_race_for_one_cart(pooled, db, add_cart, checkout):
    cart = add_cart()
    with pool_of(pooled, CLIENTS * 2, **OLD) as pool:
        results = at_once(*[partial(checkout, pool, cart)] * CLIENTS * 2)

    assert sorted(result.replayed for result in results) == [False] + [True] * (CLIENTS * 2 - 1)
    assert values(db, "select count(*) from vendor_orders") == [2]


def test_result_and_errors_are_the_same_as_without(pooled, db, add_cart, checkout):
    cart, expired = add_cart(), add_cart(valid_for=-1)
    with pool_of(pooled, **OLD) as pool:
        for given in (cart, expired):
            read = partial(pycheckout.result, buyer_store_id=given.buyer_store_id, cart_id=given.id)
            assert read(pool) == read(db)
        checkout(pool, cart)
        assert pycheckout.result(pool, buyer_store_id=cart.buyer_store_id, cart_id=cart.id) == pycheckout.result(
            db, buyer_store_id=cart.buyer_store_id, cart_id=cart.id
        )
        for arguments in ({}, {"payment_method": "shells"}, {"buyer_store_id": cart.id}):
            errors = [refused(checkout, conn, expired, **arguments) for conn in (pool, db)]
            assert errors[0] == errors[1]


def refused(checkout, conn, cart, **arguments):
    with pytest.raises(CheckoutError) as caught:
        checkout(conn, cart, **arguments)
    error = caught.value
    return type(error), error.sqlstate, error.message, error.hint, error.detail.keys()


def test_lock_time_out_of_the_database_is_busy(running, db, connect, add_cart, checkout, attempts):
    """Time-outs in a client's `options` do not get through a pooler; those of the database or the role do."""
    cart = add_cart()
    db.execute(f"alter database {db.info.dbname} set lock_timeout = '10ms'")
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    with pool_of(running.dsn(db.info.dbname), **OLD) as pool:
        with pytest.raises(Busy) as caught:
            checkout(pool, cart)
        assert (caught.value.sqlstate, attempts()) == ("55P03", 5)

        holder.rollback()
        assert checkout(pool, cart).replayed is False


def test_backend_killed_in_mid_checkout(pooled, db, connect, add_cart, checkout, attempts):
    cart = add_cart()
    holder = connect()
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    with pool_of(pooled, **OLD) as pool, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(checkout, pool, cart)
        wait_until(lambda: values(db, WAITING) == [1])
        db.execute(f"select pg_terminate_backend(pid, 5000) {FROM_WAITING}")
        holder.rollback()

        assert waiting.result(timeout=10).replayed is False
    assert attempts() == 2
    assert values(db, "select count(*) from vendor_orders") == [2]


@pytest.mark.parametrize("prepare_threshold", [0, 5])
def test_prepared_statements_behind_a_pooler_unaware_of_them_fail_loudly(
    unaware, postgresql, db, add_cart, checkout, prepare_threshold
):
    """One client's statement is not there on another's backend, or its name is taken. Never a wrong answer."""
    unaware.fill(postgresql.info.dbname, 2)
    dsn = unaware.dsn(postgresql.info.dbname)
    carts = [add_cart(vendors=1) for _ in range(8)]
    answers = []

    with pool_of(dsn, prepare_threshold=prepare_threshold) as pool, pytest.raises(PoolerConflict):
        for cart in carts:
            answers += [checkout(pool, cart), checkout(pool, cart)]
    failed_at = len(answers) // 2

    for cart, answer in zip(carts[:failed_at], answers[1::2], strict=True):
        assert answer == checkout(db, cart)
    # The setting that such a pooler needs: it settles the call that failed, and all that come.
    with pool_of(dsn, **OLD) as pool:
        for cart in carts[failed_at:]:
            assert checkout(pool, cart).outcome == "complete"
            assert checkout(pool, cart).replayed is True
    assert values(db, "select count(*) from vendor_orders") == [8]


def test_name_of_a_prepared_statement_may_be_another_clients(unaware, postgresql, db, add_cart, checkout):
    """Why the setting is no matter of taste: the pooler has the other one's statement run, with our arguments."""
    unaware.fill(postgresql.info.dbname, 2)
    dsn = unaware.dsn(postgresql.info.dbname)
    first, second = add_cart(), add_cart()
    connect = partial(psycopg.connect, dsn, prepare_threshold=0)
    with connect() as host, connect() as buyer:
        # Each prepares its own, under the same name, on the backend that its transaction holds.
        places = ", ".join(["%s::text"] + ["%s"] * 11)
        host.execute(f"select to_json(array[{places}])::text", ["host"] * 12)
        checkout(buyer, first)
        host.commit()
        buyer.commit()

        # The next transaction gets the other backend. The wrapper never takes what is no result for one.
        with pytest.raises((TypeError, KeyError)):
            checkout(buyer, second)

    assert values(db, "select cart_id from checkout_requests") == [first.id]


@pytest.fixture
def market(unaware, empty_database, tmp_path):
    """A market in a schema of its own, a session at its server, and `run` for commands that come by the pooler."""
    direct = empty_database()
    pycheckout.migrate(direct, schema="market_ok", create_schema=True)
    name = conninfo_to_dict(direct)["dbname"]
    unaware.fill(name, 2)
    path = tmp_path / "markets.toml"
    path.write_text(
        f'[server.a]\ndatabase = {json.dumps(unaware.dsn(name))}\n[market.ok]\nserver = "a"\nschema = "market_ok"\n'
    )

    def run(*command, code=0):
        """The rows of its JSON."""
        done = run_command(*command, "--market", "ok", "--json", env={"PYCHECKOUT_MARKETS": str(path)})
        assert done.returncode == code, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    with psycopg.connect(direct, options="-c search_path=market_ok", autocommit=True) as conn:
        yield conn, run
    with psycopg.connect(unaware.dsn(name), autocommit=True, **OLD) as conn:
        sessions = [conn.execute("select pg_backend_pid(), current_setting('search_path')").fetchone() for _ in "1234"]
    assert len({pid for pid, _ in sessions}) == 2
    assert {path for _, path in sessions} == {'"$user", public'}, "a command left its search_path to the next client"


def test_the_command_line_works_in_a_market_behind_a_pooler(market):
    conn, run = market
    cart = quoted(Checkout(conn))
    [product] = values(conn, "select min(product_id::text)::uuid from cart_items")
    address = json.dumps(cart.request()["shipping_address"])
    request = ["--buyer", cart.buyer_store_id, "--cart", cart.id, "--key", cart.key, "--payment-method", "ach"]

    answers = [run("execute", *map(str, request), "--address", address) for _ in range(2)]
    [[first], [second]] = answers
    order = first["vendor_orders"][0]["order_id"]

    assert [first["replayed"], second["replayed"]] == [False, True]
    assert run("show", str(cart.id)) == [second]
    assert run("order", "show", order)[0]["order_id"] == order
    [listed] = run("order", "list", "--buyer", str(cart.buyer_store_id))
    assert order in [each["order_id"] for each in listed["orders"]]
    [level] = run("stock", "show", str(product))
    assert (level["available_qty"], level["reserved_qty"]) == (99, 1)
    assert run("audit") == []
    metrics = {row["name"]: row["value"] for row in run("metrics") if not row["labels"]}
    assert metrics["pycheckout_outbox_events"] == 2
    assert [(each["check"], each["market"]) for each in run("doctor", code=1)] == [("pooler", "ok")]


def test_a_command_of_many_transactions_prepares_nothing(market, tmp_path):
    conn, run = market
    products = [str(uuid4()) for _ in range(12)]  # more than psycopg takes to prepare a statement
    file = tmp_path / "stock.csv"
    file.write_text("product_id,available\n" + "".join(f"{product},7\n" for product in products))

    assert run("stock", "import", str(file), "--batch", "1") == [{"set": 12}]
    assert values(conn, "select sum(available_qty) from inventory_items") == [84]


def test_what_make_test_pgbouncer_leaves_out_is_there_to_be_left_out():
    for name in NEEDS_A_SESSION:
        file, test = name.split("::")
        assert file in SUITE
        assert f"def {test.partition('[')[0]}(" in (Path(__file__).parent / file).read_text()


def test_the_pool_of_the_docs_checks_out_behind_any_pgbouncer(unaware, postgresql, add_cart):
    page = (Path(__file__).parents[1] / "docs" / "services.md").read_text(encoding="utf-8")
    code, *_ = blocks(section(page, "Behind a pooler"), "python")
    carts = [add_cart() for _ in range(8)]  # more than psycopg takes to prepare a statement
    names = {"dsn": unaware.dsn(postgresql.info.dbname)}

    exec(code, names)

    with names["pool"] as pool:
        results = [pycheckout.execute(pool, **request_of(cart)) for cart in carts]
    assert [result.outcome for result in results] == ["complete"] * len(carts)
