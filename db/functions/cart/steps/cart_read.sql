-- cart_read: the cart's own row as its quote says it, without groups and items.
--
-- A date may have the form of one and be none: the 30th of February, an hour 25, a year 0.

create or replace function cart_read(quote jsonb)
returns cart_records
language plpgsql
stable
as $$
declare
  v_cart cart_records;
begin
  begin
    v_cart.valid_until := (cart_read.quote ->> 'valid_until')::timestamptz;
  exception when data_exception then
    perform checkout_raise_invalid('cart.valid_until', 'is no date and time');
  end;
  if v_cart.valid_until < '0001-01-01T00:00:00Z' or v_cart.valid_until >= '10000-01-01T00:00:00Z' then
    perform checkout_raise_invalid('cart.valid_until', 'must be in the years 1 to 9999');   -- as RFC 3339 has them, in UTC
  end if;
  return jsonb_populate_record(v_cart, cart_read.quote - '{vendor_groups,valid_until}'::text[]);
end;
$$;

revoke execute on function cart_read(jsonb) from public;

comment on function cart_read(jsonb) is
  'Step of cart_put: the row of cart_records that a checked quote describes. Raises OC005 for a valid_until that is no date.';
