-- inventory_reserve: takes stock for a cart's orderable lines and returns the ids of the lines that fall short.
--
-- First every product is locked and decided, then stock is written once: a line that a policy rejects later has no stock
-- to give back. Products are locked one at a time in product_id order, and only the last one is ever waited for, so waits go
-- upwards in (product_id, slot) alone and checkouts cannot deadlock. All lines of one product are decided together: a
-- row that this transaction already holds is not skipped, so a second line would claim the same units again.
--
-- by_slot: of a split product, one slot is tried first (inventory_take_slot, which may ask for a rollback by no_data_found).
-- Without it, all slots of every product are locked, so that nothing can be held in vain.
--
-- A vendor whose lines that are not short come to less than its minimum gets none of them, and under policy vendor neither does
-- one of whom a line is short. What that frees is offered once more, to what is short, or it would be told "sold out" beside stock:
-- line by line, and under policy vendor to all lines of a vendor or to none. A vendor that was short of everything may still be
-- below its minimum with what it got then, so that minimums are judged once more; that is the end of it.

create or replace function inventory_reserve(
  cart_id uuid,
  vendor_store_ids uuid[],
  reservation_policy text,
  has_minimum boolean,
  by_slot boolean,
  now timestamptz,
  out short_line_ids uuid[],
  out below_minimum_line_ids uuid[]
)
language plpgsql
as $$
declare
  v_product record;
  v_line record;
  v_slot integer;
  v_slots integer[];
  v_available integer[];
  v_takes integer[];
  v_held_product_ids uuid[] := '{}'::uuid[];
  v_held_line_ids uuid[] := '{}'::uuid[];
  v_held_slots integer[] := '{}'::integer[];
  v_held_qtys integer[] := '{}'::integer[];
  v_left_product_ids uuid[] := '{}'::uuid[];   -- of products that a line is short of: what is left of each slot
  v_left_slots integer[] := '{}'::integer[];
  v_left_qtys integer[] := '{}'::integer[];
  v_first_holds integer;
  v_holds integer;
  v_offered record;
  v_missed_line_ids uuid[];
  v_freed_line_ids uuid[] := '{}'::uuid[];
  v_off_line_ids uuid[];
  v_product_ids uuid[];
  v_qtys bigint[];
  v_short_lines jsonb := '[]'::jsonb;
  v_rows bigint;
  v_expected bigint;
