-- checkout_create_orders: one vendor order a vendor with orderable items, its lines and its payment intent.
--
-- An order takes the id of its vendor group: no id to invent, and a second conversion could only collide. Amounts come
-- from the snapshot: those of the group, less the rejected lines' own. The promotion's share, what the group's discount
-- has beyond the lines', is capped at what is left of the lines, since a total cannot go below zero. JSON is built before
-- the INSERT, whose select list stays free of functions that are not immutable.
--
-- A figure that does not fit, or a constraint of the host that the cart breaks, is the cart's fault and said so; the
-- subtransaction that this takes covers the order rows alone.

create or replace function checkout_create_orders(
  cart cart_records,
  vendor_store_ids uuid[],
  promo_cents bigint[],
  line_count integer,
  rejected_line_ids uuid[],
  attribution jsonb
)
returns void
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_attributed constant jsonb := checkout_create_orders.attribution -> 'store';
  v_capped_warning constant jsonb :=
    '[{"type": "promo_capped", "message": "The promotion was larger than what is left of this order and was reduced to it."}]'::jsonb;
  v_rejected constant uuid[] := checkout_create_orders.rejected_line_ids;
  v_short_ids uuid[];
  v_short_subtotals bigint[];
  v_short_totals bigint[];
  v_short_all boolean[];
  v_rows bigint;
  v_constraint text;
  v_table text;
begin
  if cardinality(v_rejected) > 0 then
    select array_agg(lines.id), array_agg(lines.subtotal::bigint), array_agg(lines.total::bigint), array_agg(lines.are_all)
      into v_short_ids, v_short_subtotals, v_short_totals, v_short_all
      from (
        select vendor.id,
               sum(item.line_subtotal_cents) as subtotal,
               sum(coalesce(item.line_total_cents, item.line_subtotal_cents)) as total,
               not exists (select from cart_items as kept
                            where kept.cart_id = vendor.cart_id and kept.vendor_store_id = vendor.vendor_store_id
                              and kept.status = 'ok' and kept.id <> all (v_rejected)) as are_all
          from cart_items as item
          join cart_vendor_groups as vendor on vendor.cart_id = item.cart_id and vendor.vendor_store_id = item.vendor_store_id
         where item.id = any (v_rejected)
         group by vendor.id
      ) as lines;
  end if;

  insert into vendor_orders (
    id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency, shipping_address, payment_method,
    shipping_line, subtotal_cents, discounts_cents, promo_discount_cents, tax_cents, transport_fee_cents, total_cents, balance_due_cents,
    promo, warnings, attributed_token, created_at, updated_at)
  select vendor.id, v_cart.id, v_cart.checkout_group_id, v_cart.buyer_store_id, vendor.vendor_store_id,
         case when amounts.is_short then 'rejected'::vendor_order_status else 'created_pending'::vendor_order_status end,
         v_cart.currency, v_cart.shipping_address, v_cart.payment_method, v_cart.shipping_line,
         amounts.subtotal, amounts.subtotal - greatest(amounts.rest, 0),
         checkout_create_orders.promo_cents[array_position(checkout_create_orders.vendor_store_ids, vendor.vendor_store_id)] + least(amounts.rest, 0),
         0, 0, greatest(amounts.rest, 0), greatest(amounts.rest, 0),
         nullif(vendor.promo, 'null'),
         coalesce(nullif(vendor.warnings, 'null'), '[]') || case when amounts.rest < 0 then v_capped_warning else '[]' end,
         v_attributed -> vendor.vendor_store_id::text,
         v_cart.converted_at, v_cart.converted_at
    from cart_vendor_groups as vendor
   cross join lateral (   -- OFFSET 0: each figure is made once, not wherever it is used
     select v_short_all[short.place] as is_short,
            vendor.subtotal_cents - coalesce(v_short_subtotals[short.place], 0) as subtotal,
            vendor.total_cents - coalesce(v_short_totals[short.place], 0) as rest
       from (select array_position(v_short_ids, vendor.id) as place) as short
     offset 0
   ) as amounts
   where vendor.cart_id = v_cart.id and vendor.vendor_store_id = any (checkout_create_orders.vendor_store_ids);

  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(checkout_create_orders.vendor_store_ids) then
    perform checkout_raise_rows(v_cart.id, 'vendor_orders', cardinality(checkout_create_orders.vendor_store_ids), v_rows);
  end if;

  v_rows := checkout_create_line_items(v_cart, checkout_create_orders.rejected_line_ids, checkout_create_orders.attribution);
  if v_rows <> checkout_create_orders.line_count then
    perform checkout_raise_rows(v_cart.id, 'order_line_items', checkout_create_orders.line_count, v_rows);
  end if;
  v_rows := checkout_create_payment_intents(v_cart);
  if v_rows <> cardinality(checkout_create_orders.vendor_store_ids) then
    perform checkout_raise_rows(v_cart.id, 'payment_intents', cardinality(checkout_create_orders.vendor_store_ids), v_rows);
  end if;
exception
  when numeric_value_out_of_range or string_data_right_truncation then
    raise exception 'a value of cart % does not fit: %', v_cart.id, sqlerrm
      using errcode = 'OC007',
            detail = jsonb_build_object('cart_id', v_cart.id, 'problem', 'out_of_range'),
            hint = 'Quote the cart again with smaller amounts and shorter texts.';
  when integrity_constraint_violation then   -- the whole class
    get stacked diagnostics v_constraint = constraint_name, v_table = table_name;
    raise exception 'cart % breaks a constraint of table %: %', v_cart.id, v_table, sqlerrm
      using errcode = 'OC007',
            detail = jsonb_build_object('cart_id', v_cart.id, 'problem', 'constraint', 'constraint', v_constraint, 'table', v_table),
            hint = 'Quote the cart again, or look at the constraint.';
end;
$$;

revoke execute on function checkout_create_orders(cart_records, uuid[], bigint[], integer, uuid[], jsonb) from public;

comment on function checkout_create_orders(cart_records, uuid[], bigint[], integer, uuid[], jsonb) is
  'Step of checkout_execute: writes the vendor orders of a cart with their lines and payment intents. Raises OC007 if a figure '
  'does not fit its column, a row breaks a constraint, or a trigger keeps one from being written.';
