"""PF-174: carts of the past can be deleted, by the owner alone and never before their orders have ended.

What the three purges have in common is here too: batches, oldest first, and nobody waits.
"""

import psycopg
import pytest

from checks import blocks_again, refused, rows, vacuum, values

ENDED = ["rejected", "delivered", "closed", "canceled", "expired"]
OPEN = ["created_pending", "accepted", "partially_accepted", "fulfilled", "partially_fulfilled", "hold", "in_transit"]


def purge(conn, older_than="0"):
    [deleted] = values(conn, "select cart_purge(%s::interval)", older_than)
    return deleted


def ended(db, status="closed"):
    if status in ("rejected", "canceled", "expired"):  # nothing that has ended so may hold stock
        db.execute("select vendor_order_cancel(id, 'off') from vendor_orders")
    db.execute("update vendor_orders set status = %s::text::vendor_order_status", (status,))


def ids(db):
    return values(db, "select id from cart_records order by id")


@pytest.mark.parametrize("status", ENDED)
def test_a_cart_whose_orders_have_ended_goes_and_its_orders_stay(db, add_cart, checkout_sql, status):
    """PF-174: the cart with its groups and items is deleted; orders, lines, intents and events are not."""
    cart = add_cart()
    checkout_sql(db, cart)
    ended(db, status)
    tables = ["vendor_orders", "order_line_items", "payment_intents", "outbox_events", "inventory_items"]
    before = {table: rows(db, f"select * from {table} order by 1") for table in tables}

    assert purge(db) == 1

    for table in ("cart_records", "cart_vendor_groups", "cart_items", "cart_change_permits"):
        assert values(db, f"select count(*) from {table}") == [0], table
    assert {table: rows(db, f"select * from {table} order by 1") for table in tables} == before
    assert values(db, "select distinct cart_id from vendor_orders") == [cart.id]


@pytest.mark.parametrize("status", OPEN)
def test_a_cart_with_an_order_that_has_not_ended_stays(db, add_cart, checkout_sql, status):
    """PF-174: one open order of several is enough."""
    cart = add_cart(vendors=2)
    checkout_sql(db, cart)
    ended(db)
    if status == "fulfilled":
        db.execute("update vendor_orders set status = 'accepted' where id = %s", (cart.groups[0].id,))
        db.execute("select order_line_fulfil(id) from order_line_items where order_id = %s", (cart.groups[0].id,))
    reopen = "update vendor_orders set status = %s::text::vendor_order_status where id = %s"
    db.execute(reopen, (status, cart.groups[0].id))
    assert purge(db) == 0
    assert ids(db) == [cart.id]


def test_the_states_that_count_as_ended_are_all_decided_on(db):
    """PF-174: a state added to this list is put on one side or the other."""
    assert sorted(values(db, "select unnest(enum_range(null::vendor_order_status))::text")) == sorted(ENDED + OPEN)


def test_quotes_that_are_good_and_young_carts_stay(db, add_cart, checkout_sql):
    """PF-174: older_than counts from the conversion."""
    active, young, old = add_cart(), add_cart(), add_cart()
    for cart in (young, old):
        checkout_sql(db, cart)
    ended(db)
    db.execute("alter table cart_records disable trigger user")
    db.execute("update cart_records set converted_at = now() - interval '31 days' where id = %s", (old.id,))
    db.execute("alter table cart_records enable trigger user")

    assert purge(db, "30 days") == 1
    assert ids(db) == [active.id, young.id]


def test_a_wholly_rejected_cart_can_go(db, add_cart, checkout_sql):
    """PF-174: its orders ended when they began."""
    checkout_sql(db, add_cart(stock=0))
    assert purge(db) == 1


@pytest.mark.parametrize("older_than", [None, "-1 day"])
def test_a_purge_without_a_sensible_age_is_refused(db, add_cart, checkout_sql, snapshot, older_than):
    """PF-174: a mistake deletes nothing."""
    checkout_sql(db, add_cart(stock=0))
    before = snapshot(db)
    with refused("OC005") as refusal:
        purge(db, older_than)
    assert refusal.detail["field"] == "older_than"
    assert snapshot(db) == before


def test_an_age_beyond_all_time_deletes_nothing(db, add_cart, checkout_sql):
    """PF-174: an interval that reaches before the calendar is no error."""
    checkout_sql(db, add_cart(stock=0))
    assert purge(db, "10000000 years") == 0


