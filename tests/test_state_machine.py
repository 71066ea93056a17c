"""Carts, stock, checkouts, replays, order changes, purges and a host's own statements in random order, against a model.

The model, a few dictionaries, knows what every call must answer, to the unit and to the cent, before it is made; what
each line holds and what each order comes to. After each step the database is compared with it as a whole, and
checkout_audit() must name what the host has ended by a state of its own, and nothing else.
"""

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from checks import row, rows, values
from factories import Cart

PRODUCTS = [UUID(int=number) for number in range(1, 5)]
BUYERS = [UUID(int=number) for number in (11, 12)]
VENDORS = [UUID(int=number) for number in (21, 22, 23)]
POLICIES = ["partial", "partial", "vendor", "all"]
OPEN = ("pending", "accepted", "hold")
ENDED = ("rejected", "delivered", "closed", "canceled", "expired")  # whose carts may be purged
CHANGING = ("created_pending", "accepted", "partially_accepted", "partially_fulfilled", "hold")  # states that follow
CANCELED_FROM = ("created_pending", "accepted", "partially_accepted", "hold")
RELEASED_FROM = (*CHANGING, "canceled", "expired", "rejected")
FULFILLED_FROM = (*CANCELED_FROM[:3], "partially_fulfilled", "in_transit", "delivered", "fulfilled")
HOST_STATES = (
    "accepted",
    "accepted",
    "accepted",
    "hold",
    "in_transit",
    "delivered",
    "closed",
    "canceled",
    "expired",
    "rejected",
    "fulfilled",
)
FOREIGN_VENDOR = UUID(int=29)


@dataclass
class Line:
    product_id: UUID
    vendor: UUID
    qty: int
    subtotal: int
    discount: int
    total: int
    status: str = "pending"
    held: int = 0

    @property
    def is_kept(self):
        return self.held > 0 or self.status != "rejected"


@dataclass
class Order:
    cart_id: UUID
    lines: dict[UUID, Line]
    promo: int
    status: str = "created_pending"
    tax: int = 0
    balance: int = 0
    intent: int = 0
    is_paid_for: bool = False  # its intent is not unpaid any more

    @property
    def kept(self):
        return [line for line in self.lines.values() if line.is_kept]

    @property
    def holding(self):
        return [line_id for line_id, line in self.lines.items() if line.held]

    @property
    def share(self):
        return min(self.promo, sum(line.total for line in self.kept))

    def amounts(self):
        """Subtotal, discounts and total: what the lines that are left say, and the promotion's share of it."""
        total = sum(line.total for line in self.kept)
        subtotal = sum(line.subtotal for line in self.kept)
        tax = self.tax if self.kept else 0
        return subtotal, sum(line.discount for line in self.kept) + self.share, total - self.share + tax


