-- market_expect: the move that a step belongs to, under the lock of the market's row.
--
-- Each step names its move by number. So one that comes late, of a command that was given up, finds another number or
-- another state and does nothing.

create or replace function market_expect(epoch bigint, variadic states text[])
returns text
language plpgsql
as $$
declare
  v_here checkout_market;
begin
  select * into v_here from checkout_market for update;
  if v_here.epoch is distinct from market_expect.epoch or not coalesce(v_here.state = any (market_expect.states), false) then
    raise exception 'the market is % in move %, and this step is for move %, while it is %',
                    coalesce(v_here.state, 'selling'), coalesce(v_here.epoch, 0), market_expect.epoch, array_to_string(market_expect.states, ' or ')
      using errcode = 'object_not_in_prerequisite_state', hint = 'See where the move is: pycheckout market status.';
  end if;
  return v_here.state;
end;
$$;

revoke execute on function market_expect(bigint, text[]) from public;

comment on function market_expect(bigint, text[]) is
  'Step of a move: locks the row of checkout_market and answers its state; raises unless that is one of these, in this move.';
