-- inventory_take_slot: locks one slot of a product that has the wanted units, if one can be had, and returns it.
--
-- A slot that others hold is skipped first. If none is left, this waits for one slot that has enough, alone, holding
-- nothing of the product: waiting on all slots would make a convoy. Null says "look at all of them", never "sold out".

create or replace function inventory_take_slot(product_id uuid, slots integer, wanted bigint)
returns integer
language plpgsql
as $$
declare
  v_slot integer;
  v_available integer;
begin
  if inventory_take_slot.slots <= 1 then
    perform from inventory_items as stock
      where stock.product_id = inventory_take_slot.product_id and stock.slots = 1 and stock.available_qty >= inventory_take_slot.wanted
        for update skip locked;
    return case when found then 0 end;
  end if;

  -- every session begins at another slot
  select stock.slot into v_slot
    from inventory_slots as stock
   where stock.product_id = inventory_take_slot.product_id and stock.available_qty >= inventory_take_slot.wanted
   order by (stock.slot + pg_backend_pid()) % inventory_take_slot.slots
   limit 1
     for update skip locked;
  if found then
    return v_slot;
  end if;

  select stock.slot into v_slot
    from inventory_slots as stock
   where stock.product_id = inventory_take_slot.product_id and stock.available_qty >= inventory_take_slot.wanted
   order by (stock.slot + pg_backend_pid()) % inventory_take_slot.slots
   limit 1;
  if not found then
    return null;
  end if;

  -- A subtransaction, because only its rollback gives a row lock back: what waited in vain must not be held while
  -- lower slots are locked.
  begin
    select stock.available_qty into v_available
      from inventory_slots as stock
     where stock.product_id = inventory_take_slot.product_id and stock.slot = v_slot
       for update;
    if not found or v_available < inventory_take_slot.wanted then
      raise no_data_found;
    end if;
    return v_slot;
  exception when no_data_found then
    return null;
  end;
end;
$$;

revoke execute on function inventory_take_slot(uuid, integer, bigint) from public;

comment on function inventory_take_slot(uuid, integer, bigint) is
  'Step of inventory_reserve: locks one slot that has the wanted units and returns its number (0: the product''s own row), else null.';
