-- depends: pycheckout_0025_outbox_waiting_index
-- transactional: false
-- cost: build outbox_events
--
-- What outbox_purge() deletes, oldest first. An event comes into it when the relay marks it, so no checkout pays for it.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'outbox_events', 'idx_outbox_events_published'); end $$;

create index concurrently if not exists idx_outbox_events_published
    on outbox_events (created_at)
 where published_at is not null and next_attempt_at is not null;
