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
  v_method payment_method;
  v_field text :=
    case when checkout_check_arguments.buyer_store_id is null then 'buyer_store_id'
         when checkout_check_arguments.cart_id is null then 'cart_id'
         when (length(checkout_check_arguments.idempotency_key) <= 255
               and checkout_check_arguments.idempotency_key ~ '^[!-~]+$' collate "C") is not true then 'idempotency_key'
         when (checkout_check_arguments.ad_token_policy in ('drop', 'error')) is not true then 'ad_token_policy'
         when (checkout_check_arguments.reservation_policy in ('partial', 'vendor', 'all')) is not true then 'reservation_policy'
    end;
begin
  begin   -- a cast, since to list the enum's labels takes four times as long
    v_method := checkout_check_arguments.payment_method::payment_method;
  exception when invalid_text_representation then
    null;
  end;
  v_field := coalesce(v_field, case when v_method is null then 'payment_method' end);
  if v_field is not null then
    perform checkout_raise_invalid(v_field, case v_field
      when 'idempotency_key' then 'must be 1 to 255 visible ASCII characters'
      when 'payment_method' then 'must be one of ' || array_to_string(enum_range(null::payment_method), ', ')
      when 'ad_token_policy' then 'must be drop or error'
      when 'reservation_policy' then 'must be partial, vendor or all'
      else 'is required'
    end);
  end if;
end;
$$;

revoke execute on function checkout_check_arguments(uuid, uuid, text, text, text, text) from public;

comment on function checkout_check_arguments(uuid, uuid, text, text, text, text) is
  'Step of checkout_execute: raises OC005 for a missing id, a malformed key, an unknown payment method or policy.';
