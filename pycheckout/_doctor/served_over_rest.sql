-- Roles in whose name a gateway such as PostgREST answers anybody, and what they may call. Who gives a function to one of them serves it
-- over REST; an EXECUTE of PUBLIC is theirs too. By the names that Supabase, Neon and PostgREST's own manual use.
with ours as materialized (   -- apart, as the next: Citus joins no table with a catalog
  select signature from checkout_functions
),
remembered as materialized (
  select role_oid from checkout_roles
)
select role.rolname as subject,
       format('may call %s: whoever reaches a REST gateway that uses this role calls it too',
              string_agg(routine.proname, ', ' order by routine.proname)) as problem,
       string_agg(format('revoke execute on function %s from public, %I;', routine.oid::regprocedure, role.rolname), ' ' order by routine.proname) as remedy
  from pg_roles as role
 cross join ours
  join pg_proc as routine on routine.oid = to_regprocedure(ours.signature)
 where role.rolname in ('anon', 'anonymous', 'authenticated', 'web_anon') and not role.rolsuper
   and has_schema_privilege(role.oid, routine.pronamespace, 'usage')
   and has_function_privilege(role.oid, routine.oid, 'execute')
   and not exists (select from remembered where remembered.role_oid = role.oid)
 group by role.rolname
 order by role.rolname
