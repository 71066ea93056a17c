"""The command `pycheckout`, run as an operator runs it: the real executable, piped or in a terminal."""

import json
import re
import subprocess
import sys
from datetime import timedelta
from functools import cache
from uuid import uuid4

import jwt
import psycopg
import pytest
from brokers import running
from command import PROGRAM, ROOT, environment, plain, run_command, run_in_terminal
from many import add_orders
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from roles import PASSWORD
from typer.main import get_command
from typer.testing import CliRunner

import pycheckout
from checks import values
from factories import ADDRESS
from pycheckout._commands import app
from pycheckout._release import deployment

pytest_plugins = ["shared"]

DOCS = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
NOWHERE = "postgresql://postgres@127.0.0.1:1/postgres?connect_timeout=2"


@pytest.fixture
def run():
    return run_command


@pytest.fixture
def terminal():
    return run_in_terminal


def test_migrate_installs_and_a_second_run_changes_nothing(run, empty_database):
    dsn = empty_database()

    first = run("migrate", "--database", dsn)
    second = run("migrate", env={"PYCHECKOUT_DATABASE_URL": dsn})

    assert first.returncode == 0, first.stderr
    assert "applied pycheckout_0001_baseline" in first.stdout
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[0].startswith("schema public has pycheckout ")


def test_migrate_makes_a_schema_only_when_asked(run, empty_database):
    """And whoever names none is told of the one that has it: several are lawful, so it is made nevertheless."""
    url = empty_database()
    warning = [
        "warning: pycheckout is in schema market_eu already, and this is another installation, in schema public",
        "hint: --schema market_eu is the one that is there.",
    ]

    refused = run("migrate", "--database", url, "--schema", "market_eu")
    made = run("migrate", "--database", url, "--schema", "market_eu", "--create-schema")

    assert refused.returncode == 1
    assert 'there is no schema "market_eu"' in refused.stderr
    assert "hint: `create_schema` (--create-schema) makes it." in refused.stderr
    assert "Traceback" not in refused.stderr
    assert (made.returncode, made.stderr) == (0, "")
    for options in (["--plan"], ["--sql"], []):
        done = run("migrate", *options, "--database", url)
        assert (done.returncode, done.stderr.splitlines()) == (0, warning), options
    for options in ([], ["--schema", "market_us", "--plan"], ["--schema", "market_eu"]):
        done = run("migrate", *options, "--database", url)
        assert (done.returncode, done.stderr) == (0, ""), options


def test_rollback_of_a_used_database_is_refused_with_the_reason(run, dsn, db, add_cart, checkout):
    checkout(db, add_cart())

    refused = run("rollback", "--yes", "--database", dsn)

    assert refused.returncode == 1
    assert "would lose" in refused.stderr
    # what was rolled back before the refusal comes back
    assert run("migrate", "--database", dsn).returncode == 0


def test_audit_is_silent_on_a_healthy_database(run, dsn, db, add_cart, checkout):
    checkout(db, add_cart())

    healthy = run("audit", "--database", dsn)

    assert (healthy.returncode, healthy.stdout) == (0, "no broken invariant\n")


@pytest.mark.breaks_invariants
def test_audit_shows_what_is_broken_and_exits_with_3(run, dsn, db, add_cart, checkout):
    cart = add_cart(vendors=1)
    checkout(db, cart)
    db.execute("update payment_intents set amount_cents = amount_cents + 1")

    shown = run("audit", "--database", dsn)
    machine = run("audit", "--json", "--database", dsn)

    assert (shown.returncode, machine.returncode) == (3, 3)
    assert "intent_is_order_total" in shown.stdout
    assert [json.loads(line)["invariant"] for line in machine.stdout.splitlines()] == ["intent_is_order_total"]


@pytest.mark.breaks_invariants
def test_audit_shows_a_finding_of_which_a_value_is_null(run, dsn, db, add_cart, checkout):
    checkout(db, add_cart(vendors=1))
    db.execute("set session_replication_role = replica")
    db.execute("update cart_records set checkout_group_id = null")

    shown = run("audit", "--database", dsn)

    assert shown.returncode == 3, shown.stderr
    assert "order_has_the_anchor_of_its_cart" in shown.stdout


@pytest.mark.parametrize("source", ["file", "environment"])
def test_a_signing_key_comes_from_a_file_or_the_environment_and_verifies_tokens(run, dsn, db, tmp_path, source):
    secret = "a secret of more than thirty-two bytes"
    if source == "file":
        (tmp_path / "secret").write_text(secret)
        done = run("signing-key", "put", "k1", "--database", dsn, "--secret-file", str(tmp_path / "secret"))
    else:
        done = run("signing-key", "put", "k1", "--database", dsn, "--secret-env", "AD_KEY", env={"AD_KEY": secret})
    token = jwt.encode({}, secret, algorithm="HS256", headers={"kid": "k1"})
    verify = "select reason from ad_token_verify(%s, gen_random_uuid(), now())"

    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    assert db.execute(verify, (token,)).fetchone() == ("invalid_claims",)  # the signature was good

    assert run("signing-key", "retire", "k1", "--database", dsn).returncode == 0
    assert db.execute(verify, (token,)).fetchone() == ("unknown_key",)


