-- checkout_grant_operators: lets people who watch the shop read the views that are made for them, and end what was not paid in time.

create or replace function checkout_grant_operators(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant_operators.role_name, 'operators');
end;
$$;

revoke execute on function checkout_grant_operators(text) from public;

comment on function checkout_grant_operators(text) is
  'Gives a role SELECT on checkout_overview, inventory_levels and outbox_backlog, which show no address, no note and no key, and EXECUTE on '
  'vendor_orders_expire, checkout_metrics and checkout_version. Sets a lock_timeout and remembers the role as checkout_grant does. For the owner. Raises OC005 for an unknown role, OC007 if a trigger keeps the row of the role from being written.';
