-- market_tables: the tables that a gate stands on and a move copies, in the order in which a gate locks them.
--
-- The cart comes first: whoever checks out holds it, so behind its lock no checkout is under way and none begins. The
-- others stand as the calls come to them, the outbox last. What is not named here, a table of the host too, comes after
-- these. checkout_market is each server's own.

create or replace function market_tables()
returns setof regclass
language plpgsql
stable
as $$
begin
  return query
  select class.oid::regclass
    from pg_class as class
    left join unnest('{cart_records,cart_vendor_groups,cart_items,checkout_requests,inventory_items,inventory_slots,inventory_holds,vendor_orders,
                       order_line_items,payment_intents,order_changes,payment_events,outbox_events}'::text[]) with ordinality as known (name, place)
      on known.name = class.relname
   where class.relnamespace = quote_ident(current_schema())::regnamespace
     and class.relkind in ('r', 'p') and class.relpersistence = 'p' and class.relname <> 'checkout_market'
   order by known.place, class.relname collate "C";
end;
$$;

revoke execute on function market_tables() from public;

comment on function market_tables() is
  'Step of a move: the tables of the schema but checkout_market, in the order in which a gate locks them.';
