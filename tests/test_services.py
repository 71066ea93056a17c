"""docs/services.md: each recipe is run as it stands there, and the tables say what the service says."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import httpx
import psycopg
import pytest
from django.db import connection as django_connection
from pages import block, section
from psycopg.conninfo import conninfo_to_dict
from psycopg_pool import AsyncConnectionPool
from sqlalchemy import create_engine
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

import pycheckout
from checks import values
from examples.django.shop import DeliveryNote as DjangoNote
from factories import request_of
from pycheckout import _http_docs as http_docs
from races import wait_until
from web import body, headers, serving

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "services.md").read_text(encoding="utf-8")


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "delivery_notes"

    cart_id: Mapped[UUID] = mapped_column(primary_key=True)
    note: Mapped[str | None]


def recipe(heading):
    """The code of a section."""
    return block(section(PAGE, heading), "python")


def run(heading, **names):
    exec(recipe(heading), names)
    return names


@pytest.fixture
def rows(db):
    """rows(): how many orders are committed, and how many notes. A note that is null is an error of the service's."""
    db.execute("create table delivery_notes (cart_id uuid primary key, note text not null)")
    return lambda: tuple(
        values(db, f"select count(*) from {table}")[0] for table in ("vendor_orders", "delivery_notes")
    )


def test_plain_psycopg(dsn, add_cart, rows):
    cart, other = add_cart(), add_cart()
    shop = run("Plain psycopg", dsn=dsn)

    with shop["pool"]:
        with pytest.raises(psycopg.errors.NotNullViolation):
            shop["order_and_note"](request_of(cart), None)
        assert rows() == (0, 0)
        assert shop["order_and_note"](request_of(cart), "ring").replayed is False
        assert shop["order"](request_of(other)).replayed is False
    assert rows() == (4, 1)


def test_async(dsn, add_cart, rows):
    cart, other = add_cart(), add_cart()
    shop = run("Async")

    async def work():
        async with AsyncConnectionPool(dsn, open=False) as pool:
            with pytest.raises(psycopg.errors.NotNullViolation):
                await shop["order_and_note"](pool, request_of(cart), None)
            assert rows() == (0, 0)
            assert (await shop["order_and_note"](pool, request_of(cart), "ring")).replayed is False
            assert (await shop["order"](pool, request_of(other))).replayed is False

    asyncio.run(work())
    assert rows() == (4, 1)


def test_django(dsn, add_cart, rows):
    from django.db.utils import IntegrityError as DjangoIntegrityError

    cart = add_cart()
    shop = run("Django", DeliveryNote=DjangoNote)
    before = dict(django_connection.settings_dict)
    parts = conninfo_to_dict(dsn)
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    django_connection.settings_dict.update({name: parts[part] for name, part in names.items() if part in parts})
    try:
        with pytest.raises(DjangoIntegrityError):
            shop["order_and_note"](request_of(cart), None)
        assert rows() == (0, 0)
        assert shop["order_and_note"](request_of(cart), "ring").replayed is False
    finally:
        django_connection.close()
        django_connection.settings_dict.update(before)
    assert rows() == (2, 1)


def test_sqlalchemy(dsn, add_cart, rows):
    cart = add_cart()
    shop = run("SQLAlchemy", DeliveryNote=Note)
    engine = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))

    with pytest.raises(IntegrityError), Session(engine) as session, session.begin():
        shop["order_and_note"](session, request_of(cart), None)
    assert rows() == (0, 0)
    with Session(engine) as session, session.begin():
        shop["order_and_note"](session, request_of(cart), "ring")
        assert rows() == (0, 0)
    engine.dispose()
    assert rows() == (2, 1)


def test_sqlalchemy_async(dsn, add_cart, rows):
    cart = add_cart()
    shop = run("SQLAlchemy", DeliveryNote=Note)

    async def work():
        engine = create_async_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
        with pytest.raises(IntegrityError):
            async with AsyncSession(engine) as session, session.begin():
                await shop["order_and_note_async"](session, request_of(cart), None)
        assert rows() == (0, 0)
        async with AsyncSession(engine) as session, session.begin():
            await shop["order_and_note_async"](session, request_of(cart), "ring")
            assert rows() == (0, 0)
        await engine.dispose()

    asyncio.run(work())
    assert rows() == (2, 1)


