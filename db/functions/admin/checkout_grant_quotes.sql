-- checkout_grant_quotes: lets a role write quotes, through cart_put or into the tables, but not convert a cart.

create or replace function checkout_grant_quotes(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant_quotes.role_name, 'quotes');
end;
$$;

revoke execute on function checkout_grant_quotes(text) from public;

comment on function checkout_grant_quotes(text) is
  'Gives a role EXECUTE on cart_put, cart_get and checkout_version, and what it takes to write carts, groups and items itself; status, anchor and the confirmed '
  'fields of a cart stay out of its reach. Sets a lock_timeout and remembers the role as checkout_grant does. For the owner. Raises OC005 for '
  'an unknown role, OC007 if a trigger keeps the row of the role from being written.';
