-- Tables whose every row changes again and again, with twice the dead rows at which autovacuum comes.
select stat.relname as subject,
       format('has %s dead rows; autovacuum was due at %s', stat.n_dead_tup, round(due.at)) as problem,
       format('vacuum %I;', stat.relname) as remedy
  from pg_stat_all_tables as stat
  join pg_class as class on class.oid = stat.relid
 cross join lateral (
   select coalesce(max(option_value) filter (where option_name = 'autovacuum_vacuum_threshold'),
                   current_setting('autovacuum_vacuum_threshold'))::numeric
          + coalesce(max(option_value) filter (where option_name = 'autovacuum_vacuum_scale_factor'),
                     current_setting('autovacuum_vacuum_scale_factor'))::numeric
            * greatest(class.reltuples, 0)::numeric as at
     from pg_options_to_table(class.reloptions)
 ) as due
 where stat.relid in (to_regclass('inventory_items'), to_regclass('inventory_slots'), to_regclass('outbox_events'))
   and stat.n_dead_tup >= 1000 and stat.n_dead_tup > 2 * due.at
 order by stat.relname
