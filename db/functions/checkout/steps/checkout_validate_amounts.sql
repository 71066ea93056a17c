-- checkout_validate_amounts: refuses a quote that contradicts itself. The checkout calls it, and so does cart_put, so
-- that a wrong quote is refused when it is written.
--
-- An ok group has a subtotal that is the sum of its ok lines. Its total is the truth: what it lacks of the sum of theirs,
-- with tax and shipping, is the promotion's share, which is never negative. Where tax or shipping is quoted, the share must
-- be what the promotion says: or a forgotten tax_included would pass for one, and a wrong tax be charged once a line is
-- short. The cart's own figures are the sums over its ok groups.

create or replace function checkout_validate_amounts(cart cart_records)
returns checkout_quote
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_quote checkout_quote;
  v_found text[];
  v_problem text;
  v_id uuid;
  v_subtotal numeric;
  v_total numeric;
  v_added numeric;
  v_tax numeric;
  v_is_their_sum boolean;
  v_what jsonb;
begin
  -- the worst first: an item with two faults is told of the one further up
  select min(judged.problem),
         array_agg(judged.vendor_store_id) filter (where judged.is_ordered),
         array_agg(judged.promo) filter (where judged.is_ordered),
         array_agg(judged.tax) filter (where judged.is_ordered),
         array_agg(judged.payment_terms) filter (where judged.is_ordered),
         array_agg(judged.vendor_store_id) filter (where judged.is_ordered and judged.minimum_cents > judged.total),
         sum(judged.lines) filter (where judged.is_ordered),
         bool_and(judged.is_ordered is true),
         bool_or(judged.minimum_cents is not null),
         bool_or(judged.has_more) filter (where judged.is_ordered),
         sum(judged.shipping_cents) filter (where judged.is_ok),
         sum(coalesce(judged.tax, 0) + coalesce(judged.shipping_tax_cents, 0)) filter (where judged.is_ok),
         v_cart.subtotal_cents = sum(judged.subtotal_cents) filter (where judged.is_ok)
         and v_cart.total_cents = sum(judged.total_cents) filter (where judged.is_ok)
         and v_cart.discounts_cents = v_cart.subtotal_cents - v_cart.total_cents + sum(judged.due - judged.total) filter (where judged.is_ok)
    into v_found, v_quote.vendor_store_ids, v_quote.promo_cents, v_quote.tax_cents, v_quote.payment_terms, v_quote.below_minimum_ids,
         v_quote.line_count, v_quote.all_ordered, v_quote.has_minimum, v_quote.has_more, v_quote.shipping_cents, v_tax, v_is_their_sum
    from (
      select lines.vendor_store_id, lines.lines, lines.total, lines.due + vendor.added as due, lines.tax::bigint as tax, vendor.subtotal_cents,
             vendor.total_cents, vendor.shipping_cents, vendor.shipping_tax_cents, vendor.minimum_cents, vendor.payment_terms,
             vendor.has_more or lines.tax is not null as has_more,
             case when vendor.total_cents between 0 and lines.due + vendor.added then (lines.due + vendor.added - vendor.total_cents)::bigint end as promo,
             vendor.status = 'ok' as is_ok,
             vendor.status = 'ok' and lines.lines > 0 as is_ordered,
             case when vendor.id is null and lines.lines > 0 then array['1', 'vendor_without_group', lines.vendor_store_id::text]
                  when vendor.id is null or vendor.status <> 'ok' then null
                  when coalesce(lines.lines, 0) = 0 and (vendor.subtotal_cents <> 0 or vendor.total_cents <> 0 or vendor.added <> 0)
                  then array['5', 'vendor_without_items', vendor.id::text]
                  when lines.vendor_store_id = v_cart.buyer_store_id then array['2', 'buyer_is_vendor', vendor.id::text]
                  when lines.problem is not null then lines.problem
                  when vendor.subtotal_cents <> lines.subtotal then array['6', 'vendor_subtotal', vendor.id::text]
                  when vendor.shipping_cents < 0 or vendor.shipping_tax_cents < 0 or vendor.minimum_cents < 0
                  then array['6', 'vendor_shipping', vendor.id::text]
                  when vendor.total_cents not between 0 and lines.due + vendor.added
                       or (vendor.has_more or lines.tax is not null)
                          and cart_promo_is_wrong(vendor.promo, lines.due + vendor.added - vendor.total_cents,
                                                  lines.total + coalesce(vendor.shipping_cents, 0))
                  then array['7', 'vendor_total', vendor.id::text]
                  when nullif(vendor.payment_terms, 'null') is not null and not cart_terms_are_right(vendor.payment_terms)
                  then array['8', 'payment_terms', vendor.id::text]
             end as problem
        from (
          select item.vendor_store_id,
                 (count(*) filter (where item.status = 'ok'))::integer as lines,
                 sum(item.line_subtotal_cents) filter (where item.status = 'ok') as subtotal,
                 sum(coalesce(item.line_total_cents, item.line_subtotal_cents)) filter (where item.status = 'ok') as total,
                 sum(coalesce(item.line_total_cents, item.line_subtotal_cents) + case when v_cart.tax_included then 0 else coalesce(item.tax_cents, 0) end)
                   filter (where item.status = 'ok') as due,
                 sum(item.tax_cents) filter (where item.status = 'ok') as tax,
                 min(case when item.status <> 'ok' then null
                          when item.quantity < 1 then array['3', 'quantity', item.id::text]
                          when item.unit_price_cents < 0 or item.line_subtotal_cents < 0 or item.line_total_cents < 0
                               or item.line_total_cents is not null and item.line_discounts_cents < 0
                               or item.line_total_cents <> item.line_subtotal_cents::numeric - coalesce(item.line_discounts_cents, 0)
                          then array['4', 'line_amounts', item.id::text]
                          when item.tax_cents is not null
                               and cart_tax_is_wrong(item.tax_cents, item.tax_lines,
                                                     case when v_cart.tax_included then coalesce(item.line_total_cents, item.line_subtotal_cents) end)
                          then array['4', 'line_tax', item.id::text]
                     end) as problem
            from cart_items as item
           where item.cart_id = v_cart.id
           group by item.vendor_store_id
        ) as lines
        full join (select own.id, own.vendor_store_id, own.status, own.subtotal_cents, own.total_cents, own.promo, own.shipping_cents,
                          own.shipping_tax_cents, own.minimum_cents, own.payment_terms,
                          coalesce(own.shipping_cents, 0) + case when v_cart.tax_included then 0 else coalesce(own.shipping_tax_cents, 0) end as added,
                          v_cart.tax_included is true or num_nonnulls(own.shipping_cents, own.shipping_tax_cents) > 0 as has_more
                     from cart_vendor_groups as own where own.cart_id = v_cart.id) as vendor
          on vendor.vendor_store_id = lines.vendor_store_id
    ) as judged;

  if v_found is not null then
    v_problem := v_found[2];
    v_id := v_found[3]::uuid;
  elsif v_is_their_sum then
    v_quote.totals := checkout_quoted_totals(v_cart, v_tax, v_quote.shipping_cents);
    return v_quote;
  else   -- also where no group is ok: their sum is zero then
    select coalesce(sum(vendor.subtotal_cents), 0), coalesce(sum(vendor.total_cents), 0) into v_subtotal, v_total
      from cart_vendor_groups as vendor where vendor.cart_id = v_cart.id and vendor.status = 'ok';
    v_added := (cart_owed_beside(v_cart)).added_cents;
    v_problem := case when v_cart.subtotal_cents <> v_subtotal then 'cart_subtotal'
                      when v_cart.total_cents <> v_total then 'cart_total'
                      when v_cart.discounts_cents <> v_subtotal - v_total + v_added then 'cart_discounts' end;
    if v_problem is null then
      return v_quote;
    end if;
  end if;

  case v_problem
    when 'cart_subtotal' then v_what := jsonb_build_object('expected', v_subtotal, 'found', v_cart.subtotal_cents);
    when 'cart_total' then v_what := jsonb_build_object('expected', v_total, 'found', v_cart.total_cents);
    when 'cart_discounts' then v_what := jsonb_build_object('expected', v_subtotal - v_total + v_added, 'found', v_cart.discounts_cents);
    when 'quantity', 'line_amounts', 'line_tax' then
      select jsonb_build_object('cart_item_id', item.id)
             || case v_problem
                  when 'quantity' then jsonb_build_object('expected', 'at least 1', 'found', item.quantity)
                  when 'line_tax' then jsonb_build_object(
                    'expected', coalesce(cart_tax_lines_cents(item.tax_lines)::text,
                                         'at least 0' || case when v_cart.tax_included then ', at most the line''s total' else '' end),
                    'found', item.tax_cents)
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
                    'expected', 0, 'found', coalesce(nullif(vendor.total_cents, 0), nullif(vendor.subtotal_cents, 0), vendor.shipping_cents, vendor.shipping_tax_cents))
                  when 'vendor_subtotal' then jsonb_build_object('expected', lines.subtotal, 'found', vendor.subtotal_cents)
                  when 'vendor_shipping' then jsonb_build_object(
                    'expected', 'at least 0', 'found', least(vendor.shipping_cents, vendor.shipping_tax_cents, vendor.minimum_cents))
                  when 'payment_terms' then jsonb_build_object('expected', 'a code, and net_days of 0 to 3660', 'found', vendor.payment_terms)
                  else jsonb_build_object(
                    'expected', case when num_nonnulls(lines.tax, vendor.shipping_cents, vendor.shipping_tax_cents) = 0 and v_cart.tax_included is not true
                                     then lines.total
                                     else lines.due - least(cart_promo_cents(vendor.promo), lines.total + coalesce(vendor.shipping_cents, 0)) end,
                    'found', vendor.total_cents)
                end
        into v_what
        from cart_vendor_groups as vendor
       cross join lateral (
         select own.subtotal, own.total, own.tax,
                own.total + coalesce(vendor.shipping_cents, 0)
                + case when v_cart.tax_included then 0 else coalesce(own.tax, 0) + coalesce(vendor.shipping_tax_cents, 0) end as due
           from (select sum(item.line_subtotal_cents) as subtotal, sum(coalesce(item.line_total_cents, item.line_subtotal_cents)) as total,
                        sum(item.tax_cents) as tax
                   from cart_items as item
                  where item.cart_id = vendor.cart_id and item.vendor_store_id = vendor.vendor_store_id and item.status = 'ok') as own
       ) as lines
       where vendor.id = v_id;
  end case;
  perform cart_raise_inconsistent(v_cart.id, jsonb_build_object('problem', v_problem) || v_what);
  return null;   -- which never comes
end;
$$;

revoke execute on function checkout_validate_amounts(cart_records) from public;

comment on function checkout_validate_amounts(cart_records) is
  'A cart''s quote, validated: its vendors that something is ordered from (null: none), the promotion''s share and the tax in the group of each '
  '(cents), and what else the steps after it need. Raises OC007, with the expected and the found figure in DETAIL, for an ordered vendor '
  'without a group, a group without items that has a total, a buyer who is the vendor, a quantity below 1, a line, a vendor group or a cart whose '
  'amounts (cents) do not add up, a tax that is not that of its tax lines, a share that is not the promotion''s where tax or shipping is quoted, '
  'or terms of payment that are none.';
