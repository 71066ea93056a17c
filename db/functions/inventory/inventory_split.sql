-- inventory_split: spreads a hot product's stock over slots, or merges it back with slots = 1.
--
-- Everything comes back to slot 0 first, so that what open lines hold is where a line without rows in inventory_holds
-- is taken to hold it; then the available units go out again. Versions begin at the time, which is above all that were there before.

create or replace function inventory_split(product_id uuid, slots integer)
returns inventory_levels
language plpgsql
security definer
set search_path from current
as $$
declare
  v_available bigint;
  v_now timestamptz;
  v_version bigint;
  v_rows bigint;
  v_left bigint;
begin
  if inventory_split.slots is null or inventory_split.slots not between 1 and 256 then
    perform checkout_raise_invalid('slots', 'must be a number from 1 to 256');
  end if;
  perform inventory_lock_product(inventory_split.product_id);
  if not exists (select from inventory_items as stock where stock.product_id = inventory_split.product_id) then
    perform checkout_raise_invalid('product_id', 'has no stock row');
  end if;
  v_available := inventory_lock_available(inventory_split.product_id);
  v_now := clock_timestamp();
  v_version := extract(epoch from v_now) * 1000000;

  begin
    update inventory_items as stock
       set slots = inventory_split.slots,
           available_qty = 0,
           reserved_qty = stock.reserved_qty + coalesce(
             (select sum(held.reserved_qty) from inventory_slots as held where held.product_id = inventory_split.product_id), 0),
           updated_at = v_now
     where stock.product_id = inventory_split.product_id;
    get diagnostics v_rows = row_count;
  exception when numeric_value_out_of_range then
    perform checkout_raise_invalid('slots', 'would bring together more reserved units than one row can hold');
  end;
  if v_rows <> 1 then
    perform checkout_raise_rows(null, 'inventory_items', 1, v_rows);
  end if;

  delete from inventory_holds as hold where hold.product_id = inventory_split.product_id;
  get diagnostics v_rows = row_count;
  v_left := (select count(*) from inventory_holds as hold where hold.product_id = inventory_split.product_id);
  if v_left > 0 then
    perform checkout_raise_rows(null, 'inventory_holds', v_rows + v_left, v_rows);
  end if;
  delete from inventory_slots as old where old.product_id = inventory_split.product_id;
  get diagnostics v_rows = row_count;
  v_left := (select count(*) from inventory_slots as old where old.product_id = inventory_split.product_id);
  if v_left > 0 then
    perform checkout_raise_rows(null, 'inventory_slots', v_rows + v_left, v_rows);
  end if;

  insert into inventory_slots (product_id, slot, available_qty, reserved_qty, updated_at, version)
  select inventory_split.product_id, each, 0, 0, v_now, v_version
    from generate_series(1, inventory_split.slots) as each
   where inventory_split.slots > 1;

  return inventory_write_available(inventory_split.product_id, v_available);
end;
$$;

revoke execute on function inventory_split(uuid, integer) from public;

comment on function inventory_split(uuid, integer) is
  'Spreads a product''s stock over 2 to 256 slots, so that as many checkouts can take it at once; 1 merges it back. Returns its '
  'level. Waits for checkouts of the product; locks its slots until the commit. Raises OC005 for a number out of range, a '
  'product without a stock row, or more units than one row can hold, OC007 if a trigger keeps a row from being written.';
