-- Whoever reads the keys can make ad tokens. Members of the owner are the owner, and superusers read everything.
with away as materialized (   -- apart: Citus joins no table with a catalog
  select state from checkout_market where state <> 'selling' or followed_until is not null
),
of_a_move as (   -- the role that a server comes in as while the market moves, or follows afterwards: of its publication's name
  select role.oid
    from pg_roles as role
   where starts_with(role.rolname, 'pycheckout_move_')
     and exists (select from away)
     and exists (select from pg_publication as publication
                   join pg_publication_rel as member on member.prpubid = publication.oid
                   join pg_class as class on class.oid = member.prrelid
                  where publication.pubname = role.rolname and class.relnamespace = quote_ident(current_schema())::regnamespace)
),
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
