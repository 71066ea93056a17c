-- cart_promo_is_wrong: whether what a group's total leaves for its promotion is not what the promotion says, or is more than
-- it can take off. It takes nothing off a tax.

create or replace function cart_promo_is_wrong(promo jsonb, share numeric, most numeric)
returns boolean
language plpgsql
immutable
as $$
begin
  return cart_promo_is_wrong.share <> cart_promo_cents(cart_promo_is_wrong.promo) or cart_promo_is_wrong.share > cart_promo_is_wrong.most;
end;
$$;

revoke execute on function cart_promo_is_wrong(jsonb, numeric, numeric) from public;

comment on function cart_promo_is_wrong(jsonb, numeric, numeric) is
  'Whether the share (cents) of a promotion is another amount than the promotion''s own, or more than the most (cents) that is there to take it off.';
