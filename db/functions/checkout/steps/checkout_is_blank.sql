-- checkout_is_blank: whether a text has nothing to read, in any script.
--
-- Unicode's White_Space, and what has no width. Not [[:space:]], which the database's locale decides.

create or replace function checkout_is_blank(value text)
returns boolean
language sql
immutable
as $$
  select checkout_is_blank.value ~ E'^[\\u0009-\\u000D\\u0020\\u0085\\u00A0\\u1680\\u180E\\u2000-\\u200D\\u2028\\u2029\\u202F\\u205F\\u2060\\u3000\\uFEFF]*$' collate "C";
$$;

revoke execute on function checkout_is_blank(text) from public;

comment on function checkout_is_blank(text) is
  'Whether a text is empty or all of it is white space (Unicode White_Space) or without width, whatever the locale. Null for null.';
