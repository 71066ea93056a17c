-- order_line_release: a vendor turns a line down, and its stock goes back to the shelf, once.

create or replace function order_line_release(line_id uuid, reason text)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
begin
  if order_line_release.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  end if;
  perform order_check_reason(order_line_release.reason);
  return order_line_end(
    order_line_release.line_id, 'rejected',
    array['pending', 'accepted', 'hold'],
    array['created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'hold', 'canceled', 'expired', 'rejected'],
    'order_line.released', order_line_release.reason);
end;
$$;

revoke execute on function order_line_release(uuid, text) from public;

comment on function order_line_release(uuid, text) is
  'Rejects an order line that is pending, accepted or on hold (or that was set to rejected while it still holds stock): its stock is available again, '
  'its amounts (cents) come off the order and its unpaid intent, an order without any other line is rejected, and one event order_line.released is written. A rejected line '
  'stays as it is and answers replayed = true. Locks the order, then stock, until the commit. Raises OC005 for a bad reason, '
  'OC007 if a trigger keeps a row from being written, OC011 for an unknown line, '
  'OC012 for another state; 55P03, 40001 and 40P01 are safe to retry.';
