-- checkout_quoted_totals: a cart's totals as the buyer saw them.

create or replace function checkout_quoted_totals(cart cart_records, tax_cents numeric, shipping_cents numeric)
returns json
language sql
stable
as $$
  select json_build_object(
    'subtotal_cents', (checkout_quoted_totals.cart).subtotal_cents,
    'discounts_cents', (checkout_quoted_totals.cart).discounts_cents,
    'tax_cents', nullif(checkout_quoted_totals.tax_cents, 0),
    'transport_fee_cents', nullif(checkout_quoted_totals.shipping_cents, 0),
    'total_cents', (checkout_quoted_totals.cart).total_cents);
$$;

revoke execute on function checkout_quoted_totals(cart_records, numeric, numeric) from public;

comment on function checkout_quoted_totals(cart_records, numeric, numeric) is
  'Totals of a cart as quoted, in cents: subtotal, discounts, tax and shipping of its ok groups, total.';
