-- Logins that were granted something and have no bound on waiting for a lock. A role's settings do not reach its members, so
-- that each login is looked at, not only the role that was granted something.
with remembered as materialized (   -- apart: Citus joins no table with a catalog
  select role_name, role_oid from checkout_roles
)
select login.rolname as subject,
       'has no lock_timeout: it waits for a lock without end, and holds its own meanwhile' as problem,
       format('alter role %I in database %I set lock_timeout = ''5s'';', login.rolname, current_database()) as remedy
  from pg_roles as login
 where login.rolcanlogin and not login.rolsuper
   and exists (select from remembered
                 join pg_roles as service on service.rolname = remembered.role_name and service.oid = remembered.role_oid
                where pg_has_role(login.oid, service.oid, 'usage'))
   and coalesce(
         -- the nearest one counts: of the role in this database, of the role, of the database
         (select split_part(entry, '=', 2)
            from pg_db_role_setting as setting
           cross join unnest(setting.setconfig) as entry
           where setting.setrole in (login.oid, 0)
             and setting.setdatabase in ((select oid from pg_database where datname = current_database()), 0)
             and entry like 'lock_timeout=%'
           order by setting.setrole = 0, setting.setdatabase = 0
           limit 1),
         -- the server's, unless a setting of this session hides it
         (select reset_val from pg_settings
           where name = 'lock_timeout' and source in ('default', 'configuration file', 'command line')),
         '0') ~ '^[ 0.]*[a-z]* *$'   -- 0, 0ms; not 0.5s
 order by login.rolname
