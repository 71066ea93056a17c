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
  vendor_store_ids uuid[],
  promo_cents bigint[],
  line_count integer,
  more jsonb,
  details jsonb,
  rejected_line_ids uuid[],
  below_minimum_line_ids uuid[],
  attribution jsonb
)
returns void
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_more alias for more;
  v_details alias for details;
  v_attributed constant jsonb := checkout_create_orders.attribution -> 'store';
  v_rejected alias for rejected_line_ids;
  v_vendors constant uuid[] := checkout_create_orders.vendor_store_ids;
  v_numbers bigint[];
  v_rows bigint;
  v_constraint text;
  v_table text;
begin
  -- a loop: for a few orders it takes a tenth of a query's time
  for i in 1 .. cardinality(v_vendors) loop
    v_numbers := array_append(v_numbers, checkout_order_number());
  end loop;

  if v_more is not null or v_details is not null or v_rejected <> '{}' then
    v_rows := checkout_create_reckoned_orders(v_cart, v_vendors, checkout_create_orders.promo_cents, v_more, v_details, v_rejected, v_numbers, v_attributed);
  else
    insert into vendor_orders (
      id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency, shipping_address, payment_method, shipping_line,
      subtotal_cents, discounts_cents, promo_discount_cents, tax_cents, transport_fee_cents, total_cents, balance_due_cents,
      promo, warnings, order_number, attributed_token, created_at, updated_at)
    overriding user value
    select vendor.id, v_cart.id, v_cart.checkout_group_id, v_cart.buyer_store_id, vendor.vendor_store_id, 'created_pending',
           v_cart.currency, v_cart.shipping_address, v_cart.payment_method, v_cart.shipping_line,
           vendor.subtotal_cents, vendor.subtotal_cents - vendor.total_cents, checkout_create_orders.promo_cents[vendor.place], 0, 0, vendor.total_cents, vendor.total_cents,
           nullif(vendor.promo, 'null'), coalesce(nullif(vendor.warnings, 'null'), '[]'), v_numbers[vendor.place],
           v_attributed -> vendor.vendor_store_id::text, v_cart.converted_at, v_cart.converted_at
      from (select own.*, array_position(v_vendors, own.vendor_store_id) as place
              from cart_vendor_groups as own
             where own.cart_id = v_cart.id and own.vendor_store_id = any (v_vendors)) as vendor;
    get diagnostics v_rows = row_count;
  end if;
  if v_rows <> cardinality(v_vendors) then
    perform checkout_raise_rows(v_cart.id, 'vendor_orders', cardinality(v_vendors), v_rows);
  end if;

  v_rows := checkout_create_line_items(v_cart.id, v_rejected, checkout_create_orders.below_minimum_line_ids,
                                       checkout_create_orders.attribution, v_cart.converted_at);
  if v_rows <> checkout_create_orders.line_count then
    perform checkout_raise_rows(v_cart.id, 'order_line_items', checkout_create_orders.line_count, v_rows);
  end if;
  v_rows := checkout_create_payment_intents(v_cart.checkout_group_id, v_cart.id, v_cart.payment_method,
                                            case when (v_more ->> 'has_terms')::boolean then v_more -> 'vendors' end, v_cart.converted_at);
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

revoke execute on function checkout_create_orders(cart_records, uuid[], bigint[], integer, jsonb, jsonb, uuid[], uuid[], jsonb) from public;

comment on function checkout_create_orders(cart_records, uuid[], bigint[], integer, jsonb, jsonb, uuid[], uuid[], jsonb) is
  'Step of checkout_execute: writes the vendor orders of a cart with their lines and payment intents. Raises OC007 if a figure '
  'does not fit its column, a row breaks a constraint, or a trigger keeps one from being written.';
