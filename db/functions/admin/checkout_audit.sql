-- checkout_audit: every broken invariant of the database, one row each; none on a healthy one, at any moment.
--
-- STABLE, so that all of it reads one snapshot: a checkout that commits meanwhile is seen whole or not at all. It judges
-- what pycheckout wrote, which shows by cart_item_id = id on the lines, by the cart's event, or by an order that has the id
-- of its vendor group; history is taken as it is, and so is what a host may do to an order (docs/guarantees.md lists it).

create or replace function checkout_audit(since timestamptz default null)
returns table (invariant text, id text, expected text, found text)
language plpgsql
stable
security definer
set search_path from current
set jit = off
as $$
begin
  return query
  select slice.invariant, slice.id, slice.expected, slice.found from checkout_audit_slice(checkout_audit.since, null, null) as slice;
  return query
  select rest.invariant, rest.id, rest.expected, rest.found from checkout_audit_rest(checkout_audit.since) as rest;
end;
$$;

revoke execute on function checkout_audit(timestamptz) from public;

comment on function checkout_audit(timestamptz) is
  'Broken invariants, a row each: name, id, expected, found. Zero rows on a healthy database, also under load. With since, '
  'only orders and carts from then on (stock is always judged whole). Reads much; for the owner. Writes nothing. '
  '`pycheckout audit` does the same slice by slice.';
