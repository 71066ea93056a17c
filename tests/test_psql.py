"""What a DBA sees in the real psql: the answer as a value to work with, and comments on everything."""

import csv
import io
import re

import pytest

from checks import values
from factories import ADDRESS

# `test_from_psql.py` has the checkout and each refusal.


@pytest.fixture
def run(psql):
    """run(script): what psql printed for a script that has no error."""

    def run(script, *args):
        done = psql("--set", "ON_ERROR_STOP=1", *args, stdin=script)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    return run


def table(printed):
    """The rows that psql printed with --csv, as dicts."""
    return list(csv.DictReader(io.StringIO(printed)))


@pytest.fixture
def checkout_script():
    """checkout_script(cart): the call with psql's variables, as a runbook has it."""

    def checkout_script(cart):
        address = ", ".join(
            f'"{name}": {value if isinstance(value, float) else chr(34) + value + chr(34)}'
            for name, value in ADDRESS.items()
        )
        return f"""
            \\set buyer '{cart.buyer_store_id}'
            \\set cart '{cart.id}'
            \\set address '{{{address}}}'
            select checkout_execute(buyer_store_id => :'buyer', cart_id => :'cart', idempotency_key => 'dba-1',
                                    shipping_address => :'address', payment_method => 'ach') as result \\gset
        """

    return checkout_script


def test_the_answer_is_taken_apart_with_jsonb_operators(run, checkout_script, add_cart):
    cart = add_cart(vendors=2, lines=2, unit_price_cents=1500, stock=100)

    printed = run(
        checkout_script(cart)
        + """
            select :'result'::jsonb ->> 'outcome' as outcome,
                   (:'result'::jsonb #>> '{totals,confirmed,total_cents}')::bigint / 100 as total,
                   jsonb_array_length(:'result'::jsonb -> 'vendor_orders') as orders;
            select vendor_order ->> 'status' as status, item ->> 'name' as name, item ->> 'qty' as qty
              from jsonb_array_elements(:'result'::jsonb -> 'vendor_orders') as vendor_order
             cross join jsonb_array_elements(vendor_order -> 'items') as item
             order by 2;
        """,
        "--csv",
    )
    totals, items = printed.split("status,name,qty")
    items = table("status,name,qty" + items)

    assert table(totals) == [{"outcome": "complete", "total": "60", "orders": "2"}]
    assert [item["name"] for item in items] == ["Product 1.1", "Product 1.2", "Product 2.1", "Product 2.2"]
    assert {(item["status"], item["qty"]) for item in items} == {("created_pending", "1")}


def test_what_became_of_a_cart_reads_the_same(run, checkout_script, add_cart):
    cart = add_cart()
    script = checkout_script(cart) + "\\pset tuples_only\n\\pset format unaligned\n"
    script += "select checkout_result(:'buyer', :'cart')::jsonb || '{\"replayed\": false}' = :'result'::jsonb;"

    assert run(script).splitlines()[-1] == "t"


def test_a_rolled_back_checkout_leaves_nothing(psql, checkout_script, add_cart, db, snapshot):
    cart = add_cart()
    before = snapshot(db)

    done = psql("--set", "ON_ERROR_STOP=1", stdin="begin;" + checkout_script(cart) + "rollback;")

    assert done.returncode == 0
    assert snapshot(db) == before


def test_a_refusal_stops_a_script_with_psqls_exit_code(psql, checkout_script, add_cart):
    done = psql("--set", "ON_ERROR_STOP=1", stdin=checkout_script(add_cart(valid_for=-1)) + "select 'not reached';")

    assert done.returncode == 3
    assert "not reached" not in done.stdout
    assert re.search(r"^ERROR: .* ran out at .*\nDETAIL: .*\nHINT: ", done.stderr, re.MULTILINE)


def test_a_bare_list_of_functions_explains_each(run, db):
    described = {row["Name"]: row for row in table(run("\\df+ \n", "--csv"))}

    ours = values(db, "select name from checkout_functions")
    assert "checkout_execute" in ours
    assert [name for name in ours if len(described[name]["Description"].split()) < 5] == []


def test_the_call_is_written_down_with_its_arguments(run):
    """What somebody who has only psql needs to write the call."""
    [described] = table(run("\\df checkout_execute\n", "--csv"))

    assert described["Argument data types"] == (
        "buyer_store_id uuid, cart_id uuid, idempotency_key text, shipping_address jsonb, payment_method text, "
        "shipping_line jsonb DEFAULT NULL::jsonb, ad_token_policy text DEFAULT 'drop'::text, "
        "reservation_policy text DEFAULT 'partial'::text, billing_address jsonb DEFAULT NULL::jsonb, "
        "purchase_order text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, "
        "expires_in interval DEFAULT NULL::interval"
    )
    assert described["Result data type"] == "json"
