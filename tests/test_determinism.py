"""PF-179: the same snapshot and the same stock give the same output, to the byte."""

import random
from uuid import UUID

import pytest
from ads import KEY, ad_token
from psycopg import sql
from psycopg.types.json import Jsonb

from checks import values
from factories import ADDRESS

TABLES = ["cart_vendor_groups", "cart_items", "inventory_items"]
# More digits than a session with a small extra_float_digits would show.
ADDRESS_TO_THE_METRE = ADDRESS | {"lat": 36.153912345678901, "lng": -95.992775123456789}


@pytest.fixture
def involved_cart(db, add_cart):
    """Every rule at once: shared products that run short, promos, both kinds of amounts, rejected vendors, tied ads."""
    db.execute("select ad_signing_key_put('k1', %s)", (KEY,))
    scarce = [UUID(int=number, version=4) for number in (3, 1, 2)]
    lines = {(v, line): {"quantity": (v + line) % 3 + 1} for v in range(4) for line in range(4)}
    lines[0, 0] |= {"line_discounts_cents": 7, "line_total_cents": 993, "line_subtotal_cents": 1000}
    lines[1, 2] |= {"status": "invalid"}
    cart = add_cart(
        vendors=6,
        lines=4,
        products=scarce * 4,
        stock=6,
        promo_cents=[0, 10, 4500, 3, 0, 0],
        items=lines | {(4, line): {"status": "not_available"} for line in range(4)},
        groups={5: {"status": "invalid"}},
    )
    # three stores and products with two ads each that only the tie-break tells apart
    ads = [ad_token(cart, n, "store", cart.vendors[n % 3]) for n in range(6)]
    ads += [ad_token(cart, 10 + n, "product", scarce[n % 3]) for n in range(6)]
    db.execute("update cart_records set ad_tokens = %s", (ads,))
    return cart


def shuffle_rows(conn, seed):
    """Write the rows of the quote and the stock anew, in another physical order."""
    chance = random.Random(seed)
    for table in reversed(TABLES):
        name = sql.Identifier(table)
        found = values(conn, sql.SQL("delete from {0} returning to_jsonb({0})").format(name))
        chance.shuffle(found)
        conn.cursor().executemany(
            sql.SQL("insert into {0} select * from jsonb_populate_record(null::{0}, %s)").format(name),
            [(Jsonb(one),) for one in found],
        )
    [ads] = values(conn, "select ad_tokens from cart_records")
    chance.shuffle(ads)
    conn.execute("update cart_records set ad_tokens = %s", (ads,))


def output(conn, cart, policy):
    """All that a checkout wrote and answered, without the ids that the package makes and the times."""
    conn.execute("alter sequence checkout_order_number_seq restart")  # numbers that were rolled back stay a gap
    [answer] = values(
        conn,
        "select checkout_execute(%s, %s, 'k1', %s, 'ach', reservation_policy => %s)::text",
        cart.buyer_store_id,
        cart.id,
        Jsonb(ADDRESS_TO_THE_METRE),
        policy,
    )
    [(anchor, converted_at)] = conn.execute(
        "select checkout_group_id::text, checkout_timestamp(converted_at) from cart_records"
    ).fetchall()
    answer = answer.replace(anchor, "ANCHOR").replace(converted_at, "NOW")
    times = ["created_at", "updated_at", "checkout_group_id"]
    written = [
        values(conn, f"select (to_jsonb(t) - %s::text[])::text from {table} as t order by id", times)
        for table in ("vendor_orders", "order_line_items", "payment_intents")
    ]
    stock = values(conn, "select (to_jsonb(t) - 'updated_at')::text from inventory_items as t order by product_id")
    events = [
        event.replace(anchor, "ANCHOR").replace(converted_at, "NOW")
        for event in values(conn, "select (payload - 'event_id')::text from outbox_events order by event_type")
    ]
    return answer, *written, stock, events


@pytest.mark.parametrize("policy", ["partial", "vendor"])
def test_the_physical_order_of_rows_does_not_matter(connect, involved_cart, policy):
    """PF-179: checkout output remains deterministic for the same cart snapshot."""
    seen = []
    # Plans that read rows in other orders too: the checkout's own settings leave joins and aggregates to the planner.
    plans = [(), ("enable_nestloop",), ("enable_hashjoin", "enable_indexscan"), ("enable_sort", "enable_hashagg")]
    for seed in range(8):
        with connect() as conn:
            for setting in plans[seed % len(plans)]:
                conn.execute(f"set local {setting} = off")
            if seed:
                shuffle_rows(conn, seed)
            seen.append(output(conn, involved_cart, policy))
            conn.rollback()
    assert "rejected" in seen[0][0] and "promo_capped" in seen[0][0]
    assert all(other == seen[0] for other in seen)


