-- market_open: opens the market at the server that it came to, or came back to: the point of no return.
--
-- The mark of the move is there: so the source is shut, and everything that was written before is here. A move that was
-- taken back meanwhile is not in this state any more, or its number was used up. Oids belong to a cluster, so the roles
-- are found again by name; who is not here is forgotten by nobody.

create or replace function market_open(epoch bigint, way_back interval default null)
returns void
language plpgsql
as $$
declare
  v_now constant timestamptz := clock_timestamp();
  v_here checkout_market;
begin
  select * into v_here from checkout_market for update;
  if not coalesce(v_here.state = 'moved' and v_here.epoch < market_open.epoch, false)
     and market_expect(market_open.epoch, 'arriving', 'selling') = 'selling' then
    return;
  end if;
  if not exists (select from checkout_moves as move
                  where move.epoch = market_open.epoch and move.destination = coalesce(v_here.home, v_here.server)) then
    raise exception 'move % has not arrived: its mark is not here', market_open.epoch
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  update checkout_market
     set state = 'selling', epoch = market_open.epoch, server = coalesce(v_here.home, v_here.server), followed_until = v_now + market_open.way_back,
         followed_from = case when market_open.way_back is not null then pg_current_wal_insert_lsn() end, changed_at = v_now;
  update checkout_roles as remembered
     set role_oid = role.oid
    from pg_roles as role
   where role.rolname = remembered.role_name;
end;
$$;

revoke execute on function market_open(bigint, interval) from public;

comment on function market_open(bigint, interval) is
  'Step of a move, at the target: from its commit on the market is sold in there, and for so long the source is to follow (null: not at all). '
  'Raises if the mark of the move has not arrived.';
