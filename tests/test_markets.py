"""Several markets on two servers: the map, the calls, the command line, and a server that says nothing."""

import asyncio
import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from brokers import running
from command import begun, run_command
from fastapi import Depends, FastAPI, Header
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql
from psycopg.rows import dict_row
from quoted import quoted

from checks import values
from factories import ADDRESS
from pycheckout import AsyncCheckout, Checkout, Unavailable, UnknownMarket
from pycheckout._conninfo import in_schema
from pycheckout._embedded import _free_port, embedded_server
from pycheckout.http import checkout_router
from pycheckout.markets import Markets
from races import wait_until
from web import serving

HOME = {"ok": "a", "tx": "a", "ca": "b"}


@dataclass(frozen=True)
class Fleet:
    """Two servers and three markets, with a map of them."""

    databases: dict[str, str]
    path: Path
    migrated: subprocess.CompletedProcess[str]

    def connect(self, market: str) -> psycopg.Connection:
        """A session that finds the market's tables without naming its schema."""
        return psycopg.connect(self.databases[HOME[market]], options=f"-c search_path=market_{market}", autocommit=True)


def written(path: Path, databases: dict[str, str], markets: dict[str, str], pool: str = "") -> Path:
    text = [f"[pool]\n{pool}"]
    text += [f'[server.{name}]\ndatabase = "{database}"' for name, database in databases.items()]
    text += [f'[market.{name}]\nserver = "{server}"\nschema = "market_{name}"' for name, server in markets.items()]
    path.write_text("\n".join(text) + "\n")
    return path


@pytest.fixture(scope="module")
def fleet(server, tmp_path_factory, worker_id) -> Iterator[Fleet]:
    name = f"pycheckout_markets_{worker_id}"
    with embedded_server(fsync=False, in_memory=True) as other, psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        databases = {"a": server.dsn(name), "b": other.dsn()}
        path = written(tmp_path_factory.mktemp("map") / "markets.toml", databases, HOME)
        migrated = run_command("migrate", "--all-markets", "--create-schema", "--markets", str(path))
        yield Fleet(databases, path, migrated)
        admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@dataclass(frozen=True)
class Silent:
    """A server that takes connections and never says a word, until it goes away; and a map that has it."""

    listener: socket.socket
    path: Path

    def go_away(self) -> None:
        self.listener.close()


