-- payment_describe: what is paid and due of an order, and the event that was recorded, for events and answers. Never the details: they are
-- for whoever may read the table.

create or replace function payment_describe(vendor_order vendor_orders, event payment_events)
returns jsonb
language plpgsql
stable
as $$
declare
  v_order constant vendor_orders := payment_describe.vendor_order;
  v_event payment_events;
  v_sums constant record := payment_sums(v_order.id);
begin
  -- of a replay: as it was recorded
  select recorded.* into v_event
    from payment_events as recorded
   where recorded.order_id = v_order.id
     and recorded.provider = (payment_describe.event).provider
     and recorded.provider_event_id = (payment_describe.event).provider_event_id;
  return jsonb_build_object(
    'order_id', v_order.id,
    'checkout_group_id', v_order.checkout_group_id,
    'cart_id', v_order.cart_id,
    'buyer_store_id', v_order.buyer_store_id,
    'vendor_store_id', v_order.vendor_store_id,
    'status', v_order.status,
    'currency', v_event.currency,
    'total_cents', v_order.total_cents,
    'authorized_cents', v_sums.open_cents,
    'captured_cents', v_sums.captured_cents,
    'refunded_cents', v_sums.refunded_cents,
    'balance_due_cents', v_order.balance_due_cents,
    'refund_due_cents', v_order.refund_due_cents,
    'payment_intent', (
      select jsonb_build_object('payment_intent_id', intent.id, 'method', intent.method, 'status', intent.status, 'amount_cents', intent.amount_cents)
        from payment_intents as intent
       where intent.order_id = v_order.id),
    'payment', jsonb_build_object(
      'provider', v_event.provider,
      'provider_event_id', v_event.provider_event_id,
      'kind', v_event.kind,
      'amount_cents', v_event.amount_cents,
      'occurred_at', checkout_timestamp(v_event.occurred_at)));
end;
$$;

revoke execute on function payment_describe(vendor_orders, payment_events) from public;

comment on function payment_describe(vendor_orders, payment_events) is
  'Step of payment_record: what is paid and due of an order in cents, its intent, and the event as it was recorded, without its details.';
