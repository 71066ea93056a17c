-- depends: pycheckout_0019_ad_signing_keys
-- transactional: false
-- cost: build outbox_events
--
-- One event of each kind a conversion. Partial: an existing table holds other types, some more than once an aggregate.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0019_ad_signing_keys', 'outbox_events', 'idx_outbox_events_conversion'); end $$;

create unique index concurrently if not exists idx_outbox_events_conversion
    on outbox_events (aggregate_id, event_type)
 where event_type in ('checkout.vendor_orders_created', 'checkout.converted');
