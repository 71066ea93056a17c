"""docs/runbook.md: every block is run as it stands there, through the real psql and a shell, and does what it says."""

import os
import re
import subprocess
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from brokers import running
from command import PROGRAM, ROOT, environment
from crash import CrashServer
from failover import SCHEMA
from moving import SETTINGS, Died, database_of_each
from outbox import ack, claim, fail
from pages import blocks, steps
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from quoted import quoted
from roles import PASSWORD

from checks import rows, values
from pycheckout import Checkout, migrate
from pycheckout._embedded import embedded_server
from races import blocked, wait_until, wait_until_gone

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")
INTRO, *_SECTIONS = re.split(r"^## (?=\d+\. )", PAGE, flags=re.MULTILINE)
SECTIONS = {int(section.split(".")[0]): section for section in _SECTIONS}


@pytest.fixture
def cart(db, add_cart, checkout_sql):
    """A checkout with a short line, a vendor without an order, and a key; ads-2026 is a key that signs."""
    cart = add_cart(vendors=3, lines=2, items={(1, 1): {"quantity": 101}}, groups={2: {"status": "invalid"}})
    checkout_sql(db, cart, key="order-button-7f3a")
    db.execute("select ad_signing_key_put('ads-2026', %s)", (bytes(32),))
    return cart


@pytest.fixture
def owner(db, new_role):
    """What docs/deploying.md makes shop_owner: a login that owns all of this schema, and is no superuser."""
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    role = new_role()
    db.execute(re.search(r"^grant .* to shop_owner;$", page, re.MULTILINE)[0].replace("shop_owner", role))
    give = """
        select format('alter schema public owner to %%I', %(role)s::text)
         union all
        select format('alter %%s %%s owner to %%I', case relkind when 'v' then 'view' else 'table' end,
                      oid::regclass, %(role)s::text)
          from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p', 'v')
         union all
        select format('alter routine %%s owner to %%I', oid::regprocedure, %(role)s::text)
          from pg_proc where pronamespace = 'public'::regnamespace
         union all
        select format('alter type %%s owner to %%I', pg_type.oid::regtype, %(role)s::text)
          from pg_type left join pg_class on pg_class.oid = typrelid
         where typnamespace = 'public'::regnamespace and (typtype = 'e' or relkind = 'c')
    """
    for (statement,) in db.execute(give, {"role": role}).fetchall():
        db.execute(statement)
    yield role
    db.execute(f"reassign owned by {role} to current_user")


@pytest.fixture
def follow(cart, dsn, program, tmp_path, new_role, db):
    """follow(7, env={...}): runs the blocks of an item one after the other; what each of them printed.

    `owner`: a role that runs them, but for those that somebody else does, as the text before them says.
    """
    role = new_role()
    db.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))  # the runbook makes it, and the fixture drops it
    names = {"shop_service": role, "shop_restored": f"{db.info.dbname}_restored"}
    ids = {
        "buyer": cart.buyer_store_id,
        "cart": cart.id,
        "order_id": cart.groups[0].id,
        "line_id": cart.items[0].id,
        "product": cart.items[0].product_id,
    }
    [variables, bound] = blocks(INTRO)
    assert set(re.findall(r"\\set (\w+)", variables)) == {*ids, "key"}
    for name, value in ids.items():
        variables = re.sub(rf"(\\set {name} +)\S+", rf"\g<1>{value}", variables)

    libpq = {"host": "PGHOST", "port": "PGPORT", "user": "PGUSER", "password": "PGPASSWORD", "dbname": "PGDATABASE"}
    # A newer pg_restore may set what an older server does not know: that of the server's release, if it is here.
    own = Path(f"/usr/lib/postgresql/{db.info.server_version // 10000}/bin")
    clients = own if own.is_dir() else Path(program("psql")).parent
    path = os.pathsep.join([str(Path(PROGRAM).parent), str(clients), os.environ["PATH"]])
    base = environment({libpq[name]: str(value) for name, value in conninfo_to_dict(dsn).items()})
    base |= {"PATH": path, "LC_ALL": "C"}

    def follow(number, env=None, owner=None, **replaced):
        printed = []
        for before, language, text in steps(SECTIONS[number]):
            env_of_step = base | (env or {})
            if owner and not re.search("[Aa]s superuser|who may create roles:", before):
                env_of_step |= {"PGUSER": owner, "PGPASSWORD": PASSWORD}
            for old, new in (names | replaced).items():
                text = text.replace(old, new)
            if language == "sql":
                command = [program("psql"), "--no-psqlrc", "--csv", "--set", "ON_ERROR_STOP=1"]
                text = f"\\set QUIET on\n{variables}{bound}{text}"
            else:
                assert language == "sh"
                command = ["bash", "-e", "-o", "pipefail"]
            done = subprocess.run(
                command,
                input=text,
                env=env_of_step,
                cwd=tmp_path,
                capture_output=True,
                encoding="utf-8",
                timeout=120,
                check=False,
            )
            assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
            printed.append(done.stdout)
        return printed

    yield follow
    with psycopg.connect(dsn, dbname="postgres", autocommit=True) as admin:
        admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(names["shop_restored"])))


