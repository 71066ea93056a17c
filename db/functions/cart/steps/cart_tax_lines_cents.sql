-- cart_tax_lines_cents: what a line's tax lines add up to.

create or replace function cart_tax_lines_cents(tax_lines jsonb)
returns numeric
language plpgsql
immutable
as $$
begin
  return (
    select case when bool_and(jsonb_typeof(part.line -> 'amount_cents') = 'number') is not false
                then coalesce(sum(case jsonb_typeof(part.line -> 'amount_cents') when 'number' then (part.line ->> 'amount_cents')::numeric end), 0)
           end
      from jsonb_array_elements(case jsonb_typeof(cart_tax_lines_cents.tax_lines) when 'array' then cart_tax_lines_cents.tax_lines end) as part (line)
     where jsonb_typeof(cart_tax_lines_cents.tax_lines) = 'array'
    having jsonb_typeof(cart_tax_lines_cents.tax_lines) = 'array');
end;
$$;

revoke execute on function cart_tax_lines_cents(jsonb) from public;

comment on function cart_tax_lines_cents(jsonb) is
  'Sum of tax lines [{code, title, rate, amount_cents}] in cents, 0 of none; null if they are no array, or an amount in them is no number.';
