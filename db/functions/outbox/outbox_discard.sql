-- outbox_discard: an event is given up for good, and what waits behind it goes on.

create or replace function outbox_discard(id uuid, reason text)
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
  if checkout_is_blank(coalesce(outbox_discard.reason, '')) then
    perform checkout_raise_invalid('reason', 'is required');
  end if;

  v_was := outbox_lock_event(outbox_discard.id);
  if v_was = 'published' then
    return v_was;
  end if;

  v_now := clock_timestamp();
  delete from outbox_dead_letters as parked where parked.event_id = outbox_discard.id;
  if exists (select from outbox_dead_letters as parked where parked.event_id = outbox_discard.id) then
    perform checkout_raise_rows(null, 'outbox_dead_letters', 1, 0);
  end if;
  update outbox_events as event
     set published_at = greatest(v_now, event.created_at), next_attempt_at = v_now, last_error = 'discarded: ' || left(outbox_discard.reason, 1000),
         claim_id = null, claimed_until = null, claim_count = null
   where event.id = outbox_discard.id;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(null, 'outbox_events', 1, v_rows);
  end if;
  return v_was;
end;
$$;

revoke execute on function outbox_discard(uuid, text) from public;

comment on function outbox_discard(uuid, text) is
  'Gives an event up: it counts as published, its last_error says why (up to 1000 characters), and younger events of its aggregate no longer '
  'wait for it. Returns what it was: parked, waiting, claimed (its relay may still send it), or published, which stays as it is. Raises '
  'OC005 for an id that is no event of the relay, or an empty reason, OC007 if a trigger keeps a row from being written.';
