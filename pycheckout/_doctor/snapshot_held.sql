-- Who keeps dead rows of stock from going: older than events may wait (15 minutes), or than a million transactions where times are hidden.
select format('session %%s', session.pid) as subject,
       format('of %%s%%s, %%s, holds a snapshot that is %%s transactions old%%s: dead rows that are younger stay', session.usename,
              case when session.application_name <> '' then format(' (%%s)', session.application_name) end, coalesce(session.state, 'hidden from this role'),
              age(session.backend_xmin), ', open for ' || date_trunc('second', clock_timestamp() - session.xact_start)::text) as problem,
       format('select pg_terminate_backend(%%s);', session.pid) as remedy
  from pg_stat_activity as session
 where session.datname = current_database() and session.pid <> pg_backend_pid() and session.backend_xmin is not null
   and session.backend_type is distinct from 'autovacuum worker'
   and (clock_timestamp() - session.xact_start > %(backlog)s::interval or age(session.backend_xmin) > 1000000)
 union all
select format('prepared transaction %%s', prepared.gid), format('of %%s is open since %%s: dead rows that are younger stay', prepared.owner, prepared.prepared),
       format('rollback prepared %%L;', prepared.gid)
  from pg_prepared_xacts as prepared
 where prepared.database = current_database() and clock_timestamp() - prepared.prepared > %(backlog)s::interval
 union all
select format('replication slot %%s', slot.slot_name),
       format('holds a snapshot that is %%s transactions old: dead rows that are younger stay', greatest(age(slot.xmin), age(slot.catalog_xmin))),
       format('select pg_drop_replication_slot(%%L);', slot.slot_name)
  from pg_replication_slots as slot
 where greatest(age(slot.xmin), age(slot.catalog_xmin)) > 1000000
 order by subject
