-- checkout_finalize_cart: writes what the checkout confirmed to the cart, converts it, and gives it its anchor.
--
-- The anchor is kept if the cart already has one. Nobody sees the converted cart before the whole checkout commits.

create or replace function checkout_finalize_cart(
  cart cart_records,
  address address_t,
  payment_method text,
  shipping_line jsonb,
  now timestamptz
)
returns cart_records
language plpgsql
as $$
declare
  v_cart cart_records;
  v_checkout_group_id constant uuid := coalesce((checkout_finalize_cart.cart).checkout_group_id, checkout_uuid());
begin
  update cart_records as target
     set shipping_address = checkout_finalize_cart.address,
         payment_method = checkout_finalize_cart.payment_method::payment_method,
         shipping_line = checkout_finalize_cart.shipping_line,
         converted_at = checkout_finalize_cart.now,
         status = 'converted',
         checkout_group_id = v_checkout_group_id,
         updated_at = checkout_finalize_cart.now
   where target.id = (checkout_finalize_cart.cart).id
  returning target.* into v_cart;
  if not found then
    perform checkout_raise_rows((checkout_finalize_cart.cart).id, 'cart_records', 1, 0);
  end if;
  return v_cart;
end;
$$;

revoke execute on function checkout_finalize_cart(cart_records, address_t, text, jsonb, timestamptz) from public;

comment on function checkout_finalize_cart(cart_records, address_t, text, jsonb, timestamptz) is
  'Step of checkout_execute: confirms address, payment method and shipping line on the cart, sets converted_at, status and anchor.';
