-- checkout_create_orders: one vendor order a vendor with orderable items, its lines and its payment intent.
--
-- An order takes the id of its vendor group: no id to invent, and a second conversion could only collide. Amounts come
-- from the snapshot. JSON is built before the INSERT, whose select list stays free of functions that are not immutable.
--
-- A figure that does not fit, or a constraint of the host that the cart breaks, is the cart's fault and said so; the
-- subtransaction that this takes covers the order rows alone.

create or replace function checkout_create_orders(cart cart_records, rejected_line_ids uuid[], attribution jsonb)
returns void
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_attributed constant jsonb := checkout_create_orders.attribution -> 'store';
  v_capped_warning constant jsonb := jsonb_build_array(jsonb_build_object(
    'type', 'promo_capped', 'message', 'The promotion was larger than what is left of this order and was reduced to it.'));
  v_constraint text;
  v_table text;
begin
  insert into vendor_orders (
    id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency, shipping_address, payment_method,
    shipping_line, subtotal_cents, discounts_cents, tax_cents, transport_fee_cents, total_cents, balance_due_cents,
    promo, warnings, attributed_token, created_at, updated_at)
  select amounts.vendor_group_id, v_cart.id, v_cart.checkout_group_id, v_cart.buyer_store_id, amounts.vendor_store_id,
         case when amounts.all_rejected then 'rejected' else 'created_pending' end::vendor_order_status,
         v_cart.currency, v_cart.shipping_address, v_cart.payment_method, v_cart.shipping_line,
         amounts.subtotal_cents, amounts.discounts_cents, 0, 0, amounts.total_cents, amounts.total_cents,
         nullif(amounts.promo, 'null'),
         coalesce(nullif(amounts.warnings, 'null'), '[]') || case when amounts.promo_capped then v_capped_warning else '[]' end,
         v_attributed -> amounts.vendor_store_id::text,
         v_cart.converted_at, v_cart.converted_at
    from checkout_vendor_amounts(v_cart.id, checkout_create_orders.rejected_line_ids) as amounts;

  perform checkout_create_line_items(v_cart, checkout_create_orders.rejected_line_ids, checkout_create_orders.attribution);
  perform checkout_create_payment_intents(v_cart);
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

revoke execute on function checkout_create_orders(cart_records, uuid[], jsonb) from public;

comment on function checkout_create_orders(cart_records, uuid[], jsonb) is
  'Step of checkout_execute: writes the vendor orders of a cart with their lines and payment intents. Raises OC007 if a figure '
  'does not fit its column or a row breaks a constraint.';
