-- inventory_read_levels: the products of a list of levels and their units, by product, or what is wrong with the first bad one.

create or replace function inventory_read_levels(levels jsonb, out product_ids uuid[], out available integer[])
language plpgsql
stable
as $$
declare
  v_most constant integer := 10000;
  v_field text;
  v_problem text;
begin
  if inventory_read_levels.levels is null or jsonb_typeof(inventory_read_levels.levels) <> 'array' then
    perform checkout_raise_invalid('levels', 'must be an array');
  elsif jsonb_array_length(inventory_read_levels.levels) > v_most then
    perform checkout_raise_invalid('levels', format('must hold at most %s products, not %s', v_most, jsonb_array_length(inventory_read_levels.levels)));
  end if;

  with parts as materialized (
    select part.position, part.body, format('levels[%s]', part.position - 1) as path
      from jsonb_array_elements(inventory_read_levels.levels) with ordinality as part (body, position)
  ), members as materialized (
    select part.position, part.path, member.key, member.value
      from parts as part
     cross join jsonb_each(case jsonb_typeof(part.body) when 'object' then part.body else '{}' end) as member
  ), problems (position, field, problem) as (
    select part.position, part.path, 'must be a JSON object' from parts as part where jsonb_typeof(part.body) <> 'object'
     union all
    select member.position, member.path || '.' || left(member.key, 60),
           case member.key when 'product_id' then cart_value_problem(member.value, 'uuid', null, null)
                           when 'available' then coalesce(cart_value_problem(member.value, 'whole', 2147483647, null),
                                                          case when left(member.value::text, 1) = '-' then 'must be 0 or more' end)
                           else 'is not a field of a level' end
      from members as member
     union all
    select part.position, part.path || '.' || required.field, 'is required'
      from parts as part
     cross join unnest('{product_id,available}'::text[]) as required (field)
     where jsonb_typeof(part.body) = 'object' and coalesce(jsonb_typeof(part.body -> required.field), 'null') = 'null'
  )
  select told.field, told.problem into v_field, v_problem
    from problems as told
   where told.problem is not null
   order by told.position, told.field collate "C"
   limit 1;
  if found then
    perform checkout_raise_invalid(v_field, v_problem);
  end if;

  with wanted as materialized (
    select part.position, (part.body ->> 'product_id')::uuid as product_id, (part.body ->> 'available')::numeric::integer as available
      from jsonb_array_elements(inventory_read_levels.levels) with ordinality as part (body, position)
  ), counted as (
    select each.*, row_number() over (partition by each.product_id order by each.position) as nth from wanted as each
  )
  select coalesce(array_agg(each.product_id order by each.product_id), '{}'),
         coalesce(array_agg(each.available order by each.product_id), '{}'),
         format('levels[%s].product_id', min(each.position) filter (where each.nth > 1) - 1)
    into product_ids, available, v_field
    from counted as each;
  if v_field <> 'levels[].product_id' then
    perform checkout_raise_invalid(v_field, 'is there twice');
  end if;
end;
$$;

revoke execute on function inventory_read_levels(jsonb) from public;

comment on function inventory_read_levels(jsonb) is
  'Step of inventory_set_many: the products and their units, by product. Raises OC005 with the path of the first entry that is none, or is there twice.';
