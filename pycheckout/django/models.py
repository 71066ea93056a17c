"""Models to read with: what changes these rows are the functions of the package.

Amounts (`..._cents`) are in minor units; docs/entities.md says what each column holds. A model of yours may have a
ForeignKey to one of these.
"""

from __future__ import annotations

from typing import Any, NoReturn

from django.contrib.postgres.fields import ArrayField
from django.db import models

from ._database import schema

__all__ = [
    "Cart",
    "CartItem",
    "CartVendorGroup",
    "InventoryLevel",
    "OrderChange",
    "OrderLine",
    "OrderMoney",
    "OutboxEvent",
    "PaymentIntent",
    "VendorOrder",
]


def _table(name: str) -> str:
    # Django takes a name that begins and ends with a quote for quoted already.
    return name if schema() is None else f'"{schema()}"."{name}"'


def _refuse(self: object, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError("models of pycheckout are read only: its functions change these rows")


class AddressField(models.JSONField):
    """The composite type `address_t`, read as a dict of its attributes, those that a host added included."""

    def db_type(self, connection: Any) -> str:
        return "address_t"

    def select_format(self, compiler: Any, sql: str, params: Any) -> tuple[str, Any]:
        return f"to_jsonb({sql})", params


class ReadableQuerySet(models.QuerySet):
    """A queryset that changes nothing."""

    bulk_create = bulk_update = delete = update = _refuse


class Readable(models.Model):
    """What all of these models are."""

    objects = ReadableQuerySet.as_manager()

    save = delete = _refuse

    class Meta:
        abstract = True
        managed = False


class VendorOrder(Readable):
    """An order of one vendor (`vendor_orders`)."""

    id = models.UUIDField(primary_key=True)
    checkout_group_id = models.UUIDField()
    buyer_store_id = models.UUIDField()
    vendor_store_id = models.UUIDField()
    status = models.TextField()
    subtotal_cents = models.BigIntegerField()
    discounts_cents = models.BigIntegerField()
    tax_cents = models.BigIntegerField()
    transport_fee_cents = models.BigIntegerField()
    total_cents = models.BigIntegerField()
    balance_due_cents = models.BigIntegerField()
    notes = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    cart_id = models.UUIDField(null=True)
    currency = models.TextField(null=True)
    shipping_address = AddressField(null=True)
    warnings = models.JSONField(null=True)
    promo = models.JSONField(null=True)
    payment_method = models.TextField(null=True)
    shipping_line = models.JSONField(null=True)
    attributed_token = models.JSONField(null=True)
    promo_discount_cents = models.BigIntegerField(null=True)
    tax_included = models.BooleanField(null=True)
    vendor_shipping_line = models.JSONField(null=True)
    billing_address = AddressField(null=True)
    purchase_order = models.TextField(null=True)
    metadata = models.JSONField(null=True)
    order_number = models.BigIntegerField(null=True)
    expires_at = models.DateTimeField(null=True)
    shipping_tax_cents = models.BigIntegerField(null=True)
    adjustments_cents = models.BigIntegerField(null=True)
    refund_due_cents = models.BigIntegerField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("vendor_orders")


class OrderLine(Readable):
    """A line of an order (`order_line_items`)."""

    id = models.UUIDField(primary_key=True)
    order = models.ForeignKey(VendorOrder, models.DO_NOTHING, related_name="lines")
    product_id = models.UUIDField(null=True)
    name = models.TextField()
    category = models.TextField()
    unit = models.TextField()
    unit_price_cents = models.BigIntegerField()
    qty = models.IntegerField()
    discount_cents = models.BigIntegerField()
    total_cents = models.BigIntegerField()
    status = models.TextField()
    notes = models.TextField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    cart_item_id = models.UUIDField(null=True)
    warnings = models.JSONField(null=True)
    applied_volume_discount = models.JSONField(null=True)
    moq = models.IntegerField(null=True)
    max_qty = models.IntegerField(null=True)
    attributed_token = models.JSONField(null=True)
    reserved_qty = models.IntegerField(null=True)
    line_subtotal_cents = models.BigIntegerField(null=True)
    tax_lines = models.JSONField(null=True)
    fulfilled_qty = models.IntegerField(null=True)
    released_qty = models.IntegerField(null=True)
    returned_qty = models.IntegerField(null=True)
    tax_cents = models.BigIntegerField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("order_line_items")


class PaymentIntent(Readable):
    """What an order is to be paid with (`payment_intents`)."""

    id = models.UUIDField(primary_key=True)
    order = models.ForeignKey(VendorOrder, models.DO_NOTHING, related_name="intents")
    method = models.TextField()
    status = models.TextField()
    amount_cents = models.BigIntegerField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    payment_terms = models.JSONField(null=True)
    due_at = models.DateTimeField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("payment_intents")


class Cart(Readable):
    """A quoted cart (`cart_records`)."""

    id = models.UUIDField(primary_key=True)
    buyer_store_id = models.UUIDField()
    checkout_group_id = models.UUIDField(null=True)
    status = models.TextField()
    shipping_address = AddressField(null=True)
    currency = models.TextField()
    valid_until = models.DateTimeField()
    subtotal_cents = models.BigIntegerField()
    discounts_cents = models.BigIntegerField()
    total_cents = models.BigIntegerField()
    ad_tokens = ArrayField(models.TextField(), null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    payment_method = models.TextField(null=True)
    shipping_line = models.JSONField(null=True)
    converted_at = models.DateTimeField(null=True)
    tax_included = models.BooleanField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("cart_records")


class CartVendorGroup(Readable):
    """What a cart holds of one vendor (`cart_vendor_groups`)."""

    id = models.UUIDField(primary_key=True)
    cart = models.ForeignKey(Cart, models.DO_NOTHING, related_name="groups")
    vendor_store_id = models.UUIDField()
    status = models.TextField()
    subtotal_cents = models.BigIntegerField()
    discounts_cents = models.BigIntegerField(null=True)
    total_cents = models.BigIntegerField()
    promo = models.JSONField(null=True)
    warnings = models.JSONField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    line_discounts_cents = models.BigIntegerField(null=True)
    promo_discount_cents = models.BigIntegerField(null=True)
    shipping_line = models.JSONField(null=True)
    payment_terms = models.JSONField(null=True)
    shipping_cents = models.BigIntegerField(null=True)
    shipping_tax_cents = models.BigIntegerField(null=True)
    minimum_cents = models.BigIntegerField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("cart_vendor_groups")


class CartItem(Readable):
    """A line of a cart (`cart_items`)."""

    id = models.UUIDField(primary_key=True)
    cart = models.ForeignKey(Cart, models.DO_NOTHING, related_name="items")
    product_id = models.UUIDField()
    vendor_store_id = models.UUIDField()
    title = models.TextField()
    category = models.TextField()
    unit = models.TextField()
    quantity = models.IntegerField()
    moq = models.IntegerField()
    max_qty = models.IntegerField(null=True)
    unit_price_cents = models.BigIntegerField()
    line_subtotal_cents = models.BigIntegerField()
    applied_volume_discount = models.JSONField(null=True)
    warnings = models.JSONField()
    status = models.TextField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    line_discounts_cents = models.BigIntegerField(null=True)
    line_total_cents = models.BigIntegerField(null=True)
    tax_lines = models.JSONField(null=True)
    tax_cents = models.BigIntegerField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("cart_items")


class OrderChange(Readable):
    """What was done to an order after its checkout (`order_changes`)."""

    id = models.UUIDField(primary_key=True)
    order_id = models.UUIDField()
    kind = models.TextField()
    lines = models.JSONField()
    amount_cents = models.BigIntegerField(null=True)
    reason = models.TextField(null=True)
    details = models.JSONField(null=True)
    change_key = models.TextField(null=True)
    request_hash = models.BinaryField(null=True)
    made_by = models.TextField()
    created_at = models.DateTimeField()

    class Meta(Readable.Meta):
        db_table = _table("order_changes")


class OrderMoney(Readable):
    """What is paid and due of an order (the view `order_money`)."""

    order_id = models.UUIDField(primary_key=True)
    checkout_group_id = models.UUIDField(null=True)
    buyer_store_id = models.UUIDField(null=True)
    vendor_store_id = models.UUIDField(null=True)
    status = models.TextField(null=True)
    currency = models.TextField(null=True)
    total_cents = models.BigIntegerField(null=True)
    authorized_cents = models.DecimalField(null=True, max_digits=38, decimal_places=0)
    captured_cents = models.DecimalField(null=True, max_digits=38, decimal_places=0)
    refunded_cents = models.DecimalField(null=True, max_digits=38, decimal_places=0)
    balance_due_cents = models.BigIntegerField(null=True)
    refund_due_cents = models.BigIntegerField(null=True)
    expires_at = models.DateTimeField(null=True)
    payment_status = models.TextField(null=True)
    due_at = models.DateTimeField(null=True)
    events = models.BigIntegerField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("order_money")


class InventoryLevel(Readable):
    """The stock of a product over its slots (the view `inventory_levels`)."""

    product_id = models.UUIDField(primary_key=True)
    available_qty = models.BigIntegerField(null=True)
    reserved_qty = models.BigIntegerField(null=True)
    slots = models.IntegerField(null=True)
    updated_at = models.DateTimeField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("inventory_levels")


class OutboxEvent(Readable):
    """An event for the relay (`outbox_events`)."""

    id = models.UUIDField(primary_key=True)
    event_type = models.TextField()
    aggregate_type = models.TextField()
    aggregate_id = models.UUIDField()
    payload = models.JSONField()
    created_at = models.DateTimeField()
    published_at = models.DateTimeField(null=True)
    attempt_count = models.IntegerField()
    last_error = models.TextField(null=True)
    next_attempt_at = models.DateTimeField(null=True)
    claim_id = models.UUIDField(null=True)
    claimed_until = models.DateTimeField(null=True)
    claim_count = models.IntegerField(null=True)

    class Meta(Readable.Meta):
        db_table = _table("outbox_events")
