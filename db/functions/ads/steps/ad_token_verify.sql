-- ad_token_verify: what an ad token says, if it can be believed.
--
-- A token is a compact JWS (RFC 7515) that the ad service signed with HS256. It comes to the cart through browsers, so
-- its text may be anything at all. Its header is read first, because it names the key; its claims are not parsed before
-- the signature is known to be good.
--
-- `reason` always holds what a failure of the next step would mean. A step that fails returns, or raises within its
-- error class and is caught: either way the reason stands.

create or replace function ad_token_verify(
  token text,
  buyer_store_id uuid,
  now timestamptz,
  out reason text,
  out claims jsonb,
  out token_id uuid,
  out target_type ad_target_type,
  out target_id uuid,
  out event_type ad_event_type,
  out occurred_ns numeric
)
language plpgsql
stable
as $$
declare
  c_max_bytes constant integer := 8192;
  c_leeway_ns constant numeric := 60 * 1e9;
  v_now_ns constant numeric := extract(epoch from ad_token_verify.now) * 1e9;
  v_part text[];
  v_header jsonb;
  v_payload bytea;
  v_signature bytea;
  v_signed bytea;
  v_genuine boolean;
  v_claims jsonb;
  v_claim record;
  v_occurred_ns numeric;
  v_expires_ns numeric;
begin
  reason := 'too_long';
  if octet_length(token) > c_max_bytes then
    return;
  end if;

  reason := 'malformed';
  v_part := string_to_array(token, '.');
  if cardinality(v_part) is distinct from 3 then
    return;
  end if;
  v_header := ad_json_object(ad_base64url_decode(v_part[1]));
  v_payload := ad_base64url_decode(v_part[2]);
  v_signature := ad_base64url_decode(v_part[3]);
  -- `crit` lists extensions that a reader must understand or refuse. This one understands none.
  if v_header ? 'crit' or jsonb_typeof(v_header -> 'kid') <> 'string' then
    return;
  end if;

  reason := 'algorithm';
  if v_header -> 'alg' is distinct from '"HS256"' then
    return;
  end if;

  -- Hashes are compared, not signatures: how many first bytes of two hashes agree, and so how long it takes to tell
  -- them apart, says nothing about the signature that would have been right.
  reason := 'unknown_key';
  v_signed := convert_to(v_part[1] || '.' || v_part[2], 'UTF8');
  select bool_or(sha256(sha256(key.outer_pad || sha256(key.inner_pad || v_signed))) = sha256(v_signature))
    into v_genuine
    from ad_signing_keys as key
   where key.active
     and (key.kid = v_header ->> 'kid' or (not v_header ? 'kid' and key.accepts_unnamed));
  if v_genuine is null then
    return;
  end if;

  reason := 'bad_signature';
  if not v_genuine then
    return;
  end if;

  reason := 'malformed';
  v_claims := ad_json_object(v_payload);

  -- Each claim is read as its type, and what was read is written back. Both must be the same JSON, so an id is a
  -- canonical uuid, an enum value one of its type, and a number is not taken for text.
  reason := 'invalid_claims';
  select *
    into v_claim
    from jsonb_to_record(v_claims) as claim (
           token_id uuid, ad_id uuid, creative_id uuid, target_id uuid, buyer_store_id uuid,
           placement ad_placement, target_type ad_target_type, event_type ad_event_type, occurred_at text);
  if not (v_claim is not null and v_claims @> to_jsonb(v_claim)) then
    return;
  end if;
  if jsonb_typeof(v_claims -> 'exp') <> 'number'
     or jsonb_typeof(v_claims -> 'iat') <> 'number'
     or jsonb_typeof(v_claims -> 'nbf') <> 'number' then
    return;
  end if;
  v_occurred_ns := ad_epoch_ns(v_claim.occurred_at);
  v_expires_ns := case when v_claims ? 'exp' then (v_claims -> 'exp')::numeric * 1e9
                       else ad_epoch_ns(v_claims ->> 'expires_at') end;
  -- is not true: a comparison with a null never lets a token through
  if (v_expires_ns > v_occurred_ns) is not true then
    return;
  end if;

  reason := 'wrong_buyer';
  if v_claim.buyer_store_id is distinct from ad_token_verify.buyer_store_id then
    return;
  end if;

  reason := 'expired';
  if (v_expires_ns > v_now_ns) is not true then
    return;
  end if;

  reason := 'from_future';
  if (greatest(v_occurred_ns, (v_claims -> 'iat')::numeric * 1e9, (v_claims -> 'nbf')::numeric * 1e9)
      <= v_now_ns + c_leeway_ns) is not true then
    return;
  end if;

  reason := null;
  claims := v_claims;
  token_id := v_claim.token_id;
  target_type := v_claim.target_type;
  target_id := v_claim.target_id;
  event_type := v_claim.event_type;
  occurred_ns := v_occurred_ns;
exception
  -- What text can do to the parsers: be wrong, be nested too deeply, or hold what the database's encoding has no
  -- conversion for. Anything else is not the token's doing and stays an error.
  when data_exception or program_limit_exceeded or feature_not_supported then
    return;
end;
$$;

revoke execute on function ad_token_verify(text, uuid, timestamptz) from public;

comment on function ad_token_verify(text, uuid, timestamptz) is
  'Verifies an ad token for a buyer at a time. reason is null for a good one and its claims are returned; otherwise it is '
  'too_long, malformed, algorithm, unknown_key, bad_signature, invalid_claims, wrong_buyer, expired or from_future, and all else '
  'is null. exp (seconds since 1970) stands over expires_at and has no leeway; occurred_at, iat and nbf may be 60 s ahead. '
  'No text of a token makes it raise.';
