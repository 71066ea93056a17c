-- market_leave: begins a move at the server that has the market, or goes on with it.
--
-- The market is sold in as before. A second move of it is refused, and so are deployments and migrations until it ended:
-- what is copied is what is here now. A grant is not refused before the gate: the comparison of both servers finds one, and
-- one that comes after the comparison is not at the target.

create or replace function market_leave(server text, home text)
returns bigint
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_here checkout_market;
begin
  perform pg_advisory_xact_lock(hashtext('pycheckout deploy'), hashtext(current_schema()));
  insert into checkout_market (state, epoch) values ('selling', 0) on conflict (place) do nothing;
  select * into v_here from checkout_market for update;
  if v_here.state in ('leaving', 'moving') and v_here.server = market_leave.server then
    return v_here.epoch;
  end if;
  if v_here.state <> 'selling' then
    raise exception 'the market is % already, in move % (server %)', v_here.state, v_here.epoch, v_here.server
      using errcode = 'object_not_in_prerequisite_state', hint = 'End that move first, or take it back.';
  end if;
  if v_here.followed_until is not null
     and market_leave.server <> (select move.origin from checkout_moves as move order by move.epoch desc limit 1) then
    raise exception 'the server that the market came from follows still, and % is another', market_leave.server
      using errcode = 'object_not_in_prerequisite_state', hint = 'End that move first: pycheckout market finish.';
  end if;
  update checkout_market
     set state = 'leaving', epoch = v_here.epoch + 1, server = market_leave.server, home = market_leave.home, standbys = '{}', vacuumed = '{}',
         changed_at = v_now;
  return v_here.epoch + 1;
end;
$$;

revoke execute on function market_leave(text, text) from public;

comment on function market_leave(text, text) is
  'Step of a move, at the source: begins it, or finds it under way to the same server; answers its number.';
