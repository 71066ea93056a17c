-- checkout_register_role: remembers what a role was granted, grants it, and bounds its waits for locks.
--
-- Behind the lock that deployments queue behind: two grants at once would change the same rows of the catalogue, and one
-- would fail. A role is remembered by name and oid, so that one that was dropped and made anew is another.

create or replace function checkout_register_role(role_name text, scope text)
returns void
language plpgsql
as $$
declare
  v_role_oid oid;
begin
  perform pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()));
  select role.oid into v_role_oid from pg_roles as role where role.rolname = checkout_register_role.role_name;
  if not found then
    perform checkout_raise_invalid('role_name', 'is no role of this server');
  end if;

  insert into checkout_roles (role_name, role_oid, scope)
  values (checkout_register_role.role_name, v_role_oid, checkout_register_role.scope)
      on conflict on constraint checkout_roles_pkey do update set role_oid = excluded.role_oid;
  if not found then
    perform checkout_raise_rows(null, 'checkout_roles', 1, 0);
  end if;
  perform checkout_apply_grants(checkout_register_role.role_name, checkout_register_role.scope);
  perform checkout_bound_lock_waits(checkout_register_role.role_name);
end;
$$;

revoke execute on function checkout_register_role(text, text) from public;

comment on function checkout_register_role(text, text) is
  'Step of the grants (checkout_grant and its kind): remembers the role, applies the grants, and sets its lock_timeout. Raises OC005 for an unknown role, OC007 if a trigger keeps the row from being written.';
