-- depends: pycheckout_0011_order_vendor_index
-- transactional: false
-- cost: build vendor_orders
--
-- The orders of a buyer, in the order of their time, a page at a time.

create index concurrently if not exists idx_vendor_orders_buyer_store_id_created_at_id
    on vendor_orders (buyer_store_id, created_at, id);
