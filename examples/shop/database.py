"""The shop's database: its own tables, made by Alembic beside pycheckout's, who may do what, and something to sell."""

import secrets
from pathlib import Path
from uuid import UUID

import psycopg
from alembic import command
from alembic.config import Config
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pycheckout

from .ads import KID
from .quotes import Product

POTTER = UUID("00000000-0000-4000-8000-0000000000a1")
BAKER = UUID("00000000-0000-4000-8000-0000000000b1")
CUP = Product(UUID("00000000-0000-4000-8000-0000000000a2"), POTTER, "Cup", 1250)
BOWL = Product(UUID("00000000-0000-4000-8000-0000000000a3"), POTTER, "Bowl", 1900)
BREAD = Product(UUID("00000000-0000-4000-8000-0000000000b2"), BAKER, "Bread", 480)
UNITS = 20
"""of each in stock"""


def alembic_config(dsn: str) -> Config:
    config = Config(Path(__file__).with_name("alembic.ini"))
    config.attributes["url"] = dsn
    return config


def upgrade(dsn: str) -> None:
    """Apply what is pending: `pycheckout.migrate` first, since a table of the shop may refer to one of pycheckout's."""
    pycheckout.migrate(dsn)
    command.upgrade(alembic_config(dsn), "head")


def fill(dsn: str, ad_secret: bytes) -> None:
    """Three products of two vendors, in stock, and the key that ads are signed with."""
    with psycopg.connect(dsn) as conn:
        conn.cursor().executemany(
            "insert into products (id, vendor_store_id, title, unit_price_cents) values (%s, %s, %s, %s)",
            [(each.id, each.vendor_store_id, each.title, each.unit_price_cents) for each in (CUP, BOWL, BREAD)],
        )
        pycheckout.Checkout(conn).stock.set_many({each.id: UNITS for each in (CUP, BOWL, BREAD)})
        conn.execute("select ad_signing_key_put(kid => %s, secret => %s)", (KID, ad_secret))


# No table of pycheckout's: the service and its consumer call functions, and so do the relay and the expiry.
GRANTS = """
grant select, update (units_sold) on products to shop;
grant insert on confirmations, seen_events to shop;
grant select, insert on charges to shop;
select checkout_grant('shop'), checkout_grant_quotes('shop');
select checkout_grant_orders('shop'), checkout_grant_payments('shop'), checkout_grant_stock('shop');
select checkout_grant_relay('shop_relay'), checkout_grant_operators('shop_expiry');
"""


def roles(dsn: str) -> tuple[str, str, str]:
    """Make the roles of the service, of the relay and of the expiry; how each connects."""
    passwords = {role: secrets.token_hex(16) for role in ("shop", "shop_relay", "shop_expiry")}
    with psycopg.connect(dsn) as conn:
        for role, password in passwords.items():
            create = sql.SQL("create role {} login password {}")
            conn.execute(create.format(sql.Identifier(role), sql.Literal(password)))
        conn.execute(GRANTS)
    service, relay, expiry = (make_conninfo(dsn, user=role, password=password) for role, password in passwords.items())
    return service, relay, expiry
