-- payment_record: what a payment provider told of an order, once.
--
-- An event is a fact: whatever state the order is in, however late it comes and after what, it is written, and what is due
-- is judged by the sums of all of them. So the same events in any order, and any number of times, come to the same end.

create or replace function payment_record(
  order_id uuid,
  provider text,
  provider_event_id text,
  kind text,
  amount_cents bigint,
  currency text,
  occurred_at timestamptz default null,
  details jsonb default null
)
returns jsonb
language plpgsql
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_order vendor_orders;
  v_event payment_events;
begin
  v_event := payment_read(payment_record.order_id, payment_record.provider, payment_record.provider_event_id, payment_record.kind,
                          payment_record.amount_cents, payment_record.currency, payment_record.occurred_at, payment_record.details);
  v_order := payment_lock(v_event);
  if payment_was_recorded(v_event) then
    return payment_describe(v_order, v_event) || jsonb_build_object('replayed', true);
  end if;

  v_order.updated_at := order_next_instant(v_order);
  v_event.created_at := v_order.updated_at;
  perform payment_write(v_order, v_event);
  v_order := payment_settle(v_order);
  return payment_emit_event(v_order, v_event);
end;
$$;

revoke execute on function payment_record(uuid, text, text, text, bigint, text, timestamptz, jsonb) from public;

comment on function payment_record(uuid, text, text, text, bigint, text, timestamptz, jsonb) is
  'Records one event of a payment provider for an order, in whatever state the order is: authorized, captured, voided, refunded, failed, disputed or '
  'reversed, with this order''s share of it in minor units, above 0 (of a failure 0 or more). balance_due_cents and refund_due_cents follow from all events of '
  'the order, its intent is unpaid, pending, settled or failed by them (a state of the host''s, paid too, stays), full payment ends its deadline, and '
  'one event payment.changed is written. The same event again, by order, provider and provider_event_id, changes nothing and answers replayed = true. '
  'details: a JSON object, at most 16 kB and 8 levels. Locks the order, then its intent, until the commit. Raises OC005 for a malformed argument, another '
  'currency than the order''s or a sum that 64 bits do not hold, OC006 if the event was recorded with another kind or amount, OC011 for an unknown '
  'order, OC007 if a trigger keeps a row from being written; 55P03, 40001 and 40P01 are safe to retry.';
