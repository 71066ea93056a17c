-- What a remembered role should have and has not.
with remembered as materialized (   -- apart: Citus joins no table with a catalog
  select role_name, role_oid, scope from checkout_roles
),
wanted as (
  select remembered.role_name, remembered.scope, given.kind, given.object, given.columns, trim(each) as privilege
    from remembered
    join pg_roles on rolname = remembered.role_name and pg_roles.oid = remembered.role_oid
    join checkout_privileges() as given on given.scope = remembered.scope
   cross join string_to_table(given.privilege, ',') as each
   union all
  select remembered.role_name, remembered.scope, 'schema', current_schema()::text, null, 'usage'
    from remembered
    join pg_roles on rolname = remembered.role_name and pg_roles.oid = remembered.role_oid
)
select role_name as subject,
       'lacks ' || string_agg(format('%s on %s', privilege, object), ', ' order by object, privilege) as problem,
       format('select checkout_grant%s(%L);', case scope when 'checkout' then '' else '_' || scope end, role_name) as remedy
  from wanted
 where not case
         when kind = 'schema' then has_schema_privilege(role_name, object, privilege)
         -- one that is not there is another check's finding
         when kind = 'function' then coalesce(has_function_privilege(role_name, to_regprocedure(object), privilege), true)
         when columns is null then coalesce(has_table_privilege(role_name, to_regclass(object), privilege), true)
         else (select bool_and(has_column_privilege(role_name, to_regclass(object), name, privilege)) from unnest(columns) as name)
       end
 group by role_name, scope
 order by role_name, scope
