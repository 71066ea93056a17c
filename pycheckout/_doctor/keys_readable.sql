-- Whoever reads the keys can make ad tokens. Members of the owner are the owner, and superusers read everything.
with {of_a_move},
keys as (
  select class.oid, class.relowner, class.relacl from pg_class as class where class.oid = to_regclass('ad_signing_keys')
),
granted as (
  select acl.grantee
    from keys
   cross join aclexplode(keys.relacl) as acl
   where acl.privilege_type = 'SELECT' and acl.grantee <> keys.relowner
   union
  select acl.grantee
    from keys
    join pg_attribute as attribute on attribute.attrelid = keys.oid
   cross join aclexplode(attribute.attacl) as acl
   where acl.privilege_type = 'SELECT' and acl.grantee <> keys.relowner
)
select grantee.name as subject,
       'can read the keys that ad tokens are signed with' as problem,
       format('revoke select on ad_signing_keys from %s cascade;', grantee.name) as remedy
  from (select grantee from granted where grantee not in (select oid from of_a_move)) as granted
 cross join lateral (select case granted.grantee when 0 then 'public' else granted.grantee::regrole::text end as name) as grantee
 union all
select member.rolname,
       'can read the keys that ad tokens are signed with, as a member of pg_read_all_data',
       format('revoke pg_read_all_data from %I cascade;', member.rolname)
  from pg_auth_members as membership
  join pg_roles as member on member.oid = membership.member
 where membership.roleid = 'pg_read_all_data'::regrole and not member.rolsuper
   and member.oid <> (select relowner from keys)
 order by subject
