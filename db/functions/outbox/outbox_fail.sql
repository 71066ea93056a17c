-- outbox_fail: the broker did not take an event. It is tried again later, or parked.

create or replace function outbox_fail(id uuid, error text, max_attempts integer default 12)
returns jsonb
language plpgsql
security definer
set search_path from current
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_event outbox_events;
  v_attempts integer;
  v_next timestamptz := 'infinity';
begin
  if coalesce(outbox_fail.error, '') = '' then
    perform checkout_raise_invalid('error', 'is required');
  end if;
  if outbox_fail.max_attempts is null or outbox_fail.max_attempts < 1 then
    perform checkout_raise_invalid('max_attempts', 'must be 1 or more');
  end if;

  select event.attempt_count + 1 into v_attempts
    from outbox_events as event
   where event.id = outbox_fail.id and event.published_at is null and event.next_attempt_at < 'infinity'
     for update;
  if not found then
    perform checkout_raise_invalid('id', 'is no event that waits to be sent');
  end if;
  -- 2, 4, 8 seconds and so on, an hour at most: with 12 attempts it takes a good hour to give an event up
  if v_attempts < outbox_fail.max_attempts then
    v_next := v_now + make_interval(secs => least(2 ^ least(v_attempts, 12), 3600));
  end if;

  update outbox_events as event
     set attempt_count = v_attempts, last_error = left(outbox_fail.error, 1000), next_attempt_at = v_next
   where event.id = outbox_fail.id
  returning event.* into v_event;

  if v_event.next_attempt_at = 'infinity' then
    insert into outbox_dead_letters (event_id, event_type, aggregate_type, aggregate_id, attempt_count, error, parked_at)
    values (v_event.id, v_event.event_type, v_event.aggregate_type, v_event.aggregate_id, v_event.attempt_count, v_event.last_error, v_now)
        on conflict (event_id) do update   -- somebody made the event due by hand
       set attempt_count = excluded.attempt_count, error = excluded.error, parked_at = excluded.parked_at;
  end if;
  return jsonb_build_object(
    'event_id', v_event.id, 'attempt_count', v_event.attempt_count, 'parked', v_event.next_attempt_at = 'infinity',
    'next_attempt_at', case when v_event.next_attempt_at < 'infinity' then checkout_timestamp(v_event.next_attempt_at) end);
end;
$$;

revoke execute on function outbox_fail(uuid, text, integer) from public;

comment on function outbox_fail(uuid, text, integer) is
  'Notes a failed attempt (up to 1000 characters of its error). The event is due again 2, 4, 8 and so on seconds later, an hour at most; after '
  'max_attempts it is parked in outbox_dead_letters, and younger events of its aggregate go on without it. Returns event_id, attempt_count, '
  'parked and next_attempt_at. Raises OC005 for an event that is not waiting, an empty error, or max_attempts below 1.';
