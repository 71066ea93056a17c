-- checkout_emit_events: the two outbox events of a conversion, in its transaction.
--
-- A partial unique index allows one of each kind an anchor. No NOTIFY: it would take one lock of the whole cluster at commit.

create or replace function checkout_emit_events(checkout_group_id uuid, cart_id uuid, now timestamptz, occurred_at text, created json, converted json)
returns void
language plpgsql
as $$
declare
  v_created_id constant uuid := checkout_uuid();
  v_converted_id constant uuid := checkout_uuid();
  v_created constant jsonb := json_build_object(
    'version', 1, 'event_id', v_created_id, 'occurred_at', checkout_emit_events.occurred_at, 'type', 'checkout.vendor_orders_created',
    'data', checkout_emit_events.created);
  v_converted constant jsonb := json_build_object(
    'version', 1, 'event_id', v_converted_id, 'occurred_at', checkout_emit_events.occurred_at, 'type', 'checkout.converted',
    'data', checkout_emit_events.converted);
  v_rows bigint;
begin
  -- literals, not variables: an existing database may have enum types here
  insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
  values (v_created_id, 'checkout.vendor_orders_created', 'checkout_group', checkout_emit_events.checkout_group_id, v_created, checkout_emit_events.now, checkout_emit_events.now),
         (v_converted_id, 'checkout.converted', 'checkout_group', checkout_emit_events.checkout_group_id, v_converted, checkout_emit_events.now, checkout_emit_events.now);
  get diagnostics v_rows = row_count;
  if v_rows <> 2 then
    perform checkout_raise_rows(checkout_emit_events.cart_id, 'outbox_events', 2, v_rows);
  end if;
end;
$$;

revoke execute on function checkout_emit_events(uuid, uuid, timestamptz, text, json, json) from public;

comment on function checkout_emit_events(uuid, uuid, timestamptz, text, json, json) is
  'Step of checkout_execute: writes the outbox events checkout.vendor_orders_created and checkout.converted, version 1.';
