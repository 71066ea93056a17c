-- checkout_canonical: JSON in the one form that equal values share: jsonb orders the members itself, but keeps 40.0 apart from 40.

create or replace function checkout_canonical(value jsonb)
returns jsonb
language plpgsql
stable
as $$
begin
  return case jsonb_typeof(checkout_canonical.value)
    when 'number' then to_jsonb(trim_scale((checkout_canonical.value #>> '{}')::numeric))
    when 'array' then (
      select coalesce(jsonb_agg(checkout_canonical(item.value) order by item.position), '[]')
        from jsonb_array_elements(checkout_canonical.value) with ordinality as item (value, position))
    when 'object' then (
      select coalesce(jsonb_object_agg(member.key, checkout_canonical(member.value)), '{}')
        from jsonb_each(checkout_canonical.value) as member)
    else checkout_canonical.value
  end;
end;
$$;

revoke execute on function checkout_canonical(jsonb) from public;

comment on function checkout_canonical(jsonb) is 'Step of whatever hashes a request: JSON with its numbers in their shortest form, at every level.';
