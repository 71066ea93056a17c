-- payment_lock: locks the order that an event is about, the first lock of all that happens to it.
--
-- Not its lines, which a payment leaves alone. Of two deliveries of one event the second one waits here and then finds it. Any order
-- of the schema is taken, those of the earlier system too: what was paid was paid.

create or replace function payment_lock(event payment_events)
returns vendor_orders
language plpgsql
as $$
declare
  v_order vendor_orders;
begin
  select vendor_order.* into v_order from vendor_orders as vendor_order where vendor_order.id = (payment_lock.event).order_id for update;
  if not found then
    raise exception 'there is no order %', (payment_lock.event).order_id
      using errcode = 'OC011',
            detail = jsonb_build_object('order_id', (payment_lock.event).order_id),
            hint = 'Look at the id, and at the schema: nothing was recorded.';
  elsif upper(btrim(v_order.currency::text)) <> (payment_lock.event).currency then   -- a host's column may hold it in its own way
    perform checkout_raise_invalid('currency', format('must be %s, that of the order', upper(btrim(v_order.currency::text))));
  end if;
  return v_order;
end;
$$;

revoke execute on function payment_lock(payment_events) from public;

comment on function payment_lock(payment_events) is
  'Step of payment_record: locks the order FOR UPDATE and returns it. Raises OC011 if there is none, OC005 if it has another currency.';
