-- order_line_fulfil: a line's goods leave, all that it holds or a part, and stop being reserved, once.

create or replace function order_line_fulfil(line_id uuid, qty integer default null, change_key text default null, details jsonb default null)
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
  if order_line_fulfil.line_id is null then
    perform checkout_raise_invalid('line_id', 'is required');
  end if;
  perform checkout_check_object('details', nullif(order_line_fulfil.details, 'null'));
  return order_line_end(
    order_line_fulfil.line_id, 'fulfilled',
    array['pending', 'accepted'],
    array['created_pending', 'accepted', 'partially_accepted', 'partially_fulfilled', 'in_transit', 'delivered', 'fulfilled'],
    null, order_line_fulfil.qty, order_line_fulfil.change_key, nullif(order_line_fulfil.details, 'null'));
end;
$$;

revoke execute on function order_line_fulfil(uuid, integer, text, jsonb) from public;

comment on function order_line_fulfil(uuid, integer, text, jsonb) is
  'Fulfils an order line that is pending or accepted (or that was set to fulfilled while it still holds stock): qty of its units, or all that it holds, are no longer reserved, '
  'its order is partially_fulfilled or fulfilled (in_transit and delivered stay), and one event order_line.fulfilled is written, with details (carrier, tracking) as given. '
  'A quantity needs a change_key, and the same request under it answers replayed = true; without one a line whose last change this was does. '
  'Locks the order, then stock, until the commit. Raises OC005 for a null id, a bad quantity, key or details, OC006 for the key of another change, OC007 if a trigger keeps a row from being written, '
  'OC011 for an unknown line, OC012 for another state, more units than are held, or a product that has fewer reserved; '
  '55P03, 40001 and 40P01 are safe to retry.';
