-- payment_emit_event: the one outbox event of a payment event, in its transaction. Its data is also the answer.
--
-- Its aggregate is the checkout's, so that nobody hears of a payment before the order.

create or replace function payment_emit_event(vendor_order vendor_orders, event payment_events)
returns jsonb
language plpgsql
as $$
declare
  v_event_id constant uuid := checkout_uuid();
  v_order constant vendor_orders := payment_emit_event.vendor_order;
  -- the event's, not the order's updated_at, which a trigger of the host may set to the beginning of its transaction
  v_at constant timestamptz := (payment_emit_event.event).created_at;
  v_data constant jsonb := payment_describe(v_order, payment_emit_event.event);
  v_rows bigint;
begin
  insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
  values (v_event_id, 'payment.changed', 'checkout_group', v_order.checkout_group_id,
          jsonb_build_object('version', 1, 'event_id', v_event_id, 'occurred_at', checkout_timestamp(v_at),
                             'type', 'payment.changed', 'data', v_data),
          v_at, least(v_at, clock_timestamp()));   -- due at once, however far ahead a host dated the order
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_order.cart_id, 'outbox_events', 1, v_rows);
  end if;
  return v_data || jsonb_build_object('replayed', false);
end;
$$;

revoke execute on function payment_emit_event(vendor_orders, payment_events) from public;

comment on function payment_emit_event(vendor_orders, payment_events) is
  'Step of payment_record: writes payment.changed, version 1, and returns its data with replayed = false. Raises OC007 if a trigger keeps the row from being written.';
