-- payment_read: the arguments of payment_record as a row, checked before any lock.

create or replace function payment_read(
  order_id uuid,
  provider text,
  provider_event_id text,
  kind text,
  amount_cents bigint,
  currency text,
  occurred_at timestamptz,
  details jsonb
)
returns payment_events
language plpgsql
stable
as $$
declare
  v_kinds constant text[] := array['authorized', 'captured', 'voided', 'refunded', 'failed', 'disputed', 'reversed'];
  v_event payment_events;
begin
  if payment_read.order_id is null then
    perform checkout_raise_invalid('order_id', 'is required');
  elsif (length(payment_read.provider) <= 100 and payment_read.provider ~ '^[!-~]+$' collate "C") is not true then
    perform checkout_raise_invalid('provider', 'must be 1 to 100 visible ASCII characters');
  elsif (length(payment_read.provider_event_id) <= 255 and payment_read.provider_event_id ~ '^[!-~]+$' collate "C") is not true then
    perform checkout_raise_invalid('provider_event_id', 'must be 1 to 255 visible ASCII characters');
  elsif (payment_read.kind = any (v_kinds)) is not true then
    perform checkout_raise_invalid('kind', 'must be one of ' || array_to_string(v_kinds, ', '));
  elsif (payment_read.amount_cents >= case payment_read.kind when 'failed' then 0 else 1 end) is not true then
    perform checkout_raise_invalid('amount_cents', case payment_read.kind when 'failed' then 'must be 0 or more' else 'must be above 0' end);
  elsif (payment_read.currency ~ '^[A-Z]{3}$' collate "C") is not true then
    perform checkout_raise_invalid('currency', 'must be an ISO 4217 code');
  elsif not isfinite(payment_read.occurred_at) or payment_read.occurred_at >= '10000-01-01T00:00:00Z' then
    perform checkout_raise_invalid('occurred_at', 'must be a time before the year 10000, or null');
  end if;

  v_event.order_id := payment_read.order_id;
  v_event.provider := payment_read.provider;
  v_event.provider_event_id := payment_read.provider_event_id;
  v_event.kind := payment_read.kind;
  v_event.amount_cents := payment_read.amount_cents;
  v_event.currency := payment_read.currency;
  v_event.occurred_at := payment_read.occurred_at;
  v_event.details := nullif(payment_read.details, 'null');
  perform checkout_check_object('details', v_event.details);
  return v_event;
end;
$$;

revoke execute on function payment_read(uuid, text, text, text, bigint, text, timestamptz, jsonb) from public;

comment on function payment_read(uuid, text, text, text, bigint, text, timestamptz, jsonb) is
  'Step of payment_record: its arguments as a row of payment_events. Raises OC005 for a malformed one.';
