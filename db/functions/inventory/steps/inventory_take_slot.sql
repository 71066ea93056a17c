-- inventory_take_slot: locks one slot of a product that has the wanted units, if one can be had, and returns it.
--
-- A slot that others hold is skipped first. If none is left, this waits for one slot that has enough, alone, holding
-- nothing of the product: waiting on all slots would make a convoy. Null says "look at all of them", never "sold out".
--
-- FOR UPDATE keeps a row that changed since the snapshot and no longer fits, though it does not return it. A slot that
-- is held in vain, while lower ones are waited for, is half a deadlock; only the rollback of a subtransaction gives it
-- back, and no_data_found, which INTO STRICT raises, is what rolls it back.

create or replace function inventory_take_slot(product_id uuid, slots integer, wanted bigint)
returns integer
language plpgsql
as $$
declare
  v_slot integer;
begin
  if inventory_take_slot.slots <= 1 then
    perform from inventory_items as stock
      where stock.product_id = inventory_take_slot.product_id and stock.slots = 1 and stock.available_qty >= inventory_take_slot.wanted
        for update skip locked;
    return case when found then 0 end;
  end if;

  -- every session begins at another slot
  begin
    select stock.slot into strict v_slot
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id and stock.available_qty >= inventory_take_slot.wanted
     order by (stock.slot + pg_backend_pid()) % inventory_take_slot.slots
     limit 1
       for update skip locked;
    return v_slot;
  exception when no_data_found then
    null;
  end;

  select stock.slot into v_slot
    from inventory_slots as stock
   where stock.product_id = inventory_take_slot.product_id and stock.available_qty >= inventory_take_slot.wanted
   order by (stock.slot + pg_backend_pid()) % inventory_take_slot.slots
   limit 1;
  if not found then
    return null;
  end if;

  begin
    select stock.slot into strict v_slot
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id and stock.slot = v_slot and stock.available_qty >= inventory_take_slot.wanted
       for update;
    return v_slot;
  exception when no_data_found then
    return null;
  end;
end;
$$;

revoke execute on function inventory_take_slot(uuid, integer, bigint) from public;

comment on function inventory_take_slot(uuid, integer, bigint) is
  'Step of inventory_reserve: locks one slot that has the wanted units and returns its number (0: the product''s own row), else null.';