def test_a_refusal_is_a_line_with_its_remedy(run, dsn):
    refused = run("signing-key", "put", "k1", "--database", dsn, "--secret-env", "AD_KEY", env={"AD_KEY": "short"})

    assert refused.returncode == 1
    assert refused.stderr.startswith("pycheckout: secret must have at least 32 bytes")
    assert "hint: " in refused.stderr
    assert "short" not in refused.stderr


def test_keys_are_listed_without_their_secrets_and_answer_in_json(run, dsn):
    secret = "a secret of more than thirty-two bytes"

    def key(*command):
        done = run("signing-key", *command, "--database", dsn, "--json", env={"AD_KEY": secret})
        assert done.returncode == 0, done.stderr
        assert secret not in done.stdout
        return [json.loads(line) for line in done.stdout.splitlines()]

    assert key("list") == []
    assert key("put", "k2", "--secret-env", "AD_KEY", "--accepts-unnamed") == [{"kid": "k2", "active": True}]
    assert key("put", "k1", "--secret-env", "AD_KEY") == [{"kid": "k1", "active": True}]
    assert key("retire", "k2") == [{"kid": "k2", "active": False}]
    listed = key("list")
    assert [(each["kid"], each["active"], each["accepts_unnamed"]) for each in listed] == [
        ("k1", True, False),
        ("k2", False, True),
    ]
    assert listed[0]["retired_at"] is None and listed[1]["retired_at"] is not None
    assert set(listed[0]) == {"kid", "active", "accepts_unnamed", "created_at", "retired_at"}
    refused = run("signing-key", "retire", "k3", "--database", dsn, "--json")
    assert (refused.returncode, json.loads(refused.stderr)["error"]["code"]) == (1, "invalid_request")
    shown = run("signing-key", "list", "--database", dsn).stdout.splitlines()
    assert shown[0].split() == ["kid", "active", "accepts", "unnamed", "created", "at", "retired", "at"]
    assert shown[1].split()[:3] == ["k1", "yes", "no"]


@pytest.mark.parametrize("path", ["nowhere", "."])
def test_a_secret_that_cannot_be_read_is_wrong_usage(run, tmp_path, path):
    refused = run("signing-key", "put", "k1", "--secret-file", str(tmp_path / path))

    assert refused.returncode == 2
    assert "--secret-file" in refused.stderr and "Traceback" not in refused.stderr


def test_the_demo_names_the_package_that_it_lacks():
    hide = "import sys; sys.modules['psycopg_pool'] = None; from pycheckout.cli import main; main()"
    command = [sys.executable, "-c", hide, "demo"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 1
    assert done.stderr.startswith("pycheckout: the demo needs psycopg_pool: pip install 'pycheckout[demo]'")


def test_a_server_that_is_not_there_is_said_in_a_line(run):
    refused = run("audit", "--database", NOWHERE)

    assert refused.returncode == 4
    assert refused.stderr.startswith("pycheckout: ")
    assert "Traceback" not in refused.stderr


# Which database


def test_the_database_is_that_of_the_option_then_of_the_variable_then_of_libpq(run, dsn):
    """--database first, then PYCHECKOUT_DATABASE_URL, libpq's variables."""
    libpq = {
        f"PG{ {'dbname': 'database'}.get(name, name).upper() }": str(value)
        for name, value in conninfo_to_dict(dsn).items()
    }
    elsewhere = libpq | {"PGPORT": "1"}

    assert run("audit", "--database", dsn, env=elsewhere | {"PYCHECKOUT_DATABASE_URL": NOWHERE}).returncode == 0
    assert run("audit", env=elsewhere | {"PYCHECKOUT_DATABASE_URL": dsn}).returncode == 0
    assert run("audit", env=libpq).returncode == 0
    assert run("audit", env=libpq | {"PYCHECKOUT_DATABASE_URL": NOWHERE}).returncode == 4
    assert run("audit", "--database", NOWHERE, env=libpq | {"PYCHECKOUT_DATABASE_URL": dsn}).returncode == 4


@pytest.mark.parametrize(
    "command", [["migrate"], ["migrate", "--plan"], ["audit"], ["doctor"], ["relay", "--broker", "redis://127.0.0.1:1"]]
)
def test_a_database_that_is_no_url_is_said_without_repeating_it(run, command):
    """It holds a password."""
    refused = run(*command, "--database", "postgres//user:hunter2@host/shop")

    assert refused.returncode == 1
    assert "not a libpq URL" in refused.stderr
    assert "hunter2" not in refused.stdout + refused.stderr


@pytest.mark.parametrize(
    "command",
    [["migrate"], ["migrate", "--plan"], ["audit"], ["doctor"], ["signing-key", "list"]],
)
def test_a_url_of_sqlalchemy_is_one_too(run, dsn, command):
    """One DATABASE_URL serves all."""
    done = run(*command, env={"PYCHECKOUT_DATABASE_URL": dsn.replace("postgresql://", "postgresql+psycopg://")})

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "command",
    [["migrate"], ["migrate", "--plan"], ["audit"], ["doctor"], ["signing-key", "list"], ["metrics"], ["top"]],
)
@pytest.mark.parametrize("told", ["url", "environment"])
def test_a_client_encoding_without_characters_fails_no_command(run, dsn, command, told):
    """In SQL_ASCII psycopg has bytes for every text."""
    asked = f"{dsn}?client_encoding=SQL_ASCII" if told == "url" else dsn

    done = run(*command, "--database", asked, env={"PGCLIENTENCODING": "SQL_ASCII"} if told == "environment" else {})

    assert done.returncode == 0, done.stderr
    assert "b'" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "grant"),
    [
        (["doctor"], None),
        (["audit"], None),
        (["signing-key", "list"], None),
        (["show", str(uuid4()), "--buyer", str(uuid4())], "checkout_grant"),
        (["relay", "--broker", "redis://127.0.0.1:{redis}", "--drain"], "checkout_grant_relay"),
        (["order", "fulfil", str(uuid4())], "checkout_grant_orders"),
        (["outbox", "purge", "--older-than", "1 day"], "checkout_grant_relay"),
    ],
)
def test_a_role_that_may_not_is_told_which_may(run, dsn, db, new_role, command, grant):
    """ "permission denied for table _yoyo_migration" helps nobody."""
    role = new_role(" it's")
    own = make_conninfo(dsn, user=role, password=PASSWORD)
    [owner] = values(db, "select current_user")
    if "{redis}" in " ".join(command):
        with running("redis") as broker:
            refused = run(*[word.format(redis=broker.port) for word in command], "--database", own)
    else:
        refused = run(*command, "--database", own)

    assert refused.returncode == 1
    [denied, hint] = refused.stderr.splitlines()[-2:]
    assert denied.startswith("pycheckout: permission denied for ")
    assert f'Role "{role}" may not do this: connect as "{owner}"' in hint
    if grant is None:
        assert "checkout_grant" not in hint
    else:
        [call] = re.findall(r"let the owner run: (.*)$", hint)
        assert call.startswith(f"select public.{grant}(")
        db.execute(call)
        assert values(db, "select 1 from checkout_roles where role_name = %s", role) != []


