-- order_check_details: details travel in an event and stay in the history, so they are small.

create or replace function order_check_details(details jsonb)
returns void
language plpgsql
stable
as $$
begin
  if jsonb_typeof(order_check_details.details) <> 'object' then
    perform checkout_raise_invalid('details', 'must be a JSON object');
  elsif jsonb_path_exists(order_check_details.details, 'strict $.**{9}') then
    perform checkout_raise_invalid('details', 'must not be nested deeper than 8 levels');
  elsif octet_length(order_check_details.details::text) > 16384 then
    perform checkout_raise_invalid('details', 'must not be longer than 16 kB');
  end if;
end;
$$;

revoke execute on function order_check_details(jsonb) from public;

comment on function order_check_details(jsonb) is
  'Step of the order functions: raises OC005 unless details are null or a JSON object of at most 16 kB and 8 levels.';
