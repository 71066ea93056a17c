-- ad_signing_key_retire: from now on no token verifies with this key.
--
-- The row stays, so that its name cannot come back with another secret. A second call changes nothing.

create or replace function ad_signing_key_retire(kid text)
returns void
language plpgsql
set search_path from current
as $$
declare
  v_now constant timestamptz := now();
begin
  update ad_signing_keys as key
     set active = false, retired_at = coalesce(key.retired_at, v_now)
   where key.kid = ad_signing_key_retire.kid;

  if not found then
    if exists (select from ad_signing_keys as key where key.kid = ad_signing_key_retire.kid) then
      perform checkout_raise_rows(null, 'ad_signing_keys', 1, 0);
    end if;
    raise exception 'there is no signing key of this name'
      using errcode = 'OC005',
            detail = jsonb_build_object('field', 'kid', 'problem', 'is unknown'),
            hint = 'The table ad_signing_keys lists all keys.';
  end if;
end;
$$;

revoke execute on function ad_signing_key_retire(text) from public;

comment on function ad_signing_key_retire(text) is
  'For the owner: takes a signing key out of use; tokens that it signed no longer count. Raises OC005 if there is no such key, OC007 if a trigger keeps the row from being written.';
