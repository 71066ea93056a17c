-- checkout_uuid: a time-ordered id (UUIDv7, RFC 9562 5.7), so that indexes grow at their right end.
--
-- PostgreSQL 18 has one built in; before it, 48 bits of milliseconds, then the version and the microseconds within them in
-- 12 bits (RFC 9562 6.2, method 3), so that the two events of one checkout are in order, then a random UUID's second half.

do $do$
begin
  if to_regprocedure('pg_catalog.uuidv7()') is not null then
    create or replace function checkout_uuid() returns uuid language sql volatile
    as 'select uuidv7()';
  else
    create or replace function checkout_uuid() returns uuid language plpgsql volatile
    as $$
    declare
      v_us constant bigint := extract(epoch from clock_timestamp()) * 1000000;
    begin
      return encode(substring(int8send(v_us / 1000) from 3)
                    || int2send((28672 + v_us % 1000 * 4096 / 1000)::smallint)
                    || substring(uuid_send(gen_random_uuid()) from 9), 'hex')::uuid;
    end;
    $$;
  end if;
end
$do$;

revoke execute on function checkout_uuid() from public;

comment on function checkout_uuid() is 'A new time-ordered UUID, version 7 (RFC 9562).';
