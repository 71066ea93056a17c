"""Expand first, contract last: until the one migration that ends it, the checkout of the earlier system works."""

import pytest
from upgrade import IDS, apply_until, connect, value, yoyo_backend

import pycheckout

CONTRACT = next(name for name in IDS if "drop_checkout_groups" in name)

# As the earlier system runs it, in its own order: it names checkout_groups and vendor_orders.discount_cents, and writes
# to a cart after it has converted it. The later shape has done its part of PF-168 and PF-169.
CHECKOUT = {
    "net": """
    insert into checkout_groups (id, buyer_store_id, cart_id)
    values (id('anchor', {n}), id('store', 11), id('cart', {n}));
    insert into vendor_orders
      (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, discount_cents, total_cents)
    values (id('order', {n}), id('anchor', {n}), id('store', 11), id('store', 1), 1000, 100, 900);
    """,
    "gross": """
    insert into vendor_orders
      (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, discounts_cents, total_cents, cart_id)
    values (id('order', {n}), id('anchor', {n}), id('store', 11), id('store', 1), 1000, 100, 900, id('cart', {n}));
    """,
}
AROUND = (
    """
    insert into cart_records (id, buyer_store_id) values (id('cart', {n}), id('store', 11));
    insert into cart_vendor_groups (cart_id, vendor_store_id, subtotal_cents, total_cents)
    values (id('cart', {n}), id('store', 1), 1000, 900);
    insert into cart_items (id, cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)
    values (id('item', {n}), id('cart', {n}), id('product', 5), id('store', 1), 1, 900, 900);
    """,
    """
    insert into order_line_items
      (order_id, product_id, name, category, unit, unit_price_cents, qty, discount_cents, total_cents)
    values (id('order', {n}), id('product', 5), 'Product 5', 'edible', 'gram', 1000, 1, 100, 900);
    insert into payment_intents (order_id, amount_cents) values (id('order', {n}), 900);
    update inventory_items set available_qty = available_qty - 1, reserved_qty = reserved_qty + 1
     where product_id = id('product', 5);
    update cart_records set status = 'converted' where id = id('cart', {n});
    update cart_records set checkout_group_id = id('anchor', {n}), updated_at = now() where id = id('cart', {n});
    update cart_items set updated_at = now() where cart_id = id('cart', {n});
    insert into outbox_events (event_type, aggregate_type, aggregate_id, payload)
    values ('order_created', 'checkout_group', id('anchor', {n}), '{{}}');
    """,
)


def check_out_as_the_earlier_system(conn, shape, n):
    with conn.transaction():
        conn.execute((AROUND[0] + CHECKOUT[shape] + AROUND[1]).format(n=n))


@pytest.mark.parametrize("shape", ["net", "gross"])
def test_earlier_checkout_works_after_every_migration_but_the_last_ones(database, shape):
    """PF-168, PF-169: and what it wrote on the way has its cart, its anchor and its place in the baseline."""
    url = database(shape)
    with connect(url) as conn, yoyo_backend(url) as (backend, migrations):
        for n, migration in enumerate(migrations, 1001):
            if migration.id == CONTRACT:
                break
            backend.apply_one(migration)
            check_out_as_the_earlier_system(conn, shape, n)
        last = n
        # one that does not note the anchor on its cart, and one that finds its cart later
        conn.execute("""
            insert into cart_records (id, buyer_store_id)
            values (id('cart', 2001), id('store', 11)), (id('cart', 2002), id('store', 11))
        """)
        if shape == "net":
            conn.execute("""
                insert into checkout_groups (id, buyer_store_id, cart_id)
                values (id('anchor', 2001), id('store', 11), id('cart', 2001)),
                       (id('anchor', 2002), id('store', 11), null);
                insert into vendor_orders
                  (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
                select id('order', n), id('anchor', n), id('store', 11), id('store', 1), 10, 10
                  from generate_series(2001, 2002) as n;
                update checkout_groups set cart_id = id('cart', 2002) where id = id('anchor', 2002)
            """)
    pycheckout.migrate(url)

    with connect(url) as conn:
        assert last - 1001 == IDS.index(CONTRACT)
        found = conn.execute(
            """
            select n from generate_series(1001, %s) as n
             where not exists (select from vendor_orders where id = id('order', n) and cart_id = id('cart', n))
                or not exists (select from cart_records
                                where id = id('cart', n) and checkout_group_id = id('anchor', n))
            """,
            (last - 1,),
        ).fetchall()
        assert found == []
        if shape == "net":
            late = "select array_agg(cart_id = id('cart', n)) from vendor_orders, generate_series(2001, 2002) as n"
            assert value(conn, f"{late} where id = id('order', n)") == [True, True]
            late = "select array_agg(checkout_group_id = id('anchor', n)) from cart_records,"
            late += " generate_series(2001, 2002) as n"
            assert value(conn, f"{late} where id = id('cart', n)") == [True, True]
            assert value(conn, "select count(*) from checkout_groups_changed") == 0
        assert conn.execute("select * from checkout_audit()").fetchall() == []
        reserved = "select reserved_qty from {} where product_id = id('product', 5)"
        assert (
            value(conn, reserved.format("inventory_baseline")) == value(conn, reserved.format("inventory_items")) >= 28
        )