@dataclass
class Model:
    available: Counter = field(default_factory=Counter)
    slots: dict[UUID, int] = field(default_factory=dict)
    carts: dict[UUID, Cart] = field(default_factory=dict)
    expired: set[UUID] = field(default_factory=set)
    converted: dict[UUID, dict] = field(default_factory=dict)  # the first answer
    orders: dict[UUID, Order] = field(default_factory=dict)
    keys: dict[tuple[UUID, str], tuple[UUID, str]] = field(default_factory=dict)
    events: Counter = field(default_factory=Counter)
    wrong: dict[UUID, str] = field(default_factory=dict)  # carts with a wrong figure, and what mends it
    anchors: dict[UUID, UUID] = field(default_factory=dict)  # of carts, active ones too
    foreign: dict[UUID, UUID] = field(default_factory=dict)  # orders of the host's, and the anchor they stand under
    gifts: dict[UUID, str] = field(default_factory=dict)  # lines of the host's in our orders

    def orderable(self, cart):
        good = {group.vendor_store_id for group in cart.groups if group.status == "ok"}
        return [item for item in cart.items if item.status == "ok" and item.vendor_store_id in good]

    def short(self, cart, policy):
        """Lines in product and id order, each whole or not at all, from what the lines before it left."""
        left, short = self.available.copy(), set()
        for item in sorted(self.orderable(cart), key=lambda item: (item.product_id, item.id)):
            if item.quantity <= left[item.product_id]:
                left[item.product_id] -= item.quantity
            else:
                short.add(item.id)
        if policy == "vendor":
            vendors = {item.vendor_store_id for item in cart.items if item.id in short}
            short = {item.id for item in self.orderable(cart) if item.vendor_store_id in vendors}
        return short

    def refusal(self, cart, key, policy):
        bound = self.keys.get((cart.buyer_store_id, key))
        if bound and bound != (cart.id, policy):
            return "OC006"
        if cart.id in self.converted:
            return None
        if cart.id in self.expired:
            return "OC003"
        if self.anchors.get(cart.id) in self.foreign.values():
            return "OC007"
        if cart.id in self.wrong:
            return "OC007"
        if not self.orderable(cart):
            return "OC004"
        if policy == "all" and self.short(cart, policy):
            return "OC010"
        return None

    def convert(self, cart, policy):
        short = self.short(cart, policy)
        for group in cart.groups:
            lines = {
                item.id: Line(
                    item.product_id,
                    item.vendor_store_id,
                    item.quantity,
                    item.line_subtotal_cents,
                    item.line_discounts_cents,
                    item.line_total_cents,
                    *(("rejected", 0) if item.id in short else ("pending", item.quantity)),
                )
                for item in self.orderable(cart)
                if item.vendor_store_id == group.vendor_store_id
            }
            if lines:
                order = self.orders[group.id] = Order(cart.id, lines, group.promo_cents)
                if not order.kept:
                    order.status = "rejected"
                order.balance = order.intent = order.amounts()[2]
        for item in self.orderable(cart):
            if item.id not in short:
                self.available[item.product_id] -= item.quantity
        self.events.update(["checkout.converted", "checkout.vendor_orders_created"])

    def end(self, order, line_ids, status):
        before = order.amounts()[2]
        for line_id in line_ids:
            line = order.lines[line_id]
            if status == "rejected":
                self.available[line.product_id] += line.held
            line.status, line.held = status, 0
        # a share that was capped once does not grow again
        order.promo = order.share
        order.tax = order.tax if order.kept else 0
        order.balance = max(order.balance - (before - order.amounts()[2]), 0)
        if not order.is_paid_for:
            order.intent = order.amounts()[2]
        if order.status in CHANGING:
            fulfilled = [line for line in order.kept if line.status == "fulfilled" and not line.held]
            if not order.kept:
                order.status = "rejected"
            elif len(fulfilled) == len(order.kept):
                order.status = "fulfilled"
            elif fulfilled:
                order.status = "partially_fulfilled"
            elif order.status == "accepted":
                order.status = "partially_accepted"

    def faults(self):
        """What the audit must name: stock that has ended, and orders of others under our anchors."""
        ours = {UUID(answer["checkout_group_id"]) for answer in self.converted.values()}
        yield from (("anchor_has_its_own_orders_alone", key) for key, anchor in self.foreign.items() if anchor in ours)
        for order_id, order in self.orders.items():
            if order.status in ("rejected", "fulfilled", "canceled", "expired") and order.holding:
                yield "ended_order_holds_nothing", order_id
            for line_id in order.holding:
                if order.lines[line_id].status in ("rejected", "fulfilled"):
                    yield "ended_line_holds_nothing", line_id


