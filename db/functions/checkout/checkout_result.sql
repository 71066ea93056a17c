-- checkout_result: what became of a cart.

create or replace function checkout_result(buyer_store_id uuid, cart_id uuid)
returns json
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_cart cart_records;
  v_beside record;
begin
  select cart.* into v_cart
    from cart_records as cart
   where cart.id = checkout_result.cart_id
     and cart.buyer_store_id = checkout_result.buyer_store_id;

  if not found then
    perform cart_raise_not_found(checkout_result.buyer_store_id, checkout_result.cart_id);
  end if;

  if v_cart.status = 'converted' then
    return (checkout_build_result(v_cart, true, null, true, null)).result;
  end if;
  v_beside := cart_owed_beside(v_cart);
  return json_build_object(
    'status', v_cart.status,
    'cart_id', v_cart.id,
    'buyer_store_id', v_cart.buyer_store_id,
    'currency', v_cart.currency,
    'valid_until', checkout_timestamp(v_cart.valid_until),
    'totals', json_build_object('quoted', checkout_totals(v_cart.subtotal_cents, v_cart.discounts_cents, v_beside.tax_cents, v_beside.shipping_cents,
                                                                v_cart.total_cents)),
    'below_minimum', cart_below_minimum(v_cart.id),
    'vendor_groups', cart_show_groups(v_cart.id, v_cart.tax_included));
end;
$$;

revoke execute on function checkout_result(uuid, uuid) from public;

comment on function checkout_result(uuid, uuid) is
  'What became of a buyer''s cart: the result of its checkout (replayed = true), or its status and, as '
  'cart_get shows them, its groups and items while it is not converted, and which vendors are below their minimum (cents). '
  'Locks nothing, writes nothing. Raises OC001 if the buyer has no such cart.';
