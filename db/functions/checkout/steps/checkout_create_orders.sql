-- checkout_create_orders: one vendor order a vendor with orderable items, its lines and its payment intent.
--
-- An order takes the id of its vendor group: no id to invent, and a second conversion could only collide. Amounts come from
-- the snapshot. JSON is built and numbers are drawn before the INSERT, whose select list stays free of functions that are not
-- immutable. A column order_number that numbers itself (GENERATED ALWAYS, of a host) goes on doing so.
--
-- A figure that does not fit, or a constraint of the host that the cart breaks, is the cart's fault and said so; the
-- subtransaction that this takes covers the order rows alone.

create or replace function checkout_create_orders(
  cart cart_records,
  quote checkout_quote,
  details jsonb,
  short_line_ids uuid[],
  below_minimum_line_ids uuid[],
  attribution jsonb
)
returns void
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_quote alias for quote;
  v_details alias for details;
  v_attributed constant jsonb := checkout_create_orders.attribution -> 'store';
  v_capped_warning constant jsonb :=
    '[{"type": "promo_capped", "message": "The promotion was larger than what is left of this order and was reduced to it."}]'::jsonb;
  v_rejected constant uuid[] := checkout_create_orders.short_line_ids || checkout_create_orders.below_minimum_line_ids;
  v_vendors constant uuid[] := (checkout_create_orders.quote).vendor_store_ids;
  v_numbers constant bigint[] := checkout_order_numbers(cardinality(v_vendors));
  v_billing_address address_t;
  v_expires_at timestamptz;
  v_none boolean[];
  v_subtotals bigint[];
  v_discounts bigint[];
  v_promos bigint[] := (checkout_create_orders.quote).promo_cents;
  v_taxes bigint[];
  v_transports bigint[];
  v_transport_taxes bigint[];
  v_totals bigint[];
  v_capped boolean[];
  v_rows bigint;
  v_constraint text;
  v_table text;
begin
  if v_details is not null then
    v_billing_address := jsonb_populate_record(null::address_t, v_details -> 'billing_address');
    v_expires_at := v_cart.converted_at + make_interval(secs => (v_details -> 'expires_in')::double precision);
  end if;
  -- Else the group's figures are the order's, and these arrays stay null.
  if v_quote.has_more or cardinality(v_rejected) > 0 then
    select amounts.* into v_none, v_subtotals, v_discounts, v_promos, v_taxes, v_transports, v_transport_taxes, v_totals, v_capped
      from checkout_order_amounts(v_cart, v_quote, v_rejected) as amounts;
  end if;

  insert into vendor_orders (
    id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency, shipping_address, payment_method,
    shipping_line, subtotal_cents, discounts_cents, promo_discount_cents, tax_cents, transport_fee_cents, shipping_tax_cents, tax_included,
    total_cents, balance_due_cents, promo, warnings, vendor_shipping_line, billing_address, purchase_order, metadata, order_number, expires_at,
    attributed_token, created_at, updated_at)
  overriding user value
  select vendor.id, v_cart.id, v_cart.checkout_group_id, v_cart.buyer_store_id, vendor.vendor_store_id,
         case when v_none is not null and v_none[array_position(v_vendors, vendor.vendor_store_id)]
              then 'rejected'::vendor_order_status else 'created_pending'::vendor_order_status end,
         v_cart.currency, v_cart.shipping_address, v_cart.payment_method, v_cart.shipping_line,
         case when v_totals is null then vendor.subtotal_cents else v_subtotals[array_position(v_vendors, vendor.vendor_store_id)] end,
         case when v_totals is null then vendor.subtotal_cents - vendor.total_cents
              else v_discounts[array_position(v_vendors, vendor.vendor_store_id)] end,
         v_promos[array_position(v_vendors, vendor.vendor_store_id)],
         case when v_totals is null then 0 else v_taxes[array_position(v_vendors, vendor.vendor_store_id)] end,
         case when v_totals is null then 0 else v_transports[array_position(v_vendors, vendor.vendor_store_id)] end,
         case when v_totals is not null then v_transport_taxes[array_position(v_vendors, vendor.vendor_store_id)] end,
         nullif(v_cart.tax_included, false),
         case when v_totals is null then vendor.total_cents else v_totals[array_position(v_vendors, vendor.vendor_store_id)] end,
         case when v_totals is null then vendor.total_cents else v_totals[array_position(v_vendors, vendor.vendor_store_id)] end,
         nullif(vendor.promo, 'null'),
         coalesce(nullif(vendor.warnings, 'null'), '[]')
         || case when v_capped is not null and v_capped[array_position(v_vendors, vendor.vendor_store_id)] then v_capped_warning else '[]' end,
         nullif(vendor.shipping_line, 'null'), v_billing_address, v_details ->> 'purchase_order', v_details -> 'metadata',
         v_numbers[array_position(v_vendors, vendor.vendor_store_id)],
         case when v_expires_at is not null and coalesce(v_totals[array_position(v_vendors, vendor.vendor_store_id)], vendor.total_cents) > 0
                   and v_quote.payment_terms[array_position(v_vendors, vendor.vendor_store_id)] is null
              then v_expires_at end,
         v_attributed -> vendor.vendor_store_id::text,
         v_cart.converted_at, v_cart.converted_at
    from cart_vendor_groups as vendor
   where vendor.cart_id = v_cart.id and vendor.vendor_store_id = any (v_vendors);

  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_vendors) then
    perform checkout_raise_rows(v_cart.id, 'vendor_orders', cardinality(v_vendors), v_rows);
  end if;

  v_rows := checkout_create_line_items(v_cart, checkout_create_orders.short_line_ids, checkout_create_orders.below_minimum_line_ids,
                                       checkout_create_orders.attribution);
  if v_rows <> v_quote.line_count then
    perform checkout_raise_rows(v_cart.id, 'order_line_items', v_quote.line_count, v_rows);
  end if;
  v_rows := checkout_create_payment_intents(v_cart, v_vendors, v_quote.payment_terms);
  if v_rows <> cardinality(v_vendors) then
    perform checkout_raise_rows(v_cart.id, 'payment_intents', cardinality(v_vendors), v_rows);
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

revoke execute on function checkout_create_orders(cart_records, checkout_quote, jsonb, uuid[], uuid[], jsonb) from public;

comment on function checkout_create_orders(cart_records, checkout_quote, jsonb, uuid[], uuid[], jsonb) is
  'Step of checkout_execute: writes the vendor orders of a cart with their lines and payment intents. Raises OC007 if a figure '
  'does not fit its column, a row breaks a constraint, or a trigger keeps one from being written.';
