"""checkout_erase: a person's addresses and notes go; what was bought, for how much, stays, and so do replays."""

import json
from uuid import uuid4

import psycopg
import pytest
from events import validate

from checks import refused, rows, values
from factories import ADDRESS
from races import blocked

# What a person wrote or lives at, in this file.
PERSONAL = ["12 Main Street", "Tulsa", "74103", "36.1539", "buyer's dog", "ring twice", "moved to Enid"]


def erase(conn, cart_id):
    [changed] = values(conn, "select checkout_erase(%s)", cart_id)
    return changed


@pytest.fixture
def bought(db, add_cart, checkout_sql):
    """A cart with everything a person may leave behind: addresses, notes of the host, reasons, and a short line."""
    cart = add_cart(vendors=3, lines=2, items={(2, 1): {"quantity": 101}})
    checkout_sql(db, cart)
    first, second, _ = cart.groups
    db.execute("update vendor_orders set notes = 'ring twice' where id = %s", (second.id,))
    db.execute("select vendor_order_cancel(%s, 'moved to Enid')", (first.id,))
    db.execute("select order_line_release(%s, 'the buyer''s dog')", (cart.items[2].id,))
    db.execute("select order_line_fulfil(%s)", (cart.items[3].id,))
    return cart


def everything(snapshot, conn):
    return json.dumps(snapshot(conn), default=str)


def test_nothing_personal_is_left_in_any_table(db, bought, snapshot):
    """Addresses and notes, in cart, orders, lines and events."""
    before = everything(snapshot, db)
    assert [word for word in PERSONAL if word not in before] == []

    assert erase(db, bought.id) == 1 + 3 + 3 + 2  # the cart, its orders, lines with a note, events with a reason

    after = everything(snapshot, db)
    assert [word for word in PERSONAL if word in after] == []


def test_what_was_bought_stays(db, bought, snapshot):
    """Ids, states and amounts are untouched, and so are other tables."""
    before = snapshot(db)
    erase(db, bought.id)
    after = snapshot(db)

    personal = {
        "cart_records": {"shipping_address", "updated_at"},
        "vendor_orders": {"shipping_address", "notes", "updated_at"},
        "order_line_items": {"notes", "updated_at"},
        "outbox_events": {"payload"},
    }

    def kept(tables):
        return {
            table: [
                {name: value for name, value in each.items() if name not in personal.get(table, ())} for each in found
            ]
            for table, found in tables.items()
        }

    assert kept(after) == kept(before)


def test_the_events_are_still_valid_and_say_erased(db, bought):
    """So that a relay that sends them later sends what consumers can read."""
    erase(db, bought.id)

    payloads = [validate(payload) for payload in values(db, "select payload from outbox_events order by id")]
    assert [payload["data"].get("reason") for payload in payloads] == [None, None, "erased", "erased", None]


def test_it_replays_with_an_empty_address(db, bought, checkout_sql):
    """Under the same key and request, and by another key: but for address and notes the same result."""
    before = checkout_sql(db, bought)
    erase(db, bought.id)

    again, other_key = checkout_sql(db, bought), checkout_sql(db, bought, key="k2")

    assert again == other_key
    assert again["shipping_address"] == {}
    assert again["outcome"] == before["outcome"] == "partial"  # the short line still says why it was rejected
    notes = [item.pop("notes") for order in again["vendor_orders"] for item in order["items"]]
    assert sorted(filter(None, notes)) == ["insufficient_inventory"]
    for order in before["vendor_orders"]:
        for item in order["items"]:
            item.pop("notes")
    assert again | {"shipping_address": None} == before | {"shipping_address": None}
    with refused("OC006"):
        checkout_sql(db, bought, shipping_address=ADDRESS | {"line1": "Elsewhere 1"})


def test_a_second_call_changes_nothing(db, bought, snapshot):
    erase(db, bought.id)
    before = snapshot(db)

    assert erase(db, bought.id) == 0
    assert snapshot(db) == before


def test_the_cart_is_closed_again_afterwards(db, connect, bought):
    """The permit is for this call alone: not for the rest of its transaction."""
    with connect() as owner:
        erase(owner, bought.id)
        with refused("OC009"):
            owner.execute("update cart_records set total_cents = 0")
    assert values(db, "select count(*) from cart_change_permits") == [0]


def test_other_carts_keep_their_addresses(db, bought, add_cart, checkout_sql):
    other = add_cart(cart={"shipping_address": ADDRESS})
    checkout_sql(db, other)

    erase(db, bought.id)

    assert checkout_sql(db, other)["shipping_address"] == ADDRESS


def test_the_orders_of_a_purged_cart_are_erased_too(db, bought, snapshot):
    """They carry a copy of the address, and their cart's id."""
    db.execute("update vendor_orders set status = 'closed'")
    assert values(db, "select cart_purge('0')") == [1]

    assert erase(db, bought.id) == 3 + 3 + 2
    assert [word for word in PERSONAL if word in everything(snapshot, db)] == []
    assert erase(db, bought.id) == 0


