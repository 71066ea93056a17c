-- depends: pycheckout_0034_order_refund_index
-- transactional: false
-- cost: build vendor_orders
--
-- Orders are found by the reference that their buyers gave them, newest first.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0030_order_amounts', 'vendor_orders', 'idx_vendor_orders_purchase_order_created_at_id'); end $$;

create index concurrently if not exists idx_vendor_orders_purchase_order_created_at_id
    on vendor_orders (purchase_order, created_at, id)
 where purchase_order is not null;