class Checkouts(RuleBasedStateMachine):
    """Fixtures of the test stand in the class: hypothesis makes the machines."""

    db: psycopg.Connection
    add_cart = checkout_sql = reset = None
    met: Counter

    model: Model

    @initialize(levels=st.tuples(*[st.sampled_from([12, 0, 6, 3, 24, 0])] * len(PRODUCTS)), data=st.data())
    def begin(self, levels, data):
        type(self).reset()
        self.model = Model()
        for product, available in zip(PRODUCTS, levels, strict=True):
            self.call("inventory_set", product, available)
            self.model.available[product], self.model.slots[product] = available, 1
        for _ in range(3):
            self.add_quote(data)

    # what the rules do

    def call(self, function, *args):
        return values(self.db, f"select {function}({', '.join(['%s'] * len(args))})", *args)[0]

    def expect(self, sqlstate, call):
        """The call's answer, or None if it is refused as it must be."""
        self.met[sqlstate or "accepted"] += 1
        try:
            answer = call()
        except psycopg.Error as error:
            assert error.sqlstate == sqlstate, error
            return None
        assert sqlstate is None, f"{sqlstate} was due, not {answer}"
        return answer

    def one_of(self, things, data):
        return data.draw(st.sampled_from(sorted(things, key=str)))

    def add_quote(self, data):
        counts = data.draw(st.lists(st.sampled_from([1, 2, 3, 1, 2, 0]), min_size=1, max_size=3))
        gross = data.draw(st.booleans())
        cells = [(vendor, line) for vendor, count in enumerate(counts) for line in range(count)]
        draw = lambda values: data.draw(st.lists(values, min_size=len(cells), max_size=len(cells)))  # noqa: E731
        expired = data.draw(st.integers(0, 5)) == 4
        quantities, statuses = draw(st.integers(1, 6)), draw(st.sampled_from(["ok", "ok", "ok", "not_available"]))
        columns = zip(cells, quantities, statuses, strict=True)
        items = {cell: {"quantity": quantity, "status": status} for cell, quantity, status in columns}
        least = [
            sum(900 * items[cell]["quantity"] for cell in cells if cell[0] == vendor and items[cell]["status"] == "ok")
            for vendor in range(len(counts))
        ]
        cart = self.add_cart(
            buyer_store_id=self.one_of(BUYERS, data),
            vendors=VENDORS[: len(counts)],
            lines=counts,
            products=draw(st.sampled_from(PRODUCTS)),
            amounts="gross" if gross else "net",
            line_discount_cents=100 if gross else 0,
            promo_cents=[data.draw(st.integers(0, most)) for most in least],
            valid_for=-1 if expired else 3600,
            groups={
                vendor: {"status": data.draw(st.sampled_from(["ok", "ok", "ok", "invalid"]))}
                for vendor in range(len(counts))
            },
            items=items,
            stock=None,
        )
        self.model.carts[cart.id] = cart
        if expired:
            self.model.expired.add(cart.id)

    # rules

    @rule(data=st.data())
    def quote(self, data):
        self.add_quote(data)

    @rule(product=st.sampled_from(PRODUCTS), qty=st.integers(1, 8))
    def restock(self, product, qty):
        self.call("inventory_restock", product, qty)
        self.model.available[product] += qty

    @rule(product=st.sampled_from(PRODUCTS), delta=st.integers(-8, 3))
    def adjust(self, product, delta):
        enough = self.model.available[product] + delta >= 0
        self.expect(None if enough else "OC010", lambda: self.call("inventory_adjust", product, delta))
        if enough:
            self.model.available[product] += delta

    @rule(product=st.sampled_from(PRODUCTS), slots=st.integers(1, 4))
    def split(self, product, slots):
        self.call("inventory_split", product, slots)
        self.model.slots[product] = slots

    @precondition(lambda self: self.model.carts)
    @rule(data=st.data(), key=st.sampled_from("abcdefgh"), policy=st.sampled_from(POLICIES))
    def check_out(self, data, key, policy):
        cart = self.model.carts[self.one_of(self.model.carts, data)]
        stranger = next(buyer for buyer in BUYERS if buyer != cart.buyer_store_id)
        self.expect("OC001", lambda: self.checkout_sql(self.db, cart, key=key, buyer_store_id=stranger))
        refusal = self.model.refusal(cart, key, policy)
        request = {"key": key, "reservation_policy": policy}
        answer = self.expect(refusal, lambda: self.checkout_sql(self.db, cart, **request))
        if answer is None:
            return

        if cart.id in self.model.anchors:
            assert UUID(answer["checkout_group_id"]) == self.model.anchors[cart.id]
        self.model.anchors[cart.id] = UUID(answer["checkout_group_id"])
        first = self.model.converted.get(cart.id)
        self.met["replayed" if first else "converted"] += 1
        assert answer["replayed"] is (first is not None)
        if first is None:
            self.model.convert(cart, policy)
            self.model.converted[cart.id] = answer
            self.met[answer["outcome"]] += 1
        else:
            for name in ("checkout_group_id", "converted_at", "outcome", "rejected_vendors"):
                assert answer[name] == first[name]
        self.model.keys[cart.buyer_store_id, key] = (cart.id, policy)

        told = {UUID(order["order_id"]): order for order in answer["vendor_orders"]}
        mine = {order_id: order for order_id, order in self.model.orders.items() if order.cart_id == cart.id}
        assert told.keys() == mine.keys()
        for order_id, order in mine.items():
            assert (
                told[order_id]["subtotal_cents"],
                told[order_id]["discounts_cents"],
                told[order_id]["total_cents"],
            ) == order.amounts()
            assert {UUID(i["line_item_id"]): i["status"] for i in told[order_id]["items"]} == {
                line_id: line.status for line_id, line in order.lines.items()
            }

    @precondition(lambda self: self.model.converted)
    @rule(data=st.data())
    def edit_a_converted_cart(self, data):
        cart_id = self.one_of(self.model.converted, data)
        statement = data.draw(
            st.sampled_from(
                [
                    "update cart_items set quantity = quantity + 1 where cart_id = %s",
                    "delete from cart_vendor_groups where cart_id = %s",
                    "update cart_records set status = 'active' where id = %s",
                ]
            )
        )
        column = "id" if "cart_records" in statement else "cart_id"
        table = statement.split()[1 if statement.startswith("update") else 2]
        there = values(self.db, f"select count(*) from {table} where {column} = %s", cart_id) != [0]
        self.expect("OC009" if there else None, lambda: self.db.execute(statement, (cart_id,)))

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data())
    def cancel(self, data):
        order_id = self.one_of(self.model.orders, data)
        order = self.model.orders[order_id]
        again = order.status == "canceled" and not order.holding
        allowed = again or order.status in (*CANCELED_FROM, *(("canceled", "expired") if order.holding else ()))
        answer = self.expect(
            None if allowed else "OC012", lambda: self.call("vendor_order_cancel", order_id, "called off")
        )
        if answer is None:
            return
        assert answer["replayed"] is again
        assert [UUID(item["line_item_id"]) for item in answer["items"]] == sorted(order.holding)
        if not again:
            order.status = "canceled"
            self.model.end(order, order.holding, "rejected")
            self.model.events["vendor_order.canceled"] += 1

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), status=st.sampled_from(["rejected", "fulfilled"]))
    def end_a_line(self, data, status):
        order = self.model.orders[self.one_of(self.model.orders, data)]
        self.end_the_line(order, self.one_of(order.lines, data), status)

    @precondition(lambda self: any(order.holding for order in self.model.orders.values()))
    @rule(data=st.data(), status=st.sampled_from(["rejected", "fulfilled"]))
    def host_ends_a_line_and_then_calls(self, data, status):
        """What the docs ask for, a statement too late."""
        holding = [key for key, order in self.model.orders.items() if order.holding]
        order = self.model.orders[self.one_of(holding, data)]
        line_id = self.one_of(order.holding, data)
        self.set_line(order, line_id, status)
        self.end_the_line(order, line_id, status)

    def set_line(self, order, line_id, status):
        self.db.execute(
            "update order_line_items set status = %s::text::line_item_status where id = %s", (status, line_id)
        )
        order.lines[line_id].status = status

    def end_the_line(self, order, line_id, status):
        line = order.lines[line_id]
        if status == "rejected":
            call, kind = (lambda: self.call("order_line_release", line_id, "torn")), "order_line.released"
            is_allowed = line.status in (*OPEN, status) and order.status in RELEASED_FROM
        else:
            call, kind = (lambda: self.call("order_line_fulfil", line_id)), "order_line.fulfilled"
            is_allowed = line.status in ("pending", "accepted", status) and order.status in FULFILLED_FROM
        again = line.status == status and not line.held
        answer = self.expect(None if again or (line.held and is_allowed) else "OC012", call)
        if answer is None:
            return
        assert answer["replayed"] is again
        if not again:
            self.met[f"{line.status} by the host, then {status}"] += line.status in ("rejected", "fulfilled")
            self.model.end(order, [line_id], status)
            self.model.events[kind] += 1

    # what a host's code does by itself: none of it moves stock or changes what an order comes to

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), status=st.sampled_from(HOST_STATES))
    def host_sets_the_state_of_an_order(self, data, status):
        order_id = self.one_of(self.model.orders, data)
        self.db.execute(
            "update vendor_orders set status = %s::text::vendor_order_status where id = %s", (status, order_id)
        )
        self.model.orders[order_id].status = status

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), status=st.sampled_from([*OPEN, "rejected", "fulfilled"]))
    def host_sets_the_state_of_a_line(self, data, status):
        order = self.model.orders[self.one_of(self.model.orders, data)]
        if order.holding:
            self.set_line(order, self.one_of(order.holding, data), status)

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), status=st.sampled_from([*OPEN, "rejected", "fulfilled"]))
    def host_adds_a_line_of_its_own(self, data, status):
        line_id = self.db.execute(
            "insert into order_line_items"
            " (order_id, product_id, name, category, unit, unit_price_cents, qty, total_cents, status)"
            " values (%s, %s, 'Gift wrap', '', '', 200, 1, 200, %s::text::line_item_status) returning id",
            (self.one_of(self.model.orders, data), PRODUCTS[0], status),
        ).fetchone()[0]
        self.model.gifts[line_id] = status

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data(), part=st.integers(0, 3000))
    def host_is_paid_a_part(self, data, part):
        order_id = self.one_of(self.model.orders, data)
        order = self.model.orders[order_id]
        order.balance, order.is_paid_for = order.balance - min(part, order.balance), True
        self.db.execute("update vendor_orders set balance_due_cents = %s where id = %s", (order.balance, order_id))
        self.db.execute("update payment_intents set status = 'pending' where order_id = %s", (order_id,))

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data())
    def host_adds_tax(self, data):
        order_id = self.one_of(self.model.orders, data)
        order = self.model.orders[order_id]
        if order.kept and not order.is_paid_for:
            self.db.execute(
                "update vendor_orders set tax_cents = tax_cents + 50, total_cents = total_cents + 50,"
                " balance_due_cents = balance_due_cents + 50 where id = %s",
                (order_id,),
            )
            self.db.execute(
                "update payment_intents set amount_cents = amount_cents + 50 where order_id = %s", (order_id,)
            )
            order.tax, order.balance, order.intent = order.tax + 50, order.balance + 50, order.intent + 50

    @precondition(lambda self: self.model.orders)
    @rule(data=st.data())
    def host_corrects_address_and_payment_method(self, data):
        order_id = self.one_of(self.model.orders, data)
        self.db.execute(
            "update vendor_orders set shipping_address.city = 'Enid', payment_method = 'cash', notes = 'x'"
            " where id = %s",
            (order_id,),
        )
        self.db.execute("update payment_intents set method = 'cash' where order_id = %s", (order_id,))

    @precondition(lambda self: self.model.carts.keys() - self.model.converted.keys())
    @rule(
        data=st.data(),
        column=st.sampled_from(["subtotal_cents", "discounts_cents", "total_cents"]),
        off=st.sampled_from([-100, 1, 100]),
    )
    def host_writes_a_figure_of_a_cart_wrong_or_right_again(self, data, column, off):
        cart_id = self.one_of(self.model.carts.keys() - self.model.converted.keys(), data)
        if cart_id in self.model.wrong:
            statement = self.model.wrong.pop(cart_id)
        else:
            statement = f"update cart_records set {column} = {column} + {off} where id = %s"
            self.model.wrong[cart_id] = f"update cart_records set {column} = {column} - {off} where id = %s"
        self.db.execute(statement, (cart_id,))

    @precondition(lambda self: self.model.carts.keys() - self.model.converted.keys())
    @rule(data=st.data())
    def host_keeps_an_anchor_on_a_cart(self, data):
        cart_id = self.one_of(self.model.carts.keys() - self.model.converted.keys(), data)
        if cart_id not in self.model.anchors:
            [self.model.anchors[cart_id]] = values(
                self.db,
                "update cart_records set checkout_group_id = gen_random_uuid() where id = %s"
                " returning checkout_group_id",
                cart_id,
            )

    @precondition(lambda self: self.model.anchors)
    @rule(data=st.data())
    def host_has_an_order_of_its_own_under_an_anchor(self, data):
        """As a checkout that crashed half-way left one, before the checkout or after it."""
        anchor = self.model.anchors[self.one_of(self.model.anchors, data)]
        if anchor in self.model.foreign.values():
            return
        order_id = self.db.execute(
            "insert into vendor_orders"
            " (checkout_group_id, buyer_store_id, vendor_store_id, status, subtotal_cents, total_cents)"
            " values (%s, %s, %s, 'closed', 5000, 5000) returning id",
            (anchor, BUYERS[0], FOREIGN_VENDOR),
        ).fetchone()[0]
        self.db.execute(
            "insert into order_line_items (order_id, name, category, unit, unit_price_cents, qty, total_cents)"
            " values (%s, 'Old', '', '', 5000, 1, 5000)",
            (order_id,),
        )
        self.model.foreign[order_id] = anchor

    @precondition(lambda self: self.model.foreign)
    @rule(data=st.data())
    def host_takes_its_order_away(self, data):
        order_id = data.draw(
            st.sampled_from(list(self.model.foreign))
        )  # the server made it: its order is another each time
        self.db.execute("delete from order_line_items where order_id = %s", (order_id,))
        self.db.execute("delete from vendor_orders where id = %s", (order_id,))
        del self.model.foreign[order_id]

    @precondition(lambda self: self.model.keys)
    @rule()
    def purge_keys(self):
        assert self.call("checkout_requests_purge", "0 seconds") == len(self.model.keys)
        self.model.keys.clear()

    @precondition(lambda self: self.model.converted or self.model.expired)
    @rule()
    def purge_carts(self):
        for cart_id in sorted(self.model.expired):  # refused first, and then gone
            self.expect("OC003", lambda cart=self.model.carts[cart_id]: self.checkout_sql(self.db, cart, key="late"))
        gone = self.model.expired | {
            cart_id
            for cart_id in self.model.converted
            if cart_id in self.model.carts
            and all(o.status in ENDED for o in self.model.orders.values() if o.cart_id == cart_id)
        }
        assert self.call("cart_purge", "0 seconds") == len(gone)
        self.model.expired.clear()
        for cart_id in gone:
            cart = self.model.carts.pop(cart_id)
            self.expect("OC001", lambda cart=cart: self.checkout_sql(self.db, cart, key="purged"))

    @precondition(lambda self: self.model.carts)
    @rule(data=st.data(), key=st.sampled_from("abc"))
    def roll_back_a_checkout(self, data, key):
        """Whatever it did, nothing of it stays."""
        cart = self.model.carts[self.one_of(self.model.carts, data)]
        with self.db.transaction(force_rollback=True):
            refusal = self.model.refusal(cart, key, "partial")
            if refusal is None:
                self.checkout_sql(self.db, cart, key=key)

    # what must be true after each of them

    @invariant()
    def stock_is_where_it_must_be(self):
        held = Counter()
        for order in self.model.orders.values():
            for line in order.lines.values():
                held[line.product_id] += line.held
        found = rows(self.db, "select product_id, available_qty::int, reserved_qty::int, slots from inventory_levels")
        assert {level["product_id"]: tuple(level.values())[1:] for level in found} == {
            product: (self.model.available[product], held[product], self.model.slots[product]) for product in PRODUCTS
        }

    @invariant()
    def orders_are_what_they_must_be(self):
        found = rows(
            self.db,
            """
            select vendor_order.id, vendor_order.status::text, subtotal_cents, discounts_cents, total_cents,
                   promo_discount_cents, tax_cents, balance_due_cents, amount_cents
              from vendor_orders as vendor_order left join payment_intents on order_id = vendor_order.id
             where vendor_order.vendor_store_id <> %s
            """,
            FOREIGN_VENDOR,
        )
        assert {order["id"]: tuple(order.values())[1:] for order in found} == {
            order_id: (order.status, *order.amounts(), order.share, order.tax, order.balance, order.intent)
            for order_id, order in self.model.orders.items()
        }
        lines = rows(self.db, "select id, status::text, reserved_qty from order_line_items where cart_item_id = id")
        assert {line["id"]: tuple(line.values())[1:] for line in lines} == {
            line_id: (line.status, line.held)
            for order in self.model.orders.values()
            for line_id, line in order.lines.items()
        }

    @invariant()
    def what_is_the_hosts_stays_as_it_wrote_it(self):
        """Neither billed nor changed, and none of its lines holds anything."""
        orders = rows(
            self.db,
            """
            select vendor_order.id, vendor_order.status::text, total_cents, balance_due_cents, amount_cents
              from vendor_orders as vendor_order left join payment_intents on order_id = vendor_order.id
             where vendor_order.vendor_store_id = %s
            """,
            FOREIGN_VENDOR,
        )
        found = {order["id"]: tuple(order.values())[1:] for order in orders}
        assert found == dict.fromkeys(list(self.model.foreign), ("closed", 5000, 0, None))
        lines = rows(
            self.db,
            "select id, status::text, reserved_qty, notes from order_line_items where name = 'Gift wrap'",
        )
        assert {line["id"]: tuple(line.values())[1:] for line in lines} == {
            line_id: (status, None, None) for line_id, status in self.model.gifts.items()
        }

    @invariant()
    def every_event_is_there_once(self):
        found = rows(self.db, "select event_type::text, count(*) from outbox_events group by 1")
        assert {event["event_type"]: event["count"] for event in found} == +self.model.events

    @invariant()
    def keys_are_bound_as_answered(self):
        found = rows(self.db, "select buyer_store_id, idempotency_key, cart_id from checkout_requests")
        assert {(key["buyer_store_id"], key["idempotency_key"]): key["cart_id"] for key in found} == {
            key: cart_id for key, (cart_id, _) in self.model.keys.items()
        }

    @invariant()
    def the_audit_names_what_the_host_did_and_nothing_else(self):
        found = [
            (broken["invariant"], UUID(broken["id"])) for broken in rows(self.db, "select * from checkout_audit()")
        ]
        assert sorted(found) == sorted(self.model.faults())