def test_there_are_twenty_items_and_more_and_each_is_followed_by_a_test():
    """So that an item that is added gets its test."""
    tests = Path(__file__).read_text(encoding="utf-8")

    assert list(SECTIONS) == list(range(1, len(SECTIONS) + 1))
    assert len(SECTIONS) >= 20
    followed = {int(number) for number in re.findall(r"follow\((\d+)[,)]", tests)}
    assert followed == {*SECTIONS}
    assert all(blocks(section) for section in SECTIONS.values())


def test_1_a_customers_checkout_is_found(follow, cart):
    [found] = follow(1)

    assert f"\n{cart.id},converted," in found
    assert ",2,2 created_pending,3000,USD" in found


def test_2_a_checkout_is_found_by_key_and_by_order(follow, cart):
    [found] = follow(2)

    assert len(re.findall(rf"^{cart.id},", found, re.MULTILINE)) == 2


def test_3_a_rejected_line_says_why(follow, cart):
    [found] = follow(3)

    assert "Product 2.2,101,insufficient_inventory," in found
    assert f"\n{cart.vendors[2]},vendor_invalid," in found


def test_4_a_replay_reads_what_the_checkout_became(follow, snapshot, db):
    before = snapshot(db)

    [found] = follow(4)

    assert '""outcome"": ""partial""' in found
    assert snapshot(db) == before


def test_5_an_order_is_canceled_once(follow, db, cart):
    first, again = follow(5), follow(5)

    assert '""replayed"": false' in first[0] and '""replayed"": true' in again[0]
    assert values(db, "select status::text from vendor_orders where id = %s", cart.groups[0].id) == ["canceled"]


def test_6_a_line_is_turned_down(follow, db, cart):
    [found] = follow(6)

    assert "Damaged in the store." in found
    assert values(db, "select status::text from order_line_items where id = %s", cart.items[0].id) == ["rejected"]


def test_7_stock_is_added_corrected_and_set(follow, cart):
    found = "".join(follow(7))

    levels = re.findall(rf"^{cart.items[0].product_id},(\d+),(\d+),", found, re.MULTILINE)
    assert levels == [("139", "1"), ("137", "1"), ("142", "1"), ("75", "1"), ("75", "1")]


def test_8_a_product_is_split_and_merged_back(follow, cart):
    found = "".join(follow(8))

    assert re.findall(rf"^{cart.items[0].product_id},99,1,(\d+),", found, re.MULTILINE) == ["16", "1"]


def test_9_what_runs_out_is_listed(follow, db, cart):
    db.execute("select inventory_set(%s, 2)", (cart.items[1].product_id,))

    [found] = follow(9)

    assert re.findall(r"^(\S{36}),(\d+),", found, re.MULTILINE) == [(str(cart.items[1].product_id), "2")]


