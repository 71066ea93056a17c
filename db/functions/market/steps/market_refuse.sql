-- market_refuse: refuses what is asked of a market that is not sold in here.
--
-- Only while a market moves, and after it moved, do the calls begin with this; see market_guard. Before the gate it lets
-- everything pass, and while the gate stands what only reads: what it answers is still so.

create or replace function market_refuse()
returns void
language plpgsql
as $$
declare
  v_here checkout_market;
begin
  select * into v_here from checkout_market;
  if v_here.state = 'moved' then
    raise exception 'the market has moved to server %', v_here.server
      using errcode = 'OC015',
            detail = jsonb_build_object('server', v_here.server, 'epoch', v_here.epoch),
            hint = 'Make the same call there, with the same key. pycheckout.markets does so, if its map has that server.';
  end if;
  if v_here.state in ('arriving', 'closed') then
    perform market_raise_moving();
  end if;
end;
$$;

revoke execute on function market_refuse() from public;

comment on function market_refuse() is
  'Step of the gate, and of every call while a market moves: raises OC015 where the market has gone from, OC014 where it has not arrived.';