def test_flask(dsn, add_cart):
    cart = add_cart()
    shop = run("Flask", dsn=dsn, buyer_of=lambda request: cart.buyer_store_id, __name__="shop")
    client = shop["app"].test_client()

    with shop["pool"]:
        first, again = (client.post("/checkout", json=body(cart), headers={"Idempotency-Key": "k1"}) for _ in range(2))
        refused = client.post("/checkout", json=body(cart))

    assert (first.status_code, again.status_code, refused.status_code) == (201, 200, 422)
    assert first.json == again.json
    assert refused.json == {"code": "invalid_request"}
    assert len(first.json["orders"]) == 2


def test_fastapi(dsn, add_cart):
    cart = add_cart()
    shop = run("FastAPI", dsn=dsn, stores_by_token={"a-token": cart.buyer_store_id})

    with serving(shop["app"]) as url:
        post = lambda token: httpx.post(f"{url}/checkout", json=body(cart), headers=headers(token, "k1"))  # noqa: E731
        answers = [post("a-token"), post("a-token"), post("another")]

    assert [answer.status_code for answer in answers] == [201, 200, 401]


TRACED = """
import sys
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
trace.set_tracer_provider(TracerProvider())
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(spans))
{recipe}
import psycopg, pycheckout
from psycopg_pool import ConnectionPool
from factories import ADDRESS

dsn, buyer, cart = sys.argv[1:]
with ConnectionPool(dsn, open=True) as pool:
    for conn in (pool, psycopg.connect(dsn)):
        with trace.get_tracer("shop").start_as_current_span("buy"):
            pycheckout.execute(
                conn, buyer_store_id=buyer, cart_id=cart, idempotency_key="a-key-to-keep",
                shipping_address=ADDRESS, payment_method="ach",
            )
        [seen, buy] = [span for span in spans.get_finished_spans() if span.name != "ping"]
        assert seen.parent.span_id == buy.context.span_id
        told = str(dict(seen.attributes))
        assert "checkout_execute" in told, told
        assert "a-key-to-keep" not in told and ADDRESS["line1"] not in told, told
        spans.clear()
print("seen")
"""


def test_opentelemetry_sees_the_statement_and_no_argument(dsn, add_cart):
    cart = add_cart()
    program = TRACED.format(recipe=recipe("Logs and traces"))
    env = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    command = [sys.executable, "-c", program, dsn, str(cart.buyer_store_id), str(cart.id)]

    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)

    assert (done.returncode, done.stdout) == (0, "seen\n"), done.stderr


# The plugin


# The plugin begins with a database that is migrated already.
FROM_A_MIGRATED_ONE = """
import functools
import pycheckout.testing as plugin

plugin._database = functools.partial(plugin._database, template={!r})
"""


