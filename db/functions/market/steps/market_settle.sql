-- market_settle: ends the way back of a move: nothing follows the server that has the market any more.

create or replace function market_settle(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  perform market_expect(market_settle.epoch, 'selling');
  update checkout_market set followed_until = null, followed_from = null, changed_at = v_now where followed_until is not null;
end;
$$;

revoke execute on function market_settle(bigint) from public;

comment on function market_settle(bigint) is
  'Step of a move that is finished, at the server that has the market: it may be migrated and deployed to again.';
