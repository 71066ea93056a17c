"""A Django service that sells, in one file.

    SHOP_DATABASE=shop python examples/django/shop.py runserver

The database is named by SHOP_DATABASE and libpq's own variables, and has the table of examples/shop.sql.
"""

import json
import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import connection, models, transaction
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

import pycheckout

if not settings.configured:
    settings.configure(
        ROOT_URLCONF=__name__,
        ALLOWED_HOSTS=["localhost"],
        DATABASES={"default": {"ENGINE": "django.db.backends.postgresql", "NAME": os.environ.get("SHOP_DATABASE", "")}},
    )
    django.setup()


class DeliveryNote(models.Model):
    cart_id = models.UUIDField(primary_key=True)
    note = models.TextField()

    class Meta:
        app_label = "shop"
        db_table = "delivery_notes"
        managed = False


def order(buyer_store_id: str, idempotency_key: str, body: dict) -> pycheckout.CheckoutResult:
    """The checkout and the service's own row, in one transaction."""
    with transaction.atomic():
        result = pycheckout.execute(
            connection,
            buyer_store_id=buyer_store_id,
            cart_id=body["cart_id"],
            idempotency_key=idempotency_key,
            shipping_address=body["shipping_address"],
            payment_method=body["payment_method"],
        )
        if not result.replayed:
            DeliveryNote.objects.create(cart_id=result.cart_id, note=body.get("note", ""))
    return result


@csrf_exempt  # no cookies: a gateway in front authenticates, and says who the buyer is
@require_POST
def checkout(request: HttpRequest) -> JsonResponse:
    try:
        result = order(
            request.headers["X-Buyer-Store"], request.headers.get("Idempotency-Key", ""), json.loads(request.body)
        )
    except pycheckout.CheckoutError as error:
        headers = {"Retry-After": "1"} if error.retryable else {}
        return JsonResponse({"code": error.code}, status=error.http_status, headers=headers)
    return JsonResponse(
        {"outcome": result.outcome, "orders": [str(order.order_id) for order in result.vendor_orders]},
        status=200 if result.replayed else 201,
    )


urlpatterns = [path("checkout", checkout)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
