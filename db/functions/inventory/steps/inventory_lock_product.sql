-- inventory_lock_product: locks all of a product's stock, in slot order, and says what is there.
--
-- Slot 0 first: whoever changes the number of slots holds it, so the slots cannot change under this lock.
--
-- Each slot is looked for from its newest version on, and locked in whatever version it is by then: with = in place of >=, one
-- that changed while it was waited for would be missing, and its units with it.

create or replace function inventory_lock_product(product_id uuid, out slots integer[], out available_qtys integer[])
returns record
language plpgsql
as $$
#variable_conflict use_column   -- ON CONFLICT names columns
declare
  v_item inventory_items;
begin
  select stock.* into v_item
    from inventory_items as stock
   where stock.product_id = inventory_lock_product.product_id
     for no key update;
  if not found then
    -- a snapshot may be older than the row, which the primary key knows and says with 40001
    if current_setting('transaction_isolation') in ('repeatable read', 'serializable') and inventory_lock_product.product_id is not null then
      begin
        insert into inventory_items (product_id, available_qty, reserved_qty, updated_at)
        values (inventory_lock_product.product_id, 0, 0, clock_timestamp())
            on conflict (product_id) do nothing;
        raise no_data_found;
      exception when no_data_found or integrity_constraint_violation then   -- or a column of the host wants more
        null;
      end;
    end if;
    return;
  end if;

  if v_item.slots = 1 then
    slots := array[0];
    available_qtys := array[v_item.available_qty];
    return;
  end if;

  select array_agg(stock.slot order by stock.slot), array_agg(stock.available_qty order by stock.slot)
    into slots, available_qtys
    from generate_series(1, v_item.slots) as numbered (slot)   -- one after the other, in this order
   cross join lateral (select own.slot, own.available_qty
                         from inventory_slots as own
                        where own.product_id = inventory_lock_product.product_id and own.slot = numbered.slot
                          and own.version >= (select newest.version from inventory_slots as newest
                                               where newest.product_id = inventory_lock_product.product_id and newest.slot = numbered.slot
                                               order by newest.version desc
                                               limit 1)
                          for no key update) as stock;
end;
$$;

revoke execute on function inventory_lock_product(uuid) from public;

comment on function inventory_lock_product(uuid) is
  'Locks every slot of a product in slot order, waiting where it must. Returns the slots that stock is in and their '
  'available units; null arrays if there is no row.';
