-- cart_promo_cents: what a group's promotion says that it takes off.

create or replace function cart_promo_cents(promo jsonb)
returns numeric
language plpgsql
immutable
as $$
begin
  return case when jsonb_typeof(cart_promo_cents.promo -> 'amount_cents') = 'number' then (cart_promo_cents.promo ->> 'amount_cents')::numeric else 0 end;
end;
$$;

revoke execute on function cart_promo_cents(jsonb) from public;

comment on function cart_promo_cents(jsonb) is 'Amount of a promotion {code, amount_cents} in cents; 0 without one.';
