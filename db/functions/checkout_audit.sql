-- checkout_audit: every broken invariant of the database, one row each; none on a healthy one, at any moment.
--
-- STABLE, so that all of it reads one snapshot: a checkout that commits meanwhile is seen whole or not at all. It judges
-- what pycheckout wrote, which shows by cart_item_id = id on the lines or by the cart's event; history is taken as it is.

create or replace function checkout_audit(since timestamptz default null)
returns table (invariant text, id text, expected text, found text)
language sql
stable
security definer
set search_path from current
as $$
  with our_lines as (
    select line.*, vendor_order.checkout_group_id, vendor_order.vendor_store_id, vendor_order.cart_id
      from order_line_items as line
      join vendor_orders as vendor_order on vendor_order.id = line.order_id
     where line.cart_item_id = line.id
  ),
  judged_lines as (
    select * from our_lines where checkout_audit.since is null or our_lines.created_at >= checkout_audit.since
  ),
  orders as (
    select vendor_order.*, lines.line_subtotal, lines.line_discounts, lines.rejected_subtotal, lines.rejected_total
      from vendor_orders as vendor_order
      join (select order_id,
                   coalesce(sum(line_subtotal_cents) filter (where status <> 'rejected'), 0)::numeric as line_subtotal,
                   coalesce(sum(discount_cents) filter (where status <> 'rejected'), 0)::numeric as line_discounts,
                   coalesce(sum(line_subtotal_cents) filter (where status = 'rejected'), 0)::numeric as rejected_subtotal,
                   coalesce(sum(total_cents) filter (where status = 'rejected'), 0)::numeric as rejected_total
              from judged_lines
             group by order_id) as lines on lines.order_id = vendor_order.id
  ),
  carts as (
    select cart.*,
           exists (select from our_lines where our_lines.checkout_group_id = cart.checkout_group_id)
           or exists (select from outbox_events as event
                       where event.aggregate_id = cart.checkout_group_id and event.event_type = 'checkout.converted') as is_ours
      from cart_records as cart
     where cart.status = 'converted' and cart.converted_at is not null
       and (checkout_audit.since is null or cart.converted_at >= checkout_audit.since)
  ),
  anchors as (
    select distinct checkout_group_id, cart_id from orders
  ),
  held as (
    select line.product_id, coalesce(hold.slot, 0) as slot, sum(coalesce(hold.qty, line.qty))::numeric as qty
      from our_lines as line
      left join inventory_holds as hold on hold.product_id = line.product_id and hold.line_item_id = line.id
     where line.status in ('pending', 'accepted', 'hold') and line.product_id is not null
     group by line.product_id, coalesce(hold.slot, 0)
  ),
  stock as (
    select product_id, 0 as slot, available_qty, reserved_qty from inventory_items
     union all
    select product_id, slot, available_qty, reserved_qty from inventory_slots
  )
  select 'order_subtotal_is_its_lines', orders.id::text, orders.line_subtotal::text, orders.subtotal_cents::text
    from orders where orders.subtotal_cents <> orders.line_subtotal
   union all
  select 'order_total_is_lines_minus_discounts', orders.id::text,
         (orders.subtotal_cents::numeric - orders.discounts_cents + orders.tax_cents + orders.transport_fee_cents)::text, orders.total_cents::text
    from orders where orders.total_cents <> orders.subtotal_cents::numeric - orders.discounts_cents + orders.tax_cents + orders.transport_fee_cents
   union all
  select 'order_amounts_not_negative', orders.id::text, 'total and promotion >= 0',
         format('total %s, promotion %s', orders.total_cents, orders.discounts_cents - orders.line_discounts)
    from orders where orders.total_cents < 0 or orders.discounts_cents < orders.line_discounts
   union all
  select 'one_intent_an_order', orders.id::text, '1', count(intent.id)::text
    from orders left join payment_intents as intent on intent.order_id = orders.id
   group by orders.id having count(intent.id) <> 1
   union all
  select 'intent_is_order_total', orders.id::text, orders.total_cents::text, intent.amount_cents::text
    from orders join payment_intents as intent on intent.order_id = orders.id
   where case when intent.status = 'unpaid' then intent.amount_cents <> orders.total_cents
              else intent.amount_cents < orders.total_cents end   -- what was charged stays when a line is turned down later
   union all
  select 'intent_method_is_order_method', orders.id::text, orders.payment_method::text, intent.method::text
    from orders join payment_intents as intent on intent.order_id = orders.id
   where intent.method <> orders.payment_method
   union all
  select 'two_events_a_conversion', anchors.checkout_group_id::text, '2', count(event.id)::text
    from anchors
    left join outbox_events as event
      on event.aggregate_id = anchors.checkout_group_id
     and event.event_type in ('checkout.vendor_orders_created', 'checkout.converted')
   group by anchors.checkout_group_id having count(event.id) <> 2
   union all
  select 'one_cart_an_anchor', anchors.checkout_group_id::text, '1', count(*)::text
    from anchors group by anchors.checkout_group_id having count(*) <> 1
   union all
  select 'one_anchor_a_cart', cart.checkout_group_id::text, '1', count(*)::text
    from cart_records as cart where cart.checkout_group_id is not null
   group by cart.checkout_group_id having count(*) > 1
   union all
  select 'order_has_the_anchor_of_its_cart', orders.id::text, cart.checkout_group_id::text, orders.checkout_group_id::text
    from orders join cart_records as cart on cart.id = orders.cart_id
   where cart.checkout_group_id is distinct from orders.checkout_group_id
   union all
  select 'ordered_cart_is_converted', orders.id::text, 'converted', cart.status::text
    from orders join cart_records as cart on cart.id = orders.cart_id
   where cart.status <> 'converted'
   union all
  select 'key_belongs_to_converted_cart', request.cart_id::text, 'converted', cart.status::text
    from checkout_requests as request join cart_records as cart on cart.id = request.cart_id
   where cart.status <> 'converted'
   union all
  select 'every_orderable_item_is_ordered', item.id::text, 'an order line', 'none'
    from carts
   cross join lateral checkout_orderable_items(carts.id) as item
   where carts.is_ours and not exists (select from order_line_items as line where line.id = item.id)
   union all
  select 'conversion_has_orders', carts.id::text, 'at least 1 order', '0'
    from carts
   where (carts.is_ours or exists (select from checkout_requests as request where request.cart_id = carts.id))
     and not exists (select from vendor_orders as vendor_order where vendor_order.checkout_group_id = carts.checkout_group_id)
   union all
  select 'line_is_its_cart_item', line.id::text,
         format('vendor %s, product %s, qty %s, at %s: %s - %s = %s', item.vendor_store_id, item.product_id, item.quantity, item.unit_price_cents, item.line_subtotal_cents,
                case when item.line_total_cents is null then 0 else coalesce(item.line_discounts_cents, 0) end, coalesce(item.line_total_cents, item.line_subtotal_cents)),
         format('vendor %s, product %s, qty %s, at %s: %s - %s = %s', line.vendor_store_id, line.product_id, line.qty, line.unit_price_cents, line.line_subtotal_cents, line.discount_cents, line.total_cents)
    from judged_lines as line join cart_items as item on item.id = line.id
   where (item.vendor_store_id, item.product_id, item.quantity, item.unit_price_cents, item.line_subtotal_cents,
          case when item.line_total_cents is null then 0 else coalesce(item.line_discounts_cents, 0) end,
          coalesce(item.line_total_cents, item.line_subtotal_cents))
         is distinct from
         (line.vendor_store_id, coalesce(line.product_id, item.product_id), line.qty, line.unit_price_cents, line.line_subtotal_cents, line.discount_cents, line.total_cents)
   union all
  select 'order_is_its_vendor_group_without_rejected_lines', orders.id::text,
         format('%s, %s', vendor.subtotal_cents - orders.rejected_subtotal, greatest(vendor.total_cents - orders.rejected_total, 0)),
         format('%s, %s', orders.subtotal_cents, orders.total_cents - orders.tax_cents - orders.transport_fee_cents)
    from orders join cart_vendor_groups as vendor on vendor.id = orders.id
   where (vendor.subtotal_cents - orders.rejected_subtotal, greatest(vendor.total_cents - orders.rejected_total, 0))
         is distinct from (orders.subtotal_cents, orders.total_cents - orders.tax_cents - orders.transport_fee_cents)
   union all
  select 'order_confirms_what_its_cart_does', orders.id::text,
         concat_ws(', ', cart.shipping_address, cart.payment_method, cart.shipping_line, cart.currency),
         concat_ws(', ', orders.shipping_address, orders.payment_method, orders.shipping_line, orders.currency)
    from orders join cart_records as cart on cart.id = orders.cart_id
   where (cart.shipping_address, cart.payment_method, cart.shipping_line, cart.currency)
         is distinct from (orders.shipping_address, orders.payment_method, orders.shipping_line, orders.currency)
   union all
  select 'reserved_is_what_open_lines_hold', format('product %s slot %s', coalesce(stock.product_id, held.product_id), coalesce(stock.slot, held.slot)),
         case when baseline.reserved_qty > 0 then format('%s to %s', coalesce(held.qty, 0), coalesce(held.qty, 0) + baseline.reserved_qty)
              else coalesce(held.qty, 0)::text end,
         coalesce(stock.reserved_qty, 0)::text
    from stock
    full join held on held.product_id = stock.product_id and held.slot = stock.slot
    left join inventory_baseline as baseline on baseline.product_id = stock.product_id and stock.slot = 0
   where coalesce(stock.reserved_qty, 0) not between coalesce(held.qty, 0) and coalesce(held.qty, 0) + coalesce(baseline.reserved_qty, 0)
   union all
  select 'stock_not_negative', format('product %s slot %s', stock.product_id, stock.slot), '>= 0', format('%s available, %s reserved', stock.available_qty, stock.reserved_qty)
    from stock where stock.available_qty < 0 or stock.reserved_qty < 0
   union all
  select 'split_product_has_its_slots', item.product_id::text, case item.slots when 1 then '0' else item.slots::text end, count(slot.slot)::text
    from inventory_items as item left join inventory_slots as slot on slot.product_id = item.product_id
   group by item.product_id, item.slots
  having count(slot.slot) <> case item.slots when 1 then 0 else item.slots end
   union all
  select 'holds_are_the_quantity_of_an_open_line', hold.line_item_id::text, coalesce(max(line.qty)::text, 'no hold'), sum(hold.qty)::text
    from inventory_holds as hold
    left join our_lines as line on line.id = hold.line_item_id and line.status in ('pending', 'accepted', 'hold')
   group by hold.line_item_id
  having sum(hold.qty) is distinct from max(line.qty)
$$;

revoke execute on function checkout_audit(timestamptz) from public;

comment on function checkout_audit(timestamptz) is
  'Broken invariants, a row each: name, id, expected, found. Zero rows on a healthy database, also under load. With since, '
  'only orders and carts from then on (stock is always judged whole). Reads much; for the owner. Writes nothing.';
