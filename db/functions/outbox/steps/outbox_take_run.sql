-- outbox_take_run: leases the oldest events of an aggregate, as many as may be sent one after the other.
--
-- The oldest event that waits, the head, is the aggregate's lock: whoever does not get it takes nothing of the aggregate.
-- A head that is leased, backs off or is parked holds the younger ones back. What the run consists of is read after the
-- lock: before it, another relay may have sent and marked half of it. An older event that became visible meanwhile
-- is another head, whose lock this is not; and what is committed late stands before a lease that is still good, so the
-- run is looked over for one. All locks skip: nothing here waits for a relay, an erasure or a purge.
--
-- What locks by id says nothing that the conditions of the partial indexes follow from. By the statistics of an idle hour
-- these are empty, and reading one from end to end would seem as cheap as the primary key.

create or replace function outbox_take_run(aggregate_id uuid, claim_id uuid, claimed_at timestamptz, claimed_until timestamptz, most integer)
returns uuid[]
language plpgsql
as $$
declare
  v_most_claims constant integer := 24;
  v_now constant timestamptz := outbox_take_run.claimed_at;
  v_head_id uuid;
  v_ready boolean;
  v_head record;
  v_run uuid[];
  v_leased boolean;
  v_locked bigint;
  v_rows bigint;
begin
  select event.id, event.next_attempt_at <= v_now and (event.claimed_until <= v_now) is not false into v_head_id, v_ready
    from outbox_events as event
   where event.published_at is null and event.next_attempt_at >= '-infinity' and event.aggregate_id = outbox_take_run.aggregate_id
   order by event.created_at, event.id
   limit 1;
  if v_ready is not true then
    return '{}'::uuid[];
  end if;
  select event.claim_count, event.attempt_count,
         event.published_at is null and event.next_attempt_at <= v_now and (event.claimed_until <= v_now) is not false as ready
    into v_head
    from outbox_events as event
   where event.id = v_head_id
     for update skip locked;
  if v_head.ready is not true then
    return '{}'::uuid[];
  end if;
  -- it may be what ends the relays
  if v_head.claim_count >= v_most_claims then
    perform outbox_park(v_head_id, v_head.attempt_count, format('claimed %s times and never marked', v_head.claim_count), v_now);
    return '{}'::uuid[];
  end if;

  select array_agg(waiting.id order by waiting.place) filter (where waiting.sendable and waiting.place <= outbox_take_run.most),
         bool_or(waiting.claimed_until > v_now)
    into v_run, v_leased
    from (select event.id, event.claimed_until,
                 row_number() over (order by event.created_at, event.id) as place,
                 bool_and(event.next_attempt_at <= v_now) over (order by event.created_at, event.id) as sendable
            from outbox_events as event
           where event.published_at is null and event.next_attempt_at >= '-infinity' and event.aggregate_id = outbox_take_run.aggregate_id
           order by event.created_at, event.id
           limit greatest(outbox_take_run.most, 20)) as waiting;
  if v_leased or v_run[1] is distinct from v_head_id then
    return '{}'::uuid[];
  end if;

  if cardinality(v_run) > 1 then
    select count(*) into v_locked
      from (select
              from outbox_events as event
             where event.id = any (v_run) and event.published_at is null and (event.claimed_until <= v_now) is not false
               for update skip locked) as locked;
    if v_locked < cardinality(v_run) then
      return '{}'::uuid[];
    end if;
  end if;

  update outbox_events as event
     set claim_id = outbox_take_run.claim_id, claimed_until = outbox_take_run.claimed_until,
         claim_count = case when event.id = v_head_id then coalesce(event.claim_count, 0) + 1 else event.claim_count end
   where event.id = any (v_run);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_run) then
    perform checkout_raise_rows(null, 'outbox_events', cardinality(v_run), v_rows);
  end if;
  return v_run;
end;
$$;

revoke execute on function outbox_take_run(uuid, uuid, timestamptz, timestamptz, integer) from public;

comment on function outbox_take_run(uuid, uuid, timestamptz, timestamptz, integer) is
  'Step of outbox_claim: leases up to most events of an aggregate, the oldest that wait, and returns their ids in order; none if its head is '
  'leased, locked, not due, or was claimed too often, for which it is parked. Raises OC007 if a trigger keeps a row from being written.';
