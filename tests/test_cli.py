"""The command `pycheckout`, run as an operator runs it: its own process, the real executable's entry point."""

import json
import os
import subprocess
import sys

import jwt
import pytest


@pytest.fixture
def run():
    """run("migrate", "--database", dsn, env={}): the command in a process of its own."""

    def run(*args, env=None, stdin=""):
        return subprocess.run(
            [sys.executable, "-c", "from pycheckout.cli import main; main()", *args],
            env={k: v for k, v in os.environ.items() if not k.startswith("PYCHECKOUT_")} | (env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def test_migrate_installs_and_a_second_run_changes_nothing(run, empty_database):
    dsn = empty_database()

    first = run("migrate", "--database", dsn)
    second = run("migrate", env={"PYCHECKOUT_DATABASE_URL": dsn})

    assert first.returncode == 0, first.stderr
    assert "applied pycheckout_0001_baseline" in first.stdout
    assert second.returncode == 0, second.stderr
    assert second.stdout.splitlines()[0].startswith("schema public has pycheckout ")


def test_migrate_makes_a_schema_only_when_asked(run, empty_database):
    dsn = empty_database()

    refused = run("migrate", "--database", dsn, "--schema", "market_eu")
    made = run("migrate", "--database", dsn, "--schema", "market_eu", "--create-schema")

    assert refused.returncode == 1
    assert 'there is no schema "market_eu"' in refused.stderr
    assert "Traceback" not in refused.stderr
    assert made.returncode == 0, made.stderr


def test_rollback_of_a_used_database_is_refused_with_the_reason(run, dsn, db, add_cart, checkout, snapshot):
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


def test_a_server_that_is_not_there_is_said_in_a_line(run):
    refused = run("audit", "--database", "postgresql://postgres@127.0.0.1:1/postgres?connect_timeout=2")

    assert refused.returncode == 1
    assert refused.stderr.startswith("pycheckout: ")
    assert "Traceback" not in refused.stderr
