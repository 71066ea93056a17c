-- checkout_validate_more: judges what a quote says beyond its lines and discounts: tax, shipping, minimums, terms of payment.
--
-- A group's total is its lines', less the promotion's share, with shipping, and with tax unless the prices hold it. Where there is
-- tax or shipping, the share must be what the promotion says: or a forgotten tax_included would pass for one, and a wrong
-- tax be charged once a line is short. It takes nothing off a tax. Groups and items are brought together by grouping, not by
-- a join, of which the planner would not know how many rows it has.

create or replace function checkout_validate_more(cart cart_records)
returns jsonb
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_is_included constant boolean := (checkout_validate_more.cart).tax_included is true;
  v_found jsonb;
  v_added numeric;
  v_tax numeric;
  v_shipping numeric;
  v_more jsonb;
begin
  with parts as materialized (   -- or the sum of tax lines would be taken again wherever it is named
    select own.vendor_store_id, row(own.*)::cart_vendor_groups as vendor, null::uuid as item_id, 0::bigint as total, null::bigint as tax, null::jsonb as tax_lines, null::numeric as listed
      from cart_vendor_groups as own where own.cart_id = v_cart.id and own.status = 'ok'
     union all
    select own.vendor_store_id, null::cart_vendor_groups, own.id, coalesce(own.line_total_cents, own.line_subtotal_cents), own.tax_cents, nullif(own.tax_lines, 'null'),
           case when own.tax_lines is not null then cart_tax_lines_cents(own.tax_lines) end
      from cart_items as own where own.cart_id = v_cart.id and own.status = 'ok'
  ), judged_parts as (
    select part.*, case when part.tax < 0 or part.tax > case when v_is_included then part.total else part.tax end
                             or part.tax_lines is not null and (part.listed is null or part.listed <> part.tax)
                        then jsonb_build_object('problem', 'line_tax', 'cart_item_id', part.item_id, 'found', coalesce(to_jsonb(part.tax), part.tax_lines), 'expected',
                               coalesce(to_jsonb(part.listed), to_jsonb(
                                 case when part.tax_lines is not null then 'a list of {code, title, rate, amount_cents}'
                                      when v_is_included then format('0 to %s', part.total) else 'at least 0' end))) end as problem
      from parts as part
  ), vendors as (
    select part.vendor_store_id, (array_agg(part.vendor) filter (where part.item_id is null))[1] as own, count(part.item_id) as lines,
           sum(part.total) as total, sum(part.tax) as tax, min(part.problem::text)::jsonb as problem
      from judged_parts as part
     group by part.vendor_store_id
    having count(*) > count(part.item_id)
  ), owed as (
    select vendor.*, coalesce((vendor.own).shipping_cents, 0) as shipping, coalesce((vendor.own).shipping_tax_cents, 0) as shipping_tax,
           nullif((vendor.own).payment_terms, 'null') as terms, nullif((vendor.own).shipping_line, 'null') as named,
           v_is_included or num_nonnulls(vendor.tax, (vendor.own).shipping_cents, (vendor.own).shipping_tax_cents) > 0 as has_more,
           coalesce((vendor.own).shipping_cents, 0)
           + case when v_is_included then 0 else coalesce(vendor.tax, 0) + coalesce((vendor.own).shipping_tax_cents, 0) end as added
      from vendors as vendor
  ), judged as (
    select owed.*, owed.lines > 0 as is_ordered,
           coalesce(owed.problem, jsonb_build_object('vendor_store_id', owed.vendor_store_id) || case
             when least((owed.own).shipping_cents, (owed.own).shipping_tax_cents, (owed.own).minimum_cents) < 0 then jsonb_build_object(
               'problem', 'vendor_shipping', 'expected', 'at least 0',
               'found', least((owed.own).shipping_cents, (owed.own).shipping_tax_cents, (owed.own).minimum_cents))
             when jsonb_typeof(owed.named) <> 'object' or jsonb_typeof(owed.named -> 'code') not in ('string', 'null')
                  or jsonb_typeof(owed.named -> 'title') not in ('string', 'null') then jsonb_build_object(
               'problem', 'vendor_shipping', 'expected', 'a shipping_line of {code, title}', 'found', owed.named)
             when owed.lines = 0 and owed.added <> 0 then jsonb_build_object(
               'problem', 'vendor_without_items', 'expected', 0, 'found', owed.added)
             when owed.has_more and cart_promo_cents((owed.own).promo) > owed.total + owed.shipping then jsonb_build_object(
               'problem', 'vendor_total', 'expected', format('a promotion of at most %s', owed.total + owed.shipping),
               'found', cart_promo_cents((owed.own).promo))
             when owed.has_more and (owed.own).total_cents <> owed.total + owed.added - cart_promo_cents((owed.own).promo) then jsonb_build_object(
               'problem', 'vendor_total', 'expected', owed.total + owed.added - cart_promo_cents((owed.own).promo), 'found', (owed.own).total_cents)
             when (owed.own).total_cents not between 0 and owed.total + owed.added then jsonb_build_object(
               'problem', 'vendor_total', 'expected', owed.total + owed.added, 'found', (owed.own).total_cents)
             when owed.terms is not null and not cart_terms_are_right(owed.terms) then jsonb_build_object(
               'problem', 'payment_terms', 'expected', 'a code, and net_days from 0 to 3660', 'found', owed.terms)
           end) as problem_of_all
      from owed
  )
  select min(judged.problem_of_all::text)::jsonb,
         jsonb_build_object(
           'vendors', jsonb_object_agg(judged.vendor_store_id, jsonb_build_object(
             'promo_cents', judged.total + judged.added - (judged.own).total_cents, 'tax_cents', coalesce(judged.tax, 0),
             'payment_terms', judged.terms)) filter (where judged.is_ordered and judged.problem_of_all is null),
           'below_minimum', jsonb_agg(judged.vendor_store_id) filter (where judged.is_ordered and (judged.own).minimum_cents > judged.total),
           'has_minimum', bool_or((judged.own).minimum_cents > 0),
           'has_terms', bool_or(judged.terms is not null and judged.is_ordered)),
         sum((judged.own).shipping_cents),
         sum(coalesce(judged.tax, 0) + judged.shipping_tax),
         sum(judged.added)
    into v_found, v_more, v_shipping, v_tax, v_added
    from judged;

  if v_found is null and v_cart.discounts_cents <> v_cart.subtotal_cents - v_cart.total_cents + v_added then
    v_found := jsonb_build_object('problem', 'cart_discounts', 'expected', v_cart.subtotal_cents - v_cart.total_cents + v_added, 'found', v_cart.discounts_cents);
  end if;
  if v_found is not null then
    perform cart_raise_inconsistent(v_cart.id, v_found);
  end if;
  return v_more || jsonb_build_object('shipping_cents', v_shipping, 'tax_cents', v_tax);
end;
$$;

revoke execute on function checkout_validate_more(cart_records) from public;

comment on function checkout_validate_more(cart_records) is
  'Step of checkout_validate_amounts: {vendors: {<vendor_store_id>: {promo_cents, tax_cents, payment_terms}}, below_minimum: vendors whose quote is below '
  'their minimum, has_minimum, has_terms, shipping_cents (null: none is quoted), tax_cents}, in cents. Raises OC007, with the expected and the '
  'found figure in DETAIL, for tax lines that are none, a tax that is negative, not the sum of its tax lines or, in a price that holds it, more than that; negative shipping or '
  'minimum, a shipping line that is none; a group''s total that leaves its promotion another share than the promotion says; terms that are none; cart discounts that do not add up.';