def test_10_a_key_is_rotated_and_stands_in_no_statement(follow, db, program):
    if int(re.search(r"\d+", subprocess.check_output([program("psql"), "--version"], text=True))[0]) < 16:
        pytest.skip("this psql has no \\bind")

    listed, _ = follow(10)

    assert re.findall(r"^(ads-\d+),t,", listed, re.MULTILINE) == ["ads-2026", "ads-2027"]
    keys = rows(db, "select kid, active, octet_length(secret) as bytes from ad_signing_keys order by kid")
    assert [(key["kid"], key["active"], key["bytes"]) for key in keys] == [
        ("ads-2026", False, 32),
        ("ads-2027", True, 32),
    ]


def test_11_waiting_events_are_counted(follow):
    [found] = follow(11)

    assert len(re.findall(r"^checkout\.\w+,0,1,1,", found, re.MULTILINE)) == 2


def test_12_the_outbox_is_drained(follow, db):
    """Through a real broker, whose address is in the environment as the database's is."""
    with running("redis") as broker:
        sent, left = follow(12, env={"PYCHECKOUT_BROKER_URL": broker.url})

    assert sent == "2 events published\n"
    assert left.split() == [
        "event_type,attempt_count,events,aggregates,oldest_at,oldest_age,last_error,leased,parked",
        "event_id,event_type,attempt_count,error,parked_at",
    ]
    assert values(db, "select published_at is not null from outbox_events") == [True, True]


def test_13_events_are_sent_again(follow, db):
    """Of two, one was published and one is parked."""
    with db.transaction():
        first, second = claim(db)
        fail(db, second, max_attempts=1)
        ack(db, [first])

    [again] = follow(13)

    assert re.findall(r"^\S{36},checkout\.\w+,(\w+)$", again, re.MULTILINE) == ["published", "parked"]
    assert values(db, "select published_at is null and attempt_count = 0 from outbox_events") == [True, True]
    assert values(db, "select count(*) from outbox_dead_letters") == [0]


@pytest.fixture
def service(db, new_role, connect):
    """service(...): a session of another role than the owner."""
    role = new_role()
    db.execute("select checkout_grant_quotes(%s)", (role,))
    sessions = []

    def service(**kwargs):
        sessions.append(connect(user=role, password=PASSWORD, **kwargs))
        return sessions[-1]

    yield service
    for session in sessions:  # before the role and the owner go, who wait for their locks
        session.close()


def test_14_who_blocks_whom_is_shown_and_ended(follow, owner, db, service, cart):
    """Who blocks nobody stays, a backup for one."""
    lock = "select from cart_records where id = %s for update"
    holder, waiter, backup = service(), service(autocommit=True), service()
    pids = [conn.info.backend_pid for conn in (waiter, holder)]
    holder.execute(lock, (cart.id,))
    backup.execute("select from cart_records")
    with blocked(db, lambda conn: conn.execute(lock, (cart.id,)), waiter) as waiting:
        shown, ended = follow(14, owner=owner, **{"10 minutes": "0 seconds"})
        waiting.result(timeout=10)

    assert re.search(r"^{},\w+,[\d:]+,{},\w+,idle in transaction,".format(*pids), shown, re.MULTILINE)
    assert ended == "pg_terminate_backend\nt\n"
    wait_until_gone(db, pids[1])
    backup.execute("select from cart_records")


def test_15_what_holds_vacuum_back_is_shown(follow, owner, service):
    reader = service()
    reader.execute("set transaction isolation level repeatable read")
    reader.execute("select count(*) from cart_records")

    [found] = follow(15, owner=owner)

    assert re.search(rf"^{reader.info.backend_pid},\w+,idle in transaction,\d+,", found, re.MULTILINE)
    assert "inventory_items," in found


