-- depends: pycheckout_0023_outbox_relay
-- transactional: false
-- cost: build outbox_events
--
-- The relay's poll: of what nobody has claimed, what is due, longest first; and the events of a claim. Neither sent nor
-- parked events are in it, so it stays as small as the backlog.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'outbox_events', 'idx_outbox_events_due'); end $$;

create index concurrently if not exists idx_outbox_events_due
    on outbox_events (claim_id, next_attempt_at, id)
 where published_at is null and next_attempt_at < 'infinity';
