-- depends: pycheckout_0021_purged_carts_index
-- transactional: false
--
-- Which event of an aggregate is the oldest of those that wait: the relay sends no other.

create index concurrently if not exists idx_outbox_events_waiting
    on outbox_events (aggregate_id, created_at, id)
 where published_at is null and next_attempt_at < 'infinity';
