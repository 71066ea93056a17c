-- inventory_take_slot: locks one slot of a split product that has the wanted units, if one can be had, and returns it.
--
-- Every session has a slot of its own, which it looks at by key: while a snapshot is held open for long, to look at all slots is to
-- read all their dead versions, in every checkout. Only where that one is busy or has too little does it look at all of them.
--
-- A slot that others hold is skipped first. If none is left, this waits for one slot that has enough, alone, holding
-- nothing of the product: waiting on all slots would make a convoy. Null says "look at all of them", never "sold out".
--
-- Which slots have enough is asked without a lock, so the lock may show that one has too little by now. That slot is then
-- held in vain: while lower ones are waited for, half a deadlock. Only the rollback of a subtransaction gives it back, and
-- no_data_found asks the caller for that. It is rare, so that a subtransaction for each product would be one for nothing.

create or replace function inventory_take_slot(product_id uuid, slots integer, wanted bigint)
returns integer
language plpgsql
as $$
declare
  v_own constant integer := inventory_own_slot(inventory_take_slot.slots);
  v_slot integer;
  v_available integer;
begin
  -- here as below, the sub-select is not asked again under the lock
  select stock.slot, stock.available_qty into v_slot, v_available
    from inventory_slots as stock
   where stock.product_id = inventory_take_slot.product_id
     and stock.slot = (select enough.slot from inventory_slots as enough
                        where enough.product_id = inventory_take_slot.product_id and enough.slot = v_own
                          and enough.available_qty >= inventory_take_slot.wanted)
     for update of stock skip locked;

  if not found then
    select stock.slot, stock.available_qty into v_slot, v_available
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id
       and stock.slot in (select enough.slot from inventory_slots as enough
                           where enough.product_id = inventory_take_slot.product_id and enough.available_qty >= inventory_take_slot.wanted)
     order by (stock.slot - v_own + inventory_take_slot.slots) % inventory_take_slot.slots
     limit 1
       for update of stock skip locked;
  end if;

  if not found then
    select stock.slot into v_slot
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id and stock.available_qty >= inventory_take_slot.wanted
     order by (stock.slot - v_own + inventory_take_slot.slots) % inventory_take_slot.slots
     limit 1;
    if not found then
      return null;
    end if;

    select stock.available_qty into v_available
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id and stock.slot = v_slot
       for update;
    if not found then   -- merged back meanwhile
      return null;
    end if;
  end if;

  if v_available < inventory_take_slot.wanted then
    raise no_data_found;
  end if;
  return v_slot;
end;
$$;

revoke execute on function inventory_take_slot(uuid, integer, bigint) from public;

comment on function inventory_take_slot(uuid, integer, bigint) is
  'Step of inventory_reserve: locks one slot of a split product that has the wanted units and returns its number, else null. Raises '
  'no_data_found (P0002) if it holds a slot that has too few by now: then roll back.';