@pytest.mark.parametrize("action", ["cascade", "set null", "set default"])
def test_a_foreign_key_that_would_carry_the_deletion_on_to_orders_is_named(db, add_cart, checkout_sql, action):
    """PF-174: an existing database may have one; the purge refuses instead of deleting orders."""
    checkout_sql(db, add_cart(stock=0))
    db.execute(
        "alter table vendor_orders add constraint vendor_orders_cart_fk"
        f" foreign key (cart_id) references cart_records on delete {action}"
    )
    with pytest.raises(psycopg.errors.DependentObjectsStillExist) as caught:
        purge(db)
    assert "vendor_orders_cart_fk" in caught.value.diag.message_primary
    assert caught.value.diag.message_hint.endswith("ALTER TABLE vendor_orders DROP CONSTRAINT vendor_orders_cart_fk;")
    db.execute(caught.value.diag.message_hint.partition(": ")[2])
    assert purge(db) == 1


def test_what_the_host_hangs_on_a_cart_goes_with_it(db, add_cart, checkout_sql):
    """PF-174: only orders are protected from a cascade."""
    cart = add_cart(stock=0)
    checkout_sql(db, cart)
    db.execute("create table cart_notes (cart_id uuid primary key references cart_records on delete cascade)")
    db.execute("insert into cart_notes values (%s)", (cart.id,))
    assert purge(db) == 1
    assert values(db, "select count(*) from cart_notes") == [0]


def test_a_purge_opens_other_carts_to_nobody_and_leaves_no_permit(db, connect, add_cart, checkout_sql):
    """PF-174: the permit is for the purged carts alone and ends with the call, not with the transaction."""
    gone, kept = add_cart(stock=0), add_cart()
    for cart in (gone, kept):
        checkout_sql(db, cart)
    with connect() as conn:
        assert purge(conn) == 1
        assert values(conn, "select count(*) from cart_change_permits") == [0]
        with refused("OC009"):
            conn.execute("update cart_items set quantity = 2 where cart_id = %s", (kept.id,))


def test_a_purged_cart_is_not_found_and_its_key_stands_for_no_other(db, add_cart, checkout_sql):
    """PF-174: the retention of carts must be longer than that of keys: a retry after it finds nothing."""
    cart = add_cart(stock=0)
    checkout_sql(db, cart)
    purge(db)
    with refused("OC001"):
        checkout_sql(db, cart)
    with refused("OC006"):
        checkout_sql(db, add_cart(buyer_store_id=cart.buyer_store_id))


def test_a_cart_that_is_replayed_is_passed_over(db, connect, add_cart, checkout_sql):
    """PF-174: nobody's cart goes away under a call that reads it, and the purge waits for none."""
    replayed, other = add_cart(stock=0), add_cart(stock=0)
    first = checkout_sql(db, replayed)
    checkout_sql(db, other)
    with connect() as buyer:
        assert checkout_sql(buyer, replayed) == first | {"replayed": True}
        assert purge(db) == 1
        assert ids(db) == [replayed.id]
        buyer.commit()
    assert purge(db) == 1


def test_replays_of_other_carts_go_on_while_a_purge_is_under_way(db, connect, add_cart, checkout_sql):
    """PF-174: what a purge locks is what it deletes."""
    old, kept = add_cart(stock=0), add_cart()
    for cart in (old, kept):
        checkout_sql(db, cart)
    with connect() as owner, connect(autocommit=True) as buyer:
        assert purge(owner) == 1
        buyer.execute("set lock_timeout = '1ms'")
        assert checkout_sql(buyer, kept)["replayed"]
        assert checkout_sql(buyer, kept, key="k2")["replayed"]
        another = add_cart(buyer_store_id=kept.buyer_store_id)
        assert checkout_sql(buyer, another, key="k3")["outcome"] == "complete"


def test_of_two_purges_at_once_each_deletes_what_the_other_has_not(db, connect, add_cart, checkout_sql):
    """PF-174: neither waits, and no cart is counted twice."""
    for _ in range(3):
        checkout_sql(db, add_cart(stock=0))
    with connect() as first:
        assert values(first, "select cart_purge('0', 2)") == [2]
        assert purge(db) == 1
        assert purge(db) == 0
        first.commit()
    assert ids(db) == []


# Quotes


def test_a_quote_goes_once_it_ran_out_that_long_ago(db, add_cart):
    """PF-174: abandoned carts are most of the carts."""
    day = 86_400
    old, young, running = (add_cart(valid_for=seconds, stock=None) for seconds in (-31 * day, -29 * day, day))
    assert purge(db, "30 days") == 1
    assert ids(db) == [young.id, running.id]
    assert values(db, "select distinct cart_id from cart_items order by 1") == [young.id, running.id]
    assert old.id not in values(db, "select distinct cart_id from cart_vendor_groups")
    assert values(db, "select count(*) from cart_change_permits") == [0]


