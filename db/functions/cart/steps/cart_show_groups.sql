-- cart_show_groups: the vendor groups of a cart with their items, as a quote has them.
--
-- Groups and items are brought together by sorting, not by a join, of which the planner would not know how many rows it has: a cart may
-- have 5000 of either. A vendor who has items but no group can sell none of them, which is what invalid says. discounts_cents of a
-- group is never read, so what a host may have left there is not shown.

create or replace function cart_show_groups(cart_id uuid, tax_included boolean)
returns json
language plpgsql
stable
as $$
begin
  return (
    select coalesce(json_agg(json_build_object(
             'id', (vendor.own).id,
             'vendor_store_id', vendor.vendor_store_id,
             'status', coalesce((vendor.own).status, 'invalid'),
             'subtotal_cents', coalesce((vendor.own).subtotal_cents, 0),
             'discounts_cents', coalesce((vendor.own).subtotal_cents::numeric - (vendor.own).total_cents + coalesce((vendor.own).shipping_cents, 0)
                                         + case when cart_show_groups.tax_included then 0
                                                else coalesce((vendor.own).shipping_tax_cents, 0) + vendor.tax_cents end, 0),
             'line_discounts_cents', (vendor.own).line_discounts_cents,
             'promo_discount_cents', (vendor.own).promo_discount_cents,
             'total_cents', coalesce((vendor.own).total_cents, 0),
             'promo', (vendor.own).promo,
             'shipping_cents', (vendor.own).shipping_cents,
             'shipping_tax_cents', (vendor.own).shipping_tax_cents,
             'shipping_line', (vendor.own).shipping_line,
             'minimum_cents', (vendor.own).minimum_cents,
             'payment_terms', (vendor.own).payment_terms,
             'warnings', coalesce(nullif((vendor.own).warnings, 'null'), '[]'),
             'items', vendor.items) order by vendor.vendor_store_id), '[]')
      from (
        select part.vendor_store_id, (array_agg(part.own) filter (where part.item_id is null))[1] as own,
               coalesce(sum(part.tax_cents), 0) as tax_cents,
               coalesce(json_agg(part.item order by part.item_id) filter (where part.item_id is not null), '[]') as items
          from (
            select own.vendor_store_id, row(own.*)::cart_vendor_groups as own, null::uuid as item_id, null::json as item, null::bigint as tax_cents
              from cart_vendor_groups as own
             where own.cart_id = cart_show_groups.cart_id
             union all
            select own.vendor_store_id, null::cart_vendor_groups, own.id, to_json(line), case own.status when 'ok' then own.tax_cents end
              from cart_items as own
             cross join lateral (
               select own.id, own.product_id, own.title, own.category, own.unit, own.quantity, own.moq, own.max_qty, own.unit_price_cents,
                      own.line_subtotal_cents, own.line_discounts_cents, own.line_total_cents, own.tax_cents, own.tax_lines, own.applied_volume_discount,
                      coalesce(nullif(own.warnings, 'null'), '[]') as warnings, own.status
             ) as line
             where own.cart_id = cart_show_groups.cart_id
          ) as part
         group by part.vendor_store_id
      ) as vendor);
end;
$$;

revoke execute on function cart_show_groups(uuid, boolean) from public;

comment on function cart_show_groups(uuid, boolean) is
  'Step of cart_get and checkout_result: the vendor groups of a cart and their items as a JSON array, amounts in cents.';
