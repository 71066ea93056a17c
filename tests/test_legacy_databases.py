"""Databases of the earlier system, as they really are: every row stays, and their carts check out right."""

import psycopg
import pytest
from upgrade import value

import pycheckout
from factories import ADDRESS


class Host:
    """A database of the earlier system after the migration, and what it held before."""

    def __init__(self, database, shape):
        self.shape = shape
        with psycopg.connect(database(shape)) as self.conn:
            self.before = self.rows()
        self.url = database(shape, migrated=True)
        self.conn = psycopg.connect(self.url, autocommit=True)

    def value(self, query, *params):
        return value(self.conn, query, *params)

    def rows(self):
        tables = self.conn.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
        return {
            table: [row for (row,) in self.conn.execute(f"select to_jsonb(t) from {table} as t order by t::text")]
            for (table,) in tables
        }

    def check_out(self, n):
        return pycheckout.execute(
            self.conn,
            buyer_store_id=self.value("select buyer_store_id from cart_records where id = id('cart', %s)", n),
            cart_id=self.value("select id('cart', %s)", n),
            idempotency_key=f"cart-{n}",
            shipping_address=ADDRESS,
            payment_method="ach",
        )


@pytest.fixture(params=["net", "gross"])
def host(request, database):
    host = Host(database, request.param)
    yield host
    assert host.conn.execute("select * from checkout_audit()").fetchall() == []
    host.conn.close()


def test_every_row_keeps_every_value(host):
    """PF-168 to PF-171: nothing is lost, but for a column's new name, and anchors and titles that are filled in."""
    after = host.rows()
    filled = {("cart_records", "checkout_group_id"), ("vendor_orders", "cart_id")}
    for table, rows in host.before.items():
        kept = after["checkout_groups_archive" if table == "checkout_groups" and table not in after else table]
        key = "product_id" if table == "inventory_items" else "id"
        by_key = {row[key]: row for row in kept}
        assert len(kept) == len(rows)
        for row in rows:
            now = by_key[row[key]]
            for column, before in row.items():
                name = "discounts_cents" if (table, column) == ("vendor_orders", "discount_cents") else column
                assert now[name] == before or ((table, column) in filled and before is None), (table, column)


def test_carts_and_orders_have_the_anchors_that_checkout_groups_knew(host):
    """PF-168: every order whose group names a cart has it, and the cart has the group."""
    converted = "select count(*) from cart_records where status = 'converted' and checkout_group_id is null"
    assert host.value(converted) == 0
    mismatched = """
    select count(*) from vendor_orders as o join cart_records as c on c.id = o.cart_id
     where c.checkout_group_id <> o.checkout_group_id
    """
    assert host.value(mismatched) == 0
    # the groups 9 and 10 of the first shape name no cart
    assert host.value("select count(*) from vendor_orders where cart_id is null") == {"net": 4, "gross": 0}[host.shape]


def test_no_foreign_key_leads_to_checkout_groups(host):
    """PF-168: the table is gone, and so is every key to it."""
    assert host.value("select to_regclass('checkout_groups')") is None
    keys = "select count(*) from pg_constraint where contype = 'f' and pg_get_constraintdef(oid) ~ 'checkout_groups'"
    assert host.value(keys) == 0


def test_types_and_tables_of_the_host_stay(host):
    """Int stays int, enums stay enums and learn our values, geohash and the host's own tables are there."""
    types = dict(
        host.conn.execute(
            "select table_name || '.' || column_name, udt_name"
            " from information_schema.columns where table_schema = 'public'"
        ).fetchall()
    )
    assert types["vendor_orders.total_cents"] == types["cart_items.line_total_cents"] == "int4"
    assert types["order_line_items.unit"] == types["cart_items.unit"] == "unit"
    assert types["outbox_events.event_type"] == "event_type_enum"
    labels = host.value("select enum_range(null::event_type_enum)::text")
    assert "checkout.converted" in labels and "order_created" in labels
    assert host.value("select (shipping_address).geohash from cart_records where id = id('cart', 1)") == "9y7n"
    assert host.value("select count(*) from order_assignments") > 0


def test_active_carts_check_out_to_the_cent(host):
    """Net amounts are not discounted twice, gross ones add up, and what does not add up is refused."""
    for n in range(9, 21):
        if host.shape == "gross" and n <= 12:  # written before line totals were: such a cart must be quoted again
            with pytest.raises(pycheckout.CartInconsistent):
                host.check_out(n)
            continue
        result = host.check_out(n)
        query = "select sum(total_cents) from cart_vendor_groups where cart_id = id('cart', %s) and status = 'ok'"
        assert result.totals.confirmed.total_cents == host.value(query, n)
        assert result.replayed is False
        for order in result.vendor_orders:
            assert order.promo is None or order.promo.amount_cents == 300


def test_carts_that_the_host_converted_replay_from_their_rows(host):
    """Idempotency: nothing is written for a cart that was converted before this package came."""
    before = host.value("select count(*) from vendor_orders")

    results = [host.check_out(n) for n in range(1, 9)]

    assert all(result.replayed and len(result.vendor_orders) == 2 for result in results)
    assert host.value("select count(*) from vendor_orders") == before


