"""Alembic sees the shop's tables alone: the filters leave out all that is pycheckout's."""

import os

from alembic import context
from sqlalchemy import NullPool, create_engine

import pycheckout.alembic
from examples.shop.tables import metadata

url: str = context.config.attributes.get("url") or os.environ["SHOP_DATABASE_URL"]

engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=NullPool)
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=metadata, **pycheckout.alembic.filters(connection))
    with context.begin_transaction():
        context.run_migrations()
