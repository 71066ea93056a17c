-- checkout_order_amounts: what the orders of a quote come to, without the lines that are rejected.
--
-- Exactly their own amounts come off, their tax with them. The promotion's share, what the group's discount has beyond the
-- lines', is capped at what is left of lines and shipping: no total goes below zero, and no promotion pays a tax. An order
-- without lines owes nothing, no shipping either. An array has an element for each vendor of the quote.

create or replace function checkout_order_amounts(
  cart cart_records,
  quote checkout_quote,
  rejected_line_ids uuid[],
  out are_none boolean[],
  out subtotals bigint[],
  out discounts bigint[],
  out promos bigint[],
  out taxes bigint[],
  out transports bigint[],
  out transport_taxes bigint[],
  out totals bigint[],
  out are_capped boolean[]
)
language plpgsql
stable
as $$
declare
  v_cart alias for cart;
  v_quote alias for quote;
begin
  with lines as (
    select item.vendor_store_id, bool_and(item.is_off) as are_none,
           coalesce(sum(item.subtotal) filter (where item.is_off), 0) as off_subtotal,
           coalesce(sum(item.total) filter (where item.is_off), 0) as off_total,
           coalesce(sum(item.tax_cents) filter (where item.is_off), 0) as off_tax
      from (select own.vendor_store_id, own.id = any (checkout_order_amounts.rejected_line_ids) as is_off, own.line_subtotal_cents as subtotal,
                   coalesce(own.line_total_cents, own.line_subtotal_cents) as total, own.tax_cents
              from cart_items as own
             where own.cart_id = v_cart.id and own.status = 'ok') as item
     group by item.vendor_store_id
  ), left_over as (
    select vendor.place, lines.are_none, own.subtotal_cents - lines.off_subtotal as subtotal, vendor.promo,
           case when lines.are_none then 0 else coalesce(own.shipping_cents, 0) end as transport,
           case when lines.are_none then 0 else coalesce(own.shipping_tax_cents, 0) end as transport_tax,
           case when lines.are_none then 0 else coalesce(vendor.tax, 0) - lines.off_tax + coalesce(own.shipping_tax_cents, 0) end as tax,
           -- what the promotion leaves of lines and shipping
           own.total_cents - lines.off_total
           - case when v_cart.tax_included then 0 else coalesce(vendor.tax, 0) + coalesce(own.shipping_tax_cents, 0) end as room
      from unnest(v_quote.vendor_store_ids, v_quote.promo_cents, v_quote.tax_cents) with ordinality as vendor (vendor_store_id, promo, tax, place)
      join cart_vendor_groups as own on own.cart_id = v_cart.id and own.vendor_store_id = vendor.vendor_store_id
      join lines on lines.vendor_store_id = vendor.vendor_store_id
  ), priced as (
    select left_over.*, case when v_cart.tax_included then 0 else left_over.tax end as added_tax,
           case when left_over.are_none then 0
                else greatest(left_over.room, 0) + case when v_cart.tax_included then 0 else left_over.tax end end as total
      from left_over
  )
  select array_agg(priced.are_none order by priced.place),
         array_agg(priced.subtotal::bigint order by priced.place),
         array_agg((priced.subtotal + priced.transport + priced.added_tax - priced.total)::bigint order by priced.place),
         array_agg(case when priced.are_none then 0 else (priced.promo + least(priced.room, 0))::bigint end order by priced.place),
         array_agg(priced.tax::bigint order by priced.place),
         array_agg(priced.transport order by priced.place),
         array_agg(priced.transport_tax order by priced.place),
         array_agg(priced.total::bigint order by priced.place),
         array_agg(priced.room < 0 order by priced.place)
    into are_none, subtotals, discounts, promos, taxes, transports, transport_taxes, totals, are_capped
    from priced;
end;
$$;

revoke execute on function checkout_order_amounts(cart_records, checkout_quote, uuid[]) from public;

comment on function checkout_order_amounts(cart_records, checkout_quote, uuid[]) is
  'Step of checkout_execute: amounts (cents) of the orders of a quote without the rejected lines: whether nothing is left, subtotal, discounts, share of the '
  'promotion, tax, shipping, tax on it, total, and whether the promotion was capped; arrays in the order of the quote''s vendors.';
