"""checkout_erase: a person goes, and what a guess could be tried on; what was bought stays, and so do replays."""

import json
from uuid import uuid4

import psycopg
import pytest
from ads import KEY, ad_token
from events import validate

from checks import refused, rows, values
from factories import ADDRESS
from races import blocked

# What a person wrote or lives at, in this file; what marks them for others; and what a broker said about their event.
PERSONAL = ["12 Main Street", "Tulsa", "74103", "36.1539", "buyer's dog", "ring twice", "moved to Enid"]
PERSONAL += ["key-of-a-person", "eyJ", "bid-of-77", "refused: Enid", "c1c1c1c1-0000-4000-8000-000000000001"]
CLICK = "c1c1c1c1-0000-4000-8000-000000000001"


def erase(conn, cart_id):
    [changed] = values(conn, "select checkout_erase(%s)", cart_id)
    return changed


@pytest.fixture
def bought(db, add_cart, checkout_sql):
    """A cart with everything that a person may leave behind.

    Addresses, notes of the host, reasons, keys, tokens, refusals of a broker, a click of the earlier system, and a
    short line.
    """
    cart = add_cart(vendors=3, lines=2, items={(2, 1): {"quantity": 101}})
    first, second, _ = cart.groups
    db.execute("select ad_signing_key_put('k1', %s)", (KEY,))
    tokens = [
        ad_token(cart, 1, "store", second.vendor_store_id, bid="bid-of-77"),
        ad_token(cart, 2, "product", cart.items[2].product_id, bid="bid-of-77"),
    ]
    db.execute("update cart_records set ad_tokens = %s", (tokens,))
    checkout_sql(db, cart, key="key-of-a-person")
    checkout_sql(db, cart, key="other-key-of-a-person")
    db.execute("update vendor_orders set notes = 'ring twice' where id = %s", (second.id,))
    db.execute("select vendor_order_cancel(%s, 'moved to Enid')", (first.id,))
    db.execute("select order_line_release(%s, 'the buyer''s dog')", (cart.items[2].id,))
    db.execute("select order_line_fulfil(%s)", (cart.items[3].id,))
    db.execute(
        "update outbox_events set last_error = 'refused: Enid', attempt_count = 1"
        " where event_type in ('checkout.converted', 'vendor_order.canceled')"
    )
    db.execute(
        "insert into outbox_dead_letters select id, event_type, aggregate_type, aggregate_id, 1, 'refused: Enid', now()"
        " from outbox_events where event_type = 'vendor_order.canceled'"
    )
    db.execute("create table checkout_groups_archive (id uuid primary key, attributed_ad_click_id uuid)")
    db.execute("insert into checkout_groups_archive select checkout_group_id, %s from cart_records", (CLICK,))
    return cart


def everything(snapshot, conn):
    return json.dumps(snapshot(conn), default=str)


# orders, lines with a note or a token, changes with a reason, keys, events with a reason or an error, a dead letter,
# a click
LEFT = 3 + 3 + 2 + 2 + 3 + 1 + 1
ALL = 1 + LEFT  # and the cart


def test_nothing_personal_is_left_in_any_table(db, bought, snapshot):
    """Addresses and notes, in cart, orders, lines and events."""
    before = everything(snapshot, db)
    assert [word for word in PERSONAL if word not in before] == []

    assert erase(db, bought.id) == ALL

    after = everything(snapshot, db)
    assert [word for word in PERSONAL if word in after] == []


def test_what_was_bought_stays(db, bought, snapshot):
    """Ids, states and amounts are untouched, and so are other tables."""
    before = snapshot(db)
    erase(db, bought.id)
    after = snapshot(db)

    personal = {
        "cart_records": {"shipping_address", "ad_tokens", "updated_at"},
        "vendor_orders": {"shipping_address", "notes", "attributed_token", "updated_at"},
        "order_line_items": {"notes", "attributed_token", "updated_at"},
        "order_changes": {"reason", "details", "lines"},
        "outbox_events": {"payload", "last_error"},
        "outbox_dead_letters": {"error"},
        "checkout_groups_archive": {"attributed_ad_click_id"},
    }
    before.pop("checkout_requests"), after.pop("checkout_requests")

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


