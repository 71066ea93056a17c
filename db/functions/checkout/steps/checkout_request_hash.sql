-- checkout_request_hash: what an idempotency key is bound to.
--
-- Arguments at their default stay out, and so do absent fields: a later release may add an argument, and a retry that
-- crosses the upgrade must still find its key. The address is hashed as it came, not as the composite that a later
-- release may widen; its numbers by their value, since 40 and 40.0 are one place.

create or replace function checkout_request_hash(
  cart_id uuid,
  shipping_address jsonb,
  payment_method text,
  shipping_line jsonb,
  ad_token_policy text,
  reservation_policy text
)
returns bytea
language sql
stable
as $$
  select sha256(convert_to(jsonb_strip_nulls(jsonb_build_object(
    'cart_id', checkout_request_hash.cart_id,
    'shipping_address', case
      when checkout_request_hash.shipping_address ?| '{lat,lng}'
      then checkout_request_hash.shipping_address || jsonb_build_object(
             'lat', trim_scale((checkout_request_hash.shipping_address ->> 'lat')::numeric),
             'lng', trim_scale((checkout_request_hash.shipping_address ->> 'lng')::numeric))
      else checkout_request_hash.shipping_address
    end,
    'payment_method', checkout_request_hash.payment_method,
    'shipping_line', checkout_request_hash.shipping_line,
    'ad_token_policy', nullif(checkout_request_hash.ad_token_policy, 'drop'),
    'reservation_policy', nullif(checkout_request_hash.reservation_policy, 'partial')
  ))::text, 'UTF8'));
$$;

revoke execute on function checkout_request_hash(uuid, jsonb, text, jsonb, text, text) from public;

comment on function checkout_request_hash(uuid, jsonb, text, jsonb, text, text) is
  'Step of checkout_execute: SHA-256 of the normalised request, over every argument that can change the outcome.';
