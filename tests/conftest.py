"""One migrated template a test process; a clone of it for each test; checkout_audit() at the end of each.

TEST_DATABASE_URL names the server to use, by the URL of a superuser and any database of it. Without it, an embedded
one is started. TEST_SECOND_SERVER leaves out what is the same on every server.
"""

import functools
import gc
import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import clones
import psycopg
import pytest
import sqlparse
from outbox import emit  # noqa: F401  (fixture)
from pgbouncer import Pooler, as_the_way_in, pgbouncer_for, skip_what_needs_a_session
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool
from pytest_postgresql import factories as plugin
from pytest_postgresql.executors import NoopExecutor
from roles import login, new_role  # noqa: F401  (fixtures)
from upgrade import load_legacy

import pycheckout
from factories import add_cart, add_stock, call, checkout, checkout_sql, nothing_written, snapshot  # noqa: F401  (fixtures)
from pycheckout._embedded import bundled_programs, embedded_server

# A shell that runs the suite in the background has it ignore Ctrl-C, and what the tests start would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# yoyo splits every migration anew for each of the hundreds of databases; it changes the list that it is given.
_split = functools.cache(sqlparse.split)
sqlparse.split = lambda text: list(_split(text))

# A mistake in a race test fails instead of hanging.
_OPTIONS = "-c statement_timeout=30s"


# Of files, packages, brokers and clients: what they show does not depend on the server's release.
_SAME_ON_EVERY_SERVER = {
    "test_ads",
    "test_alembic",
    "test_benchmarks",
    "test_calls",
    "test_calls_cut",
    "test_celery",
    "test_cli",
    "test_cli_operations",
    "test_connection_cut",
    "test_conninfo",
    "test_demo",
    "test_deploying",  # of units and routes
    "test_django",
    "test_docs",
    "test_dumps",  # by the programs of the embedded release
    "test_embedded",
    "test_events_asyncapi",
    "test_failover",
    "test_frameworks",
    "test_functions_hash",
    "test_guarantees",
    "test_hostile_calls",
    "test_http",
    "test_http_document",
    "test_http_hook",
    "test_http_orders",
    "test_killed_suite",
    "test_legacy_columns_regression",
    "test_log_callers",
    "test_markets",
    "test_migrate_api",  # what migrations do is in test_migrations_*
    "test_moves",
    "test_overload",
    "test_packaging",
    "test_pgbouncer",
    "test_pgspot",
    "test_quote_classes",
    "test_readme",
    "test_relay",
    "test_release",
    "test_repository",
    "test_router",
    "test_services",
    "test_soak",
    "test_sqlalchemy",
    "test_statements",  # on the wire
    "test_top",
    "test_types",
    "test_upgrades",
    "test_watching",
    "test_wrapper",
    "test_wrapper_async",
    "test_wrapper_transactions",
}

# Cases of one rule each, and what is read of the source. Integers, texts and JSON are computed alike on every release.
# That the functions run there is shown by test_plpgsql_check, each statement of theirs, and by the tests that are left:
# what the server itself does (locks, snapshots, plans, catalogs, DDL, errors, statistics), and each call in a course.
_CASES_OF_A_RULE = {
    "test_ad_tokens",
    "test_audit",
    "test_audit_columns",
    "test_bad_input",
    "test_cart_put",
    "test_cart_truth",
    "test_cart_validation",
    "test_catalogue",
    "test_changes_and_erasure",
    "test_checkout_request",
    "test_fields_of_a_quote",
    "test_hostile_arguments",
    "test_line_items",
    "test_order_changes",
    "test_parts_of_lines",
    "test_payment_intents",
    "test_payment_record",
    "test_real_baskets",
    "test_reservation_outcomes",
    "test_search_path",
    "test_snapshot_immutable",
    "test_stock_changes_once",
    "test_stock_of_many",
    "test_vendor_orders",
    "test_what_a_line_holds",
    "test_what_is_owed",
}

# Their tests share what is dear to make: servers, a site, what was installed. `make test` runs each in one process.
_SHARES = {
    "test_crashes",
    "test_deploying",
    "test_docs",
    "test_dumps",
    "test_failover",
    "test_markets",
    "test_packaging",
    "test_plproxy",
    "test_router",
    "test_runbook",
    "test_services",
    "test_watching",
}


