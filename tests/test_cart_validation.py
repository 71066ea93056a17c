"""PF-173: a cart is loaded for its buyer and found fit, or refused, before anything is written."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest

import pycheckout
from checks import refused
from factories import ADDRESS, carts_of, execute_sql, request_of
from races import blocked

pytest_plugins = ["shared"]

NOBODY = UUID("b0000000-0000-4000-8000-0000000000ff")

# Every way to be refused: the code, and what brings it about. Each gets the database and the cart factory, and returns
# the cart to check out and the arguments that differ. A name is the test's id.
WAYS: dict[str, tuple[str, Callable[..., tuple[Any, dict[str, Any]]]]] = {}


def way(code: str, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(arrange: Callable[..., Any]) -> Callable[..., Any]:
        WAYS[f"{code} {name}"] = (code, arrange)
        return arrange

    return register


def way_by_argument(name: str, **arguments: Any) -> None:
    WAYS[f"OC005 {name}"] = ("OC005", lambda db, add_cart: (add_cart(), arguments))


def way_by_cart(code: str, name: str, **columns: Any) -> None:
    WAYS[f"{code} {name}"] = (code, lambda db, add_cart: (add_cart(**columns), {}))


def insert_events(conn: Any, anchor: UUID) -> None:
    """Those of a conversion whose orders are no longer there."""
    conn.execute(
        """
        insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload)
        select gen_random_uuid(), kind, 'checkout_group', %s, '{}'
          from unnest('{checkout.vendor_orders_created,checkout.converted}'::text[]) as kind
        """,
        (anchor,),
    )


def insert_order(conn: Any, anchor: UUID, order: UUID, cart: UUID | None = None) -> None:
    """An order as a host writes one, with a line of its own and without an intent."""
    conn.execute(
        """
        insert into vendor_orders (
          id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        values (%s, %s, %s, gen_random_uuid(), gen_random_uuid(), 5000, 5000)
        """,
        (order, cart, anchor),
    )
    conn.execute(
        """
        insert into order_line_items (id, order_id, name, category, unit, unit_price_cents, qty, total_cents)
        values (gen_random_uuid(), %s, 'gift', 'other', 'each', 5000, 1, 5000)
        """,
        (order,),
    )


def without(constraint: str, table: str) -> str:
    """An existing database has none of our constraints: there the checkout alone stands between it and bad amounts."""
    return f"alter table {table} drop constraint {constraint}"


way_by_argument("no buyer", buyer_store_id=None)
way_by_argument("no cart id", cart_id=None)
for _name, _key in {
    "no": None,
    "empty": "",
    "256 characters of": "k" * 256,
    "space in the": "a b",
    "newline after the": "k\n",
    "umlaut in the": "schlüssel",
    "escape in the": "k\x1b",
}.items():
    way_by_argument(f"{_name} key", idempotency_key=_key)
for _name, _address in {
    "no address": None,
    "address is a list": [],
    "address is text": '"12 Main Street"',
    "address is null": "null",
    "empty address": {},
    "address without line1": {"city": "Tulsa", "country": "US"},
    "address without city": {"line1": "12 Main Street", "country": "US"},
    "address without country": {"line1": "12 Main Street", "city": "Tulsa"},
    "address with a blank city": ADDRESS | {"city": "  "},
    # each is what some locale's [[:space:]] does not know
    "address with an ideographic space for line1": ADDRESS | {"line1": "\u3000"},
    "address with no-break spaces for line1": ADDRESS | {"line1": "\u00a0\u202f"},
    "address with nothing that has width for city": ADDRESS | {"city": "\u200b\u200d\u2060\ufeff"},
    "address with null for line1": ADDRESS | {"line1": None},
    "address with a misspelt field": ADDRESS | {"line_2": "Dock 4"},
    "address with a number for text": ADDRESS | {"postal_code": 74103},
    "address with an object for text": ADDRESS | {"line2": {"dock": 4}},
    "address with 501 characters": ADDRESS | {"line2": "x" * 501},
    "address with text for lat": ADDRESS | {"lat": "36.15"},
    "address north of the pole": ADDRESS | {"lat": 90.1},
    "address beyond the date line": ADDRESS | {"lng": -180.1},
}.items():
    way_by_argument(_name, shipping_address=_address)
for _name, _method in {"no": None, "empty": "", "unknown": "barter", "misspelt": "ACH"}.items():
    way_by_argument(f"{_name} payment method", payment_method=_method)
for _name, _line in {
    "is a list": [],
    "is text": '"ground"',
    "is empty": {},
    "without a code": {"title": "Ground"},
    "with an empty code": {"code": ""},
    "with a number for code": {"code": 7},
    "with a long code": {"code": "c" * 201},
    "with a list for title": {"code": "ground", "title": []},
    "with a long title": {"code": "ground", "title": "t" * 501},
    "below zero": {"code": "ground", "price_cents": -1},
    "of half a cent": {"code": "ground", "price_cents": 0.5},
    "with text for price": {"code": "ground", "price_cents": "500"},
    "beyond bigint": {"code": "ground", "price_cents": 2**63},
    "with a field too many": {"code": "ground", "carrier": "UPS"},
}.items():
    way_by_argument(f"shipping line {_name}", shipping_line=_line)
for _policy in ("ad_token_policy", "reservation_policy"):
    for _name, _value in {"no": None, "empty": "", "unknown": "maybe", "misspelt": "DROP"}.items():
        way_by_argument(f"{_name} {_policy}", **{_policy: _value})

way_by_cart("OC003", "quote ran out", valid_for=-0.001)
way_by_cart("OC003", "quote ran out long ago", cart={"valid_until": "-infinity"})
way_by_cart("OC004", "no vendors", vendors=0)
way_by_cart("OC004", "no items", vendors=2, lines=0)
way_by_cart("OC004", "no item is available", vendors=1, lines=1, items={(0, 0): {"status": "not_available"}})
way_by_cart("OC004", "every item is invalid", vendors=1, lines=2, items={(0, i): {"status": "invalid"} for i in (0, 1)})
way_by_cart("OC004", "the only vendor is invalid", vendors=1, groups={0: {"status": "invalid"}})
way_by_cart("OC007", "the buyer is the vendor", buyer_store_id=NOBODY, vendors=[NOBODY])
way_by_cart("OC007", "a discount below zero", amounts="gross", line_discount_cents=-1)
for _cents in (1, -1):
    way_by_cart("OC007", f"a subtotal off by {_cents}", lines=1, groups={0: {"subtotal_cents": 1000 + _cents}})
way_by_cart("OC007", "a total above its lines", lines=1, groups={0: {"total_cents": 1001}})
way_by_cart(
    "OC007",
    "a total above its gross lines",
    lines=1,
    amounts="gross",
    line_discount_cents=100,
    groups={0: {"total_cents": 901}},
)
for _figure in ("subtotal_cents", "discounts_cents", "total_cents"):
    way_by_cart("OC007", f"a cart's own {_figure} that are not its groups'", cart={_figure: 900})
for _figure in ("subtotal_cents", "total_cents"):
    way_by_cart("OC007", f"a group without an item that has {_figure}", lines=[1, 0], groups={1: {_figure: 100}})
way_by_cart("OC007", "a total below zero", lines=1, groups={0: {"total_cents": -1}})
way_by_cart(
    "OC007", "a group that counts an invalid line", lines=2, items={(0, 1): {"status": "invalid"}},
    groups={0: {"subtotal_cents": 2000, "total_cents": 2000}},
)  # fmt: skip


@way("OC001", "no such cart")
def _(db, add_cart):
    return add_cart(), {"cart_id": NOBODY}


@way("OC001", "another buyer's cart")
def _(db, add_cart):
    return add_cart(), {"buyer_store_id": NOBODY}


@way("OC001", "another buyer's converted cart")
def _(db, add_cart):
    cart = add_cart()
    pycheckout.execute(db, **request_of(cart))
    return cart, {"buyer_store_id": NOBODY}


@way("OC002", "a status of the host")
def _(db, add_cart):
    db.execute("alter type cart_status add value 'abandoned'")
    return add_cart(cart={"status": "abandoned"}), {}


@way("OC003", "a quote without an end, which an existing database may hold")
def _(db, add_cart):
    db.execute("alter table cart_records alter valid_until drop not null")
    return add_cart(cart={"valid_until": None}), {}


@way("OC006", "key of another cart")
def _(db, add_cart):
    other = add_cart()
    pycheckout.execute(db, **request_of(other))
    return add_cart(buyer_store_id=other.buyer_store_id), {}


@way("OC007", "a vendor without a group")
def _(db, add_cart):
    cart = add_cart()
    db.execute("delete from cart_vendor_groups where id = %s", (cart.groups[1].id,))
    return cart, {}


@way("OC007", "the only vendor has no group")
def _(db, add_cart):
    cart = add_cart(vendors=1)
    db.execute("delete from cart_vendor_groups where cart_id = %s", (cart.id,))
    return cart, {}


@way("OC007", "a quantity of zero")
def _(db, add_cart):
    db.execute(without("cart_items_orderable_quantity", "cart_items"))
    return add_cart(quantity=0), {}


@way("OC007", "a price below zero")
def _(db, add_cart):
    db.execute(without("cart_items_price_not_negative", "cart_items"))
    return add_cart(unit_price_cents=-5), {}


@way("OC007", "a gross line that does not add up")
def _(db, add_cart):
    db.execute(without("cart_items_gross_adds_up", "cart_items"))
    return add_cart(amounts="gross", lines=1, items={(0, 0): {"line_total_cents": 999}}), {}


@way("OC007", "a gross line whose total was never written")
def _(db, add_cart):
    # as an existing database has it, whose new column is not null and 0
    db.execute(without("cart_items_gross_adds_up", "cart_items"))
    return add_cart(lines=1, items={(0, 0): {"line_discounts_cents": 0, "line_total_cents": 0}}), {}


@way("OC008", "an ad token that is none")
def _(db, add_cart):
    return add_cart(ad_tokens=["not.a.token"]), {"ad_token_policy": "error"}


@way("OC010", "a line is short")
def _(db, add_cart):
    return add_cart(stock=1, items={(1, 1): {"quantity": 2}}), {"reservation_policy": "all"}


# The cart fits, but not into the tables: only writing shows it, and what was written is taken back.
@way("OC007 written", "a sum beyond the host's integers")
def _(db, add_cart):
    db.execute("alter table vendor_orders alter subtotal_cents type integer")
    return add_cart(lines=3, unit_price_cents=2**30), {}


@way("OC007 written", "a name beyond the host's length")
def _(db, add_cart):
    db.execute("alter table order_line_items alter name type varchar(9)")
    return add_cart(), {}


@way("OC007 written", "a null that the host's column forbids")
def _(db, add_cart):
    db.execute("alter table order_line_items alter max_qty set not null")
    return add_cart(), {}


@way("OC007 written", "a constraint of the host")
def _(db, add_cart):
    db.execute("alter table payment_intents add constraint intents_small check (amount_cents < 1000)")
    return add_cart(), {}


@way("OC007 written", "ids of an earlier order")
def _(db, add_cart):
    cart = add_cart()
    db.execute(
        """
        insert into vendor_orders (id, checkout_group_id, buyer_store_id, vendor_store_id, subtotal_cents, total_cents)
        values (%s, gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), 0, 0)
        """,
        (cart.groups[0].id,),
    )
    return cart, {}


@way("OC007", "an anchor that carries orders of the host")
def _(db, add_cart):
    anchor = UUID(int=9)
    insert_order(db, anchor, UUID(int=8))
    return add_cart(cart={"checkout_group_id": anchor}), {}


@way("OC007", "an anchor that carries the events of a conversion")
def _(db, add_cart):
    insert_events(db, anchor := UUID(int=9))
    return add_cart(cart={"checkout_group_id": anchor}), {}


BEFORE_ANY_WRITE = [name for name, (code, _) in WAYS.items() if code not in ("OC010", "OC007 written")]
# A value of an enum cannot be used before it is committed; the others share a database, and are rolled back.
BY_ITSELF = {"OC002 a status of the host"}
# To the audit an order with the id of a vendor group is the checkout's, and this one has nothing of what that writes.
ALL = [
    pytest.param(name, marks=pytest.mark.breaks_invariants) if name == "OC007 written ids of an earlier order" else name
    for name in WAYS
]


@pytest.fixture
def conn(request, name):
    """The connection for a way to be refused."""
    return request.getfixturevalue("db" if name in BY_ITSELF else "undone")


@pytest.fixture
def arranged(conn, name):
    """A way to be refused: the cart and the arguments of the call."""
    return WAYS[name][1](conn, carts_of(conn))


@contextmanager
def refused_once(conn, name):
    """As by `refused`; what the call had done is undone, as it is for a statement that stands alone."""
    with refused(WAYS[name][0][:5]) as refusal, conn.transaction():
        yield refusal


def guard(conn):
    """From then on, any statement that writes to a table raises while test.no_write is on."""
    conn.execute(
        """
        do $$
        declare
          v_table text;
        begin
          create function refuse_write() returns trigger language plpgsql as '
            begin
              if current_setting(''test.no_write'', true) = ''on'' then
                raise exception ''% wrote to %'', tg_op, tg_table_name;
              end if;
              return null;
            end';
          for v_table in select tablename from pg_tables where schemaname = 'public' loop
            execute format('create trigger aaa_refuse_write before insert or update or delete on %I
                              for each statement execute function refuse_write()', v_table);
          end loop;
        end
        $$
        """
    )


@pytest.fixture(scope="module")
def guarded(shared_db):
    guard(shared_db)


@pytest.mark.parametrize("name", ALL)
def test_a_refused_checkout_leaves_not_one_row_changed(conn, arranged, checkout_sql, snapshot, name):
    """PF-173: validations come before writes; PF-174: the cart is converted only after success."""
    cart, arguments = arranged
    before = snapshot(conn)

    with refused_once(conn, name):
        checkout_sql(conn, cart, **arguments)

    assert snapshot(conn) == before


@pytest.mark.parametrize("name", BEFORE_ANY_WRITE)
def test_every_validation_comes_before_the_first_write(guarded, conn, arranged, checkout_sql, name):
    """PF-173: all validations occur before any database writes."""
    cart, arguments = arranged
    if name in BY_ITSELF:
        guard(conn)

    with refused_once(conn, name):
        conn.execute("set local test.no_write = on")
        checkout_sql(conn, cart, **arguments)


def test_a_write_before_a_refusal_would_be_seen(guarded, undone):
    """So that the test above is known to try something."""
    cart = carts_of(undone)()
    undone.execute("set local test.no_write = on")
    with pytest.raises(psycopg.errors.RaiseException, match="INSERT wrote to"):
        execute_sql(undone, cart)


@pytest.mark.parametrize("name", ALL)
def test_a_refusal_is_the_same_each_time(conn, arranged, checkout_sql, name):
    """PF-173: deterministic validation errors for invalid carts."""
    cart, arguments = arranged
    seen = []
    for _ in range(2):
        with refused_once(conn, name) as refusal:
            checkout_sql(conn, cart, **arguments)
        refusal.detail.pop("now", None)
        seen.append((refusal.message, refusal.detail, refusal.hint))
    assert seen[0] == seen[1]


def test_a_cart_of_another_buyer_is_told_like_one_that_does_not_exist(db, add_cart, checkout_sql):
    """PF-173: checkout fails if the cart does not belong to the buyer store."""
    cart = add_cart()
    with refused("OC001") as theirs:
        checkout_sql(db, cart, buyer_store_id=NOBODY)
    with refused("OC001") as missing:
        checkout_sql(db, cart, buyer_store_id=NOBODY, cart_id=NOBODY)

    assert (theirs.detail, theirs.hint) == ({"cart_id": str(cart.id)}, missing.hint)
    assert theirs.message == f"buyer {NOBODY} has no cart {cart.id}"
    assert missing.message == f"buyer {NOBODY} has no cart {NOBODY}"


def test_the_status_of_a_cart_that_is_not_active_is_told(db, add_cart, checkout_sql):
    """PF-173: checkout fails if the cart's status is not active."""
    db.execute("alter type cart_status add value 'abandoned'")
    cart = add_cart(cart={"status": "abandoned"})
    with refused("OC002") as refusal:
        checkout_sql(db, cart)
    assert refusal.detail == {"cart_id": str(cart.id), "status": "abandoned"}


def test_one_orderable_item_is_enough(db, add_cart, checkout_sql):
    """PF-173: checkout fails only if no cart item has the status ok."""
    cart = add_cart(
        vendors=3,
        items={(0, 0): {"status": "invalid"}, (0, 1): {"status": "not_available"}, (1, 1): {"status": "invalid"}},
        groups={2: {"status": "invalid"}},
    )
    result = checkout_sql(db, cart)
    assert [order["vendor_store_id"] for order in result["vendor_orders"]] == [str(cart.vendors[1])]


def test_a_quote_that_ends_while_the_call_waits_for_the_cart_is_refused(db, connect, add_cart, checkout_sql, snapshot):
    """PF-173: whether a cart expired is judged after its lock was got, not by the transaction's start."""
    cart = add_cart()
    holder, waiter = connect(), connect(autocommit=True)
    holder.execute("select from cart_records where id = %s for update", (cart.id,))

    with blocked(db, checkout_sql, waiter, cart) as waiting:
        # later than the start of the waiting statement, and past by the time it has the lock
        holder.execute("update cart_records set valid_until = clock_timestamp() where id = %s", (cart.id,))
        holder.commit()
        before = snapshot(db)
        with refused("OC003") as refusal:
            waiting.result(timeout=10)

    assert refusal.detail["valid_until"] < refusal.detail["now"]
    assert snapshot(db) == before


@pytest.mark.parametrize(
    ("columns", "problem", "expected", "found"),
    [
        ({"groups": {0: {"subtotal_cents": 2001}}}, "vendor_subtotal", 2000, 2001),
        ({"groups": {0: {"total_cents": 2001}}}, "vendor_total", 2000, 2001),
        (
            {"amounts": "gross", "line_discount_cents": 3, "groups": {0: {"total_cents": 1995}}},
            "vendor_total",
            1994,
            1995,
        ),
        ({"amounts": "gross", "line_discount_cents": -1}, "line_amounts", 1001, 1001),
        ({"cart": {"subtotal_cents": 2100}}, "cart_subtotal", 2000, 2100),
        ({"cart": {"total_cents": 1900}}, "cart_total", 2000, 1900),
        ({"cart": {"discounts_cents": 7}}, "cart_discounts", 0, 7),
        ({"promo_cents": 300, "cart": {"discounts_cents": 0}}, "cart_discounts", 300, 0),
        # no ok group: the sums over none are zero
        ({"groups": {0: {"status": "invalid"}}, "cart": {"subtotal_cents": 2000}}, "cart_subtotal", 0, 2000),
        ({"groups": {0: {"status": "invalid"}}, "cart": {"total_cents": 2000}}, "cart_total", 0, 2000),
        ({"groups": {0: {"status": "invalid"}}, "cart": {"discounts_cents": 7}}, "cart_discounts", 0, 7),
    ],
)
def test_a_quote_that_contradicts_itself_is_refused_with_both_figures(
    db, add_cart, checkout_sql, columns, problem, expected, found
):
    """PF-173: deterministic validation errors; OC007 with both figures in DETAIL."""
    cart = add_cart(vendors=1, **columns)
    with refused("OC007") as refusal:
        checkout_sql(db, cart)
    assert refusal.detail["cart_id"] == str(cart.id)
    assert (refusal.detail["problem"], refusal.detail["expected"], refusal.detail["found"]) == (
        problem,
        expected,
        found,
    )


@pytest.mark.parametrize(
    "columns",
    [
        {"items": {(0, 0): {"unit_price_cents": -1, "line_subtotal_cents": 1000}}},
        {"items": {(0, 0): {"line_subtotal_cents": -1}}, "groups": {0: {"subtotal_cents": -1, "total_cents": -1}}},
        {"amounts": "gross", "line_discount_cents": 1001},
    ],
    ids=["a price below zero", "a subtotal below zero", "a total below zero"],
)
def test_each_amount_of_a_line_is_looked_at_where_no_constraint_does(db, add_cart, checkout_sql, columns):
    """PF-173: an existing database has constraints of its own, or none; the other figures may add up."""
    for constraint in ("cart_items_price_not_negative", "cart_items_gross_adds_up"):
        db.execute(without(constraint, "cart_items"))
    cart = add_cart(vendors=1, lines=1, **columns)
    with refused("OC007") as refusal:
        checkout_sql(db, cart)
    assert (refusal.detail["problem"], refusal.detail["cart_item_id"]) == ("line_amounts", str(cart.items[0].id))


def test_the_first_of_several_contradictions_is_told_whatever_the_row_order(db, add_cart, checkout_sql):
    """PF-173: deterministic validation errors."""
    ids = [UUID(int=number) for number in (3, 1, 2)]
    cart = add_cart(
        vendors=1,
        lines=3,
        amounts="gross",
        line_discount_cents=-1,
        items={(0, line): {"id": item_id} for line, item_id in enumerate(ids)},
    )
    with refused("OC007") as refusal:
        checkout_sql(db, cart)
    assert refusal.detail["cart_item_id"] == str(min(ids))


def test_contradictions_of_what_is_not_ordered_do_not_matter(db, add_cart, checkout_sql):
    """PF-173: only ordered vendors and lines are validated."""
    own = add_cart(vendors=[UUID(int=1), NOBODY], buyer_store_id=NOBODY, groups={1: {"status": "invalid"}})
    assert len(checkout_sql(db, own)["vendor_orders"]) == 1

    gone = add_cart(
        vendors=[UUID(int=1), NOBODY],
        lines=1,
        buyer_store_id=NOBODY,
        groups={1: {"status": "invalid"}},
        items={(1, 0): {"status": "not_available"}},
    )
    db.execute("delete from cart_vendor_groups where id = %s", (gone.groups[1].id,))
    assert len(checkout_sql(db, gone, key="k2")["vendor_orders"]) == 1

    cart = add_cart(
        vendors=2,
        items={(0, 1): {"status": "invalid", "quantity": 0, "unit_price_cents": 0}},
        groups={1: {"status": "invalid", "subtotal_cents": 1, "total_cents": 99}},
    )
    assert checkout_sql(db, cart)["vendor_orders"][0]["total_cents"] == 1000
