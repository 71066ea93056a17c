-- inventory_take_slot: locks one slot of a split product that has the wanted units, if one can be had, and returns it.
--
-- Every session begins at another slot, and looks at the next one only where that is busy or has too little. The newest version of
-- a slot is found from the index's end, whatever dead ones a held snapshot keeps.
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
  v_slot integer;
  v_version bigint;
  v_available integer;
begin
  -- One slot after the other, until one is locked. The sub-select is not asked again under the lock, and a slot that changed since is
  -- locked as it is now.
  select stock.slot, stock.available_qty into v_slot, v_available
    from generate_series(0, inventory_take_slot.slots - 1) as step
   cross join lateral (select own.slot, own.available_qty
                         from inventory_slots as own
                        where own.product_id = inventory_take_slot.product_id
                          and own.slot = 1 + (pg_backend_pid() + step) % inventory_take_slot.slots
                          and own.version >= (select enough.version
                                                from (select newest.version, newest.available_qty from inventory_slots as newest
                                                       where newest.product_id = inventory_take_slot.product_id
                                                         and newest.slot = 1 + (pg_backend_pid() + step) % inventory_take_slot.slots
                                                       order by newest.version desc
                                                       limit 1) as enough
                                               where enough.available_qty >= inventory_take_slot.wanted)
                          for no key update skip locked) as stock
   limit 1;

  if not found then
    select newest.slot, newest.version into v_slot, v_version
      from generate_series(0, inventory_take_slot.slots - 1) as step
     cross join lateral (select own.slot, own.version, own.available_qty from inventory_slots as own
                          where own.product_id = inventory_take_slot.product_id
                            and own.slot = 1 + (pg_backend_pid() + step) % inventory_take_slot.slots
                          order by own.version desc
                          limit 1) as newest
     where newest.available_qty >= inventory_take_slot.wanted
     limit 1;
    if not found then
      return null;
    end if;

    select stock.available_qty into v_available
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id and stock.slot = v_slot and stock.version >= v_version
       for no key update;
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
  'Step of inventory_reserve and inventory_take_split: locks one slot of a split product that has the wanted units and returns its number, else null. Raises '
  'no_data_found (P0002) if it holds a slot that has too few by now: then roll back.';
