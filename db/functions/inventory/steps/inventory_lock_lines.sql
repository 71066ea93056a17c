-- inventory_lock_lines: locks all stock of what lines are of, upwards in (product_id, slot), as checkouts do.

create or replace function inventory_lock_lines(line_ids uuid[])
returns void
language plpgsql
as $$
declare
  v_product_id uuid;
begin
  -- a loop, because each product must be locked before the next one is
  for v_product_id in
    select distinct line.product_id from order_line_items as line
     where line.id = any (inventory_lock_lines.line_ids) and line.product_id is not null
     order by line.product_id
  loop
    perform inventory_lock_product(v_product_id);
  end loop;
end;
$$;

revoke execute on function inventory_lock_lines(uuid[]) from public;

comment on function inventory_lock_lines(uuid[]) is
  'Step of the order functions: locks the stock of the products of lines, in (product_id, slot) order.';
