"""From each release to the next and back, while a shop sells.

Every release is kept in tests/releases/, as its wheel. The next one is a patch on a copy of this tree: one migration,
one changed function, another number. Each is run as an installed one is: by a Python of its own that finds its package
first.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from clones import cloned
from command import environment, run_command
from psycopg_pool import ConnectionPool
from quoted import quoted
from upgrade import IDS, ROOT, connect, dump, start_yoyo, value

import pycheckout
from pycheckout._release import release
from races import wait_for_waiter, wait_until

THIS = release()
MAJOR, MINOR, PATCH = map(int, THIS.split("."))
NEXT = f"{MAJOR}.{MINOR}.{PATCH + 1}"
LATER = f"{MAJOR}.{MINOR + 1}.0"

RELEASES = ROOT / "tests" / "releases"
KEPT = {wheel.name.split("-")[1]: wheel for wheel in sorted(RELEASES.glob("*.whl"))}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    version: str
    folder: Path
    """Its package is there, or what this tree has in place of it."""

    def migrations(self) -> dict[str, str]:
        """By name, what it runs and takes back."""
        [folder] = [path for path in (self.folder / "pycheckout/db", self.folder / "db") if path.is_dir()]
        return {path.name: path.read_text() for path in sorted((folder / "migrations").glob("pycheckout_*"))}


MIGRATION = """\
-- depends: {last}
-- cost: moment vendor_orders
--
-- Through which channel an order came.

do $$
begin
  perform checkout_migration_open('vendor_orders.channel');
  perform checkout_migration_lock('vendor_orders');
end
$$;

alter table vendor_orders add column if not exists channel text;

do $$
begin
  perform checkout_migration_close('{name}');
  perform checkout_comment('vendor_orders.channel', 'Through which channel it came. Null: before anybody noted it.');
