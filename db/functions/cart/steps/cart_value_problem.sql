-- cart_value_problem: what is wrong with one value of a quote, or of a list of levels.
--
-- PostgreSQL takes its own text forms of numbers, arrays, records and dates as well, and reads a date by the session's
-- DateStyle and TimeZone; a quote has the types of JSON, and its date is RFC 3339's. An id may be written as uuid_in reads it.
--
-- Stable, not immutable, since array_to_string is no more than that: the planner folds it into its caller's statement.

create or replace function cart_value_problem(value jsonb, kind text, most bigint, labels text[])
returns text
language sql
stable
as $$
  select case when jsonb_typeof(value) = 'null' then null
              else case kind
    when 'whole' then
      case when jsonb_typeof(value) <> 'number' or scale(value::numeric) > 0 then 'must be a whole number'
           when value::numeric > most or value::numeric < - most::numeric - 1 then 'is out of range' end
    when 'number' then
      case when jsonb_typeof(value) <> 'number' then 'must be a number'
           when abs(value::numeric) >= 1000 or scale(value::numeric) > 30 then 'is out of range' end
    when 'text' then
      case when jsonb_typeof(value) <> 'string' then 'must be a text'
           when length(value #>> '{}') > most then 'must be a text of at most ' || most || ' characters' end
    when 'uuid' then
      case when jsonb_typeof(value) <> 'string'
                or value #>> '{}' !~ '^([0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}|[{][0-9A-Fa-f]{4}(-?[0-9A-Fa-f]{4}){7}[}])$' collate "C"
           then 'must be a UUID' end
    when 'enum' then
      case when jsonb_typeof(value) <> 'string' or (value #>> '{}') <> all (labels)
           then 'must be one of ' || array_to_string(labels, ', ') end
    when 'currency' then
      case when jsonb_typeof(value) <> 'string' or value #>> '{}' !~ '^[A-Z]{3}$' collate "C" then 'must be three capital letters (ISO 4217)' end
    when 'instant' then
      case when jsonb_typeof(value) <> 'string'
                or value #>> '{}' !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,30})?([Zz]|[+-][0-9]{2}:[0-9]{2})$' collate "C"
           then 'must be a date and time with an offset, as 2099-12-31T23:59:59Z (RFC 3339)' end
    when 'boolean' then case when jsonb_typeof(value) <> 'boolean' then 'must be true or false' end
    when 'object' then case when jsonb_typeof(value) <> 'object' then 'must be an object' end
    when 'array' then case when jsonb_typeof(value) <> 'array' then 'must be an array' end
  end end;
$$;

revoke execute on function cart_value_problem(jsonb, text, bigint, text[]) from public;

comment on function cart_value_problem(jsonb, text, bigint, text[]) is
  'Step of cart_put and inventory_set_many: why a value is none of its kind of field, in words; null if it is, and for JSON''s null.';
