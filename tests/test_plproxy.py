"""One address for several markets, by PL/Proxy of Debian's PostgreSQL: two servers, four markets, one proxy."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from quoted import quoted

import pycheckout
from docs_site import plproxy
from pycheckout import Checkout
from pycheckout._embedded import _free_port
from pycheckout._errors import translated

BINS = sorted(Path("/usr/lib/postgresql").glob("*/lib/plproxy.so"))
HOME = {"ok": "a", "tx": "a", "ca": "b", "ny": "b"}
SCHEMA = {"ok": "market_1", "tx": "market_2", "ca": "market_1", "ny": "market_2"}  # the second server is a copy

needs_plproxy = pytest.mark.skipif(not BINS, reason="Debian's package postgresql-NN-plproxy is not installed")


@dataclass
class Server:
    bin: Path
    folder: Path
    port: int

    def dsn(self, dbname: str = "postgres", **more: object) -> str:
        where = {"host": "127.0.0.1", "port": self.port, "user": "postgres", "dbname": dbname}
        return make_conninfo(**(where | more))

    def pg_ctl(self, *command: str) -> None:
        run(self.bin / "pg_ctl", "-D", self.folder / "data", "-w", "-s", "-l", self.folder / "log", *command)


def run(*command: object) -> None:
    who = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    subprocess.run(
        [str(each) for each in command], check=True, cwd="/", stdin=subprocess.DEVNULL, capture_output=True, **who
    )


@contextmanager
def a_server(folder: Path, like: Server | None = None) -> Iterator[Server]:
    """A new one, or one with the data of another, which stands still meanwhile."""
    server = Server(BINS[-1].parents[1] / "bin", folder, _free_port())
    folder.mkdir()
    if os.geteuid() == 0:
        shutil.chown(folder, "nobody", "nogroup")
    if like is None:
        made = ["-U", "postgres", "--auth=trust", "--locale=C", "--no-sync", "-E", "UTF8"]
        run(server.bin / "initdb", "-D", folder / "data", *made)
    else:
        like.pg_ctl("stop")
        run("cp", "-a", like.folder / "data", folder / "data")
        like.pg_ctl("start")
    with (folder / "data" / "postgresql.conf").open("a") as settings:
        settings.write(
            f"port = {server.port}\nlisten_addresses = '127.0.0.1'\nfsync = off\nunix_socket_directories = ''\n"
        )
    server.pg_ctl("start")
    try:
        yield server
    finally:
        server.pg_ctl("-m", "immediate", "stop")


@dataclass
class Fleet:
    servers: dict[str, Server]
    proxy: psycopg.Connection

    def market(self, name: str) -> Checkout:
        server = self.servers[HOME[name]]
        conn = psycopg.connect(server.dsn(), autocommit=True)
        return Checkout(conn, schema=SCHEMA[name])


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    folder = Path("/tmp") / f"pycheckout-plproxy-{uuid4().hex[:8]}"
    folder.mkdir(mode=0o755)
    try:
        with ExitStack() as stack:
            a = stack.enter_context(a_server(folder / "a"))
            for schema in sorted({*SCHEMA.values()}):
                pycheckout.migrate(a.dsn(), schema=schema, create_schema=True)
            servers = {"a": a, "b": stack.enter_context(a_server(folder / "b", like=a))}
            with psycopg.connect(servers["a"].dsn(), autocommit=True) as admin:
                admin.execute("create database proxy")
            proxy = stack.enter_context(psycopg.connect(servers["a"].dsn("proxy"), autocommit=True))
            proxy.execute(plproxy.FILE.read_text(encoding="utf-8"))
            for market, server in HOME.items():
                where = servers[server].dsn(user=None, options=f"-c search_path={SCHEMA[market]},pg_temp")
                proxy.execute("insert into api.market_directory (market, conn) values (%s, %s)", (market, where))
            yield Fleet(servers, proxy)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


CALL = """
select api.checkout_execute(%(market)s, buyer_store_id => %(buyer_store_id)s, cart_id => %(cart_id)s,
  idempotency_key => %(idempotency_key)s, shipping_address => %(shipping_address)s::jsonb,
  payment_method => %(payment_method)s)
