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

create or replace function api.ad_token_check(market text, token text, buyer_store_id uuid)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select ad_token_check(token, buyer_store_id);
$$;
revoke execute on function api.ad_token_check from public;

create or replace function api.cart_get(market text, buyer_store_id uuid, cart_id uuid)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select cart_get(buyer_store_id, cart_id);
$$;
revoke execute on function api.cart_get from public;

create or replace function api.cart_put(market text, cart jsonb)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select cart_put(cart);
$$;
revoke execute on function api.cart_put from public;

create or replace function api.checkout_execute(market text, buyer_store_id uuid, cart_id uuid, idempotency_key text, shipping_address jsonb, payment_method text, shipping_line jsonb DEFAULT NULL::jsonb, ad_token_policy text DEFAULT 'drop'::text, reservation_policy text DEFAULT 'partial'::text, billing_address jsonb DEFAULT NULL::jsonb, purchase_order text DEFAULT NULL::text, metadata jsonb DEFAULT NULL::jsonb, expires_in interval DEFAULT NULL::interval)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select checkout_execute(buyer_store_id, cart_id, idempotency_key, shipping_address, payment_method, shipping_line, ad_token_policy, reservation_policy, billing_address, purchase_order, metadata, expires_in);
$$;
revoke execute on function api.checkout_execute from public;

create or replace function api.checkout_metrics(market text)
returns TABLE(name text, labels jsonb, value double precision, type text, help text) language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select * from checkout_metrics();
$$;
revoke execute on function api.checkout_metrics from public;

create or replace function api.checkout_result(market text, buyer_store_id uuid, cart_id uuid)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select checkout_result(buyer_store_id, cart_id);
$$;
revoke execute on function api.checkout_result from public;

create or replace function api.checkout_version(market text)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select checkout_version();
$$;
revoke execute on function api.checkout_version from public;

create or replace function api.inventory_adjust(market text, product_id uuid, delta integer, change_key text DEFAULT NULL::text)
returns TABLE(product_id uuid, available_qty bigint, reserved_qty bigint, slots integer, updated_at timestamp with time zone) language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select * from inventory_adjust(product_id, delta, change_key);
$$;
revoke execute on function api.inventory_adjust from public;

create or replace function api.inventory_changes_purge(market text, older_than interval, max_rows integer DEFAULT 10000)
returns bigint language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select inventory_changes_purge(older_than, max_rows);
$$;
revoke execute on function api.inventory_changes_purge from public;

create or replace function api.inventory_get(market text, product_ids uuid[])
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select inventory_get(product_ids);
$$;
revoke execute on function api.inventory_get from public;

create or replace function api.inventory_restock(market text, product_id uuid, qty integer, change_key text DEFAULT NULL::text)
returns TABLE(product_id uuid, available_qty bigint, reserved_qty bigint, slots integer, updated_at timestamp with time zone) language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select * from inventory_restock(product_id, qty, change_key);
$$;
revoke execute on function api.inventory_restock from public;

create or replace function api.inventory_set(market text, product_id uuid, available integer)
returns TABLE(product_id uuid, available_qty bigint, reserved_qty bigint, slots integer, updated_at timestamp with time zone) language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select * from inventory_set(product_id, available);
$$;
revoke execute on function api.inventory_set from public;

create or replace function api.inventory_set_many(market text, levels jsonb)
returns bigint language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select inventory_set_many(levels);
$$;
revoke execute on function api.inventory_set_many from public;

create or replace function api.inventory_split(market text, product_id uuid, slots integer)
returns TABLE(product_id uuid, available_qty bigint, reserved_qty bigint, slots integer, updated_at timestamp with time zone) language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select * from inventory_split(product_id, slots);
$$;
revoke execute on function api.inventory_split from public;

create or replace function api.order_adjust(market text, order_id uuid, amount_cents bigint, reason text, change_key text)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select order_adjust(order_id, amount_cents, reason, change_key);
$$;
revoke execute on function api.order_adjust from public;

create or replace function api.order_changes_list(market text, order_id uuid, buyer_store_id uuid DEFAULT NULL::uuid, vendor_store_id uuid DEFAULT NULL::uuid)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select order_changes_list(order_id, buyer_store_id, vendor_store_id);
$$;
revoke execute on function api.order_changes_list from public;

create or replace function api.order_get(market text, order_id uuid, buyer_store_id uuid DEFAULT NULL::uuid, vendor_store_id uuid DEFAULT NULL::uuid)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select order_get(order_id, buyer_store_id, vendor_store_id);
$$;
revoke execute on function api.order_get from public;

