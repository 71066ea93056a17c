-- checkout_shipping_line: the recorded shipping selection, checked and in one form.

create or replace function checkout_shipping_line(shipping_line jsonb)
returns jsonb
language plpgsql
stable
as $$
declare
  v_line constant jsonb := checkout_shipping_line.shipping_line;
  v_unknown text;
  v_price numeric;
begin
  if v_line is null or v_line = 'null' then
    return null;
  end if;
  if jsonb_typeof(v_line) <> 'object' then
    perform checkout_raise_invalid('shipping_line', 'must be a JSON object');
  end if;

  select min(member.key) into v_unknown
    from jsonb_object_keys(v_line) as member (key)
   where member.key not in ('code', 'title', 'price_cents');
  if v_unknown is not null then
    perform checkout_raise_invalid('shipping_line.' || left(v_unknown, 60), 'is not a field of a shipping line');
  end if;
  if jsonb_typeof(v_line -> 'code') is distinct from 'string' or length(v_line ->> 'code') not between 1 and 200 then
    perform checkout_raise_invalid('shipping_line.code', 'must be a text of 1 to 200 characters');
  end if;
  if coalesce(jsonb_typeof(v_line -> 'title'), 'null') not in ('string', 'null') or length(v_line ->> 'title') > 500 then
    perform checkout_raise_invalid('shipping_line.title', 'must be a text of at most 500 characters');
  end if;
  if coalesce(jsonb_typeof(v_line -> 'price_cents'), 'null') not in ('number', 'null') then
    perform checkout_raise_invalid('shipping_line.price_cents', 'must be a whole number of cents, 0 or more');
  end if;
  v_price := nullif(v_line -> 'price_cents', 'null')::numeric;
  if v_price not between 0 and 9223372036854775807 or v_price % 1 <> 0 then
    perform checkout_raise_invalid('shipping_line.price_cents', 'must be a whole number of cents, 0 or more');
  end if;

  return jsonb_build_object('code', v_line -> 'code', 'title', v_line -> 'title', 'price_cents', v_price::bigint);
end;
$$;

revoke execute on function checkout_shipping_line(jsonb) from public;

comment on function checkout_shipping_line(jsonb) is
  'Step of checkout_execute: the shipping selection {code, title, price_cents}; null stays null. Raises OC005 for anything else.';
