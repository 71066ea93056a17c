-- checkout_convert: orders, events, stock and the result of a cart that is finalized.
--
-- Stock rows are what other checkouts wait for, so they come last: everything is written as if no line were short, then the
-- stock is taken, and nothing but the commit is left. Should a line be short after all, the subtransaction takes all of
-- it back, locks included. Then, as for a cart whose stock looked too little, stock comes first, and the orders are
-- written once it is known which lines are rejected.

create or replace function checkout_convert(cart cart_records, attribution jsonb, reservation_policy text)
returns jsonb
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_result jsonb;
  v_short_line_ids uuid[];
begin
  if inventory_suffices(v_cart.id) then
    begin
      v_result := checkout_place_orders(v_cart, '{}', checkout_convert.attribution);
      if cardinality(inventory_reserve(v_cart.id, checkout_convert.reservation_policy, v_cart.converted_at)) > 0 then
        raise no_data_found;
      end if;
      return v_result;
    exception when no_data_found then
      null;
    end;
  end if;
  v_short_line_ids := inventory_reserve(v_cart.id, checkout_convert.reservation_policy, v_cart.converted_at);
  return checkout_place_orders(v_cart, v_short_line_ids, checkout_convert.attribution);
end;
$$;

revoke execute on function checkout_convert(cart_records, jsonb, text) from public;

comment on function checkout_convert(cart_records, jsonb, text) is
  'Step of checkout_execute: writes orders and events, reserves stock, and returns the result. Raises OC010 under policy all if a '
  'line is short, and OC007 if a row of the orders breaks a constraint.';
