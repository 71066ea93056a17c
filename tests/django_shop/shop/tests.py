"""The shop's own tests, which `manage.py test` runs on databases that Django makes."""

import os
import uuid
from datetime import timedelta
from unittest import skipIf

from django.conf import settings
from django.core.management import call_command
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase
from django.utils import timezone
from sqlalchemy import MetaData

import pycheckout
from pycheckout.django.models import (
    Cart,
    CartItem,
    CartVendorGroup,
    InventoryLevel,
    OrderLine,
    OutboxEvent,
    PaymentIntent,
    VendorOrder,
)
from pycheckout.django.testing import EmptiesCheckout
from pycheckout.sqlalchemy import tables
from shop.models import Note


def check_out():
    """A cart of one line, ordered on Django's own connection."""
    cart, buyer, vendor, product = (uuid.uuid4() for _ in range(4))
    item = {"product_id": product, "title": "Tea", "quantity": 2, "unit_price_cents": 500, "line_subtotal_cents": 1000}
    quote = {
        "id": cart,
        "buyer_store_id": buyer,
        "currency": "USD",
        "valid_until": timezone.now() + timedelta(hours=1),
        "vendor_groups": [
            {"vendor_store_id": vendor, "subtotal_cents": 1000, "total_cents": 1000, "items": [item]},
        ],
    }
    connection.ensure_connection()
    conn, schema = connection.connection, settings.PYCHECKOUT_SCHEMA
    if schema is not None:
        with connection.cursor() as cursor:
            cursor.execute("select set_config('search_path', quote_ident(%s) || ', public', false)", [schema])
    pycheckout.put_cart(conn, quote)
    with connection.cursor() as cursor:
        cursor.execute("select inventory_set(%s, 5)", [product])
    return pycheckout.execute(
        conn,
        buyer_store_id=buyer,
        cart_id=cart,
        idempotency_key="k1",
        shipping_address={
            "line1": "12 Main Street",
            "city": "Tulsa",
            "state": "OK",
            "postal_code": "74103",
            "country": "US",
        },
        payment_method="ach",
    )


def counts():
    return [
        model.objects.count() for model in (Cart, VendorOrder, OrderLine, PaymentIntent, OutboxEvent, InventoryLevel)
    ]


class Reads(TestCase):
    def test_models_read_what_a_checkout_wrote(self):
        result = check_out()

        order = VendorOrder.objects.get(status="created_pending", cart_id=result.cart_id)
        assert order.id == result.vendor_orders[0].order_id
        assert order.shipping_address["city"] == "Tulsa"
        assert [line.name for line in order.lines.filter(status__in=["pending", "accepted"])] == ["Tea"]
        assert order.intents.get().method == "ach"
        assert InventoryLevel.objects.get(product_id=order.lines.get().product_id).reserved_qty == 2
        assert OutboxEvent.objects.filter(payload__version=1).count() == 2
        assert Cart.objects.get(items__title="Tea").groups.get().total_cents == 1000
        Note.objects.create(order=order, text="ring")
        assert VendorOrder.objects.filter(note__text="ring").count() == 1

    def test_models_change_nothing(self):
        order = VendorOrder(id=check_out().vendor_orders[0].order_id)
        for change in (
            order.save,
            order.delete,
            VendorOrder.objects.all().delete,
            lambda: VendorOrder.objects.update(notes="x"),
            lambda: VendorOrder.objects.create(id=uuid.uuid4()),
            lambda: VendorOrder.objects.bulk_create([order]),
        ):
            with self.assertRaisesRegex(TypeError, "read only"):
                change()

    def test_models_have_the_columns_of_the_tables(self):
        ours = tables(MetaData())
        for model, table in {
            Cart: ours.carts,
            CartVendorGroup: ours.groups,
            CartItem: ours.items,
            VendorOrder: ours.orders,
            OrderLine: ours.lines,
            PaymentIntent: ours.intents,
            InventoryLevel: ours.levels,
            OutboxEvent: ours.outbox,
        }.items():
            expected = [(column.name, bool(column.nullable), column.primary_key) for column in table.columns]
            fields = model._meta.local_fields
            self.assertEqual([(field.column, field.null, field.primary_key) for field in fields], expected)

    def test_what_another_test_did_is_gone(self):
        assert counts() == [0] * 6

    @skipIf("WITHOUT_MIGRATIONS" in os.environ, "there is no migration")
    def test_migrating_inside_a_transaction_is_refused(self):
        with self.assertRaisesRegex(pycheckout.MigrationError, "inside a transaction"):
            call_command("migrate", "pycheckout", "zero", verbosity=0)
        with self.assertRaisesRegex(pycheckout.MigrationError, "inside a transaction"):
            call_command("migrate", verbosity=0)


class Commits(EmptiesCheckout, TransactionTestCase):
    """Twice: the second finds what the first has left."""

    def check(self):
        assert counts() == [0] * 6
        assert Note.objects.count() == 0
        result = check_out()
        with transaction.atomic():
            Note.objects.create(order_id=result.vendor_orders[0].order_id, text="ring")
        assert counts() == [1, 1, 1, 1, 2, 1]

    test_once = check
    test_again = check
