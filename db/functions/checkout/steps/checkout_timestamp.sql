-- checkout_timestamp: an instant as RFC 3339 text in UTC, whatever the caller's TimeZone: a replay from another session
-- must not look different.

create or replace function checkout_timestamp(instant timestamptz)
returns text
language sql
stable
as $$
  select to_char(checkout_timestamp.instant at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
$$;

revoke execute on function checkout_timestamp(timestamptz) from public;

comment on function checkout_timestamp(timestamptz) is 'An instant as RFC 3339 text in UTC with microseconds; null stays null.';
