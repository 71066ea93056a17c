-- inventory_write_slots: moves units of slots between available and reserved, in one statement, and returns how many slots it wrote.
--
-- The slots are locked, and each is named once. It is found by its newest version, and no dead one behind it is read.

create or replace function inventory_write_slots(product_ids uuid[], slots integer[], taken bigint[], reserved bigint[], now timestamptz)
returns bigint
language plpgsql
as $$
declare
  v_rows bigint;
begin
  update inventory_slots as stock
     set available_qty = stock.available_qty - move.taken,
         reserved_qty = stock.reserved_qty + move.reserved,
         updated_at = inventory_write_slots.now,
         version = stock.version + 1
    from (
      select moved.product_id, moved.slot, moved.taken, moved.reserved,
             (select newest.version from inventory_slots as newest
               where newest.product_id = moved.product_id and newest.slot = moved.slot
               order by newest.version desc
               limit 1) as version
        from unnest(inventory_write_slots.product_ids, inventory_write_slots.slots, inventory_write_slots.taken, inventory_write_slots.reserved)
             as moved (product_id, slot, taken, reserved)
      offset 0   -- the row by its whole key: joined first, each dead version of the slot would be read
    ) as move
   where stock.product_id = move.product_id and stock.slot = move.slot and stock.version = move.version;
  get diagnostics v_rows = row_count;
  return v_rows;
end;
$$;

revoke execute on function inventory_write_slots(uuid[], integer[], bigint[], bigint[], timestamptz) from public;

comment on function inventory_write_slots(uuid[], integer[], bigint[], bigint[], timestamptz) is
  'Step of the inventory functions: takes units off what is available in each slot, and adds units to what is reserved there; negative ones go the other way. '
  'Returns how many of the slots it wrote.';
