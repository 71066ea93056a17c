-- market_set_gate: puts the gate of a move on every table.

create or replace function market_set_gate(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_table regclass;
begin
  -- a loop, because each trigger is a statement of its own
  for v_table in select gated from market_tables() as gated loop
    execute format('create or replace trigger market_gate before insert or update or delete or truncate on %s for each statement '
                   'execute function market_gate(%L)', v_table, market_set_gate.epoch);
  end loop;
end;
$$;

revoke execute on function market_set_gate(bigint) from public;

comment on function market_set_gate(bigint) is
  'Step of a move: gives every table the trigger market_gate.';
