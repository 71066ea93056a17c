-- inventory_write_available: writes a product's available units, evenly over its slots. Called under the locks of
-- inventory_lock_available.

create or replace function inventory_write_available(product_id uuid, available bigint)
returns inventory_levels
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_slots integer;
  v_locked record;
  v_rows bigint;
  v_level inventory_levels;
begin
  begin
    update inventory_items as stock
       set available_qty = case when stock.slots = 1 then inventory_write_available.available else 0 end,
           updated_at = v_now
     where stock.product_id = inventory_write_available.product_id
    returning stock.slots into v_slots;
    get diagnostics v_rows = row_count;
    if v_rows <> 1 then
      perform checkout_raise_rows(null, 'inventory_items', 1, v_rows);
    end if;

    if v_slots > 1 then
      v_locked := inventory_lock_product(inventory_write_available.product_id);   -- it is locked: this says what is there
      v_rows := inventory_write_slots(array_fill(inventory_write_available.product_id, array[v_slots]), v_locked.slots,
                                      inventory_even_out(v_locked.available_qtys, inventory_write_available.available),
                                      array_fill(0::bigint, array[v_slots]), v_now);
      if v_rows <> v_slots then
        perform checkout_raise_rows(null, 'inventory_slots', v_slots, v_rows);
      end if;
    end if;
  exception when numeric_value_out_of_range then
    perform checkout_raise_invalid('available', format('would be %s units, more than its rows can hold', inventory_write_available.available));
  end;

  select level.* into v_level from inventory_levels as level where level.product_id = inventory_write_available.product_id;
  return v_level;
end;
$$;

revoke execute on function inventory_write_available(uuid, bigint) from public;

comment on function inventory_write_available(uuid, bigint) is
  'Step of the inventory functions: writes the available units of a locked product, evenly over its slots, and returns its level. '
  'Raises OC005 if they are more than its rows can hold, OC007 if a trigger keeps a row from being written.';
