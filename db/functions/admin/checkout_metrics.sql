-- checkout_metrics: what a monitor asks every few seconds, and pays for every few seconds.
--
-- So nothing here grows with the tables: what is counted is counted by an index from its end, up to 10,001, which then means
-- "more", and the rest is what the server's own counters say. The inner queries choose by what the index holds and end; what
-- only the row knows is judged after that.
--
-- What ends a walk from an index's end is a row; dead ones do not. While a snapshot is held, nobody may take them away, and all
-- that was published, paid or ordered since then stands in the way of the first that was not. From some number on nothing is
-- counted there, and those values are missing. Only the oldest that is late is still looked for, from now backwards, ten seconds
-- at a time, for 10 ms: what is late by more than was seen is told too small.
--
-- Who waits for stock is seen in the locks alone: a session that waits for a row holds or awaits the tuple lock of its place.
-- The row version there is the one before the change that it waits for, so that this snapshot still sees it.

create or replace function checkout_metrics()
returns table (name text, labels jsonb, value double precision, type text, help text)
language plpgsql
stable
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set enable_sort = off
set jit = off
as $$
declare
  v_most constant integer := 10001;
  v_now constant timestamptz := clock_timestamp();
  v_database constant oid := (select entry.oid from pg_database as entry where entry.datname = current_database());
  v_release record;
  v_lines record;
  v_orders record;
  v_audit record;
  v_waits record;
  v_held record;
  v_checkouts bigint;
  v_carts bigint;
  v_events bigint;
  v_parked bigint;
  v_due timestamptz;
  v_claim uuid := '00000000-0000-0000-0000-000000000000'::uuid;
  v_claimed timestamptz;
  v_waiting pg_locks[];
  v_piled oid[] := '{}'::oid[];
  v_end timestamptz;
  v_until timestamptz;
  v_found timestamptz;
