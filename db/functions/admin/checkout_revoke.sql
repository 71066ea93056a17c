-- checkout_revoke: takes from a role what checkout_grant and its kind gave it, and forgets it.
--
-- A role that is gone is forgotten. One that was made anew under the name loses what the name was granted: nobody has to
-- know which of the two somebody meant. A REVOKE by hand would do too, but leaves a role that the next release gives more.

create or replace function checkout_revoke(role_name text)
returns void
language plpgsql
set search_path from current
as $$
declare
  v_exists boolean;
  v_grant text;
begin
  perform pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()));
  v_exists := exists (select from pg_roles where rolname = checkout_revoke.role_name);
  if not v_exists and not exists (select from checkout_roles as remembered where remembered.role_name = checkout_revoke.role_name) then
    perform checkout_raise_invalid('role_name', 'is no role of this server, and none that was granted something');
  end if;

  if v_exists then
    -- a loop, because each revoke is a statement of its own
    foreach v_grant in array array(
      select format('%s on %s %s', given.privilege || coalesce(' (' || array_to_string(given.columns, ', ') || ')', ''), given.kind, given.object)
        from checkout_privileges() as given
        join checkout_roles as remembered on remembered.scope = given.scope and remembered.role_name = checkout_revoke.role_name)
    loop
      execute format('revoke %s from %I', v_grant, checkout_revoke.role_name);
    end loop;
    -- the schema stays open to a role that was given something else in it, by whomever
    if not exists (
      select from (select relacl from pg_class where relnamespace = quote_ident(current_schema())::regnamespace
                    union all
                   select attacl from pg_attribute join pg_class on pg_class.oid = attrelid
                    where relnamespace = quote_ident(current_schema())::regnamespace
                    union all
                   select proacl from pg_proc where pronamespace = quote_ident(current_schema())::regnamespace
                    union all
                   select typacl from pg_type where typnamespace = quote_ident(current_schema())::regnamespace) as object (acl)
       cross join aclexplode(object.acl) as entry
       where entry.grantee = quote_ident(checkout_revoke.role_name)::regrole)
    then
      execute format('revoke usage on schema %I from %I', current_schema(), checkout_revoke.role_name);
    end if;
  end if;
  delete from checkout_roles as remembered where remembered.role_name = checkout_revoke.role_name;
  if exists (select from checkout_roles as remembered where remembered.role_name = checkout_revoke.role_name) then
    perform checkout_raise_rows(null, 'checkout_roles', 1, 0);
  end if;
end;
$$;

revoke execute on function checkout_revoke(text) from public;

comment on function checkout_revoke(text) is
  'Takes away what checkout_grant and its kind gave a role, and forgets it, so that no deployment gives it anything again; USAGE of the schema goes '
  'too unless the role has something else there. Its lock_timeout stays. Also forgets a role that is gone. For the owner. Raises OC005 for a name '
  'that neither is a role nor was granted anything, OC007 if a trigger keeps the row from being deleted.';
