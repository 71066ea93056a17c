-- cart_put: writes a quote, replacing the cart's groups and items under its lock.
--
-- The cart row is updated in the same transaction: a checkout whose snapshot is older than that meets a serialization
-- failure instead of half a quote. Contradictions are refused here, not at the checkout.
--
-- Nobody can tell the planner how large a quote is: what looks so dear that it would be compiled is read in a millisecond.

create or replace function cart_put(cart jsonb)
returns jsonb
language plpgsql
security definer
set search_path from current
set jit = off
as $$
declare
  v_cart cart_records;
  v_groups cart_vendor_groups[];
  v_items cart_items[];
begin
  perform cart_check_shape(cart_put.cart);
  perform cart_check_values(cart_put.cart);
  v_cart := cart_read(cart_put.cart);
  v_groups := cart_read_groups(cart_put.cart);
  v_items := cart_read_items(cart_put.cart);
  v_groups := cart_group_discounts(v_cart, v_groups, v_items);
  v_cart := cart_check_figures(v_cart, v_groups, v_items);

  v_cart := cart_write(v_cart, v_groups, v_items);
  perform cart_check_ids(v_cart, v_groups, v_items);
  perform cart_check_amounts(v_cart, v_groups, v_items);
  return checkout_result(v_cart.buyer_store_id, v_cart.id);
end;
$$;

revoke execute on function cart_put(jsonb) from public;

comment on function cart_put(jsonb) is
  'Writes a quote {id, buyer_store_id, currency, valid_until, shipping_address, ad_tokens, tax_included, vendor_groups: [{vendor_store_id, '
  'subtotal_cents, total_cents, promo, shipping_cents, shipping_tax_cents, shipping_line, minimum_cents, payment_terms, warnings, items: [{product_id, title, unit, quantity, unit_price_cents, line_subtotal_cents, '
  'line_discounts_cents, line_total_cents, tax_cents, tax_lines, ...}]}]}, amounts in cents, over an active cart or as a new one, under the cart''s lock. '
  'At most 5000 items. Cart totals are those of its ok groups. Returns what checkout_result returns. Raises OC001 another buyer''s cart, '
  'OC002 a cart that is not active, OC005 a malformed quote (DETAIL says where and what), OC007 figures that contradict each other (both in '
  'message and DETAIL) or an id that orders or lines carry, OC009 a converted cart, or the id of one that orders still carry.';
