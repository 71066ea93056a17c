-- checkout_requests_purge: retention of idempotency keys. A converted cart replays without its key.

create or replace function checkout_requests_purge(older_than interval)
returns bigint
language plpgsql
security definer
set search_path from current
as $$
declare
  v_deleted bigint;
begin
  if checkout_requests_purge.older_than is null or checkout_requests_purge.older_than < interval '0' then
    perform checkout_raise_invalid('older_than', 'must be an interval of 0 or more');
  end if;
  delete from checkout_requests as request
   where request.created_at < clock_timestamp() - checkout_requests_purge.older_than;
  get diagnostics v_deleted = row_count;
  return v_deleted;
end;
$$;

revoke execute on function checkout_requests_purge(interval) from public;

comment on function checkout_requests_purge(interval) is
  'Deletes idempotency keys older than the interval and returns how many. For the owner. Raises OC005 for a null or negative interval.';
