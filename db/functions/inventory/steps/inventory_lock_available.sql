-- inventory_lock_available: locks all of a product's stock, in the order of checkouts, and returns what is available.

create or replace function inventory_lock_available(product_id uuid)
returns bigint
language plpgsql
as $$
#variable_conflict use_column   -- ON CONFLICT names columns
declare
  v_available bigint;
begin
  if inventory_lock_available.product_id is null then
    perform checkout_raise_invalid('product_id', 'is required');
  end if;
  -- the host may delete the row between the conflict and the lock
  for v_try in 1 .. 1000 loop
    insert into inventory_items (product_id, available_qty, reserved_qty, updated_at)
    values (inventory_lock_available.product_id, 0, 0, clock_timestamp())
        on conflict (product_id) do nothing;
    perform from inventory_items as stock where stock.product_id = inventory_lock_available.product_id for no key update;
    exit when found;
    if v_try = 1000 then   -- no host deletes it that often: a trigger of its keeps it from being written
      perform checkout_raise_rows(null, 'inventory_items', 1, 0);
    end if;
  end loop;

  select coalesce(sum(qty), 0) into v_available
    from inventory_lock_product(inventory_lock_available.product_id) as locked
   cross join unnest(locked.available_qtys) as qty;
  return v_available;
end;
$$;

revoke execute on function inventory_lock_available(uuid) from public;

comment on function inventory_lock_available(uuid) is
  'Step of the inventory functions: makes the product''s row if it has none, locks every slot and returns the available units. Raises OC007 if a trigger keeps the row from being written.';
