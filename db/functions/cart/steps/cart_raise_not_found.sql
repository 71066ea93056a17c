-- cart_raise_not_found: the one way to say that a buyer has no such cart. It does not say whether somebody else has.

create or replace function cart_raise_not_found(buyer_store_id uuid, cart_id uuid)
returns void
language plpgsql
stable
as $$
begin
  raise exception 'buyer % has no cart %', cart_raise_not_found.buyer_store_id, cart_raise_not_found.cart_id
    using errcode = 'OC001',
          detail = jsonb_build_object('cart_id', cart_raise_not_found.cart_id),
          hint = 'Check the cart id; another buyer''s cart is never found.';
end;
$$;

revoke execute on function cart_raise_not_found(uuid, uuid) from public;

comment on function cart_raise_not_found(uuid, uuid) is 'Raises OC001 cart_not_found for a buyer who has no such cart.';
