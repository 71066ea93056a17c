-- vendor_order_extend: an order gets more time to be paid.

create or replace function vendor_order_extend(order_id uuid, until timestamptz)
returns jsonb
language plpgsql
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_order vendor_orders;
  v_now timestamptz;
begin
  if vendor_order_extend.order_id is null then
    perform checkout_raise_invalid('order_id', 'is required');
  elsif isfinite(vendor_order_extend.until) is not true then
    perform checkout_raise_invalid('until', 'must be a time');
  end if;

  v_order := order_lock(vendor_order_extend.order_id);
  v_now := clock_timestamp();
  if v_order.status <> 'created_pending' or v_order.expires_at is null then
    perform order_raise_state('order', v_order.id, v_order.status::text, array['created_pending'], lacks => case v_order.status when 'created_pending' then 'a deadline' end);
  elsif v_order.expires_at = vendor_order_extend.until then
    return order_describe_change(v_order, null) || jsonb_build_object('replayed', true);
  elsif vendor_order_extend.until < v_order.expires_at then
    perform checkout_raise_invalid('until', 'must not be before the deadline that the order has');
  elsif vendor_order_extend.until not between v_now and v_now + interval '8784 hours' then
    perform checkout_raise_invalid('until', 'must be in the future, and at most 366 days away');
  end if;

  v_order.expires_at := vendor_order_extend.until;   -- which order_change writes
  return order_change(v_order, 'extended', 'vendor_order.extended', '{}', '{}', null);
end;
$$;

revoke execute on function vendor_order_extend(uuid, timestamptz) from public;

comment on function vendor_order_extend(uuid, timestamptz) is
  'Moves the deadline of an order that is created_pending and has one to a later time, at most 366 days away, and writes one event vendor_order.extended. The '
  'same time again changes nothing and answers replayed = true. An order that has not expired yet can be extended after its deadline too. Locks the order and its '
  'lines until the commit. Raises OC005 for a time that is none, past, too far away or before the deadline, OC007 if a trigger keeps a row from being '
  'written, OC011 for an unknown order, OC012 for another state; 55P03, 40001 and 40P01 are safe to retry.';
