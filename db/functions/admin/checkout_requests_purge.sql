-- checkout_requests_purge: retention of idempotency keys. A converted cart replays without its key.

create or replace function checkout_requests_purge(older_than interval)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_cutoff constant timestamptz := checkout_cutoff(checkout_requests_purge.older_than);
  v_deleted bigint;
begin
  delete from checkout_requests as request where request.created_at < v_cutoff;
  get diagnostics v_deleted = row_count;
  return v_deleted;
end;
$$;

revoke execute on function checkout_requests_purge(interval) from public;

comment on function checkout_requests_purge(interval) is
  'Deletes idempotency keys older than the interval and returns how many. For the owner. Raises OC005 for a null or negative interval.';
