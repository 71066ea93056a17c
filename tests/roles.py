"""What a role may call, and roles of a test's own."""

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from checks import values

PASSWORD = "of-a-test"

# What a role may be given, and what runs with its owner's rights.
ENTRY_POINTS = {
    "ad_token_check",
    "cart_get",
    "cart_purge",
    "cart_put",
    "checkout_audit",
    "checkout_audit_rest",
    "checkout_audit_slice",
    "checkout_erase",
    "checkout_execute",
    "checkout_metrics",
    "checkout_requests_purge",
    "checkout_result",
    "checkout_version",
    "inventory_adjust",
    "inventory_changes_purge",
    "inventory_get",
    "inventory_restock",
    "inventory_set",
    "inventory_set_many",
    "inventory_split",
    "order_adjust",
    "order_changes_list",
    "order_get",
    "order_line_fulfil",
    "order_line_release",
    "order_line_return",
    "orders_list",
    "outbox_ack",
    "outbox_claim",
    "outbox_discard",
    "outbox_extend",
    "outbox_fail",
    "outbox_purge",
    "outbox_release",
    "outbox_replay",
    "payment_record",
    "vendor_order_cancel",
    "vendor_order_decide",
    "vendor_order_extend",
    "vendor_orders_expire",
}
# They change rights or secrets, with the rights of whoever calls them.
FOR_THE_OWNER = {
    "ad_signing_key_put",
    "ad_signing_key_retire",
    "checkout_apply_grants",
    "checkout_grant",
    "checkout_grant_operators",
    "checkout_grant_orders",
    "checkout_grant_payments",
    "checkout_grant_quotes",
    "checkout_grant_relay",
    "checkout_grant_stock",
    "checkout_revoke",
    "market_status",
}


@pytest.fixture
def new_role(db: psycopg.Connection, worker_id: str) -> Iterator[Callable[..., str]]:
    """new_role(): the name of a new login role. Roles are the cluster's, so this one is dropped at the end."""
    names: list[str] = []

    def drop(name: str) -> None:
        if values(db, "select 1 from pg_roles where rolname = %s", name):
            db.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))

    def new_role(suffix: str = "") -> str:
        name = f"pycheckout_{worker_id}_{len(names)}{suffix}"
        drop(name)
        db.execute(sql.SQL("create role {} login password {}").format(sql.Identifier(name), sql.Literal(PASSWORD)))
        names.append(name)
        return name

    yield new_role
    for name in names:
        drop(name)


@pytest.fixture
def login(dsn: str, connect: Callable[..., psycopg.Connection]) -> Callable[..., psycopg.Connection]:
    """login(role): a connection of a role to this test's database, autocommit on."""
    return lambda role: connect(user=role, password=PASSWORD, autocommit=True)
