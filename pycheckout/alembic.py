"""What keeps Alembic's autogenerate away from the tables of pycheckout. Needs Alembic (extra `alembic`).

In env.py, where the migrations run online:

    context.configure(connection=connection, target_metadata=target_metadata, **pycheckout.alembic.filters(connection))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from ._errors import MigrationError
from ._extras import needing
from .sqlalchemy import is_ours

with needing("alembic"):
    from sqlalchemy import Connection, Table, text
    from sqlalchemy.schema import SchemaItem

__all__ = ["Filters", "filters"]

IncludeName = Callable[[str | None, Any, Any], bool]
IncludeObject = Callable[[Any, str | None, Any, bool, Any], bool]

_INSTALLATIONS = """
select namespace.nspname::text as schema,
       has_schema_privilege(namespace.oid, 'usage') and has_table_privilege(class.oid, 'select') as readable
  from pg_class as class
  join pg_namespace as namespace on namespace.oid = class.relnamespace
 where class.relname = 'checkout_ledger' and class.relkind = 'r'
"""

# A column that got a new name is needed under that name, and what was archived is no table of a model.
_LEDGER = """
select kind, table_name, name from {schema}.checkout_ledger
 where kind in ('table', 'view', 'column', 'index', 'constraint')
 union all
select 'column', table_name, name from {schema}.checkout_ledger where kind = 'renamed_column'
 union all
select 'table', null, name || '_archive' from {schema}.checkout_ledger where kind = 'archived_table'
 union all
select 'table', null, name
  from unnest(array['checkout_ledger', '_yoyo_log', '_yoyo_migration', '_yoyo_version', 'yoyo_lock']) as name
"""

_KINDS = {
    "table": "table",
    "column": "column",
    "index": "index",
    "unique_constraint": "constraint",
    "foreign_key_constraint": "constraint",
    "check_constraint": "constraint",
}

_Thing = tuple[str, str | None, str]  # kind, table and name, as the ledger has them


class Filters(TypedDict):
    """Two arguments of Alembic's `context.configure`."""

    include_name: IncludeName
    include_object: IncludeObject


def filters(
    connection: Connection,
    *,
    include_name: IncludeName | None = None,
    include_object: IncludeObject | None = None,
) -> Filters:
    """Arguments of `context.configure` with which autogenerate sees nothing that is pycheckout's.

    Looked at are all schemas of the database in which pycheckout is installed. What a ledger there names is left alone,
    and the tables of yoyo; in the database of an earlier system that is some tables, and single columns, indexes and
    constraints of others, which stay yours to change. The `Table`s of `pycheckout.sqlalchemy.tables` are never created
    or changed. `include_name` and `include_object` are filters of your own, asked about all the rest.

    `connection` is the one that `configure` gets, of any driver. It is read at the first question of an autogenerate,
    and not before: a transaction that is open by then would be one that Alembic does not commit. Then MigrationError is
    raised if its role may not read a ledger that it has to ask.
    """
    ours = _Ours(connection)

    def name_filter(name: str | None, type_: str, parent_names: Mapping[str, str | None]) -> bool:
        if type_ != "schema" and name is not None:
            table = None if type_ == "table" else parent_names["table_name"]
            if ours.has(parent_names["schema_name"], (_KINDS.get(type_, type_), table, name)):
                return False
        return include_name is None or include_name(name, type_, parent_names)

    def object_filter(item: SchemaItem, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
        table = item if isinstance(item, Table) else getattr(item, "table", None)
        if isinstance(table, Table):
            if is_ours(table):
                return False
            thing = (_KINDS.get(type_, type_), None if type_ == "table" else table.name, name or "")
            if ours.has(table.schema, thing):
                return False
        return include_object is None or include_object(item, name, type_, reflected, compare_to)

    return Filters(include_name=name_filter, include_object=object_filter)


class _Ours:
    """What the ledgers of a database name, by schema; read at the first question."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._schemas: dict[str, bool] | None = None
        self._ledgers: dict[str, set[_Thing]] = {}

    def has(self, schema: str | None, thing: _Thing) -> bool:
        _, table, _ = thing
        ledger = self._ledger(schema or self._connection.dialect.default_schema_name or "")
        return thing in ledger or (table is not None and ("table", None, table) in ledger)

    def _ledger(self, schema: str) -> set[_Thing]:
        if self._schemas is None:
            found = self._connection.execute(text(_INSTALLATIONS)).all()
            self._schemas = {row.schema: row.readable for row in found}
        if schema not in self._ledgers and schema in self._schemas:
            quoted = self._connection.dialect.identifier_preparer.quote_identifier(schema)
            if not self._schemas[schema]:
                raise MigrationError(
                    f"this role may not read {quoted}.checkout_ledger, which says what there is pycheckout's",
                    hint=f"Run Alembic as the owner of that schema, or GRANT SELECT ON {quoted}.checkout_ledger.",
                )
            rows = self._connection.execute(text(_LEDGER.format(schema=quoted))).all()
            self._ledgers[schema] = {(row.kind, row.table_name, row.name) for row in rows}
        return self._ledgers.get(schema, set())