@pytest.mark.parametrize("vendor", ["of the cart", "another"])
def test_a_checkout_of_the_earlier_system_that_crashed_half_way_is_not_billed(host, vendor):
    """The active cart 13 has its group already, and an order of the host under it, without an intent."""
    host.conn.execute("update cart_records set checkout_group_id = id('anchor', 13) where id = id('cart', 13)")
    mine = "select vendor_store_id from cart_vendor_groups where cart_id = id('cart', 13) and status = 'ok' limit 1"
    other = (
        "select store.id from stores as store where store.id not in"
        " (select vendor_store_id from cart_vendor_groups where cart_id = id('cart', 13)"
        " union select buyer_store_id from cart_records where id = id('cart', 13)) limit 1"
    )
    host.conn.execute(
        "insert into vendor_orders (id, checkout_group_id, cart_id, buyer_store_id, vendor_store_id, subtotal_cents,"
        " total_cents, balance_due_cents)"
        " select id('order', 131), checkout_group_id, case when %s then id end, buyer_store_id, %s, 5000, 5000, 5000"
        " from cart_records where id = id('cart', 13)",
        # the later shape has an order name its cart
        (host.shape == "gross", host.value(mine if vendor == "of the cart" else other)),
    )
    before = host.rows()

    for _ in range(2):
        with pytest.raises(pycheckout.CartInconsistent) as refused:
            host.check_out(13)
        assert refused.value.detail["problem"] == "anchor_has_orders"
        assert refused.value.detail["vendor_order_ids"] == [str(host.value("select id('order', 131)"))]
        assert host.rows() == before

    # its host looks at it and gives it an anchor of its own
    host.conn.execute("update vendor_orders set checkout_group_id = id('anchor', 14) where id = id('order', 131)")
    result = host.check_out(13)
    quoted = "select total_cents from cart_records where id = id('cart', 13)"
    assert result.totals.confirmed.total_cents == result.totals.quoted.total_cents == host.value(quoted)
    assert result.checkout_group_id == host.value("select id('anchor', 13)")
    assert host.value("select count(*) from payment_intents where order_id = id('order', 131)") == 0
    assert host.check_out(13).totals == result.totals


def test_statements_of_the_host_still_work(host):
    """Quotes, stock upserts and reads that name none of the new columns."""
    host.conn.execute(
        "insert into cart_items (cart_id, product_id, vendor_store_id, quantity, unit_price_cents, line_subtotal_cents)"
        " select id('cart', 13), product_id, vendor_store_id, 1, 100, 100 from cart_items limit 1"
    )
    host.conn.execute(
        "insert into inventory_items (product_id, available_qty) values (id('product', 1), 7)"
        " on conflict (product_id) do update set available_qty = excluded.available_qty"
    )
    assert host.value("select available_qty from inventory_levels where product_id = id('product', 1)") == 7


def test_an_amount_that_does_not_fit_an_int_column_is_said_clearly(host):
    """An overflow is a clear error, never a wrapped value."""
    host.conn.execute("alter table cart_vendor_groups alter column subtotal_cents type bigint")
    host.conn.execute("alter table cart_vendor_groups alter column total_cents type bigint")
    host.conn.execute("alter table cart_items alter column line_subtotal_cents type bigint")
    host.conn.execute("alter table cart_items alter column line_total_cents drop not null")
    host.conn.execute(
        "update cart_items set line_subtotal_cents = 3000000000, line_total_cents = null where cart_id = id('cart', 14)"
    )
    host.conn.execute(
        "update cart_vendor_groups as g set (subtotal_cents, total_cents) = (select sum(i.line_subtotal_cents),"
        " sum(i.line_subtotal_cents) from cart_items as i where i.cart_id = g.cart_id"
        " and i.vendor_store_id = g.vendor_store_id and i.status = 'ok') where cart_id = id('cart', 14)"
    )
    host.conn.execute("drop view checkout_overview")  # whose column it is
    for column in ("subtotal_cents", "discounts_cents", "total_cents"):
        host.conn.execute(f"alter table cart_records alter column {column} type bigint")
    host.conn.execute(
        "update cart_records as c set (subtotal_cents, discounts_cents, total_cents) ="
        " (select sum(g.subtotal_cents), 0, sum(g.total_cents)"
        " from cart_vendor_groups as g where g.cart_id = c.id and g.status = 'ok')"
        " where c.id = id('cart', 14)"
    )

    with pytest.raises(pycheckout.CartInconsistent) as refused:
        host.check_out(14)

    assert refused.value.detail["problem"] == "out_of_range"


