-- order_lock_due: locks orders whose deadline is over, then their intents, then their lines.
--
-- A row that somebody else holds is passed over: two workers share the work, and an order of which the intent is being
-- written just now may be paid in a moment. The orders of such intents stay locked until the commit, and as they are. An
-- order without an intent has nothing to wait for. The column may be a host's, on orders of its own: those are not looked at.

create or replace function order_lock_due(max_rows integer)
returns uuid[]
language plpgsql
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_ids uuid[];
  v_free uuid[];
begin
  v_ids := array(
    select due.id from vendor_orders as due
     where due.status = 'created_pending' and due.expires_at <= v_now and due.promo_discount_cents is not null
     order by due.expires_at, due.id
     limit order_lock_due.max_rows
       for no key update skip locked);
  if v_ids = '{}' then
    return v_ids;
  end if;
  v_free := array(
    select intent.order_id from payment_intents as intent
     where intent.order_id = any (v_ids)
       for no key update skip locked);   -- nobody is waited for, so in any order
  v_ids := array(
    select each.id from unnest(v_ids) as each (id)
     where each.id = any (v_free) or not exists (select from payment_intents as intent where intent.order_id = each.id));
  perform from order_line_items as line where line.order_id = any (v_ids) order by line.id for no key update;
  return v_ids;
end;
$$;

revoke execute on function order_lock_due(integer) from public;

comment on function order_lock_due(integer) is
  'Step of vendor_orders_expire: locks at most max_rows orders past their deadline, longest due first, with intents and lines, and returns those that nobody else holds.';
