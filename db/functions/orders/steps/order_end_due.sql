-- order_end_due: ends locked orders as expired: what they hold goes back to the shelf in one go, upwards in (product, slot), and
-- then each is what a cancel would leave of it. A credit or a surcharge goes with the rest.

create or replace function order_end_due(ids uuid[])
returns void
language plpgsql
as $$
declare
  v_line_ids uuid[];
  v_order vendor_orders;
  v_details jsonb;
  v_own uuid[];
  v_held integer[];
begin
  if order_end_due.ids = '{}' then
    return;
  end if;
  v_line_ids := array(
    select line.id from order_line_items as line
     where line.order_id = any (order_end_due.ids) and line.cart_item_id = line.id and line.reserved_qty > 0
     order by line.id);
  perform inventory_return(null, v_line_ids, true);

  -- a loop, because each order has an event of its own
  for v_order in select due.* from vendor_orders as due where due.id = any (order_end_due.ids) order by due.id loop
    select coalesce(array_agg(line.id order by line.id), '{}'), coalesce(array_agg(line.reserved_qty order by line.id), '{}') into v_own, v_held
      from order_line_items as line
     where line.order_id = v_order.id and line.id = any (v_line_ids);
    v_details := jsonb_build_object('expires_at', checkout_timestamp(v_order.expires_at));
    v_order.status := 'expired';   -- which order_change writes
    v_order.expires_at := null;
    perform order_change(v_order, 'expired', 'vendor_order.expired', v_own, v_held, 'Not paid in time.', details => v_details);
  end loop;
end;
$$;

revoke execute on function order_end_due(uuid[]) from public;

comment on function order_end_due(uuid[]) is
  'Step of vendor_orders_expire: ends locked orders and their lines as expired, gives their stock back, and writes the change and the event of each. '
  'Raises OC007 if a trigger keeps a row from being written, OC012 if less stock is reserved.';
