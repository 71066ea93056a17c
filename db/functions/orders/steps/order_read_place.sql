-- order_read_place: where a page of orders begins, from the text of the page before; before all orders for null.
--
-- Only the one text is taken that order_place writes: "now" would be a time as well.

create or replace function order_read_place(place text, out created_at timestamptz, out id uuid)
language plpgsql
stable
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
declare
  v_text text;
begin
  created_at := 'infinity';
  id := 'ffffffff-ffff-ffff-ffff-ffffffffffff';
  if order_read_place.place is null then
    return;
  end if;

  begin
    if length(order_read_place.place) <= 200 then
      v_text := convert_from(ad_base64url_decode(order_read_place.place), 'UTF8');
      created_at := left(v_text, -37)::timestamptz;
      id := right(v_text, 36)::uuid;
    end if;
  exception when data_exception then
    null;   -- what cannot be read is not what order_place wrote
  end;
  if order_read_place.place is distinct from order_place(created_at, id) then
    perform checkout_raise_invalid('after', 'must be what the call before this one answered');
  end if;
end;
$$;

revoke execute on function order_read_place(text) from public;

comment on function order_read_place(text) is
  'Step of orders_list: what order_place wrote. Raises OC005 for any other text.';
