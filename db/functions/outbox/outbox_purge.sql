-- outbox_purge: deletes published events. Unpublished and parked ones stay, and so does what is not the relay's.
--
-- It leaves a note of how far it went: before that time, checkout_audit() cannot ask a conversion for its two events. The
-- note is as early as it can be, since one call of many may not have come far.

create or replace function outbox_purge(older_than interval, max_rows integer default 10000)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_cutoff constant timestamptz := checkout_cutoff(outbox_purge.older_than, outbox_purge.max_rows);
  v_ids uuid[];
  v_newest timestamptz;
  v_deleted bigint;
begin
  -- by the time of creation as well, whatever clock published_at came from: the note speaks of it
  select array_agg(old.id), max(old.created_at) into v_ids, v_newest
    from (select event.id, event.created_at
            from outbox_events as event
           where event.published_at < v_cutoff and event.created_at < v_cutoff and event.next_attempt_at is not null
           order by event.created_at
           limit outbox_purge.max_rows
             for update skip locked) as old;

  delete from outbox_events as event where event.id = any (v_ids);
  get diagnostics v_deleted = row_count;
  if v_deleted <> cardinality(v_ids) then
    perform checkout_raise_rows(null, 'outbox_events', cardinality(v_ids), v_deleted);
  end if;

  if v_deleted > 0 then
    insert into outbox_purges (purged_before, deleted, purged_at) values (v_newest + interval '1 microsecond', v_deleted, v_now);
    if not found then
      perform checkout_raise_rows(null, 'outbox_purges', 1, 0);
    end if;
  end if;
  return v_deleted;
end;
$$;

revoke execute on function outbox_purge(interval, integer) from public;

comment on function outbox_purge(interval, integer) is
  'Deletes events that were published and created longer ago than the interval, the oldest first and max_rows at most, and returns how many: '
  'call it until it returns 0. Events that wait, parked ones, those that are not the relay''s and those that are locked stay. Noted in '
  'outbox_purges, which checkout_audit reads. Raises OC005 for a null or negative interval, or max_rows below 1, OC007 if a trigger keeps a row from being written or deleted.';
