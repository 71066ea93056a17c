-- payment_lock: locks the order that an event is about, the first lock of all that happens to it.
--
-- Not its lines, which a payment leaves alone. Of two deliveries of one event the second one waits here and then finds it. Any order
-- of the schema is taken, those of the earlier system too: what was paid was paid. One that has no currency has that of its first payment.

create or replace function payment_lock(event payment_events)
returns vendor_orders
language plpgsql
as $$
declare
  v_order vendor_orders;
  v_currency text;
begin
  select vendor_order.* into v_order from vendor_orders as vendor_order where vendor_order.id = (payment_lock.event).order_id for no key update;
  if not found then
    raise exception 'there is no order %', (payment_lock.event).order_id
      using errcode = 'OC011',
            detail = jsonb_build_object('order_id', (payment_lock.event).order_id),
            hint = 'Look at the id, and at the schema: nothing was recorded.';
  end if;
  v_currency := coalesce(upper(btrim(v_order.currency::text)),   -- a host's column may hold it in its own way
                         (select paid.currency from payment_events as paid where paid.order_id = v_order.id limit 1));
  if v_currency <> (payment_lock.event).currency then
    perform checkout_raise_invalid('currency', format('must be %s, that of the order', v_currency));
  end if;
  return v_order;
end;
$$;

revoke execute on function payment_lock(payment_events) from public;

comment on function payment_lock(payment_events) is
  'Step of payment_record: locks the order FOR NO KEY UPDATE and returns it. Raises OC011 if there is none, OC005 if it has another currency.';
