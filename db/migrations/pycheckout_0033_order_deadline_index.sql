-- depends: pycheckout_0032_order_number_index
-- transactional: false
-- cost: build vendor_orders
--
-- What vendor_orders_expire() ends, oldest deadline first: its cost is that of what is due.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_expires_at_id'); end $$;

create index concurrently if not exists idx_vendor_orders_expires_at_id
    on vendor_orders (expires_at, id)
 where status = 'created_pending' and expires_at is not null;
