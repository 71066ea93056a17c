-- inventory_take: takes units of unsplit products, all of them or none, in one statement.
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
  perform from unnest(inventory_take.product_ids, inventory_take.qtys) as wanted (product_id, qty)
     join inventory_items as stock on stock.product_id = wanted.product_id
    where stock.slots = 1 and stock.available_qty >= wanted.qty
    order by stock.product_id
      for no key update of stock;
  get diagnostics v_locked = row_count;
  if v_locked < cardinality(inventory_take.product_ids) then
    return false;
  end if;

  update inventory_items as stock
     set available_qty = stock.available_qty - wanted.qty,
         reserved_qty = stock.reserved_qty + wanted.qty,
         updated_at = inventory_take.now
    from unnest(inventory_take.product_ids, inventory_take.qtys) as wanted (product_id, qty)
   where stock.product_id = wanted.product_id;
  get diagnostics v_locked = row_count;
  return v_locked = cardinality(inventory_take.product_ids);
end;
$$;

revoke execute on function inventory_take(uuid[], bigint[], timestamptz) from public;

comment on function inventory_take(uuid[], bigint[], timestamptz) is
  'Step of checkout_execute: takes units of unsplit products, locking them in product_id order. False if any of them has too '
  'little, is split or is not written: then roll back.';
