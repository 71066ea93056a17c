-- checkout_execute: turns a quoted cart into vendor orders, in one statement.
--
-- Locks, in this order: the cart row, the idempotency key, then stock by (product, slot). Everyone who takes more than
-- one of them takes them in this order, so that checkouts never deadlock. Stock is locked last of all where it can be, so
-- that a hot product's row is held for as short as possible: see checkout_convert.
--
-- Every statement here finds a few rows by key. The planner settings say so: a plan that was made while the tables
-- were still empty, or before their statistics came, would otherwise scan them for the rest of the connection. A bitmap
-- takes longer to set up than a cart's few rows take to read. Until PostgreSQL 18 a scan that cannot be avoided (the
-- signing keys) then looks so dear that it is compiled, for 90 ms.

create or replace function checkout_execute(
  buyer_store_id uuid,
  cart_id uuid,
  idempotency_key text,
  shipping_address jsonb,
  payment_method text,
  shipping_line jsonb default null,
  ad_token_policy text default 'drop',
  reservation_policy text default 'partial',
  billing_address jsonb default null,
  purchase_order text default null,
  metadata jsonb default null,
  expires_in interval default null
)
returns json
language plpgsql
security definer
set search_path from current
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_address address_t;
  v_shipping_line jsonb;
  v_details jsonb;
  v_request_hash bytea;
  v_cart cart_records;
  v_now timestamptz;
  v_quote record;
  v_attribution jsonb;
begin
  perform checkout_check_arguments(checkout_execute.buyer_store_id, checkout_execute.cart_id, checkout_execute.idempotency_key,
                                   checkout_execute.payment_method, checkout_execute.ad_token_policy, checkout_execute.reservation_policy);
  v_address := checkout_address('shipping_address', checkout_execute.shipping_address);
  v_shipping_line := checkout_shipping_line(checkout_execute.shipping_line);
  v_request_hash := checkout_request_hash(checkout_execute.cart_id, checkout_execute.shipping_address, checkout_execute.payment_method,
                                          v_shipping_line, checkout_execute.ad_token_policy, checkout_execute.reservation_policy);
  if checkout_execute.billing_address is not null or checkout_execute.purchase_order is not null or checkout_execute.metadata is not null
     or checkout_execute.expires_in is not null then
    v_details := checkout_details(checkout_execute.billing_address, checkout_execute.purchase_order, checkout_execute.metadata, checkout_execute.expires_in);
    if v_details is not null then   -- else they are JSON's null
      v_request_hash := sha256(v_request_hash || convert_to(checkout_canonical(v_details)::text, 'UTF8'));
    end if;
  end if;

  v_cart := checkout_lock_cart(checkout_execute.buyer_store_id, checkout_execute.cart_id);
  v_now := clock_timestamp();   -- not now(): the lock may have been waited for

  perform checkout_check_key(v_cart.buyer_store_id, v_cart.id, checkout_execute.idempotency_key, v_request_hash);
  if v_cart.status = 'converted' then
    if num_nonnulls(v_cart.shipping_address) = 0 or v_cart.shipping_address is distinct from jsonb_populate_record(null::address_t, '{}') then
      perform checkout_bind_key(v_cart.buyer_store_id, v_cart.id, checkout_execute.idempotency_key, v_request_hash, v_now);
    end if;   -- else checkout_erase took the address, and a hash of it would confirm a guess
    return (checkout_build_result(v_cart, true, null, true, null)).result;
  end if;

  perform checkout_validate_cart(v_cart, v_now);
  v_quote := checkout_validate_amounts(v_cart);
  if v_quote.vendor_store_ids is null then
    perform checkout_raise_nothing_to_order(v_cart.id);
  end if;
  if v_quote.more is not null then
    perform checkout_validate_quote(v_cart, cardinality(v_quote.vendor_store_ids), v_quote.more, v_shipping_line, checkout_execute.reservation_policy);
  end if;
  v_attribution := checkout_attribution(v_cart.ad_tokens, v_cart.buyer_store_id, checkout_execute.ad_token_policy, v_now);

  -- Every validation has passed: from here on it writes.
  perform checkout_bind_key(v_cart.buyer_store_id, v_cart.id, checkout_execute.idempotency_key, v_request_hash, v_now);
  v_cart := checkout_finalize_cart(v_cart, v_address, checkout_execute.payment_method, v_shipping_line, v_now);
  return checkout_convert(v_cart, v_quote.vendor_store_ids, v_quote.promo_cents, v_quote.line_count, v_quote.all_ordered, v_quote.more, v_details,
                          v_attribution, checkout_execute.reservation_policy);
end;
$$;

revoke execute on function checkout_execute(uuid, uuid, text, jsonb, text, jsonb, text, text, jsonb, text, jsonb, interval) from public;

comment on function checkout_execute(uuid, uuid, text, jsonb, text, jsonb, text, text, jsonb, text, jsonb, interval) is
  'Checks a cart out: vendor orders, lines, payment intents, stock, attribution and two outbox events, all or nothing in '
  'the caller''s transaction. Amounts are ISO 4217 minor units (cents). Calling again, with the same key or another, '
  'returns the same result with replayed = true. ad_token_policy: drop (leave bad tokens out) or error. '
  'reservation_policy: partial (reject short lines), vendor (reject the whole vendor) or all (refuse the cart). '
  'billing_address: null is the shipping address; purchase_order: 1 to 100 visible characters; metadata: an object, at most 16 kB and 8 levels; '
  'expires_in: how long orders wait to be paid for (at most 366 days), null for ever; these four stand on the orders and in the result. '
  'Raises OC001 cart_not_found, OC002 cart_not_active, OC003 cart_expired, OC004 no_orderable_items, OC005 invalid_request, '
  'OC006 idempotency_key_reused, OC007 cart_inconsistent, OC008 ad_token_invalid, OC010 insufficient_inventory; DETAIL is JSON. '
  '55P03, 40001 and 40P01 are safe to retry with the same key. Call in a transaction of its own where you can: its locks '
  'last until the commit.';
