-- inventory_set: sets the available units of a product, over however many slots it has.

create or replace function inventory_set(product_id uuid, available integer)
returns inventory_levels
language plpgsql
security definer
set search_path from current
as $$
begin
  if inventory_set.available is null or inventory_set.available < 0 then
    perform checkout_raise_invalid('available', 'must be a number of units, 0 or more');
  end if;
  perform inventory_lock_available(inventory_set.product_id);
  return inventory_write_available(inventory_set.product_id, inventory_set.available);
end;
$$;

revoke execute on function inventory_set(uuid, integer) from public;

comment on function inventory_set(uuid, integer) is
  'Sets the available units of a product, making its row if it has none, and returns its level. Spreads them evenly over its '
  'slots. Waits for checkouts of the product; locks its slots until the commit. Raises OC005 for a negative number, OC007 if a trigger keeps a row from being written.';
