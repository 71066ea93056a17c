-- cart_line_discount_cents: what is taken off a cart line's subtotal.
--
-- Nothing on a net line (line_total_cents null): its volume discount is in the price already, and taking it off again would
-- be a real loss.

create or replace function cart_line_discount_cents(line_discounts_cents bigint, line_total_cents bigint)
returns bigint
language sql
immutable
as $$
  select case when cart_line_discount_cents.line_total_cents is null then 0
              else coalesce(cart_line_discount_cents.line_discounts_cents, 0) end;
$$;

revoke execute on function cart_line_discount_cents(bigint, bigint) from public;

comment on function cart_line_discount_cents(bigint, bigint) is
  'Discount of a cart line in cents: its line_discounts_cents if the line is gross, 0 if it is net (line_total_cents null).';
