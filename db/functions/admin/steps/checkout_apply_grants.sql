-- checkout_apply_grants: gives every remembered role its rights again. Each deployment ends with it, since a function
-- that was dropped and made anew has lost its grants.

create or replace function checkout_apply_grants()
returns void
language plpgsql
set search_path from current
as $$
declare
  v_role record;
  v_grant text;
begin
  -- loops, because each grant is a statement of its own; a role that was dropped meanwhile is passed over
  for v_role in
    select remembered.role_name,
           (select array_agg(given.privilege || coalesce(' (' || array_to_string(given.columns, ', ') || ')', '')
                             || ' on ' || given.kind || ' ' || given.object)
              from checkout_privileges() as given where given.scope = remembered.scope) as grants
      from checkout_roles as remembered
      join pg_roles on rolname = remembered.role_name
  loop
    execute format('grant usage on schema %I to %I', current_schema(), v_role.role_name);
    foreach v_grant in array v_role.grants loop
      execute format('grant %s to %I', v_grant, v_role.role_name);
    end loop;
  end loop;
end;
$$;

revoke execute on function checkout_apply_grants() from public;

comment on function checkout_apply_grants() is
  'Step of a deployment: grants again to every role that checkout_grant, checkout_grant_quotes, checkout_grant_orders, '
  'checkout_grant_relay or checkout_grant_operators was called for.';
