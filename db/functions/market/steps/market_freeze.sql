-- market_freeze: shuts the market at the server that it leaves: all tables locked, the gate on each, the mark of the move written.
--
-- Whoever calls it sets a statement_timeout below the deadlock_timeout: then this gives up where it meets somebody, and no
-- caller does. In one transaction, so a row that the move copies is from before the mark, or is none.

create or replace function market_freeze(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_cart constant text := 'cart_records';
begin
  perform market_expect(market_freeze.epoch, 'leaving');
  execute format('lock table %I in exclusive mode', v_cart);
  execute format('lock table %s in share row exclusive mode', (select string_agg(gated::text, ', ') from market_tables() as gated));
  insert into checkout_moves (epoch, origin, destination, frozen_at)
  select here.epoch, here.home, here.server, v_now from checkout_market as here;
  perform market_set_gate(market_freeze.epoch);
  update checkout_market set state = 'moving', changed_at = v_now;
end;
$$;

revoke execute on function market_freeze(bigint) from public;

comment on function market_freeze(bigint) is
  'Step of a move, at the source: from its commit on nothing is written, and everything that was is before the mark in checkout_moves.';
