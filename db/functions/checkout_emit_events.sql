-- checkout_emit_events: the two outbox events of a conversion, in its transaction.
--
-- Both payloads are cut from the result, so that no consumer is told other figures than the buyer. A partial unique
-- index allows one of each kind an anchor. No NOTIFY: it would take one lock of the whole cluster at commit.

create or replace function checkout_emit_events(cart cart_records, result jsonb, attribution jsonb)
returns void
language plpgsql
as $$
declare
  v_cart constant cart_records := checkout_emit_events.cart;
  v_result constant jsonb := checkout_emit_events.result;
  v_created_id constant uuid := checkout_uuid();
  v_converted_id constant uuid := checkout_uuid();
  v_occurred_at constant text := checkout_timestamp(v_cart.converted_at);
  v_base constant jsonb := jsonb_build_object(
    'checkout_group_id', v_cart.checkout_group_id, 'cart_id', v_cart.id, 'buyer_store_id', v_cart.buyer_store_id);
  v_created jsonb;
  v_converted jsonb;
begin
  v_created := jsonb_build_object(
    'version', 1, 'event_id', v_created_id, 'occurred_at', v_occurred_at, 'type', 'checkout.vendor_orders_created',
    'data', v_base || jsonb_build_object(
      'vendor_store_ids', jsonb_path_query_array(v_result, '$.vendor_orders[*].vendor_store_id'),
      'vendor_order_ids', jsonb_path_query_array(v_result, '$.vendor_orders[*].order_id'),
      'rejected_vendors', (
        select coalesce(jsonb_agg(jsonb_build_object('vendor_store_id', vendor -> 'vendor_store_id', 'reason', vendor -> 'reason') order by position), '[]')
          from jsonb_array_elements(v_result -> 'rejected_vendors') with ordinality as rejected (vendor, position))));

  v_converted := jsonb_build_object(
    'version', 1, 'event_id', v_converted_id, 'occurred_at', v_occurred_at, 'type', 'checkout.converted',
    'data', v_base || jsonb_build_object(
      'outcome', v_result -> 'outcome',
      'currency', v_result -> 'currency',
      'payment_method', v_result -> 'payment_method',
      'totals', v_result -> 'totals',
      'vendor_orders', (
        select coalesce(jsonb_agg(jsonb_build_object(
                 'order_id', ordered -> 'order_id',
                 'vendor_store_id', ordered -> 'vendor_store_id',
                 'status', ordered -> 'status',
                 'subtotal_cents', ordered -> 'subtotal_cents',
                 'discounts_cents', ordered -> 'discounts_cents',
                 'total_cents', ordered -> 'total_cents',
                 'attributed_token_id', ordered #> '{attributed_token,token_id}',
                 'items', (
                   select coalesce(jsonb_agg(jsonb_build_object(
                            'line_item_id', line -> 'line_item_id',
                            'product_id', line -> 'product_id',
                            'qty', line -> 'qty',
                            'total_cents', line -> 'total_cents',
                            'status', line -> 'status',
                            'attributed_token_id', line #> '{attributed_token,token_id}') order by line_position), '[]')
                     from jsonb_array_elements(ordered -> 'items') with ordinality as item (line, line_position)))
               order by position), '[]')
          from jsonb_array_elements(v_result -> 'vendor_orders') with ordinality as vendor_order (ordered, position)),
      'attribution', jsonb_build_object(
        'token_ids', checkout_emit_events.attribution -> 'token_ids',
        'dropped', checkout_emit_events.attribution -> 'dropped')));

  -- literals, not variables: an existing database may have enum types here
  insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at)
  values (v_created_id, 'checkout.vendor_orders_created', 'checkout_group', v_cart.checkout_group_id, v_created, v_cart.converted_at),
         (v_converted_id, 'checkout.converted', 'checkout_group', v_cart.checkout_group_id, v_converted, v_cart.converted_at);
end;
$$;

revoke execute on function checkout_emit_events(cart_records, jsonb, jsonb) from public;

comment on function checkout_emit_events(cart_records, jsonb, jsonb) is
  'Step of checkout_execute: writes the outbox events checkout.vendor_orders_created and checkout.converted, version 1.';
