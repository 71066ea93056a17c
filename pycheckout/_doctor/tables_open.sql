-- Who can read or write tables and views that our migrations made, and was not named by checkout_grant or its kind. Members of
-- the owner are the owner, superusers may do everything, and whoever reads signing keys is another check's finding.
with made as materialized (   -- apart, as the next: Citus joins no table with a catalog
  select name from checkout_ledger where kind in ('table', 'view')
),
remembered as materialized (
  select role_name, role_oid, scope from checkout_roles
),
{of_a_move},
ours as (
  select class.oid, class.relname::text as name, class.relowner, class.relacl
    from pg_class as class
   where class.relnamespace = quote_ident(current_schema())::regnamespace and class.relkind in ('r', 'p', 'v')
     and (class.relname = 'checkout_ledger'
          or exists (select from made where made.name = class.relname))
),
granted as (
  select ours.name, ours.relowner, acl.grantee, lower(acl.privilege_type) as privilege, null::text as column_name
    from ours cross join aclexplode(ours.relacl) as acl
   union all
  select ours.name, ours.relowner, acl.grantee, lower(acl.privilege_type), attribute.attname::text
    from ours
    join pg_attribute as attribute on attribute.attrelid = ours.oid and not attribute.attisdropped
   cross join aclexplode(attribute.attacl) as acl
),
named as (
  select remembered.role_oid, given.object, trim(each) as privilege, given.columns
    from remembered
    join pg_roles as role on role.rolname = remembered.role_name and role.oid = remembered.role_oid
    join checkout_privileges() as given on given.scope = remembered.scope and given.kind = 'table'
   cross join string_to_table(given.privilege, ',') as each
),
unnamed as (
  select distinct granted.grantee, granted.relowner, granted.name, granted.privilege
    from granted
    left join pg_roles as role on role.oid = granted.grantee
   where granted.privilege in ('select', 'insert', 'update', 'delete', 'truncate', 'references', 'trigger')
     and (granted.name <> 'ad_signing_keys' or granted.privilege <> 'select')
     and granted.grantee not in (select oid from of_a_move)
     and (granted.grantee = 0 or not role.rolsuper and not pg_has_role(granted.grantee, granted.relowner, 'member'))
     and not exists (select from named
                      where named.role_oid = granted.grantee and named.object = granted.name and named.privilege = granted.privilege
                        and (named.columns is null or granted.column_name = any (named.columns)))
),
by_table as (
  select grantee, name, string_agg(privilege, ', ' order by privilege) as privileges from unnamed group by grantee, name
),
by_privileges as (
  select grantee, privileges, string_agg(quote_ident(name), ', ' order by name) as tables from by_table group by grantee, privileges
),
open as (
  select case grantee when 0 then 'public' else grantee::regrole::text end as grantee, grantee as oid,
         string_agg(privileges || ' on ' || tables, '; ' order by tables) as rights,
         string_agg(format('revoke %s on %s from %s cascade;', privileges, tables, case grantee when 0 then 'public' else grantee::regrole::text end),
                    ' ' order by tables) as remedy
    from by_privileges
   group by grantee
),
members as (
  select membership.member, membership.roleid, open.grantee as name
    from pg_auth_members as membership
    join open on open.oid <> 0 and pg_has_role(membership.roleid, open.oid, 'member')
   union
  select membership.member, membership.roleid, membership.roleid::regrole::text
    from pg_auth_members as membership
   where membership.roleid in ('pg_read_all_data'::regrole, 'pg_write_all_data'::regrole)
)
select open.grantee as subject,
       'was named by no checkout_grant and may ' || open.rights as problem,
       -- a REVOKE of a table's right takes that of columns with it
       concat_ws(' ', open.remedy, (select string_agg(format('select checkout_grant%s(%L);', case scope when 'checkout' then '' else '_' || scope end, role_name),
                                                      ' ' order by scope)
                                      from remembered where role_oid = open.oid)) as remedy
  from open
 union all
select member.rolname,
       format('was named by no checkout_grant and may read or write tables as a member of %s', string_agg(members.name, ', ' order by members.name)),
       format('revoke %s from %I cascade;', members.roleid::regrole, member.rolname)
  from members
  join pg_roles as member on member.oid = members.member
 where not member.rolsuper
   and not exists (select from ours where pg_has_role(member.oid, ours.relowner, 'member'))
 group by member.rolname, members.roleid
 order by subject