def _shares(item: pytest.Item) -> str | None:
    if "examples" in item.path.parts:
        return "examples"
    if item.path.stem == "test_relay":  # a broker
        return f"relay {item.callspec.params.get('broker')}" if hasattr(item, "callspec") else None
    return item.path.stem if item.path.stem in _SHARES else None


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    same = "TEST_SECOND_SERVER" in os.environ and collection_path.stem in _SAME_ON_EVERY_SERVER | _CASES_OF_A_RULE
    return True if same else None


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Thousands of tests stay until the end: to look for garbage among them each time takes a process a tenth more."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "TEST_PGBOUNCER" in os.environ:
        skip_what_needs_a_session(items)
    for item in items:
        if group := _shares(item):
            item.add_marker(pytest.mark.xdist_group(group))
    # What takes long comes first: at the end the other processes would wait for it.
    items.sort(key=lambda item: not (item.get_closest_marker("xdist_group") or item.path.stem == "test_state_machine"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server under test, with the attributes that pytest-postgresql looks for."""

    host: str
    port: int
    user: str
    password: str | None
    maintenance_dbname: str
    options: str = ""
    template_dbname: None = None

    def dsn(self, dbname: str | None = None) -> str:
        return _url(self.host, self.port, self.user, self.password, dbname or self.maintenance_dbname)


def _url(host: str, port: int, user: str, password: str | None, dbname: str) -> str:
    who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    # A socket's folder stands where a host does, escaped.
    return f"postgresql://{who}@{quote(host, safe='')}:{port}/{quote(dbname, safe='')}"


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    if url := os.environ.get("TEST_DATABASE_URL"):
        # What the URL leaves out comes from libpq's variables and defaults: so ask a connection, not the URL.
        with psycopg.connect(url) as conn:
            info = conn.info
            password = conninfo_to_dict(url).get("password", info.password)
            yield Server(
                host=info.host,
                port=info.port,
                user=info.user,
                password=password,
                maintenance_dbname=info.dbname,
            )
        return
    # Durability is not under test here, and a database comes and goes with each test.
    with embedded_server(in_memory=True, max_connections=200, fsync=False, full_page_writes=False) as embedded:
        yield Server(
            host=embedded.host,
            port=embedded.port,
            user=embedded.user,
            password=embedded.password,
            maintenance_dbname="postgres",
        )


def _migrate(*, host: str, port: int, user: str, dbname: str, password: str | None, autocommit: bool) -> None:
    if ready := os.environ.get("TEST_TEMPLATE"):  # mutants.py has migrated one already
        with psycopg.connect(_url(host, port, user, password, "postgres"), autocommit=True) as admin:
            admin.execute(sql.SQL("alter database {} is_template false").format(sql.Identifier(dbname)))
            clones.make(admin, dbname, ready)
    else:
        pycheckout.migrate(_url(host, port, user, password, dbname))


# A run that was killed leaves its databases behind; the option --postgresql-drop-test-database (pyproject.toml)
# makes the next one replace them.
migrated = plugin.postgresql_noproc(dbname="pycheckout_test", depends_on="server", load=[_migrate])


@pytest.fixture(scope="session")
def _admin(server: Server) -> Iterator[psycopg.Connection]:
    """A connection that makes and drops the databases of the tests."""
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        yield conn


@pytest.fixture
def _clone(
    _admin: psycopg.Connection, migrated: NoopExecutor, server: Server, request: pytest.FixtureRequest
) -> Iterator[str]:
    """The name of this test's own database. Afterwards, checkout_audit() must find nothing."""
    name = migrated.dbname
    clones.make(_admin, name, migrated.template_dbname)
    yield name
    if request.node.get_closest_marker("breaks_invariants") is None:
        with psycopg.connect(server.dsn(name), options=_OPTIONS, row_factory=dict_row) as conn:
            broken = conn.execute("select * from checkout_audit()").fetchall()
        assert broken == [], "checkout_audit() found broken invariants"
    clones.drop(_admin, name)


@pytest.fixture
def postgresql(_clone: str, server: Server) -> Iterator[psycopg.Connection]:
    """A connection to this test's own database, autocommit off."""
    with closing(psycopg.connect(server.dsn(_clone))) as conn:
        yield conn


@pytest.fixture(scope="session")
def pooler(server: Server) -> Iterator[Pooler | None]:
    """The pgbouncer between the tests and the server, where TEST_PGBOUNCER asks for one (see pgbouncer.py)."""
    if not (prepare := os.environ.get("TEST_PGBOUNCER")):
        yield None
        return
    with pgbouncer_for(server) as pooler, as_the_way_in(pooler, prepare=prepare == "on"):
        yield pooler


@pytest.fixture
def dsn(_clone: str, server: Server, pooler: Pooler | None) -> str:
    """How to reach this test's database."""
    if pooler is None:
        return server.dsn(_clone)
    pooler.fill(_clone)
    return pooler.dsn(_clone)


@pytest.fixture
def connect(dsn: str) -> Iterator[Callable[..., psycopg.Connection]]:
    """connect(autocommit=False, ...): one more connection to this test's database, closed at the end."""
    with ExitStack() as stack:

        def connect(**kwargs: Any) -> psycopg.Connection:
            conn = psycopg.connect(dsn, **({"options": _OPTIONS} | kwargs))
            stack.callback(conn.close)
            return conn

        yield connect


@pytest.fixture
def db(connect: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """A connection to this test's database, autocommit on."""
    return connect(autocommit=True)


@pytest.fixture
def pool(dsn: str) -> Iterator[ConnectionPool]:
    with ConnectionPool(dsn, kwargs={"options": _OPTIONS}, min_size=1, max_size=16, timeout=10, open=True) as pool:
        yield pool


@pytest.fixture
def proxy(dsn: str) -> Iterator[Any]:
    """A proxy in front of the server that cuts connections where it is told to; all its cuts are made at the end."""
    from proxy import proxy_to

    address = conninfo_to_dict(dsn)
    if address["host"].startswith("/"):
        pytest.skip("the server is reached by a socket, and the proxy speaks TCP")
    with proxy_to(address["host"], int(address["port"])) as proxy:
        yield proxy
        assert proxy.pending == 0, "the test ended before all its cuts were made"


@pytest.fixture
def attempts(caplog: pytest.LogCaptureFixture) -> Callable[[], int]:
    """attempts(): how many attempts the last call of the wrapper made."""
    caplog.set_level(logging.INFO, logger="pycheckout")
    return lambda: caplog.records[-1].attempts  # type: ignore[attr-defined]


@pytest.fixture
def brief_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is tried again, not of how long it waits."""
    monkeypatch.setattr(pycheckout._connection, "_BACKOFF", 0.005)


@pytest.fixture(scope="session")
def _shapes(_admin: psycopg.Connection, server: Server, worker_id: str) -> Iterator[Callable[[str, bool], str]]:
    """The name of a database of that shape, migrated or not, to be cloned; made once a test process."""
    with ExitStack() as stack:

        @functools.cache
        def shape_of(shape: str, migrated: bool) -> str:
            name = f"pycheckout_{shape}{'_migrated' if migrated else ''}_{worker_id}"
            clones.make(_admin, name, shape_of(shape, False) if migrated else "template0")
            stack.callback(clones.drop, _admin, name)
            if migrated:
                pycheckout.migrate(server.dsn(name))
            elif shape != "fresh":
                load_legacy(server.dsn(name), shape)
            return name

        yield shape_of


@pytest.fixture
def database(
    _admin: psycopg.Connection, server: Server, worker_id: str, _shapes: Callable[[str, bool], str]
) -> Iterator[Callable[..., str]]:
    """database("net"): the URL of a database of the earlier system, or of an empty one ("fresh"), dropped at the end.

    database("net", migrated=True): as pycheckout.migrate() leaves it.
    """
    names: list[str] = []

    def database(shape: str = "fresh", *, migrated: bool = False) -> str:
        name = f"pycheckout_copy_{worker_id}_{len(names) + 1}"
        clones.make(_admin, name, _shapes(shape, migrated))
        names.append(name)
        return server.dsn(name)

    yield database
    for name in names:
        clones.drop(_admin, name)


@pytest.fixture
def empty_database(database: Callable[..., str]) -> Callable[[], str]:
    """empty_database(): the URL of a database that holds nothing yet, dropped at the end."""
    return database


@pytest.fixture(scope="session")
def program() -> Callable[[str], str]:
    """program("pg_dump"): the path of a PostgreSQL client program, the bundled one or that of the PATH."""

    def program(name: str) -> str:
        try:
            bundled = bundled_programs() / name
        except RuntimeError:
            bundled = Path(name)
        path = bundled if bundled.is_file() else shutil.which(name)
        if path is None:
            pytest.skip(f"no {name} on this machine")
        return str(path)

    return program


@pytest.fixture
def psql(program: Callable[[str], str], dsn: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """psql("-c", "select 1") or psql(stdin="select 1;"): the real psql on this test's database, ~/.psqlrc unread."""

    def psql(*args: str, stdin: str = "", dsn: str = dsn) -> subprocess.CompletedProcess[str]:
        command = [program("psql"), "--no-psqlrc", "--dbname", dsn, *args]
        env = os.environ | {"PGOPTIONS": _OPTIONS, "PGCLIENTENCODING": "UTF8", "PSQL_PAGER": "", "LC_ALL": "C"}
        return subprocess.run(
            command, input=stdin, env=env, capture_output=True, encoding="utf-8", timeout=60, check=False
        )

    return psql


@pytest.fixture
def plpgsql_check(db: psycopg.Connection) -> psycopg.Connection:
    """The autocommit connection with the extension plpgsql_check; a skip where the server has none."""
    [(available,)] = db.execute("select exists (select from pg_available_extensions where name = 'plpgsql_check')")
    if not available:
        # CI installs it and sets this, so that it cannot be skipped there unseen.
        (pytest.fail if os.environ.get("REQUIRE_PLPGSQL_CHECK") else pytest.skip)("the server has no plpgsql_check")
    db.execute("create schema plpgsql_check")
    db.execute("create extension plpgsql_check schema plpgsql_check")
    return db
