-- checkout_json_join: the members of one JSON object, then those of another, as text: the order of both is kept.

create or replace function checkout_json_join(first json, second json)
returns json
language plpgsql
immutable
as $$
begin
  return (left(checkout_json_join.first::text, -1) || ',' || substr(checkout_json_join.second::text, 2))::json;
end;
$$;

revoke execute on function checkout_json_join(json, json) from public;

comment on function checkout_json_join(json, json) is
  'The members of two JSON objects, neither of them empty, in one. Null if the second is.';