def test_what_the_owner_is_to_run_runs_in_any_session(run, empty_database, new_role):
    url, schema, role = empty_database(), "Market eu", new_role(" it's")
    pycheckout.migrate(url, schema=schema, create_schema=True)
    with psycopg.connect(url) as conn:
        conn.execute('grant usage on schema "Market eu" to public')
    own = make_conninfo(url, user=role, password=PASSWORD)
    command = ("outbox", "purge", "--older-than", "1 day", "--schema", schema, "--database", own)

    [hint] = re.findall(r"let the owner run: (.*)$", run(*command).stderr, re.MULTILINE)
    with psycopg.connect(url) as conn:
        conn.execute(hint)

    assert run(*command).returncode == 0
    with psycopg.connect(url) as conn:
        conn.execute('select "Market eu".checkout_revoke(%s)', (role,))


@pytest.fixture(scope="module")
def in_checkout(shared_dsns):
    """A database that has it in the schema checkout alone."""
    url = shared_dsns(empty=True)
    pycheckout.migrate(url, schema="checkout", create_schema=True)
    return url


def test_of_a_schema_that_is_not_there_no_owner_is_quoted(run, in_checkout, new_role):
    with psycopg.connect(in_checkout) as conn:
        conn.execute("create schema ours")
        conn.execute("create function ours.outbox_purge(interval, integer) returns bigint language sql as 'select 1'")
        conn.execute("revoke execute on function ours.outbox_purge(interval, integer) from public")
        conn.execute("grant usage on schema ours to public")
    own = make_conninfo(in_checkout, user=new_role(), password=PASSWORD)

    refused = run("outbox", "purge", "--older-than", "1 day", "--schema", "ours", "--database", own)

    assert refused.stderr.splitlines()[-1].endswith(": connect as the owner of its tables.")


def test_a_schema_later_in_the_search_path_is_found_as_calls_find_it(run, in_checkout):
    with psycopg.connect(in_checkout) as conn:
        conn.execute("create table public.vendor_orders (of_the_host integer)")
    env = {"PGOPTIONS": "-c search_path=public,checkout"}

    for command in (["doctor"], ["audit"], ["signing-key", "list"], ["outbox", "backlog"]):
        done = run(*command, "--database", in_checkout, env=env)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    missing = run("doctor", "--database", in_checkout)
    assert "is not installed in this schema, but in checkout" in missing.stdout
    remedy = "remedy: --schema checkout; or, for another installation in this schema, pycheckout migrate"
    assert remedy in missing.stdout


