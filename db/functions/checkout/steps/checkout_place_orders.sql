-- checkout_place_orders: writes the orders and the events of a converted cart, and says what it became.

create or replace function checkout_place_orders(
  cart cart_records,
  vendor_store_ids uuid[],
  promo_cents bigint[],
  line_count integer,
  all_ordered boolean,
  more jsonb,
  details jsonb,
  rejected_line_ids uuid[],
  below_minimum_line_ids uuid[],
  attribution jsonb
)
returns json
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_built record;
begin
  perform checkout_create_orders(v_cart, checkout_place_orders.vendor_store_ids, checkout_place_orders.promo_cents, checkout_place_orders.line_count,
                                 checkout_place_orders.more, checkout_place_orders.details, checkout_place_orders.rejected_line_ids,
                                 checkout_place_orders.below_minimum_line_ids, checkout_place_orders.attribution);
  v_built := checkout_build_result(v_cart, false, checkout_place_orders.all_ordered, checkout_place_orders.more is not null or checkout_place_orders.details is not null,
                                   checkout_place_orders.attribution);
  perform checkout_emit_events(v_cart.checkout_group_id, v_cart.id, v_cart.converted_at, v_built.converted_at, v_built.created, v_built.converted);
  return v_built.result;
end;
$$;

revoke execute on function checkout_place_orders(cart_records, uuid[], bigint[], integer, boolean, jsonb, jsonb, uuid[], uuid[], jsonb) from public;

comment on function checkout_place_orders(cart_records, uuid[], bigint[], integer, boolean, jsonb, jsonb, uuid[], uuid[], jsonb) is
  'Step of checkout_execute: orders with their lines and intents, the result, and the two events. Raises OC007 as checkout_create_orders does.';
