-- An overload there that matches a call better than pg_catalog's function would run with the rights of our functions.
select grantee.name as subject,
       format('may create objects in schema %I, and so slip code into functions that run as their owner', current_schema()) as problem,
       format('revoke create on schema %I from %s cascade;', current_schema(), grantee.name) as remedy
  from pg_namespace as namespace
 cross join aclexplode(namespace.nspacl) as acl
  left join pg_roles as role on role.oid = acl.grantee
 cross join lateral (select case acl.grantee when 0 then 'public' else acl.grantee::regrole::text end as name) as grantee
 where namespace.nspname = current_schema() and acl.privilege_type = 'CREATE'
   and role.rolsuper is not true
   and acl.grantee <> namespace.nspowner
   and acl.grantee <> (select relowner from pg_class where oid = to_regclass('checkout_functions'))
 order by grantee.name
