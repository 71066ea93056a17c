-- order_line_fulfil: a line's goods leave, and what it holds stops being reserved, once.

create or replace function order_line_fulfil(line_id uuid)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
declare
  v_allowed constant text[] := array['created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'in_transit', 'delivered'];
  v_line order_line_items;
  v_order vendor_orders;
begin
  if order_line_fulfil.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  end if;

  v_line := order_lock_line(order_line_fulfil.line_id);
  select vendor_order.* into v_order from vendor_orders as vendor_order where vendor_order.id = v_line.order_id;

  if v_line.status = 'fulfilled' then
    return order_describe(v_order, array[v_line.id]) || jsonb_build_object('reason', null, 'replayed', true);
  elsif v_line.status not in ('pending', 'accepted') then
    perform order_raise_state('order line', v_line.id, v_line.status::text, array['pending', 'accepted']);
  elsif v_order.status::text <> all (v_allowed) then
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed);
  end if;

  v_order := order_end_lines(v_order, array[v_line.id], 'fulfilled', null);
  return order_emit_event(v_order, 'order_line.fulfilled', null, array[v_line.id]);
end;
$$;

revoke execute on function order_line_fulfil(uuid) from public;

comment on function order_line_fulfil(uuid) is
  'Fulfils an order line that is pending or accepted: its units are no longer reserved, its order is partially_fulfilled or fulfilled '
  '(in_transit and delivered stay), and one event order_line.fulfilled is written. A fulfilled line stays as it is and answers replayed = true. '
  'Locks the order, then stock, until the commit. Raises OC005 for a null id, OC011 for an unknown line, OC012 for another state; 55P03, 40001 and 40P01 are safe to retry.';
