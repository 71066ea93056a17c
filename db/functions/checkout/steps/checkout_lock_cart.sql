-- checkout_lock_cart: the first lock of a checkout.
--
-- FOR UPDATE, not FOR NO KEY UPDATE: the triggers that guard a converted cart, and the foreign keys of its groups and
-- items, take FOR KEY SHARE, and must wait until this checkout has decided.

create or replace function checkout_lock_cart(buyer_store_id uuid, cart_id uuid)
returns cart_records
language plpgsql
as $$
declare
  v_cart cart_records;
begin
  select cart.* into v_cart
    from cart_records as cart
   where cart.id = checkout_lock_cart.cart_id
     and cart.buyer_store_id = checkout_lock_cart.buyer_store_id
     for update;

  if not found then
    perform cart_raise_not_found(checkout_lock_cart.buyer_store_id, checkout_lock_cart.cart_id);
  end if;
  return v_cart;
end;
$$;

revoke execute on function checkout_lock_cart(uuid, uuid) from public;

comment on function checkout_lock_cart(uuid, uuid) is
  'Step of checkout_execute: locks a buyer''s cart FOR UPDATE and returns it. Raises OC001 if the buyer has no such cart.';
