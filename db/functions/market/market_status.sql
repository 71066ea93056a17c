-- market_status: where this market is in a move, if one is under way or was.
--
-- A market that never moved has no row, and is sold in here.

create or replace function market_status()
returns jsonb
language plpgsql
stable
set search_path from current
as $$
declare
  v_here checkout_market;
begin
  select * into v_here from checkout_market;
  return jsonb_build_object('state', coalesce(v_here.state, 'selling'), 'epoch', coalesce(v_here.epoch, 0), 'server', v_here.server,
                            'followed_until', checkout_timestamp(v_here.followed_until), 'changed_at', checkout_timestamp(v_here.changed_at));
end;
$$;

revoke execute on function market_status() from public;

comment on function market_status() is
  'Whether the market is sold in here: {"state": "selling", "epoch": 0, "server": null, "followed_until": null, "changed_at": null}. The states are those of '
  'checkout_market; server is the one that the market goes to, went to, or said that it is on; until followed_until the server that it came from follows. For the owner.';
