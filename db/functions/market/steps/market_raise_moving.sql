-- market_raise_moving: refuses a call while the market moves.

create or replace function market_raise_moving()
returns void
language plpgsql
as $$
begin
  raise exception 'the market is being moved to another server'
    using errcode = 'OC014',
          detail = jsonb_build_object('problem', 'market_moving'),
          hint = 'Make the same call again in a moment, with the same key.';
end;
$$;

revoke execute on function market_raise_moving() from public;

comment on function market_raise_moving() is
  'Step of the gate: raises OC014.';
