-- checkout_audit_rest: broken invariants that no slice of conversions can show: stock, which all of them share, keys, carts
-- of which nothing is left that a slice starts from, and events of changes and payments, which no index finds by their anchor.

create or replace function checkout_audit_rest(since timestamptz)
returns table (invariant text, id text, expected text, found text)
language plpgsql
stable
security definer
set search_path from current
set jit = off
as $$
#variable_conflict use_column   -- the result has a column id
begin
  return query
  with holding as (
    select line.id, line.product_id, line.reserved_qty
      from order_line_items as line
     where line.cart_item_id = line.id and line.reserved_qty > 0
  ),
  held as (
    select line.product_id, coalesce(hold.slot, 0) as slot, sum(coalesce(hold.qty, line.reserved_qty))::numeric as qty
      from holding as line
      left join inventory_holds as hold on hold.product_id = line.product_id and hold.line_item_id = line.id
     where line.product_id is not null
     group by line.product_id, coalesce(hold.slot, 0)
  ),
  stock as (
    select product_id, 0 as slot, available_qty, reserved_qty from inventory_items
     union all
    select product_id, slot, available_qty, reserved_qty from inventory_slots
  ),
  changes as (   -- of orders that a checkout made
    select event.id, event.event_type::text as event_type, event.aggregate_type::text as aggregate_type, event.aggregate_id, event.payload, event.published_at, event.next_attempt_at
      from outbox_events as event
     where event.event_type::text in ('vendor_order.canceled', 'vendor_order.decided', 'vendor_order.adjusted', 'vendor_order.expired',
                                      'vendor_order.extended', 'order_line.released', 'order_line.fulfilled', 'order_line.returned', 'payment.changed')
       and (checkout_audit_rest.since is null or event.created_at >= checkout_audit_rest.since)
       and exists (select from vendor_orders as vendor_order
                     join order_line_items as line on line.order_id = vendor_order.id
                    where vendor_order.checkout_group_id = event.aggregate_id and line.cart_item_id = line.id)
  ),
  told_ends as (
    select changes.aggregate_id, changes.event_type = 'order_line.fulfilled' as is_fulfilled, line ->> 'line_item_id' as line_id
      from changes
     cross join jsonb_array_elements(
                  case jsonb_typeof(changes.payload #> '{data,items}') when 'array' then changes.payload #> '{data,items}' else '[]' end) as line
     where changes.event_type not in ('order_line.returned', 'payment.changed')
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
  -- numbered from 1 on, and none of a product whose own row is gone
  select 'split_product_has_its_slots', coalesce(item.product_id, slots.product_id)::text,
         case when item.product_id is null then 'the product''s own row' when item.slots = 1 then '0' else format('%1$s rows of %1$s slots, 1 to %1$s', item.slots) end,
         case when slots.count > 0 then format('%s rows of %s slots, %s to %s', slots.count, slots.numbers, slots.lowest, slots.highest) else '0' end
    from inventory_items as item
    full join (select slot.product_id, count(*) as count, count(distinct slot.slot) as numbers, min(slot.slot) as lowest, max(slot.slot) as highest
                 from inventory_slots as slot group by slot.product_id) as slots on slots.product_id = item.product_id
   where item.product_id is null
      or (item.slots, item.slots, item.slots, 1)
         is distinct from (coalesce(slots.count, 1), coalesce(slots.numbers, 1), coalesce(slots.highest, 1), coalesce(slots.lowest, 1))
      or item.slots = 1 and slots.count > 0
   union all
  select 'split_product_has_its_stock_in_slots', item.product_id::text, '0', item.available_qty::text
    from inventory_items as item
   where item.slots > 1 and item.available_qty <> 0
   union all
  select 'holds_are_what_their_line_holds', hold.line_item_id::text, coalesce(max(line.reserved_qty)::text, 'no hold'), sum(hold.qty)::text
    from inventory_holds as hold
    left join holding as line on line.id = hold.line_item_id and line.product_id = hold.product_id
   group by hold.line_item_id, hold.product_id
  having sum(hold.qty) is distinct from max(line.reserved_qty)
   union all
  select 'only_lines_of_a_checkout_hold_stock', line.id::text, 'null or 0', line.reserved_qty::text
    from order_line_items as line
   where line.reserved_qty <> 0 and line.cart_item_id is distinct from line.id
   union all
  select 'key_belongs_to_converted_cart', request.cart_id::text, 'converted', cart.status::text
    from checkout_requests as request join cart_records as cart on cart.id = request.cart_id
   where cart.status <> 'converted'
   union all
  select 'key_belongs_to_the_buyer_of_its_cart', request.cart_id::text, cart.buyer_store_id::text, request.buyer_store_id::text
    from checkout_requests as request join cart_records as cart on cart.id = request.cart_id
   where cart.buyer_store_id <> request.buyer_store_id
   union all
  select 'no_permit_is_left', permit.cart_id::text, 'none', permit.transaction_id::text
    from cart_change_permits as permit
   where permit.transaction_id is distinct from pg_current_xact_id_if_assigned()
   union all
  select 'event_will_be_sent', changes.id::text, 'due, parked or published', 'never due'
    from changes
   where changes.published_at is null
     and (changes.next_attempt_at is null
          or changes.next_attempt_at = 'infinity' and not exists (select from outbox_dead_letters as parked where parked.event_id = changes.id))
   union all
  select 'event_says_what_it_is', changes.id::text, format('%s %s of checkout_group %s', changes.event_type, changes.id, changes.aggregate_id),
         format('%s %s of %s %s', changes.payload ->> 'type', changes.payload ->> 'event_id', changes.aggregate_type, changes.payload #>> '{data,checkout_group_id}')
    from changes
   where (changes.event_type, changes.id::text, 'checkout_group', changes.aggregate_id::text)
         is distinct from (changes.payload ->> 'type', changes.payload ->> 'event_id', changes.aggregate_type, changes.payload #>> '{data,checkout_group_id}')
   union all
  -- one that was written before changes were kept tells of none
  select 'event_of_a_change_has_its_change', changes.id::text, format('the change that %s tells of', changes.event_type), 'none'
    from changes
   where changes.event_type <> 'payment.changed' and changes.payload -> 'data' ? 'changes'
     and not exists (select from order_changes as change where change.id = changes.id)
   union all
  -- A line that the checkout did not reject and that has ended since. None is asked for that a purge may have deleted.
  select 'every_ended_line_has_its_event', line.id::text, case line.status when 'fulfilled' then 'fulfilled' else 'released, decided, canceled or expired' end, 'no event'
    from order_line_items as line
    join vendor_orders as vendor_order on vendor_order.id = line.order_id
   where line.cart_item_id = line.id and line.reserved_qty = 0
     and line.created_at >= (select coalesce(max(purge.purged_before), '-infinity') from outbox_purges as purge)
     and (checkout_audit_rest.since is null or line.created_at >= checkout_audit_rest.since)
     and (line.status = 'fulfilled' or line.status = 'rejected' and order_is_checkout_note(line.notes) is not true)
     and not exists (select from told_ends
                      where told_ends.line_id = line.id::text and told_ends.aggregate_id = vendor_order.checkout_group_id
                        and told_ends.is_fulfilled = (line.status = 'fulfilled'))
   union all
  -- A conversion of which no event is left, which would put it in a slice. History is older than the first deployment, and
  -- nobody confirmed a payment method on it.
  select 'conversion_has_orders', cart.id::text, 'at least 1 order', '0'
    from cart_records as cart
   where cart.status = 'converted'
     and (checkout_audit_rest.since is null or coalesce(cart.converted_at, cart.created_at) >= checkout_audit_rest.since)
     and (cart.converted_at is not null and (cart.payment_method is not null
                                             or exists (select from checkout_requests as request where request.cart_id = cart.id))
          or cart.created_at >= (select min(release.deployed_at) from checkout_releases as release))
     and not exists (select from vendor_orders as vendor_order where vendor_order.checkout_group_id = cart.checkout_group_id)
     and not exists (select from outbox_events as event
                      where event.aggregate_id = cart.checkout_group_id and event.event_type = 'checkout.converted');

  -- Payments, of every order that has some, the host's too, and deadlines. A host may say at any time that a charge is under
  -- way. What was authorised and given up whole is known no more: that money came without an authorisation.
  return query
  with paid as (
    select event.order_id,
           coalesce(sum(event.amount_cents) filter (where event.kind = 'authorized'), 0) as authorized,
           coalesce(sum(event.amount_cents) filter (where event.kind = 'voided'), 0) as voided,
           coalesce(sum(event.amount_cents) filter (where event.kind = 'captured'), 0) as captured,
           coalesce(sum(event.amount_cents) filter (where event.kind in ('refunded', 'disputed', 'reversed')), 0) as refunded,
           count(*) filter (where event.kind = 'failed') as failures
      from payment_events as event
     group by event.order_id
  ), judged as (
    select paid.*, vendor_order.total_cents::numeric as total, vendor_order.balance_due_cents, vendor_order.refund_due_cents, intent.status::text as status,
           case when paid.captured > 0 and paid.captured >= vendor_order.total_cents then 'settled'
                when paid.captured > 0 or paid.authorized > paid.voided + paid.captured then 'pending'
                when paid.failures > 0 and 'failed' = any (enum_range(null::payment_status)::text[]) then 'failed'
                else 'unpaid' end as state
      from paid
      join vendor_orders as vendor_order on vendor_order.id = paid.order_id
      left join payment_intents as intent on intent.order_id = paid.order_id
     where checkout_audit_rest.since is null or vendor_order.created_at >= checkout_audit_rest.since
  )
  select 'refunds_are_of_what_was_captured', judged.order_id::text, format('at most %s', judged.captured), judged.refunded::text
    from judged where judged.refunded > judged.captured
   union all
  select 'captures_are_of_what_was_authorized', judged.order_id::text, format('at most %s', judged.authorized), judged.captured::text
    from judged where judged.authorized > judged.voided and judged.captured > judged.authorized
   union all
  select 'what_is_due_follows_from_payments', judged.order_id::text,
         format('%s, %s to give back', greatest(judged.total - judged.captured, 0), greatest(judged.captured - judged.refunded - judged.total, 0)),
         format('%s, %s to give back', coalesce(judged.balance_due_cents::text, 'null'), coalesce(judged.refund_due_cents::text, 'null'))
    from judged
   where (judged.balance_due_cents, judged.refund_due_cents)
         is distinct from (greatest(judged.total - judged.captured, 0), greatest(judged.captured - judged.refunded - judged.total, 0))
   union all
  select 'intent_is_in_the_state_of_its_payments', judged.order_id::text, judged.state, judged.status
    from judged
   where judged.status in ('unpaid', 'settled', 'failed', 'rejected') and judged.status <> judged.state
     and judged.state = any (enum_range(null::payment_status)::text[])   -- of a host's enum that lacks one, the state stays
   union all
  select 'payment_has_its_order', paid.order_id::text, 'an order', 'none'
    from paid
   where not exists (select from vendor_orders as vendor_order where vendor_order.id = paid.order_id)
   union all
  select 'paid_order_has_its_payments', vendor_order.id::text, 'payment events', 'none'
    from vendor_orders as vendor_order
   where vendor_order.refund_due_cents is not null and not exists (select from payment_events as payment where payment.order_id = vendor_order.id)
     and (checkout_audit_rest.since is null or vendor_order.created_at >= checkout_audit_rest.since)
   union all
  -- either as often as the other; a full join is never made row by row
  select 'every_payment_has_its_event', coalesce(payment.order_id::text, event.id::text),
         coalesce(format('payment.changed, %s of %s: %s %s', payment.provider_event_id, payment.provider, payment.kind, payment.amount_cents), 'a payment event'),
         case when event.id is null then 'no such event' else format('event %s of none', event.id) end
    from (select recorded.*, vendor_order.checkout_group_id
            from payment_events as recorded
            join vendor_orders as vendor_order on vendor_order.id = recorded.order_id
           where checkout_audit_rest.since is null or recorded.created_at >= checkout_audit_rest.since) as payment
    full join (select told.id, told.aggregate_id, told.payload #>> '{data,order_id}' as order_id, told.payload #> '{data,payment}' as data
                 from outbox_events as told
                where told.event_type::text = 'payment.changed' and told.payload #>> '{data,payment,provider_event_id}' is not null
                  and (checkout_audit_rest.since is null or told.created_at >= checkout_audit_rest.since)) as event
           on event.aggregate_id = payment.checkout_group_id and event.order_id = payment.order_id::text
          and event.data ->> 'provider' = payment.provider and event.data ->> 'provider_event_id' = payment.provider_event_id
          and event.data ->> 'kind' = payment.kind and event.data ->> 'amount_cents' = payment.amount_cents::text
   where payment.order_id is null
      or event.id is null and payment.created_at >= (select coalesce(max(purge.purged_before), '-infinity') from outbox_purges as purge)
   union all
  select 'change_of_a_deadline_has_its_event', change.id::text, format('vendor_order.%s of %s', change.kind, change.order_id), 'no event'
    from order_changes as change
   where change.kind in ('expired', 'extended')
     and change.created_at >= (select coalesce(max(purge.purged_before), '-infinity') from outbox_purges as purge)
     and (checkout_audit_rest.since is null or change.created_at >= checkout_audit_rest.since)
     and not exists (select from outbox_events as event
                      where event.id = change.id and event.event_type::text = 'vendor_order.' || change.kind)
   union all
  -- an order that the host set to expired itself still holds its stock, until it is canceled
  select 'expired_order_has_its_change', vendor_order.id::text, 'a change of the order', 'none'
    from vendor_orders as vendor_order
   where vendor_order.status = 'expired' and vendor_order.promo_discount_cents is not null
     and (checkout_audit_rest.since is null or vendor_order.created_at >= checkout_audit_rest.since)
     and exists (select from order_line_items as line
                  where line.order_id = vendor_order.id and line.cart_item_id = line.id and line.status = 'rejected' and line.reserved_qty = 0
                    and order_is_checkout_note(line.notes) is not true)
     and not exists (select from order_changes as change where change.order_id = vendor_order.id);
end;
$$;

revoke execute on function checkout_audit_rest(timestamptz) from public;

comment on function checkout_audit_rest(timestamptz) is
  'Part of checkout_audit: stock, what lines hold of it, keys, carts without orders, and events of changes, payments and deadlines, whose invariants no slice of conversions can show. '
  'Stock is always judged whole. For the owner. Writes nothing.';
