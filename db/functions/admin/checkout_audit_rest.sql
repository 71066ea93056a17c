-- checkout_audit_rest: broken invariants that no slice of conversions can show: stock, which all of them share, and keys.

create or replace function checkout_audit_rest(since timestamptz)
returns table (invariant text, id text, expected text, found text)
language plpgsql
stable
security definer
set search_path from current
as $$
#variable_conflict use_column   -- the result has a column id
begin
  return query
  with open_lines as (
    select line.id, line.product_id, line.qty
      from order_line_items as line
      join vendor_orders as vendor_order on vendor_order.id = line.order_id
     where line.cart_item_id = line.id and line.status in ('pending', 'accepted', 'hold')
  ),
  held as (
    select line.product_id, coalesce(hold.slot, 0) as slot, sum(coalesce(hold.qty, line.qty))::numeric as qty
      from open_lines as line
      left join inventory_holds as hold on hold.product_id = line.product_id and hold.line_item_id = line.id
     where line.product_id is not null
     group by line.product_id, coalesce(hold.slot, 0)
  ),
  stock as (
    select product_id, 0 as slot, available_qty, reserved_qty from inventory_items
     union all
    select product_id, slot, available_qty, reserved_qty from inventory_slots
  )
  select 'reserved_is_what_open_lines_hold', format('product %s slot %s', coalesce(stock.product_id, held.product_id), coalesce(stock.slot, held.slot)),
         case when baseline.reserved_qty > 0 then format('%s to %s', coalesce(held.qty, 0), coalesce(held.qty, 0) + baseline.reserved_qty)
              else coalesce(held.qty, 0)::text end,
         coalesce(stock.reserved_qty, 0)::text
    from stock
    full join held on held.product_id = stock.product_id and held.slot = stock.slot
    left join inventory_baseline as baseline on baseline.product_id = stock.product_id and stock.slot = 0
   where coalesce(stock.reserved_qty, 0) not between coalesce(held.qty, 0) and coalesce(held.qty, 0) + coalesce(baseline.reserved_qty, 0)
   union all
  select 'stock_not_negative', format('product %s slot %s', stock.product_id, stock.slot), '>= 0',
         format('%s available, %s reserved', stock.available_qty, stock.reserved_qty)
    from stock where stock.available_qty < 0 or stock.reserved_qty < 0
   union all
  select 'split_product_has_its_slots', item.product_id::text, case item.slots when 1 then '0' else item.slots::text end, count(slot.slot)::text
    from inventory_items as item left join inventory_slots as slot on slot.product_id = item.product_id
   group by item.product_id, item.slots
  having count(slot.slot) <> case item.slots when 1 then 0 else item.slots end
   union all
  select 'holds_are_the_quantity_of_an_open_line', hold.line_item_id::text, coalesce(max(line.qty)::text, 'no hold'), sum(hold.qty)::text
    from inventory_holds as hold
    left join open_lines as line on line.id = hold.line_item_id
   group by hold.line_item_id
  having sum(hold.qty) is distinct from max(line.qty)
   union all
  select 'key_belongs_to_converted_cart', request.cart_id::text, 'converted', cart.status::text
    from checkout_requests as request join cart_records as cart on cart.id = request.cart_id
   where cart.status <> 'converted'
   union all
  -- a conversion that shows by its key alone; one that shows by its event is in a slice
  select 'conversion_has_orders', cart.id::text, 'at least 1 order', '0'
    from cart_records as cart
   where cart.status = 'converted' and cart.converted_at is not null
     and (checkout_audit_rest.since is null or cart.converted_at >= checkout_audit_rest.since)
     and exists (select from checkout_requests as request where request.cart_id = cart.id)
     and not exists (select from vendor_orders as vendor_order where vendor_order.checkout_group_id = cart.checkout_group_id)
     and not exists (select from outbox_events as event
                      where event.aggregate_id = cart.checkout_group_id and event.event_type = 'checkout.converted');
end;
$$;

revoke execute on function checkout_audit_rest(timestamptz) from public;

comment on function checkout_audit_rest(timestamptz) is
  'Part of checkout_audit: stock, what open lines hold of it, and keys, whose invariants no slice of conversions can show. '
  'Stock is always judged whole. For the owner. Writes nothing.';
