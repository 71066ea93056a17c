-- inventory_suffices: what a cart wants of each product, and whether that is there, as far as can be seen without a lock.
--
-- It decides nothing: checkout_convert chooses by it what comes first, and the stock is judged again under its locks. Of a split
-- product it looks for one slot that has enough, first at the session's own, which mostly has. Products are in ascending order, in
-- which their stock is locked.

create or replace function inventory_suffices(
  cart_id uuid,
  vendor_store_ids uuid[],
  out product_ids uuid[],
  out qtys bigint[],
  out suffices boolean,
  out is_split boolean
)
language plpgsql
stable
as $$
begin
  select array_agg(wanted.product_id order by wanted.product_id), array_agg(wanted.qty order by wanted.product_id),
         bool_and(wanted.qty <= coalesce(
           case when stock.slots > 1
                then (select own.available_qty from inventory_slots as own
                       where own.product_id = wanted.product_id and own.slot = 1 + pg_backend_pid() % stock.slots
                       order by own.version desc
                       limit 1)
                else stock.available_qty
           end, 0)),
         bool_or(stock.slots > 1)
    into product_ids, qtys, suffices, is_split
    from (
      select item.product_id, sum(item.quantity) as qty
        from cart_items as item
       where item.cart_id = inventory_suffices.cart_id and item.status = 'ok'
         and item.vendor_store_id = any (inventory_suffices.vendor_store_ids)
       group by item.product_id
    ) as wanted
    left join lateral (   -- OFFSET 0: by key for each product; a hash join would scan the whole index
      select own.slots, own.available_qty from inventory_items as own where own.product_id = wanted.product_id offset 0
    ) as stock on true;

  if is_split and not suffices then   -- the session's own slot runs dry before others do
    select bool_and(wanted.qty <= coalesce(
             case when stock.slots > 1
                  then (select max(newest.available_qty)
                          from generate_series(1, stock.slots) as numbered (slot)
                         cross join lateral (select own.available_qty from inventory_slots as own
                                              where own.product_id = wanted.product_id and own.slot = numbered.slot
                                              order by own.version desc
                                              limit 1) as newest)
                  else stock.available_qty
             end, 0))
      into suffices
      from unnest(product_ids, qtys) as wanted (product_id, qty)
      left join lateral (
        select own.slots, own.available_qty from inventory_items as own where own.product_id = wanted.product_id offset 0
      ) as stock on true;
  end if;
end;
$$;

revoke execute on function inventory_suffices(uuid, uuid[]) from public;

comment on function inventory_suffices(uuid, uuid[]) is
  'Step of checkout_execute: the products of a cart upwards and the units that it wants of each, whether stock looks enough for them, and whether any '
  'of the products is split. Takes no lock, so it is a guess.';
