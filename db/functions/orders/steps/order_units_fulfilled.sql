-- order_units_fulfilled: how many units of a line were ever shipped. A line that ended before there were counters has none
-- of them, and its state alone tells how.

create or replace function order_units_fulfilled(line order_line_items)
returns integer
language sql
immutable
as $$
  select coalesce(line.fulfilled_qty,
                  case when line.reserved_qty = 0 and line.status <> 'rejected' and num_nonnulls(line.released_qty, line.returned_qty) = 0 then line.qty else 0 end);
$$;

revoke execute on function order_units_fulfilled(order_line_items) from public;

comment on function order_units_fulfilled(order_line_items) is
  'Units of an order line that were shipped, those that came back too.';
