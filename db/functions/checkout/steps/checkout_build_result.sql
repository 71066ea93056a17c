-- checkout_build_result: what a converted cart became, read from its rows.
--
-- The first answer and every replay come from here, so they cannot differ but in replayed and in where an order stands
-- by now. all_ordered is what the validation saw of the cart, null in a replay, which looks for itself. The setting keeps
-- lat and lng the same text in every session.

create or replace function checkout_build_result(
  cart cart_records, replayed boolean, all_ordered boolean, may_say_more boolean, attribution jsonb, out result json, out created json, out converted json, out converted_at text)
language plpgsql
stable
set extra_float_digits = 1
as $$
declare
  v_cart alias for cart;
  v_is_ours boolean := true;
  v_all_ordered boolean := checkout_build_result.all_ordered;
  v_quoted json;
  v_more json;
  v_says_more boolean := false;
  v_beside record;
  v_orders record;
  v_rejected json := '[]'::json;
  v_outcome text;
  v_totals json;
  v_told json := '[]'::json;
begin
  converted_at := checkout_timestamp(v_cart.converted_at);
  if checkout_build_result.replayed then
    v_is_ours := exists (select from vendor_orders as vendor_order
                           join order_line_items as line on line.order_id = vendor_order.id
                          where vendor_order.checkout_group_id = v_cart.checkout_group_id and line.cart_item_id = line.id);
  end if;
  if checkout_build_result.may_say_more then
    v_says_more := checkout_says_more(v_cart.checkout_group_id, v_is_ours);
    v_beside := cart_owed_beside(v_cart);
    v_quoted := checkout_totals(v_cart.subtotal_cents, v_cart.discounts_cents, v_beside.tax_cents, v_beside.shipping_cents, v_cart.total_cents);
  else
    v_quoted := json_build_object('subtotal_cents', v_cart.subtotal_cents, 'discounts_cents', v_cart.discounts_cents, 'total_cents', v_cart.total_cents);
  end if;
  v_orders := checkout_describe_orders(v_cart.checkout_group_id, v_is_ours, v_says_more);

  -- vendors whose every line the checkout rejected, and vendors of the cart without an order, by id
  if v_all_ordered is null then
    v_all_ordered := not exists (select from cart_vendor_groups as own
                                  where own.cart_id = v_cart.id and own.vendor_store_id <> all (v_orders.vendor_store_ids))
                     and not exists (select from cart_items as own
                                      where own.cart_id = v_cart.id and own.vendor_store_id <> all (v_orders.vendor_store_ids));
  end if;
  if v_orders.turned_down > 0 or not v_all_ordered then
    select coalesce(json_agg(json_build_object('vendor_store_id', vendor.vendor_store_id, 'reason', vendor.reason,
                                               'warnings', vendor.warnings, 'items', vendor.items) order by vendor.vendor_store_id), '[]'),
           coalesce(json_agg(json_build_object('vendor_store_id', vendor.vendor_store_id, 'reason', vendor.reason)
                             order by vendor.vendor_store_id), '[]')
      into v_rejected, v_told
      from (
        select vendor_order.vendor_store_id, min(line.notes) as reason,   -- below_minimum, if any line says it
               coalesce(nullif(vendor_order.warnings, 'null'), '[]') as warnings,
               json_agg(json_build_object(
                 'qty', line.qty,
                 'name', line.name,
                 'reason', line.notes,
                 'status', line.status,
                 'warnings', coalesce(nullif(line.warnings, 'null'), '[]'),
                 'product_id', line.product_id,
                 'cart_item_id', line.cart_item_id) order by line.id) as items
          from vendor_orders as vendor_order
          join order_line_items as line on line.order_id = vendor_order.id
         where vendor_order.checkout_group_id = v_cart.checkout_group_id and (line.cart_item_id = line.id or not v_is_ours)
         group by vendor_order.id
        having bool_and(line.status = 'rejected' and order_is_checkout_note(line.notes) is true)
         union all
        select item.vendor_store_id,
               case when vendor_group.status <> 'ok' then 'vendor_invalid' else 'no_eligible_items' end,
               coalesce(nullif(vendor_group.warnings, 'null'), '[]'),
               coalesce(json_agg(
                 json_build_object(
                   'cart_item_id', item.id,
                   'product_id', item.product_id,
                   'name', coalesce(nullif(item.title, ''), item.product_id::text),
                   'qty', item.quantity,
                   'status', item.status,
                   'reason', case when item.status = 'ok' then 'vendor_invalid' else item.status::text end,
                   'warnings', coalesce(nullif(item.warnings, 'null'), '[]'))
                 order by item.id) filter (where item.id is not null), '[]')
          from (
            select vendor_part.vendor_store_id, each.id, each.product_id, each.title, each.quantity, each.status, each.warnings
              from (select own.vendor_store_id from cart_vendor_groups as own where own.cart_id = v_cart.id
                     union
                    select own.vendor_store_id from cart_items as own where own.cart_id = v_cart.id) as vendor_part
              left join cart_items as each on each.cart_id = v_cart.id and each.vendor_store_id = vendor_part.vendor_store_id
             where vendor_part.vendor_store_id <> all (v_orders.vendor_store_ids)
          ) as item
          left join cart_vendor_groups as vendor_group
            on vendor_group.cart_id = v_cart.id and vendor_group.vendor_store_id = item.vendor_store_id
         group by item.vendor_store_id, vendor_group.status, vendor_group.warnings
      ) as vendor;
  end if;

  v_outcome := case when v_orders.turned_down = 0 and json_array_length(v_rejected) = 0 then 'complete'
                    when v_orders.turned_down = v_orders.line_count then 'rejected'
                    else 'partial' end;
  v_totals := json_build_object('quoted', v_quoted, 'confirmed', v_orders.confirmed_totals);
  created := json_build_object(
    'checkout_group_id', v_cart.checkout_group_id,
    'cart_id', v_cart.id,
    'buyer_store_id', v_cart.buyer_store_id,
    'vendor_store_ids', v_orders.vendor_store_ids,
    'vendor_order_ids', v_orders.order_ids,
    'rejected_vendors', v_told);
  converted := json_build_object(
    'checkout_group_id', v_cart.checkout_group_id,
    'cart_id', v_cart.id,
    'buyer_store_id', v_cart.buyer_store_id,
    'outcome', v_outcome,
    'currency', v_cart.currency,
    'payment_method', v_cart.payment_method,
    'totals', v_totals,
    'vendor_orders', v_orders.event_orders,
    'attribution', json_build_object(
      'token_ids', checkout_build_result.attribution -> 'token_ids', 'dropped', checkout_build_result.attribution -> 'dropped'));
  result := json_build_object(
    'status', 'converted',
    'outcome', v_outcome,
    'checkout_group_id', v_cart.checkout_group_id,
    'cart_id', v_cart.id,
    'buyer_store_id', v_cart.buyer_store_id,
    'currency', v_cart.currency,
    'converted_at', converted_at,
    'replayed', checkout_build_result.replayed,
    'shipping_address', json_strip_nulls(to_json(v_cart.shipping_address)),
    'payment_method', v_cart.payment_method,
    'shipping_line', v_cart.shipping_line,
    'totals', v_totals,
    'vendor_orders', v_orders.orders,
    'rejected_vendors', v_rejected);

  if v_says_more then
    select json_build_object('billing_address', json_strip_nulls(to_json(own.billing_address)), 'purchase_order', own.purchase_order,
                             'metadata', own.metadata, 'tax_included', v_cart.tax_included is true) into v_more
      from vendor_orders as own
     where own.id = any (v_orders.order_ids)
     order by own.promo_discount_cents is null, own.id   -- ours before any of the earlier system
     limit 1;
    result := checkout_json_join(result, v_more);
    created := checkout_json_join(created, json_build_object('purchase_order', v_more -> 'purchase_order'));
    converted := checkout_json_join(converted, json_build_object('purchase_order', v_more -> 'purchase_order', 'metadata', v_more -> 'metadata',
                                                                 'tax_included', v_more -> 'tax_included'));
  end if;
end;
$$;

revoke execute on function checkout_build_result(cart_records, boolean, boolean, boolean, jsonb) from public;

comment on function checkout_build_result(cart_records, boolean, boolean, boolean, jsonb) is
  'Step of checkout_execute and checkout_result: the result of a converted cart from its rows, amounts in cents, in a '
  'fixed order, and the data of both events and their instant.';
