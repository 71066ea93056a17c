-- inventory_restock: adds units to a product, once a key.

create or replace function inventory_restock(product_id uuid, qty integer, change_key text default null)
returns inventory_levels
language plpgsql
security definer
set search_path from current
as $$
begin
  if inventory_restock.qty is null or inventory_restock.qty < 1 then
    perform checkout_raise_invalid('qty', 'must be a number of units, 1 or more');
  end if;
  return inventory_adjust(inventory_restock.product_id, inventory_restock.qty, inventory_restock.change_key);
end;
$$;

revoke execute on function inventory_restock(uuid, integer, text) from public;

comment on function inventory_restock(uuid, integer, text) is
  'Adds units to a product, making its row if it has none, and returns its level. With a change_key it does so once, as inventory_adjust does with '
  'the same number and key. Raises OC006 if the key is that of another number of units, OC005 for a number below 1, a malformed key or more units than its rows can hold, OC007 if a trigger keeps a row from being written.';
