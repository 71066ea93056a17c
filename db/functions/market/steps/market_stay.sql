-- market_stay: takes a move back at the server that has the market: it is sold in there as before.
--
-- Only after the target was shut, or never opened: market_shut says so.

create or replace function market_stay(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  perform market_expect(market_stay.epoch, 'leaving', 'moving');
  update checkout_market set state = 'selling', server = home, changed_at = v_now;
  delete from checkout_moves as move where move.epoch = market_stay.epoch;
end;
$$;

revoke execute on function market_stay(bigint) from public;

comment on function market_stay(bigint) is
  'Step of a move that is taken back, at the source: opens the gate there.';
