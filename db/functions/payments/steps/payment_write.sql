-- payment_write: the row of an event, which nobody changes any more.

create or replace function payment_write(vendor_order vendor_orders, event payment_events)
returns void
language plpgsql
as $$
declare
  v_event constant payment_events := payment_write.event;
  v_rows bigint;
begin
  insert into payment_events (order_id, provider, provider_event_id, kind, amount_cents, currency, occurred_at, details, created_at)
  values (v_event.order_id, v_event.provider, v_event.provider_event_id, v_event.kind, v_event.amount_cents, v_event.currency, v_event.occurred_at,
          v_event.details, v_event.created_at);
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows((payment_write.vendor_order).cart_id, 'payment_events', 1, v_rows);
  end if;
end;
$$;

revoke execute on function payment_write(vendor_orders, payment_events) from public;

comment on function payment_write(vendor_orders, payment_events) is
  'Step of payment_record: writes the event. Raises OC007 if a trigger keeps the row from being written.';
