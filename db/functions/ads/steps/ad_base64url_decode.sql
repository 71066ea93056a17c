-- ad_base64url_decode: the bytes that base64url text without padding stands for (RFC 7515, section 2).
--
-- decode() forgives padding, line breaks and stray last bits, and so reads several texts as the same bytes. Here only
-- the one text is taken that the bytes encode to, so that a token cannot be spelled in two ways.

create or replace function ad_base64url_decode(encoded text)
returns bytea
language plpgsql
immutable
strict
as $$
begin
  -- Two last letters carry 4 bits too many and three carry 2; those bits must be zero, which leaves these letters.
  if encoded !~ '^([A-Za-z0-9_-]{4})*([A-Za-z0-9_-][AQgw]|[A-Za-z0-9_-]{2}[AEIMQUYcgkosw048])?$' then
    raise exception 'not canonical base64url' using errcode = 'invalid_parameter_value';
  end if;
  return decode(replace(replace(encoded, '-', '+'), '_', '/') || repeat('=', -length(encoded) & 3), 'base64');
end;
$$;

revoke execute on function ad_base64url_decode(text) from public;

comment on function ad_base64url_decode(text) is
  'Decodes base64url without padding. Raises a data exception (class 22) for any text but the canonical one.';
