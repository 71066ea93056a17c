-- checkout_raise_rows: the one way to say that a row of a conversion, or of a change to an order or to stock, was not written.
--
-- A BEFORE trigger of the host that returns null leaves a row out without an error: an order without its intent would
-- never be paid. A row too many is one that somebody else wrote under this anchor.

create or replace function checkout_raise_rows(cart_id uuid, table_name text, expected bigint, written bigint)
returns void
language plpgsql
stable
as $$
begin
  if checkout_raise_rows.cart_id is null then
    raise exception '% of % rows of table % were written', checkout_raise_rows.written, checkout_raise_rows.expected, checkout_raise_rows.table_name
      using errcode = 'OC007',
            detail = jsonb_build_object('problem', 'rows_written', 'table', checkout_raise_rows.table_name,
                                        'expected', checkout_raise_rows.expected, 'found', checkout_raise_rows.written),
            hint = 'Look for a trigger on the table that leaves rows out: nothing was changed.';
  end if;
  perform cart_raise_inconsistent(checkout_raise_rows.cart_id, jsonb_build_object(
    'problem', 'rows_written', 'table', checkout_raise_rows.table_name,
    'expected', checkout_raise_rows.expected, 'found', checkout_raise_rows.written));
end;
$$;

revoke execute on function checkout_raise_rows(uuid, text, bigint, bigint) from public;

comment on function checkout_raise_rows(uuid, text, bigint, bigint) is
  'Raises OC007 with the table of which not as many rows were written as there should be, as when a trigger leaves one out. cart_id: null where it is about stock alone.';
