-- checkout_check_arguments: refuses a request that no cart could make right.
--
-- Keys are RFC 5234 VCHAR, as an HTTP header can carry them. The payment methods are whatever the enum holds.

create or replace function checkout_check_arguments(
  buyer_store_id uuid,
  cart_id uuid,
  idempotency_key text,
  payment_method text,
  ad_token_policy text,
  reservation_policy text
)
returns void
language plpgsql
stable
as $$
declare
  v_field text;
  v_problem text;
begin
  if checkout_check_arguments.buyer_store_id is null then
    v_field := 'buyer_store_id';
    v_problem := 'is required';
  elsif checkout_check_arguments.cart_id is null then
    v_field := 'cart_id';
    v_problem := 'is required';
  elsif (length(checkout_check_arguments.idempotency_key) <= 255
         and checkout_check_arguments.idempotency_key ~ '^[!-~]+$' collate "C") is not true then
    v_field := 'idempotency_key';
    v_problem := 'must be 1 to 255 visible ASCII characters';
  elsif not exists (select from pg_enum as method
                     where method.enumtypid = 'payment_method'::regtype and method.enumlabel = checkout_check_arguments.payment_method) then
    v_field := 'payment_method';
    v_problem := 'must be one of ' || array_to_string(enum_range(null::payment_method), ', ');
  elsif checkout_check_arguments.ad_token_policy is null or checkout_check_arguments.ad_token_policy not in ('drop', 'error') then
    v_field := 'ad_token_policy';
    v_problem := 'must be drop or error';
  elsif checkout_check_arguments.reservation_policy is null
        or checkout_check_arguments.reservation_policy not in ('partial', 'vendor', 'all') then
    v_field := 'reservation_policy';
    v_problem := 'must be partial, vendor or all';
  else
    return;
  end if;

  perform checkout_raise_invalid(v_field, v_problem);
end;
$$;

revoke execute on function checkout_check_arguments(uuid, uuid, text, text, text, text) from public;

comment on function checkout_check_arguments(uuid, uuid, text, text, text, text) is
  'Step of checkout_execute: raises OC005 for a missing id, a malformed key, an unknown payment method or policy.';
