-- inventory_spread: how many of the wanted units come from each slot, the first slots first.

create or replace function inventory_spread(wanted integer, available_qtys integer[])
returns integer[]
language plpgsql
immutable
as $$
begin
  return (
    select array_agg(least(part.qty, greatest(inventory_spread.wanted - part.before, 0))::integer order by part.position)
      from (select slot.qty, slot.position, coalesce(sum(slot.qty) over (order by slot.position rows between unbounded preceding and 1 preceding), 0) as before
              from unnest(inventory_spread.available_qtys) with ordinality as slot (qty, position)) as part
    having sum(part.qty) >= inventory_spread.wanted);
end;
$$;

revoke execute on function inventory_spread(integer, integer[]) from public;

comment on function inventory_spread(integer, integer[]) is
  'Step of inventory_reserve: the units to take of each slot, in the order of the available ones; null if there are too few.';
