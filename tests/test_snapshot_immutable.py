"""PF-174: a converted cart, its groups and its items are history: nobody changes them any more, by SQL either."""

from uuid import uuid4

import pytest
from psycopg import sql

from checks import refused, rows, values
from races import blocked

TABLES = ["cart_records", "cart_vendor_groups", "cart_items"]
INSERT_ITEM = """
insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)
select cart_id, gen_random_uuid(), vendor_store_id, 1, 500, 500 from cart_vendor_groups where id = %s
"""


@pytest.fixture
def converted(db, add_cart, checkout_sql):
    cart = add_cart()
    checkout_sql(db, cart)
    return cart


@pytest.mark.parametrize(
    "statement",
    [
        "update cart_records set status = 'active'",
        "update cart_records set total_cents = total_cents + 1",
        "update cart_records set updated_at = now()",
        "update cart_records set checkout_group_id = gen_random_uuid()",
        "update cart_records set id = gen_random_uuid()",
        "update cart_records set ad_tokens = '{}'",
        "delete from cart_records",
        "update cart_vendor_groups set total_cents = 0",
        "update cart_vendor_groups set status = 'invalid'",
        "delete from cart_vendor_groups",
        "insert into cart_vendor_groups (cart_id, vendor_store_id) select id, gen_random_uuid() from cart_records",
        "update cart_items set quantity = 9",
        "update cart_items set title = 'Another thing' where unit_price_cents = 1000",
        "update cart_items set cart_id = gen_random_uuid()",
        "delete from cart_items",
        """
        insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)
        select id, gen_random_uuid(), gen_random_uuid(), 1, 1, 1 from cart_records
        """,
        "insert into cart_items select * from cart_items on conflict (id) do update set quantity = 2",
        "merge into cart_items using (select 1) as one on true when matched then delete",
        "truncate cart_items",
        "truncate cart_vendor_groups",
        "truncate cart_records cascade",
    ],
)
def test_every_statement_that_would_change_it_is_refused(db, converted, snapshot, statement):
    """PF-174: UPDATE, DELETE, INSERT and TRUNCATE are OC009, for a superuser too."""
    before = snapshot(db)
    with refused("OC009") as refusal:
        db.execute(statement)
    assert snapshot(db) == before
    if "truncate" not in statement:
        assert refusal.detail["cart_id"] == str(converted.id)
    assert refusal.detail["table"] in TABLES and refusal.detail["operation"] in statement


def test_a_copy_into_it_is_refused(db, converted):
    """PF-174: COPY inserts too."""
    statement = "copy cart_vendor_groups (cart_id, vendor_store_id) from stdin"
    with refused("OC009"), db.cursor() as cur, cur.copy(statement) as copy:
        copy.write_row((converted.id, uuid4()))


def test_items_and_groups_can_move_neither_out_of_nor_into_it(db, add_cart, converted, snapshot):
    """PF-174: both carts of a move are looked at."""
    active = add_cart()
    before = snapshot(db)
    for table in TABLES[1:]:
        own = {"cart_vendor_groups": "groups", "cart_items": "items"}[table]
        update = sql.SQL("update {} set cart_id = %s where id = %s").format(sql.Identifier(table))
        for target, row in [(converted, getattr(active, own)[0]), (active, getattr(converted, own)[0])]:
            with refused("OC009") as refusal:
                db.execute(update, (target.id, row.id))
            assert refusal.detail["cart_id"] == str(converted.id)
    assert snapshot(db) == before


def test_active_carts_are_changed_as_before(db, add_cart, converted):
    """PF-174: only converted carts are closed."""
    cart = add_cart()
    db.execute("update cart_records set updated_at = now() where id = %s", (cart.id,))
    db.execute(INSERT_ITEM, (cart.groups[0].id,))
    db.execute("update cart_items set quantity = 3 where cart_id = %s", (cart.id,))
    db.execute("delete from cart_items where cart_id = %s", (cart.id,))
    db.execute("delete from cart_vendor_groups where cart_id = %s", (cart.id,))
    db.execute("delete from cart_records where id = %s", (cart.id,))
    assert values(db, "select id from cart_records") == [converted.id]


def test_deleting_an_active_cart_takes_its_parts_along(db, add_cart):
    """PF-174: the cascade of an active cart finds no cart row any more, and goes through."""
    cart = add_cart()
    db.execute("delete from cart_records where id = %s", (cart.id,))
    assert values(db, "select id from cart_items") == []


def test_tables_without_a_converted_cart_can_be_truncated(db, add_cart):
    """PF-174: TRUNCATE is refused for what it would lose, not as such."""
    add_cart()
    db.execute("truncate cart_records cascade")
    assert values(db, "select id from cart_items") == []


@pytest.mark.parametrize("table", TABLES)
def test_each_table_refuses_to_be_truncated_where_no_foreign_key_joins_them(db, converted, table):
    """PF-174: an existing database may have none, and then no CASCADE comes by the other tables."""
    db.execute("alter table cart_vendor_groups drop constraint cart_vendor_groups_cart_fk")
    db.execute("alter table cart_items drop constraint cart_items_cart_fk")
    with refused("OC009") as refusal:
        db.execute(f"truncate {table}")
    assert refusal.detail == {"table": table, "operation": "truncate"}


