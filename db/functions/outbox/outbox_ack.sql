-- outbox_ack: the broker took these events.

create or replace function outbox_ack(ids uuid[])
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_acked bigint;
begin
  if outbox_ack.ids is null then
    perform checkout_raise_invalid('ids', 'is required');
  end if;

  update outbox_events as event
     set published_at = greatest(v_now, event.created_at), next_attempt_at = v_now, last_error = null
   where event.id = any (outbox_ack.ids) and event.published_at is null and event.next_attempt_at is not null;
  get diagnostics v_acked = row_count;

  delete from outbox_dead_letters as parked where parked.event_id = any (outbox_ack.ids);
  return v_acked;
end;
$$;

revoke execute on function outbox_ack(uuid[]) from public;

comment on function outbox_ack(uuid[]) is
  'Marks events as published, by their ids, and returns how many were not before. For a parked event that means to give it up: it is sent no more. '
  'Unknown ids, and events that are not the relay''s, are passed over. Raises OC005 for null.';
