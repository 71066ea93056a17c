-- outbox_ack: the broker took these events.

create or replace function outbox_ack(claim_id uuid, ids uuid[])
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_ids uuid[];
  v_now timestamptz;
  v_rows bigint;
begin
  if outbox_ack.ids is null then
    perform checkout_raise_invalid('ids', 'is required');
  end if;

  v_ids := outbox_lock_claimed(outbox_ack.claim_id, outbox_ack.ids);
  v_now := clock_timestamp();
  update outbox_events as event
     set published_at = greatest(v_now, event.created_at), next_attempt_at = v_now, last_error = null,
         claim_id = null, claimed_until = null, claim_count = null
   where event.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(null, 'outbox_events', cardinality(v_ids), v_rows);
  end if;
  return cardinality(v_ids);
end;
$$;

revoke execute on function outbox_ack(uuid, uuid[]) from public;

comment on function outbox_ack(uuid, uuid[]) is
  'Marks events as published, by their ids, and returns how many: those that still carry this claim, even if its lease has ended. A null claim '
  'marks events that carry none, for a publisher that claims nothing, such as Debezium. Unknown ids, parked events and those that are not the '
  'relay''s are passed over. Raises OC005 for null ids, OC007 if a trigger keeps a row from being written.';
