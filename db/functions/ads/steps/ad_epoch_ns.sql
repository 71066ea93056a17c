-- ad_epoch_ns: an RFC 3339 instant as nanoseconds since 1970.
--
-- timestamptz holds microseconds. Go mints nanoseconds, and the newest event wins, so the last three digits count.

create or replace function ad_epoch_ns(instant text)
returns numeric
language plpgsql
stable
strict
as $$
declare
  v_zone constant text := right(instant, case when upper(right(instant, 1)) = 'Z' then 1 else 6 end);
  v_second numeric;
begin
  if instant !~ ('^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)([.][0-9]{1,9})?'
                 '([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$') then
    raise exception 'not an RFC 3339 instant' using errcode = 'invalid_datetime_format';
  end if;

  -- Text of this form means the same under every DateStyle and, without a zone, under every TimeZone.
  v_second := extract(epoch from left(instant, 19)::timestamp)
    - coalesce(extract(epoch from nullif(upper(v_zone), 'Z')::interval), 0);

  -- A leap second ends a day in UTC. Clocks that count from 1970 call it the first second of the next day.
  if substr(instant, 18, 2) = '60' and v_second % 86400 <> 0 then
    raise exception 'not a leap second' using errcode = 'invalid_datetime_format';
  end if;
  return trunc((v_second + ('0' || substr(instant, 20, length(instant) - 19 - length(v_zone)))::numeric) * 1e9);
end;
$$;

revoke execute on function ad_epoch_ns(text) from public;

comment on function ad_epoch_ns(text) is
  'Nanoseconds since 1970 of an RFC 3339 instant with any offset and up to nine decimals, whatever DateStyle and TimeZone say. '
  'Raises a data exception (class 22) for any other text.';
