-- depends: pycheckout_0026_outbox_published_index
-- transactional: false
-- cost: build cart_records
--
-- What cart_purge() deletes, oldest first: carts by their conversion, quotes by their end.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0023_outbox_relay', 'cart_records', 'idx_cart_records_converted_at_valid_until'); end $$;

create index concurrently if not exists idx_cart_records_converted_at_valid_until
    on cart_records (coalesce(converted_at, valid_until));