def test_it_replays_without_its_key_and_with_an_empty_address(db, bought, checkout_sql):
    """By any key and request: but for address and notes the same result."""
    before = checkout_sql(db, bought, key="key-of-a-person")
    erase(db, bought.id)

    again = checkout_sql(db, bought, key="key-of-a-person")
    guess = checkout_sql(db, bought, key="k2", shipping_address=ADDRESS | {"line1": "Elsewhere 1"})

    assert again == guess
    assert again["shipping_address"] == {}
    assert again["outcome"] == before["outcome"] == "partial"  # the short line still says why it was rejected
    notes = [item.pop("notes") for order in again["vendor_orders"] for item in order["items"]]
    assert sorted(filter(None, notes)) == ["insufficient_inventory"]
    for order in before["vendor_orders"]:
        for item in order["items"]:
            item.pop("notes")
    for order in (*again["vendor_orders"], *before["vendor_orders"]):
        order.pop("updated_at"), order.pop("shipping_address")
    assert again | {"shipping_address": None} == before | {"shipping_address": None}


def test_nothing_that_is_left_confirms_a_guess(db, bought, checkout_sql):
    """The hash of a request is over its address: neither the old ones stay, nor does a replay leave a new one."""
    erase(db, bought.id)
    for key in ("key-of-a-person", "k2"):
        checkout_sql(db, bought, key=key)

    assert values(db, "select count(*) from checkout_requests") == [0]
    assert erase(db, bought.id) == 0


def test_keys_of_other_carts_of_the_buyer_stay(db, bought, add_cart, checkout_sql):
    other = add_cart(buyer_store_id=bought.buyer_store_id)
    checkout_sql(db, other, key="k7")
    erase(db, bought.id)
    assert values(db, "select idempotency_key from checkout_requests") == ["k7"]


def test_of_a_token_stays_what_buyers_are_shown(db, bought, checkout_sql):
    shown = checkout_sql(db, bought)["vendor_orders"][1]["attributed_token"]
    erase(db, bought.id)
    [kept] = values(db, "select attributed_token from vendor_orders where attributed_token is not null")
    assert kept == shown and kept["ad_id"]


@pytest.mark.breaks_invariants  # under the order, none of ours stands any more
@pytest.mark.parametrize("aggregate", ["the anchor", "the order"])
def test_events_of_orders_are_found_under_the_anchor_and_under_the_order(db, bought, aggregate, snapshot):
    column = "checkout_group_id" if aggregate == "the anchor" else "id"
    db.execute(
        f"update outbox_events as event set aggregate_id = vendor_order.{column}"
        " from vendor_orders as vendor_order where payload #>> '{data,order_id}' = vendor_order.id::text"
    )
    db.execute(
        f"update outbox_dead_letters set aggregate_id = vendor_order.{column} from vendor_orders as vendor_order"
        " where vendor_order.id = %s",
        (bought.groups[0].id,),
    )
    assert erase(db, bought.id) == ALL
    assert [word for word in PERSONAL if word in everything(snapshot, db)] == []


def test_events_of_the_host_about_these_orders_stay_but_for_a_brokers_error(db, bought):
    """What it wrote into them, it must erase itself."""
    db.execute(
        "insert into outbox_events (event_type, aggregate_type, aggregate_id, payload, last_error) values"
        """ ('host.note', 'vendor_order', %s, '{"data": {"reason": "of the host"}}', 'refused')""",
        (bought.groups[0].id,),
    )
    assert erase(db, bought.id) == ALL + 1
    [event] = rows(db, "select payload, last_error from outbox_events where event_type = 'host.note'")
    assert event == {"payload": {"data": {"reason": "of the host"}}, "last_error": None}


@pytest.mark.breaks_invariants
def test_every_order_of_the_cart_is_erased_whatever_its_anchor(db, bought, snapshot):
    """One id that was quoted again after a purge had orders of two conversions."""
    db.execute(
        "update vendor_orders set checkout_group_id = gen_random_uuid() where id = %s",
        (bought.groups[1].id,),
    )
    erase(db, bought.id)
    assert [word for word in PERSONAL if word in everything(snapshot, db)] == []
    assert erase(db, bought.id) == 0


