-- depends: pycheckout_0009_cart_anchor_index
-- transactional: false
-- cost: build vendor_orders
--
-- Whether orders carry a cart: its id is never quoted again then.

do $$ begin perform checkout_migration_pin(); perform checkout_index_prepare('pycheckout_0005_order_cart_id', 'vendor_orders', 'idx_vendor_orders_cart_id'); end $$;

create index concurrently if not exists idx_vendor_orders_cart_id
    on vendor_orders (cart_id);