@pytest.fixture
def run_pytest(server, migrated, tmp_path):
    """run_pytest(source): a service's test file under pytest, in a process of its own, which has the plugin alone."""
    conftest = FROM_A_MIGRATED_ONE.format(migrated.template_dbname)
    (tmp_path / "conftest.py").write_text(conftest, encoding="utf-8")

    def start(source, *options, **env):
        (tmp_path / "test_service.py").write_text(source, encoding="utf-8")
        known = {"PYCHECKOUT_TEST_DATABASE_URL": server.dsn(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        env = os.environ | known | {"PYTHONPATH": str(ROOT)} | env
        env.pop("PYTEST_XDIST_WORKER", None)
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
        command += ["-p", "pycheckout.testing", *options, str(tmp_path)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, cwd=tmp_path, env=env, stdin=pipe, stdout=pipe, stderr=pipe, text=True)

    def run_pytest(source, *options, **env):
        process = start(source, *options, **env)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(process.args, process.returncode, output, errors)

    run_pytest.start = start
    return run_pytest


def databases(server):
    """Those of the plugin."""
    with psycopg.connect(server.dsn()) as conn:
        return set(values(conn, "select datname from pg_database where starts_with(datname, 'pycheckout_service_')"))


def test_the_plugin_as_shown(tmp_path):
    """With nothing else named: it starts a server, and migrates an empty database."""
    (tmp_path / "test_service.py").write_text(recipe("Test it"), encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    env.pop("PYCHECKOUT_TEST_DATABASE_URL", None)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tmp_path, tmp_path]

    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


ISOLATED = """
import psycopg, pycheckout, pytest

@pytest.mark.parametrize("n", [1, 2])
def test_each_test_has_a_database_of_its_own(n, pycheckout_dsn, pycheckout_cart):
    cart = pycheckout_cart(vendors=2, lines=1, quantity=3, unit_price_cents=50, stock=2 + n)
    with psycopg.connect(pycheckout_dsn) as conn:
        assert conn.execute("select count(*) from cart_records").fetchone() == (1,)
        result = pycheckout.execute(conn, **cart.request(payment_method="cash"))
    assert result.totals.quoted.total_cents == cart.total_cents == 300
    assert result.outcome == "complete" and result.payment_method == "cash"
    assert {order.vendor_store_id for order in result.vendor_orders} == set(cart.vendor_store_ids)

def test_a_service_that_breaks_an_invariant_is_told(pycheckout_dsn, pycheckout_cart):
    cart = pycheckout_cart()
    with psycopg.connect(pycheckout_dsn) as conn:
        pycheckout.execute(conn, **cart.request())
        conn.execute("update inventory_items set reserved_qty = 0 where product_id = %s", [cart.product_ids[0]])
"""


OF_A_HOST = """
import asyncio
from uuid import UUID, uuid4
import psycopg, pycheckout, pytest

BUYER, VENDORS, PRODUCTS = uuid4(), [uuid4(), uuid4()], [uuid4() for _ in range(3)]

def orders(pool, cart):
    result = pycheckout.execute(pool, **cart.request())
    assert result.buyer_store_id == cart.buyer_store_id
    assert result.totals.confirmed.total_cents == cart.total_cents
    return {order.vendor_store_id: {line.product_id for line in order.items} for order in result.vendor_orders}

def test_products_are_dealt_out_to_the_vendors(pycheckout_pool, pycheckout_cart):
    cart = pycheckout_cart(buyer=BUYER, vendors=VENDORS, products=PRODUCTS)
    assert orders(pycheckout_pool, cart) == {VENDORS[0]: {PRODUCTS[0], PRODUCTS[2]}, VENDORS[1]: {PRODUCTS[1]}}
    assert (cart.buyer_store_id, cart.vendor_store_ids) == (BUYER, tuple(VENDORS))

def test_a_table_of_products_says_who_sells_them(pycheckout_pool, pycheckout_cart):
    with pycheckout_pool.connection() as conn:
        conn.execute("create table products (id uuid primary key, vendor_id uuid not null)")
        for product, vendor in zip(PRODUCTS, VENDORS + VENDORS[:1]):
            conn.execute("insert into products values (%s, %s)", (product, vendor))
        sold = dict(conn.execute("select id, vendor_id from products").fetchall())
        cart = pycheckout_cart(buyer=str(BUYER), products=sold)
    assert orders(pycheckout_pool, cart) == {VENDORS[0]: {PRODUCTS[0], PRODUCTS[2]}, VENDORS[1]: {PRODUCTS[1]}}
    assert cart.buyer_store_id == BUYER

def test_vendors_alone_may_be_named(pycheckout_pool, pycheckout_cart):
    sold = orders(pycheckout_pool, pycheckout_cart(vendors=[str(VENDORS[0])], lines=3))
    assert [(vendor, len(lines)) for vendor, lines in sold.items()] == [(VENDORS[0], 3)]

def test_what_contradicts_is_refused(pycheckout_cart):
    with pytest.raises(TypeError, match="leave `lines` out"):
        pycheckout_cart(products=PRODUCTS, lines=3)
    with pytest.raises(TypeError, match="leave `vendors` out"):
        pycheckout_cart(products={PRODUCTS[0]: VENDORS[0]}, vendors=1)

def test_stock_may_stay_as_it_is(pycheckout_pool, pycheckout_cart):
    stock = pycheckout.Checkout(pycheckout_pool).stock
    stock.set(PRODUCTS[0], 1)
    cart = pycheckout_cart(vendors=1, products=PRODUCTS[:1], quantity=2, stock=None)
    assert pycheckout.execute(pycheckout_pool, **cart.request()).outcome == "rejected"

def test_the_async_pool(pycheckout_async_pool, pycheckout_cart):
    async def buy():
        async with pycheckout_async_pool as pool:
            return await pycheckout.execute_async(pool, **pycheckout_cart().request())
    assert asyncio.run(buy()).outcome == "complete"

@pytest.fixture
def loop_of_a_host():
    loop, opened = asyncio.new_event_loop(), []
    yield lambda pool: loop.run_until_complete(pool.open()) or opened.append(pool)
    loop.run_until_complete(opened[0].close())
    loop.close()

def test_an_async_pool_that_is_left_open(loop_of_a_host, pycheckout_async_pool):
    loop_of_a_host(pycheckout_async_pool)
"""


PREPARES = """
import psycopg, pytest

@pytest.fixture(scope="session")
def pycheckout_prepare():
    def prepare(dsn):
        with psycopg.connect(dsn) as conn:
            conn.execute("create table {table} ()")
    return prepare

def test_its_table_is_there_alone(pycheckout_dsn):
    with psycopg.connect(pycheckout_dsn) as conn:
        query = "select array_agg(relname::text) from pg_class where relname in ('ones', 'others') and relkind = 'r'"
        assert conn.execute(query).fetchone() == (["{table}"],)
"""


LEAVES_OPEN = """
import psycopg, pytest

@pytest.fixture(scope="session")
def pycheckout_prepare():
    left = []
    yield lambda dsn: left.append(psycopg.connect(dsn, autocommit=True))
    for conn in left:
        conn.close()

def test_it_is_cloned(pycheckout_dsn):
    pass
"""


def test_files_of_one_run_have_what_they_prepare_and_each_test_a_database_that_is_audited(run_pytest, tmp_path, server):
    """A connection that preparing left open, as a pool of SQLAlchemy's does, does not keep tests from running."""
    files = {
        "isolated": ISOLATED,
        "hosts": OF_A_HOST,
        "ones": PREPARES.format(table="ones"),
        "others": PREPARES.format(table="others"),
    }
    for name, source in files.items():
        (tmp_path / f"test_{name}.py").write_text(source, encoding="utf-8")

    done = run_pytest(LEAVES_OPEN)

    assert "13 passed, 2 errors" in done.stdout, done.stdout + done.stderr
    told = re.findall(r"^ERROR test_\w+\.py::(\w+)", done.stdout, re.MULTILINE)
    assert told == ["test_an_async_pool_that_is_left_open", "test_a_service_that_breaks_an_invariant_is_told"]
    assert "pycheckout_async_pool was left open" in done.stdout
    assert "checkout_audit() found broken invariants" in done.stdout
    assert {name for name in databases(server) if "files_of_one_run" in name} == set()


WAITS = """
import sys
import psycopg

def test_waits(pycheckout_dsn):
    with psycopg.connect(pycheckout_dsn) as conn:
        print("here", conn.info.dbname, flush=True)
        sys.stdin.readline()
        assert conn.execute("select 1").fetchone() == (1,)
"""


def until_here(process):
    """The database of a test that waits."""
    for line in process.stdout:
        if line.startswith("here "):
            return line.split()[1]
    raise AssertionError(process.stderr.read())


def test_two_runs_of_one_project_share_a_server_and_a_third_that_was_killed_is_cleared_away(run_pytest, server):
    """Neither drops the other's databases; the second drops what the killed one left behind."""
    killed, first = runs = [run_pytest.start(WAITS, "-s") for _ in range(2)]
    try:
        left, one = until_here(killed), until_here(first)
        killed.kill()
        killed.communicate()
        run = left.rsplit("_", 2)[0]
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            of_the_dead = "select from pg_stat_activity where datname = %s or application_name = %s"
            wait_until(lambda: not conn.execute(of_the_dead, (left, run)).fetchall())
        assert {left, one} <= databases(server)

        second = run_pytest.start(WAITS, "-s")
        runs.append(second)
        other = until_here(second)
        there = databases(server)
        for process in (first, second):
            output, errors = process.communicate("\n", timeout=120)
            assert process.returncode == 0, output + errors
    finally:
        for process in runs:
            process.kill()
            process.communicate()
    assert {name for name in there if name.startswith(run)} == set()
    assert one != other
    assert {one, other} <= there
    assert databases(server) & {one, other} == set()


ALL_AT_ONCE = """
import time
from pathlib import Path
import psycopg, pytest

@pytest.mark.parametrize("n", [1, 2, 3])
def test_all_are_there(n, pycheckout_dsn):
    with psycopg.connect(pycheckout_dsn) as conn:
        here = Path(__file__).with_name("here")
        here.mkdir(exist_ok=True)
        (here / conn.info.dbname).touch()
        deadline = time.monotonic() + 60
        while len(list(here.iterdir())) < 3:
            assert time.monotonic() < deadline, list(here.iterdir())
            time.sleep(0.02)
        assert conn.execute("select count(*) from checkout_ledger").fetchone() != (0,)
"""


def test_workers_of_a_run_and_another_run_share_a_server(run_pytest, server):
    """Three databases of one project, each in use until all three are."""
    several = ["-p", "xdist", "-n", "2", "-k", "1 or 2"]
    runs = [run_pytest.start(ALL_AT_ONCE, *options) for options in (several, ["-k", "3"])]
    try:
        for process in runs:
            output, errors = process.communicate(timeout=120)
            assert process.returncode == 0, output + errors
    finally:
        for process in runs:
            process.kill()
            process.communicate()
    assert {name for name in databases(server) if "workers_of_a_run" in name} == set()


BRINGS_ITS_OWN = """
import pytest

@pytest.fixture(scope="session", params={!r})
def pycheckout_server(request):
    return request.param
"""


@pytest.mark.skipif("TEST_DATABASE_URL" in os.environ, reason="the socket of a server that is named may be elsewhere")
def test_the_plugin_takes_a_server_on_a_socket(run_pytest, tmp_path, server):
    """Whose folder does not go into a URL where a host does."""
    with psycopg.connect(server.dsn()) as conn:
        [folder] = values(conn, "show unix_socket_directories")
    on_a_socket = f"host={folder}&port={server.port}"
    forms = [
        f"postgresql:///postgres?{on_a_socket}&user={server.user}",
        f"host={folder} port={server.port} user={server.user} dbname=postgres",
        f"postgresql+psycopg://{server.user}@/postgres?{on_a_socket}",
    ]
    with (tmp_path / "conftest.py").open("a", encoding="utf-8") as conftest:
        conftest.write(BRINGS_ITS_OWN.format(forms))

    done = run_pytest(recipe("Test it"))

    assert "3 passed" in done.stdout, done.stdout + done.stderr


# What the client must do


def test_the_table_names_every_code_under_its_status():
    table = PAGE.split("# What the client must do")[1].split("## Where")[0]
    told = {
        code: {int(status) for status in statuses.split(",")}
        for statuses, codes in re.findall(r"^\| (\d[\d, ]*) \|([^|]*)\|", table, re.MULTILINE)
        for code in re.findall(r"`(\w+)`", codes)
    }

    kinds = [*pycheckout.CheckoutError.__subclasses__(), pycheckout.ReadOnlyServer]
    from_checkout = {kind.code: kind.http_status for kind in kinds}
    elsewhere = {"migration_failed", "move_refused", "move_doubtful", "move_unfinished"}
    assert set(told) == (set(http_docs.DETAILS) | set(from_checkout) | {"unauthorized", "forbidden"}) - elsewhere
    for code, status in from_checkout.items():
        assert code in elsewhere or told[code] == {status}
    for status, (_, codes) in http_docs._CODES.items():
        assert all(status in told[code] for code in codes)
