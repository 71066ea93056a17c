-- cart_lines_below_minimum: the lines of vendors whose lines that are not short come to less than the vendor's minimum, but to something:
-- a vendor whose every line is short is short, not below a minimum.

create or replace function cart_lines_below_minimum(cart_id uuid, vendor_store_ids uuid[], short_line_ids uuid[])
returns uuid[]
language plpgsql
stable
as $$
begin
  return (
    select coalesce(array_agg(line_id), '{}')
      from (
        select array_agg(part.line_id) filter (where part.line_id is not null) as line_ids
          from (
            select own.vendor_store_id, own.minimum_cents as minimum, null::uuid as line_id, null::bigint as total
              from cart_vendor_groups as own
             where own.cart_id = cart_lines_below_minimum.cart_id and own.vendor_store_id = any (cart_lines_below_minimum.vendor_store_ids)
             union all
            select own.vendor_store_id, null, own.id, coalesce(own.line_total_cents, own.line_subtotal_cents)
              from cart_items as own
             where own.cart_id = cart_lines_below_minimum.cart_id and own.status = 'ok'
               and own.vendor_store_id = any (cart_lines_below_minimum.vendor_store_ids)
               and own.id <> all (cart_lines_below_minimum.short_line_ids)
          ) as part
         group by part.vendor_store_id
        having sum(part.total) < max(part.minimum)
      ) as vendor
     cross join unnest(vendor.line_ids) as line_id);
end;
$$;

revoke execute on function cart_lines_below_minimum(uuid, uuid[], uuid[]) from public;

comment on function cart_lines_below_minimum(uuid, uuid[], uuid[]) is
  'Step of inventory_reserve: the lines, short ones left out, of the vendors of a cart who are below their minimum (cents) without the short ones.';
