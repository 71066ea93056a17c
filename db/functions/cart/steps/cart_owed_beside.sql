-- cart_owed_beside: what a cart's ok groups owe beside their lines: tax and shipping.
--
-- Stored nowhere else than in the groups and items. Those are brought together by grouping, not by a join, of which the planner
-- would not know how many rows it has.

create or replace function cart_owed_beside(cart cart_records, out tax_cents numeric, out shipping_cents numeric)
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
begin
  select coalesce(sum(vendor.tax), 0), coalesce(sum(vendor.shipping), 0)
    into tax_cents, shipping_cents
    from (
      select coalesce(sum(part.tax), 0) as tax, coalesce(sum(part.shipping), 0) as shipping
        from (
          select own.vendor_store_id, true as is_ok_group, own.shipping_tax_cents as tax, own.shipping_cents as shipping
            from cart_vendor_groups as own where own.cart_id = v_cart.id and own.status = 'ok'
           union all
          select own.vendor_store_id, null, own.tax_cents, null
            from cart_items as own where own.cart_id = v_cart.id and own.status = 'ok'
        ) as part
       group by part.vendor_store_id
      having bool_or(part.is_ok_group)
    ) as vendor;
end;
$$;

revoke execute on function cart_owed_beside(cart_records) from public;

comment on function cart_owed_beside(cart_records) is
  'Tax and shipping (cents) of a cart''s ok groups.';
