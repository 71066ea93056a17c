-- checkout_address: a confirmed address from its JSON.
--
-- Fields go in by name: a host's address_t may have more of them, in another order. A member that is no field is
-- refused rather than lost, since a misspelt "line2" would send the parcel to the wrong door.
--
-- Most addresses are right, and come back from the composite as they went in: then nothing is lost, and every member is of its field's
-- type. The others are looked through member by member.

create or replace function checkout_address(name text, address jsonb)
returns address_t
language plpgsql
stable
as $$
declare
  v_given alias for address;
  v_address address_t;
  v_fields jsonb;
  v_field text;
  v_problem text;
begin
  if v_given is null or jsonb_typeof(v_given) <> 'object' then
    perform checkout_raise_invalid(checkout_address.name, 'must be a JSON object');
  end if;

  -- In so few characters no text is too long, and no number without a double precision, which to populate would raise.
  if length(v_given::text) <= 300
     and coalesce(v_given -> 'lat', '0') between '-90' and '90' and coalesce(v_given -> 'lng', '0') between '-180' and '180' then
    v_address := jsonb_populate_record(null::address_t, v_given);
    if to_jsonb(v_address) @> v_given
       and not (checkout_is_blank(v_address.line1) or checkout_is_blank(v_address.city) or checkout_is_blank(v_address.country)) then
      return v_address;
    end if;
  end if;

  v_fields := to_jsonb(jsonb_populate_record(null::address_t, '{}'));   -- every field, and null
  select problem.field, problem.what into v_field, v_problem
    from (
      select left(member.key, 60) as field,
             case when not v_fields ? member.key then 'is not a field of an address'
                  when member.value = 'null' then null
                  when member.key in ('lat', 'lng') then
                    case when jsonb_typeof(member.value) <> 'number' then 'must be a number of degrees'
                         -- a number so small that it has no double precision would be an overflow later
                         when abs(member.value::numeric) > (case member.key when 'lat' then 90 else 180 end) or scale(member.value::numeric) > 300
                         then 'must be a number of degrees' end
                  when jsonb_typeof(member.value) <> 'string' or length(member.value #>> '{}') > 500
                  then 'must be a text of at most 500 characters'
             end as what
        from jsonb_each(v_given) as member
       union all
      select required.field, 'is required'
        from unnest('{line1,city,country}'::text[]) as required (field)
       where checkout_is_blank(coalesce(v_given ->> required.field, ''))
    ) as problem
   where problem.what is not null
   limit 1;
  if found then
    perform checkout_raise_invalid(checkout_address.name || '.' || v_field, v_problem);
  end if;

  return jsonb_populate_record(null::address_t, v_given);
end;
$$;

revoke execute on function checkout_address(text, jsonb) from public;

comment on function checkout_address(text, jsonb) is
  'Step of checkout_execute: the address of that name from JSON. Raises OC005 unless line1, city and country are there, each member is a '
  'field of address_t, texts have at most 500 characters, and lat and lng are numbers in range.';
