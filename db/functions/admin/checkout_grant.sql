-- checkout_grant: lets a service role check out, read results, quotes and orders, look at ad tokens, and nothing else.

create or replace function checkout_grant(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant.role_name, 'checkout');
end;
$$;

revoke execute on function checkout_grant(text) from public;

comment on function checkout_grant(text) is
  'Gives a role EXECUTE on checkout_execute, checkout_result, cart_get, order_get, orders_list, order_changes_list, ad_token_check and checkout_version, nothing on tables, and a '
  'lock_timeout of 5 seconds in this database unless it has one. Remembered by name and oid until checkout_revoke: a deployment gives it what a release '
  'brings anew. For the owner. Raises OC005 for an unknown role, OC007 if a trigger keeps the row of the role from being written.';