@pytest.fixture
def silent(fleet, tmp_path) -> Iterator[Silent]:
    """Of one more market, the first by its name."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
        database = f"postgresql://shop@127.0.0.1:{port}/shop?connect_timeout=100&sslmode=disable"
        path = written(tmp_path / "markets.toml", fleet.databases | {"c": database}, {"away": "c"} | HOME)
        yield Silent(listener, path)


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


# The calls


def test_one_call_installed_every_market(fleet):
    assert fleet.migrated.returncode == 0, fleet.migrated.stderr
    for market in HOME:
        assert f"market {market}: schema market_{market} has pycheckout " in fleet.migrated.stdout


def test_each_market_sells_its_own_and_no_search_path_counts(fleet):
    carts = {}
    for market in HOME:
        with fleet.connect(market) as conn:
            carts[market] = quoted(Checkout(conn))
    with Markets.load(fleet.path) as markets:
        assert list(markets) == ["ca", "ok", "tx"]
        for market, cart in carts.items():
            answer = markets[market].execute(**cart.request() | {"idempotency_key": "one-key"})
            assert (answer.outcome, answer.replayed) == ("complete", False)
            assert isinstance(markets[market], Checkout) and markets[market] is markets[market]
            assert markets[market].orders.list(buyer_store_id=cart.buyer_store_id).orders
    for market, cart in carts.items():
        with fleet.connect(market) as conn:
            assert values(conn, "select cart_id from checkout_requests where idempotency_key = 'one-key'") == [cart.id]


def test_an_event_loop_has_the_same_markets(fleet):
    with fleet.connect("ok") as conn:
        cart = quoted(Checkout(conn))

    async def order():
        markets = Markets.load(fleet.path)
        async with markets.async_:
            assert isinstance(markets.async_["ok"], AsyncCheckout)
            both = [markets.async_["ok"].execute(**cart.request(), timeout=20) for _ in range(2)]
            return await asyncio.gather(*both)

    assert sorted(answer.replayed for answer in asyncio.run(order())) == [False, True]


def test_markets_of_a_server_share_a_pool_up_to_a_number(fleet, tmp_path):
    apart = written(
        tmp_path / "markets.toml", fleet.databases, HOME, "share_up_to = 1\nmax_lifetime = 60\nprepared_max = 7"
    )
    with Markets.load(fleet.path) as together, Markets.load(apart) as alone:
        assert together["ok"]._conn.pool is together["tx"]._conn.pool is not together["ca"]._conn.pool
        assert alone["ok"]._conn.pool is not alone["tx"]._conn.pool
        assert (together["ok"]._conn.pool.max_lifetime, alone["ok"]._conn.pool.max_lifetime) == (1800, 60)
        with together["ok"]._conn.connection() as one, alone["ok"]._conn.connection() as other:
            assert (one.prepared_max, other.prepared_max) == (100, 7)
            assert one.info.get_parameters()["tcp_user_timeout"] == "25000"


def test_a_pool_is_made_with_the_first_call_and_one_server_away_is_no_other_ones_matter(silent):
    with Markets.load(silent.path) as markets:
        assert markets._pools == {}
        buyer = "b0000000-0000-4000-8000-00000000abcd"
        assert markets["ok"].orders.list(buyer_store_id=buyer).orders == ()
        with pytest.raises(Unavailable):
            markets["away"].orders.list(buyer_store_id=buyer, timeout=0.5)
        assert markets["ca"].orders.list(buyer_store_id=buyer).orders == ()
        silent.go_away()  # or the pool would wait for the connection that it makes


def test_a_market_that_is_not_in_the_map_is_a_typed_error(fleet):
    markets = Markets.load(fleet.path)
    for look in (markets.__getitem__, markets.async_.__getitem__, markets.where):
        with pytest.raises(UnknownMarket, match="there is no market 'xx'") as caught:
            look("xx")
        assert (caught.value.code, caught.value.hint) == ("unknown_market", "Those of the map are: ca, ok, tx.")
    assert "xx" not in markets and "ok" in markets and len(markets) == 3


GOOD = '[server.a]\ndatabase = "host=db password=s3cret"\n[market.ok]\nserver = "a"\nschema = "market_ok"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no [market.NAME]"),
        ("[server", "markets.toml: "),
        (GOOD.replace('server = "a"', 'server = "z"'), "[market.ok] server: there is no [server.z]"),
        (GOOD.replace('schema = "market_ok"', ""), "[market.ok] schema: must be a text"),
        (GOOD.replace("schema =", "shema ="), "[market.ok] has no 'shema'"),
        (GOOD.replace("host=db", "hots=db"), "[server.a] database: not a libpq URL"),
        (GOOD + '[market.tx]\nserver = "a"\nschema = "market_ok"', "[market.tx] is in the schema of [market.ok]"),
        (GOOD + "[pool]\nmax_size = 0", "[pool] max_size: must be a number of 1 or more"),
        (GOOD + '[pool]\ntimeout = "5s"', "[pool] timeout: must be a number"),
        (GOOD + "[pool]\ntimeout = inf", "[pool] timeout: must be a year of seconds or less"),
        (GOOD + "[pool]\nmax_lifetime = 1e300", "[pool] max_lifetime: must be a year of seconds or less"),
        (GOOD + "[pools]\n", "the file has no 'pools'"),
        ("market = 3", "market must be a table"),
        ("[market]\nok = 3", "[market.ok] must be a table"),
        ("pool = 3\n" + GOOD, "[pool] must be a table"),
    ],
)
def test_a_file_that_is_no_map_says_what_is_wrong_and_no_password(tmp_path, text, said):
    path = tmp_path / "markets.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match="markets") as caught:
        Markets.load(path)
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_file_is_named_by_an_argument_or_the_variable(fleet, monkeypatch):
    monkeypatch.delenv("PYCHECKOUT_MARKETS", raising=False)
    with pytest.raises(ValueError, match="PYCHECKOUT_MARKETS"):
        Markets.load()
    monkeypatch.setenv("PYCHECKOUT_MARKETS", str(fleet.path))
    assert "ok" in Markets.load()


@pytest.mark.parametrize("kind", ["async", "sync"])
def test_a_router_takes_the_market_of_the_request(fleet, kind):
    with fleet.connect("ca") as conn:
        cart = quoted(Checkout(conn))
        conn.execute("create table if not exists noted (cart_id uuid)")
    markets = Markets.load(fleet.path)
    app = FastAPI()

    def market(market: str = Header()):
        return (markets.async_ if kind == "async" else markets)[market]

    def noted(conn, result):
        conn.execute("insert into market_ca.noted values (%s)", (result.cart_id,))

    async def noted_async(conn, result):
        await conn.execute("insert into market_ca.noted values (%s)", (result.cart_id,))

    hook = noted_async if kind == "async" else noted
    router = checkout_router(buyer=lambda: cart.buyer_store_id, market=market, on_checkout=hook)
    app.include_router(router)
    with serving(app) as url, httpx.Client(base_url=url, timeout=30) as http:
        asked = {"cart_id": str(cart.id), "shipping_address": ADDRESS, "payment_method": "ach"}
        ordered = http.post("/checkout", json=asked, headers={"Idempotency-Key": "k", "market": "ca"})
        read = [http.get(f"/checkout/{cart.id}", headers={"market": name}) for name in ("ca", "ok", "xx")]
    markets.close()

    assert ordered.status_code == 201, ordered.text
    assert [answer.status_code for answer in read] == [200, 404, 404]
    assert [answer.json()["code"] for answer in read[1:]] == ["cart_not_found", "unknown_market"]
    with fleet.connect("ca") as conn:
        assert values(conn, "select cart_id from noted where cart_id = %s", cart.id) == [cart.id]


def test_a_router_is_given_a_pool_or_a_market(pool):
    for given in ({}, {"pool": pool, "market": Depends}):
        with pytest.raises(TypeError, match="pool or market"):
            checkout_router(buyer=lambda: None, **given)
    with pytest.raises(TypeError, match="has its schema"):
        checkout_router(buyer=lambda: None, market=Depends, schema="checkout")


# The command line


def test_a_command_works_in_a_market_that_is_named(fleet):
    with fleet.connect("tx") as conn:
        cart = quoted(Checkout(conn))
    env = {"PYCHECKOUT_MARKETS": str(fleet.path)}
    request = ["--buyer", str(cart.buyer_store_id), "--cart", str(cart.id), "--key", "k", "--payment-method", "ach"]
    address = json.dumps(cart.request()["shipping_address"])

    done = run_command("execute", "--market", "tx", *request, "--address", address, "--json", env=env)
    shown = [run_command("show", str(cart.id), "--json", "--market", name, env=env) for name in ("tx", "ok")]

    assert done.returncode == 0, done.stderr
    assert [each.returncode for each in shown] == [0, 1]
    assert json.loads(shown[0].stdout)["outcome"] == "complete"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--market", "xx"], "there is no market 'xx'"),
        (["--market", "ok", "--schema", "public"], "a market has its own database and schema"),
        (["--market", "ok", "--database", "host=x"], "a market has its own database and schema"),
        (["--market", "ok", "--all-markets"], "and not both"),
        (["--all-markets", "--markets", "/nowhere"], "No such file"),
    ],
)
def test_a_market_that_cannot_be_meant_is_wrong_usage(fleet, options, said):
    refused = run_command("doctor", *options, env={"PYCHECKOUT_MARKETS": str(fleet.path)})
    assert refused.returncode == 2, refused.stderr
    assert said in " ".join(refused.stderr.replace("│", " ").split()), "in lines, in a frame"


def test_a_migration_of_all_stops_at_the_first_failure_and_says_what_is_where(fleet, tmp_path):
    gone = fleet.databases["a"].rpartition("/")[0] + "/gone"
    path = written(tmp_path / "markets.toml", fleet.databases | {"c": gone}, HOME | {"nowhere": "c"})

    stopped = run_command("migrate", "--all-markets", "--markets", str(path))

    assert stopped.returncode != 0
    assert [line.split(":")[0] for line in stopped.stdout.splitlines()] == ["market ca"]
    assert stopped.stderr.startswith("pycheckout: market nowhere: ")
    assert stopped.stderr.splitlines()[-2:] == ["done before it: ca", "not begun: ok, tx"]


def test_a_plan_of_all_changes_nothing_and_answers_for_each(fleet):
    planned = run_command("migrate", "--all-markets", "--plan", "--json", "--markets", str(fleet.path))
    assert planned.returncode == 0, planned.stderr
    assert [(each["market"], each["schema"], each["pending"]) for each in lines(planned.stdout)] == [
        (name, f"market_{name}", []) for name in sorted(HOME)
    ]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["audit"], 0),
        (["expire"], 3),
        (["purge", "keys", "--older-than", "90 days"], 3),
    ],
)
def test_a_server_that_says_nothing_holds_no_other_market_up(silent, command, said):
    with begun(*command, "--all-markets", "--json", "--markets", str(silent.path)) as process:
        told = [json.loads(process.line(number)) for number in range(said)]
        silent.go_away()
        printed, complained = process.communicate(timeout=60)

    assert (process.returncode, lines(printed)) == (4, told), complained
    assert {each["market"] for each in told} == (set(HOME) if said else set())
    assert json.loads(complained)["error"]["market"] == "away"


def test_the_doctor_answers_for_each_market_and_the_worst_counts(fleet, silent):
    silent.go_away()
    with fleet.connect("ok") as conn:
        conn.execute("alter function market_ok.cart_raise_inconsistent rename to nobody_knows")
    try:
        found = run_command("doctor", "--all-markets", "--json", "--markets", str(silent.path))
    finally:
        with fleet.connect("ok") as conn:
            conn.execute("alter function market_ok.nobody_knows rename to cart_raise_inconsistent")

    assert found.returncode == 1
    assert {each["market"] for each in lines(found.stdout) if each["check"] == "changed_function"} == {"ok"}
    assert json.loads(found.stderr)["error"]["market"] == "away"


def test_expire_looks_again_in_each_market_while_one_is_away(fleet, silent):
    command = ["expire", "--all-markets", "--every", "200ms", "--json", "--markets", str(silent.path)]
    with begun(*command) as process:
        try:
            for number, market in enumerate(("ok", "ca", "tx")):
                with fleet.connect(market) as conn:
                    cart = quoted(Checkout(conn), vendors=1)
                    request = cart.request()
                    Checkout(conn).execute(**request)
                    conn.execute(
                        "update vendor_orders set expires_at = now() - interval '1 s' where cart_id = %s", (cart.id,)
                    )
                told = json.loads(process.line(number))
                assert told == {"market": market, "expired": 1, "kept": 0}
        finally:
            process.send_signal(signal.SIGTERM)
            silent.go_away()
        assert process.wait(timeout=20) == 0


def test_one_relay_publishes_every_market_while_one_is_away(fleet, silent):
    waiting = "select count(*) from outbox_events where published_at is null"
    with running("redis") as broker:
        port = _free_port()
        command = ["relay", "--all-markets", "--broker", broker.url, "--poll", "100ms", "--listen", str(port)]
        command += ["--markets", str(silent.path)]
        with begun(*command) as process:
            try:
                for market in HOME:
                    with fleet.connect(market) as conn:
                        Checkout(conn).execute(**quoted(Checkout(conn)).request())
                for market in HOME:
                    with fleet.connect(market) as conn:
                        wait_until(lambda conn=conn: values(conn, waiting) == [0], market, 30)
                told = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False, timeout=20).text
                ready = httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False, timeout=20)
            finally:
                process.send_signal(signal.SIGTERM)
                silent.go_away()
            process.wait(timeout=30)
    assert labelled(told, "pycheckout_database_up") == {"away": 0, "ok": 1, "tx": 1, "ca": 1}
    assert {market for market, count in labelled(told, "pycheckout_relay_published_total").items() if count} == {*HOME}
    assert (ready.status_code, ready.text) == (503, "market away: the database or the broker is away\n")


def labelled(told: str, name: str) -> dict[str, float]:
    """The value of a metric in each market."""
    families = text_string_to_metric_families(told)
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return {sample.labels["market"]: sample.value for sample in samples}


def test_metrics_are_told_of_each_market_while_one_is_away(fleet, silent):
    silent.go_away()
    command = ("metrics", "--all-markets", "--markets", str(silent.path))
    plain, as_json = run_command(*command), run_command(*command, "--json")

    assert (plain.returncode, as_json.returncode) == (4, 4)
    assert labelled(plain.stdout, "pycheckout_in_recovery") == dict.fromkeys(HOME, 0)
    assert {row["market"] for row in lines(as_json.stdout)} == {*HOME}
    assert run_command("top", "--market", "tx", "--once", "--markets", str(fleet.path)).stdout.count("market_tx") == 1


def test_a_schema_is_chosen_for_a_transaction_and_never_for_the_session(db):
    """Behind a pooler, what a session sets stays with whoever comes next."""
    [before] = values(db, "show search_path")
    db.row_factory = dict_row
    with in_schema(db, "pg_catalog"):
        assert [*db.execute("show search_path").fetchone().values()] == ["pg_catalog"]
    assert [*db.execute("show search_path").fetchone().values()] == [before]
