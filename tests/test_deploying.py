"""docs/deploying.md and docs/payments.md: what they show is run, as it stands there."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from command import PROGRAM, environment, run_command
from fastapi.testclient import TestClient
from pages import blocks
from psycopg import sql
from psycopg.conninfo import make_conninfo
from roles import PASSWORD

import pycheckout
from races import wait_until

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "deploying.md").read_text(encoding="utf-8")
PAYMENTS = (DOCS / "payments.md").read_text(encoding="utf-8")
UNITS = dict(zip(re.findall(r"`/etc/systemd/system/([\w.-]+)`", PAGE), blocks(PAGE, "ini"), strict=True))
UNITS |= {path.name: path.read_text(encoding="utf-8") for path in (DOCS.parent / "deploy" / "systemd").iterdir()}
BIN = "/opt/pycheckout/bin/pycheckout"


def commands(unit):
    """What a unit runs, without the program."""
    lines = re.findall(r"^ExecStart=(.*)$", UNITS[unit], re.MULTILINE)
    assert lines and all(line.startswith(f"{BIN} ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


@pytest.fixture(scope="module")
def deployed(server, worker_id):
    """A database as the page leaves it: the dsn of each role of the page. No test changes what is in it."""
    database = sql.Identifier(f"pycheckout_deployed_{worker_id}")
    dsn = server.dsn(database.as_string().strip('"'))
    create, grant = blocks(PAGE, "sql")
    made = re.findall(r"create role (\w+)", create)
    names = {name: f"{name}_{worker_id}" for name in made}

    def renamed(text):
        return re.sub(r"\bshop_\w+\b", lambda name: names[name[0]], text)

    def drop(conn):
        for name in map(sql.Identifier, names.values()):
            if conn.execute("select 1 from pg_roles where rolname = %s", [name.as_string().strip('"')]).fetchone():
                conn.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(name))

    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(database))
        drop(admin)
        admin.execute(sql.SQL("create database {} template template0").format(database))
        with psycopg.connect(dsn, autocommit=True) as conn:
            conn.execute("revoke create on schema public from public")
            conn.execute(renamed(create))
            for name in names.values():
                conn.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(name), sql.Literal(PASSWORD)))
            as_role = {name: make_conninfo(dsn, user=role, password=PASSWORD) for name, role in names.items()}

            [migrate] = blocks(PAGE, "sh")
            program, *arguments = shlex.split(migrate.replace("$OWNER_DATABASE", as_role["shop_owner"]))
            assert program == "pycheckout"
            done = run_command(*arguments)
            assert done.returncode == 0, done.stderr

            warnings = []
            with psycopg.connect(as_role["shop_owner"], autocommit=True) as owner:
                owner.add_notice_handler(lambda notice: warnings.append(notice.message_hint))
                owner.execute(renamed(grant))
            hints = [re.search(r"ALTER ROLE .*;", hint or "") for hint in warnings]
            assert len(hints) == len(made) - 1 and all(hints), "an owner who may not change roles is told what to run"
            for hint in hints:
                conn.execute(hint[0])
            yield as_role
            drop(conn)
        admin.execute(sql.SQL("drop database {} with (force)").format(database))


def test_each_role_of_the_page_may_do_its_own_and_nothing_else(deployed):
    calls = {
        "shop_service": "select checkout.checkout_result(gen_random_uuid(), gen_random_uuid())",
        "shop_quotes": "select checkout.cart_put('{}')",
        "shop_orders": "select checkout.vendor_order_cancel(gen_random_uuid(), 'x')",
        "shop_payments": "select checkout.payment_record(gen_random_uuid(), 'p', 'e', 'captured', 1, 'USD')",
        "shop_stock": "select checkout.inventory_get('{}')",
        "shop_relay": "select checkout.outbox_claim(1, '1 second')",
        "shop_operator": "select * from checkout.checkout_overview",
    }
    assert {*deployed} == {*calls, "shop_owner"}
    for role in calls:
        with psycopg.connect(deployed[role], autocommit=True) as conn:
            for of, call in calls.items():
                try:
                    conn.execute(call)
                    answer = "done"
                except psycopg.Error as refused:
                    answer = refused.sqlstate
                assert (answer == "42501") == (of != role), f"{role} calls {call}: {answer}"


def test_a_service_finds_the_schema_by_name(deployed):
    with psycopg.connect(deployed["shop_service"], autocommit=True) as conn:
        checkout = pycheckout.Checkout(conn, schema="checkout")
        with pytest.raises(pycheckout.CartNotFound):
            checkout.result(
                buyer_store_id="11111111-1111-4111-8111-111111111111", cart_id="22222222-2222-4222-8222-222222222222"
            )


def test_the_nightly_unit_does_what_it_says_and_finds_nothing_wrong(deployed):
    for command in commands("pycheckout-nightly.service"):
        done = run_command(*command, env={"PYCHECKOUT_DATABASE_URL": deployed["shop_owner"]})
        assert done.returncode == 0, (command, done.stdout, done.stderr)


def test_the_relay_of_the_unit_starts_and_says_which_session_it_was_refused(deployed):
    [command] = commands("pycheckout-relay.service")
    nowhere = make_conninfo(deployed["shop_relay"], dbname="not_there")
    done = run_command(
        *command, env={"PYCHECKOUT_DATABASE_URL": nowhere, "PYCHECKOUT_BROKER_URL": "redis://127.0.0.1:1"}
    )

    assert done.returncode == 4, done.stderr
    assert "not_there" in done.stderr


def test_the_expiry_of_the_unit_runs_until_it_is_told_to_stop(deployed):
    [[*command, every]] = commands("pycheckout-expire.service")
    assert command[-1] == "--every" and every == "30s"
    env = environment({"PYCHECKOUT_DATABASE_URL": deployed["shop_operator"]})
    name = "select pid from pg_stat_activity where application_name = 'pycheckout'"
    with psycopg.connect(deployed["shop_operator"], autocommit=True) as conn:
        process = subprocess.Popen([PROGRAM, *command, "0.2s"], env=env, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: conn.execute(name).fetchall() or process.poll() is not None, timeout=60)
        process.terminate()
        said = process.communicate(timeout=30)[1]
    assert (process.returncode, said) == (0, "")


def test_systemd_has_nothing_to_say_about_the_units(tmp_path):
    assert {Path(name).suffix for name in UNITS} == {".service", ".timer"}
    for name, unit in UNITS.items():
        if name.startswith(("pycheckout-relay", "pycheckout-expire")):
            assert {"DynamicUser=yes", "Restart=always", "KillSignal=SIGTERM", "NoNewPrivileges=yes"} <= {*unit.split()}
            assert not re.search(r"^(User|Environment)=.*(root|password|://)", unit, re.MULTILINE), "no root, no secret"
        # A line is a comment, a section, or a key of one.
        assert re.fullmatch(r"(#.*\n|\[\w+\]\n|\w+=.*\n|\n)+", unit), name
        # The program of the page is nowhere on this machine.
        (tmp_path / name).write_text(unit.replace(BIN, PROGRAM), encoding="utf-8")
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd here: the units were only read")

    command = ["systemd-analyze", "verify", *(str(tmp_path / name) for name in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if str(tmp_path) in line]) == (0, [])


def test_the_readiness_route_asks_the_database_and_the_liveness_route_does_not(deployed):
    [code] = blocks(PAGE, "python")

    def answers(dsn):
        names = {"dsn": dsn}
        exec(code, names)
        client = TestClient(names["app"])
        try:
            return [(it.status_code, it.json()) for it in (client.get("/livez"), client.get("/readyz"))]
        finally:
            names["pool"].close()

    service = deployed["shop_service"]
    alive, ready = answers(service)
    assert alive == (200, {"alive": True})
    assert ready[0] == 200 and ready[1]["release"] and not ready[1]["standby"]

    alive, ready = answers(make_conninfo(service, dbname="not_there"))
    assert (alive[0], ready) == (200, (503, {"release": None, "standby": None}))


def test_the_payments_page_names_each_status_and_what_it_shows_is_lawful(db, add_cart, checkout_sql, psql):
    cart = add_cart(vendors=2, lines=1)
    checkout_sql(db, cart)
    recorded, updated = (group.id for group in cart.groups)
    [(labels,)] = db.execute("select enum_range(null::payment_status)::text[]").fetchall()
    table = PAYMENTS.split("## If you record none")[1].split("\n\n")[2]

    assert re.findall(r"^\| `(\w+)`", table, re.MULTILINE) == labels
    [record, update, reminders] = blocks(PAYMENTS, "sql")
    for order, block in ((recorded, record), (updated, update), (updated, reminders)):
        done = psql("--set", "ON_ERROR_STOP=1", "--set", f"order_id={order}", stdin=block)
        assert done.returncode == 0, done.stderr
    assert db.execute("select order_id, amount_cents from payment_events").fetchall() == [(recorded, 1900)]
    assert db.execute("select status::text from payment_intents where order_id = %s", (updated,)).fetchall() == [
        ("settled",)
    ]
    assert db.execute("select * from checkout_audit()").fetchall() == []
