-- checkout_validate_amounts: refuses a quote that contradicts itself. The checkout calls it, and so does cart_put, so
-- that a wrong quote is refused when it is written.

create or replace function checkout_validate_amounts(cart cart_records)
returns void
language plpgsql
as $$
declare
  v_cart constant cart_records := checkout_validate_amounts.cart;
  v_problem jsonb;
begin
  select problem.what into v_problem
    from (
      select 1 as rank, item.id,
             jsonb_build_object('problem', 'vendor_without_group', 'cart_item_id', item.id, 'vendor_store_id', item.vendor_store_id) as what
        from cart_items as item
       where item.cart_id = v_cart.id and item.status = 'ok'
         and not exists (select from cart_vendor_groups as vendor
                          where vendor.cart_id = v_cart.id and vendor.vendor_store_id = item.vendor_store_id)
       union all
      select 2, item.id, jsonb_build_object('problem', 'buyer_is_vendor', 'cart_item_id', item.id, 'vendor_store_id', item.vendor_store_id)
        from checkout_orderable_items(v_cart.id) as item
       where item.vendor_store_id = v_cart.buyer_store_id
       union all
      select 3, item.id, jsonb_build_object('problem', 'quantity', 'cart_item_id', item.id, 'expected', 'at least 1', 'found', item.quantity)
        from checkout_orderable_items(v_cart.id) as item
       where item.quantity < 1
       union all
      select 4, item.id,
             jsonb_build_object('problem', 'line_amounts', 'cart_item_id', item.id,
                                'expected', item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0),
                                'found', coalesce(item.line_total_cents, item.line_subtotal_cents))
        from checkout_orderable_items(v_cart.id) as item
       where item.unit_price_cents < 0 or item.line_subtotal_cents < 0 or item.line_total_cents < 0
          or item.line_total_cents is not null and item.line_discounts_cents < 0
          or item.line_total_cents <> item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
       union all
      select 5, amounts.vendor_group_id,
             jsonb_build_object('problem', 'vendor_subtotal', 'vendor_store_id', amounts.vendor_store_id,
                                'expected', amounts.lines_subtotal_cents, 'found', amounts.quoted_subtotal_cents)
        from checkout_vendor_amounts(v_cart.id, '{}') as amounts
       where amounts.quoted_subtotal_cents <> amounts.lines_subtotal_cents
       union all
      select 6, amounts.vendor_group_id,
             jsonb_build_object('problem', 'vendor_total', 'vendor_store_id', amounts.vendor_store_id,
                                'expected', amounts.quoted_total_cents + amounts.promo_cents, 'found', amounts.quoted_total_cents)
        from checkout_vendor_amounts(v_cart.id, '{}') as amounts
       where amounts.promo_cents < 0 or amounts.quoted_total_cents < 0
    ) as problem
   order by problem.rank, problem.id
   limit 1;

  if v_problem is not null then
    perform cart_raise_inconsistent(v_cart.id, v_problem);
  end if;
end;
$$;

revoke execute on function checkout_validate_amounts(cart_records) from public;

comment on function checkout_validate_amounts(cart_records) is
  'Raises OC007, with the expected and the found figure in DETAIL, for an ordered vendor without a group, a buyer who is the '
  'vendor, a quantity below 1, a line or vendor group whose amounts (cents) do not add up.';