def test_a_role_that_may_not_use_the_schema_is_told_so(run, in_checkout, new_role):
    own = make_conninfo(in_checkout, user=new_role(), password=PASSWORD)

    refused = run("doctor", "--database", own, "--schema", "checkout")

    assert refused.returncode == 1
    owner = conninfo_to_dict(in_checkout)["user"]
    assert f'remedy: Connect as "{owner}": this role may not use schema checkout.' in refused.stdout


def test_what_is_not_installed_is_said_so(run, empty_database):
    refused = run("audit", "--database", empty_database())

    assert refused.returncode == 1
    assert "hint: Run `pycheckout migrate`" in refused.stderr


@pytest.mark.breaks_invariants
def test_a_package_that_is_older_than_the_database_is_to_be_upgraded(execute, db, add_cart):
    cart = add_cart()
    db.execute("drop function checkout_execute")
    db.execute(
        "create or replace function checkout_version() returns jsonb language sql as "
        """$$ select '{"version": "99.0", "hash": ""}'::jsonb $$"""
    )

    refused = execute(cart)

    assert "upgrade the package" in refused.stderr
    assert "hint: pip install --upgrade 'pycheckout>=99.0'" in refused.stderr


# migrate


@pytest.fixture(scope="module")
def walk(shared_dsns):
    """walk["plan"]: what a command said, one after the other, from an empty database to one that was rolled back."""
    url = shared_dsns(empty=True)
    said = {}
    for name, *command in (
        ("plan", "migrate", "--plan"),
        ("plan elsewhere", "migrate", "--plan", "--schema", "market_eu"),
        ("sql", "migrate", "--sql"),
        ("migrate", "migrate", "--json"),
        ("later plan", "migrate", "--plan"),
        ("later plan in json", "migrate", "--plan", "--json"),
        ("later sql", "migrate", "--sql"),
        ("rollback", "rollback", "--yes", "--json"),
    ):
        if name == "migrate":
            with psycopg.connect(url) as conn:
                query = "select count(*) from pg_class where relnamespace = 'public'::regnamespace"
                [said["relations after the plans"]] = values(conn, query)
        said[name] = run_command(*command, "--database", url).stdout
    return said


def test_a_plan_shows_what_is_pending_and_changes_nothing(walk):
    assert walk["relations after the plans"] == 0
    first, *_, last = walk["plan"].splitlines()
    assert first == "would apply pycheckout_0001_baseline: no lock on a table of the host"
    assert last == f"schema public has no functions, and would get those of {pycheckout.__version__}"
    assert walk["plan elsewhere"] == walk["plan"].replace("schema public", "schema market_eu")
    assert walk["later plan"] == f"schema public has the functions of {pycheckout.__version__}, and would keep them\n"
    assert json.loads(walk["later plan in json"]) == {
        "schema": "public",
        "pending": [],
        "version": pycheckout.__version__,
        "installed": pycheckout.__version__,
        "changes_functions": False,
        "problems": [],
    }


def test_the_sql_of_a_plan_is_that_of_the_files(walk):
    assert walk["sql"].startswith("-- pycheckout_0001_baseline\n")
    assert "create table if not exists cart_records" in walk["sql"]
    for file in deployment().function_files():
        assert file.read_text(encoding="utf-8") in walk["sql"]
    assert "create table" not in walk["later sql"]
    assert "create or replace function checkout_execute(" in walk["later sql"]


def test_a_migration_answers_in_json(walk):
    done, undone = json.loads(walk["migrate"]), json.loads(walk["rollback"])

    assert (done["schema"], done["version"]) == ("public", pycheckout.__version__)
    assert done["migrations"] == undone["migrations"][::-1] != []


def test_a_rollback_to_what_is_there_says_that_it_does_nothing(run, dsn):
    done = run("rollback", "--yes", "--to", pycheckout.__version__, "--database", dsn)

    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing to take away\n", "")
    assert run("doctor", "--database", dsn).stdout == "nothing is wrong\n"


def test_rollback_asks_before_it_acts(terminal, dsn, db):
    code, shown = terminal("rollback", "--database", dsn, answer="n\n")

    assert code == 1
    assert "Roll back every migration of pycheckout? [y/N]" in plain(shown)
    assert db.execute("select checkout_version() is not null").fetchone() == (True,)


# execute and show


@pytest.fixture
def execute(run, dsn):
    """execute(cart, ...): `pycheckout execute` on this test's database."""

    def execute(cart, *more, key="k1", address=ADDRESS, **kwargs):
        command = ["execute", "--database", dsn, "--buyer", str(cart.buyer_store_id), "--cart", str(cart.id)]
        command += ["--key", key, "--payment-method", "ach", "--address", json.dumps(address)]
        return run(*command, *more, **kwargs)

    return execute


def test_execute_checks_a_cart_out_and_shows_it_as_a_table(execute, add_cart, db):
    cart = add_cart(vendors=2, lines=2, unit_price_cents=1500)

    done = execute(cart)

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"cart {cart.id}: complete"
    assert len(re.findall(r"^order \S{36}, number \d+ +30.00 +created_pending *$", done.stdout, re.MULTILINE)) == 2
    assert re.search(r"^  Product 1\.1 +1 +15.00 +15.00 +pending *$", done.stdout, re.MULTILINE)
    assert lines[-1] == "quoted 60.00 USD, confirmed 60.00 USD"
    assert db.execute("select status::text from cart_records").fetchall() == [("converted",)]


