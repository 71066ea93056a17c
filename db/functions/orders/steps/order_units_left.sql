-- order_units_left: how many units of a line are still ordered: held, or shipped and not come back. They alone are owed.

create or replace function order_units_left(line order_line_items)
returns integer
language sql
immutable
as $$
  select coalesce(line.reserved_qty, 0) + order_units_fulfilled(line) - coalesce(line.returned_qty, 0);
$$;

revoke execute on function order_units_left(order_line_items) from public;

comment on function order_units_left(order_line_items) is
  'Units of an order line that are still ordered: reserved + fulfilled - returned.';
