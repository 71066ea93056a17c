-- inventory_return: units of lines stop being reserved; what comes back to the shelf is available again.
--
-- Locks all of the products' stock, in the order of checkouts, before it writes. A hold stands in its slot, and of a part
-- the highest slots give first; a line without holds holds its stock in slot 0, from where a split product's units go
-- to the slot that has least, as shipped units do that come back.

create or replace function inventory_return(
  cart_id uuid,
  line_ids uuid[],
  to_shelf boolean,
  qtys integer[] default null,
  from_reserve boolean default true
)
returns void
language plpgsql
as $$
declare
  v_now timestamptz;
  v_products uuid[];
  v_line_ids uuid[];
  v_slots integer[];
  v_taken bigint[];
  v_reserved bigint[];
  v_rest bigint[];
  v_rows bigint;
  v_expected bigint;
begin
  perform inventory_lock_lines(inventory_return.line_ids);
  v_now := clock_timestamp();

  with asked as (
    select line.id, line.product_id, coalesce(part.qty, line.reserved_qty) as qty
      from unnest(inventory_return.line_ids, inventory_return.qtys) as part (line_id, qty)
      join order_line_items as line on line.id = part.line_id
  ), parts as (
    select asked.product_id, coalesce(hold.slot, 0) as slot,
           case when hold.slot is null then asked.qty else least(hold.qty, greatest(asked.qty - hold.above, 0)) end as qty,
           case when stock.slots = 1 then 0
                when hold.slot is null then (
                  select newest.slot
                    from generate_series(1, stock.slots) as numbered (slot)
                   cross join lateral (select own.slot, own.available_qty from inventory_slots as own
                                        where own.product_id = asked.product_id and own.slot = numbered.slot
                                        order by own.version desc
                                        limit 1) as newest
                   order by newest.available_qty, newest.slot
                   limit 1)
                else hold.slot
           end as shelf
      from asked
      join inventory_items as stock on stock.product_id = asked.product_id
      left join lateral (
        select own.slot, own.qty, sum(own.qty) over (order by own.slot desc) - own.qty as above
          from inventory_holds as own
         where inventory_return.from_reserve and own.product_id = asked.product_id and own.line_item_id = asked.id) as hold on true
     where asked.qty > 0
  ), moves as (
    select product_id, slot, 0 as taken, - qty as reserved from parts where inventory_return.from_reserve
     union all
    select product_id, shelf, - qty, 0 from parts where inventory_return.to_shelf
  ), sums as (
    select product_id, slot, sum(taken) as taken, sum(reserved) as reserved from moves group by product_id, slot
  )
  select array_agg(product_id), array_agg(slot), array_agg(taken), array_agg(reserved)
    into v_products, v_slots, v_taken, v_reserved
    from sums;

  update inventory_items as stock
     set available_qty = stock.available_qty - move.taken,
         reserved_qty = stock.reserved_qty + move.reserved,
         updated_at = v_now
    from unnest(v_products, v_slots, v_taken, v_reserved) as move (product_id, slot, taken, reserved)
   where stock.product_id = move.product_id and move.slot = 0;
  get diagnostics v_rows = row_count;
  if v_rows <> coalesce(cardinality(array_positions(v_slots, 0)), 0) then
    perform checkout_raise_rows(inventory_return.cart_id, 'inventory_items', coalesce(cardinality(array_positions(v_slots, 0)), 0), v_rows);
  end if;

  v_rows := inventory_write_slots(v_products, v_slots, v_taken, v_reserved, v_now);
  if v_rows <> coalesce(cardinality(v_slots) - cardinality(array_positions(v_slots, 0)), 0) then
    perform checkout_raise_rows(inventory_return.cart_id, 'inventory_slots', coalesce(cardinality(v_slots) - cardinality(array_positions(v_slots, 0)), 0), v_rows);
  end if;

  -- by the lines: a product whose stock row the host deleted is in no array
  if inventory_return.from_reserve then
    select array_agg(spent.product_id), array_agg(spent.line_item_id), array_agg(spent.slot), array_agg(spent.rest)
      into v_products, v_line_ids, v_slots, v_rest
      from (
        select hold.product_id, hold.line_item_id, hold.slot, hold.qty,
               least(hold.qty, sum(hold.qty) over (partition by hold.product_id, hold.line_item_id order by hold.slot desc)
                               - coalesce(part.qty, line.reserved_qty)) as rest
          from unnest(inventory_return.line_ids, inventory_return.qtys) as part (line_id, qty)
          join order_line_items as line on line.id = part.line_id
          join inventory_holds as hold on hold.product_id = line.product_id and hold.line_item_id = line.id
      ) as spent
     where spent.rest < spent.qty;
    delete from inventory_holds as hold
     using unnest(v_products, v_line_ids, v_slots, v_rest) as spent (product_id, line_item_id, slot, rest)
     where hold.product_id = spent.product_id and hold.line_item_id = spent.line_item_id and hold.slot = spent.slot and spent.rest <= 0;
    get diagnostics v_rows = row_count;
    v_expected := (select count(*) from unnest(v_rest) as rest where rest <= 0);
    if v_rows <> v_expected then
      perform checkout_raise_rows(inventory_return.cart_id, 'inventory_holds', v_expected, v_rows);
    end if;
    update inventory_holds as hold
       set qty = spent.rest
      from unnest(v_products, v_line_ids, v_slots, v_rest) as spent (product_id, line_item_id, slot, rest)
     where hold.product_id = spent.product_id and hold.line_item_id = spent.line_item_id and hold.slot = spent.slot and spent.rest > 0;
    get diagnostics v_rows = row_count;
    v_expected := (select count(*) from unnest(v_rest) as rest where rest > 0);
    if v_rows <> v_expected then
      perform checkout_raise_rows(inventory_return.cart_id, 'inventory_holds', v_expected, v_rows);
    end if;
  end if;
exception
  when check_violation or numeric_value_out_of_range then
    raise exception 'the stock of these lines cannot be given back: %', sqlerrm
      using errcode = 'OC012',
            detail = jsonb_build_object('what', 'stock', 'product_ids', v_products),
            hint = case sqlstate when '22003' then 'The shelf of one of their products can count no more units: set its stock lower.'
                                 else 'Their products hold fewer reserved units than their open lines say: SELECT * FROM checkout_audit();' end;
end;
$$;

revoke execute on function inventory_return(uuid, uuid[], boolean, integer[], boolean) from public;

comment on function inventory_return(uuid, uuid[], boolean, integer[], boolean) is
  'Step of the order functions: takes units of lines (qtys; null: what they hold) off the reserved stock, unless from_reserve is false, and, if they go '
  'back to the shelf, adds them to the available. Locks stock in (product_id, slot) order. A product without a stock row takes nothing back. Raises OC012 if less is '
  'reserved or no more fits on the shelf, OC007 if a trigger keeps a row from being written.';
