-- outbox_claim: events to publish now, under a lease that ends by itself.
--
-- What keeps others away afterwards is written on the events: no lock outlives the call's own transaction. It waits for
-- nobody either: what somebody has locked is left for the next call.
--
-- What it looks at is an aggregate at a time, in outbox_take_run; here is only the order in which they come. First those
-- whose lease has ended: they waited longest, and claims are as few as relays. Then what is due, longest first: neither
-- leased events, nor those that back off, nor parked ones stand in that part of the index. But the younger events behind
-- them do, and there may be any number of those. So that walk is cut, and what is missing after it is looked up from
-- aggregate to aggregate, past whatever stands behind a head. That begins anywhere, or the same would always come first.
--
-- Without sorting, each order can only come from its index, so a poll reads as much as it claims. Statistics from an idle
-- hour would have it read and sort the whole backlog. With a backlog of thousands the estimate is high enough for the
-- poll to be compiled, which takes longer than the poll.

create or replace function outbox_claim(batch integer, lease interval default '30 seconds')
returns table (
  id uuid, event_type text, aggregate_type text, aggregate_id uuid, payload jsonb, created_at timestamptz, attempt_count integer,
  claim_id uuid, claimed_until timestamptz
)
language plpgsql
security definer
set search_path from current
set enable_sort = off
set jit = off
as $$
declare
  v_none constant uuid := '00000000-0000-0000-0000-000000000000'::uuid;
  v_now constant timestamptz := clock_timestamp();
  v_claimed_until constant timestamptz := outbox_lease_end(outbox_claim.lease, v_now);
  v_claim_id constant uuid := gen_random_uuid();
  v_start constant uuid := gen_random_uuid();
  v_most constant bigint := outbox_claim.batch * 2::bigint + 100;
  v_walked bigint := 0;
  v_held record;
  v_due record;
  v_claim uuid := v_none;
  v_ended boolean;
  v_aggregate uuid := v_start;
  v_ready boolean;
  v_wrapped boolean := false;
  v_ids uuid[] := '{}'::uuid[];
begin
  if outbox_claim.batch is null or outbox_claim.batch < 1 then
    perform checkout_raise_invalid('batch', 'must be 1 or more');
  end if;

  while cardinality(v_ids) < outbox_claim.batch loop
    select event.claim_id, event.claimed_until <= v_now into v_claim, v_ended
      from outbox_events as event
     where event.published_at is null and event.next_attempt_at < 'infinity' and event.claim_id > v_claim
     order by event.claim_id, event.next_attempt_at, event.id
     limit 1;
    exit when not found;
    continue when not v_ended;
    for v_held in
      select held.aggregate_id, min(held.place) as place
        from (select event.aggregate_id, row_number() over (order by event.claim_id, event.next_attempt_at, event.id) as place
                from outbox_events as event
               where event.published_at is null and event.next_attempt_at < 'infinity' and event.claim_id = v_claim
               limit v_most) as held
       group by held.aggregate_id
       order by 2
    loop
      exit when cardinality(v_ids) >= outbox_claim.batch;
      v_ids := v_ids || outbox_take_run(v_held.aggregate_id, v_claim_id, v_now, v_claimed_until, outbox_claim.batch - cardinality(v_ids));
    end loop;
  end loop;

  for v_due in
    select due.aggregate_id, min(due.place) as place, count(*) as events
      from (select event.aggregate_id, row_number() over (order by event.claim_id, event.next_attempt_at, event.id) as place
              from outbox_events as event
             where event.published_at is null and event.next_attempt_at < 'infinity' and event.next_attempt_at <= v_now and event.claim_id is null
             limit v_most) as due
     group by due.aggregate_id
     order by 2
  loop
    exit when cardinality(v_ids) >= outbox_claim.batch;
    v_walked := v_walked + v_due.events;
    v_ids := v_ids || outbox_take_run(v_due.aggregate_id, v_claim_id, v_now, v_claimed_until, outbox_claim.batch - cardinality(v_ids));
  end loop;

  while v_walked >= v_most and cardinality(v_ids) < outbox_claim.batch loop
    select event.aggregate_id, event.next_attempt_at <= v_now and (event.claimed_until <= v_now) is not false into v_aggregate, v_ready
      from outbox_events as event
     where event.published_at is null and event.next_attempt_at >= '-infinity' and event.aggregate_id > v_aggregate
     order by event.aggregate_id, event.created_at, event.id
     limit 1;
    if not found then
      exit when v_wrapped;
      v_aggregate := v_none;
      v_wrapped := true;
      continue;
    end if;
    exit when v_wrapped and v_aggregate > v_start;
    if v_ready then
      v_ids := v_ids || outbox_take_run(v_aggregate, v_claim_id, v_now, v_claimed_until, outbox_claim.batch - cardinality(v_ids));
    end if;
  end loop;

  return query
  select event.id, event.event_type::text, event.aggregate_type::text, event.aggregate_id, event.payload, event.created_at, event.attempt_count,
         event.claim_id, event.claimed_until
    from unnest(v_ids) with ordinality as taken (id, place)
    join outbox_events as event on event.id = taken.id
   order by taken.place;
end;
$$;

revoke execute on function outbox_claim(integer, interval) from public;

comment on function outbox_claim(integer, interval) is
  'Takes up to batch events that are due, longest due first, those of one aggregate_id in their order and one after the other, and leases them: '
  'until claimed_until, by the clock of the database, nobody else is given events of these aggregates. Call it in a transaction of its own, and '
  'ask the broker after that: outbox_ack for what it took, outbox_fail for what it refused, outbox_release for the rest, outbox_extend while it '
  'takes its time. An aggregate whose oldest event backs off or is parked waits. An event that was claimed 24 times and never marked is parked. '
  'Events of the host''s own types are not claimed unless the host gave them a next_attempt_at. Raises OC005 for a batch below 1, or a lease that '
  'is not between a millisecond and a day, OC007 if a trigger keeps a row from being written.';
