-- checkout_address: a confirmed address from its JSON.
--
-- Fields go in by name: a host's address_t may have more of them, in another order. A member that is no field is
-- refused rather than lost, since a misspelt "line2" would send the parcel to the wrong door.

create or replace function checkout_address(address jsonb)
returns address_t
language plpgsql
stable
as $$
declare
  v_fields constant jsonb := to_jsonb(jsonb_populate_record(null::address_t, '{}'));   -- every field, and null
  v_field text;
  v_value jsonb;
begin
  if checkout_address.address is null or jsonb_typeof(checkout_address.address) <> 'object' then
    perform checkout_raise_invalid('shipping_address', 'must be a JSON object');
  end if;

  -- a loop, so that the first wrong field is named
  for v_field, v_value in select member.key, member.value from jsonb_each(checkout_address.address) as member loop
    if not v_fields ? v_field then
      perform checkout_raise_invalid('shipping_address.' || left(v_field, 60), 'is not a field of an address');
    elsif v_value = 'null' then
      continue;
    elsif v_field in ('lat', 'lng') then
      if jsonb_typeof(v_value) <> 'number' then
        perform checkout_raise_invalid('shipping_address.' || v_field, 'must be a number of degrees');
      end if;
      -- a number so small that it has no double precision would be an overflow later
      if abs(v_value::numeric) > (case v_field when 'lat' then 90 else 180 end) or scale(v_value::numeric) > 30 then
        perform checkout_raise_invalid('shipping_address.' || v_field, 'must be a number of degrees');
      end if;
    elsif jsonb_typeof(v_value) <> 'string' or length(v_value #>> '{}') > 500 then
      perform checkout_raise_invalid('shipping_address.' || v_field, 'must be a text of at most 500 characters');
    end if;
  end loop;

  foreach v_field in array '{line1,city,country}'::text[] loop
    if coalesce(checkout_address.address ->> v_field, '') !~ '[^[:space:]]' then
      perform checkout_raise_invalid('shipping_address.' || v_field, 'is required');
    end if;
  end loop;

  return jsonb_populate_record(null::address_t, checkout_address.address);
end;
$$;

revoke execute on function checkout_address(jsonb) from public;

comment on function checkout_address(jsonb) is
  'Step of checkout_execute: an address from JSON. Raises OC005 unless line1, city and country are there, each member is a '
  'field of address_t, texts have at most 500 characters, and lat and lng are numbers in range.';
