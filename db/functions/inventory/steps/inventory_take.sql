-- inventory_take: takes units of unsplit products, all of them or none.
--
-- product_ids are in ascending order, so that width_bucket finds the place of one by halves: to join two arrays costs more than all that
-- is done with a row.
--
-- The rows are locked in product_id order, as inventory_reserve locks them, and waited for where they are busy. A row that
-- has too little, is split or gone by then is not written, nor is one that a trigger of the host keeps from it: false says so, and the caller
-- rolls back what was.

create or replace function inventory_take(product_ids uuid[], qtys bigint[], now timestamptz)
returns boolean
language plpgsql
as $$
declare
  v_locked integer;
begin
  perform from inventory_items as stock
    where stock.product_id = any (inventory_take.product_ids) and stock.slots = 1
      and stock.available_qty >= inventory_take.qtys[width_bucket(stock.product_id, inventory_take.product_ids)]
    order by stock.product_id
      for no key update of stock;
  get diagnostics v_locked = row_count;
  if v_locked < cardinality(inventory_take.product_ids) then
    return false;
  end if;

  update inventory_items as stock
     set available_qty = stock.available_qty - inventory_take.qtys[width_bucket(stock.product_id, inventory_take.product_ids)],
         reserved_qty = stock.reserved_qty + inventory_take.qtys[width_bucket(stock.product_id, inventory_take.product_ids)],
         updated_at = inventory_take.now
   where stock.product_id = any (inventory_take.product_ids);
  get diagnostics v_locked = row_count;
  return v_locked = cardinality(inventory_take.product_ids);
end;
$$;

revoke execute on function inventory_take(uuid[], bigint[], timestamptz) from public;

comment on function inventory_take(uuid[], bigint[], timestamptz) is
  'Step of checkout_execute: takes units of unsplit products, which are given upwards, locking them in product_id order. False if any of them has too '
  'little, is split or is not written: then roll back.';
