"""Transaction ids are the server's: a checkout takes three, however many lines it has.

More than 64 subtransactions that wrote are more than a session can show the others, who then look each up on disk.
"""

import pytest

from checks import row
from races import blocked

SUBTRANSACTIONS = """
select subxact.subxact_count, subxact.subxact_overflowed
  from pg_stat_get_backend_idset() as backend
 cross join lateral pg_stat_get_backend_subxact(backend) as subxact
 where pg_stat_get_backend_pid(backend) = pg_backend_pid()
"""


@pytest.fixture(autouse=True)
def countable(db):
    if db.info.server_version < 160000:
        pytest.skip("subtransactions can be counted from PostgreSQL 16 on")


def split(db, cart, slots, each=None):
    for item in cart.items[::each]:
        db.execute("select inventory_split(%s, %s)", (item.product_id, slots))


SHAPES = {
    "one line": {"lines": 1},
    "a hundred lines": {"vendors": 10, "lines": 10},
    "a hundred split lines": {"vendors": 10, "lines": 10, "slots": 4},
    "split lines among others": {"vendors": 4, "lines": 6, "slots": 4, "each": 2},
    "split lines that want more than a slot has": {"lines": 10, "slots": 4, "quantity": 3, "stock": 8},
    "two lines of one split product": {"lines": 2, "slots": 4, "same": True},
    "a hundred ad tokens": {"lines": 2, "ad_tokens": [f"no token {n}" for n in range(100)]},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_checkout_that_is_not_short_takes_three_transaction_ids(db, connect, add_cart, checkout_sql, shape):
    columns = {"vendors": 1} | SHAPES[shape]
    slots, each = columns.pop("slots", 0), columns.pop("each", None)
    if columns.pop("same", False):
        product = add_cart(vendors=1, lines=1).items[0].product_id
        columns["products"] = [product] * columns["lines"]
    cart = add_cart(**columns)
    if slots:
        split(db, cart, slots, each)

    buyer = connect()
    assert checkout_sql(buyer, cart)["outcome"] == "complete"

    counted = row(buyer, SUBTRANSACTIONS)
    assert counted["subxact_count"] <= 2 and not counted["subxact_overflowed"]
    buyer.commit()


def test_a_wait_for_the_only_slot_that_has_enough_takes_no_more(db, connect, add_cart, checkout_sql):
    cart = add_cart(vendors=1, lines=6, stock=10)
    split(db, cart, 2)
    holder, buyer = connect(), connect()
    holder.execute("select from inventory_slots order by product_id, slot for update")

    with blocked(db, checkout_sql, buyer, cart) as waiting:
        holder.rollback()

    assert waiting.result()["outcome"] == "complete"
    assert row(buyer, SUBTRANSACTIONS)["subxact_count"] <= 2
    buyer.commit()
