-- checkout_emit_events: the two outbox events of a conversion, in its transaction.
--
-- A partial unique index allows one of each kind an anchor. No NOTIFY: it would take one lock of the whole cluster at commit.

create or replace function checkout_emit_events(cart cart_records, result jsonb, event_orders json, attribution jsonb)
returns void
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_result constant jsonb := checkout_emit_events.result;
  v_created_id constant uuid := checkout_uuid();
  v_converted_id constant uuid := checkout_uuid();
  v_occurred_at constant text := checkout_timestamp(v_cart.converted_at);
  v_rejected jsonb := v_result -> 'rejected_vendors';
  v_created jsonb;
  v_converted jsonb;
begin
  if v_rejected <> '[]' then
    select jsonb_agg(jsonb_build_object('vendor_store_id', vendor -> 'vendor_store_id', 'reason', vendor -> 'reason') order by position)
      into v_rejected
      from jsonb_array_elements(v_rejected) with ordinality as rejected (vendor, position);
  end if;

  v_created := json_build_object(
    'version', 1, 'event_id', v_created_id, 'occurred_at', v_occurred_at, 'type', 'checkout.vendor_orders_created',
    'data', json_build_object(
      'checkout_group_id', v_cart.checkout_group_id,
      'cart_id', v_cart.id,
      'buyer_store_id', v_cart.buyer_store_id,
      'vendor_store_ids', jsonb_path_query_array(v_result, '$.vendor_orders[*].vendor_store_id'),
      'vendor_order_ids', jsonb_path_query_array(v_result, '$.vendor_orders[*].order_id'),
      'rejected_vendors', v_rejected))::jsonb;

  v_converted := json_build_object(
    'version', 1, 'event_id', v_converted_id, 'occurred_at', v_occurred_at, 'type', 'checkout.converted',
    'data', json_build_object(
      'checkout_group_id', v_cart.checkout_group_id,
      'cart_id', v_cart.id,
      'buyer_store_id', v_cart.buyer_store_id,
      'outcome', v_result -> 'outcome',
      'currency', v_cart.currency,
      'payment_method', v_cart.payment_method,
      'totals', v_result -> 'totals',
      'vendor_orders', checkout_emit_events.event_orders,
      'attribution', json_build_object(
        'token_ids', checkout_emit_events.attribution -> 'token_ids',
        'dropped', checkout_emit_events.attribution -> 'dropped')))::jsonb;

  -- literals, not variables: an existing database may have enum types here
  insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
  values (v_created_id, 'checkout.vendor_orders_created', 'checkout_group', v_cart.checkout_group_id, v_created, v_cart.converted_at, v_cart.converted_at),
         (v_converted_id, 'checkout.converted', 'checkout_group', v_cart.checkout_group_id, v_converted, v_cart.converted_at, v_cart.converted_at);
end;
$$;

revoke execute on function checkout_emit_events(cart_records, jsonb, json, jsonb) from public;

comment on function checkout_emit_events(cart_records, jsonb, json, jsonb) is
  'Step of checkout_execute: writes the outbox events checkout.vendor_orders_created and checkout.converted, version 1.';
