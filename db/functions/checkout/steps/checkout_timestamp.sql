-- checkout_timestamp: an instant as RFC 3339 text in UTC, whatever the caller's TimeZone: a replay from another session
-- must not look different.
--
-- A host's column may hold what RFC 3339 has no year for, and few programs can read: the end of time is then none, and
-- what lies before the year 1 is its beginning.

create or replace function checkout_timestamp(instant timestamptz)
returns text
language sql
stable
as $$
  select to_char(case when checkout_timestamp.instant < '0001-01-01T00:00:00Z' then '0001-01-01T00:00:00Z'
                      when checkout_timestamp.instant < '10000-01-01T00:00:00Z' then checkout_timestamp.instant
                 end at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
$$;

revoke execute on function checkout_timestamp(timestamptz) from public;

comment on function checkout_timestamp(timestamptz) is
  'An instant as RFC 3339 text in UTC with microseconds, in the years 1 to 9999; null stays null, and what is later is null.';
