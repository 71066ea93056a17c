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
  v_orders json;
  v_confirmed json;
  v_vendor_ids uuid[];
  v_line_count bigint;
  v_short_count bigint;
  v_rejected json;
begin
  -- JSON as text, which nests without being copied level by level; the whole becomes jsonb once, at the end
  select coalesce(json_agg(described order by described.vendor_store_id), '[]'),
         json_build_object(
           'subtotal_cents', coalesce(sum(vendor_order.subtotal_cents), 0),
           'discounts_cents', coalesce(sum(vendor_order.discounts_cents), 0),
           'total_cents', coalesce(sum(vendor_order.total_cents), 0)),
         coalesce(array_agg(vendor_order.vendor_store_id), '{}'),
         coalesce(sum(lines.line_count), 0),
         coalesce(sum(lines.short_count), 0),
         coalesce(json_agg(json_build_object(
             'vendor_store_id', vendor_order.vendor_store_id,
             'reason', 'insufficient_inventory',
             'warnings', described.warnings,
             'items', lines.short_items) order by vendor_order.vendor_store_id)
           filter (where lines.short_count = lines.line_count and lines.line_count > 0), '[]')
    into v_orders, v_confirmed, v_vendor_ids, v_line_count, v_short_count, v_rejected
    from vendor_orders as vendor_order
   cross join lateral (
     select coalesce(json_agg(item order by item.line_item_id), '[]') as items,
            count(*) as line_count,
            count(*) filter (where item.status = 'rejected' and item.notes = 'insufficient_inventory') as short_count,
            json_agg(json_build_object(
                'cart_item_id', item.cart_item_id,
                'product_id', item.product_id,
                'name', item.name,
                'qty', item.qty,
                'status', item.status,
                'reason', item.notes,
                'warnings', item.warnings) order by item.line_item_id)
              filter (where item.status = 'rejected' and item.notes = 'insufficient_inventory') as short_items
       from (select line.id as line_item_id, line.cart_item_id, line.product_id, line.name, line.category, line.qty, line.unit,
                    line.unit_price_cents, line.line_subtotal_cents, line.discount_cents, line.total_cents, line.status, line.notes,
                    coalesce(nullif(line.warnings, 'null'), '[]') as warnings, line.applied_volume_discount,
                    ad_token_public(line.attributed_token) as attributed_token
               from order_line_items as line
              where line.order_id = vendor_order.id) as item
   ) as lines
   cross join lateral (
     select vendor_order.id as order_id, vendor_order.vendor_store_id, vendor_order.status, vendor_order.subtotal_cents,
            vendor_order.discounts_cents, vendor_order.total_cents, vendor_order.balance_due_cents, vendor_order.promo,
            coalesce(nullif(vendor_order.warnings, 'null'), '[]') as warnings,
            ad_token_public(vendor_order.attributed_token) as attributed_token,
            (select row_to_json(intent)
               from (select payment.id as payment_intent_id, payment.method, payment.status, payment.amount_cents
                       from payment_intents as payment
                      where payment.order_id = vendor_order.id) as intent) as payment_intent,
            lines.items
   ) as described
   where vendor_order.checkout_group_id = v_cart.checkout_group_id;

  -- vendors of the cart without an order, before, between or after those whose every line fell short: by id
  if exists (select from cart_vendor_groups as own where own.cart_id = v_cart.id and own.vendor_store_id <> all (v_vendor_ids))
     or exists (select from cart_items as own where own.cart_id = v_cart.id and own.vendor_store_id <> all (v_vendor_ids))
  then
    select json_agg(vendor.vendor order by vendor.vendor ->> 'vendor_store_id') into v_rejected
      from (
        select short.vendor from json_array_elements(v_rejected) as short (vendor)
         union all
        select json_build_object(
                 'vendor_store_id', item.vendor_store_id,
                 'reason', case when vendor_group.status <> 'ok' then 'vendor_invalid' else 'no_eligible_items' end,
                 'warnings', coalesce(nullif(vendor_group.warnings, 'null'), '[]'),
                 'items', coalesce(json_agg(
                   json_build_object(
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
             where vendor_part.vendor_store_id <> all (v_vendor_ids)
          ) as item
          left join cart_vendor_groups as vendor_group
            on vendor_group.cart_id = v_cart.id and vendor_group.vendor_store_id = item.vendor_store_id
         group by item.vendor_store_id, vendor_group.status, vendor_group.warnings
      ) as vendor;
  end if;

  return json_build_object(
    'status', 'converted',
    'outcome', case when v_short_count = 0 and json_array_length(v_rejected) = 0 then 'complete'
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
    'totals', json_build_object('quoted', checkout_quoted_totals(v_cart), 'confirmed', v_confirmed),
    'vendor_orders', v_orders,
    'rejected_vendors', v_rejected)::jsonb;
end;
$$;

revoke execute on function checkout_build_result(cart_records, boolean) from public;

comment on function checkout_build_result(cart_records, boolean) is
  'Step of checkout_execute and checkout_result: the result of a converted cart from its rows, amounts in cents, in a fixed order.';