def test_clustered_tables_and_parallel_plans_do_not_matter(connect, involved_cart):
    """PF-179: CLUSTER rewrites a table in the order of an index; parallel workers hand rows over as they come."""
    indexes = {
        "cart_items": ["cart_items_pkey", "idx_cart_items_cart_id"],
        "cart_vendor_groups": ["cart_vendor_groups_pkey"],
    }
    seen = []
    for seed in range(6):
        with connect() as conn:
            if seed % 2:
                version = conn.info.server_version
                conn.execute(f"set local {'debug_parallel_query' if version >= 160000 else 'force_parallel_mode'} = on")
                for cost in ("parallel_setup_cost", "parallel_tuple_cost", "min_parallel_table_scan_size"):
                    conn.execute(f"set local {cost} = 0")
                conn.execute("set local min_parallel_index_scan_size = 0")
                conn.execute("set local max_parallel_workers_per_gather = 4")
            if seed:
                shuffle_rows(conn, seed)
            for table, names in indexes.items():
                conn.execute(f"cluster {table} using {names[seed % len(names)]}")
            seen.append(output(conn, involved_cart, "partial"))
            conn.rollback()
    assert all(other == seen[0] for other in seen)


@pytest.mark.parametrize(
    "settings",
    [
        {"TimeZone": "Asia/Kolkata", "DateStyle": "German, DMY", "IntervalStyle": "iso_8601"},
        {"extra_float_digits": "-15", "bytea_output": "escape"},
        {"lc_numeric": "C", "lc_monetary": "C", "client_encoding": "LATIN1", "standard_conforming_strings": "off"},
        {"search_path": "pg_catalog, public"},
        {"default_transaction_isolation": "serializable"},
    ],
    ids=lambda settings: ", ".join(settings),
)
def test_a_replay_is_the_same_text_in_any_session(db, connect, involved_cart, settings):
    """PF-179: deterministic output: what a session has set does not show."""
    arguments = (involved_cart.buyer_store_id, involved_cart.id, Jsonb(ADDRESS_TO_THE_METRE))
    query = "select checkout_execute(%s, %s, 'k1', %s, 'ach')::text"
    [first] = values(db, query, *arguments)
    [again] = values(db, query, *arguments)

    other = connect(autocommit=True)
    for name, value in settings.items():
        other.execute("select set_config(%s, %s, false)", (name, value))

    assert again == first.replace('"replayed" : false', '"replayed" : true')
    assert values(other, query, *arguments) == [again]
    assert values(other, "select checkout_result(%s, %s)::text", *arguments[:2]) == [again]


def test_a_first_answer_is_the_same_text_in_any_session(connect, involved_cart):
    """PF-179: deterministic output: the session that converts does not show either."""
    seen = []
    for settings in ("", "-c TimeZone=Asia/Kolkata -c DateStyle=SQL,DMY -c extra_float_digits=-15"):
        with connect(options=settings) as conn:
            seen.append(output(conn, involved_cart, "partial"))
            conn.rollback()
    # Amounts and states are the same; stored times are compared as instants elsewhere.
    assert seen[0][0] == seen[1][0]
    assert seen[0][5] == seen[1][5]


def test_vendors_and_items_come_in_the_order_of_their_ids(db, connect, involved_cart, checkout_sql):
    """PF-179: a fixed order, not that of the rows."""
    with connect() as conn:
        shuffle_rows(conn, 1)
        conn.commit()
    result = checkout_sql(db, involved_cart)
    for vendors in (result["vendor_orders"], result["rejected_vendors"]):
        assert len(vendors) > 1
        assert [vendor["vendor_store_id"] for vendor in vendors] == sorted(v["vendor_store_id"] for v in vendors)
        for vendor in vendors:
            ids = [item["cart_item_id"] for item in vendor["items"]]
            assert ids == sorted(ids) and len(ids) > 1


def test_a_replay_keeps_its_order_when_the_rows_have_moved(db, involved_cart, checkout_sql):
    """PF-179: orders and lines that the host updates, and a table that is rewritten, change no order."""
    first = checkout_sql(db, involved_cart)
    chance = random.Random(1)
    # There and back in an indexed column: that makes new index entries, in another order.
    for table, column in [("vendor_orders", "checkout_group_id"), ("order_line_items", "order_id")]:
        ids = values(db, f"select id from {table} order by id")
        chance.shuffle(ids)
        with db.transaction():
            db.execute(f"create temporary table places on commit drop as select id, {column} as place from {table}")
            db.execute("alter table order_line_items drop constraint order_line_items_order_fk")
            for each in ids:
                db.execute(f"update {table} set {column} = gen_random_uuid() where id = %s", (each,))
            for each in ids:
                db.execute(
                    f"update {table} t set {column} = place from places p where t.id = %s and p.id = t.id", (each,)
                )
            db.execute(
                "alter table order_line_items add constraint order_line_items_order_fk foreign key (order_id)"
                " references vendor_orders on delete cascade"
            )
    assert checkout_sql(db, involved_cart) == first | {"replayed": True}
