-- checkout_register_role: remembers what a role was granted, and grants it.
--
-- Behind the lock that deployments queue behind: two grants at once would change the same rows of the catalogue, and one
-- would fail.

create or replace function checkout_register_role(role_name text, scope text)
returns void
language plpgsql
as $$
begin
  if not exists (select from pg_roles where rolname = checkout_register_role.role_name) then
    perform checkout_raise_invalid('role_name', 'is no role of this server');
  end if;
  perform pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()));
  insert into checkout_roles (role_name, scope)
  values (checkout_register_role.role_name, checkout_register_role.scope)
      on conflict do nothing;
  perform checkout_apply_grants();
end;
$$;

revoke execute on function checkout_register_role(text, text) from public;

comment on function checkout_register_role(text, text) is 'Step of the grants (checkout_grant and its kind): remembers the role and applies the grants.';
