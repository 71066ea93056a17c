-- order_place: where in a list of orders one stands, as a text for the next call. Under these settings the time is told
-- exactly, whatever the session's own are and also where it is infinite.

create or replace function order_place(created_at timestamptz, id uuid)
returns text
language plpgsql
stable
set datestyle = 'ISO, MDY'
set timezone = 'UTC'
as $$
begin
  return translate(encode(convert_to(order_place.created_at::text || ' ' || order_place.id::text, 'UTF8'), 'base64'), E'+/=\n', '-_');
end;
$$;

revoke execute on function order_place(timestamptz, uuid) from public;

comment on function order_place(timestamptz, uuid) is
  'Step of orders_list: where a page ends, as base64url text that order_read_place reads.';
