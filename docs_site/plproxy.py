"""deploy/plproxy.sql: the API for callers behind PL/Proxy, from its own signatures.

docs_site/reference.py writes it, `make docs-reference`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg

FILE = Path(__file__).parents[1] / "deploy" / "plproxy.sql"

# What a role may be granted, and what the owner of stock calls: whoever asks for a market's calls from outside.
_FUNCTIONS = """
select routine.proname::text as name, pg_get_function_arguments(routine.oid) as arguments,
       pg_get_function_result(routine.oid) as result,
       coalesce((select array_agg(argument.name order by argument.place)
                   from unnest(routine.proargnames, routine.proargmodes)
                        with ordinality as argument (name, mode, place)
                  where coalesce(argument.mode, 'i') = 'i'), '{}') as names
  from pg_proc as routine
 where routine.pronamespace = current_schema()::regnamespace
   and routine.prosecdef
   and routine.prorettype <> 'trigger'::regtype
   and (routine.proname in (select split_part(object, '(', 1) from checkout_privileges() where kind = 'function')
        or starts_with(routine.proname, 'inventory_'))
 order by routine.proname
"""
_LEVEL = """
select string_agg(format('%I %s', attname, format_type(atttypid, atttypmod)), ', ' order by attnum) as columns
  from pg_attribute
 where attrelid = 'inventory_levels'::regclass and attnum > 0 and not attisdropped
"""

_HEAD = """\
-- A checkout through the proxy commits by itself, whatever becomes of the caller's transaction.
--
-- One address for callers that hold no map of markets: run this file in a database of its own, as a superuser, where
-- PL/Proxy is installed (Debian: postgresql-15-plproxy). docs/growth.md says how, and what differs from a call at the
-- market itself. Written by docs_site/plproxy.py from the signatures of the API: do not edit it.

create extension if not exists plproxy;
create schema if not exists api;
create schema if not exists plproxy;

-- Which market is where. A move is one UPDATE here, of conn and version; sessions that are open follow with their next
-- call. conn is libpq's and says the schema; without a user, so that the caller's own role logs in, and without a
-- password:
--   host=host_a dbname=shop options='-c search_path=market_ok,pg_temp'
create table if not exists api.market_directory (
  market text primary key,
  conn text not null,
  version integer not null default 1
);
revoke all on api.market_directory from public;

create or replace function plproxy.get_cluster_version(cluster_name text) returns integer
language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
  v_version integer;
begin
  select version into v_version from api.market_directory where market = cluster_name;
  if not found then
    raise exception 'there is no market %', quote_literal(left(cluster_name, 100)) using errcode = '22023';
  end if;
  return v_version;
end $$;

create or replace function plproxy.get_cluster_partitions(cluster_name text) returns setof text
language sql stable security definer set search_path = pg_catalog, pg_temp as
$$ select conn from api.market_directory where market = cluster_name $$;

create or replace function plproxy.get_cluster_config(in cluster_name text, out key text, out val text)
returns setof record language sql stable set search_path = pg_catalog, pg_temp as
$$ values ('connection_lifetime', '1800'), ('keepalive_idle', '10'), ('keepalive_interval', '5'),
          ('keepalive_count', '3') $$;

-- PL/Proxy takes the name of a cluster from a function alone.
create or replace function api.market_cluster(market text) returns text language sql immutable as $$ select market $$;
"""


def written(conn: psycopg.Connection[Any]) -> str:
    """The file, of the schema that comes first in the search_path."""
    [(level,)] = conn.execute(_LEVEL).fetchall()
    parts = [_HEAD]
    for name, arguments, result, names in conn.execute(_FUNCTIONS).fetchall():
        returns = re.sub(r"^(?:\w+\.)?inventory_levels$", f"TABLE({level})", result)
        # An argument may share its name with a column of the answer: PL/Proxy takes that, PL/pgSQL would not.
        rows = returns.startswith("TABLE")
        call = f"{name}({', '.join(names)})"
        parts.append(
            f"create or replace function api.{name}(market text{', ' if arguments else ''}{arguments})\n"
            f"returns {returns} language plproxy as $$\n"
            f"  cluster api.market_cluster(market);\n"
            f"  run on 0;\n"
            f"  select {'* from ' if rows else ''}{call};\n"
            f"$$;\n"
            f"revoke execute on function api.{name} from public;\n"
        )
    return "\n".join(parts)