end
$$;
"""
TWIN = "do $$ begin perform checkout_migration_undo('{name}'); end $$;\n"


# This tree too, unless it is what was released last.
@pytest.fixture(scope="session", params=[*KEPT, *({THIS} - KEPT.keys())])
def earlier(request, tmp_path_factory):
    """A release that a database comes from."""
    if request.param not in KEPT:
        return Release(version=THIS, folder=ROOT)
    folder = tmp_path_factory.mktemp("earlier")
    with zipfile.ZipFile(KEPT[request.param]) as wheel:
        wheel.extractall(folder)
    return Release(version=request.param, folder=folder)


@pytest.fixture(scope="session")
def following(tmp_path_factory):
    """The next release."""
    folder = tmp_path_factory.mktemp("next")
    for name in ("pycheckout", "db"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    migrations = folder / "db" / "migrations"
    number = int(IDS[-1].split("_")[1])
    name, functions = f"pycheckout_{number + 1:04d}_order_channel", f"pycheckout_{number + 2:04d}_functions"
    (migrations / f"{name}.sql").write_text(MIGRATION.format(last=IDS[-1], name=name))
    (migrations / f"{name}.rollback.sql").write_text(TWIN.format(name=name))
    old = (migrations / f"{IDS[-1]}.py").read_text()
    before = re.search(r'__depends__ = \{"(.*)"\}', old)[1]
    (migrations / f"{functions}.py").write_text(old.replace(before, name))

    replace(folder / "db" / "deploy.py", f'RELEASE = "{THIS}"', f'RELEASE = "{NEXT}"')
    orders = folder / "db" / "functions" / "checkout" / "steps" / "checkout_create_orders.sql"
    replace(orders, "attributed_token, created_at, updated_at)", "attributed_token, channel, created_at, updated_at)")
    replace(orders, "vendor_store_id::text, v_cart.converted_at", "vendor_store_id::text, 'web', v_cart.converted_at")
    subprocess.run([sys.executable, folder / "db" / "deploy.py", "--record"], check=True)
    return Release(version=NEXT, folder=folder)


@pytest.fixture(scope="session")
def _installed(_admin, server, earlier, worker_id):
    """The name of a database that the earlier release is in, to be cloned."""
    with cloned(_admin, f"pycheckout_installed_{worker_id}", "template0") as name:
        upgraded(earlier, server.dsn(name))
        yield name


@pytest.fixture(scope="session")
def _upgraded(_admin, _installed, server, following, worker_id):
    with cloned(_admin, f"pycheckout_upgraded_{worker_id}", _installed) as name:
        upgraded(following, server.dsn(name))
        yield name


@pytest.fixture
def installed(_admin, _installed, server, worker_id):
    """The URL of a database that the earlier release is in."""
    with cloned(_admin, f"pycheckout_earlier_{worker_id}", _installed) as name:
        yield server.dsn(name)


@pytest.fixture
def later(_admin, _upgraded, server, worker_id):
    """The URL of one that was upgraded to the next."""
    with cloned(_admin, f"pycheckout_later_{worker_id}", _upgraded) as name:
        yield server.dsn(name)


def test_every_release_is_kept_as_it_was_built():
    sums = [line for file in RELEASES.glob("SHA256SUMS") for line in file.read_text().splitlines()]
    assert sums == [f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.name}" for wheel in KEPT.values()]
    dated = re.findall(r"^## ([\d.]+), \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    # that of this tree is kept as soon as it was built from it
    assert {*dated} - {THIS} <= KEPT.keys() <= {*dated}


def test_no_migration_of_a_release_changes(earlier):
    """But for what the preflight looks for: yoyo knows a migration by its name alone, and runs it once."""
    now, then = Release(version=THIS, folder=ROOT).migrations(), earlier.migrations()
    first = f"{IDS[0]}.sql"
    preflight = re.compile(r"\A.*?^\$preflight\$;$", re.DOTALL | re.MULTILINE)
    for migrations in (now, then):
        migrations[first], found = preflight.subn("", migrations[first])
        assert found == 1
    assert {name: now.get(name) for name in then} == then


# What reads the migrations as files, and one that takes each back.
OF_MIGRATIONS = [
    "test_functions_hash.py",
    "test_install_script.py::test_it_installs_what_migrate_installs",
    "test_deploy.py::test_deployment_over_a_newer_release_is_refused",
    "test_migrations_fresh.py::test_every_migration_has_a_rollback_twin_and_every_twin_its_migration",
    "test_migrations_fresh.py::test_every_migration_loads_and_depends_on_the_one_before_it",
    "test_migrations_rollback.py::test_each_migration_can_be_rolled_back_and_applied_alone[fresh]",
    "test_preflight.py::test_every_migration_after_a_release_says_what_it_brings",
    "test_preflight.py::test_every_migration_says_what_it_costs",
]


@pytest.mark.timeout(900)
def test_the_tests_of_migrations_hold_for_the_next_release_too(following, tmp_path):
    """There the functions migration is no longer the only one that is no SQL."""
    shutil.copytree(following.folder, tmp_path, dirs_exist_ok=True)
    for name in ("tests", "pyproject.toml"):
        shutil.copytree(ROOT / name, tmp_path / name) if (ROOT / name).is_dir() else shutil.copy(ROOT / name, tmp_path)
    tests = [str(tmp_path / "tests" / name) for name in OF_MIGRATIONS]
    env = environment({"PYTHONPATH": str(tmp_path)})
    for name in ("TEST_DATABASE_URL", "TEST_TEMPLATE", "TEST_PGBOUNCER", "TEST_SECOND_SERVER"):
        env.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stdout + done.stderr


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new))


def command(by, *args, url):
    """What `pycheckout` of that release says."""
    done = run_command(*args, "--database", url, env={"PYTHONPATH": str(by.folder)})
    return done.returncode, done.stdout + done.stderr


def upgraded(to, url):
    code, said = command(to, "migrate", url=url)
    assert code == 0, said


CHECKOUT = """
import json, sys
import psycopg, pycheckout
from pycheckout._release import release
url, *requests = sys.argv[1:]
with psycopg.connect(url, autocommit=True) as conn:
    results = [pycheckout.execute(conn, **json.loads(request)) for request in requests]