def test_execute_and_show_tell_tax_shipping_number_minimum_and_what_is_noted(execute, run, dsn, db, add_cart):
    cart = add_cart(vendors=2, lines=1, groups={0: {"minimum_cents": 1001}})
    show = ["show", "--database", dsn, str(cart.id)]
    below = f"vendor {cart.vendors[0]} is below its minimum: 10.00 of 10.01 USD"
    assert run(*show).stdout.splitlines()[1:] == [below]
    db.execute(
        "update cart_vendor_groups set minimum_cents = null, total_cents = total_cents + 330, shipping_cents = 250"
        " where vendor_store_id = %s",
        [cart.vendors[0]],
    )
    db.execute("update cart_items set tax_cents = 80 where vendor_store_id = %s", [cart.vendors[0]])
    db.execute("update cart_records set total_cents = total_cents + 330")

    noted = ("--purchase-order", "PO-1", "--metadata", '{"a_cents": "x"}', "--expires-in", "90m")
    done = execute(cart, *noted, "--billing-address", json.dumps(ADDRESS))

    assert done.returncode == 0, done.stderr
    assert re.search(r"^  shipping +2.50 *$\n^  tax +0.80 *$", done.stdout, re.MULTILINE)
    assert done.stdout.splitlines()[-1] == "quoted 23.30 USD, confirmed 23.30 USD"
    [order] = db.execute(
        "select id, order_number, purchase_order, expires_at - created_at from vendor_orders where tax_cents > 0"
    ).fetchall()
    assert order[2:] == ("PO-1", timedelta(hours=1.5))
    shown = run("order", "show", "--database", dsn, str(order[0])).stdout
    for pattern in (
        rf"order number +{order[1]}",
        "purchase order +PO-1",
        "tax +0.80",
        "transport fee +2.50",
        "metadata +x",
    ):
        assert re.search(rf"^{pattern} *$", shown, re.MULTILINE), pattern


def test_execute_answers_in_json_what_the_function_answers_and_replays(execute, add_cart, db):
    cart = add_cart()

    first = json.loads(execute(cart, "--json").stdout)
    again = json.loads(execute(cart, "--json").stdout)
    result = "select checkout_result(%s, %s)"

    assert again == first | {"replayed": True}
    assert db.execute(result, (cart.buyer_store_id, cart.id)).fetchone() == (again,)


def test_an_output_that_lacks_a_letter_gets_another_and_the_exit_code_is_the_checkouts(execute, add_cart):
    """Else there would be a traceback and exit code 1, and the cart is converted."""
    cart = add_cart(vendors=1, lines=1, items={(0, 0): {"title": "Crème brûlée \u20ac"}})

    done = execute(cart, env={"PYTHONIOENCODING": "ascii"})

    assert (done.returncode, done.stderr) == (0, "")
    assert "  Cr?me br?l?e ?" in done.stdout


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_output_that_nobody_can_read_fails_no_checkout(dsn, add_cart, db, options):
    """A full disk, or a reader that has gone."""
    cart = add_cart()
    command = [PROGRAM, "execute", "--database", dsn, "--buyer", str(cart.buyer_store_id), "--cart", str(cart.id)]
    command += ["--key", "k1", "--payment-method", "ach", "--address", json.dumps(ADDRESS), *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, env=environment(), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )

    assert done.returncode == 0
    assert done.stderr == "pycheckout: it is done, but could not be printed: No space left on device\n"
    assert db.execute("select status::text from cart_records").fetchall() == [("converted",)]


