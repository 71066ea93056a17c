-- market_shut: shuts the market for good at the server that it was to come to, before it is sold in again at the other.
--
-- Under the lock of the row that market_open changes, so one of the two comes first and the other finds it. A server that
-- the market was to come back to says where it is, as before: for it, the number of the move is used up.

create or replace function market_shut(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  update checkout_market as here
     set epoch = market_shut.epoch, changed_at = v_now
   where here.state = 'moved' and here.epoch <= market_shut.epoch;
  if found then
    return;
  end if;
  perform market_expect(market_shut.epoch, 'arriving', 'closed');
  update checkout_market set state = 'closed', changed_at = v_now;
end;
$$;

revoke execute on function market_shut(bigint) from public;

comment on function market_shut(bigint) is
  'Step of a move that is taken back, at the target: that move can open it no more. Raises if it did.';
