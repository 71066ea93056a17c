-- Orders of which more was given back than captured, or more captured than authorised: an event is missing, or a provider is wrong.
-- An authorisation that was given up whole is none.
select paid.order_id::text as subject,
       case when paid.refunded > paid.captured then format('has %s given back of %s captured', paid.refunded, paid.captured)
            else format('has %s captured of %s authorised', paid.captured, paid.authorized) end as problem,
       format('Compare with the provider, and record what is missing: select * from payment_events where order_id = %L;', paid.order_id) as remedy
  from (select event.order_id,
               coalesce(sum(event.amount_cents) filter (where event.kind = 'authorized'), 0) as authorized,
               coalesce(sum(event.amount_cents) filter (where event.kind = 'voided'), 0) as voided,
               coalesce(sum(event.amount_cents) filter (where event.kind = 'captured'), 0) as captured,
               coalesce(sum(event.amount_cents) filter (where event.kind in ('refunded', 'disputed', 'reversed')), 0) as refunded
          from payment_events as event
         group by event.order_id) as paid
 where paid.refunded > paid.captured or paid.authorized > paid.voided and paid.captured > paid.authorized
 order by paid.order_id
 limit 20
