-- Remembered roles that deployments pass over: gone, or another role under the name, as after a DROP ROLE or a restore into
-- another cluster.
with remembered as materialized (   -- apart: Citus joins no table with a catalog
  select role_name, role_oid, scope from checkout_roles
)
select remembered.role_name as subject,
       case when role.oid is null then 'was granted something and is gone'
            else 'is not the role that was granted something: it was made anew, or the database came from another cluster' end as problem,
       case when role.oid is null then format('select checkout_revoke(%L);', remembered.role_name)
            else string_agg(format('select checkout_grant%s(%L);', case remembered.scope when 'checkout' then '' else '_' || remembered.scope end,
                                   remembered.role_name), ' ' order by remembered.scope) end as remedy
  from remembered
  left join pg_roles as role on role.rolname = remembered.role_name
 where role.oid is distinct from remembered.role_oid
 group by remembered.role_name, role.oid
 order by remembered.role_name
