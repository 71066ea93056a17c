-- inventory_get: the levels of some products.

create or replace function inventory_get(product_ids uuid[])
returns json
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_most constant integer := 10000;
begin
  if inventory_get.product_ids is null or exists (select from unnest(inventory_get.product_ids) as each (product_id) where each.product_id is null) then
    perform checkout_raise_invalid('product_ids', 'must be an array of ids, without null');
  elsif cardinality(inventory_get.product_ids) > v_most then
    perform checkout_raise_invalid('product_ids', format('must hold at most %s ids, not %s', v_most, cardinality(inventory_get.product_ids)));
  end if;

  -- not from the view: of several products it would add up the slots of all
  return (
    select json_build_object('levels', coalesce(json_agg(level order by level.product_id), '[]'))
      from (select distinct each.product_id from unnest(inventory_get.product_ids) as each (product_id)) as wanted
      join inventory_items as stock on stock.product_id = wanted.product_id
     cross join lateral (
       select coalesce(sum(each.available_qty), 0) as available_qty, coalesce(sum(each.reserved_qty), 0) as reserved_qty,
              max(each.updated_at) as updated_at
         from generate_series(1, stock.slots) as numbered (slot)
        cross join lateral (select own.available_qty, own.reserved_qty, own.updated_at from inventory_slots as own
                             where own.product_id = stock.product_id and own.slot = numbered.slot
                             order by own.version desc
                             limit 1) as each
        where stock.slots > 1
     ) as slot
     cross join lateral (
       select stock.product_id, stock.available_qty + slot.available_qty as available_qty, stock.reserved_qty + slot.reserved_qty as reserved_qty,
              stock.slots, checkout_timestamp(greatest(stock.updated_at, slot.updated_at)) as updated_at
     ) as level);
end;
$$;

revoke execute on function inventory_get(uuid[]) from public;

comment on function inventory_get(uuid[]) is
  'Stock of up to 10000 products, summed over their slots: {levels: [{product_id, available_qty, reserved_qty, slots, updated_at}]}, by product. '
  'One without a stock row is not there. Locks nothing, writes nothing. Raises OC005 for null, a null among them, or too many.';
