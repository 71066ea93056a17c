-- checkout_create_payment_intents: one intent an order, over its total. It takes the order's id, so a second one could
-- only collide. The payment status is the column's default. It is due by the terms of the quote; a day is 24 hours.

create or replace function checkout_create_payment_intents(cart cart_records, quote checkout_quote)
returns bigint
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_quote alias for quote;
  v_rows bigint;
begin
  insert into payment_intents (id, order_id, method, amount_cents, payment_terms, due_at, created_at, updated_at)
  select vendor_order.id, vendor_order.id, v_cart.payment_method, vendor_order.total_cents, vendor_order.terms,
         v_cart.converted_at + make_interval(hours => 24 * (vendor_order.terms -> 'net_days')::integer), v_cart.converted_at, v_cart.converted_at
    from (   -- OFFSET 0: the terms are looked for once
      select own.id, own.total_cents, nullif(v_quote.payment_terms[array_position(v_quote.vendor_store_ids, own.vendor_store_id)], 'null') as terms
        from vendor_orders as own
       where own.checkout_group_id = v_cart.checkout_group_id and own.cart_id = v_cart.id
      offset 0
    ) as vendor_order;
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;

revoke execute on function checkout_create_payment_intents(cart_records, checkout_quote) from public;

comment on function checkout_create_payment_intents(cart_records, checkout_quote) is
  'Step of checkout_execute: writes one payment intent an order, amount (cents) = order total, method as confirmed, due by the terms of its quote, and returns their number.';
