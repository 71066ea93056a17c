"""The views for people: what they tell, and that they tell nothing of a person."""

import csv
import io
from datetime import timedelta

import pytest

from checks import row, rows, values

VIEWS = ["checkout_overview", "inventory_levels", "outbox_backlog"]


@pytest.mark.parametrize("view", VIEWS)
def test_psql_explains_each_view_and_each_column(psql, view):
    """`\\d+` of a view that people read."""
    described = psql("--csv", stdin=f"\\d+ {view}\n\\dv+ {view}\n")
    columns, _, view_row = described.stdout.partition("Schema,Name")
    table = [line for line in csv.DictReader(io.StringIO(columns)) if line["Description"] is not None]

    assert described.returncode == 0
    assert len(table) >= 5
    assert [line["Column"] for line in table if not line["Description"]] == []
    assert view_row.strip().splitlines()[1].split(",")[-1].strip('"')


def test_the_overview_tells_of_a_cart_before_and_after_its_checkout(db, add_cart, checkout_sql):
    cart = add_cart(vendors=2, lines=2, unit_price_cents=1500, items={(1, 1): {"quantity": 101}})
    query = "select *, status::text as state from checkout_overview where cart_id = %s"

    active = row(db, query, cart.id)
    result = checkout_sql(db, cart)
    converted = row(db, query, cart.id)

    assert (active["state"], active["orders"], active["confirmed_total_cents"]) == ("active", 0, None)
    assert active["quoted_total_cents"] == converted["quoted_total_cents"] == 104 * 1500
    assert converted["state"] == "converted"
    assert str(converted["checkout_group_id"]) == result["checkout_group_id"]
    assert converted["confirmed_total_cents"] == 3 * 1500
    assert (converted["orders"], converted["order_states"]) == (2, "2 created_pending")
    assert (converted["lines"], converted["rejected_lines"], converted["short_lines"]) == (4, 1, 1)
    assert converted["unpublished_events"] == 2


def test_the_overview_follows_the_orders(db, add_cart, checkout_sql):
    cart = add_cart(vendors=2, lines=1)
    checkout_sql(db, cart)
    db.execute("select vendor_order_cancel(%s, 'why')", (cart.groups[0].id,))
    db.execute("update outbox_events set published_at = now() where event_type = 'checkout.converted'")

    shown = row(db, "select * from checkout_overview")

    assert shown["order_states"] == "1 created_pending, 1 canceled"
    assert (shown["lines"], shown["rejected_lines"], shown["short_lines"]) == (2, 1, 0)
    assert (shown["confirmed_total_cents"], shown["unpublished_events"]) == (1000, 1)


def test_the_overview_finds_one_cart_among_many_by_indexes(db, add_cart, checkout_sql):
    checkout_sql(db, add_cart())
    db.execute("set enable_seqscan = off")
    plan = "\n".join(
        values(db, "explain select * from checkout_overview where cart_id = 'ca000000-0000-4000-8000-000000000001'")
    )

    assert "Seq Scan" not in plan


def test_the_backlog_groups_by_type_and_attempts(db, add_cart, checkout_sql):
    for _ in range(2):
        checkout_sql(db, add_cart())
    db.execute(
        "update outbox_events set attempt_count = 3, last_error = 'broker away', created_at = now() - interval '1 hour'"
        " where id = (select id from outbox_events where event_type = 'checkout.converted' order by id limit 1)"
    )

    backlog = rows(db, "select *, event_type::text from outbox_backlog order by event_type, attempt_count")

    assert [(group["event_type"], group["attempt_count"], group["events"]) for group in backlog] == [
        ("checkout.converted", 0, 1),
        ("checkout.converted", 3, 1),
        ("checkout.vendor_orders_created", 0, 2),
    ]
    assert [group["last_error"] for group in backlog] == [None, "broker away", None]
    assert backlog[2]["aggregates"] == 2
    assert timedelta(hours=1) <= backlog[1]["oldest_age"] < timedelta(hours=1, minutes=5)
    assert backlog[1]["oldest_at"] < backlog[0]["oldest_at"]

    db.execute("update outbox_events set published_at = now()")
    assert rows(db, "select * from outbox_backlog") == []


def test_the_backlog_is_the_relays_and_leaves_rows_of_a_host_out(db):
    db.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, next_attempt_at)"
        " select kind, 'host', gen_random_uuid(), '{}', due"
        " from (values ('not the relay''s', null), ('due', now()), ('parked', 'infinity')) as each (kind, due)"
    )
    assert {*values(db, "select event_type::text from outbox_backlog")} == {"due", "parked"}


def test_an_operator_reads_the_views_and_no_address(db, add_cart, checkout_sql, new_role, login):
    """checkout_grant_operators: the figures without the people."""
    checkout_sql(db, add_cart())
    role = new_role()
    db.execute("select checkout_grant_operators(%s)", (role,))
    operator = login(role)

    shown = "".join(str(rows(operator, f"select * from {view}")) for view in VIEWS)

    assert "created_pending" in shown
    for personal in ("12 Main Street", "Tulsa", "74103"):
        assert personal not in shown
