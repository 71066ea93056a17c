-- order_lock_due: locks orders whose deadline is over, then their intents, then their lines.
--
-- A row that somebody else holds is passed over: two workers share the work, and an order of which the intent is being
-- written just now may be paid in a moment. The orders of such intents stay locked until the commit, and as they are. An
-- order without an intent has nothing to wait for. The column may be a host's, on orders of its own: those are not looked at.

create or replace function order_lock_due(
  max_rows integer,
  after_time timestamptz,
  after_id uuid,
  out ids uuid[],
  out last_time timestamptz,
  out last_id uuid
)
returns record
language plpgsql
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_free uuid[];
begin
  ids := array(
    select due.id from vendor_orders as due
     where due.status = 'created_pending' and due.expires_at <= v_now and due.promo_discount_cents is not null
       and (due.expires_at, due.id) > (order_lock_due.after_time, order_lock_due.after_id)
     order by due.expires_at, due.id
     limit order_lock_due.max_rows
       for no key update skip locked);
  if ids = '{}' then
    return;
  end if;
  last_id := ids[cardinality(ids)];
  last_time := (select due.expires_at from vendor_orders as due where due.id = last_id);
  v_free := array(
    select intent.order_id from payment_intents as intent
     where intent.order_id = any (ids)
       for no key update skip locked);   -- nobody is waited for, so in any order
  ids := array(
    select each.id from unnest(ids) as each (id)
     where each.id = any (v_free) or not exists (select from payment_intents as intent where intent.order_id = each.id));
  perform from order_line_items as line where line.order_id = any (ids) order by line.id for no key update;
end;
$$;

revoke execute on function order_lock_due(integer, timestamptz, uuid) from public;

comment on function order_lock_due(integer, timestamptz, uuid) is
  'Step of vendor_orders_expire: locks at most max_rows orders past their deadline, longest due first and behind a place in that order, with intents and lines, and returns '
  'those that nobody else holds, and the place of the last; null if there was none.';
