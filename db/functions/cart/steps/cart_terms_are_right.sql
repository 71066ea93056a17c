-- cart_terms_are_right: whether terms of payment are {code, net_days}: the due date is reckoned from them.

create or replace function cart_terms_are_right(payment_terms jsonb)
returns boolean
language plpgsql
immutable
as $$
declare
  v_terms alias for payment_terms;
begin
  return coalesce(jsonb_typeof(v_terms) = 'object' and jsonb_typeof(v_terms -> 'code') = 'string' and jsonb_typeof(v_terms -> 'net_days') = 'number', false)
     and v_terms - '{code,net_days}'::text[] = '{}'
     and length(v_terms ->> 'code') between 1 and 200
     and (v_terms ->> 'net_days')::numeric between 0 and 3660 and (v_terms ->> 'net_days')::numeric % 1 = 0;
end;
$$;

revoke execute on function cart_terms_are_right(jsonb) from public;

comment on function cart_terms_are_right(jsonb) is
  'Whether terms of payment are an object of a code (1 to 200 characters) and net_days (a whole number from 0 to 3660), and of nothing else.';
