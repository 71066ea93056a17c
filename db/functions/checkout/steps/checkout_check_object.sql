-- checkout_check_object: what a host notes on an order or a change of it travels in events and stays in the history, so it is small.

create or replace function checkout_check_object(field text, given jsonb)
returns void
language plpgsql
stable
as $$
begin
  if jsonb_typeof(checkout_check_object.given) <> 'object' then
    perform checkout_raise_invalid(checkout_check_object.field, 'must be a JSON object');
  elsif jsonb_path_exists(checkout_check_object.given, 'strict $.**{9}') then
    perform checkout_raise_invalid(checkout_check_object.field, 'must not be nested deeper than 8 levels');
  elsif octet_length(checkout_check_object.given::text) > 16384 then
    perform checkout_raise_invalid(checkout_check_object.field, 'must not be longer than 16 kB');
  end if;
end;
$$;

revoke execute on function checkout_check_object(text, jsonb) from public;

comment on function checkout_check_object(text, jsonb) is
  'Step of checkout_execute, order_line_fulfil and payment_record: raises OC005, naming the field, unless given is null or a JSON object of at most 16 kB and 8 levels.';
