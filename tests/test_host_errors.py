"""What a host's triggers and keys raise during a call: a trigger's error stays its own, a key is the quote's fault."""

import asyncio
import json
from contextlib import contextmanager

import psycopg
import pytest
from command import run_command
from psycopg_pool import AsyncConnectionPool, ConnectionPool

import pycheckout
from checks import values
from factories import ADDRESS, request_of
from pycheckout._errors import failed_inside, translated

KEY = """
    create table host_stores (id uuid primary key);
    alter table vendor_orders add constraint host_key foreign key (vendor_store_id) references host_stores
      deferrable initially deferred
"""
# A host's trigger on orders, by what goes wrong in it.
TRIGGERS = {
    "42883": "perform host_audit(new.id)",
    "42501": "perform from host_secrets",
    "42P01": "perform from host_table_that_is_not_there",
    "3F000": "create table host_schema.host_table ()",
    "22P02": "perform 'x'::uuid",
    "22P05": "perform '\"\\u0000\"'::jsonb ->> 0",
    "22021": "perform convert_from('\\xff', 'UTF8')",
    "54000": "raise program_limit_exceeded",
    "54001": "raise statement_too_complex",
}


@pytest.fixture
def trigger(db):
    """trigger(body): a trigger of the host on vendor_orders with this statement in it, run as a role without rights."""

    def trigger(body, create="trigger host_trigger before insert on vendor_orders"):
        db.execute("create table host_secrets ()")
        db.execute(
            "create function host_trigger() returns trigger language plpgsql security definer as $$ begin"
            f" {body}; return new; end $$"
        )
        db.execute("alter function host_trigger owner to pg_monitor")
        db.execute(f"create {create} for each row execute function host_trigger()")

    return trigger


@contextmanager
def of_the_host(sqlstate):
    with pytest.raises(psycopg.Error) as caught:
        yield
    assert caught.value.sqlstate == sqlstate
    assert failed_inside(caught.value)


@pytest.mark.parametrize("sqlstate", TRIGGERS)
def test_an_error_of_a_hosts_trigger_comes_as_it_is(db, dsn, pool, postgresql, trigger, add_cart, checkout, sqlstate):
    """Not as "migrate is due" or "correct the request": with a pool, autocommit on and in the caller's transaction."""
    trigger(TRIGGERS[sqlstate])
    cart = add_cart()
    for conn in (db, pool, postgresql):
        with of_the_host(sqlstate):
            checkout(conn, cart)
    postgresql.rollback()

    async def test():
        async with AsyncConnectionPool(dsn, min_size=1, open=False) as pool:
            await pycheckout.execute_async(pool, **request_of(cart))

    with of_the_host(sqlstate):
        asyncio.run(test())


@pytest.mark.parametrize("setting", ["quote_all_identifiers = on", "search_path = pg_catalog, public"])
def test_settings_that_change_how_a_name_is_written_change_nothing(db, trigger, add_cart, checkout, setting):
    trigger("perform host_audit(new.id)")
    cart = add_cart()
    db.execute(f"set {setting}")
    with of_the_host("42883"):
        checkout(db, cart)


def test_a_trigger_of_the_host_that_waits_too_long_is_busy(db, trigger, add_cart, checkout):
    """What can be tried again can be, wherever it comes from."""
    trigger("raise lock_not_available")
    with pytest.raises(pycheckout.Busy):
        checkout(db, add_cart(), key="k1")


@pytest.mark.breaks_invariants
def test_a_missing_step_of_ours_is_busy_and_named(postgresql, db, add_cart, checkout):
    """The call was found: a deployment is replacing its steps. Which one is gone, the server's own message says."""
    cart = add_cart()
    db.execute("drop function checkout_lock_cart")
    with pytest.raises(pycheckout.Busy, match=r"checkout_lock_cart.*\n.*`pycheckout doctor`") as caught:
        checkout(postgresql, cart)
    assert (caught.value.sqlstate, caught.value.retryable) == ("42883", True)
    assert isinstance(caught.value.__cause__, psycopg.errors.UndefinedFunction)


def test_a_step_that_a_deployment_replaces_is_waited_for(db, pool, add_cart, checkout, monkeypatch):
    cart = add_cart()
    db.execute("alter function checkout_lock_cart rename to checkout_locked_cart")
    monkeypatch.setattr(
        "pycheckout._connection.time.sleep",
        lambda _: db.execute("alter function checkout_locked_cart rename to checkout_lock_cart"),
    )
    assert checkout(pool, cart).outcome == "complete"


@pytest.mark.parametrize("cursor_factory", [psycopg.Cursor, psycopg.ClientCursor, psycopg.RawCursor])
@pytest.mark.parametrize("logged", ["0", "-1"])
def test_what_the_caller_sent_is_told_from_what_a_trigger_met(connect, add_cart, cursor_factory, logged):
    """The server repeats arguments that it cannot read, if it is set to; a name of ours in one changes nothing."""
    conn = connect(autocommit=True, cursor_factory=cursor_factory)
    conn.execute(f"set log_parameter_max_length_on_error = {logged}")
    cart = add_cart()
    for text in ("x", "PL/pgSQL function checkout_execute(", "a\nPL/pgSQL function checkout_execute(uuid) line 1"):
        with pytest.raises(pycheckout.InvalidRequest):
            pycheckout.result(conn, buyer_store_id=cart.buyer_store_id, cart_id=text)
        with pytest.raises(pycheckout.InvalidRequest):
            pycheckout.put_cart(conn, {"id": text + "\0"})


