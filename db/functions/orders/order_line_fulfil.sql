-- order_line_fulfil: a line's goods leave, and what it holds stops being reserved, once.

create or replace function order_line_fulfil(line_id uuid)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
begin
  if order_line_fulfil.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  end if;
  return order_line_end(
    order_line_fulfil.line_id, 'fulfilled',
    array['pending', 'accepted'],
    array['created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'in_transit', 'delivered', 'fulfilled'],
    'order_line.fulfilled', null);
end;
$$;

revoke execute on function order_line_fulfil(uuid) from public;

comment on function order_line_fulfil(uuid) is
  'Fulfils an order line that is pending or accepted (or that was set to fulfilled while it still holds stock): its units are no longer reserved, '
  'its order is partially_fulfilled or fulfilled (in_transit and delivered stay), and one event order_line.fulfilled is written. A fulfilled line stays as it is and answers replayed = true. '
  'Locks the order, then stock, until the commit. Raises OC005 for a null id, OC007 if a trigger keeps a row from being written, '
  'OC011 for an unknown line, OC012 for another state; '
  '55P03, 40001 and 40P01 are safe to retry.';
