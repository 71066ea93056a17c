-- order_emit_event: the one outbox event of a change to an order, in its transaction. Its data is also the answer.
--
-- Its aggregate is the checkout's, so that nobody hears of an end before the beginning.

create or replace function order_emit_event(vendor_order vendor_orders, event_type text, change order_changes)
returns jsonb
language plpgsql
as $$
declare
  -- the columns' own types: an existing database may have enum types here
  v_event_type constant outbox_events.event_type%type := order_emit_event.event_type;
  v_event_id constant uuid := (order_emit_event.change).id;
  v_order constant vendor_orders := order_emit_event.vendor_order;
  -- the change's, not the order's updated_at, which a trigger of the host may set to the beginning of its transaction
  v_at constant timestamptz := (order_emit_event.change).created_at;
  v_data constant jsonb := order_describe_change(v_order, order_emit_event.change);
  v_rows bigint;
begin
  insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
  values (v_event_id, v_event_type, 'checkout_group', v_order.checkout_group_id,
          jsonb_build_object('version', 1, 'event_id', v_event_id, 'occurred_at', checkout_timestamp(v_at),
                             'type', order_emit_event.event_type, 'data', v_data),
          v_at, least(v_at, clock_timestamp()));   -- due at once, however far ahead a host dated the order
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_order.cart_id, 'outbox_events', 1, v_rows);
  end if;
  return v_data;
end;
$$;

revoke execute on function order_emit_event(vendor_orders, text, order_changes) from public;

comment on function order_emit_event(vendor_orders, text, order_changes) is
  'Step of order_change: writes the event of a change, version 1, with the change''s id, and returns its data.';
