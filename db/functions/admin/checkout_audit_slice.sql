-- checkout_audit_slice: broken invariants of the conversions whose anchors come after one uuid, up to another.
--
-- Whatever belongs to a conversion (cart, orders, lines, intents, events) is found from its anchor by an index, so that a
-- slice costs what it holds, and slices that follow each other find what one look at everything finds. Before the time that
-- outbox_purge() noted last, a conversion's events may be gone: there it can only tell too many. Planned for its
-- bounds each time: by index where there are some, by scans where there are none.
--
-- A line counts in its order by the units that are left of it, held or shipped and not come back, whatever its state. So a host that
-- writes a state leaves the amounts right, and what it forgot shows as stock that is held by what has ended. What a host may
-- do is not judged: lines of its own, tax and transport of an order whose quote said nothing of them, another address or
-- payment method, a payment in parts.

create or replace function checkout_audit_slice(since timestamptz, after uuid, upto uuid)
returns table (invariant text, id text, expected text, found text)
language plpgsql
stable
security definer
set search_path from current
set jit = off
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
           line.total_cents, line.tax_cents, line.tax_lines, line.reserved_qty,
           line.fulfilled_qty, line.released_qty, line.returned_qty, line.status, line.notes, line.name, line.category, line.unit, line.moq, line.max_qty,
           line.applied_volume_discount, line.attributed_token ->> 'token_id' as token_id, line.created_at,
           slice.vendor_store_id, slice.checkout_group_id, slice.cart_id,
           order_units_fulfilled(row(line.*)::order_line_items) as shipped, order_units_left(row(line.*)::order_line_items) as units_left,
           order_part_cents(line.total_cents, line.qty - order_units_left(row(line.*)::order_line_items), line.qty) as off_total,
           order_part_cents(line.discount_cents, line.qty - order_units_left(row(line.*)::order_line_items), line.qty) as off_discount,
           coalesce(order_part_cents(line.tax_cents, line.qty - order_units_left(row(line.*)::order_line_items), line.qty), 0) as off_tax
      from slice
      join order_line_items as line on line.order_id = slice.id
     where line.cart_item_id = line.id
  ),
  judged_lines as (
    select * from our_lines where checkout_audit_slice.since is null or our_lines.created_at >= checkout_audit_slice.since
  ),
  orders as (
    select slice.*, lines.kept_subtotal, lines.kept_discounts, lines.kept_total, lines.kept_tax, lines.off_subtotal, lines.total, lines.tax, lines.placed_total,
           lines.shipped > 0 or lines.units_left > 0 as is_kept, lines.held, case when slice.tax_included then 0 else slice.tax_cents end as added_tax,
           coalesce(slice.adjustments_cents, 0) as adjustments
      from slice
      join (select order_id,
                   sum(line_subtotal_cents)::numeric - sum(off_total) - sum(off_discount) as kept_subtotal,
                   sum(discount_cents)::numeric - sum(off_discount) as kept_discounts,
                   sum(total_cents)::numeric - sum(off_total) as kept_total,
                   coalesce(sum(tax_cents), 0)::numeric - sum(off_tax) as kept_tax,
                   sum(off_total)::numeric + sum(off_discount) as off_subtotal,
                   sum(total_cents)::numeric as total,
                   sum(tax_cents)::numeric as tax,
                   sum(total_cents) filter (where order_is_checkout_note(notes) is not true) as placed_total,
                   sum(shipped) as shipped,
                   sum(units_left) as units_left,
                   sum(reserved_qty) as held
              from judged_lines
             group by order_id) as lines on lines.order_id = slice.id
  ),
  events as (
    select event.id, event.aggregate_type::text as aggregate_type, event.aggregate_id, event.event_type::text as event_type, event.payload, event.published_at, event.next_attempt_at,
           event.created_at, event.payload -> 'data' as data
      from outbox_events as event
     where event.event_type in ('checkout.vendor_orders_created', 'checkout.converted')
       and (checkout_audit_slice.after is null or event.aggregate_id > checkout_audit_slice.after)
       and (checkout_audit_slice.upto is null or event.aggregate_id <= checkout_audit_slice.upto)
  ),
  our_anchors as (   -- of checkouts of ours, which lines, an event, or an order with the id of a vendor group show
    select our_lines.checkout_group_id from our_lines
     union
    select events.aggregate_id from events where events.event_type = 'checkout.converted'
     union
    select slice.checkout_group_id from slice join cart_vendor_groups as vendor on vendor.id = slice.id and vendor.cart_id = slice.cart_id
  ),
  carts as (
    select cart.*
      from cart_records as cart
     where cart.status = 'converted' and cart.checkout_group_id in (select our_anchors.checkout_group_id from our_anchors)
       and (checkout_audit_slice.since is null or coalesce(cart.converted_at, cart.created_at) >= checkout_audit_slice.since)
  ),
  conversions as (
    select checkout_group_id, min(cart_id::text) as cart_id, min(buyer_store_id::text) as buyer_store_id, min(created_at) as created_at,
           string_agg(orders.id::text, ', ' order by orders.vendor_store_id) as order_ids
      from orders
     group by checkout_group_id
  ),
  purged as (
    select coalesce(max(purged_before), '-infinity') as before from outbox_purges
  ),
  quoted as (   -- as their vendor groups have them: shipping while a unit is left or was shipped, the promotion as long as that much is left of both
    select priced.*, least(priced.quoted_share, priced.kept_total + priced.shipping) as share
      from (
        select orders.*, vendor.subtotal_cents as quoted_subtotal, num_nonnulls(vendor.shipping_cents, vendor.shipping_tax_cents) > 0 as says_shipping,
               case when orders.is_kept then coalesce(vendor.shipping_cents, 0) else 0 end::numeric as shipping,
               case when orders.is_kept then coalesce(vendor.shipping_tax_cents, 0) else 0 end as shipping_tax,
               orders.total + coalesce(vendor.shipping_cents, 0)
               + case when orders.tax_included then 0 else coalesce(orders.tax, 0) + coalesce(vendor.shipping_tax_cents, 0) end - vendor.total_cents as quoted_share
          from orders join cart_vendor_groups as vendor on vendor.id = orders.id and vendor.cart_id = orders.cart_id
      ) as priced
  ),
  told_orders as (   -- as the event of the conversion has them
    select ordered ->> 'order_id' as order_id, ordered ->> 'attributed_token_id' as token_id, ordered -> 'items' as items
      from events
      join conversions on conversions.checkout_group_id = events.aggregate_id
     cross join jsonb_array_elements(case jsonb_typeof(events.data -> 'vendor_orders') when 'array' then events.data -> 'vendor_orders' else '[]' end) as ordered
     where events.event_type = 'checkout.converted'
  ),
  told_lines as (
    select told_orders.order_id, line
      from told_orders
     cross join jsonb_array_elements(case jsonb_typeof(told_orders.items) when 'array' then told_orders.items else '[]' end) as line
  )
  select 'order_subtotal_is_its_lines', orders.id::text, orders.kept_subtotal::text, orders.subtotal_cents::text
    from orders where orders.subtotal_cents <> orders.kept_subtotal
   union all
  select 'order_discounts_are_its_lines_and_promotion', orders.id::text, format('%s and the promotion', orders.kept_discounts),
         format('%s with %s', orders.discounts_cents, coalesce(orders.promo_discount_cents::text, 'none'))
    from orders where orders.discounts_cents is distinct from orders.kept_discounts + orders.promo_discount_cents
   union all
  select 'order_total_is_lines_minus_discounts', orders.id::text,
         (orders.subtotal_cents::numeric - orders.discounts_cents + orders.added_tax + orders.transport_fee_cents + orders.adjustments)::text, orders.total_cents::text
    from orders where orders.total_cents <> orders.subtotal_cents::numeric - orders.discounts_cents + orders.added_tax + orders.transport_fee_cents + orders.adjustments
   union all
  select 'order_amounts_not_negative', orders.id::text, 'total >= 0, promotion 0 to what is left of lines and shipping',
         format('total %s, promotion %s of %s', orders.total_cents, orders.promo_discount_cents, orders.kept_total + orders.transport_fee_cents)
    from orders
   where orders.total_cents < 0 or orders.promo_discount_cents < 0 or orders.promo_discount_cents > orders.kept_total + orders.transport_fee_cents
   union all
  -- as far as its quote says something of tax
  select 'order_tax_is_its_lines_and_shipping', orders.id::text, (orders.kept_tax + coalesce(orders.shipping_tax_cents, 0))::text, orders.tax_cents::text
    from orders
   where num_nonnulls(orders.tax, orders.shipping_tax_cents) > 0 and orders.tax_cents <> orders.kept_tax + coalesce(orders.shipping_tax_cents, 0)
   union all
  select 'order_balance_is_part_of_its_total', orders.id::text, format('0 to %s', orders.total_cents), coalesce(orders.balance_due_cents::text, 'null')
    from orders where (orders.balance_due_cents between 0 and orders.total_cents) is not true
   union all
  select 'one_intent_an_order', orders.id::text, '1', count(intent.id)::text
    from orders left join payment_intents as intent on intent.order_id = orders.id
   group by orders.id having count(intent.id) <> 1
   union all
  -- Unpaid: all of it, or what is left of it. Later it tells what was charged, which stays when a line is turned down; of a
  -- payment in parts the rest is due.
  select 'intent_is_order_total', orders.id::text,
         case intent.status when 'unpaid' then orders.total_cents::text else format('at least %s', orders.total_cents - orders.balance_due_cents) end,
         intent.amount_cents::text
    from orders join payment_intents as intent on intent.order_id = orders.id
   where case when intent.status = 'unpaid' then intent.amount_cents not in (orders.total_cents, orders.balance_due_cents)
              else intent.amount_cents < 0 or intent.amount_cents < orders.total_cents::numeric - orders.balance_due_cents end
   union all
  -- One that ended before there were counters has none, and its event tells how.
  select 'line_counts_its_units', line.id::text, format('%s in all, and no more returned than fulfilled', line.qty),
         concat('reserved ', line.reserved_qty, ', fulfilled ', line.fulfilled_qty, ', released ', line.released_qty, ', returned ', line.returned_qty)
    from judged_lines as line
   where (line.reserved_qty >= 0 and coalesce(line.fulfilled_qty, 0) >= 0 and coalesce(line.released_qty, 0) >= 0
          and coalesce(line.returned_qty, 0) between 0 and line.shipped
          and (line.reserved_qty::bigint + coalesce(line.fulfilled_qty, 0) + coalesce(line.released_qty, 0) = line.qty
               or num_nonnulls(line.fulfilled_qty, line.released_qty, line.returned_qty) = 0 and line.reserved_qty = 0
                  and line.status in ('rejected', 'fulfilled'))) is not true
   union all
  select 'line_counts_are_its_changes', line.id::text,
         format('fulfilled %s, released %s, returned %s; %s - %s, tax %s', done.fulfilled, done.released, done.returned, done.total, done.discount, done.tax),
         format('fulfilled %s, released %s, returned %s; %s - %s, tax %s', coalesce(line.fulfilled_qty, 0), coalesce(line.released_qty, 0),
                coalesce(line.returned_qty, 0), line.off_total, line.off_discount, line.off_tax)
    from judged_lines as line
   cross join lateral (
     select sum(own.fulfilled) as fulfilled, sum(own.released) as released, sum(own.returned) as returned, sum(own.total) as total, sum(own.discount) as discount,
            sum(own.tax) as tax
       from (select coalesce((part ->> 'fulfilled_qty')::numeric, 0) as fulfilled, coalesce((part ->> 'released_qty')::numeric, 0) as released,
                    coalesce((part ->> 'returned_qty')::numeric, 0) as returned, coalesce((part ->> 'total_cents')::numeric, 0) as total,
                    coalesce((part ->> 'discount_cents')::numeric, 0) as discount, coalesce((part ->> 'tax_cents')::numeric, 0) as tax
               from order_changes as change
              cross join jsonb_array_elements(case jsonb_typeof(change.lines) when 'array' then change.lines else '[]' end) as part
              where change.order_id = line.order_id and part ->> 'line_item_id' = line.id::text
              union all   -- what the checkout rejected
             select 0, line.qty, 0, line.total_cents, line.discount_cents, coalesce(line.tax_cents, 0) where order_is_checkout_note(line.notes)
              union all
             select 0, 0, 0, 0, 0, 0) as own
   ) as done
   where num_nonnulls(line.fulfilled_qty, line.released_qty, line.returned_qty) > 0
     and (done.fulfilled, done.released, done.returned, done.total, done.discount, done.tax)
         is distinct from (coalesce(line.fulfilled_qty, 0), coalesce(line.released_qty, 0), coalesce(line.returned_qty, 0),
                           line.off_total, line.off_discount, line.off_tax)
   union all
  select 'order_adjustments_are_its_changes', orders.id::text, done.amount::text, orders.adjustments::text
    from orders
   cross join lateral (select coalesce(sum(change.amount_cents), 0) as amount from order_changes as change where change.order_id = orders.id) as done
   where orders.adjustments <> done.amount
   union all
  select 'every_change_has_its_event', change.id::text, format('%s of %s', change.kind, orders.checkout_group_id),
         coalesce(format('%s of %s', event.event_type, event.aggregate_id), 'no event')
    from orders
    join order_changes as change on change.order_id = orders.id
   cross join purged
    left join outbox_events as event on event.id = change.id
   where (event.id is null and change.created_at >= purged.before)
      or event.event_type::text not like '%.' || change.kind or event.aggregate_id <> orders.checkout_group_id
   union all
  select 'open_line_holds_units', line.id::text, format('1 to %s', line.qty), coalesce(line.reserved_qty::text, 'null')
    from judged_lines as line
   where line.status in ('pending', 'accepted', 'hold') and (line.reserved_qty > 0) is not true
   union all
  select 'ended_line_holds_nothing', line.id::text, format('0, being %s', line.status), coalesce(line.reserved_qty::text, 'null')
    from judged_lines as line
   where line.status in ('rejected', 'fulfilled') and line.reserved_qty is distinct from 0
   union all
  select 'ended_order_holds_nothing', orders.id::text, format('0, being %s', orders.status), orders.held::text
    from orders
   where orders.status in ('rejected', 'fulfilled', 'canceled', 'expired') and orders.held <> 0
   union all
  select 'two_events_a_conversion', converted.checkout_group_id::text, case when converted.created_at < purged.before then 'at most 2' else '2' end,
         count(events.id)::text
    from conversions as converted
   cross join purged
    left join events on events.aggregate_id = converted.checkout_group_id
   group by converted.checkout_group_id, converted.created_at, purged.before
  having count(events.id) > 2 or (count(events.id) < 2 and converted.created_at >= purged.before)
   union all
  select 'event_will_be_sent', events.id::text, 'due, parked or published', 'never due'
    from events join conversions on conversions.checkout_group_id = events.aggregate_id
   where events.published_at is null
     and (events.next_attempt_at is null
          or events.next_attempt_at = 'infinity' and not exists (select from outbox_dead_letters as parked where parked.event_id = events.id))
   union all
  select 'event_says_what_it_is', events.id::text,
         format('%s %s of checkout_group %s: cart %s of %s', events.event_type, events.id, events.aggregate_id, conversions.cart_id, conversions.buyer_store_id),
         format('%s %s of %s %s: cart %s of %s', events.payload ->> 'type', events.payload ->> 'event_id', events.aggregate_type,
                events.data ->> 'checkout_group_id', events.data ->> 'cart_id', events.data ->> 'buyer_store_id')
    from events join conversions on conversions.checkout_group_id = events.aggregate_id
   where (events.event_type, events.id::text, 'checkout_group', events.aggregate_id::text, conversions.cart_id, conversions.buyer_store_id)
         is distinct from (events.payload ->> 'type', events.payload ->> 'event_id', events.aggregate_type, events.data ->> 'checkout_group_id',
                           events.data ->> 'cart_id', events.data ->> 'buyer_store_id')
   union all
  select 'event_names_the_orders', events.id::text, conversions.order_ids, coalesce(told.order_ids, 'none')
    from events
    join conversions on conversions.checkout_group_id = events.aggregate_id
   cross join lateral (
     select string_agg(told.order_id, ', ' order by told.place) as order_ids
       from jsonb_array_elements_text(
              case jsonb_typeof(events.data -> 'vendor_order_ids') when 'array' then events.data -> 'vendor_order_ids' else '[]' end)
            with ordinality as told (order_id, place)) as told
   where events.event_type = 'checkout.vendor_orders_created' and told.order_ids is distinct from conversions.order_ids
   union all
  -- what the lines were when they were made, which later states leave alone
  select 'event_tells_the_lines', coalesce(line.id::text, told.line ->> 'line_item_id'),
         coalesce(format('order %s: %s for %s%s, token %s', line.order_id, line.qty, line.total_cents,
                         case when line.was_short then ', short' end, line.token_id), 'no such line'),
         coalesce(format('order %s: %s for %s%s, token %s', told.order_id, told.line ->> 'qty', told.line ->> 'total_cents',
                         case when told.line ->> 'status' = 'rejected' then ', short' end, told.line ->> 'attributed_token_id'), 'no such line')
    from (select judged_lines.*, coalesce(order_is_checkout_note(judged_lines.notes), false) as was_short
            from judged_lines
           where judged_lines.checkout_group_id in (select events.aggregate_id from events where events.event_type = 'checkout.converted')) as line
    full join told_lines as told on told.line ->> 'line_item_id' = line.id::text
   where (line.order_id::text, line.qty::text, line.total_cents::text, line.was_short, line.token_id)
         is distinct from (told.order_id, told.line ->> 'qty', told.line ->> 'total_cents', told.line ->> 'status' = 'rejected',
                           told.line ->> 'attributed_token_id')
   union all
  select 'event_tells_the_attribution', orders.id::text, coalesce(orders.attributed_token ->> 'token_id', 'none'), coalesce(told.token_id, 'none')
    from orders join told_orders as told on told.order_id = orders.id::text
   where orders.attributed_token ->> 'token_id' is distinct from told.token_id
   union all
  select 'event_tells_the_quote', events.id::text,
         concat_ws(', ', carts.currency, carts.payment_method, carts.subtotal_cents, carts.discounts_cents, carts.total_cents),
         concat_ws(', ', told.currency, told.payment_method, told.subtotal, told.discounts, told.total)
    from events
    join carts on carts.checkout_group_id = events.aggregate_id
   cross join lateral (
     select events.data ->> 'currency' as currency, events.data ->> 'payment_method' as payment_method,
            events.data #>> '{totals,quoted,subtotal_cents}' as subtotal, events.data #>> '{totals,quoted,discounts_cents}' as discounts,
            events.data #>> '{totals,quoted,total_cents}' as total) as told
   where events.event_type = 'checkout.converted'
     and (carts.currency, carts.payment_method::text, carts.subtotal_cents::text, carts.discounts_cents::text, carts.total_cents::text)
         is distinct from (told.currency, told.payment_method, told.subtotal, told.discounts, told.total)
   union all
  select 'one_cart_an_anchor', anchors.checkout_group_id::text, '1', count(*)::text
    from (select distinct orders.checkout_group_id, orders.cart_id from orders) as anchors
   group by anchors.checkout_group_id having count(*) <> 1
   union all
  select 'one_anchor_a_cart', cart.checkout_group_id::text, '1', count(*)::text
    from cart_records as cart
   where cart.checkout_group_id is not null
     and (checkout_audit_slice.after is null or cart.checkout_group_id > checkout_audit_slice.after)
     and (checkout_audit_slice.upto is null or cart.checkout_group_id <= checkout_audit_slice.upto)
   group by cart.checkout_group_id having count(*) > 1
   union all
  select 'anchor_has_its_own_orders_alone', slice.id::text, 'an order of the checkout, with its lines', 'none of its lines'
    from slice
   where slice.checkout_group_id in (select our_anchors.checkout_group_id from our_anchors)
     and not exists (select from our_lines where our_lines.order_id = slice.id)
     and (checkout_audit_slice.since is null or slice.created_at >= checkout_audit_slice.since)
   union all
  select 'order_has_the_anchor_of_its_cart', orders.id::text, cart.checkout_group_id::text, orders.checkout_group_id::text
    from orders join cart_records as cart on cart.id = orders.cart_id
   where cart.checkout_group_id is distinct from orders.checkout_group_id
   union all
  select 'order_names_the_cart_of_its_anchor', orders.id::text, carts.id::text, coalesce(orders.cart_id::text, 'none')
    from orders join carts on carts.checkout_group_id = orders.checkout_group_id
   where carts.id is distinct from orders.cart_id
   union all
  select 'order_has_the_buyer_of_its_cart', orders.id::text, cart.buyer_store_id::text, orders.buyer_store_id::text
    from orders join cart_records as cart on cart.id = orders.cart_id
   where cart.buyer_store_id <> orders.buyer_store_id
   union all
  select 'ordered_cart_is_converted', orders.id::text, 'converted', cart.status::text
    from orders join cart_records as cart on cart.id = orders.cart_id
   where cart.status <> 'converted'
   union all
  select 'converted_cart_is_confirmed', carts.id::text, 'time, payment method and address',
         concat_ws(', ', carts.converted_at, carts.payment_method, case when num_nonnulls(carts.shipping_address) = 0 then 'no address' end)
    from carts
   where carts.converted_at is null or carts.payment_method is null or num_nonnulls(carts.shipping_address) = 0
   union all
  select 'cart_totals_are_its_groups', carts.id::text, format('%s - %s + %s = %s', sums.subtotal, sums.subtotal - sums.total + sums.added, sums.added, sums.total),
         format('%s - %s + %s = %s', carts.subtotal_cents, carts.discounts_cents, sums.added, carts.total_cents)
    from carts
    join (select groups.cart_id, sum(groups.subtotal_cents)::numeric as subtotal, sum(groups.total_cents)::numeric as total, sum(groups.added) as added
            from (select carts.id as cart_id, coalesce(vendor.subtotal_cents, 0) as subtotal_cents, coalesce(vendor.total_cents, 0) as total_cents,
                         coalesce(vendor.shipping_cents, 0)::numeric + case when carts.tax_included then 0 else coalesce(vendor.shipping_tax_cents, 0) end as added
                    from carts left join cart_vendor_groups as vendor on vendor.cart_id = carts.id and vendor.status = 'ok'
                   union all
                  select carts.id, 0, 0, item.tax_cents
                    from carts
                    join cart_vendor_groups as vendor on vendor.cart_id = carts.id and vendor.status = 'ok'
                    join cart_items as item on item.cart_id = carts.id and item.vendor_store_id = vendor.vendor_store_id and item.status = 'ok'
                   where carts.tax_included is not true and item.tax_cents is not null) as groups
           group by groups.cart_id) as sums on sums.cart_id = carts.id
   where (carts.subtotal_cents, carts.discounts_cents, carts.total_cents)
         is distinct from (sums.subtotal, sums.subtotal - sums.total + sums.added, sums.total)
   union all
  select 'every_rejected_vendor_is_in_the_cart', carts.id::text, format('vendor %s', vendor ->> 'vendor_store_id'), 'neither a group nor an item'
    from events
    join carts on carts.checkout_group_id = events.aggregate_id
   cross join jsonb_array_elements(case jsonb_typeof(events.data -> 'rejected_vendors') when 'array' then events.data -> 'rejected_vendors' else '[]' end) as vendor
   where events.event_type = 'checkout.vendor_orders_created' and vendor ->> 'reason' in ('vendor_invalid', 'no_eligible_items')
     and not exists (select from cart_vendor_groups as own where own.cart_id = carts.id and own.vendor_store_id::text = vendor ->> 'vendor_store_id')
     and (vendor ->> 'reason' = 'vendor_invalid'
          or not exists (select from cart_items as own where own.cart_id = carts.id and own.vendor_store_id::text = vendor ->> 'vendor_store_id'))
   union all
  select 'every_orderable_item_is_ordered', item.id::text, 'an order line', 'none'
    from carts
    join cart_items as item on item.cart_id = carts.id and item.status = 'ok'
    join cart_vendor_groups as vendor on vendor.cart_id = carts.id and vendor.vendor_store_id = item.vendor_store_id and vendor.status = 'ok'
   where not exists (select from order_line_items as line where line.id = item.id and line.cart_item_id = line.id)
   union all
  select 'conversion_has_orders', carts.id::text, 'at least 1 order', '0'
    from carts
   where not exists (select from slice where slice.checkout_group_id = carts.checkout_group_id)
   union all
  select 'line_has_its_cart_item', line.id::text, 'its cart item, ok', 'none'
    from judged_lines as line
    join cart_records as cart on cart.id = line.cart_id
    left join cart_items as item on item.id = line.id and item.cart_id = line.cart_id and item.status = 'ok'
   where item.id is null
   union all
  select 'line_is_its_cart_item', line.id::text,
         format('vendor %s, product %s, qty %s, at %s: %s - %s = %s', item.vendor_store_id, item.product_id, item.quantity,
                item.unit_price_cents, item.line_subtotal_cents,
                case when item.line_total_cents is null then 0 else coalesce(item.line_discounts_cents, 0) end,
                coalesce(item.line_total_cents, item.line_subtotal_cents)),
         format('vendor %s, product %s, qty %s, at %s: %s - %s = %s', line.vendor_store_id, line.product_id, line.qty,
                line.unit_price_cents, line.line_subtotal_cents, line.discount_cents, line.total_cents)
    from judged_lines as line join cart_items as item on item.id = line.id and item.cart_id = line.cart_id
   where (item.vendor_store_id, item.product_id, item.quantity, item.unit_price_cents, item.line_subtotal_cents,
          case when item.line_total_cents is null then 0 else coalesce(item.line_discounts_cents, 0) end,
          coalesce(item.line_total_cents, item.line_subtotal_cents))
         is distinct from
         (line.vendor_store_id, coalesce(line.product_id, item.product_id), line.qty, line.unit_price_cents,
          line.line_subtotal_cents, line.discount_cents, line.total_cents)
   union all
  select 'line_is_taxed_as_its_cart_item', line.id::text, concat('tax ', item.tax_cents, ' ', nullif(item.tax_lines, 'null')), concat('tax ', line.tax_cents, ' ', line.tax_lines)
    from judged_lines as line join cart_items as item on item.id = line.id and item.cart_id = line.cart_id
   where (item.tax_cents, nullif(item.tax_lines, 'null')) is distinct from (line.tax_cents, line.tax_lines)
   union all
  select 'line_is_described_as_its_cart_item', line.id::text,
         concat_ws(', ', coalesce(nullif(item.title, ''), item.product_id::text), item.category, item.unit, item.moq, item.max_qty,
                   nullif(item.applied_volume_discount, 'null')),
         concat_ws(', ', line.name, line.category, line.unit, line.moq, line.max_qty, line.applied_volume_discount)
    from judged_lines as line join cart_items as item on item.id = line.id and item.cart_id = line.cart_id
   where (coalesce(nullif(item.title, ''), item.product_id::text), item.category::text, item.unit::text, item.moq, item.max_qty,
          nullif(item.applied_volume_discount, 'null'))
         is distinct from (line.name, line.category::text, line.unit::text, line.moq, line.max_qty, line.applied_volume_discount)
   union all
  select 'order_has_its_vendor_group', orders.id::text, 'its vendor group', 'none'
    from orders
    join cart_records as cart on cart.id = orders.cart_id
    left join cart_vendor_groups as vendor on vendor.id = orders.id and vendor.cart_id = orders.cart_id
   where vendor.id is null
   union all
  -- a purge takes both
  select 'vendor_group_has_its_cart', orders.id::text, 'a cart', 'none'
    from orders
    join cart_vendor_groups as vendor on vendor.id = orders.id and vendor.cart_id = orders.cart_id
    left join cart_records as cart on cart.id = vendor.cart_id
   where cart.id is null
   union all
  select 'order_names_its_vendor_group', orders.id::text, concat_ws(', ', vendor.vendor_store_id, vendor.status, nullif(vendor.promo, 'null'), nullif(vendor.shipping_line, 'null')),
         concat_ws(', ', orders.vendor_store_id, 'ok', orders.promo, orders.vendor_shipping_line)
    from orders join cart_vendor_groups as vendor on vendor.id = orders.id and vendor.cart_id = orders.cart_id
   where (vendor.vendor_store_id, vendor.status::text, nullif(vendor.promo, 'null')) is distinct from (orders.vendor_store_id, 'ok', orders.promo)
      or orders.vendor_shipping_line is distinct from nullif(vendor.shipping_line, 'null')
   union all
  select 'order_is_its_vendor_group_without_rejected_lines', quoted.id::text,
         format('%s, %s', quoted.quoted_subtotal - quoted.off_subtotal, quoted.kept_total - quoted.share),
         format('%s, %s', quoted.subtotal_cents, quoted.total_cents - quoted.added_tax - quoted.transport_fee_cents - quoted.adjustments)
    from quoted
   where (quoted.quoted_subtotal - quoted.off_subtotal, quoted.kept_total - quoted.share)
         is distinct from (quoted.subtotal_cents, quoted.total_cents - quoted.added_tax - quoted.transport_fee_cents - quoted.adjustments)
   union all
  select 'order_promotion_is_its_share_of_the_group', quoted.id::text, quoted.share::text, coalesce(quoted.promo_discount_cents::text, 'none')
    from quoted where quoted.promo_discount_cents is distinct from quoted.share
   union all
  select 'order_ships_for_what_its_group_says', quoted.id::text, format('%s, tax %s', quoted.shipping, quoted.shipping_tax),
         format('%s, tax %s', quoted.transport_fee_cents, coalesce(quoted.shipping_tax_cents, 0))
    from quoted
   where quoted.says_shipping and (quoted.transport_fee_cents, coalesce(quoted.shipping_tax_cents, 0)) is distinct from (quoted.shipping, quoted.shipping_tax)
   union all
  select 'order_reaches_its_minimum', orders.id::text, format('at least %s', vendor.minimum_cents), orders.placed_total::text
    from orders join cart_vendor_groups as vendor on vendor.id = orders.id and vendor.cart_id = orders.cart_id
   where orders.placed_total < vendor.minimum_cents
   union all
  select 'intent_is_due_by_its_terms', orders.id::text,
         concat('due ', orders.created_at + make_interval(hours => 24 * (vendor.payment_terms ->> 'net_days')::numeric::integer), ' ', vendor.payment_terms),
         concat('due ', intent.due_at, ' ', intent.payment_terms)
    from orders
    join cart_vendor_groups as vendor on vendor.id = orders.id and vendor.cart_id = orders.cart_id
    join payment_intents as intent on intent.order_id = orders.id
   where (intent.payment_terms, intent.due_at)
         is distinct from (nullif(vendor.payment_terms, 'null'),
                           orders.created_at + make_interval(hours => 24 * (vendor.payment_terms ->> 'net_days')::numeric::integer))
   union all
  select 'order_confirms_what_its_cart_does', orders.id::text,
         concat_ws(', ', cart.shipping_line, cart.currency, case when cart.tax_included then 'tax included' end),
         concat_ws(', ', orders.shipping_line, orders.currency, case when orders.tax_included then 'tax included' end)
    from orders join cart_records as cart on cart.id = orders.cart_id
   where (cart.shipping_line, cart.currency, cart.tax_included is true) is distinct from (orders.shipping_line, orders.currency, orders.tax_included is true)
   union all
  -- what the buyer and the host noted: on every order of the checkout the same
  select 'orders_note_the_same', noted.checkout_group_id::text, '1', count(*)::text
    from (select distinct orders.checkout_group_id, orders.purchase_order, orders.metadata, orders.billing_address::text as billing_address from orders) as noted
   group by noted.checkout_group_id having count(*) > 1;
end;
$$;

revoke execute on function checkout_audit_slice(timestamptz, uuid, uuid) from public;

comment on function checkout_audit_slice(timestamptz, uuid, uuid) is
  'Part of checkout_audit: the conversions whose anchors (checkout_group_id) are greater than after and not greater than upto; '
  'null is no bound. Slices that follow each other, and checkout_audit_rest, find what checkout_audit finds, in little memory. For the owner. Writes nothing.';
