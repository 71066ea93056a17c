-- order_end_due: ends locked orders as expired: what they hold goes back to the shelf in one go, upwards in (product, slot), and
-- then each is what a cancel would leave of it. A credit or a surcharge goes with the rest.
--
-- An order whose stock cannot be given back (a host wrote less reserved than its lines hold, or a shelf as full as it can be) must
-- not keep all others from ending: then each gives back on its own, over stock that is locked upwards as before, and that one
-- stays as it is. Where nothing else is left to do, it is said.

create or replace function order_end_due(ids uuid[], is_all boolean)
returns uuid[]
language plpgsql
as $$
declare
  v_ids uuid[] := order_end_due.ids;
  v_id uuid;
  v_line_ids uuid[];
  v_order vendor_orders;
  v_details jsonb;
  v_own uuid[];
  v_held integer[];
begin
  if order_end_due.ids = '{}' then
    return v_ids;
  end if;
  v_line_ids := array(
    select line.id from order_line_items as line
     where line.order_id = any (order_end_due.ids) and line.cart_item_id = line.id and line.reserved_qty > 0
     order by line.id);
  begin
    perform inventory_return(null, v_line_ids, true);
  exception when sqlstate 'OC012' then
    v_ids := '{}';
    perform inventory_lock_lines(v_line_ids);
    -- a loop, because each order fails alone
    for v_id in select each.id from unnest(order_end_due.ids) as each (id) order by each.id loop
      begin
        perform inventory_return(null, array(
          select line.id from order_line_items as line where line.order_id = v_id and line.id = any (v_line_ids) order by line.id), true);
        v_ids := v_ids || v_id;
      exception when sqlstate 'OC012' then
        null;
      end;
    end loop;
    if v_ids = '{}' and order_end_due.is_all then
      raise;
    end if;
  end;

  -- a loop, because each order has an event of its own
  for v_order in select due.* from vendor_orders as due where due.id = any (v_ids) order by due.id loop
    select coalesce(array_agg(line.id order by line.id), '{}'), coalesce(array_agg(line.reserved_qty order by line.id), '{}') into v_own, v_held
      from order_line_items as line
     where line.order_id = v_order.id and line.id = any (v_line_ids);
    v_details := jsonb_build_object('expires_at', checkout_timestamp(v_order.expires_at));
    v_order.status := 'expired';   -- which order_change writes
    v_order.expires_at := null;
    perform order_change(v_order, 'expired', 'vendor_order.expired', v_own, v_held, 'Not paid in time.', details => v_details);
  end loop;
  return v_ids;
end;
$$;

revoke execute on function order_end_due(uuid[], boolean) from public;

comment on function order_end_due(uuid[], boolean) is
  'Step of vendor_orders_expire: ends locked orders and their lines as expired, gives their stock back, and writes the change and the event of each; returns those that ended. '
  'Raises OC007 if a trigger keeps a row from being written, OC012 if is_all and no order''s stock can be given back.';
