-- payment_was_recorded: whether this event of the provider was recorded for this order before.
--
-- Called under the order's lock, so of two at once the second one finds it.

create or replace function payment_was_recorded(event payment_events)
returns boolean
language plpgsql
stable
as $$
declare
  v_there payment_events;
begin
  select recorded.* into v_there
    from payment_events as recorded
   where recorded.order_id = (payment_was_recorded.event).order_id
     and recorded.provider = (payment_was_recorded.event).provider
     and recorded.provider_event_id = (payment_was_recorded.event).provider_event_id;
  if not found then
    return false;
  elsif (v_there.kind, v_there.amount_cents) <> ((payment_was_recorded.event).kind, (payment_was_recorded.event).amount_cents) then
    raise exception 'event % of % is recorded for order % already, as % of %',
        v_there.provider_event_id, v_there.provider, v_there.order_id, v_there.kind, v_there.amount_cents
      using errcode = 'OC006',
            detail = jsonb_build_object('order_id', v_there.order_id, 'provider', v_there.provider, 'provider_event_id', v_there.provider_event_id,
                                        'kind', v_there.kind, 'amount_cents', v_there.amount_cents),
            hint = 'Give each event of the provider the id that it has there; what is recorded stays.';
  end if;
  return true;
end;
$$;

revoke execute on function payment_was_recorded(payment_events) from public;

comment on function payment_was_recorded(payment_events) is
  'Step of payment_record: whether the event is there already. Raises OC006 if it is there with another kind or amount.';
