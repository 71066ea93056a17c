-- checkout_validate_amounts: refuses a quote that contradicts itself. The checkout calls it, and so does cart_put, so
-- that a wrong quote is refused when it is written.

create or replace function checkout_validate_amounts(cart cart_records)
returns uuid[]
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_found text[];
  v_vendor_store_ids uuid[];
  v_problem text;
  v_id uuid;
  v_what jsonb;
begin
  -- the worst first: an item with two faults is told of the one further up
  select min(least(vendors.line_problem, vendors.problem)), array_agg(vendors.vendor_store_id) filter (where vendors.status = 'ok')
    into v_found, v_vendor_store_ids
    from (
      select vendor.vendor_store_id, vendor.status,
             min(case when vendor.id is null then array['1', 'vendor_without_group', item.id::text]
                      when vendor.status <> 'ok' then null
                      when item.vendor_store_id = v_cart.buyer_store_id then array['2', 'buyer_is_vendor', item.id::text]
                      when item.quantity < 1 then array['3', 'quantity', item.id::text]
                      when item.unit_price_cents < 0 or item.line_subtotal_cents < 0 or item.line_total_cents < 0
                           or item.line_total_cents is not null and item.line_discounts_cents < 0
                           or item.line_total_cents <> item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
                      then array['4', 'line_amounts', item.id::text]
                 end) as line_problem,
             case when vendor.status <> 'ok' then null
                  when vendor.subtotal_cents <> sum(item.line_subtotal_cents) then array['5', 'vendor_subtotal', vendor.id::text]
                  when vendor.total_cents < 0
                       or vendor.subtotal_cents::numeric - vendor.total_cents
                          < sum(cart_line_discount_cents(item.line_discounts_cents, item.line_total_cents))
                  then array['6', 'vendor_total', vendor.id::text]
             end as problem
        from cart_items as item
        left join cart_vendor_groups as vendor on vendor.cart_id = item.cart_id and vendor.vendor_store_id = item.vendor_store_id
       where item.cart_id = v_cart.id and item.status = 'ok'
       group by vendor.id
    ) as vendors;
  v_problem := v_found[2];
  v_id := v_found[3];

  if v_problem in ('vendor_subtotal', 'vendor_total') then
    select jsonb_build_object('vendor_store_id', vendor.vendor_store_id)
           || case v_problem
                when 'vendor_subtotal' then jsonb_build_object('expected', sum(item.line_subtotal_cents), 'found', vendor.subtotal_cents)
                else jsonb_build_object(
                  'expected', vendor.subtotal_cents::numeric - sum(cart_line_discount_cents(item.line_discounts_cents, item.line_total_cents)),
                  'found', vendor.total_cents)
              end
      into v_what
      from cart_vendor_groups as vendor
      join cart_items as item on item.cart_id = vendor.cart_id and item.vendor_store_id = vendor.vendor_store_id and item.status = 'ok'
     where vendor.id = v_id
     group by vendor.id;
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
    return v_vendor_store_ids;
  end if;
  perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', v_problem) || v_what);
  return null;
end;
$$;

revoke execute on function checkout_validate_amounts(cart_records) from public;

comment on function checkout_validate_amounts(cart_records) is
  'The vendors of a cart that something is ordered from; null: none. Raises OC007, with the expected and the found figure in DETAIL, for an ordered vendor without '
  'a group, a buyer who is the vendor, a quantity below 1, a line or vendor group whose amounts (cents) do not add up.';
