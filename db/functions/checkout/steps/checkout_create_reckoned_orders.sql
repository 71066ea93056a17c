-- checkout_create_reckoned_orders: the orders of a quote that are not simply their vendor groups: lines of theirs are rejected, or the
-- quote or the request says more.
--
-- Exactly their own amounts come off with rejected lines, their tax with them. The promotion's share, what the group's
-- discount has beyond the lines', is capped at what is left of lines and shipping: no total goes below zero, and no promotion
-- pays a tax. An order without lines owes nothing, no shipping either, and ends as it begins. What is due by terms, or comes to nothing,
-- has no deadline.

create or replace function checkout_create_reckoned_orders(
  cart cart_records,
  vendor_store_ids uuid[],
  promo_cents bigint[],
  more jsonb,
  details jsonb,
  rejected_line_ids uuid[],
  numbers bigint[],
  attribution jsonb
)
returns bigint
language plpgsql
as $$
declare
  v_cart alias for cart;
  v_vendors constant jsonb := checkout_create_reckoned_orders.more -> 'vendors';
  v_details alias for details;
  v_is_included constant boolean := (checkout_create_reckoned_orders.cart).tax_included is true;
  v_billing_address constant address_t := jsonb_populate_record(null::address_t, checkout_create_reckoned_orders.details -> 'billing_address');
  v_expires_at constant timestamptz := (checkout_create_reckoned_orders.cart).converted_at
                                       + make_interval(secs => (checkout_create_reckoned_orders.details -> 'expires_in')::double precision);
  v_capped_warning constant jsonb :=
    '[{"type": "promo_capped", "message": "The promotion was larger than what is left of this order and was reduced to it."}]'::jsonb;
  v_rows bigint;
begin
  with lines as (
    select item.vendor_store_id, bool_and(item.is_off) as are_none,
           coalesce(sum(item.subtotal) filter (where item.is_off), 0) as off_subtotal,
           coalesce(sum(item.total) filter (where item.is_off), 0) as off_total,
           coalesce(sum(item.tax_cents) filter (where item.is_off), 0) as off_tax
      from (select own.vendor_store_id, own.id = any (checkout_create_reckoned_orders.rejected_line_ids) as is_off, own.line_subtotal_cents as subtotal,
                   coalesce(own.line_total_cents, own.line_subtotal_cents) as total, own.tax_cents
              from cart_items as own
             where own.cart_id = v_cart.id and own.status = 'ok') as item
     group by item.vendor_store_id
  ), left_over as (
    select own.*, listed.place, coalesce(listed.more_promo, listed.promo) as share, lines.are_none, own.subtotal_cents - lines.off_subtotal as subtotal,
           case when lines.are_none then 0 else coalesce(own.shipping_cents, 0) end as transport,
           case when not lines.are_none then own.shipping_tax_cents end as transport_tax,
           case when lines.are_none then 0 else coalesce(listed.tax, 0) - lines.off_tax + coalesce(own.shipping_tax_cents, 0) end as tax,
           -- what the promotion leaves of lines and shipping
           own.total_cents - lines.off_total
           - case when v_is_included then 0 else coalesce(listed.tax, 0) + coalesce(own.shipping_tax_cents, 0) end as room
      from (select each.vendor_store_id, each.place, each.promo,
                   (v_vendors -> each.vendor_store_id::text ->> 'promo_cents')::bigint as more_promo,
                   (v_vendors -> each.vendor_store_id::text ->> 'tax_cents')::bigint as tax
              from unnest(checkout_create_reckoned_orders.vendor_store_ids, checkout_create_reckoned_orders.promo_cents)
                   with ordinality as each (vendor_store_id, promo, place)) as listed
      join cart_vendor_groups as own on own.cart_id = v_cart.id and own.vendor_store_id = listed.vendor_store_id
      join lines on lines.vendor_store_id = listed.vendor_store_id
  ), reckoned as (
    select vendor.*, case when v_is_included then 0 else vendor.tax end as added_tax,
           case when vendor.are_none then 0
                else greatest(vendor.room, 0) + case when v_is_included then 0 else vendor.tax end end as total
      from left_over as vendor
  )
  insert into vendor_orders (
    id, cart_id, checkout_group_id, buyer_store_id, vendor_store_id, status, currency, shipping_address, payment_method, shipping_line,
    subtotal_cents, discounts_cents, promo_discount_cents, tax_cents, transport_fee_cents, shipping_tax_cents, tax_included,
    total_cents, balance_due_cents, promo, warnings, vendor_shipping_line, billing_address, purchase_order, metadata, order_number, expires_at,
    attributed_token, created_at, updated_at)
  overriding user value
  select vendor.id, v_cart.id, v_cart.checkout_group_id, v_cart.buyer_store_id, vendor.vendor_store_id,
         case when vendor.are_none then 'rejected'::vendor_order_status else 'created_pending'::vendor_order_status end,
         v_cart.currency, v_cart.shipping_address, v_cart.payment_method, v_cart.shipping_line,
         vendor.subtotal, vendor.subtotal + vendor.transport + vendor.added_tax - vendor.total,
         case when vendor.are_none then 0 else vendor.share + least(vendor.room, 0) end,
         vendor.tax, vendor.transport, vendor.transport_tax, nullif(v_cart.tax_included, false),
         vendor.total, vendor.total,
         nullif(vendor.promo, 'null'),
         coalesce(nullif(vendor.warnings, 'null'), '[]') || case when vendor.room < 0 then v_capped_warning else '[]' end,
         nullif(vendor.shipping_line, 'null'), v_billing_address, v_details ->> 'purchase_order', v_details -> 'metadata',
         checkout_create_reckoned_orders.numbers[vendor.place],
         case when vendor.total > 0 and nullif(vendor.payment_terms, 'null') is null then v_expires_at end,
         checkout_create_reckoned_orders.attribution -> vendor.vendor_store_id::text,
         v_cart.converted_at, v_cart.converted_at
    from reckoned as vendor;
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;

revoke execute on function checkout_create_reckoned_orders(cart_records, uuid[], bigint[], jsonb, jsonb, uuid[], bigint[], jsonb) from public;

comment on function checkout_create_reckoned_orders(cart_records, uuid[], bigint[], jsonb, jsonb, uuid[], bigint[], jsonb) is
  'Step of checkout_create_orders: writes the vendor orders of a quote without the rejected lines, with tax, shipping, deadline and what the buyer noted, '
  'amounts in cents, and returns their number.';
