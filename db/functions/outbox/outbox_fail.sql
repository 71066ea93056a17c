-- outbox_fail: the broker refused an event. It is tried again later, or parked.

create or replace function outbox_fail(claim_id uuid, id uuid, error text, max_attempts integer default 12)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
declare
  v_now timestamptz;
  v_attempts integer;
  v_next timestamptz := 'infinity'::timestamptz;
  v_rows bigint;
begin
  if coalesce(outbox_fail.error, '') = '' then
    perform checkout_raise_invalid('error', 'is required');
  end if;
  if outbox_fail.max_attempts is null or outbox_fail.max_attempts < 1 then
    perform checkout_raise_invalid('max_attempts', 'must be 1 or more');
  end if;

  select event.attempt_count + 1 into v_attempts
    from outbox_events as event
   where event.id = outbox_fail.id and event.claim_id = outbox_fail.claim_id
     for update;
  if not found then
    perform checkout_raise_invalid('id', 'is no event that carries this claim');
  end if;
  v_now := clock_timestamp();

  if v_attempts < outbox_fail.max_attempts then
    -- 2, 4, 8 seconds and so on, an hour at most: with 12 attempts it takes a good hour to give an event up
    v_next := v_now + make_interval(secs => least(2 ^ least(v_attempts, 12), 3600));
    update outbox_events as event
       set attempt_count = v_attempts, last_error = left(outbox_fail.error, 1000), next_attempt_at = v_next,
           claim_id = null, claimed_until = null, claim_count = null
     where event.id = outbox_fail.id;
    get diagnostics v_rows = row_count;
    if v_rows <> 1 then
      perform checkout_raise_rows(null, 'outbox_events', 1, v_rows);
    end if;
  else
    perform outbox_park(outbox_fail.id, v_attempts, left(outbox_fail.error, 1000), v_now);
  end if;
  return jsonb_build_object(
    'event_id', outbox_fail.id, 'attempt_count', v_attempts, 'parked', v_next = 'infinity',
    'next_attempt_at', case when v_next < 'infinity' then checkout_timestamp(v_next) end);
end;
$$;

revoke execute on function outbox_fail(uuid, uuid, text, integer) from public;

comment on function outbox_fail(uuid, uuid, text, integer) is
  'Notes that the broker refused an event (up to 1000 characters of its error), as long as the event still carries this claim, even if its lease '
  'has ended. It is due again 2, 4, 8 and so on seconds later, an hour at most; after max_attempts it is parked in outbox_dead_letters. Younger '
  'events of its aggregate wait behind it either way. Returns event_id, attempt_count, parked and next_attempt_at. Raises OC005 for an event that '
  'does not carry the claim, an empty error, or max_attempts below 1, OC007 if a trigger keeps a row from being written.';
