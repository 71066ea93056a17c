-- cart_open: locks the cart that is to be quoted, or makes it.
--
-- Whose it is and where it stands is looked at under its lock. A cart that goes away between the look and the lock (a
-- purge, a host) is made anew.

create or replace function cart_open(quote cart_records)
returns void
language plpgsql
as $$
declare
  v_quote alias for quote;
  v_now timestamptz;
  v_cart cart_records;
begin
  for v_try in 1 .. 1000 loop
    select cart.* into v_cart from cart_records as cart where cart.id = v_quote.id for update;
    exit when found;
    v_now := clock_timestamp();
    insert into cart_records (id, buyer_store_id, status, currency, valid_until, created_at, updated_at)
    values (v_quote.id, v_quote.buyer_store_id, 'active', v_quote.currency, v_quote.valid_until, v_now, v_now)
        on conflict (id) do nothing;
    if found then
      return;
    end if;
    if v_try = 1000 then   -- no purge is that busy: a trigger of the host keeps it from being written
      perform checkout_raise_rows(v_quote.id, 'cart_records', 1, 0);
    end if;
  end loop;

  if v_cart.buyer_store_id <> v_quote.buyer_store_id then
    perform cart_raise_not_found(v_quote.buyer_store_id, v_quote.id);
  elsif v_cart.status = 'converted' then
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

revoke execute on function cart_open(cart_records) from public;

comment on function cart_open(cart_records) is
  'Step of cart_put: locks a buyer''s cart FOR UPDATE, or makes it. Raises OC001 another buyer''s, OC002 not active, OC009 converted, OC007 if a trigger keeps it from being written.';
