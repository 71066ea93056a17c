-- inventory_own_slot: where a session begins to look for units of a split product, so that sessions spread over its slots.

create or replace function inventory_own_slot(slots integer)
returns integer
language plpgsql
stable
as $$
begin
  return 1 + pg_backend_pid() % inventory_own_slot.slots;
end;
$$;

revoke execute on function inventory_own_slot(integer) from public;

comment on function inventory_own_slot(integer) is
  'Step of checkout_execute: the slot, of so many, that this session tries first.';
