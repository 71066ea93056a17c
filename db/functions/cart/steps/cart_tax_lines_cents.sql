-- cart_tax_lines_cents: what a line's tax lines add up to.
--
-- A host writes tables, so they may be anything; what an answer shows of them must be what the answer's types say.

create or replace function cart_tax_lines_cents(tax_lines jsonb)
returns numeric
language plpgsql
immutable
as $$
begin
  return (
    select case when bool_and(part.is_right) is not false then coalesce(sum(part.amount), 0) end
      from (
        select line.amount,
               coalesce(jsonb_typeof(line.body) = 'object' and line.amount % 1 = 0 and abs(line.amount) <= 9223372036854775807, false)
               and not exists (select from unnest('{code,title,rate}'::text[]) as name where jsonb_typeof(line.body -> name) not in ('string', 'null'))
               as is_right
          from (select each.value as body, case jsonb_typeof(each.value -> 'amount_cents') when 'number' then (each.value ->> 'amount_cents')::numeric end as amount
                  from jsonb_array_elements(case jsonb_typeof(cart_tax_lines_cents.tax_lines) when 'array' then cart_tax_lines_cents.tax_lines else '[null]' end)
                       as each) as line
      ) as part);
end;
$$;

revoke execute on function cart_tax_lines_cents(jsonb) from public;

comment on function cart_tax_lines_cents(jsonb) is
  'Sum of tax lines [{code, title, rate, amount_cents}] in cents, 0 of none; null if they are no array of objects with a whole amount_cents and texts beside it.';
