-- inventory_restock: adds units to a product.

create or replace function inventory_restock(product_id uuid, qty integer)
returns inventory_levels
language plpgsql
security definer
set search_path from current
as $$
begin
  if inventory_restock.qty is null or inventory_restock.qty < 1 then
    perform checkout_raise_invalid('qty', 'must be a number of units, 1 or more');
  end if;
  return inventory_adjust(inventory_restock.product_id, inventory_restock.qty);
end;
$$;

revoke execute on function inventory_restock(uuid, integer) from public;

comment on function inventory_restock(uuid, integer) is
  'Adds units to a product, making its row if it has none, and returns its level. Raises OC005 for a number below 1.';
