-- checkout_vendor_amounts: what each ordered vendor's group comes to without the rejected lines, in cents.
--
-- Copied, never priced: a net line (line_total_cents null) counts its subtotal and no discount, its volume discount
-- being in the price already; a gross line counts all three figures. The group's total is the truth, so the promotion's
-- share is what its discount has beyond the lines'. Rejected lines take exactly their own amounts with them; a share
-- that is then larger than what is left is capped at that.

create or replace function checkout_vendor_amounts(cart_id uuid, rejected_line_ids uuid[])
returns table (
  vendor_group_id uuid,
  vendor_store_id uuid,
  promo jsonb,
  warnings jsonb,
  quoted_subtotal_cents numeric,
  quoted_total_cents numeric,
  lines_subtotal_cents numeric,
  promo_cents numeric,
  subtotal_cents numeric,
  discounts_cents numeric,
  total_cents numeric,
  promo_capped boolean,
  all_rejected boolean
)
language sql
stable
as $$
  select id, vendor_store_id, promo, warnings, quoted_subtotal, quoted_total, lines_subtotal, promo_share,
         kept_subtotal,
         kept_discounts + least(promo_share, kept_total),
         kept_total - least(promo_share, kept_total),
         promo_share > kept_total,
         all_rejected
    from (
      select vendor.id, vendor.vendor_store_id, vendor.promo, vendor.warnings,
             vendor.subtotal_cents::numeric as quoted_subtotal,
             vendor.total_cents::numeric as quoted_total,
             sum(line.subtotal) as lines_subtotal,
             vendor.subtotal_cents::numeric - vendor.total_cents - sum(line.discounts) as promo_share,
             coalesce(sum(line.subtotal) filter (where line.kept), 0) as kept_subtotal,
             coalesce(sum(line.discounts) filter (where line.kept), 0) as kept_discounts,
             coalesce(sum(line.total) filter (where line.kept), 0) as kept_total,
             not bool_or(line.kept) as all_rejected
        from cart_vendor_groups as vendor
       cross join lateral (
         select item.line_subtotal_cents as subtotal,
                cart_line_discount_cents(item.line_discounts_cents, item.line_total_cents) as discounts,
                coalesce(item.line_total_cents, item.line_subtotal_cents) as total,
                item.id <> all (checkout_vendor_amounts.rejected_line_ids) as kept
           from checkout_orderable_items(checkout_vendor_amounts.cart_id) as item
          where item.vendor_store_id = vendor.vendor_store_id
       ) as line
       where vendor.cart_id = checkout_vendor_amounts.cart_id
       group by vendor.id
    ) as vendors;
$$;

revoke execute on function checkout_vendor_amounts(uuid, uuid[]) from public;

comment on function checkout_vendor_amounts(uuid, uuid[]) is
  'Amounts in cents of each ordered vendor of a cart: as quoted, and without the rejected lines. Copies snapshot figures, prices nothing.';
