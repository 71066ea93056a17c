-- outbox_replay: sends an event again, parked or published, under the same id.

create or replace function outbox_replay(id uuid)
returns text
language plpgsql
security definer
set search_path from current
as $$
declare
  v_was text;
  v_now timestamptz;
  v_rows bigint;
begin
  v_was := outbox_lock_event(outbox_replay.id);
  if v_was = 'claimed' then   -- a relay is sending it just now
    return v_was;
  end if;

  v_now := clock_timestamp();
  delete from outbox_dead_letters as parked where parked.event_id = outbox_replay.id;
  if exists (select from outbox_dead_letters as parked where parked.event_id = outbox_replay.id) then
    perform checkout_raise_rows(null, 'outbox_dead_letters', 1, 0);
  end if;
  update outbox_events as event
     set published_at = null, next_attempt_at = v_now, attempt_count = 0, last_error = null,
         claim_id = null, claimed_until = null, claim_count = null
   where event.id = outbox_replay.id;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(null, 'outbox_events', 1, v_rows);
  end if;
  return v_was;
end;
$$;

revoke execute on function outbox_replay(uuid) from public;

comment on function outbox_replay(uuid) is
  'Makes an event due now, with its attempts counted anew, and returns what it was: parked, published, waiting, or claimed, which stays as it '
  'is: a relay is sending it. It goes before younger events of its aggregate that still wait, and after those that were sent meanwhile. Raises '
  'OC005 for an id that is no event of the relay, OC007 if a trigger keeps a row from being written.';
