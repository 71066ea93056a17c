"""How a database is named: libpq's URLs and DSNs, and what SQLAlchemy makes of a URL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import Conninfo

# A connection whose other end is gone without a word is noticed within half a minute.
KEEPALIVE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}

# PostgreSQL's and pgbouncer's words: for a session that is refused, libpq hands out no SQLSTATE. A server that speaks
# another language is waited for, as one that is away.
_REFUSED = re.compile(
    r"FATAL: .*(?:database .* does not exist|role .* does not exist|authentication failed|pg_hba\.conf"
    r"|is not permitted to log in|permission denied for database|no such (?:database|user))|no password supplied"
)
# Null where it is the first of the search_path anyway: a pooler would keep what is set.
_FOUND = """
select (select namespace.nspname::text
          from pg_proc as routine
          join pg_namespace as namespace on namespace.oid = routine.pronamespace
         where routine.oid = to_regprocedure('checkout_version()')
           and namespace.nspname is distinct from current_schema()) as schema
"""
# The schemas that have pycheckout. From the catalog, which also shows what is in a schema that a role may not use.
INSTALLATIONS: LiteralString = """\
select namespace.nspname::text as schema, has_schema_privilege(namespace.oid, 'usage') as usable,
       pg_get_userbyid(routine.proowner)::text as owner
  from pg_catalog.pg_proc as routine
  join pg_catalog.pg_namespace as namespace on namespace.oid = routine.pronamespace
 where routine.proname = 'checkout_version' and routine.pronargs = 0"""
_UNKNOWN_HOST = re.compile("failed to resolve host|could not translate host name")


def parameters(database: str) -> dict[str, Any]:
    """libpq's parameters of a URL or DSN. A driver in the URL's scheme (`postgresql+psycopg://`) counts for nothing."""
    return conninfo_to_dict(re.sub(r"^(postgres(?:ql)?)\+\w+(?=://)", r"\1", database))


def own(database: str) -> dict[str, Any]:
    """The parameters of a session of ours: `parameters`, in UTF8 whatever the URL or PGCLIENTENCODING asks for.

    In SQL_ASCII psycopg has bytes for every text (its documentation, "Adapting basic Python types", strings).
    """
    return parameters(database) | {"client_encoding": "UTF8"}


def url(params: Mapping[str, Any]) -> str:
    """The URL of these parameters. A socket's folder, and a list of hosts, stand in its query, as libpq wants it."""
    rest = {name: str(value) for name, value in params.items() if value is not None}
    who = quote(rest.pop("user", ""), safe="")
    if "password" in rest:
        who += f":{quote(rest.pop('password'), safe='')}"
    place = ""
    if re.fullmatch(r"[\w.-]+", rest.get("host", "")) and "," not in rest.get("port", ""):
        place = rest.pop("host") + (f":{rest.pop('port')}" if "port" in rest else "")
    path = quote(rest.pop("dbname", ""), safe="")
    query = f"?{urlencode(rest, quote_via=quote, safe='')}" if rest else ""
    return f"postgresql://{who + '@' if who else ''}{place}/{path}{query}"


def named(params: Mapping[str, Any]) -> str:
    """The database and the host, as a log names them."""
    known = {
        option.keyword.decode(): option.val.decode() for option in Conninfo.get_defaults() if option.val is not None
    }
    known |= {name: str(value) for name, value in params.items() if value is not None}
    host = known.get("host") or known.get("hostaddr") or "the local socket"
    return f'database "{known.get("dbname") or known.get("user", "")}" at {host}:{known.get("port", "5432")}'


def refused(exc: psycopg.Error) -> bool:
    """Whether the server would have no session with us, whenever it was asked: wrong database, role or password."""
    return exc.sqlstate is None and _REFUSED.search(str(exc)) is not None


def unknown_host(exc: psycopg.Error) -> bool:
    """Whether the host's name could not be looked up."""
    return exc.sqlstate is None and _UNKNOWN_HOST.search(str(exc)) is not None


def found_schema(conn: psycopg.Connection[dict[str, Any]]) -> str | None:
    """Where a call would find pycheckout, if that is not the first schema of the search_path."""
    [found] = conn.execute(_FOUND).fetchall()
    name: str | None = found["schema"]
    return name


@contextmanager
def in_schema(conn: psycopg.Connection[dict[str, Any]], schema: str | None) -> Iterator[None]:
    """A transaction in this schema; by default in the one of the search_path where a call would find pycheckout.

    Never for the session: behind a pooler the next statement may be in another one, and another client in this one.
    """
    with conn.transaction():
        if schema is None:
            schema = found_schema(conn)
        if schema is not None:
            conn.execute("select set_config('search_path', quote_ident(%s), true)", (schema,))
        yield
