-- checkout_describe_orders: the orders of a conversion in JSON, once as buyers see them and once as the event
-- checkout.converted has them, with the sums and counts that go beside them.
--
-- Both come from one pass over the rows, so no consumer is told other figures than the buyer. Vendors are ordered by id, and
-- lines by theirs. What the checkout itself rejected is told by the line's notes, which later states leave alone.
--
-- Of a conversion of ours, orders without a line of ours and lines that are not ours are the host's, and no part of it. What
-- the earlier system converted has no line of ours, and is told whole.
--
-- Orders that say more than their lines and discounts are described by checkout_describe_whole: to write that they say
-- nothing of it would cost every other checkout a twentieth.
--
-- JSON as text nests without being copied level by level; that of an event becomes jsonb once, when it is whole.

create or replace function checkout_describe_orders(
  checkout_group_id uuid,
  is_ours boolean,
  says_more boolean,
  out orders json,
  out event_orders json,
  out vendor_store_ids uuid[],
  out order_ids uuid[],
  out confirmed_totals json,
  out line_count bigint,
  out turned_down bigint
)
language plpgsql
stable
as $$
begin
  if checkout_describe_orders.says_more then
    select whole.* into orders, event_orders, vendor_store_ids, order_ids, confirmed_totals, line_count, turned_down
      from checkout_describe_whole(checkout_describe_orders.checkout_group_id, checkout_describe_orders.is_ours) as whole;
    return;
  end if;

  select coalesce(json_agg(ordered order by ordered.vendor_store_id), '[]'),
         coalesce(json_agg(event order by ordered.vendor_store_id), '[]'),
         coalesce(array_agg(ordered.vendor_store_id order by ordered.vendor_store_id), '{}'),
         coalesce(array_agg(ordered.order_id order by ordered.vendor_store_id), '{}'),
         json_build_object(
           'subtotal_cents', coalesce(sum(ordered.subtotal_cents), 0),
           'discounts_cents', coalesce(sum(ordered.discounts_cents), 0),
           'total_cents', coalesce(sum(ordered.total_cents), 0)),
         coalesce(sum(lines.line_count), 0),
         coalesce(sum(lines.turned_down), 0)
    into orders, event_orders, vendor_store_ids, order_ids, confirmed_totals, line_count, turned_down
    from vendor_orders as vendor_order
   cross join lateral (
     select coalesce(json_agg(line order by line.line_item_id), '[]') as items,
            coalesce(json_agg(event_line order by line.line_item_id), '[]') as event_items,
            count(*)::integer as line_count,
            (count(*) filter (where line.status = 'rejected' and order_is_checkout_note(line.notes)))::integer as turned_down
       from (
         select own.id as line_item_id, own.cart_item_id, own.product_id, own.qty, own.unit_price_cents, own.line_subtotal_cents,
                own.discount_cents, own.total_cents, own.status, own.name, own.category, own.unit, own.notes,
                coalesce(nullif(own.warnings, 'null'), '[]') as warnings, own.applied_volume_discount,
                ad_token_public(own.attributed_token) as attributed_token
           from order_line_items as own
          where own.order_id = vendor_order.id and (own.cart_item_id = own.id or not checkout_describe_orders.is_ours)
       ) as line
      cross join lateral (
        select line.qty, line.status, line.product_id, line.total_cents, line.line_item_id,
               line.attributed_token -> 'token_id' as attributed_token_id
      ) as event_line
   ) as lines
   cross join lateral (
     select vendor_order.id as order_id, vendor_order.order_number, vendor_order.vendor_store_id, vendor_order.status, vendor_order.subtotal_cents,
            vendor_order.discounts_cents, vendor_order.total_cents, vendor_order.balance_due_cents,
            (select intent
               from (select payment.id as payment_intent_id, payment.method, payment.status, payment.amount_cents
                       from payment_intents as payment
                      where payment.order_id = vendor_order.id) as intent) as payment_intent,
            lines.items, vendor_order.promo, coalesce(nullif(vendor_order.warnings, 'null'), '[]') as warnings,
            ad_token_public(vendor_order.attributed_token) as attributed_token
   ) as ordered
   cross join lateral (
     select lines.event_items as items, ordered.status, ordered.order_id, ordered.total_cents, ordered.subtotal_cents, ordered.discounts_cents,
            ordered.vendor_store_id, ordered.attributed_token -> 'token_id' as attributed_token_id
   ) as event
   where vendor_order.checkout_group_id = checkout_describe_orders.checkout_group_id
     and (lines.line_count > 0 or not checkout_describe_orders.is_ours);
end;
$$;

revoke execute on function checkout_describe_orders(uuid, boolean, boolean) from public;

comment on function checkout_describe_orders(uuid, boolean, boolean) is
  'Step of checkout_execute and checkout_result: the orders of an anchor in JSON as the result and as the event checkout.converted show '
  'them, amounts in cents, in a fixed order.';
