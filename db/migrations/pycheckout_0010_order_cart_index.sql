-- depends: pycheckout_0009_cart_anchor_index
-- transactional: false
-- cost: build vendor_orders
--
-- Whether orders carry a cart: its id is never quoted again then.

create index concurrently if not exists idx_vendor_orders_cart_id
    on vendor_orders (cart_id);
