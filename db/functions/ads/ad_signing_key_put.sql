-- ad_signing_key_put: adds a key that ad tokens may be signed with.
--
-- To rotate: put the new key here, let the ad service sign with it, and retire the old one when the last token that it
-- signed has expired. Pass the secret as a parameter of the statement: a literal would stand in the server's log.
--
-- Everything that a constraint of the table could refuse is refused here, because the DETAIL of a violated constraint
-- shows the whole row, secret included.

create or replace function ad_signing_key_put(kid text, secret bytea, accepts_unnamed boolean default false)
returns void
language plpgsql
set search_path from current
as $$
#variable_conflict use_column   -- ON CONFLICT (kid) cannot be qualified
begin
  -- A wrong kid is not repeated: it may be a secret in the wrong place.
  if (ad_signing_key_put.kid ~ '^[!-~]{1,255}$') is not true then
    perform checkout_raise_invalid('kid', 'must be 1 to 255 visible ASCII characters');
  elsif (octet_length(ad_signing_key_put.secret) >= 32) is not true then
    perform checkout_raise_invalid('secret', 'must have at least 32 bytes (RFC 7518, section 3.2)');
  end if;

  insert into ad_signing_keys (kid, secret, inner_pad, outer_pad, active, accepts_unnamed, created_at)
  values (ad_signing_key_put.kid, ad_signing_key_put.secret,
          ad_hmac_pad(ad_signing_key_put.secret, 54), ad_hmac_pad(ad_signing_key_put.secret, 92),
          true, coalesce(ad_signing_key_put.accepts_unnamed, false), now())
  on conflict (kid) do update
     set active = true, retired_at = null, accepts_unnamed = excluded.accepts_unnamed
   where ad_signing_keys.secret = excluded.secret;

  -- One name, one secret, for ever: tokens on their way name the key that signed them.
  if not found then
    if not exists (select from ad_signing_keys as key where key.kid = ad_signing_key_put.kid and key.secret <> ad_signing_key_put.secret) then
      perform checkout_raise_rows(null, 'ad_signing_keys', 1, 0);
    end if;
    raise exception 'signing key "%" has another secret', ad_signing_key_put.kid
      using errcode = 'OC005',
            detail = jsonb_build_object('field', 'kid', 'problem', 'has another secret'),
            hint = 'Choose a new kid for the new secret, and retire this one later.';
  end if;
end;
$$;

revoke execute on function ad_signing_key_put(text, bytea, boolean) from public;

comment on function ad_signing_key_put(text, bytea, boolean) is
  'For the owner: adds a key that signs ad tokens, or makes a retired one active again. accepts_unnamed lets it verify tokens '
  'whose header names no key. Raises OC005 for a bad kid, a secret under 32 bytes, or a kid that has another secret, OC007 if a trigger keeps the row from being written.';
