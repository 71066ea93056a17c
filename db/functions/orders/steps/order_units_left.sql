-- order_units_left: how many units of a line are still ordered: held, or shipped and not come back. They alone are owed.
--
-- Says itself what order_units_fulfilled says: on a node of Citus, one that is folded into a statement finds no other of ours.

create or replace function order_units_left(line order_line_items)
returns integer
language sql
immutable
as $$
  select coalesce(line.reserved_qty, 0)
         + coalesce(line.fulfilled_qty,
                    case when line.reserved_qty = 0 and line.status <> 'rejected' and num_nonnulls(line.released_qty, line.returned_qty) = 0 then line.qty else 0 end)
         - coalesce(line.returned_qty, 0);
$$;

revoke execute on function order_units_left(order_line_items) from public;

comment on function order_units_left(order_line_items) is
  'Units of an order line that are still ordered: reserved + fulfilled - returned.';