print(json.dumps([release(), [[str(each.checkout_group_id), each.replayed] for each in results]]))
"""


def execute_by(caller, url, *requests):
    """The anchors of these checkouts, and whether each is a replay, by the wrapper of that release."""
    texts = [json.dumps(request, default=str) for request in requests]
    done = subprocess.run(
        [sys.executable, "-c", CHECKOUT, url, *texts],
        env=environment({"PYTHONPATH": str(caller.folder)}),
        cwd=caller.folder,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    by, answers = json.loads(done.stdout)
    assert by == caller.version
    return answers


def quoted_carts(conn, count):
    """What calls for that many checkouts are given."""
    shop = pycheckout.Checkout(conn)
    return [quoted(shop).request() for _ in range(count)]


def sound(conn):
    """How many carts are checked out, each once."""
    assert conn.execute("select * from checkout_audit()").fetchall() == []
    carts = value(conn, "select count(*) from cart_records where status = 'converted'")
    assert value(conn, "select count(*) from vendor_orders") == 2 * carts
    assert value(conn, "select count(*) from outbox_events where event_type = 'checkout.converted'") == carts
    return carts


@pytest.mark.parametrize("there", ["earlier", "next"])
def test_either_release_checks_out_and_replays_on_the_database_of_either(installed, earlier, following, there):
    url = installed
    with connect(url) as conn:
        first, *others = quoted_carts(conn, 3)
        [[anchor, replayed]] = execute_by(earlier, url, first)
        assert not replayed
        if there == "next":
            upgraded(following, url)

        for caller, other in zip((earlier, following), others, strict=True):
            again, [_, replayed] = execute_by(caller, url, first, other)
            assert again == [anchor, True], "a key outlives the upgrade"
            assert not replayed
        here = earlier if there == "earlier" else following
        assert value(conn, "select checkout_version() ->> 'version'") == here.version
        assert sound(conn) == 3


def test_a_shop_sells_while_it_is_upgraded(installed, following):
    """Every call is answered, and every cart is ordered once: who meets the deployment waits, or repeats."""
    url = installed
    with connect(url) as conn:
        requests = quoted_carts(conn, 300)
    finished, done, answers = threading.Event(), threading.Event(), []

    def sell(pool, mine):
        for left, request in zip(reversed(range(len(mine))), mine, strict=True):
            if left == 6:  # for after the upgrade, however long it takes
                finished.wait(60)
            if done.wait(0.08):  # a pace at which there are carts all through the upgrade
                break
            answers.append(pycheckout.execute(pool, **request))

    with closing(ConnectionPool(url, min_size=4, max_size=4, open=True)) as pool, ThreadPoolExecutor(4) as threads:
        selling = [threads.submit(sell, pool, requests[n::4]) for n in range(4)]
        wait_until(lambda: len(answers) > 20)
        try:
            upgraded(following, url)
        finally:
            finished.set()
        after = len(answers)
        wait_until(lambda: len(answers) > after + 20 or all(each.done() for each in selling))
        done.set()
        for each in selling:
            each.result()

    assert len({each.checkout_group_id for each in answers}) == len(answers) and not any(a.replayed for a in answers)
    with connect(url) as conn:
        assert sound(conn) == len(answers)
        channels = value(conn, "select array_agg(distinct coalesce(channel, '')) from vendor_orders")
        assert sorted(channels) == ["", "web"], "some were ordered before, and some after"


def test_a_checkout_under_way_is_waited_for(installed, following):
    url = installed
    with connect(url) as conn, connect(url, autocommit=False) as buyer, ThreadPoolExecutor(1) as threads:
        [request] = quoted_carts(conn, 1)
        answer = pycheckout.execute(buyer, **request)
        upgrade = threads.submit(upgraded, following, url)
        wait_for_waiter(conn, buyer.info.backend_pid, timeout=60)  # it asks for its locks a moment at a time
        assert not upgrade.done()
        buyer.commit()
        upgrade.result(timeout=60)

        assert pycheckout.execute(conn, **request).checkout_group_id == answer.checkout_group_id
        assert sound(conn) == 1


# Back again


def test_an_upgrade_is_taken_back_and_what_was_sold_stays(installed, earlier, following, program, new_role):
    url, service = installed, new_role()
    before = dump(program, url)
    with connect(url) as conn:
        first, second, third = quoted_carts(conn, 3)
        conn.execute("select checkout_grant(%s)", (service,))
        [[anchor, _]] = execute_by(earlier, url, first)
        upgraded(following, url)
        [[later, _]] = execute_by(following, url, second)
        conn.execute("update vendor_orders set channel = null")

        code, said = command(following, "rollback", "--yes", "--to", earlier.version, url=url)
        newer = {name.split(".")[0] for name in following.migrations().keys() - earlier.migrations().keys()}
        assert code == 0 and said.count("rolled back") == len(newer) >= 2, said
        assert value(conn, "select to_regproc('checkout_execute') is null"), "the older migrate brings its own"
        upgraded(earlier, url)

        assert value(conn, "select checkout_version() ->> 'version'") == earlier.version
        assert execute_by(earlier, url, first, second) == [[anchor, True], [later, True]]
        [[_, replayed]] = execute_by(earlier, url, third)
        assert not replayed
        assert value(conn, f"select has_function_privilege('{service}', 'checkout_version()', 'execute')")
        assert sound(conn) == 3
        conn.execute("select checkout_revoke(%s)", (service,))
        conn.execute(f"drop owned by {service}")
    assert dump(program, url) == before


def test_one_that_would_lose_rows_is_refused_while_the_functions_work(later, earlier, following, program):
    url = later
    with connect(url) as conn:
        [request] = quoted_carts(conn, 1)
        execute_by(following, url, request)
        before = dump(program, url)

        code, said = command(following, "rollback", "--yes", "--to", earlier.version, url=url)
        assert code == 1 and "order_channel would lose what vendor_orders.channel holds" in said
        assert dump(program, url) == before
        conn.execute("create view by_channel as select channel, count(*) from vendor_orders group by channel")
        code, said = command(following, "rollback", "--yes", "--to", earlier.version, url=url)
        assert code == 1 and "by_channel" in said and "cart_records" not in said
        assert sound(conn) == 1


def test_a_column_of_the_host_with_a_name_of_the_next_release_is_not_taken_over(installed, following, program):
    """Whoever installs meets the preflight of the first migration; whoever upgrades has it behind them."""
    url = installed
    said = "vendor_orders.channel: a column of yours, and a name that pycheckout needs"
    with connect(url) as conn:
        conn.execute("alter table vendor_orders add column channel integer")
        before = dump(program, url)

        code, planned = command(following, "migrate", "--plan", "--json", url=url)
        assert code == 1 and said in planned
        code, refused = command(following, "migrate", url=url)
        assert code == 1 and said in refused and "Rename what has a name of ours." in refused
        assert dump(program, url) == before

        # another tool gets as far as the migration itself
        done = start_yoyo("apply", dsn=url, migrations=following.folder / "db" / "migrations")
        output, _ = done.communicate(timeout=60)
        assert done.returncode != 0 and said in output
        assert dump(program, url) == before

        conn.execute("alter table vendor_orders rename column channel to channel_of_the_host")
        upgraded(following, url)
        # run again, as after a death before yoyo noted it
        conn.execute("delete from _yoyo_migration where migration_id ~ 'order_channel'")
        upgraded(following, url)


NAMED = {
    "a table": ("create table wishes (id int)", "wishes", "table"),
    "a view": ("create view wishes as select 1 as id", "wishes", "view"),
    "a materialized view": ("create materialized view wishes as select 1 as id", "wishes", "materialized view"),
    "a sequence": ("create sequence wishes", "wishes", "sequence"),
    "a domain": ("create domain wishes as int", "wishes", "domain"),
    "a type": ("create type wishes as enum ('a')", "wishes", "type"),
    "a function": ("create function wishes(int) returns int language sql return 1", "wishes", "function"),
    "an index": ("create index wishes on cart_items (moq)", "cart_items.wishes", "index"),
    "a constraint": ("alter table cart_items add constraint wishes check (true)", "cart_items.wishes", "constraint"),
}


@pytest.mark.parametrize("kind", NAMED)
def test_whatever_of_the_host_has_a_name_that_a_migration_brings_is_named(database, kind):
    statement, name, said = NAMED[kind]
    with connect(database(migrated=True)) as conn:
        conn.execute("select checkout_migration_names(%s, 'vendor_orders', 'order_money', 'ad_event_type')", (name,))
        conn.execute(statement)
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match=f"^{name}: an? {said} of yours"):
            conn.execute("select checkout_migration_names(%s)", (name,))


def test_what_the_host_has_on_older_things_is_in_nobodys_way(later, earlier, following):
    url = later
    with connect(url) as conn:
        conn.execute("create view mine as select id from vendor_orders")
        code, said = command(following, "rollback", "--yes", "--to", earlier.version, url=url)
        assert code == 0, said
        upgraded(earlier, url)
        assert value(conn, "select count(*) from mine") == 0


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("0.0.9", f"there is no release 0.0.9 that {NEXT} goes back to"),
        (LATER, f"there is no release {LATER} that {NEXT} goes back to"),
        ("v0.1.0", "a release is called 0.1.0 or the like, not 'v0.1.0'"),
        ("", "a release is called 0.1.0 or the like, not ''"),
    ],
)
def test_what_is_no_earlier_release_is_refused(later, following, program, to, said):
    before = dump(program, later)
    code, answer = command(following, "rollback", "--yes", "--to", to, url=later)
    assert code == 1 and said in answer
    assert dump(program, later) == before


def test_going_back_to_the_release_that_is_there_changes_nothing(database, program):
    url = database(migrated=True)
    before = dump(program, url)

    assert pycheckout.rollback(url, to=THIS).migrations == ()
    assert dump(program, url) == before


def test_where_nothing_is_there_is_nothing_to_take_back(database):
    assert pycheckout.rollback(database(), to=THIS).migrations == ()


def test_a_release_that_changed_no_function_is_taken_back_too(database):
    """Its number alone is in the database."""
    url = database(migrated=True)
    with connect(url) as conn:
        conn.execute("insert into checkout_releases (version, hash) values (%s, '')", (NEXT,))
        assert pycheckout.rollback(url, to=THIS).migrations == ()
        assert value(conn, "select to_regproc('checkout_execute') is null")
        assert pycheckout.migrate(url).migrations == ()
        assert value(conn, "select checkout_version() ->> 'version'") == THIS


def test_the_older_release_does_not_deploy_over_the_newer_one(later):
    with pytest.raises(pycheckout.MigrationError, match=f"the database has pycheckout {NEXT}, and an older release"):
        pycheckout.migrate(later)
