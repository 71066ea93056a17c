-- depends: pycheckout_0017_conversion_events_index
-- transactional: false
--
-- Whether orders carry a cart's id, which is never quoted again then: the trigger of migration 0018 asks with each new cart.

create index concurrently if not exists idx_vendor_orders_cart_id
    on vendor_orders (cart_id);
