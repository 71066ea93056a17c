-- cart_below_minimum: the vendors of a cart whose quote is below their minimum, with both figures.

create or replace function cart_below_minimum(cart_id uuid)
returns jsonb
language plpgsql
stable
as $$
begin
  return (
    select coalesce(jsonb_agg(jsonb_build_object('vendor_store_id', vendor.vendor_store_id, 'minimum_cents', vendor.minimum, 'merchandise_cents', vendor.total)
                              order by vendor.vendor_store_id), '[]')
      from (
        select part.vendor_store_id, max(part.minimum) as minimum, sum(part.total) as total
          from (
            select own.vendor_store_id, own.minimum_cents as minimum, null::bigint as total
              from cart_vendor_groups as own
             where own.cart_id = cart_below_minimum.cart_id and own.status = 'ok'
             union all
            select own.vendor_store_id, null, coalesce(own.line_total_cents, own.line_subtotal_cents)
              from cart_items as own
             where own.cart_id = cart_below_minimum.cart_id and own.status = 'ok'
          ) as part
         group by part.vendor_store_id
        having max(part.minimum) > sum(part.total)
      ) as vendor);
end;
$$;

revoke execute on function cart_below_minimum(uuid) from public;

comment on function cart_below_minimum(uuid) is
  'Vendors of a cart whose orderable lines come to less than their minimum: [{vendor_store_id, minimum_cents, merchandise_cents}], after line discounts, in cents.';
