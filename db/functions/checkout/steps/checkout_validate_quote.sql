-- checkout_validate_quote: refuses what a quote allows, but not under this request: a shipping price that is not the vendors',
-- and vendors below their minimum.
--
-- Such a vendor is out before stock is looked at, and its order is written as rejected. A cart of which nothing would be left
-- is refused instead: more can still be put into it.

create or replace function checkout_validate_quote(cart cart_records, vendors integer, more jsonb, shipping_line jsonb, reservation_policy text)
returns void
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_more alias for more;
  v_below_ids constant uuid[] := array(select jsonb_array_elements_text(nullif(checkout_validate_quote.more -> 'below_minimum', 'null'))::uuid);
  v_below jsonb;
begin
  if (checkout_validate_quote.shipping_line ->> 'price_cents')::numeric <> (v_more ->> 'shipping_cents')::numeric then
    perform checkout_raise_invalid('shipping_line.price_cents', format('must be what the vendors charge together, %s', v_more ->> 'shipping_cents'));
  end if;
  if v_below_ids = '{}' or checkout_validate_quote.reservation_policy <> 'all' and cardinality(v_below_ids) < checkout_validate_quote.vendors
  then
    return;
  end if;

  v_below := cart_below_minimum(v_cart.id);
  raise exception 'the quote of cart % is below the minimum of % of its vendors', v_cart.id, cardinality(v_below_ids)
    using errcode = case checkout_validate_quote.reservation_policy when 'all' then 'OC010' else 'OC004' end,
          detail = jsonb_build_object('cart_id', v_cart.id, 'below_minimum', v_below),
          hint = 'Put more of these vendors into the cart and quote it again, or leave them out.';
end;
$$;

revoke execute on function checkout_validate_quote(cart_records, integer, jsonb, jsonb, text) from public;

comment on function checkout_validate_quote(cart_records, integer, jsonb, jsonb, text) is
  'Step of checkout_execute: raises OC005 for a shipping price other than the sum (cents) of what the vendors charge, OC010 under policy all if a vendor '
  'is below its minimum, OC004 if all of them are.';
