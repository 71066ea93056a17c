-- checkout_address: a confirmed address from its JSON.
--
-- Fields go in by name: a host's address_t may have more of them, in another order. A member that is no field is
-- refused rather than lost, since a misspelt "line2" would send the parcel to the wrong door.

create or replace function checkout_address(name text, address jsonb)
returns address_t
language plpgsql
stable
as $$
declare
  v_fields constant jsonb := to_jsonb(jsonb_populate_record(null::address_t, '{}'));   -- every field, and null
  v_field text;
  v_problem text;
begin
  if checkout_address.address is null or jsonb_typeof(checkout_address.address) <> 'object' then
    perform checkout_raise_invalid(checkout_address.name, 'must be a JSON object');
  end if;

  select problem.field, problem.what into v_field, v_problem
    from (
      select left(member.key, 60) as field,
             case when not v_fields ? member.key then 'is not a field of an address'
                  when member.value = 'null' then null
                  when member.key in ('lat', 'lng') then
                    case when jsonb_typeof(member.value) <> 'number' then 'must be a number of degrees'
                         -- a number so small that it has no double precision would be an overflow later
                         when abs(member.value::numeric) > (case member.key when 'lat' then 90 else 180 end) or scale(member.value::numeric) > 30
                         then 'must be a number of degrees' end
                  when jsonb_typeof(member.value) <> 'string' or length(member.value #>> '{}') > 500
                  then 'must be a text of at most 500 characters'
             end as what
        from jsonb_each(checkout_address.address) as member
       union all
      select required.field, 'is required'
        from unnest('{line1,city,country}'::text[]) as required (field)
       where checkout_is_blank(coalesce(checkout_address.address ->> required.field, ''))
    ) as problem
   where problem.what is not null
   limit 1;
  if found then
    perform checkout_raise_invalid(checkout_address.name || '.' || v_field, v_problem);
  end if;

  return jsonb_populate_record(null::address_t, checkout_address.address);
end;
$$;

revoke execute on function checkout_address(text, jsonb) from public;

comment on function checkout_address(text, jsonb) is
  'Step of checkout_execute: the address of that name from JSON. Raises OC005 unless line1, city and country are there, each member is a '
  'field of address_t, texts have at most 500 characters, and lat and lng are numbers in range.';
