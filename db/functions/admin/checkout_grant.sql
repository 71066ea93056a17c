-- checkout_grant: lets a service role check out and read results, and nothing else.

create or replace function checkout_grant(role_name text)
returns void
language plpgsql
set search_path from current
as $$
begin
  perform checkout_register_role(checkout_grant.role_name, 'checkout');

  -- A checkout that waits for a lock without bound holds its own locks for as long. A setting that the role has
  -- already, here or in every database, stays.
  if not exists (
    select from pg_db_role_setting as setting
      cross join unnest(setting.setconfig) as entry
     where setting.setrole = (select oid from pg_roles where rolname = checkout_grant.role_name)
       and setting.setdatabase in (0, (select oid from pg_database where datname = current_database()))
       and entry like 'lock_timeout=%')
  then
    begin
      execute format('alter role %I in database %I set lock_timeout = %L', checkout_grant.role_name, current_database(), '5s');
    exception when insufficient_privilege then
      raise warning 'lock_timeout of role % is not set', checkout_grant.role_name
        using hint = format('Let somebody who may run: ALTER ROLE %I IN DATABASE %I SET lock_timeout = ''5s'';',
                            checkout_grant.role_name, current_database());
    end;
  end if;
end;
$$;

revoke execute on function checkout_grant(text) from public;

comment on function checkout_grant(text) is
  'Gives a role EXECUTE on checkout_execute, checkout_result and checkout_version, nothing on tables, and a lock_timeout of '
  '5 seconds in this database unless it has one. Remembered: each deployment grants again. For the owner. Raises OC005 for an unknown role.';
