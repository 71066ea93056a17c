-- ad_token_public: what buyers may see of an attributed token.
--
-- The ad service puts more into its tokens than a buyer should read, such as the bid. So this lists what is shown, not
-- what is hidden.

create or replace function ad_token_public(claims jsonb)
returns jsonb
language plpgsql
immutable
strict
as $$
begin
  if jsonb_typeof(claims) <> 'object' then
    return null;
  end if;
  return jsonb_build_object(
    'token_id', claims -> 'token_id',
    'ad_id', claims -> 'ad_id',
    'creative_id', claims -> 'creative_id',
    'placement', claims -> 'placement',
    'target_type', claims -> 'target_type',
    'target_id', claims -> 'target_id',
    'event_type', claims -> 'event_type',
    'occurred_at', claims -> 'occurred_at');
end;
$$;

revoke execute on function ad_token_public(jsonb) from public;

comment on function ad_token_public(jsonb) is
  'The part of a token''s claims that the result of a checkout shows: never a bid. Null for null.';
