-- depends: pycheckout_0007_backfill_anchors
-- transactional: false
-- cost: build vendor_orders
--
-- The orders of one checkout are read by their anchor.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_checkout_group_id'); end $$;

create index concurrently if not exists idx_vendor_orders_checkout_group_id
    on vendor_orders (checkout_group_id);
