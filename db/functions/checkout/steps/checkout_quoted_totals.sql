-- checkout_quoted_totals: a cart's totals as the buyer saw them.

create or replace function checkout_quoted_totals(cart cart_records)
returns json
language sql
stable
as $$
  select json_build_object(
    'subtotal_cents', (checkout_quoted_totals.cart).subtotal_cents,
    'discounts_cents', (checkout_quoted_totals.cart).discounts_cents,
    'total_cents', (checkout_quoted_totals.cart).total_cents);
$$;

revoke execute on function checkout_quoted_totals(cart_records) from public;

comment on function checkout_quoted_totals(cart_records) is 'Totals of a cart as quoted, in cents.';
