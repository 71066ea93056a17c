-- checkout_check_key: refuses a key that is bound to another request.

create or replace function checkout_check_key(buyer_store_id uuid, cart_id uuid, idempotency_key text, request_hash bytea)
returns void
language plpgsql
as $$
declare
  v_bound_cart_id uuid;
begin
  select request.cart_id into v_bound_cart_id
    from checkout_requests as request
   where request.buyer_store_id = checkout_check_key.buyer_store_id
     and request.idempotency_key = checkout_check_key.idempotency_key
     and request.request_hash <> checkout_check_key.request_hash;

  if found then
    raise exception 'idempotency key is already bound to another request'
      using errcode = 'OC006',
            detail = jsonb_build_object('cart_id', checkout_check_key.cart_id, 'bound_cart_id', v_bound_cart_id),
            hint = 'Send the request that the key was first used for, or take a new key.';
  end if;
end;
$$;

revoke execute on function checkout_check_key(uuid, uuid, text, bytea) from public;

comment on function checkout_check_key(uuid, uuid, text, bytea) is
  'Step of checkout_execute: raises OC006 if the buyer''s key is bound to another request.';
