-- outbox_claim: events to publish now, each locked until the transaction ends.
--
-- The oldest event of an aggregate that waits is the aggregate's lock: while one relay holds it, no other sees a younger
-- one as the oldest, and a relay that dies takes its locks with it. What is due is asked for, not what came after the
-- last event seen: an event of a transaction that commits late is found like any other. A younger event waits while the
-- oldest backs off, and goes on once that is parked.
--
-- Without sorting, both orders can only come from their indexes, so a poll reads as much as it claims. Statistics from an
-- idle hour would have it read and sort the whole backlog. With a backlog of thousands the estimate is high enough for the
-- poll to be compiled, which takes longer than the poll.

create or replace function outbox_claim(batch integer)
returns table (id uuid, event_type text, aggregate_type text, aggregate_id uuid, payload jsonb, created_at timestamptz, attempt_count integer)
language plpgsql
security definer
set search_path from current
set enable_sort = off
set jit = off
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  if outbox_claim.batch is null or outbox_claim.batch < 1 then
    perform checkout_raise_invalid('batch', 'must be 1 or more');
  end if;

  return query
  select event.id, event.event_type::text, event.aggregate_type::text, event.aggregate_id, event.payload, event.created_at, event.attempt_count
    from outbox_events as event
   where event.published_at is null and event.next_attempt_at < 'infinity' and event.next_attempt_at <= v_now
     and event.id = (
       select oldest.id
         from outbox_events as oldest
        where oldest.published_at is null and oldest.next_attempt_at < 'infinity' and oldest.aggregate_id = event.aggregate_id
        order by oldest.created_at, oldest.id
        limit 1)
   order by event.next_attempt_at, event.id
   limit outbox_claim.batch
     for update of event skip locked;
end;
$$;

revoke execute on function outbox_claim(integer) from public;

comment on function outbox_claim(integer) is
  'Takes up to batch events that are due, longest due first and only the oldest of each aggregate_id, and locks them until the transaction ends: '
  'several relays share the work, and none is claimed twice. Publish them, then call outbox_ack and outbox_fail in the same transaction. '
  'Events of the host''s own types are not claimed unless the host gave them a next_attempt_at. Raises OC005 for a batch below 1.';