def test_16_old_keys_and_carts_are_purged(follow, db, cart):
    db.execute("update vendor_orders set status = 'closed'")
    db.execute("update checkout_requests set created_at = now() - interval '1 year'")
    with db.transaction():
        db.execute("insert into cart_change_permits (cart_id) values (%s)", (cart.id,))
        db.execute("update cart_records set converted_at = now() - interval '3 years'")
        db.execute("delete from cart_change_permits")

    [found] = follow(16)

    assert found.split() == [
        *("checkout_requests_purge", "1", "cart_purge", "1", "outbox_purge", "0"),
        *("inventory_changes_purge", "0"),
    ]


def test_17_a_person_is_erased_cart_by_cart(follow, db, cart, snapshot):
    [found] = follow(17)

    assert found.split() == ["checkout_erase", "4", "cart_id,rows", f"{cart.id},0"]
    assert "12 Main Street" not in str(snapshot(db))


@pytest.mark.breaks_invariants
def test_18_an_audit_names_what_is_broken(follow, db):
    [healthy] = follow(18)
    db.execute("update payment_intents set amount_cents = amount_cents + 1")
    [broken] = follow(18)

    assert healthy.split() == ["invariant,id,expected,found"] * 2
    assert broken.count("intent_is_order_total") == 4


def test_19_an_upgrade_is_planned_made_and_looked_at(follow, owner, db, service):
    db.execute("insert into checkout_releases (version, hash) values ('0.0.9', 'old')")
    long = service()
    long.execute("select from cart_records")

    version, upgrade = follow(19, owner=owner, **{"1 minute": "0 seconds"})

    assert '""version"": ""0.0.9""' in version
    assert re.search(rf"^{long.info.backend_pid},\w+,idle in transaction,", version, re.MULTILINE)
    assert "has the functions of 0.0.9, and would get those of" in upgrade
    assert upgrade.endswith("nothing is wrong\n")


def test_20_and_21_a_service_comes_and_goes(follow, owner, db):
    _, granted = follow(20, owner=owner)
    [role] = set(values(db, "select role_name from checkout_roles"))

    assert re.findall(rf"^{role},(\w+)$", granted, re.MULTILINE) == ["checkout", "operators", "orders", "quotes"]
    assert values(db, "select has_function_privilege(%s, 'checkout_result(uuid, uuid)', 'execute')", role) == [True]

    _, where, *_ = follow(21, owner=owner)
    assert where.split() == ["datname"], "it had nothing but what the functions gave it"
    assert values(db, "select role_name from checkout_roles") == []
    assert values(db, "select rolname from pg_roles where rolname = %s", role) == []


def test_21_what_a_leaked_role_was_granted_is_taken_also_where_it_cannot_be_dropped(follow, owner, db, empty_database):
    """Another database gave it something too."""
    follow(20, owner=owner)
    [role] = set(values(db, "select role_name from checkout_roles"))
    with psycopg.connect(empty_database(), autocommit=True) as other:
        other.execute(f"grant usage on schema public to {role}")
        with pytest.raises(AssertionError, match=f"{other.info.dbname}(?s:.*)cannot be dropped"):
            follow(21, owner=owner)
        other.execute(f"drop owned by {role}")
    assert values(db, "select role_name from checkout_roles") == []
    assert values(db, "select has_function_privilege(%s, 'checkout_result(uuid, uuid)', 'execute')", role) == [False]


@pytest.mark.breaks_invariants  # the audit at the end looks in public, where nothing is any more
def test_22_everything_moves_to_another_schema(follow, dsn, add_cart, checkout_sql, request):
    request.getfixturevalue("postgresql").close()
    *_, doctor = follow(22)

    assert doctor == "nothing is wrong\n"
    with closing(psycopg.connect(dsn, autocommit=True)) as moved:
        assert values(moved, "select current_schema()::text") == ["market_eu"]
        other = add_cart(conn=moved)
        assert checkout_sql(moved, other)["outcome"] == "complete"
        assert rows(moved, "select * from checkout_audit()") == []
        with pytest.raises(psycopg.DatabaseError, match="is converted and cannot be changed"):
            moved.execute("delete from cart_records where id = %s", (other.id,))


