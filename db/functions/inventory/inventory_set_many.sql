-- inventory_set_many: sets the available units of many products, all of them or none.

create or replace function inventory_set_many(levels jsonb)
returns bigint
language plpgsql
security definer
set search_path from current
set jit = off
as $$
declare
  v_wanted record;
  v_locked record;
  v_product_ids uuid[] := '{}'::uuid[];
  v_slots integer[] := '{}'::integer[];
  v_taken bigint[] := '{}'::bigint[];
  v_now timestamptz;
  v_rows bigint;
  v_expected bigint;
begin
  v_wanted := inventory_read_levels(inventory_set_many.levels);

  -- a loop, because each product must be locked before the next one is
  for i in 1 .. cardinality(v_wanted.product_ids) loop
    v_locked := inventory_lock_product(v_wanted.product_ids[i]);
    if v_locked.slots is null then   -- it has no row yet
      perform inventory_lock_available(v_wanted.product_ids[i]);
    elsif v_locked.slots <> '{0}' then
      v_product_ids := v_product_ids || array_fill(v_wanted.product_ids[i], array[cardinality(v_locked.slots)]);
      v_slots := v_slots || v_locked.slots;
      v_taken := v_taken || inventory_even_out(v_locked.available_qtys, v_wanted.available[i]);
    end if;
  end loop;
  v_now := clock_timestamp();

  update inventory_items as stock
     set available_qty = case when stock.slots = 1 then wanted.available else 0 end,
         updated_at = v_now
    from unnest(v_wanted.product_ids, v_wanted.available) as wanted (product_id, available)
   where stock.product_id = wanted.product_id;
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_wanted.product_ids) then
    perform checkout_raise_rows(null, 'inventory_items', cardinality(v_wanted.product_ids), v_rows);
  end if;

  v_rows := inventory_write_slots(v_product_ids, v_slots, v_taken, array_fill(0::bigint, array[cardinality(v_slots)]), v_now);
  v_expected := (select coalesce(sum(item.slots), 0) from inventory_items as item
                  where item.product_id = any (v_wanted.product_ids) and item.slots > 1);
  if v_rows <> v_expected then
    perform checkout_raise_rows(null, 'inventory_slots', v_expected, v_rows);
  end if;
  return cardinality(v_wanted.product_ids);
end;
$$;

revoke execute on function inventory_set_many(jsonb) from public;

comment on function inventory_set_many(jsonb) is
  'Sets the available units of up to 10000 products, given as [{product_id, available}], as inventory_set does of one, all or none, and returns '
  'how many it set. Waits for checkouts of them; locks them in (product_id, slot) order until the commit. Raises OC005 with the path of what is '
  'wrong: an entry that is none, a product that is there twice, a number below 0 or too large; OC007 if a trigger keeps a row from being written.';
