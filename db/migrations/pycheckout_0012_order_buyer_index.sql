-- depends: pycheckout_0011_order_vendor_index
-- transactional: false
-- cost: build vendor_orders
--
-- The orders of a buyer, in the order of their time, a page at a time.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_buyer_store_id_created_at_id'); end $$;

create index concurrently if not exists idx_vendor_orders_buyer_store_id_created_at_id
    on vendor_orders (buyer_store_id, created_at, id);
