-- order_adjust: a credit or a surcharge on an order, beside what its lines come to, once a key.

create or replace function order_adjust(order_id uuid, amount_cents bigint, reason text, change_key text)
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
  v_allowed text[];
  v_hash bytea;
  v_order vendor_orders;
  v_change order_changes;
begin
  if order_adjust.order_id is null then
    perform checkout_raise_invalid('order_id', 'is required');
  elsif coalesce(order_adjust.amount_cents, 0) = 0 then
    perform checkout_raise_invalid('amount_cents', 'must be above 0, or below it for a credit');
  end if;
  perform order_check_reason(order_adjust.reason);
  v_hash := order_read_key(order_adjust.change_key, true, jsonb_build_object('kind', 'adjusted', 'amount_cents', order_adjust.amount_cents));

  v_order := order_lock(order_adjust.order_id);
  v_change := order_check_key(v_order.id, order_adjust.change_key, v_hash);
  if v_change.id is not null then
    return order_describe_change(v_order, v_change) || jsonb_build_object('replayed', true);
  elsif v_order.status = 'rejected' then
    v_allowed := array_remove(enum_range(null::vendor_order_status)::text[], 'rejected');
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed);
  end if;
  return order_change(
    v_order, 'adjusted', 'vendor_order.adjusted', '{}', '{}', order_adjust.reason,
    amount_cents => order_adjust.amount_cents, change_key => order_adjust.change_key, request_hash => v_hash);
end;
$$;

revoke execute on function order_adjust(uuid, bigint, text, text) from public;

comment on function order_adjust(uuid, bigint, text, text) is
  'Adds amount_cents to what an order of any state but rejected comes to, as a surcharge, or below 0 as a credit: adjustments_cents, total, balance (cents) and unpaid intent follow, '
  'and one event vendor_order.adjusted is written. The same request under its change_key answers replayed = true. Locks the order until the commit. '
  'Raises OC005 for an amount of 0, a bad reason or key, OC006 for the key of another change, OC007 if a trigger keeps a row from being written, '
  'OC011 for an unknown order, OC012 for a rejected one, for a credit beyond its total, or for a total that does not fit; 55P03, 40001 and 40P01 are safe to retry.';