def test_rolling_back_an_untouched_database_gives_the_host_its_tables_back(database):
    """PF-168: the archive is what checkout_groups is restored from."""
    host = Host(database, "net")

    pycheckout.rollback(host.url)

    def but_anchors(rows):
        return {
            table: sorted(str({k: v for k, v in row.items() if k != "checkout_group_id"}) for row in table_rows)
            for table, table_rows in rows.items()
            if "yoyo" not in table
        }

    after = but_anchors(host.rows())
    assert after == but_anchors(host.before)
    host.conn.close()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("alter table cart_items drop column quantity", "cart_items.quantity"),
        ("drop table cart_vendor_groups", "cart_vendor_groups"),
        ("update checkout_groups set cart_id = id('cart', 1) where id = id('anchor', 2)", "one to one"),
        ("update cart_records set checkout_group_id = id('anchor', 1) where id = id('cart', 9)", "one to one"),
    ],
)
def test_what_cannot_be_carried_over_is_refused_before_any_change(database, damage, said):
    """PF-168: too old, or anchors that are not one to one: a sentence, and not one object more."""
    dsn = database("net")
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(damage)

        with pytest.raises(pycheckout.MigrationError, match=said):
            pycheckout.migrate(dsn)

        assert conn.execute("select to_regclass('checkout_ledger')").fetchone() == (None,)


def test_orders_are_canceled_released_and_fulfilled_there_too(host):
    """Section 12: enum types of events, int money, and history that is not ours to change."""
    orders = [order for n in (13, 15) for order in host.check_out(n).vendor_orders]
    lines = [item for order in orders for item in order.items if item.status == "pending"]
    reserved = "select sum(reserved_qty) from inventory_items"
    before = host.value(reserved)

    host.value("select order_line_fulfil(%s)", lines[0].line_item_id)
    assert host.value(reserved) == before - lines[0].qty
    host.value("select order_line_release(%s, 'torn')", lines[1].line_item_id)
    assert host.value(reserved) == before - lines[0].qty - lines[1].qty
    assert host.value("select vendor_order_cancel(%s, 'x') ->> 'status'", orders[-1].order_id) == "canceled"
    kinds = "select array_agg(event_type::text order by id) from outbox_events where event_type::text ~ %s"
    assert host.value(kinds, "^(order_line|vendor_order)[.]") == [
        "order_line.fulfilled",
        "order_line.released",
        "vendor_order.canceled",
    ]
    with pytest.raises(psycopg.DatabaseError, match="that a checkout made"):
        host.value("select vendor_order_cancel(id('order', 11), 'history')")


def test_payments_are_recorded_and_orders_expire_there_too(host):
    """Of orders of both systems: those of the earlier one have no currency, and int money."""
    ours = [order.order_id for n in (13, 15) for order in host.check_out(n).vendor_orders if order.total_cents]
    reserved = "select sum(reserved_qty) from inventory_items"
    before = host.value(reserved)
    pay = "select payment_record(%s, 'acme', %s, %s, %s, 'USD')"
    total = host.value("select total_cents from vendor_orders where id = %s", ours[0])

    paid = host.value(pay, ours[0], "evt_1", "captured", total + 5)
    assert (paid["payment_intent"]["status"], paid["balance_due_cents"], paid["refund_due_cents"]) == ("settled", 0, 5)
    for (theirs,) in host.conn.execute("select id from vendor_orders where promo_discount_cents is null").fetchall():
        for kind in ("authorized", "captured", "failed"):
            assert host.value(pay, theirs, f"evt_{kind}", kind, 7)["replayed"] is False
        assert host.value(pay, theirs, "evt_captured", "captured", 7)["replayed"] is True
    for _ in range(2):
        with pytest.raises(psycopg.DatabaseError, match="does not fit") as caught:
            host.value(pay, ours[0], "evt_2", "captured", 2**63 - 1)
        assert caught.value.sqlstate == "OC005"

    host.conn.execute("update vendor_orders set expires_at = now() - interval '1 minute' where id = any(%s)", (ours,))
    answer = host.value("select vendor_orders_expire()")
    assert (answer["expired"], answer["kept"]) == (len(ours) - 1, 1)
    assert 0 < host.value(reserved) < before
    kinds = "select count(*) from outbox_events where event_type::text = %s"
    assert host.value(kinds, "vendor_order.expired") == len(ours) - 1


def test_carts_of_both_systems_are_erased(host):
    """Also the click of the earlier system, in its archive; an order that names no cart is found by its anchor."""
    host.check_out(14)
    host.conn.execute("update vendor_orders set notes = 'ring twice'")
    carts = "select id from cart_records where status = 'converted' order by id"
    for (cart_id,) in host.conn.execute(carts).fetchall():
        assert host.value("select checkout_erase(%s)", cart_id) > 0
        assert host.value("select checkout_erase(%s)", cart_id) == 0

    assert host.value("select count(*) from checkout_requests") == 0
    theirs = "checkout_group_id in (select checkout_group_id from cart_records where status = 'converted')"
    assert host.value(f"select count(*) from vendor_orders where {theirs}") > 2
    assert host.value(f"select count(*) from vendor_orders where {theirs} and notes is not null") == 0
    if host.value("select to_regclass('checkout_groups_archive') is not null"):
        clicks = (
            "select count(*) from checkout_groups_archive as a join cart_records as c on c.checkout_group_id = a.id"
        )
        assert host.value(clicks) > 0
        assert host.value(clicks + " where attributed_ad_click_id is not null") == 0
    assert host.check_out(14).replayed
