-- cart_check_fields: refuses a member that is no field. A misspelt line_total_cents would turn a gross line into a net one.

create or replace function cart_check_fields(path text, body jsonb, fields text[])
returns boolean
language plpgsql
stable
as $$
declare
  v_unknown text;
begin
  if cart_check_fields.body is null or jsonb_typeof(cart_check_fields.body) <> 'object' then
    perform checkout_raise_invalid(cart_check_fields.path, 'must be a JSON object');
  end if;
  select min(member.key) into v_unknown
    from jsonb_object_keys(cart_check_fields.body) as member (key)
   where member.key <> all (cart_check_fields.fields);
  if v_unknown is not null then
    perform checkout_raise_invalid(cart_check_fields.path || '.' || left(v_unknown, 60), 'is not a field of a quote');
  end if;
  return true;
end;
$$;

revoke execute on function cart_check_fields(text, jsonb, text[]) from public;

comment on function cart_check_fields(text, jsonb, text[]) is 'Step of cart_put: true, or raises OC005 for a body that is no object or has an unknown member.';
