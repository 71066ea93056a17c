-- inventory_even_out: what comes off what is available in each slot of a product, so that these units are spread evenly over them.
--
-- The first slots take what does not divide.

create or replace function inventory_even_out(available_qtys integer[], available bigint)
returns bigint[]
language sql
immutable
as $$
  select array_agg(slot.available_qty - inventory_even_out.available / cardinality(inventory_even_out.available_qtys)
                   - case when slot.place <= inventory_even_out.available % cardinality(inventory_even_out.available_qtys) then 1 else 0 end
                   order by slot.place)
    from unnest(inventory_even_out.available_qtys) with ordinality as slot (available_qty, place);
$$;

revoke execute on function inventory_even_out(integer[], bigint) from public;

comment on function inventory_even_out(integer[], bigint) is
  'Step of the inventory functions: the units to take off each slot of a product, whose available units are given, so that all have as many as they can of so many units.';
