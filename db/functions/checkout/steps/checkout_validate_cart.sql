-- checkout_validate_cart: refuses a cart that cannot be checked out, before the first write.
--
-- Called under the cart lock with a clock read after it: a quote that ran out while the lock was waited for is expired.

create or replace function checkout_validate_cart(cart cart_records, now timestamptz)
returns uuid[]
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_vendor_store_ids uuid[];
begin
  if v_cart.status <> 'active' then
    raise exception 'cart % is %, not active', v_cart.id, v_cart.status
      using errcode = 'OC002',
            detail = jsonb_build_object('cart_id', v_cart.id, 'status', v_cart.status),
            hint = 'Look at the cart; only an active one can be checked out.';
  end if;

  if v_cart.valid_until is null or v_cart.valid_until <= checkout_validate_cart.now then
    raise exception 'the quote of cart % ran out at %', v_cart.id, checkout_timestamp(v_cart.valid_until)
      using errcode = 'OC003',
            detail = jsonb_build_object('cart_id', v_cart.id, 'valid_until', checkout_timestamp(v_cart.valid_until),
                                        'now', checkout_timestamp(checkout_validate_cart.now)),
            hint = 'Ask for a new quote, show it to the buyer, and check out again.';
  end if;

  v_vendor_store_ids := checkout_validate_amounts(v_cart);
  if v_vendor_store_ids is null then
    raise exception 'cart % has no orderable items', v_cart.id
      using errcode = 'OC004',
            detail = jsonb_build_object('cart_id', v_cart.id),
            hint = 'Ask for a new quote, or replace the unavailable items.';
  end if;
  return v_vendor_store_ids;
end;
$$;

revoke execute on function checkout_validate_cart(cart_records, timestamptz) from public;

comment on function checkout_validate_cart(cart_records, timestamptz) is
  'Step of checkout_execute: raises OC002 not active, OC003 expired, OC007 inconsistent, OC004 nothing to order. Writes nothing.';