begin
  short_line_ids := '{}';
  below_minimum_line_ids := '{}';
  -- a loop, because each product must be locked before the next one is
  for v_product in
    select item.product_id, array_agg(item.id order by item.id) as line_ids, array_agg(item.quantity order by item.id) as qtys,
           sum(item.quantity) as wanted, coalesce(stock.slots, 0) as slots
      from cart_items as item
      left join inventory_items as stock on stock.product_id = item.product_id
     where item.cart_id = inventory_reserve.cart_id and item.status = 'ok' and item.vendor_store_id = any (inventory_reserve.vendor_store_ids)
     group by item.product_id, stock.slots
     order by item.product_id
  loop
    v_slot := null;
    if v_product.slots > 1 and inventory_reserve.by_slot then
      v_slot := inventory_take_slot(v_product.product_id, v_product.slots, v_product.wanted);
    end if;
    if v_slot is not null then
      v_held_product_ids := v_held_product_ids || array_fill(v_product.product_id, array[cardinality(v_product.line_ids)]);
      v_held_line_ids := v_held_line_ids || v_product.line_ids;
      v_held_slots := v_held_slots || array_fill(v_slot, array[cardinality(v_product.line_ids)]);
      v_held_qtys := v_held_qtys || v_product.qtys;
      continue;
    end if;

    -- One row, or no slot that has enough for all lines. Hold every slot and decide on what is really there, combining slots.
    select locked.slots, locked.available_qtys into v_slots, v_available
      from inventory_lock_product(v_product.product_id) as locked;

    for v_line in
      select line.id, line.qty from unnest(v_product.line_ids, v_product.qtys) as line (id, qty) order by line.id
    loop
      v_takes := inventory_spread(v_line.qty, v_available);
      if v_takes is null then
        short_line_ids := short_line_ids || v_line.id;
        v_short_lines := v_short_lines || jsonb_build_object(
          'cart_item_id', v_line.id, 'product_id', v_product.product_id, 'requested', v_line.qty,
          'available', coalesce((select sum(qty) from unnest(v_available) as qty), 0));
        continue;
      end if;
      for i in 1 .. cardinality(v_slots) loop
        continue when v_takes[i] = 0;
        v_held_product_ids := v_held_product_ids || v_product.product_id;
        v_held_line_ids := v_held_line_ids || v_line.id;
        v_held_slots := v_held_slots || v_slots[i];
        v_held_qtys := v_held_qtys || v_takes[i];
        v_available[i] := v_available[i] - v_takes[i];
      end loop;
    end loop;
    if v_product.line_ids && short_line_ids and cardinality(v_slots) > 0 then
      v_left_product_ids := v_left_product_ids || array_fill(v_product.product_id, array[cardinality(v_slots)]);
      v_left_slots := v_left_slots || v_slots;
      v_left_qtys := v_left_qtys || v_available;
    end if;
  end loop;

  v_missed_line_ids := short_line_ids;
  if cardinality(short_line_ids) > 0 and inventory_reserve.reservation_policy = 'all' then
    raise exception 'not enough stock for % of the lines of cart %', cardinality(short_line_ids), inventory_reserve.cart_id
      using errcode = 'OC010',
            detail = jsonb_build_object('cart_id', inventory_reserve.cart_id, 'items', v_short_lines),
            hint = 'Change these lines and quote the cart again, or allow a partial order.';
  elsif cardinality(short_line_ids) > 0 and inventory_reserve.reservation_policy = 'vendor' then
    select array_agg(item.id order by item.id) into short_line_ids
      from cart_items as item
     where item.cart_id = inventory_reserve.cart_id and item.status = 'ok'
       and item.vendor_store_id in (select short.vendor_store_id from cart_items as short where short.id = any (short_line_ids));
    v_freed_line_ids := short_line_ids;
  elsif cardinality(short_line_ids) > 0 and inventory_reserve.has_minimum then
    below_minimum_line_ids := cart_lines_below_minimum(inventory_reserve.cart_id, inventory_reserve.vendor_store_ids, short_line_ids);
    v_freed_line_ids := below_minimum_line_ids;
  end if;

  if cardinality(v_freed_line_ids) > 0 then
    v_first_holds := cardinality(v_held_line_ids);
    -- loops, because what one takes is not there for the next
    for v_offered in
      select array_agg(item.id order by item.id) as line_ids
        from cart_items as item
       where item.id = any (short_line_ids)
         and item.vendor_store_id not in (select below.vendor_store_id from cart_items as below where below.id = any (below_minimum_line_ids))
       group by item.vendor_store_id, case when inventory_reserve.reservation_policy <> 'vendor' then item.id end
       order by array_agg(item.id order by item.id)
    loop
      v_holds := cardinality(v_held_line_ids);
      for v_line in
        select item.id, item.product_id, item.quantity as qty
          from cart_items as item
         where item.id = any (v_offered.line_ids)
         order by item.id <> all (v_missed_line_ids), item.id   -- most vendors are out with the first
      loop
        select array_agg(part.slot order by part.slot), array_agg(part.qty order by part.slot) into v_slots, v_available
          from (
            select each.slot, sum(each.qty)::integer as qty
              from (
                select rest.product_id, rest.slot, rest.qty from unnest(v_left_product_ids, v_left_slots, v_left_qtys) as rest (product_id, slot, qty)
                 union all
                select held.product_id, held.slot, case when held.position > v_first_holds then - held.qty else held.qty end
                  from unnest(v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys) with ordinality as held (product_id, line_id, slot, qty, position)
                 where held.position > v_first_holds or held.line_id = any (v_freed_line_ids)
              ) as each
             where each.product_id = v_line.product_id
             group by each.slot
          ) as part;
        v_takes := inventory_spread(v_line.qty, v_available);
        exit when v_takes is null;
        for i in 1 .. cardinality(v_slots) loop
          continue when v_takes[i] = 0;
          v_held_product_ids := v_held_product_ids || v_line.product_id;
          v_held_line_ids := v_held_line_ids || v_line.id;
          v_held_slots := v_held_slots || v_slots[i];
          v_held_qtys := v_held_qtys || v_takes[i];
        end loop;
      end loop;

      if v_takes is null then
        v_held_product_ids := v_held_product_ids[:v_holds];
        v_held_line_ids := v_held_line_ids[:v_holds];
        v_held_slots := v_held_slots[:v_holds];
        v_held_qtys := v_held_qtys[:v_holds];
      else
        -- what its lines held at first was free for all, itself among them, and is so for those that come after it
        select v_left_product_ids || coalesce(array_agg(held.product_id), '{}'), v_left_slots || coalesce(array_agg(held.slot), '{}'),
               v_left_qtys || coalesce(array_agg(held.qty), '{}')
          into v_left_product_ids, v_left_slots, v_left_qtys
          from unnest(v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys) with ordinality as held (product_id, line_id, slot, qty, position)
         where held.position <= v_first_holds and held.line_id = any (v_offered.line_ids);
        select array_agg(held.product_id order by held.position), array_agg(held.line_id order by held.position),
               array_agg(held.slot order by held.position), array_agg(held.qty order by held.position),
               count(*) filter (where held.position <= v_first_holds)
          into v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys, v_first_holds
          from unnest(v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys) with ordinality as held (product_id, line_id, slot, qty, position)
         where held.position > v_first_holds or held.line_id <> all (v_offered.line_ids);
        short_line_ids := array(select line_id from unnest(short_line_ids) as line_id where line_id <> all (v_offered.line_ids));
        v_freed_line_ids := array(select line_id from unnest(v_freed_line_ids) as line_id where line_id <> all (v_offered.line_ids));
      end if;
    end loop;
  end if;

  if inventory_reserve.has_minimum and inventory_reserve.reservation_policy = 'partial' and cardinality(short_line_ids || below_minimum_line_ids) > 0 then
    below_minimum_line_ids := below_minimum_line_ids
      || cart_lines_below_minimum(inventory_reserve.cart_id, inventory_reserve.vendor_store_ids, short_line_ids || below_minimum_line_ids);
  end if;
  v_off_line_ids := short_line_ids || below_minimum_line_ids;

  if 0 = any (v_held_slots) then
    update inventory_items as stock
       set available_qty = stock.available_qty - taken.qty,
           reserved_qty = stock.reserved_qty + taken.qty,
           updated_at = inventory_reserve.now
      from (
        select held.product_id, sum(held.qty) as qty
          from unnest(v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys) as held (product_id, line_id, slot, qty)
         where held.slot = 0 and held.line_id <> all (v_off_line_ids)
         group by held.product_id
      ) as taken
     where stock.product_id = taken.product_id;
    get diagnostics v_rows = row_count;
    v_expected := (select count(distinct held.product_id)
         from unnest(v_held_product_ids, v_held_line_ids, v_held_slots) as held (product_id, line_id, slot)
        where held.slot = 0 and held.line_id <> all (v_off_line_ids));
    if v_rows <> v_expected then
      perform checkout_raise_rows(inventory_reserve.cart_id, 'inventory_items', v_expected, v_rows);
    end if;
  end if;

  if 0 < any (v_held_slots) then
    select array_agg(taken.product_id), array_agg(taken.slot), array_agg(taken.qty) into v_product_ids, v_slots, v_qtys
      from (
        select held.product_id, held.slot, sum(held.qty) as qty
          from unnest(v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys) as held (product_id, line_id, slot, qty)
         where held.slot > 0 and held.line_id <> all (v_off_line_ids)
         group by held.product_id, held.slot
      ) as taken;
    v_rows := inventory_write_slots(v_product_ids, v_slots, v_qtys, v_qtys, inventory_reserve.now);
    if v_rows <> coalesce(cardinality(v_slots), 0) then
      perform checkout_raise_rows(inventory_reserve.cart_id, 'inventory_slots', cardinality(v_slots), v_rows);
    end if;

    insert into inventory_holds (product_id, line_item_id, slot, qty)
    select held.product_id, held.line_id, held.slot, held.qty
      from unnest(v_held_product_ids, v_held_line_ids, v_held_slots, v_held_qtys) as held (product_id, line_id, slot, qty)
     where held.slot > 0 and held.line_id <> all (v_off_line_ids);
    get diagnostics v_rows = row_count;
    v_expected := (select count(*) from unnest(v_held_line_ids, v_held_slots) as held (line_id, slot)
                    where held.slot > 0 and held.line_id <> all (v_off_line_ids));
    if v_rows <> v_expected then
      perform checkout_raise_rows(inventory_reserve.cart_id, 'inventory_holds', v_expected, v_rows);
    end if;
  end if;
end;
$$;

revoke execute on function inventory_reserve(uuid, uuid[], text, boolean, boolean, timestamptz) from public;

comment on function inventory_reserve(uuid, uuid[], text, boolean, boolean, timestamptz) is
  'Step of checkout_execute: reserves stock for the lines of a cart''s ordered vendors, all or nothing a line, and returns the ids of '
  'the lines to reject: those that are short, and those of vendors that fall below their minimum. Raises OC010 under policy all if a line is short. Locks stock in (product_id, slot) order.';
