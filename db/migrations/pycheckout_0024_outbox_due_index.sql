-- depends: pycheckout_0023_outbox_relay
-- transactional: false
-- cost: build outbox_events
--
-- The relay's poll: what is due, longest first. Neither sent nor parked events are in it, so it stays as small as the backlog.

create index concurrently if not exists idx_outbox_events_due
    on outbox_events (next_attempt_at, id)
 where published_at is null and next_attempt_at < 'infinity';