def test_failure_before_the_end_of_the_earlier_checkout_leaves_it_open(database):
    """PF-168: the last that can fail on what the host holds is an index build."""
    url = database("net")
    apply_until(url, "outbox_published_index")
    with connect(url) as conn, connect(url, autocommit=False) as long:
        long.execute("select from checkout_groups limit 1")
        with pytest.raises(pycheckout.CheckoutError):
            pycheckout.migrate(f"{url}?options=-c%20lock_timeout%3D200ms")
        check_out_as_the_earlier_system(conn, "net", 1001)
        assert value(conn, "select count(*) from _yoyo_migration where migration_id = %s", CONTRACT) == 0
    pycheckout.migrate(url)


def test_converted_carts_do_not_change_from_its_end_on(database):
    """PF-174"""
    url = database("net")
    apply_until(url, CONTRACT)
    with connect(url) as conn:
        with pytest.raises(Exception, match="is converted and cannot be changed"):
            conn.execute("update cart_records set updated_at = now() where id = id('cart', 1)")
        with yoyo_backend(url) as (backend, migrations):
            again = [each for each in migrations if "converted_carts_immutable" in each.id]
            backend.apply_one(again[0], mark=False)
        with pytest.raises(Exception, match="is converted and cannot be changed"):
            conn.execute("update cart_records set updated_at = now() where id = id('cart', 1)")


def test_archive_has_no_foreign_keys_and_its_keys_come_back(database):
    """PF-168: a purge of carts neither waits for it nor takes from it which cart a group was of."""
    url = database("net")
    keys = """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
         where contype = 'f' order by 1, 2
    """
    with connect(url) as conn:
        before = conn.execute(keys).fetchall()
        pycheckout.migrate(url)
        archive = (
            "select count(*) from pg_constraint where conrelid = 'checkout_groups_archive'::regclass and contype = 'f'"
        )
        assert value(conn, archive) == 0
        conn.execute("alter table cart_records disable trigger user; alter table cart_items disable trigger user")
        conn.execute("alter table cart_vendor_groups disable trigger user")
        conn.execute("delete from cart_records where id = id('cart', 8)")
        conn.execute("alter table cart_records enable trigger user; alter table cart_items enable trigger user")
        conn.execute("alter table cart_vendor_groups enable trigger user")
        assert value(conn, "select cart_id = id('cart', 8) from checkout_groups_archive where id = id('anchor', 8)")
        conn.execute("update vendor_orders set cart_id = null where cart_id = id('cart', 8)")

        pycheckout.rollback(url)

        assert conn.execute(keys).fetchall() == before
        assert value(conn, "select cart_id is null from checkout_groups where id = id('anchor', 8)")
