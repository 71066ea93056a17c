-- depends: pycheckout_0036_order_refund_index
-- transactional: false
-- cost: build vendor_orders
--
-- A buyer finds orders by the reference that they gave them.

create index concurrently if not exists idx_vendor_orders_buyer_store_id_purchase_order
    on vendor_orders (buyer_store_id, purchase_order)
 where purchase_order is not null;
