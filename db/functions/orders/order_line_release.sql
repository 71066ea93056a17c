-- order_line_release: a vendor turns a line down, all that it holds or a part, and its stock goes back to the shelf, once.

create or replace function order_line_release(line_id uuid, reason text, qty integer default null, change_key text default null)
returns jsonb
language plpgsql
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
begin
  if order_line_release.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  end if;
  perform order_check_reason(order_line_release.reason);
  return order_line_end(
    order_line_release.line_id, 'released',
    array['pending', 'accepted', 'hold'],
    array['created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'hold', 'canceled', 'expired', 'rejected'],
    order_line_release.reason, order_line_release.qty, order_line_release.change_key, null);
end;
$$;

revoke execute on function order_line_release(uuid, text, integer, text) from public;

comment on function order_line_release(uuid, text, integer, text) is
  'Turns down qty units of an order line that is pending, accepted or on hold (or that was set to rejected while it still holds stock), or all that it holds: their stock is available again, '
  'their part of its amounts (cents) comes off the order and its unpaid intent, a line of which nothing was shipped is rejected, so is an order without any other line, and one event order_line.released is written. '
  'A quantity needs a change_key, and the same request under it answers replayed = true; without one a line whose last change this was does. '
  'Locks the order, then stock, until the commit. Raises OC005 for a bad reason, quantity or key, OC006 for the key of another change, '
  'OC007 if a trigger keeps a row from being written, OC011 for an unknown line, '
  'OC012 for another state, more units than are held, or stock that cannot be given back; 55P03, 40001 and 40P01 are safe to retry.';
