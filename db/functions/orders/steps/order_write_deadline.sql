-- order_write_deadline: the change and the event of a deadline that passed or was moved, under one id. The event's data is also the answer.
--
-- Its aggregate is the checkout's, so that nobody hears of an end before the beginning.

create or replace function order_write_deadline(
  vendor_order vendor_orders,
  kind text,
  lines jsonb,
  amount_cents bigint,
  line_ids uuid[],
  details jsonb
)
returns jsonb
language plpgsql
as $$
declare
  v_id constant uuid := checkout_uuid();
  v_order constant vendor_orders := order_write_deadline.vendor_order;
  v_type constant text := 'vendor_order.' || order_write_deadline.kind;
  -- the column's own type: an existing database may have an enum type here
  v_event_type constant outbox_events.event_type%type := v_type;
  v_data constant jsonb := order_describe(v_order, order_write_deadline.line_ids) || order_write_deadline.details;
  v_rows bigint;
begin
  insert into order_changes (id, order_id, kind, lines, amount_cents, details, created_at)
  values (v_id, v_order.id, order_write_deadline.kind, order_write_deadline.lines, order_write_deadline.amount_cents, order_write_deadline.details,
          v_order.updated_at);
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_order.cart_id, 'order_changes', 1, v_rows);
  end if;

  insert into outbox_events (id, event_type, aggregate_type, aggregate_id, payload, created_at, next_attempt_at)
  values (v_id, v_event_type, 'checkout_group', v_order.checkout_group_id,
          jsonb_build_object('version', 1, 'event_id', v_id, 'occurred_at', checkout_timestamp(v_order.updated_at), 'type', v_type, 'data', v_data),
          v_order.updated_at, v_order.updated_at);
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(v_order.cart_id, 'outbox_events', 1, v_rows);
  end if;
  return v_data || jsonb_build_object('replayed', false);
end;
$$;

revoke execute on function order_write_deadline(vendor_orders, text, jsonb, bigint, uuid[], jsonb) from public;

comment on function order_write_deadline(vendor_orders, text, jsonb, bigint, uuid[], jsonb) is
  'Step of vendor_orders_expire and vendor_order_extend: notes the change (expired or extended) in order_changes, writes its event, version 1, and returns '
  'its data with replayed = false. Raises OC007 if a trigger keeps a row from being written.';