def test_in_a_callers_transaction_a_missing_function_is_said_in_a_sentence(postgresql, db, add_cart, checkout):
    cart = add_cart()
    db.execute("alter function checkout_execute rename to checkout_executed")
    with pytest.raises(pycheckout.NotInstalled, match=r"`pycheckout doctor`.*`pycheckout migrate`") as caught:
        checkout(postgresql, cart)
    assert caught.value.sqlstate == "42883" and "pass schema=" in caught.value.hint
    db.execute("alter function checkout_executed rename to checkout_execute")


# Deferred to the commit


def refused(caught):
    error = caught.value
    assert (type(error), error.sqlstate) == (pycheckout.CartInconsistent, "23503")
    assert "host_key" in error.message and error.hint
    return error.detail


@pytest.mark.parametrize("isolation", [None, psycopg.IsolationLevel.REPEATABLE_READ])
def test_a_deferred_key_is_a_fault_of_the_quote(db, dsn, add_cart, checkout, nothing_written, isolation):
    """As Django makes them: the vendor is missing, and the COMMIT says so."""
    db.execute(KEY)
    cart = add_cart()
    about = {"cart_id": str(cart.id), "problem": "constraint", "constraint": "host_key", "table": "vendor_orders"}

    def configure(conn):
        conn.isolation_level = isolation

    async def configure_async(conn):
        await conn.set_isolation_level(isolation)

    async def test():
        async with AsyncConnectionPool(dsn, min_size=1, open=False, configure=configure_async) as pool:
            await pycheckout.execute_async(pool, **request_of(cart))

    with nothing_written():
        with ConnectionPool(dsn, min_size=1, open=True, configure=configure) as pool:
            with pytest.raises(pycheckout.CartInconsistent) as caught:
                checkout(pool, cart)
            assert refused(caught) == about
        with pytest.raises(pycheckout.CartInconsistent) as caught:
            checkout(db, cart)
        assert refused(caught) == about
        with pytest.raises(pycheckout.CartInconsistent) as caught:
            asyncio.run(test())
        assert refused(caught) == about

    db.execute("insert into host_stores select distinct vendor_store_id from cart_vendor_groups")
    assert checkout(db, cart).outcome == "complete"


def test_a_constraint_trigger_that_is_deferred_is_one_too(db, trigger, add_cart, checkout):
    trigger(
        "raise check_violation using constraint = 'host_rule'",
        "constraint trigger host_trigger after insert on vendor_orders deferrable initially deferred",
    )
    with pytest.raises(pycheckout.CartInconsistent) as caught:
        checkout(db, add_cart())
    assert (caught.value.sqlstate, caught.value.detail["constraint"]) == ("23514", "host_rule")


def test_in_the_callers_transaction_the_commit_is_the_callers(db, postgresql, add_cart, checkout):
    """Another statement of the caller's may have broken the rule: what psycopg raises comes as it is."""
    db.execute(KEY)
    cart = add_cart()
    assert checkout(postgresql, cart).outcome == "complete"
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        postgresql.commit()
    assert values(db, "select count(*) from vendor_orders") == [0]


def test_a_quote_that_breaks_a_deferred_key_is_refused_too(db):
    db.execute("create table host_buyers (id uuid primary key)")
    db.execute(
        "alter table cart_records add constraint host_key foreign key (buyer_store_id) references host_buyers"
        " deferrable initially deferred"
    )
    quote = {
        "id": "ca000000-0000-4000-8000-000000000001",
        "buyer_store_id": "b0000000-0000-4000-8000-000000000001",
        "currency": "USD",
        "valid_until": "2999-01-01T00:00:00Z",
        "vendor_groups": [],
    }
    with pytest.raises(pycheckout.CartInconsistent) as caught:
        pycheckout.put_cart(db, quote)
    assert refused(caught)["cart_id"] == quote["id"]


def test_the_command_says_it_in_a_line(db, dsn, add_cart):
    db.execute(KEY)
    cart = add_cart()
    ids = ["--buyer", str(cart.buyer_store_id), "--cart", str(cart.id)]
    request = ["--key", "k1", "--payment-method", "ach", "--address", json.dumps(ADDRESS)]

    done = run_command("execute", "--json", "--database", dsn, *ids, *request)

    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["code"], error["detail"]["constraint"]) == (1, "cart_inconsistent", "host_key")


def test_errors_that_no_function_of_ours_raised_keep_their_class(db):
    with pytest.raises(psycopg.Error) as caught:
        db.execute("select host_function()")
    assert not failed_inside(caught.value)
    assert type(translated(caught.value)) is pycheckout.NotInstalled