@pytest.mark.parametrize(
    "change",
    [
        INSERT_ITEM,
        "update cart_items set quantity = 2 where cart_id = (select cart_id from cart_vendor_groups where id = %s)",
        "delete from cart_vendor_groups where id = %s",
        "update cart_records set total_cents = 1 where id = (select cart_id from cart_vendor_groups where id = %s)",
    ],
    ids=["insert item", "update item", "delete group", "update cart"],
)
def test_a_change_during_a_checkout_waits_for_it_and_is_refused(db, connect, add_cart, checkout_sql, change):
    """PF-174: what began before the conversion was committed does not slip past: the snapshot is what was ordered."""
    cart = add_cart()
    with connect() as buyer, connect(autocommit=True) as editor:
        checkout_sql(buyer, cart)

        def edit(conn):
            with refused("OC009"):
                conn.execute(change, (cart.groups[0].id,))

        with blocked(db, edit, editor) as waiting:
            buyer.commit()
        waiting.result(timeout=10)
    assert len(rows(db, "select id from cart_items")) == len(rows(db, "select id from order_line_items")) == 4


def test_a_change_during_a_checkout_that_is_rolled_back_goes_through(db, connect, add_cart, checkout_sql):
    """PF-174: only a conversion that was committed closes the cart."""
    cart = add_cart()
    with connect() as buyer, connect(autocommit=True) as editor:
        checkout_sql(buyer, cart)
        with blocked(db, lambda conn: conn.execute(INSERT_ITEM, (cart.groups[0].id,)), editor) as waiting:
            buyer.rollback()
        waiting.result(timeout=10)
    assert values(db, "select count(*) from cart_items") == [5]


def test_a_checkout_waits_for_a_quote_under_way_and_takes_all_of_it(db, connect, add_cart, checkout_sql):
    """PF-174: an uncommitted edit of the parts alone is enough to hold the checkout: it never orders half of it."""
    cart = add_cart(vendors=1)
    with connect() as editor, connect(autocommit=True) as buyer:
        editor.execute(INSERT_ITEM, (cart.groups[0].id,))
        with blocked(db, checkout_sql, buyer, cart) as waiting:
            editor.execute("update cart_vendor_groups set subtotal_cents = 2500, total_cents = 2500")
            editor.execute("update cart_records set subtotal_cents = 2500, total_cents = 2500")
            editor.commit()
        result = waiting.result(timeout=10)
    assert sorted(item["total_cents"] for item in result["vendor_orders"][0]["items"]) == [500, 1000, 1000]


def test_carts_are_looked_at_in_the_order_of_their_ids(db, connect, add_cart):
    """PF-174: so that two who move items to and fro do not lock each other out."""
    carts = [add_cart(vendors=1, lines=1) for _ in range(2)]
    lower, higher = sorted(carts, key=lambda cart: cart.id)
    lock = "select from cart_records where id = %s for update"
    move = "update cart_items set cart_id = %s where id = %s"
    with connect() as holder, connect() as editor, connect() as other:
        holder.execute(lock, (lower.id,))
        with blocked(db, lambda conn: conn.execute(move, (lower.id, higher.items[0].id)), editor) as waiting:
            other.execute(lock + " nowait", (higher.id,))
            other.rollback()
            holder.rollback()
        waiting.result(timeout=10)
        editor.rollback()


def test_who_may_truncate_a_table_of_carts_need_not_read_it(connect, converted):
    """PF-174: the trigger sees converted carts with its owner's rights, under its own path."""
    with connect() as conn:
        conn.execute("create role pycheckout_of_a_test")  # rolled back in the end
        conn.execute("grant truncate on cart_items to pycheckout_of_a_test")
        conn.execute("set local role pycheckout_of_a_test")
        conn.execute("create temporary table cart_records (id int)")
        with refused("OC009"):
            conn.execute("truncate public.cart_items")
        conn.rollback()


def test_a_permit_of_another_transaction_opens_nothing(db, converted):
    """PF-174: the way past that cart_purge takes is one transaction long."""
    db.execute("insert into cart_change_permits (cart_id) values (%s)", (converted.id,))
    for statement in ("update cart_items set quantity = 2", "delete from cart_records"):
        with refused("OC009"):
            db.execute(statement)
    db.execute("delete from cart_change_permits")


def test_a_permit_is_of_the_transaction_that_writes_it(connect, converted):
    """On the node that has the carts: a coordinator of Citus sends the number of a transaction of its own along."""
    with connect() as owner:
        for write in (
            "insert into cart_change_permits values (%s, '3')",
            "update cart_change_permits set cart_id = %s, transaction_id = '3'",
        ):
            owner.execute(write, (converted.id,))
            [mine] = values(owner, "select transaction_id = pg_current_xact_id() from cart_change_permits")
            assert mine
        owner.rollback()
