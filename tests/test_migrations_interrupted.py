"""Several at once, killed half-way, run again: each migration ends up applied once and whole."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager

import psycopg
import pytest
from upgrade import (
    IDS,
    ROOT,
    apply_until,
    connect,
    dump,
    run_yoyo,
    start_yoyo,
    value,
    without_labels,
    yoyo_backend,
    yoyo_url,
)

import pycheckout
from races import wait_for_waiter, wait_until_gone


def applied(conn):
    """Which migrations are marked, and how often each was run."""
    return [
        [row["migration_id"] for row in conn.execute(query).fetchall()]
        for query in (
            "select migration_id from _yoyo_migration order by 1",
            "select migration_id from _yoyo_log where operation = 'apply' and migration_id ~ '^pycheckout_' order by 1",
        )
    ]


# At once


def apply_at_once(url):
    processes = [start_yoyo("apply", dsn=url) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(outputs)
    with connect(url) as conn:
        assert applied(conn) == [IDS, IDS]
        assert value(conn, "select checkout_version() ->> 'version'")


@pytest.mark.parametrize("round", range(2))
def test_two_yoyo_processes_on_an_empty_database_apply_each_migration_once(empty_database, round):
    """PF-168"""
    apply_at_once(empty_database())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("round", range(50))
def test_two_yoyo_processes_fifty_times(empty_database, round):
    """PF-168"""
    apply_at_once(empty_database())


def test_two_migrations_by_the_api_apply_each_migration_once(database):
    """PF-168: on an empty database, test_migrators_at_once_queue."""
    url = database("net")
    with ThreadPoolExecutor(2) as pool:
        done = [each.result(timeout=60) for each in [pool.submit(pycheckout.migrate, url) for _ in range(2)]]

    assert sorted(len(each.migrations) for each in done) == [0, len(IDS)]
    with connect(url) as conn:
        assert applied(conn) == [IDS, IDS]


# Again


@pytest.mark.parametrize("shape", ["fresh", "net", "gross"])
def test_every_migration_can_be_run_twice(database, program, shape):
    """PF-168 to PF-171: yoyo marks a migration in another transaction than it ran in, and may die between the two."""
    url = database(shape)
    original = dump(program, url)
    with connect(url) as conn, yoyo_backend(url) as (backend, migrations):
        for migration in migrations:
            for _ in range(2):
                backend.apply_one(migration)
                backend.unmark_migrations([migration])
            backend.mark_migrations([migration])
        expected = dump(program, url)
        for migration in migrations:
            backend.unmark_migrations([migration])
            backend.apply_one(migration)
        assert dump(program, url) == expected
        assert conn.execute("select * from checkout_audit()").fetchall() == []
        assert value(conn, "select count(*) from checkout_releases") == 1

    pycheckout.rollback(url)
    assert without_labels(dump(program, url)) == without_labels(original)


def test_baseline_that_is_run_again_later_allows_for_no_more_stock(database):
    """PF-170: what pycheckout itself reserved is no stock that was reserved before."""
    url = database("net", migrated=True)
    with connect(url) as conn:
        before = conn.execute("select * from inventory_baseline order by 1").fetchall()
        conn.execute("update inventory_items set reserved_qty = reserved_qty + 5 where product_id = id('product', 3)")
        with yoyo_backend(url) as (backend, migrations):
            backend.apply_one(next(each for each in migrations if "inventory_baseline" in each.id), mark=False)
        assert conn.execute("select * from inventory_baseline order by 1").fetchall() == before


def test_names_that_a_quote_wrote_are_not_overwritten_by_another_run(database):
    """PF-170"""
    url = database("net", migrated=True)
    with connect(url) as conn:
        conn.execute("update cart_items set title = 'Mine' where id = id('item', 91)")
        with yoyo_backend(url) as (backend, migrations):
            backend.apply_one(next(each for each in migrations if "name_active_lines" in each.id), mark=False)
        assert value(conn, "select title from cart_items where id = id('item', 91)") == "Mine"


# Killed


@contextmanager
def killed_while_waiting(url, table, until):
    """A real `yoyo apply`, killed with SIGKILL while the migration after `until` waits for `table`.

    Within the block the lock that it waits for is still held, and its server process is still there.
    """
    apply_until(url, until)
    with connect(url, autocommit=False) as holder, connect(url) as watcher:
        holder.execute(f"update {table} set updated_at = updated_at")
        process = start_yoyo("apply", dsn=url)
        try:
            waiter = wait_for_waiter(watcher, holder.info.backend_pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        assert process.returncode == -signal.SIGKILL
        yield watcher, waiter
        holder.rollback()


KILLED = [
    pytest.param("vendor_orders", "name_active_lines", id="a transactional migration"),
    pytest.param("vendor_orders", "backfill_anchors", id="a concurrent index build"),
    pytest.param("cart_records", "line_snapshot", id="a transactional migration of carts"),
]


@pytest.mark.parametrize(("table", "until"), KILLED)
def test_migration_goes_on_where_a_killed_one_stopped(database, program, table, until):
    """PF-168: migrate breaks the lock that the dead process left, and the result is the usual one."""
    url = database("net")
    with killed_while_waiting(url, table, until) as (watcher, waiter):
        before = value(watcher, "select count(*) from yoyo_lock")
    with connect(url) as conn:
        wait_until_gone(conn, waiter)
        pycheckout.migrate(url, timeout=30)
        assert before == 1
        assert value(conn, "select count(*) from yoyo_lock") == 0
        assert applied(conn)[0] == IDS
        assert conn.execute("select * from checkout_audit()").fetchall() == []

    assert dump(program, url) == dump(program, database("net", migrated=True))


@pytest.mark.timeout(60)
def test_plain_yoyo_tells_who_holds_the_lock_and_how_to_break_it(database):
    """PF-168: and once it is broken, goes on."""
    url = database("net")
    with killed_while_waiting(url, "vendor_orders", "name_active_lines") as (watcher, _):
        pid = value(watcher, "select pid from yoyo_lock")
    process = start_yoyo("apply", dsn=url)
    output, _ = process.communicate(timeout=40)
    assert process.returncode != 0
    assert f"Process {pid} has locked this database" in output
    assert "yoyo break-lock" in output

    break_lock = [sys.executable, "-m", "yoyo", "break-lock", "--batch", "--no-config-file", "--database"]
    subprocess.run([*break_lock, yoyo_url(url)], check=True, cwd=ROOT)
    run_yoyo("apply", dsn=url)


def test_index_build_whose_server_process_ended_is_begun_anew(database, program):
    """PF-168: what is left is an invalid index."""
    url = database("net")
    with killed_while_waiting(url, "vendor_orders", "backfill_anchors") as (watcher, waiter):
        watcher.execute("select pg_terminate_backend(%s)", (waiter,))
        wait_until_gone(watcher, waiter)

    assert pycheckout.migrate(url, timeout=30).migrations[-1] == IDS[-1]
    assert dump(program, url) == dump(program, database("net", migrated=True))


BUILDS = [name for name in IDS if name.endswith("_index")]


def test_index_build_that_was_canceled_is_begun_anew(database, program):
    """PF-168: each of them, by yoyo; and the last by the API."""
    url = database("net")
    for build in BUILDS:
        apply_until(url, IDS[IDS.index(build) - 1])
        with connect(url, autocommit=False) as holder, connect(url) as watcher, ThreadPoolExecutor(1) as pool:
            for table in ("vendor_orders", "cart_records", "outbox_events"):
                holder.execute(f"lock table {table} in row exclusive mode")
            migration = pool.submit(pycheckout.migrate, url)
            waiter = wait_for_waiter(watcher, holder.info.backend_pid)
            watcher.execute("select pg_cancel_backend(%s)", (waiter,))
            with pytest.raises(pycheckout.Unavailable, match="canceling statement"):
                migration.result(timeout=30)
            assert value(watcher, "select count(*) from pg_index where not indisvalid") == 1

    pycheckout.migrate(url)
    assert dump(program, url) == dump(program, database("net", migrated=True))


def test_index_that_becomes_valid_while_its_build_is_to_begin_anew_stays(database):
    """PF-168: as when the server process of a killed migrator ends what it began."""
    url = database("net", migrated=True)
    index = "where indexrelid = 'idx_vendor_orders_cart_id'::regclass"
    prepare = "perform checkout_index_prepare('mine', 'vendor_orders', 'idx_vendor_orders_cart_id')"
    with connect(url) as conn, connect(url) as watcher, connect(url, autocommit=False) as builder:
        conn.execute(f"update pg_index set indisvalid = false {index}")
        builder.execute("lock table vendor_orders in share update exclusive mode")
        builder.execute(f"update pg_index set indisvalid = true {index}")
        with ThreadPoolExecutor(1) as pool:
            again = pool.submit(conn.execute, f"do $$ begin perform checkout_migration_pin(); {prepare}; end $$")
            wait_for_waiter(watcher, builder.info.backend_pid)
            builder.commit()
            again.result(timeout=30)
        assert value(watcher, f"select indisvalid from pg_index {index}")


# Locks


@pytest.mark.parametrize(("table", "until"), [KILLED[0], KILLED[2]])
def test_migration_gives_up_soon_when_a_table_is_busy(database, table, until):
    """PF-168: behind its lock request every later statement of the host would queue."""
    url = database("net")
    apply_until(url, until)
    with connect(url, autocommit=False) as holder:
        holder.execute(f"update {table} set updated_at = updated_at")
        impatient = f"{url}?options=-c%20lock_timeout%3D300ms"
        with pytest.raises((pycheckout.MigrationError, pycheckout.CheckoutError)) as caught:
            pycheckout.migrate(impatient)
        assert isinstance(caught.value.__cause__, psycopg.errors.LockNotAvailable)
    pycheckout.migrate(url)


@pytest.mark.parametrize("mode", ["row exclusive", "share update exclusive"])
def test_the_host_goes_on_while_a_migration_waits_for_a_transaction_of_its(database, mode):
    """PF-168: or for a vacuum. Behind a lock request that stays, each later statement would wait as long as it does."""
    url = database("net")
    apply_until(url, "name_active_lines")
    with connect(url, autocommit=False) as long, connect(url) as host, ThreadPoolExecutor(1) as pool:
        long.execute(f"lock table cart_records in {mode} mode")
        migration = pool.submit(pycheckout.migrate, url)
        wait_for_waiter(host, long.info.backend_pid)
        for _ in range(20):
            # were the request to stay, these would wait for the end of the long transaction, and so run into this
            host.execute("set statement_timeout = '10s'")
            host.execute("update cart_records set updated_at = now() where id = id('cart', 9)")
            host.execute("update vendor_orders set notes = 'seen' where id = id('order', 11)")
        assert not migration.done()
        long.rollback()
        assert migration.result(timeout=60).migrations[-1] == IDS[-1]


@contextmanager
def vacuumed(url):
    """run(act): every table is as if under a vacuum, and none lets go before it was waited for longer than a moment."""
    tables = "select quote_ident(tablename) as name from pg_tables where schemaname = 'public' and tablename !~ 'yoyo'"
    waited = """
        select unnest(pg_blocking_pids(pid)) as pid
          from pg_locks
         where not granted and waitstart < clock_timestamp() - interval '120 ms'
    """
    with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        watcher = stack.enter_context(connect(url))
        vacuums = {}

        def run(act, *args):
            there = watcher.execute(tables).fetchall()
            for _ in range(len(vacuums), len(there)):
                vacuum = stack.enter_context(connect(url, autocommit=False))
                vacuums[vacuum.info.backend_pid] = vacuum
            for table, vacuum in zip(there, vacuums.values(), strict=False):
                vacuum.execute(f"lock table {table['name']} in share update exclusive mode")
            running = pool.submit(act, *args)
            while not running.done():
                for row in watcher.execute(waited).fetchall():
                    if row["pid"] in vacuums:  # others wait at a server that others test at
                        vacuums[row["pid"]].rollback()
                wait([running], timeout=0.01)
            running.result()
            for vacuum in vacuums.values():
                vacuum.rollback()

        yield run


@pytest.mark.parametrize("shape", ["net", "fresh"])
def test_a_vacuum_of_any_table_fails_no_migration_and_no_rollback(database, shape):
    """PF-168: it steps aside only for who waits a second, so whoever waits less has locked the table before."""
    url = database(shape, migrated=shape == "fresh")
    with yoyo_backend(url) as (backend, migrations), vacuumed(url) as run:
        if shape != "fresh":
            for migration in migrations:
                run(backend.apply_one, migration)
        for migration in reversed(migrations):
            run(backend.rollback_one, migration)


def test_tables_of_one_migration_are_locked_together_or_not_at_all(empty_database):
    """PF-168: while one of them is busy, nobody waits for the others."""
    url = empty_database()
    apply_until(url, "0001_baseline")
    with connect(url, autocommit=False) as long, connect(url, autocommit=False) as conn:
        long.execute("select from outbox_events")
        conn.execute("set lock_timeout = '300ms'; select checkout_migration_open(); savepoint here")
        with pytest.raises(psycopg.errors.LockNotAvailable, match="no moment without a transaction on") as caught:
            conn.execute("select checkout_migration_lock('cart_records', 'outbox_events')")
        assert str(long.info.backend_pid) in caught.value.diag.message_detail
        assert f"pg_stat_activity where pid in ({long.info.backend_pid});" in caught.value.diag.message_hint
        conn.execute("rollback to here")

        long.rollback()
        conn.execute("select checkout_migration_lock('cart_records', 'outbox_events')")
        held = "select count(*) from pg_locks where pid = pg_backend_pid() and mode = 'AccessExclusiveLock'"
        assert value(conn, f"{held} and relation in ('cart_records'::regclass, 'outbox_events'::regclass)") == 2


def test_migration_bounds_its_lock_waits_by_itself(empty_database):
    """PF-168: a moment for each, and altogether a minute or what the session says."""
    url = empty_database()
    apply_until(url, "0001_baseline")
    with connect(url, autocommit=False) as conn:
        for setting, patience in (("0", "60s"), ("5s", "5s")):
            conn.execute(f"set lock_timeout = '{setting}'; select checkout_migration_open()")
            assert value(conn, "select current_setting('lock_timeout')") == "100ms"
            assert value(conn, "select current_setting('pycheckout.patience')") == patience
            conn.rollback()
            assert value(conn, "select current_setting('lock_timeout')") == "0"
