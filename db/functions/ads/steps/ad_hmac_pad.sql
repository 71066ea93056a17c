-- ad_hmac_pad: one padded key of an HMAC (RFC 2104, section 2).
--
-- HMAC-SHA-256 is sha256(outer || sha256(inner || message)), with the key padded by 0x36 for inner and by 0x5c for
-- outer. Both depend on the key alone, so ad_signing_key_put stores them and a verification is two core functions.

create or replace function ad_hmac_pad(secret bytea, pad integer)
returns bytea
language plpgsql
immutable
strict
as $$
declare
  c_block constant integer := 64;   -- bytes that SHA-256 takes at a time
  v_key bytea := case when octet_length(secret) > c_block then sha256(secret) else secret end;
begin
  v_key := v_key || decode(repeat('00', c_block - octet_length(v_key)), 'hex');
  return (
    select string_agg(set_byte(decode('00', 'hex'), 0, get_byte(v_key, byte) # pad), ''::bytea order by byte)
      from generate_series(0, c_block - 1) as byte);
end;
$$;

revoke execute on function ad_hmac_pad(bytea, integer) from public;

comment on function ad_hmac_pad(bytea, integer) is
  'The secret as a block of 64 bytes (hashed if it is longer), each xor pad: 54 gives the inner key of HMAC-SHA-256, 92 the outer.';