def test_23_a_restored_dump_is_verified(follow, db, dsn, cart, checkout_sql, new_role):
    role = new_role()
    db.execute("select checkout_grant(%s)", (role,))

    *_, verified = follow(23)

    assert verified.splitlines()[-1] == "invariant,id,expected,found"
    with psycopg.connect(dsn, dbname=f"{db.info.dbname}_restored", autocommit=True) as restored:
        assert checkout_sql(restored, cart, key="order-button-7f3a")["replayed"] is True
        settings = "select unnest(setconfig) from pg_db_role_setting join pg_database on pg_database.oid = setdatabase"
        assert "lock_timeout=5s" in values(restored, settings + " where datname = current_database()")
        restored.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))


def test_24_the_primary_says_who_follows_it(follow, owner):
    """What comes after it is drilled in test_failover.py."""
    [found] = follow(24, owner=owner)

    assert found.startswith("application_name,sync_state,bytes_behind\n")
    assert found.endswith("waiting_for_a_standby\n0\nis_a_standby\nf\n")


def contents(conn, schema):
    """Every row of every table of a schema but yoyo's, as text."""
    tables = values(conn, "select tablename::text from pg_tables where schemaname = %s and tablename !~ 'yoyo'", schema)
    query = "select t::text as row from {} as t order by 1"
    return {name: values(conn, sql.SQL(query).format(sql.Identifier(schema, name))) for name in sorted(tables)}


@pytest.mark.breaks_invariants  # as for 22
def test_25_one_schema_is_copied_to_another_server_under_another_name(
    follow, db, dsn, cart, add_cart, checkout_sql, new_role, request
):
    """Beside it stands a schema that stays where it is."""
    role = new_role()
    db.execute("select checkout_grant(%s)", (role,))
    request.getfixturevalue("postgresql").close()
    follow(22)
    with closing(psycopg.connect(dsn, autocommit=True)) as moved, embedded_server(fsync=False, in_memory=True) as other:
        moved.execute("create table public.left_alone ()")
        with psycopg.connect(other.dsn(), autocommit=True) as conn:
            conn.execute(sql.SQL("create role {}").format(sql.Identifier(role)))

        *_, verified, doctor = follow(25, env={"OTHER": other.dsn()})

        assert verified.splitlines()[-1] == "invariant,id,expected,found"
        assert doctor == "nothing is wrong\n"
        expected = contents(moved, "market_eu")
        with psycopg.connect(other.dsn(), autocommit=True) as copy:
            assert values(copy, "select to_regclass('public.left_alone') is null") == [True]
            granted = "has_function_privilege(%s, 'market_eu_copy.checkout_result(uuid, uuid)', 'execute')"
            assert values(copy, f"select {granted}", role) == [True]
            found = contents(copy, "market_eu_copy")
            of_the_server = {"checkout_roles"}  # which knows roles by oid
            assert {name for name in expected if found.get(name) != expected[name]} <= of_the_server
            assert len(expected["order_line_items"]) == 4
            copy.execute("set search_path = market_eu_copy")
            assert checkout_sql(copy, cart, key="order-button-7f3a")["replayed"] is True
            another = add_cart(conn=copy)
            assert checkout_sql(copy, another)["outcome"] == "complete"
            assert rows(copy, "select * from checkout_audit()") == []
            with pytest.raises(psycopg.DatabaseError, match="is converted and cannot be changed"):
                copy.execute("delete from cart_records where id = %s", (another.id,))


@pytest.fixture(scope="module")
def two():
    """Two servers; the first has a market in its database `postgres`."""
    with embedded_server(**SETTINGS) as a, embedded_server(**SETTINGS) as b:
        migrate(a.dsn(), schema=SCHEMA, create_schema=True)
        yield a, b


