-- checkout_uuid: a time-ordered id (UUIDv7, RFC 9562 5.7), so that indexes grow at their right end.
--
-- PostgreSQL 18 has one built in; before it, 48 bits of milliseconds go in front of a random UUID's other bits.

do $do$
begin
  if to_regprocedure('pg_catalog.uuidv7()') is not null then
    create or replace function checkout_uuid() returns uuid language sql volatile
    as 'select uuidv7()';
  else
    create or replace function checkout_uuid() returns uuid language sql volatile
    as $$
      select encode(
        set_byte(
          overlay(uuid_send(gen_random_uuid()) placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6),
          6, (get_byte(uuid_send(gen_random_uuid()), 6) & 15) | 112),
        'hex')::uuid
    $$;
  end if;
end
$do$;

revoke execute on function checkout_uuid() from public;

comment on function checkout_uuid() is 'A new time-ordered UUID, version 7 (RFC 9562).';