def test_a_quote_that_somebody_works_on_is_passed_over(db, connect, add_cart, checkout_sql):
    """PF-174: whoever quotes it anew, or checks it out, finds it there."""
    cart = add_cart(valid_for=-60)
    with connect() as quoting:
        quoting.execute("update cart_records set valid_until = now() + interval '1 hour'")
        assert purge(db) == 0
        quoting.commit()
    assert purge(db) == 0
    checkout_sql(db, cart)


def test_a_status_of_the_host_is_the_hosts(db, add_cart):
    """PF-174: a cart that is neither active nor converted is not ours to delete."""
    db.execute("alter type cart_status add value 'abandoned'")
    add_cart(valid_for=-60, cart={"status": "abandoned"})
    assert purge(db) == 0


def test_a_cart_that_the_earlier_system_converted_goes_by_the_end_of_its_quote(db, add_cart, checkout_sql):
    """PF-174: it did not note when it converted."""
    checkout_sql(db, add_cart(stock=0))
    db.execute("alter table cart_records disable trigger user")
    db.execute("update cart_records set converted_at = null, valid_until = now() + interval '1 hour'")
    assert purge(db) == 0
    db.execute("update cart_records set valid_until = now()")
    assert purge(db) == 1


# Batches: the same of all purges

PURGES = {
    "cart_purge": "cart_records",
    "checkout_requests_purge": "checkout_requests",
    "inventory_changes_purge": "inventory_changes",
    "outbox_purge": "outbox_events",
}
AGE = {
    "cart_purge": ["alter table cart_records disable trigger user", "update cart_records set converted_at = {}"],
    "checkout_requests_purge": ["update checkout_requests set created_at = {}"],
    "inventory_changes_purge": ["update inventory_changes set created_at = {}"],
    "outbox_purge": [
        "delete from outbox_events where event_type = 'checkout.converted'",
        "update outbox_events set published_at = {0}, created_at = {0}",
    ],
}


@pytest.fixture
def aged(db, add_cart, checkout_sql):
    """aged(purge): five rows that it may delete, one a day older than the next."""

    def aged(purge):
        for days in range(5, 0, -1):
            checkout_sql(db, add_cart(stock=0), key=f"k{days}")
            db.execute("select inventory_restock(gen_random_uuid(), 1, %s)", [f"k{days}"])
        for change in AGE[purge]:
            columns = {"checkout_requests_purge": "idempotency_key", "inventory_changes_purge": "change_key"}
            table, column = PURGES[purge], columns.get(purge, "id")
            ranks = f"(select count(*) from {table} as older where older.{column} >= {table}.{column})"
            db.execute(change.format(f"now() - make_interval(days => {ranks}::int)"))

    return aged


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("purge", PURGES)
def test_a_purge_deletes_in_batches_the_oldest_first_until_nothing_is_left(db, aged, purge):
    aged(purge)
    table = PURGES[purge]
    before = rows(db, f"select to_jsonb(t) as row from {table} as t")
    stamp = {"cart_purge": "converted_at"}.get(purge, "created_at")
    oldest = sorted(each["row"][stamp] for each in before)

    answers = []
    for left in (3, 1, 1):
        answers += values(db, f"select {purge}('36 hours', 2)")
        assert (
            sorted(each["row"][stamp] for each in rows(db, f"select to_jsonb(t) as row from {table} as t"))
            == oldest[-left:]
        )

    assert answers == [2, 2, 0]
    assert values(db, f"select {purge}('0')") == [1]


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("purge", PURGES)
def test_a_purge_passes_over_what_is_locked(db, connect, aged, purge):
    aged(purge)
    with connect() as holder:
        holder.execute(f"select from {PURGES[purge]} order by ctid limit 2 for update")
        assert values(db, f"select {purge}('0', 2)") == [2]
        assert values(db, f"select {purge}('0')") == [1]
        assert values(db, f"select {purge}('0')") == [0]
        holder.rollback()
    assert values(db, f"select {purge}('0')") == [2]


@pytest.mark.parametrize("purge", PURGES)
@pytest.mark.parametrize("max_rows", ["0", "-1", "-2147483648", "null"])
def test_a_batch_of_less_than_a_row_is_refused(db, add_cart, checkout_sql, nothing_written, purge, max_rows):
    checkout_sql(db, add_cart(stock=0))
    with nothing_written(), refused("OC005") as refusal:
        db.execute(f"select {purge}('0', {max_rows})")
    assert refusal.detail == {"field": "max_rows", "problem": "must be 1 or more"}


