-- checkout_bound_lock_waits: gives a role a lock_timeout in this database, unless it has one, here or in every database.
--
-- Who waits for a lock without bound holds its own locks for as long.

create or replace function checkout_bound_lock_waits(role_name text)
returns void
language plpgsql
as $$
begin
  if not exists (
    select from pg_db_role_setting as setting
      cross join unnest(setting.setconfig) as entry
     where setting.setrole = (select oid from pg_roles where rolname = checkout_bound_lock_waits.role_name)
       and setting.setdatabase in (0, (select oid from pg_database where datname = current_database()))
       and entry like 'lock_timeout=%')
  then
    begin
      execute format('alter role %I in database %I set lock_timeout = %L', checkout_bound_lock_waits.role_name, current_database(), '5s');
    exception when insufficient_privilege then
      raise warning 'lock_timeout of role % is not set', checkout_bound_lock_waits.role_name
        using hint = format('Let somebody who may run: ALTER ROLE %I IN DATABASE %I SET lock_timeout = ''5s'';',
                            checkout_bound_lock_waits.role_name, current_database());
    end;
  end if;
end;
$$;

revoke execute on function checkout_bound_lock_waits(text) from public;

comment on function checkout_bound_lock_waits(text) is
  'Step of the grants (checkout_grant and its kind): sets a lock_timeout of 5 seconds on a role that has none. Warns where the caller may not.';
