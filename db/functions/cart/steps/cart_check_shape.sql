-- cart_check_shape: refuses a quote that is not made of objects and arrays as a quote is, or of too many.
--
-- Warnings and their like travel on into orders and events, and many a JSON reader ends at a depth that jsonb still takes.

create or replace function cart_check_shape(quote jsonb)
returns void
language plpgsql
stable
as $$
declare
  v_groups constant jsonb := cart_check_shape.quote -> 'vendor_groups';
  v_most constant integer := 5000;
  v_field text;
  v_problem text;
  v_count bigint;
begin
  if cart_check_shape.quote is null or jsonb_typeof(cart_check_shape.quote) <> 'object' then
    perform checkout_raise_invalid('cart', 'must be a JSON object');
  elsif jsonb_path_exists(cart_check_shape.quote, 'strict $.**{33}') then
    perform checkout_raise_invalid('cart', 'must not be nested deeper than 32 levels');
  elsif jsonb_typeof(v_groups) is distinct from 'array' then
    perform checkout_raise_invalid('cart.vendor_groups', 'must be an array');
  end if;

  select format('cart.vendor_groups[%s]', part.position - 1) || case when jsonb_typeof(part.body) = 'object' then '.items' else '' end,
         case when jsonb_typeof(part.body) = 'object' then 'must be an array' else 'must be a JSON object' end
    into v_field, v_problem
    from jsonb_array_elements(v_groups) with ordinality as part (body, position)
   where jsonb_typeof(part.body) <> 'object' or jsonb_typeof(part.body -> 'items') not in ('array', 'null')
   order by part.position
   limit 1;
  if found then
    perform checkout_raise_invalid(v_field, v_problem);
  end if;

  select greatest(count(*), sum(case jsonb_typeof(part.body -> 'items') when 'array' then jsonb_array_length(part.body -> 'items') end))
    into v_count
    from jsonb_array_elements(v_groups) as part (body);
  if v_count > v_most then
    perform checkout_raise_invalid('cart.vendor_groups', format('must hold at most %s items, not %s', v_most, v_count));
  end if;

  select format('cart.vendor_groups[%s].items[%s]', part.position - 1, item.position - 1) into v_field
    from jsonb_array_elements(v_groups) with ordinality as part (body, position)
   cross join jsonb_array_elements(case jsonb_typeof(part.body -> 'items') when 'array' then part.body -> 'items' else '[]' end)
              with ordinality as item (body, position)
   where jsonb_typeof(item.body) <> 'object'
   order by part.position, item.position
   limit 1;
  if found then
    perform checkout_raise_invalid(v_field, 'must be a JSON object');
  end if;
end;
$$;

revoke execute on function cart_check_shape(jsonb) from public;

comment on function cart_check_shape(jsonb) is
  'Step of cart_put: raises OC005 for a quote that is no object with arrays of objects, is nested too deeply, or has more than 5000 items.';
