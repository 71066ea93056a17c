-- cart_raise_inconsistent: the one way to say that a quote contradicts itself.

create or replace function cart_raise_inconsistent(cart_id uuid, problem jsonb)
returns void
language plpgsql
stable
as $$
begin
  raise exception 'cart % contradicts itself (%)', cart_raise_inconsistent.cart_id, cart_raise_inconsistent.problem ->> 'problem'
    using errcode = 'OC007',
          detail = jsonb_build_object('cart_id', cart_raise_inconsistent.cart_id) || cart_raise_inconsistent.problem,
          hint = 'Quote the cart again; figures are copied, none is corrected.';
end;
$$;

revoke execute on function cart_raise_inconsistent(uuid, jsonb) from public;

comment on function cart_raise_inconsistent(uuid, jsonb) is 'Raises OC007 cart_inconsistent with what is wrong in DETAIL.';
