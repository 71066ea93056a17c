-- ad_token_check: what a checkout would make of an ad token, now.
--
-- For an ad service or a storefront that wants to know why a token does not count, without a right on the keys. The claims
-- are shown whole: whoever holds a token can read them anyway.

create or replace function ad_token_check(token text, buyer_store_id uuid)
returns json
language plpgsql
stable
security definer
set search_path from current
as $$
declare
  v_verdict record;
begin
  v_verdict := ad_token_verify(ad_token_check.token, ad_token_check.buyer_store_id, clock_timestamp());
  return json_build_object('reason', v_verdict.reason, 'claims', v_verdict.claims);
end;
$$;

revoke execute on function ad_token_check(text, uuid) from public;

comment on function ad_token_check(text, uuid) is
  'Whether an ad token counts in a checkout of this buyer now: {"reason": null, "claims": {...}} if it does, and else {"reason": ..., '
  '"claims": null} with the reason as ad_token_verify has it. Locks nothing, writes nothing, and raises for no text. A checkout knows '
  'two reasons more, of a cart''s tokens together: duplicate and too_many.';
