-- order_lock: locks a vendor order and its lines, the first locks of everything that happens to an order after its checkout.
--
-- The lines too, in the order of their ids, because the host's code may be changing one without its order: what is read of
-- them from here on is what will be there. Stock comes after both, as in a checkout it comes after the cart; a checkout
-- never waits for an order that is there, so the two cannot deadlock. Whoever changes a line updates its order as well: a
-- snapshot that is too old for the lines is then too old for this row, and says so with 40001.

create or replace function order_lock(order_id uuid)
returns vendor_orders
language plpgsql
as $$
declare
  v_order vendor_orders;
begin
  select vendor_order.* into v_order from vendor_orders as vendor_order where vendor_order.id = order_lock.order_id for no key update;
  perform from order_line_items as line where line.order_id = v_order.id order by line.id for no key update;
  -- an order that is not there has no lines either
  if not exists (select from order_line_items as line where line.order_id = v_order.id and line.cart_item_id = line.id) then
    raise exception 'there is no order % that a checkout made', order_lock.order_id
      using errcode = 'OC011',
            detail = jsonb_build_object('order_id', order_lock.order_id),
            hint = 'Look at the id; orders that were there before pycheckout are not its to change.';
  end if;
  return v_order;
end;
$$;

revoke execute on function order_lock(uuid) from public;

comment on function order_lock(uuid) is
  'Step of the order functions: locks a vendor order and its lines FOR NO KEY UPDATE and returns the order. Raises OC011 if no checkout made it.';
