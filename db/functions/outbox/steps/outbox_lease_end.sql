-- outbox_lease_end: when a lease that is given now will end.

create or replace function outbox_lease_end(lease interval, given_at timestamptz)
returns timestamptz
language plpgsql
stable
as $$
begin
  if (outbox_lease_end.lease >= interval '1 millisecond' and outbox_lease_end.lease <= interval '1 day') is not true then
    perform checkout_raise_invalid('lease', 'must be between a millisecond and a day');
  end if;
  return outbox_lease_end.given_at + outbox_lease_end.lease;
end;
$$;

revoke execute on function outbox_lease_end(interval, timestamptz) from public;

comment on function outbox_lease_end(interval, timestamptz) is
  'Step of outbox_claim and outbox_extend: the end of a lease. Raises OC005 for one that is not between a millisecond and a day.';
