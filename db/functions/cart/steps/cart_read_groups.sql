-- cart_read_groups: the vendor groups of a quote as rows, in its order.

create or replace function cart_read_groups(quote jsonb)
returns cart_vendor_groups[]
language plpgsql
as $$
declare
  v_groups cart_vendor_groups[];
begin
  with parts as materialized (
    select part.position,
           jsonb_populate_record(null::cart_vendor_groups, (part.body - 'items') || jsonb_build_object(
             'id', coalesce(part.body ->> 'id', checkout_uuid()::text),
             'cart_id', cart_read_groups.quote ->> 'id',
             'status', coalesce(part.body ->> 'status', 'ok'),
             'warnings', coalesce(nullif(part.body -> 'warnings', 'null'), '[]'))) as own
      from jsonb_array_elements(cart_read_groups.quote -> 'vendor_groups') with ordinality as part (body, position)
  )
  select array_agg(part.own order by part.position) into v_groups from parts as part;
  return coalesce(v_groups, '{}');
end;
$$;

revoke execute on function cart_read_groups(jsonb) from public;

comment on function cart_read_groups(jsonb) is 'Step of cart_put: the rows of cart_vendor_groups that a checked quote describes, with new ids where it has none.';
