-- order_line_end: units that a line holds end, as released or fulfilled, from the states that allow it, with one event; once.
--
-- A quantity needs a key, since the states of a line do not tell whether a part of it left already. Without one all ends that
-- is held, and a repeat is told by the last thing that happened to the line.

create or replace function order_line_end(
  line_id uuid,
  kind text,
  line_states text[],
  order_states text[],
  reason text,
  qty integer,
  change_key text,
  details jsonb
)
returns jsonb
language plpgsql
as $$
declare
  v_kind alias for kind;
  v_qty alias for qty;
  v_ended constant text := case v_kind when 'released' then 'rejected' else 'fulfilled' end;
  v_hash constant bytea := order_read_key(order_line_end.change_key, v_qty is not null, jsonb_build_object(
    'kind', v_kind, 'line_item_id', order_line_end.line_id, 'qty', v_qty));
  v_line order_line_items;
  v_order vendor_orders;
  v_change order_changes;
  v_was_this boolean;
begin
  if v_qty < 1 then
    perform checkout_raise_invalid('qty', 'must be at least 1, or null for all that is held');
  end if;
  v_order := order_lock_line(order_line_end.line_id);
  v_change := order_check_key(v_order.id, order_line_end.change_key, v_hash);
  if v_change.id is not null then
    return order_describe_change(v_order, v_change) || jsonb_build_object('replayed', true);
  end if;
  select line.* into v_line from order_line_items as line where line.id = order_line_end.line_id;

  if v_line.reserved_qty = 0 and v_qty is null then
    v_change := order_last_change(v_order.id, v_line.id);
    v_was_this := case when v_change.id is null then v_line.status::text = v_ended
                       else exists (select from jsonb_array_elements(v_change.lines) as own
                                     where own ->> 'line_item_id' = v_line.id::text and (own ->> (v_kind || '_qty'))::integer > 0) end;
    if v_was_this then
      return order_describe(v_order, array[v_line.id])
             || jsonb_build_object('reason', case when v_line.status = 'rejected' then v_line.notes end, 'changes', '[]'::jsonb, 'amount_cents', null,
                                   'details', null, 'change_key', null, 'replayed', true);
    end if;
  end if;
  -- a host that wrote this end itself has not given back what the line holds
  if v_line.status::text <> all (order_line_end.line_states || v_ended) or v_line.reserved_qty = 0 then
    perform order_raise_state('order line', v_line.id, v_line.status::text, order_line_end.line_states);
  elsif v_order.status::text <> all (order_line_end.order_states) then
    perform order_raise_state('order', v_order.id, v_order.status::text, order_line_end.order_states);
  elsif v_qty > v_line.reserved_qty then
    perform order_raise_units(v_line, v_qty, v_line.reserved_qty);
  end if;

  perform inventory_return(v_order.cart_id, array[v_line.id], v_kind = 'released', array[coalesce(v_qty, v_line.reserved_qty)]);
  return order_change(
    v_order, v_kind, 'order_line.' || v_kind, array[v_line.id], array[coalesce(v_qty, v_line.reserved_qty)], order_line_end.reason,
    details => order_line_end.details, change_key => order_line_end.change_key, request_hash => v_hash);
end;
$$;

revoke execute on function order_line_end(uuid, text, text[], text[], text, integer, text, jsonb) from public;

comment on function order_line_end(uuid, text, text[], text[], text, integer, text, jsonb) is
  'Step of order_line_release and order_line_fulfil: ends units of a line that is in one of line_states, of an order in one of order_states; a repeat '
  'answers replayed = true. Raises OC005 for a quantity below 1 or without a key, OC006 for the key of another request, OC011 if no checkout made the line, '
  'OC012 for another state or more units than are held.';
