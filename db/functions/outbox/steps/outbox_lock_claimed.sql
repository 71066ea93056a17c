-- outbox_lock_claimed: which of these events still carry a claim, each locked until the transaction ends.
--
-- Whether the lease ended meanwhile does not matter as long as nobody took the event over: a broker that is slower than
-- the lease would be sent the same for ever. In the order of their ids, so that two who mark the same wait and never deadlock.

create or replace function outbox_lock_claimed(claim_id uuid, ids uuid[])
returns uuid[]
language plpgsql
as $$
declare
  v_ids uuid[];
begin
  perform from outbox_events as event
    where event.id = any (outbox_lock_claimed.ids) and event.claim_id is not distinct from outbox_lock_claimed.claim_id
    order by event.id
      for update;
  -- a statement of its own: what was waited for has changed
  select coalesce(array_agg(event.id), '{}') into v_ids
    from outbox_events as event
   where event.id = any (outbox_lock_claimed.ids) and event.claim_id is not distinct from outbox_lock_claimed.claim_id
     and event.published_at is null and event.next_attempt_at < 'infinity';
  return v_ids;
end;
$$;

revoke execute on function outbox_lock_claimed(uuid, uuid[]) from public;

comment on function outbox_lock_claimed(uuid, uuid[]) is
  'Step of outbox_ack and outbox_release: those of the events that wait under this claim (null: under none), locked.';