SOURCES = ("stdin", "file", "argument")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize(
    ("source", "env"),
    [
        ("stdin", {"PYTHONIOENCODING": "latin-1"}),  # of which files and arguments know nothing
        *((source, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}) for source in SOURCES),
    ],
)
def test_json_is_utf_8_whatever_the_locale(dsn, add_cart, tmp_path, source, encoding, env):
    """Else there would be mojibake in a cart that nobody can change any more."""
    cart = add_cart()
    address = ADDRESS | {"line1": "Straße der Œuvre 1 \u20ac"}
    written = json.dumps(address, ensure_ascii=False).encode(encoding)
    (tmp_path / "address").write_bytes(written)
    value = {"stdin": b"@-", "file": b"@" + bytes(tmp_path / "address"), "argument": written}[source]
    command = [PROGRAM, "execute", "--database", dsn, "--buyer", str(cart.buyer_store_id), "--cart", str(cart.id)]
    command += ["--key", "k", "--payment-method", "ach", "--json", "--address", value]
    done = subprocess.run(command, env=environment(env), input=written, capture_output=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["shipping_address"] == address


def test_json_in_another_encoding_is_wrong_usage(run, dsn, add_cart, tmp_path):
    cart = add_cart()
    (tmp_path / "address").write_bytes(json.dumps({"line1": "Straße"}, ensure_ascii=False).encode("latin-1"))
    command = ["execute", "--database", dsn, "--buyer", str(cart.buyer_store_id), "--cart", str(cart.id), "--key", "k"]

    refused = run(*command, "--payment-method", "ach", "--address", f"@{tmp_path / 'address'}")

    assert refused.returncode == 2
    assert "no JSON (UnicodeDecodeError)" in refused.stderr


@pytest.mark.parametrize("sqlstate", ["53100", "53200", "53400", "58030"])
def test_a_server_without_disk_or_memory_is_4_like_one_that_is_away(execute, add_cart, db, sqlstate):
    db.execute(f"""
        create function fail_here() returns trigger language plpgsql
        as $$ begin raise exception 'could not extend file' using errcode = '{sqlstate}'; end $$;
        create trigger fail_here before insert on vendor_orders for each statement execute function fail_here()
    """)
    cart = add_cart()

    refused = execute(cart, "--json")
    db.execute("drop trigger fail_here on vendor_orders")

    assert refused.returncode == 4
    assert json.loads(refused.stderr)["error"]["code"] == "unavailable"
    assert execute(cart).returncode == 0


def test_every_option_of_execute_reaches_the_function(execute, add_cart, tmp_path):
    cart = add_cart(stock=0)
    (tmp_path / "line").write_text('{"code": "route", "title": "Truck", "price_cents": 900}')
    line = ("--shipping-line", f"@{tmp_path / 'line'}")

    short = execute(cart, *line, "--reservation-policy", "all", "--json")
    tokens = execute(add_cart(ad_tokens=["no token"]), "--ad-token-policy", "error", "--json")
    done = execute(cart, *line, "--json")

    assert json.loads(short.stderr)["error"]["code"] == "insufficient_inventory"
    assert json.loads(tokens.stderr)["error"]["code"] == "ad_token_invalid"
    assert json.loads(done.stdout)["shipping_line"] == {"code": "route", "title": "Truck", "price_cents": 900}


def test_an_address_may_come_on_standard_input(run, dsn, add_cart):
    """So that no other user of the machine sees it among the processes."""
    cart = add_cart()
    command = ["execute", "--database", dsn, "--buyer", str(cart.buyer_store_id), "--cart", str(cart.id), "--key", "k"]

    done = run(*command, "--payment-method", "ach", "--address", "@-", "--json", stdin=json.dumps(ADDRESS))

    assert json.loads(done.stdout)["shipping_address"] == ADDRESS


def test_an_address_that_is_no_json_is_wrong_usage_and_not_repeated(run, dsn, add_cart):
    cart = add_cart()
    command = ["execute", "--database", dsn, "--buyer", str(cart.buyer_store_id), "--cart", str(cart.id), "--key", "k"]

    refused = run(*command, "--payment-method", "ach", "--address", "12 Main Street")

    assert refused.returncode == 2
    assert "no JSON" in refused.stderr and "Main" not in refused.stderr


def test_a_refused_checkout_is_1_and_says_why(execute, add_cart, snapshot, db):
    cart = add_cart(valid_for=-1)
    before = snapshot(db)

    shown = execute(cart)
    machine = execute(cart, "--json")

    assert (shown.returncode, machine.returncode) == (1, 1)
    assert re.match(r"pycheckout: .*ran out.*\nhint: ", shown.stderr)
    error = json.loads(machine.stderr)["error"]
    assert (error["code"], error["sqlstate"]) == ("cart_expired", "OC003")
    assert error["message"] and error["hint"] and error["detail"]
    assert snapshot(db) == before


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_error_of_the_host_shows_its_code_and_no_row(execute, add_cart, db, options):
    """PostgreSQL's DETAIL quotes the row, and so the address."""
    db.execute("alter table cart_records add constraint host_rule check (status <> 'converted') not valid")

    refused = execute(add_cart(), *options)

    assert refused.returncode == 1
    assert "host_rule" in refused.stderr
    assert ADDRESS["line1"] not in refused.stderr
    assert not options or json.loads(refused.stderr)["error"]["sqlstate"] == "23514"


def test_a_busy_cart_is_4_and_the_same_command_works_afterwards(execute, add_cart, connect):
    cart = add_cart()
    with connect() as holder:
        holder.execute("select from cart_records where id = %s for update", (cart.id,))
        busy = execute(cart, "--json", env={"PGOPTIONS": "-c lock_timeout=50ms"})
        holder.rollback()

    assert busy.returncode == 4
    assert json.loads(busy.stderr)["error"]["code"] == "busy"
    assert execute(cart).returncode == 0


def test_a_server_that_is_not_there_is_4_for_a_checkout(run, execute, add_cart):
    cart = add_cart()

    assert execute(cart, "--database", NOWHERE).returncode == 4
    assert run("show", str(cart.id), "--database", NOWHERE).returncode == 4


def test_show_tells_of_a_cart_before_and_after_its_checkout(run, dsn, db, add_cart, checkout):
    cart = add_cart(vendors=1, lines=1, unit_price_cents=1050, stock=0)
    command = ["show", str(cart.id), "--database", dsn]

    active = run(*command)
    checkout(db, cart)
    converted = run(*command)
    machine = json.loads(run(*command, "--json", "--buyer", str(cart.buyer_store_id)).stdout)

    assert re.match(rf"cart {cart.id} is active, quoted 10.50 USD, valid until \d{{4}}-", active.stdout)
    assert converted.stdout.splitlines()[0] == f"cart {cart.id}: rejected, replayed"
    assert "insufficient_inventory" in converted.stdout
    assert (machine["outcome"], machine["cart_id"]) == ("rejected", str(cart.id))


@pytest.mark.parametrize("valid_until", [None, "infinity"])
def test_show_says_what_a_quote_without_a_date_is_worth(run, dsn, db, add_cart, valid_until):
    """The answer has null for both: of those, one is never valid and the other always."""
    db.execute(
        "alter table cart_records alter valid_until drop not null"
    )  # as a host of the earlier system may have it
    cart = add_cart()
    db.execute("update cart_records set valid_until = %s where id = %s", (valid_until, cart.id))

    shown = run("show", str(cart.id), "--database", dsn)

    assert " ".join(shown.stdout.split()).endswith(
        ", without a date in valid_until: valid only if that is after the year 9999, not if it is null"
    )


def test_show_has_a_column_for_the_reason_and_one_for_what_counts(run, dsn, db, execute, add_cart):
    """Else the reason would stand among the states, and 8.00 below an order of 0.00."""
    cart = add_cart(vendors=1, lines=1, unit_price_cents=800)
    [order] = json.loads(execute(cart, "--json").stdout)["vendor_orders"]
    db.execute("select vendor_order_cancel(%s, 'out of season')", (order["order_id"],))

    lines = run("show", str(cart.id), "--database", dsn).stdout.splitlines()

    assert re.split(r"  +", lines[2].strip()) == [
        "orders and lines",
        "qty",
        "quoted (USD)",
        "total (USD)",
        "status",
        "reason",
    ]
    assert re.split(r"  +", lines[3].strip()) == [
        f"order {order['order_id']}, number {order['order_number']}",
        "0.00",
        "canceled",
    ]
    assert re.split(r"  +", lines[4].strip()) == ["Product 1.1", "1", "8.00", "0.00", "rejected", "out of season"]


def test_show_finds_no_cart_that_is_not_there_nor_another_buyers(run, dsn, add_cart):
    cart = add_cart()

    unknown = run("show", str(uuid4()), "--database", dsn, "--json")
    foreign = run("show", str(cart.id), "--buyer", str(uuid4()), "--database", dsn, "--json")
    garbage = run("show", "what", "--database", dsn, "--json")

    assert [refused.returncode for refused in (unknown, foreign, garbage)] == [1, 1, 1]
    codes = [json.loads(refused.stderr)["error"]["code"] for refused in (unknown, foreign, garbage)]
    assert codes == ["cart_not_found", "cart_not_found", "invalid_request"]


def test_names_that_look_like_markup_are_shown_as_they_are(execute, add_cart):
    cart = add_cart(vendors=1, lines=1, items={(0, 0): {"title": "[red]Apples[/red] [x]"}})

    assert "  [red]Apples[/red] [x]" in execute(cart).stdout


def test_a_market_whose_name_looks_like_markup_is_named_as_it_is(run, dsn, tmp_path):
    (tmp_path / "markets.toml").write_text(
        f'[server.a]\ndatabase = "{dsn}"\n[market."ok [/b]"]\nserver = "a"\nschema = "public"\n'
    )

    shown = run("doctor", "--market", "ok [/b]", "--markets", str(tmp_path / "markets.toml"))

    assert shown.stdout == "market ok [/b]: nothing is wrong\n"


def test_what_the_host_names_like_markup_is_shown_as_it_is(run, dsn, db, add_cart, checkout):
    [order] = checkout(db, add_cart(vendors=1, groups={0: {"warnings": [{"[/b]": "no fridge"}]}})).vendor_orders

    shown = run("order", "show", "--database", dsn, str(order.order_id))

    assert "[/b]" in shown.stdout


# audit


def test_an_audit_shows_its_progress_on_a_terminal_and_none_in_a_pipe(terminal, run, dsn, db, add_cart, checkout):
    checkout(db, add_cart(vendors=3))

    code, shown = terminal("audit", "--database", dsn)
    piped = run("audit", "--database", dsn)

    assert code == 0
    assert "auditing orders" in plain(shown) and "3/3" in plain(shown) and "━" in shown
    assert plain(shown).rstrip().endswith("no broken invariant")
    assert (piped.stdout, piped.stderr) == ("no broken invariant\n", "")


@pytest.mark.breaks_invariants
def test_an_audit_since_a_time_leaves_out_what_is_older(run, dsn, db, add_cart, checkout):
    checkout(db, add_cart(vendors=1))
    db.execute("update payment_intents set amount_cents = amount_cents + 1")

    assert run("audit", "--database", dsn, "--since", "2020-01-01").returncode == 3
    assert run("audit", "--database", dsn, "--since", "2999-01-01T12:00:00").returncode == 0
    assert run("audit", "--database", dsn, "--since", "yesterday").returncode == 2


@pytest.mark.breaks_invariants
def test_an_audit_shows_a_thousand_findings_and_says_how_many_more(run, dsn, db):
    add_orders(db, 1200)
    db.execute("update payment_intents set amount_cents = amount_cents + 1")

    shown = run("audit", "--database", dsn)
    machine = run("audit", "--json", "--database", dsn)

    assert shown.returncode == 3
    assert shown.stdout.count("intent_is_order_total") == 1000
    assert shown.stdout.endswith("\nand 200 more, which --json shows\n")
    assert machine.stdout.count("\n") == 1200


# Help, completion, documentation

COMMANDS = [
    "migrate",
    "rollback",
    "doctor",
    "grant",
    "revoke",
    "market",
    "signing-key",
    "execute",
    "show",
    "demo",
    "order",
    "payment",
    "stock",
    "expire",
    "audit",
    "metrics",
    "top",
    "relay",
    "outbox",
    "purge",
    "erase",
]


def every_command():
    """The words of each command, those of groups too."""
    group = get_command(app)
    for name, command in group.commands.items():
        yield [name]
        yield from ([name, each] for each in getattr(command, "commands", {}))


def options(help_text):
    """Each option that a help text shows, with what it says of it."""
    return dict(re.findall(r"^│[ *]+(--[\w-]+) +(.+?) *│$", help_text, re.MULTILINE))


def test_the_help_names_every_command_and_each_has_its_own(run):
    """What an operator reads first: a sentence a command, and a word on every option."""
    top = run("--help").stdout
    for command in COMMANDS:
        assert re.search(rf"^│ {command} +[A-Z].*[.a-z]", top, re.MULTILINE), command
    assert {words[0] for words in every_command()} == {*COMMANDS}
    assert "Exit codes: 0 done;" in top


@cache
def shown_help(*words):
    done = CliRunner().invoke(app, [*words, "--help"], env={"TERMINAL_WIDTH": "120", "COLUMNS": "120"})
    assert done.exit_code == 0
    return done.stdout


@pytest.mark.parametrize("words", [[], *every_command()], ids=" ".join)
def test_help_reads_as_a_person_expects(words):
    """No type beside a flag, no braces, and names of values in capitals: `--help <bool>` reads as if it took one."""
    shown = shown_help(*words)
    [usage] = re.findall(r"^ Usage: (.*?) *$", shown, re.MULTILINE)
    assert re.fullmatch(r"[A-Za-z -]+( \[OPTIONS\]| \[ARGS\]\.\.\.| [A-Z]+(\.\.\.)?)*", usage), usage
    assert not re.search(r"<[a-z]|\{", shown), shown
    assert options(shown)["--help"] == "Show this message and exit."
    for option, says in options(shown).items():
        value, _, sentence = says.partition("  ")
        if sentence:
            assert re.fullmatch(r"[A-Z]+(\|@FILE)?|[a-z|]+|[A-Z]+ \[.*x.*\]|--no-[a-z]+", value), (option, value)
        assert len((sentence or value).split()) >= 3, (option, says)
    for argument, says in re.findall(r"^│[ *]+([A-Z]+) +(.+?) *│$", shown, re.MULTILINE):
        assert len(says.split()) >= 3, argument


@pytest.mark.parametrize("command", [["--nonsense"], ["nonsense"], ["show"], ["audit", "--since"]])
def test_wrong_usage_is_2(run, command):
    assert run(*command).returncode == 2


def test_the_version_is_told(run):
    assert run("--version").stdout == f"{pycheckout.__version__}\n"


def test_bash_completes_commands_and_options(run):
    """Through a real bash, with what `--show-completion` gives it."""
    script = run("--show-completion", "bash", env={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}).stdout
    assert "complete " in script

    def completions(*words):
        ask = f"""
            {script}
            COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
            function=$(complete -p pycheckout | sed 's/.*-F \\([^ ]*\\).*/\\1/')
            $function {PROGRAM}
            printf '%s\n' "${{COMPREPLY[@]}}"
        """
        done = subprocess.run(["bash", "-c", ask], env=environment(), capture_output=True, text=True, timeout=60)
        return set(done.stdout.split())

    assert completions("pycheckout", "mi") == {"migrate"}
    assert {"doctor", "audit", "show", "execute"} <= completions("pycheckout", "''")
    assert "--reservation-policy" in completions("pycheckout", "execute", "--re")


def test_the_page_documents_every_command_option_and_exit_code():
    for words in every_command():
        assert f"`pycheckout {' '.join(words)}" in DOCS, words
        for option in options(shown_help(*words)):
            assert option == "--help" or f"`{option}" in DOCS, (words, option)
    assert re.findall(r"^\| (\d) \|", DOCS, re.MULTILINE) == ["0", "1", "2", "3", "4"]
