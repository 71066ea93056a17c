-- inventory_take_split: takes units of a cart's products of which some are split, all of them or none: of a split one from one slot.
--
-- Locks go upwards in product_id order, as in inventory_reserve: the unsplit products that come before a split one at once
-- (inventory_take), then a slot of that one (inventory_take_slot), then the next. Slots are written once all are held. product_ids
-- are in that order.
--
-- False says that something is not there as inventory_suffices saw it, be it that no slot has enough alone, or that a trigger
-- of the host keeps a row from being written: then the caller rolls back what was.

create or replace function inventory_take_split(
  cart_id uuid,
  vendor_store_ids uuid[],
  product_ids uuid[],
  qtys bigint[],
  now timestamptz
)
returns boolean
language plpgsql
as $$
declare
  v_product_ids alias for product_ids;
  v_qtys alias for qtys;
  v_slots constant integer[] := array(
    select (select stock.slots from inventory_items as stock where stock.product_id = wanted.product_id)
      from unnest(inventory_take_split.product_ids) with ordinality as wanted (product_id, position)
     order by wanted.position);
  v_next integer := 1;
  v_split integer;
  v_slot integer;
  v_split_product_ids uuid[] := '{}'::uuid[];
  v_split_qtys bigint[] := '{}'::bigint[];
  v_held_slots integer[] := '{}'::integer[];
  v_rows bigint;
begin
  -- a loop, because each slot must be locked before the products that come after it
  for v_split in
    select part.position from unnest(v_slots) with ordinality as part (slots, position)
     where part.slots > 1
     order by part.position
  loop
    if v_next < v_split and not inventory_take(v_product_ids[v_next : v_split - 1], v_qtys[v_next : v_split - 1], inventory_take_split.now) then
      return false;
    end if;
    v_slot := inventory_take_slot(v_product_ids[v_split], v_slots[v_split], v_qtys[v_split]);
    if v_slot is null then
      return false;
    end if;
    v_split_product_ids := v_split_product_ids || v_product_ids[v_split];
    v_split_qtys := v_split_qtys || v_qtys[v_split];
    v_held_slots := v_held_slots || v_slot;
    v_next := v_split + 1;
  end loop;
  if v_next <= cardinality(v_product_ids) and not inventory_take(v_product_ids[v_next :], v_qtys[v_next :], inventory_take_split.now) then
    return false;
  end if;

  if inventory_write_slots(v_split_product_ids, v_held_slots, v_split_qtys, v_split_qtys, inventory_take_split.now) <> cardinality(v_held_slots) then
    return false;
  end if;

  insert into inventory_holds (product_id, line_item_id, slot, qty)
  select item.product_id, item.id, held.slot, item.quantity
    from cart_items as item
    join unnest(v_split_product_ids, v_held_slots) as held (product_id, slot) on held.product_id = item.product_id
   where item.cart_id = inventory_take_split.cart_id and item.status = 'ok' and item.vendor_store_id = any (inventory_take_split.vendor_store_ids);
  get diagnostics v_rows = row_count;
  return v_rows = (select count(*) from cart_items as item
                    where item.cart_id = inventory_take_split.cart_id and item.status = 'ok'
                      and item.vendor_store_id = any (inventory_take_split.vendor_store_ids) and item.product_id = any (v_split_product_ids));
end;
$$;

revoke execute on function inventory_take_split(uuid, uuid[], uuid[], bigint[], timestamptz) from public;

comment on function inventory_take_split(uuid, uuid[], uuid[], bigint[], timestamptz) is
  'Step of checkout_execute: takes units of a cart''s products, which are given upwards, of split ones from one slot each, locking in (product_id, slot) order. '
  'False if any of them is not there in one row or is not written, and no_data_found (P0002) as inventory_take_slot: then roll back.';
