-- market_gate: the trigger that lets nobody write into a market while it moves.
--
-- It takes effect for calls too that waited for a table while it was made; no right, body or name that is changed does
-- that. It opens by the market's row, in one UPDATE. What a snapshot from before shows of that row opens nothing: only
-- that this move, by its number, was taken back, or came to its end, or that a later one begins. The workers of a
-- subscription pass, as all do whose session_replication_role is replica.

create or replace function market_gate()
returns trigger
language plpgsql
security definer
set search_path from current
as $$
begin
  perform market_refuse();
  if not exists (
    select from checkout_market as here
     where here.state = 'selling' and here.epoch >= tg_argv[0]::bigint or here.state = 'leaving' and here.epoch > tg_argv[0]::bigint)
  then
    perform market_raise_moving();
  end if;
  return null;
end;
$$;

revoke execute on function market_gate() from public;

comment on function market_gate() is
  'Trigger of a move, on every table while it is made, with the number of the move: raises OC014 or OC015.';
