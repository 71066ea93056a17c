-- inventory_write_slots: moves units of slots between available and reserved, and returns how many slots it wrote.
--
-- The slots are locked, and each is named once; 0 is a product's own row, and none of them. A slot is found by its newest version, so
-- that no dead one behind it is read.

create or replace function inventory_write_slots(product_ids uuid[], slots integer[], taken bigint[], reserved bigint[], now timestamptz)
returns bigint
language plpgsql
as $$
declare
  v_count bigint := 0;
  v_rows bigint;
begin
  -- a loop, because a join with a table of a few slots reads the whole of it, with every dead version
  for i in 1 .. coalesce(cardinality(inventory_write_slots.slots), 0) loop
    continue when inventory_write_slots.slots[i] = 0;
    update inventory_slots as stock
       set available_qty = stock.available_qty - inventory_write_slots.taken[i],
           reserved_qty = stock.reserved_qty + inventory_write_slots.reserved[i],
           updated_at = inventory_write_slots.now,
           version = stock.version + 1
     where stock.product_id = inventory_write_slots.product_ids[i] and stock.slot = inventory_write_slots.slots[i]
       and stock.version = (select newest.version from inventory_slots as newest
                             where newest.product_id = inventory_write_slots.product_ids[i] and newest.slot = inventory_write_slots.slots[i]
                             order by newest.version desc
                             limit 1);
    get diagnostics v_rows = row_count;
    v_count := v_count + v_rows;
  end loop;
  return v_count;
end;
$$;

revoke execute on function inventory_write_slots(uuid[], integer[], bigint[], bigint[], timestamptz) from public;

comment on function inventory_write_slots(uuid[], integer[], bigint[], bigint[], timestamptz) is
  'Step of the inventory functions: takes units off what is available in each slot, and adds units to what is reserved there; negative ones go the other way. '
  'Returns how many of the slots it wrote.';
