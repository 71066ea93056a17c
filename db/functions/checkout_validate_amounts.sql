-- checkout_validate_amounts: refuses a quote that contradicts itself. The checkout calls it, and so does cart_put, so
-- that a wrong quote is refused when it is written.

create or replace function checkout_validate_amounts(cart cart_records)
returns boolean
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_problem text;
  v_id uuid;
  v_what jsonb;
begin
  -- the worst first: an item with two faults is told of the one further up
  select checked.problem, checked.id into v_problem, v_id
    from (
      select case when vendor.id is null then 'vendor_without_group'
                  when vendor.status <> 'ok' then null
                  when item.vendor_store_id = v_cart.buyer_store_id then 'buyer_is_vendor'
                  when item.quantity < 1 then 'quantity'
                  when item.unit_price_cents < 0 or item.line_subtotal_cents < 0 or item.line_total_cents < 0
                       or item.line_total_cents is not null and item.line_discounts_cents < 0
                       or item.line_total_cents <> item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
                  then 'line_amounts'
             end as problem,
             item.id, false as is_ordered
        from cart_items as item
        left join cart_vendor_groups as vendor on vendor.cart_id = item.cart_id and vendor.vendor_store_id = item.vendor_store_id
       where item.cart_id = v_cart.id and item.status = 'ok'
       union all
      select case when amounts.quoted_subtotal_cents <> amounts.lines_subtotal_cents then 'vendor_subtotal'
                  when amounts.promo_cents < 0 or amounts.quoted_total_cents < 0 then 'vendor_total'
             end,
             amounts.vendor_group_id, true
        from checkout_vendor_amounts(v_cart.id, '{}') as amounts
    ) as checked
   where checked.problem is not null or checked.is_ordered
   order by array_position('{vendor_without_group,buyer_is_vendor,quantity,line_amounts,vendor_subtotal,vendor_total}', checked.problem), checked.id
   limit 1;

  if v_problem in ('vendor_subtotal', 'vendor_total') then
    select jsonb_build_object('vendor_store_id', amounts.vendor_store_id)
           || case v_problem
                when 'vendor_subtotal' then jsonb_build_object('expected', amounts.lines_subtotal_cents, 'found', amounts.quoted_subtotal_cents)
                else jsonb_build_object('expected', amounts.quoted_total_cents + amounts.promo_cents, 'found', amounts.quoted_total_cents)
              end
      into v_what
      from checkout_vendor_amounts(v_cart.id, '{}') as amounts
     where amounts.vendor_group_id = v_id;
  elsif v_problem is not null then
    select jsonb_build_object('cart_item_id', item.id)
           || case v_problem
                when 'quantity' then jsonb_build_object('expected', 'at least 1', 'found', item.quantity)
                when 'line_amounts' then jsonb_build_object(
                  'expected', item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0),
                  'found', coalesce(item.line_total_cents, item.line_subtotal_cents))
                else jsonb_build_object('vendor_store_id', item.vendor_store_id)
              end
      into v_what
      from cart_items as item
     where item.id = v_id;
  else
    return found;
  end if;
  perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', v_problem) || v_what);
  return false;
end;
$$;

revoke execute on function checkout_validate_amounts(cart_records) from public;

comment on function checkout_validate_amounts(cart_records) is
  'Whether a cart has anything to order. Raises OC007, with the expected and the found figure in DETAIL, for an ordered vendor without '
  'a group, a buyer who is the vendor, a quantity below 1, a line or vendor group whose amounts (cents) do not add up.';
