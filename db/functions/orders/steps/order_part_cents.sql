-- order_part_cents: what units of a line come to, of its total, its discount or its tax. The only place that cuts an amount.
--
-- The first k of n units are worth div(amount * k, n), so what comes off for units k1 to k2 is the difference of two of these:
-- however a line is cut, its parts add up to it to the cent, and none is below 0. In numeric, because amount * k may need
-- more than 64 bits; its division would round, div does not.

create or replace function order_part_cents(amount_cents bigint, units integer, qty integer)
returns bigint
language sql
immutable
as $$
  select div(order_part_cents.amount_cents::numeric * order_part_cents.units, order_part_cents.qty)::bigint;
$$;

revoke execute on function order_part_cents(bigint, integer, integer) from public;

comment on function order_part_cents(bigint, integer, integer) is
  'What the first so many of a line''s units are worth of an amount of its (cents), rounded down. Null for null.';
