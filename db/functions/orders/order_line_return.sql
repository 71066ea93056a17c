-- order_line_return: shipped units of a line come back, all or a part, to the shelf or not, once a key.

create or replace function order_line_return(line_id uuid, reason text, qty integer, restock boolean, change_key text)
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
  v_allowed constant text[] := array['fulfilled', 'partially_fulfilled', 'in_transit', 'delivered', 'closed', 'canceled'];
  v_hash bytea;
  v_line order_line_items;
  v_order vendor_orders;
  v_change order_changes;
  v_out integer;
  v_restocked integer := 0;
begin
  if order_line_return.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  elsif order_line_return.qty < 1 then
    perform checkout_raise_invalid('qty', 'must be at least 1, or null for all that was shipped');
  elsif order_line_return.restock is null then
    perform checkout_raise_invalid('restock', 'is required');
  end if;
  perform order_check_reason(order_line_return.reason);
  v_hash := order_read_key(order_line_return.change_key, true, jsonb_build_object(
    'kind', 'returned', 'line_item_id', order_line_return.line_id, 'qty', order_line_return.qty, 'restock', order_line_return.restock));

  v_order := order_lock_line(order_line_return.line_id);
  v_change := order_check_key(v_order.id, order_line_return.change_key, v_hash);
  if v_change.id is not null then
    return order_describe_change(v_order, v_change) || jsonb_build_object('replayed', true);
  end if;
  select line.* into v_line from order_line_items as line where line.id = order_line_return.line_id;
  v_out := order_units_fulfilled(v_line) - coalesce(v_line.returned_qty, 0);

  if v_order.status::text <> all (v_allowed) then
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed);
  elsif v_out = 0 or order_line_return.qty > v_out then
    perform order_raise_units(v_line, order_line_return.qty, v_out);
  end if;

  if order_line_return.restock then
    perform inventory_return(v_order.cart_id, array[v_line.id], true, array[coalesce(order_line_return.qty, v_out)], false);
    select coalesce(order_line_return.qty, v_out) into v_restocked from inventory_items as stock where stock.product_id = v_line.product_id;
  end if;
  return order_change(
    v_order, 'returned', 'order_line.returned', array[v_line.id], array[coalesce(order_line_return.qty, v_out)], order_line_return.reason,
    change_key => order_line_return.change_key, request_hash => v_hash, line_details => jsonb_build_object('restocked_qty', coalesce(v_restocked, 0)));
end;
$$;

revoke execute on function order_line_return(uuid, text, integer, boolean, text) from public;

comment on function order_line_return(uuid, text, integer, boolean, text) is
  'Takes qty shipped units of an order line back, or all that are out, from an order that is fulfilled, partially_fulfilled, in_transit, delivered, closed or canceled: '
  'their part of the line''s amounts (cents) comes off the order, the promotion and the shipping stay, and one event order_line.returned is written. With restock they are available again; '
  'a product without a stock row takes nothing back, and restocked_qty is 0. The same request under its change_key answers replayed = true. '
  'Locks the order, then stock, until the commit. Raises OC005 for a bad reason, quantity or key or no restock, OC006 for the key of another change, '
  'OC007 if a trigger keeps a row from being written, OC011 for an unknown line, '
  'OC012 for another state of the order, more units than are out, or a shelf that holds no more; 55P03, 40001 and 40P01 are safe to retry.';
