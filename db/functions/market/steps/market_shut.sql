-- market_shut: shuts the market for good at the server that it was to come to, before it is sold in again at the other.
--
-- Under the lock of the row that market_open changes, so one of the two comes first and the other finds it.

create or replace function market_shut(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  perform market_expect(market_shut.epoch, 'arriving', 'closed');
  update checkout_market set state = 'closed', changed_at = v_now;
end;
$$;

revoke execute on function market_shut(bigint) from public;

comment on function market_shut(bigint) is
  'Step of a move that is taken back, at the target: it can be opened no more. Raises if it was.';
