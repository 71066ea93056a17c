-- outbox_extend: a relay is still at work on what it claimed.

create or replace function outbox_extend(claim_id uuid, lease interval default '30 seconds')
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_ids uuid[];
  v_claimed_until timestamptz;
  v_rows bigint;
begin
  if outbox_extend.claim_id is null then
    perform checkout_raise_invalid('claim_id', 'is required');
  end if;

  select coalesce(array_agg(locked.id), '{}') into v_ids
    from (select event.id
            from outbox_events as event
           where event.published_at is null and event.next_attempt_at < 'infinity' and event.claim_id = outbox_extend.claim_id
           order by event.id
             for update) as locked;
  v_claimed_until := outbox_lease_end(outbox_extend.lease, clock_timestamp());
  update outbox_events as event
     set claimed_until = greatest(event.claimed_until, v_claimed_until)
   where event.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(null, 'outbox_events', cardinality(v_ids), v_rows);
  end if;
  return cardinality(v_ids);
end;
$$;

revoke execute on function outbox_extend(uuid, interval) from public;

comment on function outbox_extend(uuid, interval) is
  'Lets the lease of all events that still carry this claim end that much later than now, by the clock of the database, or when it would have, '
  'and returns how many they are. Raises OC005 for a null claim, or a lease that is not between a millisecond and a day, OC007 if a trigger keeps a row from being written.';
