-- inventory_suffices: whether every orderable line of a cart finds its units, as far as can be seen without a lock.
--
-- It decides nothing: checkout_convert chooses by it what comes first, and inventory_reserve says under its locks what is short.
-- Not by inventory_levels: that view sums the slots of every product before it is joined.

create or replace function inventory_suffices(cart_id uuid)
returns boolean
language plpgsql
stable
as $$
begin
  return not exists (
    select from checkout_orderable_items(inventory_suffices.cart_id) as item
      left join inventory_items as stock on stock.product_id = item.product_id
     where item.quantity > coalesce(
             case when stock.slots > 1
                  then (select sum(slot.available_qty) from inventory_slots as slot where slot.product_id = item.product_id)
                  else stock.available_qty
             end, 0)
  );
end;
$$;

revoke execute on function inventory_suffices(uuid) from public;

comment on function inventory_suffices(uuid) is
  'Step of checkout_execute: whether stock looks enough for each line of a cart. Takes no lock, so it is a guess.';
