-- checkout_audit_slice: broken invariants of the conversions whose anchors come after one uuid, up to another.
--
-- Whatever belongs to a conversion (cart, orders, lines, intents, events) is found from its anchor by an index, so that a
-- slice costs what it holds, and slices that follow each other find what one look at everything finds. Before the time that
-- outbox_purge() noted last, a conversion's events may be gone: there it can only tell too many. Planned for its
-- bounds each time: by index where there are some, by scans where there are none.

create or replace function checkout_audit_slice(since timestamptz, after uuid, upto uuid)
returns table (invariant text, id text, expected text, found text)
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_custom_plan
as $$
#variable_conflict use_column   -- the result has a column id
begin
  return query
  with slice as (
    select vendor_order.*
      from vendor_orders as vendor_order
     where (checkout_audit_slice.after is null or vendor_order.checkout_group_id > checkout_audit_slice.after)
       and (checkout_audit_slice.upto is null or vendor_order.checkout_group_id <= checkout_audit_slice.upto)
  ),
  our_lines as (
    select line.id, line.order_id, line.product_id, line.qty, line.unit_price_cents, line.line_subtotal_cents, line.discount_cents,
           line.total_cents, line.status, line.created_at, slice.vendor_store_id, slice.checkout_group_id
      from slice
      join order_line_items as line on line.order_id = slice.id
     where line.cart_item_id = line.id
  ),
  judged_lines as (
    select * from our_lines where checkout_audit_slice.since is null or our_lines.created_at >= checkout_audit_slice.since
  ),
  orders as (
    select slice.*, lines.line_subtotal, lines.line_discounts, lines.rejected_subtotal, lines.rejected_total
      from slice
      join (select order_id,
                   coalesce(sum(line_subtotal_cents) filter (where status <> 'rejected'), 0)::numeric as line_subtotal,
                   coalesce(sum(discount_cents) filter (where status <> 'rejected'), 0)::numeric as line_discounts,
                   coalesce(sum(line_subtotal_cents) filter (where status = 'rejected'), 0)::numeric as rejected_subtotal,
                   coalesce(sum(total_cents) filter (where status = 'rejected'), 0)::numeric as rejected_total
              from judged_lines
             group by order_id) as lines on lines.order_id = slice.id
  ),
  events as (
    select event.id, event.aggregate_id, event.event_type
      from outbox_events as event
     where event.event_type in ('checkout.vendor_orders_created', 'checkout.converted')
       and (checkout_audit_slice.after is null or event.aggregate_id > checkout_audit_slice.after)
       and (checkout_audit_slice.upto is null or event.aggregate_id <= checkout_audit_slice.upto)
  ),
  carts as (   -- that we converted, which their lines or their event show
    select cart.id, cart.checkout_group_id
      from cart_records as cart
     where cart.status = 'converted' and cart.converted_at is not null
       and (checkout_audit_slice.since is null or cart.converted_at >= checkout_audit_slice.since)
       and cart.checkout_group_id in (select our_lines.checkout_group_id from our_lines
                                       union
                                      select events.aggregate_id from events where events.event_type = 'checkout.converted')
  ),
  anchors as (
    select distinct checkout_group_id, cart_id from orders
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
  select 'two_events_a_conversion', converted.checkout_group_id::text, case when converted.created_at < purged.before then 'at most 2' else '2' end,
         count(events.id)::text
    from (select checkout_group_id, min(created_at) as created_at from orders group by checkout_group_id) as converted
   cross join (select coalesce(max(purged_before), '-infinity') as before from outbox_purges) as purged
    left join events on events.aggregate_id = converted.checkout_group_id
   group by converted.checkout_group_id, converted.created_at, purged.before
  having count(events.id) > 2 or (count(events.id) < 2 and converted.created_at >= purged.before)
   union all
  select 'one_cart_an_anchor', anchors.checkout_group_id::text, '1', count(*)::text
    from anchors group by anchors.checkout_group_id having count(*) <> 1
   union all
  select 'one_anchor_a_cart', cart.checkout_group_id::text, '1', count(*)::text
    from cart_records as cart
   where cart.checkout_group_id is not null
     and (checkout_audit_slice.after is null or cart.checkout_group_id > checkout_audit_slice.after)
     and (checkout_audit_slice.upto is null or cart.checkout_group_id <= checkout_audit_slice.upto)
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
  select 'every_orderable_item_is_ordered', item.id::text, 'an order line', 'none'
    from carts
    join cart_items as item on item.cart_id = carts.id and item.status = 'ok'
    join cart_vendor_groups as vendor on vendor.cart_id = carts.id and vendor.vendor_store_id = item.vendor_store_id and vendor.status = 'ok'
   where not exists (select from order_line_items as line where line.id = item.id)
   union all
  select 'conversion_has_orders', carts.id::text, 'at least 1 order', '0'
    from carts
   where not exists (select from slice where slice.checkout_group_id = carts.checkout_group_id)
   union all
  select 'line_is_its_cart_item', line.id::text,
         format('vendor %s, product %s, qty %s, at %s: %s - %s = %s', item.vendor_store_id, item.product_id, item.quantity,
                item.unit_price_cents, item.line_subtotal_cents,
                case when item.line_total_cents is null then 0 else coalesce(item.line_discounts_cents, 0) end,
                coalesce(item.line_total_cents, item.line_subtotal_cents)),
         format('vendor %s, product %s, qty %s, at %s: %s - %s = %s', line.vendor_store_id, line.product_id, line.qty,
                line.unit_price_cents, line.line_subtotal_cents, line.discount_cents, line.total_cents)
    from judged_lines as line join cart_items as item on item.id = line.id
   where (item.vendor_store_id, item.product_id, item.quantity, item.unit_price_cents, item.line_subtotal_cents,
          case when item.line_total_cents is null then 0 else coalesce(item.line_discounts_cents, 0) end,
          coalesce(item.line_total_cents, item.line_subtotal_cents))
         is distinct from
         (line.vendor_store_id, coalesce(line.product_id, item.product_id), line.qty, line.unit_price_cents,
          line.line_subtotal_cents, line.discount_cents, line.total_cents)
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
         is distinct from (orders.shipping_address, orders.payment_method, orders.shipping_line, orders.currency);
end;
$$;

revoke execute on function checkout_audit_slice(timestamptz, uuid, uuid) from public;

comment on function checkout_audit_slice(timestamptz, uuid, uuid) is
  'Part of checkout_audit: the conversions whose anchors (checkout_group_id) are greater than after and not greater than upto; '
  'null is no bound. Slices that follow each other, and checkout_audit_rest, find what checkout_audit finds, in little memory. For the owner. Writes nothing.';
