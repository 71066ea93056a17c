-- checkout_grant_payments: lets a role record what payment providers tell, and nothing else.

create or replace function checkout_grant_payments(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant_payments.role_name, 'payments');
end;
$$;

revoke execute on function checkout_grant_payments(text) from public;

comment on function checkout_grant_payments(text) is
  'Gives a role EXECUTE on payment_record and checkout_version, for any order, and no table. Sets a lock_timeout and remembers the role as checkout_grant does. '
  'For the owner. Raises OC005 for an unknown role, OC007 if a trigger keeps the row of the role from being written.';
