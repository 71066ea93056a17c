-- market_drop_gate: takes the gate from a table, behind a move.
--
-- One table a transaction: the lock that it needs keeps everybody out, if only for a moment.

create or replace function market_drop_gate(relation regclass)
returns void
language plpgsql
as $$
begin
  if exists (select from checkout_market as here where here.state not in ('selling', 'leaving')) then
    raise exception 'the market is not sold in here: its gate stays'
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  execute format('drop trigger if exists market_gate on %s', market_drop_gate.relation);
end;
$$;

revoke execute on function market_drop_gate(regclass) from public;

comment on function market_drop_gate(regclass) is
  'Step of a move that has ended or was taken back: drops the trigger market_gate of a table.';