"""


def order(conn, market, cart):
    request = {name: str(value) for name, value in cart.request().items()}
    request["shipping_address"] = json.dumps(cart.request()["shipping_address"])
    return conn.execute(CALL, {"market": market, **request}).fetchone()[0]


def test_the_file_is_that_of_the_api(db):
    assert plproxy.FILE.read_text(encoding="utf-8") == plproxy.written(db), "make docs-reference writes it anew"


@needs_plproxy
@pytest.mark.parametrize("market", HOME)
def test_a_call_goes_to_its_market_and_replays(fleet, market):
    cart = quoted(fleet.market(market))
    assert [order(fleet.proxy, market, cart)["replayed"] for _ in range(2)] == [False, True]
    assert fleet.market(market).result(buyer_store_id=cart.buyer_store_id, cart_id=cart.id).outcome == "complete"


@needs_plproxy
def test_every_function_is_found_at_the_market(fleet):
    """Each with nulls: whatever it says of them, it is the market that says it."""
    functions = fleet.proxy.execute(
        "select proname, pronargs from pg_proc where pronamespace = 'api'::regnamespace"
        " and prolang = (select oid from pg_language where lanname = 'plproxy') order by 1"
    ).fetchall()
    assert len(functions) > 30
    for name, arguments in functions:
        try:
            fleet.proxy.execute(f"select * from api.{name}('ny'{', null' * (arguments - 1)})")
        except psycopg.Error as error:
            assert error.sqlstate[:2] == "OC", (name, error)


@needs_plproxy
def test_an_error_of_the_market_is_the_same_error_here(fleet):
    with pytest.raises(psycopg.Error) as caught:
        fleet.proxy.execute("select api.checkout_result('ca', %s, %s)", (uuid4(), cart := uuid4()))
    error = translated(caught.value)
    assert isinstance(error, pycheckout.CartNotFound)
    assert error.detail == {"cart_id": str(cart)}
    assert error.hint.startswith("Check the cart id")
    assert error.message.startswith("buyer ")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="there is no market 'xx'"):
        fleet.proxy.execute("select api.checkout_version('xx')")


@needs_plproxy
def test_a_checkout_through_the_proxy_commits_by_itself(fleet):
    cart = quoted(fleet.market("tx"))
    with psycopg.connect(fleet.servers["a"].dsn("proxy")) as conn:
        order(conn, "tx", cart)
        conn.rollback()
    assert fleet.market("tx").result(buyer_store_id=cart.buyer_store_id, cart_id=cart.id).outcome == "complete"


@needs_plproxy
def test_a_role_has_what_it_was_granted_here_and_there(fleet):
    for server in fleet.servers.values():
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            conn.execute("create role caller login")
    with psycopg.connect(fleet.servers["a"].dsn("proxy", user="caller"), autocommit=True) as caller:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.execute("select api.checkout_version('ok')")
        fleet.proxy.execute("grant usage on schema api, plproxy to caller")
        fleet.proxy.execute("grant execute on function api.checkout_version(text) to caller")
        with pytest.raises(psycopg.errors.UndefinedFunction):
            caller.execute("select api.checkout_version('ok')")  # nothing is granted at the market
        with psycopg.connect(fleet.servers["a"].dsn(options=f"-c search_path={SCHEMA['ok']}"), autocommit=True) as conn:
            conn.execute("select checkout_grant('caller')")
        assert caller.execute("select api.checkout_version('ok')").fetchone()[0]["version"]
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            caller.execute("select * from api.market_directory")


@needs_plproxy
def test_a_market_that_moved_is_followed_and_a_server_that_died_is_unavailable(fleet):
    carts = [quoted(fleet.market(market)) for market in ("ca", "ok")]
    order(fleet.proxy, "ca", carts[0])
    [[there]] = fleet.proxy.execute("select conn from api.market_directory where market = 'ny'").fetchall()
    move = "update api.market_directory set conn = %s, version = version + 1 where market = 'ca'"
    [[before]] = fleet.proxy.execute("select conn from api.market_directory where market = 'ca'").fetchall()
    fleet.proxy.execute(move, (there,))
    with pytest.raises(psycopg.Error) as caught:  # ny knows nothing of it
        fleet.proxy.execute("select api.checkout_result('ca', %s, %s)", (carts[0].buyer_store_id, carts[0].id))
    assert caught.value.sqlstate == "OC001"
    fleet.proxy.execute(move, (before,))
    assert order(fleet.proxy, "ca", carts[0])["replayed"]

    fleet.servers["b"].pg_ctl("-m", "immediate", "stop")
    try:
        for _ in range(2):  # the session that was open, and one that cannot be
            with pytest.raises(psycopg.Error) as caught:
                order(fleet.proxy, "ca", carts[0])
            assert isinstance(translated(caught.value), pycheckout.Unavailable), caught.value
        assert not order(fleet.proxy, "ok", carts[1])["replayed"]
    finally:
        fleet.servers["b"].pg_ctl("start")
    assert order(fleet.proxy, "ca", carts[0])["replayed"]
