-- outbox_park: an event is given no further attempt until somebody looks at it. Its row is locked by whoever calls this.

create or replace function outbox_park(id uuid, attempt_count integer, error text, parked_at timestamptz)
returns void
language plpgsql
as $$
declare
  v_rows bigint;
begin
  update outbox_events as event
     set attempt_count = outbox_park.attempt_count, last_error = outbox_park.error, next_attempt_at = 'infinity',
         claim_id = null, claimed_until = null, claim_count = null
   where event.id = outbox_park.id;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(null, 'outbox_events', 1, v_rows);
  end if;

  insert into outbox_dead_letters (event_id, event_type, aggregate_type, aggregate_id, attempt_count, error, parked_at)
  select event.id, event.event_type, event.aggregate_type, event.aggregate_id, event.attempt_count, event.last_error, outbox_park.parked_at
    from outbox_events as event
   where event.id = outbox_park.id
      on conflict (event_id) do update   -- somebody made the event due by hand
     set attempt_count = excluded.attempt_count, error = excluded.error, parked_at = excluded.parked_at;
  get diagnostics v_rows = row_count;
  if v_rows <> 1 then
    perform checkout_raise_rows(null, 'outbox_dead_letters', 1, v_rows);
  end if;
end;
$$;

revoke execute on function outbox_park(uuid, integer, text, timestamptz) from public;

comment on function outbox_park(uuid, integer, text, timestamptz) is
  'Step of outbox_claim and outbox_fail: parks an event in outbox_dead_letters. Raises OC007 if a trigger keeps a row from being written.';
