-- vendor_order_cancel: an order is called off, and what its open lines hold goes back to the shelf, once.
--
-- An order that the host's code set to canceled or expired by itself still holds its stock: canceling it gives that back.

create or replace function vendor_order_cancel(order_id uuid, reason text)
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
  v_allowed constant text[] := array['created_pending', 'accepted', 'partially_accepted', 'hold'];
  v_order vendor_orders;
  v_line_ids uuid[];
  v_qtys integer[];
begin
  if vendor_order_cancel.order_id is null then
    perform checkout_raise_invalid('order_id', 'is required');
  end if;
  perform order_check_reason(vendor_order_cancel.reason);

  v_order := order_lock(vendor_order_cancel.order_id);
  select coalesce(array_agg(line.id order by line.id), '{}'), array_agg(line.reserved_qty order by line.id) into v_line_ids, v_qtys
    from order_line_items as line
   where line.order_id = v_order.id and line.cart_item_id = line.id and line.reserved_qty > 0;

  if v_order.status = 'canceled' and v_line_ids = '{}' then
    return order_describe_change(v_order, null) || jsonb_build_object('reason', vendor_order_cancel.reason, 'replayed', true);
  elsif v_order.status::text <> all (v_allowed) and (v_order.status not in ('canceled', 'expired') or v_line_ids = '{}') then
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed);
  end if;

  perform inventory_return(v_order.cart_id, v_line_ids, true);
  v_order.status := 'canceled';   -- which order_change writes
  return order_change(v_order, 'canceled', 'vendor_order.canceled', v_line_ids, v_qtys, vendor_order_cancel.reason);
end;
$$;

revoke execute on function vendor_order_cancel(uuid, text) from public;

comment on function vendor_order_cancel(uuid, text) is
  'Cancels a vendor order that is created_pending, accepted, partially_accepted or on hold (or that was set to canceled or expired '
  'while its lines still hold stock): what its lines hold is turned down and available again, it owes what was shipped and its surcharges alone (cents), so does its '
  'unpaid intent, and one event vendor_order.canceled is written. Canceling it again changes nothing and answers replayed = true. '
  'Locks the order, then stock in (product_id, slot) order, until the commit. Raises OC005 for a bad reason, '
  'OC007 if a trigger keeps a row from being written, OC011 for an unknown order, OC012 for '
  'another state, or stock that cannot be given back; 55P03, 40001 and 40P01 are safe to retry.';
