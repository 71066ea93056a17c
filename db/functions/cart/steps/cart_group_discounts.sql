-- cart_group_discounts: the groups of a quote with what is discounted in each: what its total lacks of its subtotal, with what
-- tax and shipping add.
--
-- Over groups and items in one, not by a join, of which the planner would not know how many rows it has.

create or replace function cart_group_discounts(cart cart_records, groups cart_vendor_groups[], items cart_items[])
returns cart_vendor_groups[]
language plpgsql
stable
as $$
begin
  return (
    select coalesce(array_agg(jsonb_populate_record(part.own, jsonb_build_object('discounts_cents',
                      (part.own).subtotal_cents::numeric - (part.own).total_cents + coalesce((part.own).shipping_cents, 0)
                      + case when (cart_group_discounts.cart).tax_included then 0 else coalesce((part.own).shipping_tax_cents, 0) + part.tax_cents end))
                    order by part.group_no) filter (where part.group_no is not null), '{}')
      from (
        select listed.own, listed.group_no, coalesce(sum(listed.tax_cents) over (partition by listed.vendor_store_id), 0) as tax_cents
          from (
            select own.vendor_store_id, row_number() over () as group_no, null::bigint as tax_cents, own
              from unnest(cart_group_discounts.groups) as own
             union all
            select item.vendor_store_id, null, item.tax_cents, null
              from unnest(cart_group_discounts.items) as item
             where item.status = 'ok'
          ) as listed
      ) as part);
exception when numeric_value_out_of_range then
  perform checkout_raise_invalid('cart.vendor_groups', 'has a total too far from its subtotal for an amount');
  return null;   -- which never comes
end;
$$;

revoke execute on function cart_group_discounts(cart_records, cart_vendor_groups[], cart_items[]) from public;

comment on function cart_group_discounts(cart_records, cart_vendor_groups[], cart_items[]) is
  'Step of cart_put: the groups with their discounts_cents. Raises OC005 for one that is out of range.';
