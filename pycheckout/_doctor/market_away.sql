-- A market that moves, has moved, or was left with the gate of a move: whoever asks it here has a map that is not true any more,
-- or waits for a command that died. Or one whose way back was to end by now, and that still keeps WAL for it.
with here as materialized (   -- apart: Citus joins no table with a catalog
  select state, server, epoch, followed_until from checkout_market
)
select case here.state when 'moved' then 'map' else 'market' end as subject,
       case here.state
         when 'moved' then format('names this server, and the market is on %s since move %s', here.server, here.epoch)
         when 'selling' then format('still has the gate of move %s, which costs every call a little', here.epoch)
         else format('is %s, in move %s (server %s)', here.state, here.epoch, here.server) end as problem,
       case here.state
         when 'moved' then format('server = "%s" in the map', here.server)
         else 'pycheckout market move, again, ends the move; with --abort it takes it back' end as remedy
  from here
 where here.state <> 'selling'
    or exists (select 1 from pg_trigger join pg_class on pg_class.oid = tgrelid
                where tgname = 'market_gate' and relnamespace = quote_ident(current_schema())::regnamespace)
 union all
select 'way back', format('was to be kept until %s, and the server keeps WAL for it', date_trunc('second', here.followed_until)),
       'pycheckout market finish'
  from here
 where here.followed_until < clock_timestamp()
 union all
select 'way back', 'is not followed: the server that the market came from is away, or met an error', 'pycheckout market move --plan, in the other direction, says why'
  from here
 where here.followed_until is not null
   and not exists (select 1 from pg_replication_slots as slot
                     join pg_publication on pubname = slot.slot_name
                     join pg_publication_rel on prpubid = pg_publication.oid
                     join pg_class on pg_class.oid = prrelid
                    where slot.active and relnamespace = quote_ident(current_schema())::regnamespace)
