-- market_open: opens the market at the server that it came to: the point of no return.
--
-- The mark of the move is there: so the source is shut, and everything that was written before is here. A move that was
-- taken back meanwhile is not in this state any more. Oids belong to a cluster, so the roles are found again by name; who
-- is not here is forgotten by nobody.

create or replace function market_open(epoch bigint)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
begin
  if market_expect(market_open.epoch, 'arriving', 'selling') = 'selling' then
    return;
  end if;
  if not exists (select from checkout_moves as move where move.epoch = market_open.epoch) then
    raise exception 'move % has not arrived: its mark is not here', market_open.epoch
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  update checkout_market set state = 'selling', changed_at = v_now;
  update checkout_roles as remembered
     set role_oid = role.oid
    from pg_roles as role
   where role.rolname = remembered.role_name;
end;
$$;

revoke execute on function market_open(bigint) from public;

comment on function market_open(bigint) is
  'Step of a move, at the target: from its commit on the market is sold in there. Raises if the mark of the move has not arrived.';