create or replace function api.order_line_fulfil(market text, line_id uuid, qty integer DEFAULT NULL::integer, change_key text DEFAULT NULL::text, details jsonb DEFAULT NULL::jsonb)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select order_line_fulfil(line_id, qty, change_key, details);
$$;
revoke execute on function api.order_line_fulfil from public;

create or replace function api.order_line_release(market text, line_id uuid, reason text, qty integer DEFAULT NULL::integer, change_key text DEFAULT NULL::text)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select order_line_release(line_id, reason, qty, change_key);
$$;
revoke execute on function api.order_line_release from public;

create or replace function api.order_line_return(market text, line_id uuid, reason text, qty integer, restock boolean, change_key text)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select order_line_return(line_id, reason, qty, restock, change_key);
$$;
revoke execute on function api.order_line_return from public;

create or replace function api.orders_list(market text, buyer_store_id uuid DEFAULT NULL::uuid, vendor_store_id uuid DEFAULT NULL::uuid, statuses text[] DEFAULT NULL::text[], after text DEFAULT NULL::text, max_rows integer DEFAULT 50, order_number bigint DEFAULT NULL::bigint, purchase_order text DEFAULT NULL::text)
returns json language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select orders_list(buyer_store_id, vendor_store_id, statuses, after, max_rows, order_number, purchase_order);
$$;
revoke execute on function api.orders_list from public;

create or replace function api.outbox_ack(market text, claim_id uuid, ids uuid[])
returns bigint language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_ack(claim_id, ids);
$$;
revoke execute on function api.outbox_ack from public;

create or replace function api.outbox_claim(market text, batch integer, lease interval DEFAULT '00:00:30'::interval)
returns TABLE(id uuid, event_type text, aggregate_type text, aggregate_id uuid, payload jsonb, created_at timestamp with time zone, attempt_count integer, claim_id uuid, claimed_until timestamp with time zone) language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select * from outbox_claim(batch, lease);
$$;
revoke execute on function api.outbox_claim from public;

create or replace function api.outbox_discard(market text, id uuid, reason text)
returns text language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_discard(id, reason);
$$;
revoke execute on function api.outbox_discard from public;

create or replace function api.outbox_extend(market text, claim_id uuid, lease interval DEFAULT '00:00:30'::interval)
returns bigint language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_extend(claim_id, lease);
$$;
revoke execute on function api.outbox_extend from public;

create or replace function api.outbox_fail(market text, claim_id uuid, id uuid, error text, max_attempts integer DEFAULT 12)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_fail(claim_id, id, error, max_attempts);
$$;
revoke execute on function api.outbox_fail from public;

create or replace function api.outbox_purge(market text, older_than interval, max_rows integer DEFAULT 10000)
returns bigint language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_purge(older_than, max_rows);
$$;
revoke execute on function api.outbox_purge from public;

create or replace function api.outbox_release(market text, claim_id uuid, ids uuid[])
returns bigint language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_release(claim_id, ids);
$$;
revoke execute on function api.outbox_release from public;

create or replace function api.outbox_replay(market text, id uuid)
returns text language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select outbox_replay(id);
$$;
revoke execute on function api.outbox_replay from public;

create or replace function api.payment_record(market text, order_id uuid, provider text, provider_event_id text, kind text, amount_cents bigint, currency text, occurred_at timestamp with time zone DEFAULT NULL::timestamp with time zone, details jsonb DEFAULT NULL::jsonb)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select payment_record(order_id, provider, provider_event_id, kind, amount_cents, currency, occurred_at, details);
$$;
revoke execute on function api.payment_record from public;

create or replace function api.vendor_order_cancel(market text, order_id uuid, reason text)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select vendor_order_cancel(order_id, reason);
$$;
revoke execute on function api.vendor_order_cancel from public;

create or replace function api.vendor_order_decide(market text, order_id uuid, decisions jsonb DEFAULT NULL::jsonb, change_key text DEFAULT NULL::text)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select vendor_order_decide(order_id, decisions, change_key);
$$;
revoke execute on function api.vendor_order_decide from public;

create or replace function api.vendor_order_extend(market text, order_id uuid, until timestamp with time zone)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select vendor_order_extend(order_id, until);
$$;
revoke execute on function api.vendor_order_extend from public;

create or replace function api.vendor_orders_expire(market text, max_rows integer DEFAULT 100)
returns jsonb language plproxy as $$
  cluster api.market_cluster(market);
  run on 0;
  select vendor_orders_expire(max_rows);
$$;
revoke execute on function api.vendor_orders_expire from public;