begin
  select max(age(session.backend_xmin)) as sessions, max(v_now - session.xact_start) filter (where session.backend_xmin is not null) as longest,
         count(*) filter (where session.query = '<insufficient privilege>') as hidden
    into v_held
    from pg_stat_activity as session
   where (session.datid = v_database or session.backend_type = 'walsender' or session.datid is null and session.backend_xmin is not null)
     and session.pid <> pg_backend_pid()
     and session.backend_type is distinct from 'autovacuum worker';
  if v_held.longest > interval '1 minute'
     or 10000 < greatest(v_held.sessions, (select max(age(prepared.transaction)) from pg_prepared_xacts as prepared where prepared.database = current_database()),
                         (select max(age(slot.xmin)) from pg_replication_slots as slot)) then
    v_piled := array(select ours.oid from unnest('{cart_records,vendor_orders,outbox_events}'::regclass[]::oid[]) as ours (oid)
                      where pg_stat_get_dead_tuples(ours.oid) > 20000);
  end if;

  select release.version, release.hash into v_release
    from checkout_releases as release order by release.id desc limit 1;

  select count(*) into v_checkouts
    from (select from checkout_requests as request
           where request.created_at > v_now - interval '10 seconds'
           order by request.created_at
           limit v_most) as recent;
  select count(*) as total, count(*) filter (where line.status = 'rejected' and line.notes = 'insufficient_inventory') as short
    into v_lines
    from (select request.cart_id from checkout_requests as request order by request.created_at desc limit 100) as recent
    join vendor_orders as vendor_order on vendor_order.cart_id = recent.cart_id
    join order_line_items as line on line.order_id = vendor_order.id;
  if 'cart_records'::regclass <> all (v_piled) then
    select count(*) into v_carts
      from (select from cart_records as cart
             where coalesce(cart.converted_at, cart.valid_until) > v_now
             order by coalesce(cart.converted_at, cart.valid_until)
             limit v_most) as open;
  end if;
  -- the column may be a host's, on orders of its own: those count nowhere
  if 'vendor_orders'::regclass <> all (v_piled) then
    select count(*) as total, min(pending.created_at) as oldest,
           count(*) filter (where pending.expires_at <= v_now) as overdue, min(pending.expires_at) as first
      into v_orders
      from (select due.expires_at, due.created_at, due.promo_discount_cents from vendor_orders as due
             where due.status = 'created_pending' and due.expires_at is not null
             order by due.expires_at, due.id
             limit v_most) as pending
     where pending.promo_discount_cents is not null;
  else
    v_end := clock_timestamp() + interval '10 ms';
    for v_step in 0 .. 89 loop
      exit when clock_timestamp() > v_end;
      v_until := v_now - v_step * interval '10 seconds';
      select min(pending.expires_at) into v_found
        from (select due.expires_at, due.promo_discount_cents from vendor_orders as due
               where due.status = 'created_pending' and due.expires_at > v_until - interval '10 seconds' and due.expires_at <= v_until
               order by due.expires_at, due.id
               limit 100) as pending
       where pending.promo_discount_cents is not null;
      v_due := coalesce(v_found, v_due);
    end loop;
    select null::bigint as total, null::timestamptz as oldest, null::bigint as overdue, v_due as first into v_orders;
    v_due := null;
  end if;

  select count(*) into v_parked from (select from outbox_dead_letters as dead limit v_most) as parked;
  if 'outbox_events'::regclass <> all (v_piled) then
    select count(*) into v_events
      from (select from outbox_events as event
             where event.published_at is null and event.next_attempt_at >= '-infinity'
             order by event.aggregate_id, event.created_at, event.id
             limit v_most) as waiting;
    select event.next_attempt_at into v_due
      from outbox_events as event
     where event.published_at is null and event.next_attempt_at < 'infinity' and event.claim_id is null
     order by event.claim_id, event.next_attempt_at, event.id
     limit 1;
    -- claims are as few as relays
    for v_step in 1 .. 100 loop
      select event.claim_id, event.next_attempt_at into v_claim, v_claimed
        from outbox_events as event
       where event.published_at is null and event.next_attempt_at < 'infinity' and event.claim_id > v_claim
       order by event.claim_id, event.next_attempt_at, event.id
       limit 1;
      exit when not found;
      v_due := least(v_due, v_claimed);
    end loop;
  else
    v_end := clock_timestamp() + interval '10 ms';
    for v_step in 0 .. 89 loop
      exit when clock_timestamp() > v_end;
      v_until := v_now - v_step * interval '10 seconds';
      select event.next_attempt_at into v_found
        from outbox_events as event
       where event.published_at is null and event.next_attempt_at < 'infinity' and event.claim_id is null
         and event.next_attempt_at > v_until - interval '10 seconds' and event.next_attempt_at <= v_until
       order by event.claim_id, event.next_attempt_at, event.id
       limit 1;
      v_due := coalesce(v_found, v_due);
    end loop;
  end if;

  v_waiting := array(select wait from pg_locks as wait where not wait.granted or wait.locktype = 'tuple');
  select count(distinct wait.pid) as sessions, max(v_now - wait.waitstart) as longest into v_waits
    from unnest(v_waiting) as wait
    join pg_stat_activity as session on session.pid = wait.pid
   where not wait.granted and session.datid = v_database;
  select audit.findings, audit.ended_at into v_audit
    from checkout_audits as audit order by audit.id desc limit 1;

  return query
  select plain.name, plain.labels, plain.value::double precision, 'gauge', plain.help
    from (values
      ('pycheckout_info', jsonb_build_object('version', v_release.version), 1,
       'The deployed release; always 1.'),
      ('pycheckout_in_recovery', '{}', pg_is_in_recovery()::integer,
       '1 on a standby, 0 on a primary.'),
      ('pycheckout_checkouts_per_second', '{}', v_checkouts / 10.0,
       'Checkouts that committed within the last 10 seconds, a second; 1000.1 means more.'),
      ('pycheckout_recent_lines', '{}', v_lines.total,
       'Order lines of the newest 100 checkouts.'),
      ('pycheckout_recent_short_lines', '{}', v_lines.short,
       'Those of the newest 100 checkouts that were rejected for want of stock.'),
      ('pycheckout_carts_open', '{}', v_carts,
       'Quotes that can still be checked out, but those without an end; 10001 means more.'),
      ('pycheckout_orders_pending', '{}', v_orders.total,
       'Orders with a deadline that wait to be paid for; 10001 means more.'),
      ('pycheckout_orders_pending_seconds', '{}', case when v_orders.total is not null then coalesce(extract(epoch from v_now - v_orders.oldest), 0) end,
       'Age of the oldest of them, of the 10001 that end first, in seconds.'),
      ('pycheckout_orders_overdue', '{}', v_orders.overdue,
       'Orders past their deadline that nobody has ended; 10001 means more.'),
      ('pycheckout_orders_overdue_seconds', '{}', greatest(extract(epoch from v_now - v_orders.first), 0),
       'How long the first of them is past its deadline, in seconds.'),
      ('pycheckout_outbox_events', '{}', v_events,
       'Events that wait to be published, parked ones among them; 10001 means more.'),
      ('pycheckout_outbox_due_seconds', '{}', greatest(extract(epoch from v_now - v_due), 0),
       'How long the event that is due longest has been due, in seconds; one that backs off or is parked is not due.'),
      ('pycheckout_outbox_parked_events', '{}', v_parked,
       'Events that are parked and hold the younger ones of their aggregates back; 10001 means more.'),
      ('pycheckout_sessions_waiting', '{}', v_waits.sessions,
       'Sessions of this database that wait for a lock.'),
      ('pycheckout_session_wait_seconds', '{}', coalesce(extract(epoch from v_waits.longest), 0),
       'How long the longest of them has waited, in seconds.'),
      ('pycheckout_sessions_hidden', '{}', v_held.hidden,
       'Sessions whose times the owner of pycheckout may not see: GRANT pg_read_all_stats shows them.'),
      ('pycheckout_oldest_snapshot_transactions', '{"holder": "session"}', coalesce(v_held.sessions, 0),
       'Age of the oldest snapshot, in transaction ids; dead rows that are younger stay.'),
      ('pycheckout_oldest_snapshot_seconds', '{"holder": "session"}', coalesce(extract(epoch from v_held.longest), 0),
       'Age of the oldest transaction that has a snapshot, in seconds; of sessions that are not hidden.'),
      ('pycheckout_audit_findings', '{}', v_audit.findings,
       'Broken invariants that the last run of pycheckout audit found; missing before the first.'),
      ('pycheckout_audit_age_seconds', '{}', extract(epoch from v_now - v_audit.ended_at),
       'How long ago that was, in seconds.')
    ) as plain (name, labels, value, help)
   where plain.value is not null;

  return query
  select 'pycheckout_stock_waiters', jsonb_build_object('product_id', item.product_id, 'slots', item.slots::text), sum(waited.sessions)::double precision, 'gauge',
         'Sessions that wait for the stock of a product, of the ten that most wait for.'
    from (select coalesce(slot.product_id, own.product_id) as product_id, place.sessions
            from (select wait.relation, format('(%s,%s)', wait.page, wait.tuple)::tid as place, count(distinct wait.pid) as sessions
                    from unnest(v_waiting) as wait
                   where wait.locktype = 'tuple' and wait.relation in ('inventory_items'::regclass, 'inventory_slots'::regclass)
                   group by 1, 2
                   order by 3 desc
                   limit 100) as place
            left join inventory_items as own on own.ctid = place.place and place.relation = 'inventory_items'::regclass
            left join inventory_slots as slot on slot.ctid = place.place and place.relation = 'inventory_slots'::regclass) as waited
    join inventory_items as item on item.product_id = waited.product_id
   group by item.product_id, item.slots
   order by 3 desc
   limit 10;

  return query
  select each.name, jsonb_build_object('table', class.relname), each.value::double precision, 'gauge', each.help
    from unnest('{cart_records,vendor_orders,order_line_items,inventory_items,inventory_slots,outbox_events}'::text[]) as ours (name)
    join pg_class as class on class.oid = to_regclass(ours.name)
   cross join lateral (
     select coalesce(max(option.option_value) filter (where option.option_name = 'autovacuum_vacuum_threshold'),
                     (select setting.setting from pg_settings as setting where setting.name = 'autovacuum_vacuum_threshold'))::numeric
            + coalesce(max(option.option_value) filter (where option.option_name = 'autovacuum_vacuum_scale_factor'),
                       (select setting.setting from pg_settings as setting where setting.name = 'autovacuum_vacuum_scale_factor'))::numeric
              * greatest(class.reltuples, 0)::numeric as rows
       from pg_options_to_table(class.reloptions) as option
   ) as due
   cross join lateral (values
     ('pycheckout_table_rows', greatest(class.reltuples, 0)::numeric,
      'Rows of a table, about, as of its last vacuum or analyze.'),
     ('pycheckout_table_bytes', pg_total_relation_size(class.oid)::numeric,
      'Size of a table with its indexes, in bytes.'),
     ('pycheckout_table_dead_rows', pg_stat_get_dead_tuples(class.oid)::numeric,
      'Dead rows of a table, about.'),
     ('pycheckout_table_vacuum_due_rows', due.rows,
      'Dead rows at which autovacuum comes to a table.')
   ) as each (name, value, help);

  return query
  select 'pycheckout_oldest_snapshot_transactions', jsonb_build_object('holder', 'prepared'), max(age(prepared.transaction))::double precision, 'gauge',
         'Age of the oldest snapshot, in transaction ids; dead rows that are younger stay.'
    from pg_prepared_xacts as prepared
   where prepared.database = current_database()
  having count(*) > 0;

  return query
  select each.name, jsonb_build_object(each.label, each.holder || slot.slot_name), each.value::double precision, 'gauge', each.help
    from pg_replication_slots as slot
   cross join lateral (values
     ('pycheckout_oldest_snapshot_transactions', 'holder', 'slot ', greatest(age(slot.xmin), age(slot.catalog_xmin))::numeric,
      'Age of the oldest snapshot, in transaction ids; dead rows that are younger stay.'),
     ('pycheckout_slot_retained_bytes', 'slot', '',
      pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, slot.restart_lsn),
      'WAL that a replication slot keeps on the disk, in bytes.')
   ) as each (name, label, holder, value, help)
   where each.value is not null;
end;
$$;

revoke execute on function checkout_metrics() from public;

comment on function checkout_metrics() is
  'What a monitor shows of this database, a row a metric: its name, labels, value, type and what it means with its unit. Ages are in seconds, sizes in '
  'bytes, and counts end at 10001, which means more. Ages of snapshots are in transaction ids too, since the times of other roles'' sessions may be '
  'hidden from the owner. Costs the same beside any number of orders, waits for nobody, and works on a standby. Counts of a table are missing while a '
  'snapshot is held and 20,000 rows of it are dead; what is late is then late for so long at least. Names no person and no order; products that '
  'sessions wait for by their id.';
