-- checkout_cutoff: the instant before which a purge deletes.

create or replace function checkout_cutoff(older_than interval, max_rows integer)
returns timestamptz
language plpgsql
as $$
begin
  if checkout_cutoff.older_than is null or checkout_cutoff.older_than < interval '0' then
    perform checkout_raise_invalid('older_than', 'must be an interval of 0 or more');
  elsif checkout_cutoff.max_rows is null or checkout_cutoff.max_rows < 1 then
    perform checkout_raise_invalid('max_rows', 'must be 1 or more');
  end if;
  return clock_timestamp() - checkout_cutoff.older_than;
exception when datetime_field_overflow then
  return '-infinity'::timestamptz;   -- earlier than any time there is: nothing is that old
end;
$$;

revoke execute on function checkout_cutoff(interval, integer) from public;

comment on function checkout_cutoff(interval, integer) is
  'Step of the purges: the time an interval ago. Raises OC005 for a null or negative interval, or a number of rows below 1.';
