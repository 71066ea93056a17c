-- What a move switched off, it switches on again.
with calmed as materialized (   -- apart: Citus joins no table with a catalog
  select vacuumed from checkout_market where state in ('leaving', 'moving')
)
select 'server' as subject,
       format('%s is off', name) as problem,
       format('alter system set %I = on; select pg_reload_conf();', name) as remedy
  from pg_settings
 where name in ('autovacuum', 'track_counts') and setting = 'off'
 union all
select class.relname, 'is left out by autovacuum', format('alter table %I reset (autovacuum_enabled);', class.relname)
  from pg_class as class
 cross join pg_options_to_table(class.reloptions) as option
 where class.oid in (to_regclass('inventory_items'), to_regclass('inventory_slots'), to_regclass('outbox_events'))
   and option.option_name = 'autovacuum_enabled' and not option.option_value::boolean
   and not exists (select from calmed cross join unnest(calmed.vacuumed) as name where to_regclass(name) = class.oid)
