-- order_changes_list: what happened to an order since its checkout, payments too, oldest first, for its buyer or its vendor.

create or replace function order_changes_list(order_id uuid, buyer_store_id uuid default null, vendor_store_id uuid default null)
returns json
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
  perform order_find(order_changes_list.order_id, order_changes_list.buyer_store_id, order_changes_list.vendor_store_id);
  return (
    select coalesce(json_agg(json_build_object(
             'about', step.about, 'kind', step.kind, 'lines', step.lines, 'amount_cents', step.amount_cents, 'reason', step.reason,
             'key', step.key, 'created_at', checkout_timestamp(step.created_at)) order by step.created_at, step.key), '[]')
      from order_history as step
     where step.order_id = order_changes_list.order_id);
end;
$$;

revoke execute on function order_changes_list(uuid, uuid, uuid) from public;

comment on function order_changes_list(uuid, uuid, uuid) is
  'What happened to a vendor order since its checkout, oldest first, for its buyer or its vendor: a list of {about (order or payment), kind, lines, amount_cents, reason, key, '
  'created_at}, amounts in cents, as the view order_history has them. Give the buyer, the vendor, or both, who must then both be right. '
  'Locks nothing, writes nothing. Raises OC005 without an order id, or without either store, OC011 for an unknown order or somebody else''s.';
