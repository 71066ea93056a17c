-- checkout_create_payment_intents: one intent an order, over its total. It takes the order's id, so a second one could
-- only collide. The payment status is the column's default. It is due by the terms of the quote; a day is 24 hours.

create or replace function checkout_create_payment_intents(checkout_group_id uuid, cart_id uuid, method payment_method, vendors jsonb, now timestamptz)
returns bigint
language plpgsql
as $$
declare
  v_rows bigint;
begin
  if checkout_create_payment_intents.vendors is null then
    insert into payment_intents (id, order_id, method, amount_cents, created_at, updated_at)
    select vendor_order.id, vendor_order.id, checkout_create_payment_intents.method, vendor_order.total_cents, checkout_create_payment_intents.now, checkout_create_payment_intents.now
      from vendor_orders as vendor_order
     where vendor_order.checkout_group_id = checkout_create_payment_intents.checkout_group_id and vendor_order.cart_id = checkout_create_payment_intents.cart_id;
    get diagnostics v_rows = row_count;
    return v_rows;
  end if;

  insert into payment_intents (id, order_id, method, amount_cents, payment_terms, due_at, created_at, updated_at)
  select vendor_order.id, vendor_order.id, checkout_create_payment_intents.method, vendor_order.total_cents, nullif(vendor.own -> 'payment_terms', 'null'),
         -- in UTC, where it is immutable: Citus distributes no INSERT ... SELECT that adds an interval to a timestamptz
         ((checkout_create_payment_intents.now at time zone 'UTC') + make_interval(hours => 24 * (vendor.own #>> '{payment_terms,net_days}')::numeric::integer)) at time zone 'UTC',
         checkout_create_payment_intents.now, checkout_create_payment_intents.now
    from vendor_orders as vendor_order
   cross join lateral (select checkout_create_payment_intents.vendors -> vendor_order.vendor_store_id::text as own) as vendor
   where vendor_order.checkout_group_id = checkout_create_payment_intents.checkout_group_id and vendor_order.cart_id = checkout_create_payment_intents.cart_id;
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;

revoke execute on function checkout_create_payment_intents(uuid, uuid, payment_method, jsonb, timestamptz) from public;

comment on function checkout_create_payment_intents(uuid, uuid, payment_method, jsonb, timestamptz) is
  'Step of checkout_execute: writes one payment intent an order, amount (cents) = order total, method as confirmed, due by the terms of its vendor in the quote (null: none has terms), and returns their number.';
