-- ad_json_object: a JOSE header or claims set, read as strictly as RFC 7515 (section 4) and RFC 7519 (section 4) allow.

create or replace function ad_json_object(utf8 bytea)
returns jsonb
language plpgsql
stable
strict
as $$
declare
  v_text constant text := convert_from(utf8, 'UTF8');
  v_object constant jsonb := v_text::jsonb;
begin
  -- Of two members with one name jsonb keeps the last and json both. Readers that differ on which one counts are an
  -- old way to smuggle a claim past a check. (json_object_keys raises unless it gets an object.)
  if (select count(*) from json_object_keys(v_text::json)) <> (select count(*) from jsonb_object_keys(v_object)) then
    raise exception 'two members have one name' using errcode = 'invalid_parameter_value';
  end if;
  -- Claims travel on into orders and events, and many a JSON reader ends at a depth that jsonb still takes.
  if jsonb_path_exists(v_object, 'strict $.**{33}') then
    raise exception 'nested too deeply' using errcode = 'program_limit_exceeded';
  end if;
  return v_object;
end;
$$;

revoke execute on function ad_json_object(bytea) from public;

comment on function ad_json_object(bytea) is
  'Parses a JSON object in UTF-8. Raises a data exception (class 22) if it is anything else, if two members have one name, '
  'or if jsonb cannot hold it (a NUL, a lone surrogate); program_limit_exceeded (class 54) beyond 32 levels.';
