-- checkout_count_rows: refuses a conversion of which a row is missing.
--
-- A BEFORE trigger of the host that returns null leaves a row out without an error: an order without its intent would
-- never be paid. A row too many is one that somebody else wrote under this anchor.

create or replace function checkout_count_rows(cart_id uuid, table_name text, expected bigint, written bigint)
returns void
language plpgsql
immutable
as $$
begin
  if checkout_count_rows.written <> checkout_count_rows.expected then
    perform cart_raise_inconsistent(checkout_count_rows.cart_id, jsonb_build_object(
      'problem', 'rows_written', 'table', checkout_count_rows.table_name,
      'expected', checkout_count_rows.expected, 'found', checkout_count_rows.written));
  end if;
end;
$$;

revoke execute on function checkout_count_rows(uuid, text, bigint, bigint) from public;

comment on function checkout_count_rows(uuid, text, bigint, bigint) is
  'Step of checkout_execute: raises OC007 unless as many rows of a table were written as the conversion has, as when a trigger leaves one out.';