@pytest.fixture
def fleet(two):
    """A market at a, in a database that a test has for itself; what it kills is there again at its end."""
    machines = [CrashServer.of(server) for server in two]
    with database_of_each(dict(zip("ab", (server.dsn() for server in two), strict=True)), "runbook") as fleet:
        yield fleet
        for machine in machines:
            machine.start_again()


def test_26_a_move_that_stands_still_is_taken_back_or_goes_on(follow, fleet, tmp_path):
    """Each way from each step is tried in test_moves.py."""
    with pytest.raises(Died):
        fleet.move("b", dies_at="freeze").run()

    follow(26, env={"PYCHECKOUT_MARKETS": fleet.written_map(tmp_path / "markets.toml")})

    found = fleet.status()
    assert (found["a"].state, found["b"].state) == ("moved", "selling")
    assert found["b"].epoch == 2, "the first was taken back"


@pytest.fixture
def moved(two, fleet, tmp_path):
    """A market that moved to b, which a follows; both servers, and what names the market to a shell and to psql."""
    a, b = two
    assert fleet.move("b").run().followed_until
    libpq = {"PGHOST": b.host, "PGPORT": str(b.port), "PGUSER": b.user, "PGPASSWORD": b.password}
    libpq |= {"PGDATABASE": "runbook", "PGOPTIONS": f"-c search_path={SCHEMA}"}
    return fleet, a, b, libpq | {"PYCHECKOUT_MARKETS": fleet.written_map(tmp_path / "markets.toml", at="b")}


def test_29_the_follower_takes_the_place_of_a_server_that_is_gone(follow, moved):
    fleet, a, b, env = moved
    with fleet.connect("b") as conn:
        checkout = Checkout(conn, schema=SCHEMA)
        carts = [quoted(checkout), quoted(checkout)]
        answer = checkout.execute(**carts[0].request())
    with fleet.connect("a") as conn:
        asked = "select count(*) from checkout_requests"
        wait_until(lambda: values(conn, asked) == [1], "a does not follow", 30)
    CrashServer.of(b).kill()
    env |= {"PGHOST": a.host, "PGPORT": str(a.port), "PGUSER": a.user, "PGPASSWORD": a.password}

    follow(29, env=env)

    with fleet.connect("a") as conn:
        checkout = Checkout(conn, schema=SCHEMA)
        assert checkout.execute(**carts[0].request()).vendor_orders == answer.vendor_orders
        [first, *_] = checkout.execute(**carts[1].request()).vendor_orders
        assert first.order_number not in {each.order_number for each in answer.vendor_orders}
        assert rows(conn, "select * from checkout_audit()") == []
        assert values(conn, "select 1 from pg_trigger where tgname = 'market_gate'") == []
    migrate(fleet.databases["a"], schema=SCHEMA)


def left_of_a_way_back(fleet):
    with fleet.connect("b") as conn:
        return values(
            conn,
            "select slot_name::text from pg_replication_slots union all select pubname from pg_publication"
            " union all select rolname from pg_roles where rolname like 'pycheckout_move_%%'"
            " union all select 'settled' from checkout_market where followed_until is null",
        )


def test_27_a_way_back_is_ended(follow, moved):
    fleet, _, _, env = moved
    follow(27, env=env)
    assert left_of_a_way_back(fleet) == ["settled"]


def test_28_a_way_back_is_ended_without_the_server_that_followed(follow, moved):
    fleet, a, _, env = moved
    CrashServer.of(a).kill()
    with fleet.connect("b") as market:
        still = "select 1 from pg_replication_slots where active"
        wait_until(lambda: not values(market, still), "the dead server is still followed", 30)
    follow(28, env=env)
    assert left_of_a_way_back(fleet) == ["settled"]
    migrate(fleet.databases["b"], schema=SCHEMA)
