"""For tests that commit."""

from __future__ import annotations

from typing import Any

from django.db import connections, transaction
from django.test import TestCase

from ._database import belongs, is_applied, schema

__all__ = ["EmptiesCheckout"]

# Truncating a cart table is refused while a cart there is converted; but this is the database of a test.
_EMPTY = """
do $$
declare
  v_tables text;
begin
  select string_agg(format('%I.%I', current_schema(), relname), ', ') into v_tables
    from pg_class
   where relnamespace = quote_ident(current_schema())::regnamespace and relkind in ('r', 'p')
     and (relname in ('cart_records', 'cart_vendor_groups', 'cart_items', 'vendor_orders', 'order_line_items',
                      'payment_intents', 'inventory_items', 'outbox_events')
          or relname in (select name from checkout_ledger where kind = 'table'
                            and name not in ('checkout_releases', 'checkout_functions', 'checkout_roles')));
  alter table cart_records disable trigger cart_records_no_truncate;
  alter table cart_vendor_groups disable trigger cart_vendor_groups_no_truncate;
  alter table cart_items disable trigger cart_items_no_truncate;
  execute 'truncate ' || v_tables || ' cascade';
  alter table cart_records enable trigger cart_records_no_truncate;
  alter table cart_vendor_groups enable trigger cart_vendor_groups_no_truncate;
  alter table cart_items enable trigger cart_items_no_truncate;
end
$$
"""


def empty(using: str = "default") -> None:
    """Delete every cart, order, event, key and count of stock of pycheckout's in a test's database, and what refers to
    them. As the owner of the tables; in a transaction of its own, or as a part of one that is open."""
    connection = connections[using]
    if not belongs(connection) or not is_applied(connection):
        return
    with transaction.atomic(using), connection.cursor() as cursor:
        if schema() is not None:
            cursor.execute("select set_config('search_path', quote_ident(%s), true)", [schema()])
        cursor.execute(_EMPTY)


class EmptiesCheckout:
    """Mixin of a TransactionTestCase or LiveServerTestCase: after each test, pycheckout's tables are empty as well.

    Django empties the tables of managed models alone. It stands in front of the class of Django's. A TestCase takes
    back what a test did by itself, and is left to that.
    """

    def _fixture_teardown(self) -> None:
        super()._fixture_teardown()  # type: ignore[misc]
        test: Any = self
        if not isinstance(test, TestCase):
            for alias in test._databases_names(include_mirrors=False):
                empty(alias)
