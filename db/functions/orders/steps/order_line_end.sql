-- order_line_end: one line ends, as rejected or fulfilled, from the states that allow it, with one event; once.

create or replace function order_line_end(
  line_id uuid,
  line_status line_item_status,
  line_states text[],
  order_states text[],
  event_type text,
  reason text
)
returns jsonb
language plpgsql
as $$
declare
  v_line order_line_items;
  v_order vendor_orders;
begin
  select line.* into v_line from order_line_items as line where line.id = order_line_end.line_id and line.cart_item_id = line.id;
  if not found then
    raise exception 'there is no order line % that a checkout made', order_line_end.line_id
      using errcode = 'OC011',
            detail = jsonb_build_object('line_item_id', order_line_end.line_id),
            hint = 'Look at the id; orders that were there before pycheckout are not its to change.';
  end if;

  -- the order's lock comes before the line's, so the line is read again under both
  v_order := order_lock(v_line.order_id);
  select line.* into v_line from order_line_items as line where line.id = order_line_end.line_id;

  if v_line.status = order_line_end.line_status and v_line.reserved_qty = 0 then
    return order_describe(v_order, array[v_line.id])
           || jsonb_build_object('reason', case when v_line.status = 'rejected' then v_line.notes end, 'replayed', true);
  -- a host that wrote this end itself has not given back what the line holds
  elsif v_line.status::text <> all (order_line_end.line_states || order_line_end.line_status::text) or v_line.reserved_qty = 0 then
    perform order_raise_state('order line', v_line.id, v_line.status::text, order_line_end.line_states);
  elsif v_order.status::text <> all (order_line_end.order_states) then
    perform order_raise_state('order', v_order.id, v_order.status::text, order_line_end.order_states);
  end if;

  v_order := order_end_lines(v_order, array[v_line.id], order_line_end.line_status, order_line_end.reason);
  return order_emit_event(v_order, order_line_end.event_type, order_line_end.reason, array[v_line.id]);
end;
$$;

revoke execute on function order_line_end(uuid, line_item_status, text[], text[], text, text) from public;

comment on function order_line_end(uuid, line_item_status, text[], text[], text, text) is
  'Step of order_line_release and order_line_fulfil: ends a line that is in one of line_states, of an order in one of order_states; one '
  'that has ended so already answers replayed = true. Raises OC011 if no checkout made the line, OC012 for another state.';
