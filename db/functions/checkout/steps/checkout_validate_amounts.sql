-- checkout_validate_amounts: refuses a quote that contradicts itself. The checkout calls it, and so does cart_put, so
-- that a wrong quote is refused when it is written.
--
-- An ok group has a subtotal that is the sum of its ok lines. Its total is the truth: what it lacks of the sum of theirs
-- is the promotion's share, which is never negative. The cart's own figures are the sums over its ok groups. A quote that says
-- more than that, of tax, shipping, a minimum or terms, is judged by checkout_validate_more for that part: most quotes pay nothing for it.

create or replace function checkout_validate_amounts(
  cart cart_records,
  out vendor_store_ids uuid[],
  out promo_cents bigint[],
  out line_count integer,
  out all_ordered boolean,
  out more jsonb
)
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_found text[];
  v_problem text;
  v_id uuid;
  v_subtotal numeric;
  v_total numeric;
  v_is_their_sum boolean;
  v_what jsonb;
begin
  -- the worst first: an item with two faults is told of the one further up. The last is none: there is more to judge.
  select min(judged.problem),
         array_agg(judged.vendor_store_id) filter (where judged.is_ordered),
         array_agg(judged.promo) filter (where judged.is_ordered),
         sum(judged.lines) filter (where judged.is_ordered),
         bool_and(judged.is_ordered is true),
         v_cart.subtotal_cents = sum(judged.subtotal_cents) filter (where judged.is_ok)
         and v_cart.total_cents = sum(judged.total_cents) filter (where judged.is_ok)
    into v_found, vendor_store_ids, promo_cents, line_count, all_ordered, v_is_their_sum
    from (
      select lines.vendor_store_id, lines.lines, vendor.subtotal_cents, vendor.total_cents,
             case when vendor.total_cents between 0 and lines.total then least(lines.total - vendor.total_cents, 9223372036854775807)::bigint end as promo,
             vendor.status = 'ok' as is_ok,
             vendor.status = 'ok' and lines.lines > 0 as is_ordered,
             case when vendor.id is null and lines.lines > 0 then array['1', 'vendor_without_group', lines.vendor_store_id::text]
                  when vendor.id is null or vendor.status <> 'ok' then null
                  when coalesce(lines.lines, 0) = 0 and (vendor.subtotal_cents <> 0 or vendor.total_cents <> 0)
                  then array['5', 'vendor_without_items', vendor.id::text]
                  when lines.lines > 0 and lines.vendor_store_id = v_cart.buyer_store_id then array['2', 'buyer_is_vendor', vendor.id::text]
                  when lines.problem < '{9}' then lines.problem
                  when vendor.subtotal_cents <> lines.subtotal then array['6', 'vendor_subtotal', vendor.id::text]
                  when lines.problem is not null or vendor.has_more then '{9}'
                  when vendor.total_cents not between 0 and lines.total then array['7', 'vendor_total', vendor.id::text]
             end as problem
        from (
          select item.vendor_store_id,
                 (count(*) filter (where item.status = 'ok'))::integer as lines,
                 sum(item.line_subtotal_cents) filter (where item.status = 'ok') as subtotal,
                 sum(coalesce(item.line_total_cents, item.line_subtotal_cents)) filter (where item.status = 'ok') as total,
                 min(case when item.status <> 'ok' then null
                          when item.quantity < 1 then array['3', 'quantity', item.id::text]
                          when item.unit_price_cents < 0 or item.line_subtotal_cents < 0 or item.line_total_cents < 0
                               or item.line_total_cents is not null and item.line_discounts_cents < 0
                               or item.line_total_cents <> item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
                          then array['4', 'line_amounts', item.id::text]
                          when item.tax_cents is not null or item.tax_lines is not null then '{9}'
                     end) as problem
            from cart_items as item
           where item.cart_id = v_cart.id
           group by item.vendor_store_id
        ) as lines
        full join (select own.id, own.vendor_store_id, own.status, own.subtotal_cents, own.total_cents,
                          num_nonnulls(own.shipping_cents, own.shipping_tax_cents, own.shipping_line, own.minimum_cents, own.payment_terms) > 0 as has_more
                     from cart_vendor_groups as own where own.cart_id = v_cart.id) as vendor
          on vendor.vendor_store_id = lines.vendor_store_id
    ) as judged;

  if v_found < '{9}' then
    v_problem := v_found[2];
    v_id := v_found[3]::uuid;
  elsif v_is_their_sum and (v_found is not null or v_cart.tax_included) then
    more := checkout_validate_more(v_cart);
    return;
  elsif v_is_their_sum and v_cart.discounts_cents = v_cart.subtotal_cents - v_cart.total_cents then
    return;
  else   -- also where no group is ok: their sum is zero then
    select coalesce(sum(vendor.subtotal_cents), 0), coalesce(sum(vendor.total_cents), 0) into v_subtotal, v_total
      from cart_vendor_groups as vendor where vendor.cart_id = v_cart.id and vendor.status = 'ok';
    v_problem := case when v_cart.subtotal_cents <> v_subtotal then 'cart_subtotal'
                      when v_cart.total_cents <> v_total then 'cart_total'
                      when v_cart.discounts_cents <> v_subtotal - v_total then 'cart_discounts' end;
    if v_problem is null then
      return;
    end if;
  end if;

  case v_problem
    when 'cart_subtotal' then v_what := jsonb_build_object('expected', v_subtotal, 'found', v_cart.subtotal_cents);
    when 'cart_total' then v_what := jsonb_build_object('expected', v_total, 'found', v_cart.total_cents);
    when 'cart_discounts' then v_what := jsonb_build_object('expected', v_subtotal - v_total, 'found', v_cart.discounts_cents);
    when 'quantity', 'line_amounts' then
      select jsonb_build_object('cart_item_id', item.id)
             || case v_problem
                  when 'quantity' then jsonb_build_object('expected', 'at least 1', 'found', item.quantity)
                  else jsonb_build_object('expected', item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0),
                                          'found', coalesce(item.line_total_cents, item.line_subtotal_cents),
                                          'unit_price_cents', item.unit_price_cents)
                end
        into v_what
        from cart_items as item
       where item.id = v_id;
    when 'vendor_without_group', 'buyer_is_vendor' then
      select jsonb_build_object('cart_item_id', item.id, 'vendor_store_id', item.vendor_store_id)
        into v_what
        from cart_items as item
        left join cart_vendor_groups as vendor on vendor.cart_id = item.cart_id and vendor.vendor_store_id = item.vendor_store_id
       where item.cart_id = v_cart.id and item.status = 'ok'
         and (v_problem = 'vendor_without_group' and vendor.id is null or v_problem = 'buyer_is_vendor' and vendor.id = v_id)
       order by item.id
       limit 1;
    else
      select jsonb_build_object('vendor_store_id', vendor.vendor_store_id)
             || case v_problem
                  when 'vendor_without_items' then jsonb_build_object(
                    'expected', 0, 'found', case when vendor.total_cents <> 0 then vendor.total_cents else vendor.subtotal_cents end)
                  when 'vendor_subtotal' then jsonb_build_object('expected', lines.subtotal, 'found', vendor.subtotal_cents)
                  else jsonb_build_object('expected', vendor.subtotal_cents::numeric - lines.discounts, 'found', vendor.total_cents)
                end
        into v_what
        from cart_vendor_groups as vendor
       cross join lateral (
         select sum(item.line_subtotal_cents) as subtotal,
                sum(cart_line_discount_cents(item.line_discounts_cents, item.line_total_cents)) as discounts
           from cart_items as item
          where item.cart_id = vendor.cart_id and item.vendor_store_id = vendor.vendor_store_id and item.status = 'ok'
       ) as lines
       where vendor.id = v_id;
  end case;
  perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', v_problem) || v_what);
end;
$$;

revoke execute on function checkout_validate_amounts(cart_records) from public;

comment on function checkout_validate_amounts(cart_records) is
  'The vendors of a cart that something is ordered from (null: none), the promotion''s share in the group of each (cents), the number of '
  'lines, whether no vendor of the cart is left out, and what else the quote says (null: nothing; see checkout_validate_more). Raises OC007, with the expected and the found figure in DETAIL, for an ordered vendor '
  'without a group, a group without items that has a total, a buyer who is the vendor, a quantity below 1, a line, a vendor group or a cart '
  'whose amounts (cents) do not add up, and as checkout_validate_more does.';
