-- order_raise_units: the one way to say that a line has fewer units than were asked for.

create or replace function order_raise_units(line order_line_items, asked integer, there integer)
returns void
language plpgsql
stable
as $$
begin
  raise exception 'order line % has % units for this, not %', (order_raise_units.line).id, order_raise_units.there, order_raise_units.asked
    using errcode = 'OC012',
          detail = jsonb_build_object('what', 'order line', 'id', (order_raise_units.line).id, 'status', (order_raise_units.line).status,
                                      'asked', order_raise_units.asked, 'units', order_raise_units.there),
          hint = 'Read the order again; somebody else may have been faster.';
end;
$$;

revoke execute on function order_raise_units(order_line_items, integer, integer) from public;

comment on function order_raise_units(order_line_items, integer, integer) is
  'Raises OC012 order_state_conflict, naming the units that were asked for and those that there are.';
