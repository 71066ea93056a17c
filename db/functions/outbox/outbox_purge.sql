-- outbox_purge: deletes published events. Unpublished and parked ones stay, and so does what is not the relay's.
--
-- It leaves a note of how far it went: before that time, checkout_audit() cannot ask a conversion for its two events.

create or replace function outbox_purge(older_than interval)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_cutoff constant timestamptz := checkout_cutoff(outbox_purge.older_than);
  v_deleted bigint;
begin
  -- by the time of creation as well, whatever clock published_at came from: the note speaks of it
  delete from outbox_events as event
   where event.published_at < v_cutoff and event.created_at < v_cutoff and event.next_attempt_at is not null;
  get diagnostics v_deleted = row_count;

  if v_deleted > 0 then
    insert into outbox_purges (purged_before, deleted, purged_at) values (v_cutoff, v_deleted, v_now);
  end if;
  return v_deleted;
end;
$$;

revoke execute on function outbox_purge(interval) from public;

comment on function outbox_purge(interval) is
  'Deletes events that were published and created longer ago than the interval, and returns how many. Events that wait, parked ones, and those '
  'that are not the relay''s stay. Noted in outbox_purges, which checkout_audit reads. Raises OC005 for a null or negative interval.';
