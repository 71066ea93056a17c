-- order_line_release: a vendor turns a line down, and its stock goes back to the shelf, once.

create or replace function order_line_release(line_id uuid, reason text)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
declare
  v_allowed constant text[] := array['created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'hold', 'canceled', 'expired'];
  v_line order_line_items;
  v_order vendor_orders;
begin
  if order_line_release.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  end if;
  perform order_check_reason(order_line_release.reason);

  v_line := order_lock_line(order_line_release.line_id);
  select vendor_order.* into v_order from vendor_orders as vendor_order where vendor_order.id = v_line.order_id;

  if v_line.status = 'rejected' then
    return order_describe(v_order, array[v_line.id]) || jsonb_build_object('reason', v_line.notes, 'replayed', true);
  elsif v_line.status not in ('pending', 'accepted', 'hold') then
    perform order_raise_state('order line', v_line.id, v_line.status::text, array['pending', 'accepted', 'hold']);
  elsif v_order.status::text <> all (v_allowed) then
    perform order_raise_state('order', v_order.id, v_order.status::text, v_allowed);
  end if;

  v_order := order_end_lines(v_order, array[v_line.id], 'rejected', order_line_release.reason);
  return order_emit_event(v_order, 'order_line.released', order_line_release.reason, array[v_line.id]);
end;
$$;

revoke execute on function order_line_release(uuid, text) from public;

comment on function order_line_release(uuid, text) is
  'Rejects an order line that is pending, accepted or on hold: its stock is available again, its amounts (cents) come off the order '
  'and its unpaid intent, an order without any other line is rejected, and one event order_line.released is written. A rejected line '
  'stays as it is and answers replayed = true. Locks the order, then stock, until the commit. Raises OC005 for a bad reason, OC011 for an unknown line, '
  'OC012 for another state; 55P03, 40001 and 40P01 are safe to retry.';
