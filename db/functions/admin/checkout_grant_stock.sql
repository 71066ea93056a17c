-- checkout_grant_stock: lets a role count, change and read stock, and nothing else.

create or replace function checkout_grant_stock(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant_stock.role_name, 'stock');
end;
$$;

revoke execute on function checkout_grant_stock(text) from public;

comment on function checkout_grant_stock(text) is
  'Gives a role EXECUTE on inventory_get, inventory_set, inventory_set_many, inventory_adjust, inventory_restock and checkout_version, for any product, and no '
  'table. Sets a lock_timeout and remembers the role as checkout_grant does. For the owner. Raises OC005 for an unknown role, OC007 if a trigger keeps the row of the role from being written.';