@pytest.mark.breaks_invariants
def test_a_foreign_order_under_the_anchor_is_left_alone(db, bought):
    """Another cart's; one that names no cart is an earlier system's, and this cart's."""
    other, nobodys, _ = (group.id for group in bought.groups)
    db.execute(
        "alter table vendor_orders drop constraint vendor_orders_cart_id_set"
    )  # as on an earlier system's orders
    cart_id = "case id when %s then gen_random_uuid() end"
    db.execute(f"update vendor_orders set cart_id = {cart_id} where id in (%s, %s)", (other, other, nobodys))
    erase(db, bought.id)
    cities = dict(db.execute("select id, (shipping_address).city from vendor_orders").fetchall())
    assert cities == {other: "Tulsa"} | {group.id: None for group in bought.groups[1:]}


def test_a_relay_whose_broker_takes_its_time_is_not_waited_for(connect, bought):
    """Nor does it wait: what it holds while it waits for the broker is no lock of the database."""
    with connect() as relay, connect(autocommit=True) as owner:
        [claim] = values(relay, "select distinct claim_id from outbox_claim(100)")
        relay.commit()
        owner.execute("set lock_timeout = '1s'")
        assert erase(owner, bought.id) == ALL
        assert values(relay, "select outbox_ack(%s, array_agg(id)) from outbox_events", claim) != [0]


def test_events_are_locked_in_the_order_of_their_ids(db, connect, bought):
    """As a relay marks them, so that the two cannot deadlock."""
    ids = values(db, "select id from outbox_events where last_error is not null order by id")
    lock = "select from outbox_events where id = %s for update"
    with connect() as holder, connect(autocommit=True) as owner, connect() as other:
        holder.execute(lock, (ids[0],))
        with blocked(db, erase, owner, bought.id) as waiting:
            other.execute(lock + " nowait", (ids[-1],))
            other.rollback()
            holder.rollback()
        assert waiting.result(timeout=10) == ALL


def test_an_error_that_a_relay_is_taking_back_is_not_counted(db, connect, bought):
    """An event is judged once it is locked: as it is then."""
    erase(db, bought.id)
    [event] = values(
        db, "update outbox_events set last_error = 'Enid' where event_type = 'checkout.converted' returning id"
    )
    with connect() as relay, connect(autocommit=True) as owner:
        relay.execute("update outbox_events set last_error = null where id = %s", (event,))
        with blocked(db, erase, owner, bought.id) as waiting:
            relay.commit()
        assert waiting.result(timeout=10) == 0


def test_the_archive_may_be_gone_or_know_no_clicks(db, bought):
    db.execute("alter table checkout_groups_archive drop column attributed_ad_click_id")
    assert erase(db, bought.id) == ALL - 1


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

    assert erase(db, bought.id) == LEFT
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
        assert waiting.result(timeout=10) == 1 + 2 + 1
    assert "Tulsa" not in everything(snapshot, db)


def test_it_waits_for_a_cancel_under_way_and_erases_its_reason(db, connect, add_cart, checkout_sql, snapshot):
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    with connect() as vendor, connect(autocommit=True) as owner:
        vendor.execute("select vendor_order_cancel(%s, 'moved to Enid')", (cart.groups[0].id,))
        with blocked(db, erase, owner, cart.id) as waiting:
            vendor.commit()
        assert waiting.result(timeout=10) == 1 + 1 + 2 + 1 + 1 + 1
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
        assert waiting.result(timeout=10) == 3 + 1


def test_a_cancel_of_an_erased_cart_is_waited_for_too(db, connect, add_cart, checkout_sql, snapshot):
    """Nothing is left to blank on its order, and yet its reason must not slip past."""
    cart = add_cart(vendors=1)
    checkout_sql(db, cart)
    erase(db, cart.id)
    with connect() as vendor, connect(autocommit=True) as owner:
        vendor.execute("select vendor_order_cancel(%s, 'moved to Enid')", (cart.groups[0].id,))
        with blocked(db, erase, owner, cart.id) as waiting:
            vendor.commit()
        assert waiting.result(timeout=10) == 2 + 1 + 1
    assert "Enid" not in everything(snapshot, db)


def test_a_permit_that_the_transaction_has_already_is_no_obstacle(connect, bought):
    with connect() as owner:
        owner.execute("insert into cart_change_permits (cart_id) values (%s)", (bought.id,))
        assert erase(owner, bought.id) == ALL


def test_when_it_was_done_shows(db, connect, bought):
    """updated_at is the time of the erasure, not that of the transaction it is in."""
    with connect() as owner:
        [before] = values(owner, "select clock_timestamp()")
        erase(owner, bought.id)
    for table in ("cart_records", "vendor_orders"):
        assert min(values(db, f"select updated_at from {table}")) >= before
