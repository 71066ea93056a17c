-- checkout_place_orders: writes the orders and the events of a converted cart, and says what it became.

create or replace function checkout_place_orders(
  cart cart_records,
  quote checkout_quote,
  details jsonb,
  short_line_ids uuid[],
  below_minimum_line_ids uuid[],
  attribution jsonb
)
returns json
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_quote alias for quote;
  v_built record;
begin
  perform checkout_create_orders(v_cart, v_quote, checkout_place_orders.details, checkout_place_orders.short_line_ids,
                                 checkout_place_orders.below_minimum_line_ids, checkout_place_orders.attribution);
  v_built := checkout_build_result(v_cart, false, v_quote.totals, v_quote.all_ordered, case when v_quote.says_more is null and checkout_place_orders.details is null then false end,
                                   checkout_place_orders.attribution);
  perform checkout_emit_events(v_cart, v_built.converted_at, v_built.created, v_built.converted);
  return v_built.result;
end;
$$;

revoke execute on function checkout_place_orders(cart_records, checkout_quote, jsonb, uuid[], uuid[], jsonb) from public;

comment on function checkout_place_orders(cart_records, checkout_quote, jsonb, uuid[], uuid[], jsonb) is
  'Step of checkout_execute: orders with their lines and intents, the result, and the two events. Raises OC007 as checkout_create_orders does.';
