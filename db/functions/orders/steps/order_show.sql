-- order_show: vendor orders in JSON as their buyers and vendors see them, in the order given, with or without their lines.
--
-- What the result of a checkout shows of an order (checkout_describe_orders) is the same here, key for key. Of an order that
-- a checkout made, its own lines are shown and counted, not those that the host added; of any other order all lines. The setting
-- keeps lat and lng the same text in every session.

create or replace function order_show(vendor_orders vendor_orders[], with_items boolean)
returns json
language plpgsql
stable
set extra_float_digits = 1
as $$
begin
  return (
    select coalesce(json_agg(case when order_show.with_items then to_json(whole) else to_json(head) end order by vendor_order.ordinality), '[]')
      from unnest(order_show.vendor_orders) with ordinality as vendor_order
     cross join lateral (
       select coalesce(nullif(count(*) filter (where own.cart_item_id = own.id), 0), count(*)) as line_count,
              count(*) filter (where own.cart_item_id = own.id) > 0 as is_ours
         from order_line_items as own
        where own.order_id = vendor_order.id
     ) as counted
     cross join lateral (
       select vendor_order.id as order_id, vendor_order.checkout_group_id, vendor_order.cart_id, vendor_order.buyer_store_id,
              vendor_order.vendor_store_id, vendor_order.status, vendor_order.currency, vendor_order.payment_method,
              json_strip_nulls(to_json(vendor_order.shipping_address)) as shipping_address, vendor_order.shipping_line,
              json_strip_nulls(to_json(vendor_order.billing_address)) as billing_address, vendor_order.purchase_order, vendor_order.metadata,
              vendor_order.order_number, vendor_order.tax_included,
              vendor_order.subtotal_cents, vendor_order.discounts_cents, vendor_order.tax_cents, vendor_order.transport_fee_cents,
              vendor_order.shipping_tax_cents, vendor_order.adjustments_cents, vendor_order.total_cents, vendor_order.balance_due_cents,
              vendor_order.refund_due_cents, vendor_order.vendor_shipping_line, checkout_timestamp(vendor_order.expires_at) as expires_at,
              (select intent
                 from (select payment.id as payment_intent_id, payment.method, payment.status, payment.amount_cents, payment.payment_terms,
                              checkout_timestamp(payment.due_at) as due_at
                         from payment_intents as payment
                        where payment.order_id = vendor_order.id) as intent) as payment_intent,
              vendor_order.promo, coalesce(nullif(vendor_order.warnings, 'null'), '[]') as warnings,
              ad_token_public(vendor_order.attributed_token) as attributed_token, counted.line_count,
              checkout_timestamp(vendor_order.created_at) as created_at, checkout_timestamp(vendor_order.updated_at) as updated_at
     ) as head
     cross join lateral (
       select head.*, (
         select coalesce(json_agg(line order by line.line_item_id), '[]')
           from (
             select own.id as line_item_id, own.cart_item_id, own.product_id, own.qty, own.unit_price_cents, own.line_subtotal_cents,
                    own.discount_cents, own.total_cents, own.tax_cents, own.tax_lines, own.reserved_qty, own.fulfilled_qty, own.released_qty,
                    own.returned_qty, case when own.cart_item_id = own.id then order_units_left(row(own.*)::order_line_items) end as left_qty,
                    case when own.cart_item_id = own.id
                         then own.total_cents - order_part_cents(own.total_cents, own.qty - order_units_left(row(own.*)::order_line_items), own.qty) end as left_cents, own.status, own.name, own.category, own.unit, own.notes,
                    coalesce(nullif(own.warnings, 'null'), '[]') as warnings, own.applied_volume_discount,
                    ad_token_public(own.attributed_token) as attributed_token
               from order_line_items as own
              where own.order_id = vendor_order.id and (own.cart_item_id = own.id or not counted.is_ours)
           ) as line) as items
     ) as whole);
end;
$$;

revoke execute on function order_show(vendor_orders[], boolean) from public;

comment on function order_show(vendor_orders[], boolean) is
  'Step of order_get, orders_list and checkout_describe_whole: vendor orders as a JSON array, amounts in cents, with their lines or with the number of them alone.';