@pytest.fixture
def machine(db, add_cart, checkout_sql):
    """machine(examples, steps, ...): runs them, each on empty tables, and returns how often each answer was met."""
    kept = ["checkout_ledger", "checkout_releases", "checkout_functions", "checkout_roles"]
    tables = row(
        db,
        """
        select string_agg(quote_ident(tablename), ', ') as names from pg_tables
         where schemaname = current_schema() and tablename !~ 'yoyo' and tablename <> all (%s)
        """,
        kept,
    )["names"]

    def reset():
        # replica: the triggers that guard converted carts stay asleep
        with db.transaction():
            db.execute("set local session_replication_role = replica")
            db.execute(f"truncate {tables}")

    def machine(examples, steps, **kwargs):
        met = Counter()
        attributes = {"db": db, "reset": staticmethod(reset), "met": met}
        attributes |= {"add_cart": staticmethod(add_cart), "checkout_sql": staticmethod(checkout_sql)}
        run_state_machine_as_test(
            type("Checkouts", (Checkouts,), attributes),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                database=None,
                # as it was found: to shrink what takes hundreds of steps lasts longer than a test may
                phases=[Phase.generate],
                **kwargs,
            ),
        )
        return met

    return machine


# What a run must have met, or it has shown little.
WANTED = {"converted", "replayed", "complete", "partial", "rejected", "accepted"}
WANTED |= {"OC001", "OC003", "OC004", "OC006", "OC007", "OC009", "OC010", "OC012"}
WANTED |= {f"{status} by the host, then {status}" for status in ("rejected", "fulfilled")}


@pytest.mark.breaks_invariants  # what its host has ended stays; after every step the audit names just that
@pytest.mark.timeout(900)
def test_any_order_of_steps_keeps_every_unit_and_every_cent(machine):
    """A property-based state machine against a model."""
    met = Counter()
    for _ in range(5):  # what is drawn depends on the modules that are loaded, and one round may miss something
        met += machine(70, 50, derandomize=not met)
        if met.keys() >= WANTED:
            break
    print(dict(met))
    assert met.keys() >= WANTED, WANTED - met.keys()


@pytest.mark.slow
@pytest.mark.breaks_invariants
@pytest.mark.timeout(3600)
def test_many_orders_of_steps_keep_every_unit_and_every_cent(machine):
    """The same with other steps each time, for minutes."""
    met = machine(1000, 60)
    print(dict(met))
    assert met.keys() >= WANTED
