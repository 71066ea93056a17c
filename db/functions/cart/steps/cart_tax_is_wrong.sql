-- cart_tax_is_wrong: whether a line's tax is below zero, is not the sum of its tax lines, or, of a price that holds its tax, is more than that.

create or replace function cart_tax_is_wrong(tax_cents bigint, tax_lines jsonb, most bigint)
returns boolean
language plpgsql
immutable
as $$
begin
  return cart_tax_is_wrong.tax_cents < 0
      or cart_tax_is_wrong.tax_cents > coalesce(cart_tax_is_wrong.most, cart_tax_is_wrong.tax_cents)
      or nullif(cart_tax_is_wrong.tax_lines, 'null') is not null
         and cart_tax_lines_cents(cart_tax_is_wrong.tax_lines) is distinct from cart_tax_is_wrong.tax_cents;
end;
$$;

revoke execute on function cart_tax_is_wrong(bigint, jsonb, bigint) from public;

comment on function cart_tax_is_wrong(bigint, jsonb, bigint) is
  'Whether a line''s tax (cents) contradicts its tax lines, is negative, or exceeds the most (cents) that it can be part of; null: no bound.';
