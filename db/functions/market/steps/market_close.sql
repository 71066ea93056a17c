-- market_close: says at the server that the market left where it is now.

create or replace function market_close(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  if market_expect(market_close.epoch, 'moving', 'moved') = 'moving' then
    update checkout_market set state = 'moved', followed_until = null, followed_from = null, changed_at = v_now;
  end if;
end;
$$;

revoke execute on function market_close(bigint) from public;

comment on function market_close(bigint) is
  'Step of a move, at the source, after the target was opened: from then on every call is answered by OC015.';
