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
  attribution jsonb,
  reservation_policy text
)
returns json
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_vendors constant uuid[] := checkout_convert.vendor_store_ids;
  v_stock record;
  v_taken boolean;
  v_result json;
  v_short_line_ids uuid[];
begin
  v_stock := inventory_suffices(v_cart.id, v_vendors);
  if v_stock.suffices then
    begin
      v_result := checkout_place_orders(v_cart, v_vendors, checkout_convert.promo_cents, checkout_convert.line_count, checkout_convert.all_ordered, '{}',
                                        checkout_convert.attribution);
      if v_stock.is_split then
        v_taken := inventory_reserve(v_cart.id, v_vendors, checkout_convert.reservation_policy, true, v_cart.converted_at) = '{}';
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
    v_short_line_ids := inventory_reserve(v_cart.id, v_vendors, checkout_convert.reservation_policy, true, v_cart.converted_at);
  exception
    when no_data_found then   -- a slot was held in vain
      v_short_line_ids := inventory_reserve(v_cart.id, v_vendors, checkout_convert.reservation_policy, false, v_cart.converted_at);
    when numeric_value_out_of_range then
      perform inventory_raise_full(v_cart.id, v_vendors);
  end;
  return checkout_place_orders(v_cart, v_vendors, checkout_convert.promo_cents, checkout_convert.line_count, checkout_convert.all_ordered, v_short_line_ids,
                               checkout_convert.attribution);
end;
$$;

revoke execute on function checkout_convert(cart_records, uuid[], bigint[], integer, boolean, jsonb, text) from public;

comment on function checkout_convert(cart_records, uuid[], bigint[], integer, boolean, jsonb, text) is
  'Step of checkout_execute: writes orders and events, reserves stock, and returns the result. Raises OC010 under policy all if a '
  'line is short, and OC007 if a row of the orders breaks a constraint or a stock row can hold no more.';
