-- checkout_requests_purge: retention of idempotency keys. A converted cart replays without its key.
--
-- Like each purge: the oldest come first and by an index, so that a call costs what it deletes; what is locked is passed
-- over, so that it waits for nobody; and it is called until it answers 0, so that nobody waits for long.

create or replace function checkout_requests_purge(older_than interval, max_rows integer default 10000)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_cutoff constant timestamptz := checkout_cutoff(checkout_requests_purge.older_than, checkout_requests_purge.max_rows);
  v_buyer_store_ids uuid[];
  v_keys text[];
  v_deleted bigint;
begin
  select array_agg(old.buyer_store_id), array_agg(old.idempotency_key) into v_buyer_store_ids, v_keys
    from (select request.buyer_store_id, request.idempotency_key
            from checkout_requests as request
           where request.created_at < v_cutoff
           order by request.created_at
           limit checkout_requests_purge.max_rows
             for update skip locked) as old;

  delete from checkout_requests as request
   using unnest(v_buyer_store_ids, v_keys) as old (buyer_store_id, idempotency_key)
   where request.buyer_store_id = old.buyer_store_id and request.idempotency_key = old.idempotency_key;
  get diagnostics v_deleted = row_count;
  if v_deleted <> cardinality(v_keys) then
    perform checkout_raise_rows(null, 'checkout_requests', cardinality(v_keys), v_deleted);
  end if;
  return v_deleted;
end;
$$;

revoke execute on function checkout_requests_purge(interval, integer) from public;

comment on function checkout_requests_purge(interval, integer) is
  'Deletes idempotency keys older than the interval, the oldest first and max_rows at most, and returns how many: call it until it returns 0. '
  'Keys that are locked are left for the next call. For the owner. Raises OC005 for a null or negative interval, or max_rows below 1, OC007 if a trigger keeps a row from being deleted.';
