-- market_arrive: has the market at the server that it comes to be shut to everybody, from its first moment on.

create or replace function market_arrive(epoch bigint, server text)
returns void
language plpgsql
as $$
begin
  insert into checkout_market (state, epoch, server) values ('arriving', market_arrive.epoch, market_arrive.server);
  perform market_set_gate(market_arrive.epoch);
  perform market_guard();
end;
$$;

revoke execute on function market_arrive(bigint, text) from public;

comment on function market_arrive(bigint, text) is
  'Step of a move, at the target, in the transaction that makes the schema there: every call is answered by OC014.';
