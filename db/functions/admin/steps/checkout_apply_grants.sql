-- checkout_apply_grants: gives a role what a scope has for it: all of it, or what is on some of its objects.
--
-- A deployment calls it for what its release brings anew, and for no more: whatever was revoked by hand stays revoked.

create or replace function checkout_apply_grants(role_name text, scope text, objects text[] default null)
returns void
language plpgsql
set search_path from current
as $$
declare
  v_grant text;
begin
  if checkout_apply_grants.objects is null then
    execute format('grant usage on schema %I to %I', current_schema(), checkout_apply_grants.role_name);
  end if;
  -- a loop, because each grant is a statement of its own
  foreach v_grant in array array(
    select format('%s on %s %s', given.privilege || coalesce(' (' || array_to_string(given.columns, ', ') || ')', ''), given.kind, given.object)
      from checkout_privileges() as given
     where given.scope = checkout_apply_grants.scope
       and (checkout_apply_grants.objects is null or given.object = any (checkout_apply_grants.objects)))
  loop
    execute format('grant %s to %I', v_grant, checkout_apply_grants.role_name);
  end loop;
end;
$$;

revoke execute on function checkout_apply_grants(text, text, text[]) from public;

comment on function checkout_apply_grants(text, text, text[]) is
  'Step of checkout_grant and its kind, which give all of a scope, and of a deployment, which gives what is new in it.';