def test_a_quote_loses_its_address_and_can_still_be_ordered(db, add_cart, checkout_sql):
    cart = add_cart(cart={"shipping_address": ADDRESS})

    assert erase(db, cart.id) == 1
    assert "Tulsa" not in str(rows(db, "select to_jsonb(cart) from cart_records as cart"))
    assert checkout_sql(db, cart)["outcome"] == "complete"


def test_a_quote_without_an_address_stays_without_one(db, add_cart, snapshot):
    cart = add_cart()
    before = snapshot(db)

    assert erase(db, cart.id) == 0
    assert snapshot(db) == before


def test_an_address_that_the_host_widened_is_blanked_whole(db, add_cart, checkout_sql):
    """A host's address_t may have more fields."""
    db.execute("alter type address_t add attribute door_code text cascade")
    cart = add_cart()
    checkout_sql(db, cart, shipping_address=ADDRESS | {"door_code": "4711"})

    erase(db, cart.id)

    for table in ("cart_records", "vendor_orders"):
        [address] = {str(value) for value in values(db, f"select to_jsonb(shipping_address) from {table}")}
        assert "4711" not in address and "Tulsa" not in address


def test_an_id_of_nothing_is_refused(db, bought, snapshot):
    """OC001, and nothing is written."""
    before = snapshot(db)
    unknown = uuid4()

    with refused("OC001") as refusal:
        erase(db, unknown)

    assert refusal.detail == {"cart_id": str(unknown)}
    assert snapshot(db) == before


def test_only_the_owner_may(db, bought, new_role, login):
    role = new_role()
    for kind in ("checkout_grant", "checkout_grant_quotes", "checkout_grant_orders", "checkout_grant_operators"):
        db.execute(f"select {kind}(%s)", (role,))

    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        erase(login(role), bought.id)


def test_it_waits_for_a_checkout_under_way_and_erases_its_orders(db, connect, add_cart, checkout_sql, snapshot):
    cart = add_cart()
    with connect() as buyer, connect(autocommit=True) as owner:
        checkout_sql(buyer, cart)
        with blocked(db, erase, owner, cart.id) as waiting:
            buyer.commit()
        assert waiting.result(timeout=10) == 1 + 2
    assert "Tulsa" not in everything(snapshot, db)


def test_it_waits_for_a_cancel_under_way_and_erases_its_reason(db, connect, add_cart, checkout_sql, snapshot):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    with connect() as vendor, connect(autocommit=True) as owner:
        vendor.execute("select vendor_order_cancel(%s, 'moved to Enid')", (cart.groups[0].id,))
        with blocked(db, erase, owner, cart.id) as waiting:
            vendor.commit()
        assert waiting.result(timeout=10) == 1 + 1 + 2 + 1
    assert "Enid" not in everything(snapshot, db)


def test_orders_are_locked_in_the_order_of_their_ids(db, connect, add_cart, checkout_sql):
    """So that whoever else keeps that order cannot deadlock with it."""
    cart = add_cart(vendors=2)
    checkout_sql(db, cart)
    lower, higher = sorted(group.id for group in cart.groups)
    lock = "select from vendor_orders where id = %s for update"
    with connect() as holder, connect(autocommit=True) as owner, connect() as other:
        holder.execute(lock, (lower,))
        with blocked(db, erase, owner, cart.id) as waiting:
            other.execute(lock + " nowait", (higher,))
            other.rollback()
            holder.rollback()
        assert waiting.result(timeout=10) == 3


def test_a_cancel_of_an_erased_cart_is_waited_for_too(db, connect, add_cart, checkout_sql, snapshot):
    """Nothing is left to blank on its order, and yet its reason must not slip past."""
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    erase(db, cart.id)
    with connect() as vendor, connect(autocommit=True) as owner:
        vendor.execute("select vendor_order_cancel(%s, 'moved to Enid')", (cart.groups[0].id,))
        with blocked(db, erase, owner, cart.id) as waiting:
            vendor.commit()
        assert waiting.result(timeout=10) == 2 + 1
    assert "Enid" not in everything(snapshot, db)


def test_a_permit_that_the_transaction_has_already_is_no_obstacle(connect, bought):
    with connect() as owner:
        owner.execute("insert into cart_change_permits (cart_id) values (%s)", (bought.id,))
        assert erase(owner, bought.id) == 9


def test_when_it_was_done_shows(db, connect, bought):
    """updated_at is the time of the erasure, not that of the transaction it is in."""
    with connect() as owner:
        [before] = values(owner, "select clock_timestamp()")
        erase(owner, bought.id)
    for table in ("cart_records", "vendor_orders"):
        assert min(values(db, f"select updated_at from {table}")) >= before
