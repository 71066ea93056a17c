-- checkout_grant_orders: lets a role read orders, decide, cancel and adjust them, and turn lines down, fulfil them and take them back.

create or replace function checkout_grant_orders(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant_orders.role_name, 'orders');
end;
$$;

revoke execute on function checkout_grant_orders(text) from public;

comment on function checkout_grant_orders(text) is
  'Gives a role EXECUTE on order_get, orders_list, order_changes_list, vendor_order_decide, vendor_order_cancel, order_line_release, order_line_fulfil, '
  'order_line_return, order_adjust, vendor_order_extend and checkout_version, for any order: '
  'whose it is, the service must know. Sets a lock_timeout and remembers the role as checkout_grant does. For the owner. Raises OC005 for an unknown role, OC007 if a trigger keeps the row of the role from being written.';
