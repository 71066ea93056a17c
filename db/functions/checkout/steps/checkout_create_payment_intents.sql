-- checkout_create_payment_intents: one intent an order, over its total. It takes the order's id, so a second one could
-- only collide. The payment status is the column's default. It is due by the terms of the quote; a day is 24 hours.

create or replace function checkout_create_payment_intents(cart cart_records, vendors jsonb)
returns bigint
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_rows bigint;
begin
  if checkout_create_payment_intents.vendors is null then
    insert into payment_intents (id, order_id, method, amount_cents, created_at, updated_at)
    select vendor_order.id, vendor_order.id, v_cart.payment_method, vendor_order.total_cents, v_cart.converted_at, v_cart.converted_at
      from vendor_orders as vendor_order
     where vendor_order.checkout_group_id = v_cart.checkout_group_id and vendor_order.cart_id = v_cart.id;
    get diagnostics v_rows = row_count;
    return v_rows;
  end if;

  insert into payment_intents (id, order_id, method, amount_cents, payment_terms, due_at, created_at, updated_at)
  select vendor_order.id, vendor_order.id, v_cart.payment_method, vendor_order.total_cents, nullif(vendor.own -> 'payment_terms', 'null'),
         v_cart.converted_at + make_interval(hours => 24 * (vendor.own #>> '{payment_terms,net_days}')::integer), v_cart.converted_at, v_cart.converted_at
    from vendor_orders as vendor_order
   cross join lateral (select checkout_create_payment_intents.vendors -> vendor_order.vendor_store_id::text as own) as vendor
   where vendor_order.checkout_group_id = v_cart.checkout_group_id and vendor_order.cart_id = v_cart.id;
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;

revoke execute on function checkout_create_payment_intents(cart_records, jsonb) from public;

comment on function checkout_create_payment_intents(cart_records, jsonb) is
  'Step of checkout_execute: writes one payment intent an order, amount (cents) = order total, method as confirmed, due by the terms of its vendor in the quote (null: none has terms), and returns their number.';
