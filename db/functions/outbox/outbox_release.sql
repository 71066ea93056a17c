-- outbox_release: events go back without an attempt. Nobody refused them: they were not sent, or the broker is in trouble.

create or replace function outbox_release(claim_id uuid, ids uuid[])
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_ids uuid[];
  v_rows bigint;
begin
  if outbox_release.claim_id is null then
    perform checkout_raise_invalid('claim_id', 'is required');
  end if;
  if outbox_release.ids is null then
    perform checkout_raise_invalid('ids', 'is required');
  end if;

  v_ids := outbox_lock_claimed(outbox_release.claim_id, outbox_release.ids);
  update outbox_events as event
     set claim_id = null, claimed_until = null, claim_count = null
   where event.id = any (v_ids);
  get diagnostics v_rows = row_count;
  if v_rows <> cardinality(v_ids) then
    perform checkout_raise_rows(null, 'outbox_events', cardinality(v_ids), v_rows);
  end if;
  return cardinality(v_ids);
end;
$$;

revoke execute on function outbox_release(uuid, uuid[]) from public;

comment on function outbox_release(uuid, uuid[]) is
  'Ends the lease of events that still carry this claim, and returns how many: they are due at once, and no attempt is counted. Unknown ids are '
  'passed over. Raises OC005 for a null claim or null ids, OC007 if a trigger keeps a row from being written.';
