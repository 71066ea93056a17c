-- checkout_attribution: the ad that each vendor and each product of a cart is attributed to.
--
-- A step of checkout_execute, before its first write. A cart may hold the same click many times, or a thousand
-- texts that somebody made up: equal texts are looked at once, and no more than 200 different ones.
--
-- Of several good tokens for one target a click wins over an impression, then the newest event, then the greater
-- token_id: the order of the array decides nothing, unless one token_id was signed twice for the same instant.

create or replace function checkout_attribution(
  ad_tokens text[],
  buyer_store_id uuid,
  ad_token_policy text,
  now timestamptz
)
returns jsonb
language plpgsql
stable
as $$
declare
  c_max_tokens constant integer := 200;
  v_result jsonb;
  v_bad jsonb;
begin
  with listed as (
    select item.token, min(item.position) as position
      from unnest(checkout_attribution.ad_tokens) with ordinality as item (token, position)
     group by item.token
  ), numbered as (
    select token, position, row_number() over (order by position) as number
      from listed
  ), verified as (
    select numbered.position, verdict.*
      from numbered
     cross join lateral ad_token_verify(numbered.token, checkout_attribution.buyer_store_id, checkout_attribution.now) as verdict
     where numbered.number <= c_max_tokens
  ), ranked as (
    select *, row_number() over (partition by token_id order by event_type, occurred_ns desc, position) as rank
      from verified
  ), judged as (
    select *, coalesce(reason, case when rank > 1 then 'duplicate' end) as dropped_as
      from ranked
  ), chosen as (
    select distinct on (target_type, target_id) target_type, target_id, claims
      from judged
     where dropped_as is null
     order by target_type, target_id, event_type, occurred_ns desc, token_id desc
  ), dropped as (
    select dropped_as as reason, count(*) as tokens
      from judged
     where dropped_as is not null
     group by dropped_as
     union all
    select 'too_many', count(*)
      from numbered
     where number > c_max_tokens
    having count(*) > 0
  )
  select jsonb_build_object(
           'store', coalesce((select jsonb_object_agg(target_id, claims) from chosen where target_type = 'store'), '{}'),
           'product', coalesce((select jsonb_object_agg(target_id, claims) from chosen where target_type = 'product'), '{}'),
           'token_ids', coalesce((select jsonb_agg(token_id order by token_id) from judged where dropped_as is null), '[]'),
           'dropped', coalesce((select jsonb_object_agg(reason, tokens) from dropped), '{}'))
    into v_result;

  -- A second token of one event is no fault of the cart: it is left out, and said, but not an error.
  v_bad := (v_result -> 'dropped') - 'duplicate';
  if ad_token_policy = 'error' and v_bad <> '{}' then
    raise exception 'the cart has ad tokens that cannot be used'
      using errcode = 'OC008',
            detail = jsonb_build_object('dropped', v_bad),
            hint = 'Write the quote again without them, or check out with ad_token_policy => ''drop''.';
  end if;
  return v_result;
end;
$$;

revoke execute on function checkout_attribution(text[], uuid, text, timestamptz) from public;

comment on function checkout_attribution(text[], uuid, text, timestamptz) is
  'Claims of the winning ad token of each store and each product, the token_ids that counted, and how many tokens were dropped '
  'for which reason. Raises OC008 under the policy error if any was dropped for another reason than duplicate.';
