-- checkout_convert: orders, events, stock and the result of a cart that is finalized.
--
-- Stock rows are what other checkouts wait for, so they come last: everything is written as if no line were short, then the
-- stock is taken, and nothing but the commit is left. Should a line be short after all, the subtransaction takes all of
-- it back, locks included. Then, as for a cart whose stock looked too little, stock comes first, and the orders are
-- written once it is known which lines are rejected.

create or replace function checkout_convert(
  cart cart_records,
  vendor_store_ids uuid[],
  promo_cents bigint[],
  line_count integer,
  all_ordered boolean,
  more jsonb,
  details jsonb,
  attribution jsonb,
  reservation_policy text
)
returns json
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_more alias for more;
  v_vendors uuid[] := checkout_convert.vendor_store_ids;
  v_below_ids uuid[];
  v_has_minimum boolean := false;
  v_stock record;
  v_taken boolean;
  v_result json;
  v_out_line_ids uuid[] := '{}'::uuid[];
  v_off record;
begin
  if v_more is not null then
    v_has_minimum := coalesce((v_more ->> 'has_minimum')::boolean, false);
    v_below_ids := array(select jsonb_array_elements_text(nullif(v_more -> 'below_minimum', 'null'))::uuid);
    v_vendors := array(select vendor_store_id from unnest(v_vendors) as vendor_store_id where vendor_store_id <> all (v_below_ids));
    v_out_line_ids := array(
      select item.id from cart_items as item
       where item.cart_id = v_cart.id and item.status = 'ok' and item.vendor_store_id = any (v_below_ids));
  end if;

  v_stock := inventory_suffices(v_cart.id, v_vendors);
  if v_stock.suffices then
    begin
      v_result := checkout_place_orders(v_cart, checkout_convert.vendor_store_ids, checkout_convert.promo_cents, checkout_convert.line_count,
                                        checkout_convert.all_ordered, v_more, checkout_convert.details, v_out_line_ids, v_out_line_ids, checkout_convert.attribution);
      if v_stock.is_split then
        v_taken := inventory_take_split(v_cart.id, v_vendors, v_stock.product_ids, v_stock.qtys, v_cart.converted_at);
      else
        v_taken := inventory_take(v_stock.product_ids, v_stock.qtys, v_cart.converted_at);
      end if;
      if v_taken then
        return v_result;
      end if;
      raise no_data_found;
    exception when no_data_found or numeric_value_out_of_range then
      null;
    end;
  end if;

  begin
    v_off := inventory_reserve(v_cart.id, v_vendors, checkout_convert.reservation_policy, v_has_minimum, true, v_cart.converted_at);
  exception
    when no_data_found then   -- a slot was held in vain
      begin
        v_off := inventory_reserve(v_cart.id, v_vendors, checkout_convert.reservation_policy, v_has_minimum, false, v_cart.converted_at);
      exception when numeric_value_out_of_range then
        perform inventory_raise_full(v_cart.id, v_vendors);
      end;
    when numeric_value_out_of_range then
      perform inventory_raise_full(v_cart.id, v_vendors);
  end;
  return checkout_place_orders(v_cart, checkout_convert.vendor_store_ids, checkout_convert.promo_cents, checkout_convert.line_count,
                               checkout_convert.all_ordered, v_more, checkout_convert.details, v_off.short_line_ids || v_out_line_ids || v_off.below_minimum_line_ids,
                               v_out_line_ids || v_off.below_minimum_line_ids,
                               checkout_convert.attribution);
end;
$$;

revoke execute on function checkout_convert(cart_records, uuid[], bigint[], integer, boolean, jsonb, jsonb, jsonb, text) from public;

comment on function checkout_convert(cart_records, uuid[], bigint[], integer, boolean, jsonb, jsonb, jsonb, text) is
  'Step of checkout_execute: writes orders and events, reserves stock, and returns the result. Raises OC010 under policy all if a '
  'line is short, and OC007 if a row of the orders breaks a constraint or a stock row can hold no more.';
