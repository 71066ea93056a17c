-- cart_get: a buyer's quote, as cart_put takes it.
--
-- Not its ad tokens: they say what was bid, and what a service is told here it may well show to the buyer.

create or replace function cart_get(buyer_store_id uuid, cart_id uuid)
returns json
language plpgsql
stable
security definer
set search_path from current
set extra_float_digits = 1
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_cart cart_records;
begin
  select cart.* into v_cart
    from cart_records as cart
   where cart.id = cart_get.cart_id
     and cart.buyer_store_id = cart_get.buyer_store_id;
  if not found then
    perform cart_raise_not_found(cart_get.buyer_store_id, cart_get.cart_id);
  end if;

  return json_build_object(
    'id', v_cart.id,
    'buyer_store_id', v_cart.buyer_store_id,
    'status', v_cart.status,
    'currency', v_cart.currency,
    'valid_until', checkout_timestamp(v_cart.valid_until),
    'shipping_address', json_strip_nulls(to_json(v_cart.shipping_address)),
    'subtotal_cents', v_cart.subtotal_cents,
    'discounts_cents', v_cart.discounts_cents,
    'total_cents', v_cart.total_cents,
    'tax_included', v_cart.tax_included is true,
    'vendor_groups', cart_show_groups(v_cart.id, v_cart.tax_included),
    'checkout_group_id', v_cart.checkout_group_id,
    'created_at', checkout_timestamp(v_cart.created_at),
    'updated_at', checkout_timestamp(v_cart.updated_at));
end;
$$;

revoke execute on function cart_get(uuid, uuid) from public;

comment on function cart_get(uuid, uuid) is
  'A buyer''s quote with its groups (by vendor) and items (by id), amounts in cents, whether it is active or converted: the fields that cart_put '
  'takes, but for the ad tokens, which are not shown, and status, checkout_group_id, created_at and updated_at. Items and groups with a status other '
  'than ok cannot be ordered, and their warnings say why; items of a vendor without a group stand in one whose id is null. Locks nothing, '
  'writes nothing. Raises OC001 if the buyer has no such cart.';