@pytest.mark.breaks_invariants
def test_the_notes_of_an_outbox_purge_never_say_less_than_it_deleted(db, aged):
    """checkout_audit() asks no conversion before the note for its events, and every later one."""
    aged("outbox_purge")
    left = values(db, "select created_at from outbox_events order by created_at")
    for gone in (2, 4):
        db.execute("select outbox_purge('36 hours', 2)")
        [before] = values(db, "select max(purged_before) from outbox_purges")
        assert left[gone - 1] < before <= left[gone]
    assert values(db, "select deleted from outbox_purges order by id") == [2, 2]


# Cost: what is deleted, not what is there


FILL = {
    "cart_purge": """
        insert into cart_records (id, buyer_store_id, currency, valid_until)
        select gen_random_uuid(), gen_random_uuid(), 'USD', now() + (number * 7919 % {0} - 99.5) * interval '1 min'
          from generate_series(1, {0}) as number""",
    "checkout_requests_purge": """
        insert into checkout_requests (buyer_store_id, idempotency_key, request_hash, cart_id, created_at)
        select gen_random_uuid(), number, '', gen_random_uuid(), now() + (number * 7919 % {0} - 99.5) * interval '1 min'
          from generate_series(1, {0}) as number""",
    "inventory_changes_purge": """
        insert into inventory_changes (product_id, change_key, delta, created_at)
        select gen_random_uuid(), number, 1, now() + (number * 7919 % {0} - 99.5) * interval '1 min'
          from generate_series(1, {0}) as number""",
    "outbox_purge": """
        insert into outbox_events
               (event_type, aggregate_type, aggregate_id, payload, created_at, published_at, next_attempt_at)
        select 'probe', 'probe', gen_random_uuid(), '{{}}', stamp, stamp, stamp
          from generate_series(1, {0}) as number,
               lateral (select now() + (number * 7919 % {0} - 99.5) * interval '1 min' as stamp) as at""",
}


@pytest.mark.breaks_invariants
@pytest.mark.parametrize("purge", PURGES)
def test_a_purge_costs_what_it_deletes_wherever_the_rows_lie(db, connect, purge):
    """Also where rows of all ages stand side by side, as they do once the space of deleted rows is used again."""
    conn = connect()
    db.execute(FILL[purge].format(500))
    vacuum(db, PURGES[purge])
    small = blocks_again(conn, f"select {purge}('0')")
    assert values(db, f"select {purge}('0')") == [100]

    db.execute(FILL[purge].format(200_000))
    vacuum(db, PURGES[purge])
    [size] = values(db, "select pg_relation_size(%s) / current_setting('block_size')::int", PURGES[purge])
    large = blocks_again(conn, f"select {purge}('0')")
    assert values(db, f"select {purge}('0')") == [100]

    assert large < small + 8 * 100 < size, "each row of a batch lies in a page of its own"


@pytest.mark.parametrize("open_orders", [False, True])
def test_a_purge_of_carts_reads_no_more_orders_than_those_of_its_carts(
    db, connect, add_cart, checkout_sql, open_orders
):
    """Whether a cart's orders have ended is looked up cart by cart."""
    conn = connect()
    db.execute(
        """
        insert into vendor_orders (checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        select gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 1, 1 from generate_series(1, 20000)"""
    )
    cart = add_cart(stock=9 if open_orders else 0)
    checkout_sql(db, cart)
    vacuum(db, "vendor_orders")
    assert blocks_again(conn, "select cart_purge('0')") < 250
    assert purge(db) == (0 if open_orders else 1)


def test_a_permit_that_the_transaction_has_already_is_no_obstacle(db, connect, add_cart, checkout_sql):
    """PF-174: an owner who changes a converted cart by hand may purge it in the same transaction."""
    cart = add_cart(stock=0)
    checkout_sql(db, cart)
    with connect() as owner:
        owner.execute("insert into cart_change_permits (cart_id) values (%s)", (cart.id,))
        owner.execute("update cart_records set shipping_address = null")
        assert purge(owner) == 1


def test_a_purge_that_is_rolled_back_leaves_all(db, connect, add_cart, checkout_sql, snapshot):
    """PF-174: all or nothing."""
    checkout_sql(db, add_cart(stock=0))
    before = snapshot(db)
    with connect() as conn:
        assert purge(conn) == 1
        conn.rollback()
    assert snapshot(db) == before
