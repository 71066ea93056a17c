-- depends: pycheckout_0024_outbox_due_index
-- transactional: false
-- cost: build outbox_events
--
-- The events of an aggregate that wait, the oldest first, parked ones among them: what stands behind one waits for it.
-- The second condition says that there is a time at all; from that of the other index it does not follow, so that with the
-- statistics of an idle hour no statement is planned to read through the wrong one.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'outbox_events', 'idx_outbox_events_waiting'); end $$;

create index concurrently if not exists idx_outbox_events_waiting
    on outbox_events (aggregate_id, created_at, id)
 where published_at is null and next_attempt_at >= '-infinity';
