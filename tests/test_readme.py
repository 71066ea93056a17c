"""What the README and docs/quotes.md show is run, as it stands there."""

import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from command import run_command
from pages import block
from psycopg import sql

import pycheckout
from pycheckout._errors import BY_SQLSTATE

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
QUOTES = (ROOT / "docs" / "quotes.md").read_text(encoding="utf-8")
BUYER = "11111111-1111-4111-8111-111111111111"
CART = "22222222-2222-4222-8222-222222222222"


@pytest.fixture
def quoted(psql):
    """The cart of the examples, written by the example of docs/quotes.md through psql, with stock on the shelf."""
    shelf = "select inventory_set(product_id, 10) from (values ({}), ({})) as shelf (product_id);".format(
        *(f"'{n * 8}-{n * 4}-4{n * 3}-8{n * 3}-{n * 12}'::uuid" for n in "45")
    )
    done = psql("--set", "ON_ERROR_STOP=1", stdin=block(QUOTES, "sql") + shelf)
    assert done.returncode == 0, done.stderr


def test_the_python_example_runs(quoted, dsn, capsys):
    names = {"dsn": dsn, "buyer_store_id": BUYER, "cart_id": CART}

    exec(block(README, "python"), names)

    names["pool"].close()
    printed = capsys.readouterr().out
    assert printed == "33333333-3333-4333-8333-333333333333 created_pending 2150 ['pending', 'pending']\n"


def test_the_psql_example_is_one_select_and_checks_out(quoted, psql, db):
    done = psql("--tuples-only", "--no-align", stdin=block(README, "sql"))

    assert done.returncode == 0, done.stderr
    assert '"outcome" : "complete"' in done.stdout
    assert db.execute("select status::text from cart_records").fetchall() == [("converted",)]


def test_the_refusal_reads_as_shown(quoted, psql):
    refused = psql(stdin=block(README, "sql").replace(CART, CART.replace("2", "3")))

    assert refused.stderr.startswith(block(README, "text"))


def test_yoyo_apply_installs_from_the_repository(empty_database):
    url = empty_database().replace("postgresql://", "postgresql+psycopg://")
    [line] = [line for line in block(README, "sh").splitlines() if line.startswith("yoyo apply")]
    command = line.split("#")[0].split()
    command[command.index("--database") + 1] = url

    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stderr
    with psycopg.connect(url.replace("+psycopg", "")) as conn:
        [(version,)] = conn.execute("select checkout_version() ->> 'version'").fetchall()
    assert f'RELEASE = "{version}"' in (ROOT / "db" / "deploy.py").read_text(encoding="utf-8")


def test_the_command_of_the_package_installs_as_shown_and_the_sentences_after_it_hold(empty_database):
    dsn = empty_database()
    [line] = [line for line in block(README, "sh").splitlines() if line.startswith("pycheckout migrate")]
    command = line.split()[1:]
    command[command.index("--database") + 1] = dsn

    def install(*more):
        done = run_command(*command, *more)
        assert done.returncode == 0, done.stderr

    install()
    with psycopg.connect(dsn, autocommit=True) as conn:
        assert conn.execute("select * from checkout_audit()").fetchall() == []
    install(*re.findall(r"`(--schema) (checkout) (--create-schema)`", README)[0])
    with psycopg.connect(dsn, options="-c search_path=checkout") as conn:
        assert conn.execute("select checkout_version() ->> 'version'").fetchone() is not None

    [line] = [line for line in block(README, "sh").splitlines() if line.startswith("pycheckout doctor")]
    assert line.split()[:3] == ["pycheckout", "doctor", "--database"]
    doctor = run_command("doctor", "--database", dsn)
    assert (doctor.returncode, doctor.stdout) == (0, "nothing is wrong\n")

    again = pycheckout.migrate(dsn)
    assert again.migrations == ()


def test_the_grant_of_the_readme_lets_a_service_check_out_and_nothing_else(quoted, db, connect):
    [grant] = re.findall(r"`(select checkout_grant\('shop_service'\);)`", README)
    role = f"shop_service_{db.info.dbname}"  # roles belong to the whole server, where others test as well
    db.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
    try:
        db.execute(grant.replace("shop_service", role))
        service = connect(autocommit=True)
        service.execute(sql.SQL("set role {}").format(sql.Identifier(role)))

        assert '"outcome" : "complete"' in str(
            service.execute(block(README, "sql").rstrip(";\n") + "::text").fetchone()
        )
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            service.execute("select * from cart_records")
    finally:
        db.execute(sql.SQL("drop owned by {0}; drop role {0}").format(sql.Identifier(role)))


def functions():
    return "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "db" / "functions").rglob("*.sql"))


def test_the_page_on_errors_has_each_code_and_each_kind_of_contradiction():
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    kinds = set(re.findall(r"'problem', '(\w+)'", functions()))

    for sqlstate in ("OC001", *re.findall(r"errcode = '(OC\d+)'", functions())):
        assert f"**{sqlstate} `{BY_SQLSTATE[sqlstate].code}`** ({BY_SQLSTATE[sqlstate].http_status})" in page
    for error in {*BY_SQLSTATE.values()}:
        assert f"`{error.code}`** ({error.http_status}" in page
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()


def test_the_error_table_names_every_class():
    rows = re.findall(r"^\| .*? \| `(\w+)` \|", README, re.MULTILINE)

    exported = {name: getattr(pycheckout, name) for name in pycheckout.__all__}
    classes = {n for n, it in exported.items() if isinstance(it, type) and issubclass(it, pycheckout.CheckoutError)}
    assert set(rows) == classes - {"CheckoutError", "MigrationError"}


def test_every_link_leads_somewhere():
    for document in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
