-- checkout_bind_key: binds a key to its request, in the transaction of the conversion.
--
-- One key raced for two carts: the second insert waits for the first to end, then finds it bound. A purge may delete
-- the row between the conflict and the look at it, so both are tried until one of them says something.

create or replace function checkout_bind_key(buyer_store_id uuid, cart_id uuid, idempotency_key text, request_hash bytea, now timestamptz)
returns void
language plpgsql
as $$
#variable_conflict use_column   -- ON CONFLICT names columns
begin
  for v_try in 1 .. 1000 loop
    insert into checkout_requests (buyer_store_id, idempotency_key, request_hash, cart_id, created_at)
    values (checkout_bind_key.buyer_store_id, checkout_bind_key.idempotency_key, checkout_bind_key.request_hash,
            checkout_bind_key.cart_id, checkout_bind_key.now)
        on conflict (buyer_store_id, idempotency_key) do nothing;
    exit when found;

    perform checkout_check_key(checkout_bind_key.buyer_store_id, checkout_bind_key.cart_id, checkout_bind_key.idempotency_key, checkout_bind_key.request_hash);
    exit when exists (select from checkout_requests as request
                       where request.buyer_store_id = checkout_bind_key.buyer_store_id
                         and request.idempotency_key = checkout_bind_key.idempotency_key);
    if v_try = 1000 then   -- no purge is that busy: a trigger of the host keeps it from being written
      perform checkout_raise_rows(checkout_bind_key.cart_id, 'checkout_requests', 1, 0);
    end if;
  end loop;
end;
$$;

revoke execute on function checkout_bind_key(uuid, uuid, text, bytea, timestamptz) from public;

comment on function checkout_bind_key(uuid, uuid, text, bytea, timestamptz) is
  'Step of checkout_execute: binds the buyer''s key to this request. Raises OC006 if it is bound to another one.';
