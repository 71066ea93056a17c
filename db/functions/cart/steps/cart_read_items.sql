-- cart_read_items: the items of a quote as rows, in its order.

create or replace function cart_read_items(quote jsonb)
returns cart_items[]
language plpgsql
as $$
declare
  -- an existing database may have an enum here: what its column defaults to is its first value
  v_unit constant text := coalesce((
    select value.enumlabel
      from pg_attribute as attribute
      join pg_enum as value on value.enumtypid = attribute.atttypid
     where attribute.attrelid = 'cart_items'::regclass and attribute.attname = 'unit'
     order by value.enumsortorder
     limit 1), '');
  v_items cart_items[];
begin
  -- materialized: to sort the items with their group each would make a large group quadratic
  with lines as materialized (
    select part.position as group_no, item.position as item_no,
           jsonb_populate_record(null::cart_items, item.body || jsonb_build_object(
             'id', coalesce(item.body ->> 'id', checkout_uuid()::text),
             'cart_id', cart_read_items.quote ->> 'id',
             'vendor_store_id', part.body ->> 'vendor_store_id',
             'title', coalesce(item.body ->> 'title', ''),
             'category', coalesce(item.body ->> 'category', ''),
             'unit', coalesce(item.body ->> 'unit', v_unit),
             'moq', coalesce(nullif(item.body -> 'moq', 'null'), '1'),
             'status', coalesce(item.body ->> 'status', 'ok'),
             'warnings', coalesce(nullif(item.body -> 'warnings', 'null'), '[]'))) as own
      from jsonb_array_elements(cart_read_items.quote -> 'vendor_groups') with ordinality as part (body, position)
     cross join jsonb_array_elements(case jsonb_typeof(part.body -> 'items') when 'array' then part.body -> 'items' else '[]' end)
                with ordinality as item (body, position)
  )
  select array_agg(line.own order by line.group_no, line.item_no) into v_items from lines as line;
  return coalesce(v_items, '{}');
end;
$$;

revoke execute on function cart_read_items(jsonb) from public;

comment on function cart_read_items(jsonb) is 'Step of cart_put: the rows of cart_items that a checked quote describes, with new ids where it has none.';
