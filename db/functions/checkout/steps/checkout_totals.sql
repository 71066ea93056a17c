-- checkout_totals: totals of a quote or of its orders. Tax and shipping are named where there are any.

create or replace function checkout_totals(subtotal_cents numeric, discounts_cents numeric, tax_cents numeric, shipping_cents numeric, total_cents numeric)
returns json
language plpgsql
stable
as $$
begin
  if checkout_totals.tax_cents <> 0 or checkout_totals.shipping_cents <> 0 then
    return json_build_object(
      'subtotal_cents', checkout_totals.subtotal_cents,
      'discounts_cents', checkout_totals.discounts_cents,
      'tax_cents', coalesce(checkout_totals.tax_cents, 0),
      'transport_fee_cents', coalesce(checkout_totals.shipping_cents, 0),
      'total_cents', checkout_totals.total_cents);
  end if;
  return json_build_object(
    'subtotal_cents', checkout_totals.subtotal_cents,
    'discounts_cents', checkout_totals.discounts_cents,
    'total_cents', checkout_totals.total_cents);
end;
$$;

revoke execute on function checkout_totals(numeric, numeric, numeric, numeric, numeric) from public;

comment on function checkout_totals(numeric, numeric, numeric, numeric, numeric) is
  'Step of checkout_execute and checkout_result: subtotal, discounts, tax and shipping (if there are any) and total, in cents, as JSON.';
