-- cart_lock_active: locks a cart that is to be quoted again.

create or replace function cart_lock_active(buyer_store_id uuid, cart_id uuid)
returns void
language plpgsql
as $$
declare
  v_cart cart_records;
begin
  v_cart := checkout_lock_cart(cart_lock_active.buyer_store_id, cart_lock_active.cart_id);
  if v_cart.status = 'converted' then
    raise exception 'cart % is converted and cannot be changed', v_cart.id
      using errcode = 'OC009',
            detail = jsonb_build_object('cart_id', v_cart.id),
            hint = 'Make a new cart.';
  elsif v_cart.status <> 'active' then
    raise exception 'cart % is %, not active', v_cart.id, v_cart.status
      using errcode = 'OC002',
            detail = jsonb_build_object('cart_id', v_cart.id, 'status', v_cart.status),
            hint = 'Look at the cart; only an active one can be quoted again.';
  end if;
end;
$$;

revoke execute on function cart_lock_active(uuid, uuid) from public;

comment on function cart_lock_active(uuid, uuid) is
  'Step of cart_put: locks a buyer''s cart FOR UPDATE. Raises OC001 not found, OC002 not active, OC009 converted.';
