-- checkout_build_result: what a converted cart became, read from its rows.
--
-- The first answer and every replay come from here, so they cannot differ but in replayed and in where an order stands
-- by now. What was rejected for want of stock is told by the line's notes, which later states leave alone. Vendors are
-- ordered by id, and lines by theirs. The setting keeps lat and lng the same text in every session.

create or replace function checkout_build_result(cart cart_records, replayed boolean)
returns jsonb
language plpgsql
stable
set extra_float_digits = 1
as $$
declare
  v_cart constant cart_records := checkout_build_result.cart;
  v_orders jsonb;
  v_confirmed jsonb;
  v_line_count bigint;
  v_short_count bigint;
  v_rejected jsonb;
begin
  select coalesce(jsonb_agg(
           jsonb_build_object(
             'order_id', vendor_order.id,
             'vendor_store_id', vendor_order.vendor_store_id,
             'status', vendor_order.status,
             'subtotal_cents', vendor_order.subtotal_cents,
             'discounts_cents', vendor_order.discounts_cents,
             'total_cents', vendor_order.total_cents,
             'balance_due_cents', vendor_order.balance_due_cents,
             'promo', vendor_order.promo,
             'warnings', coalesce(nullif(vendor_order.warnings, 'null'), '[]'),
             'attributed_token', ad_token_public(vendor_order.attributed_token),
             'payment_intent', intent.intent,
             'items', lines.items)
           order by vendor_order.vendor_store_id), '[]'),
         jsonb_build_object(
           'subtotal_cents', coalesce(sum(vendor_order.subtotal_cents), 0),
           'discounts_cents', coalesce(sum(vendor_order.discounts_cents), 0),
           'total_cents', coalesce(sum(vendor_order.total_cents), 0)),
         coalesce(sum(lines.line_count), 0),
         coalesce(sum(lines.short_count), 0),
         coalesce(jsonb_agg(
           jsonb_build_object(
             'vendor_store_id', vendor_order.vendor_store_id,
             'reason', 'insufficient_inventory',
             'warnings', coalesce(nullif(vendor_order.warnings, 'null'), '[]'),
             'items', lines.rejected_items))
           filter (where lines.short_count = lines.line_count and lines.line_count > 0), '[]')
    into v_orders, v_confirmed, v_line_count, v_short_count, v_rejected
    from vendor_orders as vendor_order
   cross join lateral (
     select coalesce(jsonb_agg(
              jsonb_build_object(
                'line_item_id', line.id,
                'cart_item_id', line.cart_item_id,
                'product_id', line.product_id,
                'name', line.name,
                'category', line.category,
                'qty', line.qty,
                'unit', line.unit,
                'unit_price_cents', line.unit_price_cents,
                'line_subtotal_cents', line.line_subtotal_cents,
                'discount_cents', line.discount_cents,
                'total_cents', line.total_cents,
                'status', line.status,
                'notes', line.notes,
                'warnings', coalesce(nullif(line.warnings, 'null'), '[]'),
                'applied_volume_discount', line.applied_volume_discount,
                'attributed_token', ad_token_public(line.attributed_token))
              order by line.id), '[]') as items,
            coalesce(jsonb_agg(
              jsonb_build_object(
                'cart_item_id', line.cart_item_id,
                'product_id', line.product_id,
                'name', line.name,
                'qty', line.qty,
                'status', line.status,
                'reason', 'insufficient_inventory',
                'warnings', coalesce(nullif(line.warnings, 'null'), '[]'))
              order by line.id) filter (where line.status = 'rejected' and line.notes = 'insufficient_inventory'), '[]') as rejected_items,
            count(*) as line_count,
            count(*) filter (where line.status = 'rejected' and line.notes = 'insufficient_inventory') as short_count
       from order_line_items as line
      where line.order_id = vendor_order.id
   ) as lines
    left join lateral (
     select jsonb_build_object(
              'payment_intent_id', payment.id,
              'method', payment.method,
              'status', payment.status,
              'amount_cents', payment.amount_cents) as intent
       from payment_intents as payment
      where payment.order_id = vendor_order.id
   ) as intent on true
   where vendor_order.checkout_group_id = v_cart.checkout_group_id;

  -- vendors of the cart without an order, before or after those whose every line fell short: by id
  select coalesce(jsonb_agg(vendor.vendor order by vendor.vendor ->> 'vendor_store_id'), '[]') into v_rejected
    from (
      select short.vendor from jsonb_array_elements(v_rejected) as short (vendor)
       union all
      select jsonb_build_object(
               'vendor_store_id', item.vendor_store_id,
               'reason', case when vendor_group.status <> 'ok' then 'vendor_invalid' else 'no_eligible_items' end,
               'warnings', coalesce(nullif(vendor_group.warnings, 'null'), '[]'),
               'items', coalesce(jsonb_agg(
                 jsonb_build_object(
                   'cart_item_id', item.id,
                   'product_id', item.product_id,
                   'name', coalesce(nullif(item.title, ''), item.product_id::text),
                   'qty', item.quantity,
                   'status', item.status,
                   'reason', case when item.status = 'ok' then 'vendor_invalid' else item.status::text end,
                   'warnings', coalesce(nullif(item.warnings, 'null'), '[]'))
                 order by item.id) filter (where item.id is not null), '[]'))
        from (
          select vendor_part.vendor_store_id, each.id, each.product_id, each.title, each.quantity, each.status, each.warnings
            from (select own.vendor_store_id from cart_vendor_groups as own where own.cart_id = v_cart.id
                   union
                  select own.vendor_store_id from cart_items as own where own.cart_id = v_cart.id) as vendor_part
            left join cart_items as each on each.cart_id = v_cart.id and each.vendor_store_id = vendor_part.vendor_store_id
           where not exists (select from vendor_orders as ordered
                              where ordered.checkout_group_id = v_cart.checkout_group_id
                                and ordered.vendor_store_id = vendor_part.vendor_store_id)
        ) as item
        left join cart_vendor_groups as vendor_group
          on vendor_group.cart_id = v_cart.id and vendor_group.vendor_store_id = item.vendor_store_id
       group by item.vendor_store_id, vendor_group.status, vendor_group.warnings
    ) as vendor;

  return jsonb_build_object(
    'status', 'converted',
    'outcome', case when v_short_count = 0 and v_rejected = '[]' then 'complete'
                    when v_short_count = v_line_count then 'rejected'
                    else 'partial' end,
    'checkout_group_id', v_cart.checkout_group_id,
    'cart_id', v_cart.id,
    'buyer_store_id', v_cart.buyer_store_id,
    'currency', v_cart.currency,
    'converted_at', checkout_timestamp(v_cart.converted_at),
    'replayed', checkout_build_result.replayed,
    'shipping_address', jsonb_strip_nulls(to_jsonb(v_cart.shipping_address)),
    'payment_method', v_cart.payment_method,
    'shipping_line', v_cart.shipping_line,
    'totals', jsonb_build_object('quoted', checkout_quoted_totals(v_cart), 'confirmed', v_confirmed),
    'vendor_orders', v_orders,
    'rejected_vendors', v_rejected);
end;
$$;

revoke execute on function checkout_build_result(cart_records, boolean) from public;

comment on function checkout_build_result(cart_records, boolean) is
  'Step of checkout_execute and checkout_result: the result of a converted cart from its rows, amounts in cents, in a fixed order.';
