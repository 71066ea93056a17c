-- depends: pycheckout_0021_outbox_due_index
-- transactional: false
--
-- The events of an aggregate that wait, the oldest first, parked ones among them: what stands behind one waits for it.

create index concurrently if not exists idx_outbox_events_waiting
    on outbox_events (aggregate_id, created_at, id)
 where published_at is null and next_attempt_at is not null;
